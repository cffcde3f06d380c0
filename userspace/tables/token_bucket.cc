#include "tables/token_bucket.h"

#include <bit>

namespace sluice::tables {

RateLimitTable::RateLimitTable(size_t capacity, uint64_t seed)
    : seed_(seed),
      nodes_(std::max<size_t>(capacity, 1)),
      chains_(std::bit_ceil(nodes_.size()), kNone) {}

uint32_t& RateLimitTable::ChainOf(const IpAddress& peer) {
  Rng mix(seed_ ^ peer.bits.hi ^ static_cast<uint64_t>(peer.family));
  Rng again(mix.Next() ^ peer.bits.lo);
  return chains_[again.Next() & (chains_.size() - 1)];
}

void RateLimitTable::Detach(uint32_t index) {
  const Node& node = nodes_[index];
  (node.newer != kNone ? nodes_[node.newer].older : newest_) = node.older;
  (node.older != kNone ? nodes_[node.older].newer : oldest_) = node.newer;
}

void RateLimitTable::MakeNewest(uint32_t index) {
  Node& node = nodes_[index];
  node.newer = kNone;
  node.older = newest_;
  (newest_ != kNone ? nodes_[newest_].newer : oldest_) = index;
  newest_ = index;
}

PeerBucket& RateLimitTable::Get(const IpAddress& peer, Nanos now) {
  for (uint32_t i = ChainOf(peer); i != kNone; i = nodes_[i].chain) {
    if (nodes_[i].peer != peer) continue;
    Detach(i);
    MakeNewest(i);
    return nodes_[i].bucket;
  }
  uint32_t index;
  if (size_ < nodes_.size()) {
    index = static_cast<uint32_t>(size_++);
  } else {
    index = oldest_;
    Detach(index);
    uint32_t* link = &ChainOf(nodes_[index].peer);
    while (*link != index) link = &nodes_[*link].chain;
    *link = nodes_[index].chain;
    ++evictions_;
  }
  Node& node = nodes_[index];
  node.peer = peer;
  node.bucket = PeerBucket(now);
  uint32_t& chain = ChainOf(peer);
  node.chain = chain;
  chain = index;
  MakeNewest(index);
  return node.bucket;
}

}  // namespace sluice::tables
