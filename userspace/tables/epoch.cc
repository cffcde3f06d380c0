#include "tables/epoch.h"

#include <algorithm>
#include <limits>

namespace sluice::tables {

EpochDomain::~EpochDomain() {
  for (const Retired& r : retired_) r.deleter(r.context, r.argument);
}

void EpochDomain::Retire(Deleter deleter, void* context, uint64_t argument) {
  retired_.push_back({epoch_.load(std::memory_order_relaxed), deleter, context, argument});
  if (++since_reclaim_ >= kReclaimEvery) Reclaim();
}

uint64_t EpochDomain::OldestSeen() const {
  uint64_t oldest = std::numeric_limits<uint64_t>::max();
  for (const Reader& reader : readers_) {
    const uint64_t seen = reader.seen.load(std::memory_order_seq_cst);
    if (seen != kOffline) oldest = std::min(oldest, seen);
  }
  return oldest;
}

size_t EpochDomain::Reclaim() {
  since_reclaim_ = 0;
  if (retired_.empty()) return 0;
  const uint64_t now = epoch_.load(std::memory_order_relaxed);
  // An epoch is only used up when something was retired in it.
  if (retired_.back().epoch == now) epoch_.store(now + 1, std::memory_order_seq_cst);
  const uint64_t oldest = OldestSeen();
  size_t freed = 0;
  while (!retired_.empty() && retired_.front().epoch < oldest) {
    const Retired r = retired_.front();
    retired_.pop_front();
    r.deleter(r.context, r.argument);
    ++freed;
  }
  return freed;
}

void EpochDomain::Cancel(const void* context) {
  std::erase_if(retired_, [context](const Retired& r) { return r.context == context; });
}

uint64_t EpochDomain::lag() const {
  const uint64_t now = epoch_.load(std::memory_order_relaxed);
  return now - std::min(now, OldestSeen());
}

}  // namespace sluice::tables
