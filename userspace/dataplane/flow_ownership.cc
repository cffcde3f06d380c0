// Which worker has a packet's connection: by the owner function, or by an alias where NAT has changed
// the ports that it goes by.
#include "dataplane/firewall.h"
#include "stages/conntrack/tuple.h"
#include "tables/flow_owner.h"
#include "wire/flow_hash.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Packet;
using tables::Flow;
using tables::FlowDirection;

namespace {

// Of an alias that nothing uses: the word that its connection has ended may get lost.
constexpr Nanos kAliasLife = Seconds(int64_t{5} * 86'400);

}  // namespace

WorkerId Firewall::OwnerOf(const Key& key) const {
  if (worker_count_ == 1 || key.hash == 0) return worker_;
  return tables::OwnerOf(key.tuple, worker_count_);
}

WorkerId Firewall::OwnerByAlias(const Key& key, Nanos now) {
  if (worker_count_ == 1 || key.hash == 0) return worker_;
  const tables::FlowTable::Found found = flows_.Find(key.tuple, key.hash);
  if (!found.found() || !flows_.at(found.flow).Has(tables::kFlowAlias)) return worker_;
  flows_.Touch(found.flow, now);
  flows_.at(found.flow).expires = now + kAliasLife;
  return WorkerId{flows_.at(found.flow).owner};
}

bool Firewall::Announce(const Flow& flow, bool ended) {
  if (alias_count_ == kAliases) return false;
  const tables::FlowTuple& replies = flow.tuple(FlowDirection::kReply);
  aliases_[alias_count_++] = {tables::OwnerOf(replies, worker_count_), {replies, ended}};
  return true;
}

void Firewall::ApplyAlias(const tables::FlowAlias& alias, WorkerId owner, Nanos now) {
  const tables::FlowTable::Found known = flows_.Find(alias.tuple);
  if (known.found()) {
    // A connection of this worker with the very same packets stays; its own replies come here.
    if (!flows_.at(known.flow).Has(tables::kFlowAlias)) return;
    flows_.Remove(known.flow);
  }
  if (alias.ended) return;
  const tables::FlowIndex index = flows_.Allocate(now, [](tables::FlowIndex) {});
  if (index == tables::kNoFlow) return;
  Flow& flow = flows_.at(index);
  flow.tuple(FlowDirection::kOriginal) = alias.tuple;
  flow.status = tables::kFlowAlias | tables::kFlowAssured;
  flow.owner = owner.value;
  flow.expires = now + kAliasLife;
  if (!stages::InvertTuple(alias.tuple, flow.tuple(FlowDirection::kReply)) ||
      !flows_.Insert(index)) {
    flows_.Free(index);
  }
}

WorkerId Firewall::OwnerOfFragment(const Packet& p, Family family) const {
  if (worker_count_ == 1) return worker_;
  uint32_t hash;
  if (family == Family::kIpv4) {
    const wire::Ipv4View ip(p.l3());
    hash = wire::FlowHashL3(ip.source(), ip.destination(), 0);
  } else {
    const wire::Ipv6View ip(p.l3());
    hash = wire::FlowHashL3(ip.source(), ip.destination(), 0, 0, 0);
  }
  return WorkerId{static_cast<uint8_t>(uint64_t{hash} * worker_count_ >> 32)};
}

}  // namespace sluice::dataplane
