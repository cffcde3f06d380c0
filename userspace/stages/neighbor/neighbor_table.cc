#include "stages/neighbor/neighbor_table.h"

#include <algorithm>
#include <bit>
#include <cassert>
#include <limits>

#include "base/rng.h"

namespace sluice::stages {

NeighborTable::NeighborTable(uint32_t limit, uint64_t seed) : limit_(std::max(limit, 1u)) {
  Rng rng(seed);
  const uint32_t places = std::bit_ceil(std::max(limit_ * 2, 16u));
  mask_ = places - 1;
  shift_ = 64 - static_cast<uint32_t>(std::countr_zero(places));
  multiplier_a_ = rng.Next() | 1;
  multiplier_b_ = rng.Next() | 1;
  entries_.resize(places);
}

NeighborEntry* NeighborTable::Insert(IfaceSlot slot, const IpAddress& ip) {
  if (used() >= limit_) return nullptr;
  const uint16_t tag = Tag(slot, ip.family);
  const uint32_t home = Home(tag, ip.bits);
  uint32_t i = home;
  for (; entries_[i].in_use(); i = (i + 1) & mask_) {
    // A count that would overflow means tens of thousands of collisions: refuse rather than lie.
    if (entries_[i].passed == std::numeric_limits<uint16_t>::max()) return nullptr;
  }
  for (uint32_t j = home; j != i; j = (j + 1) & mask_) ++entries_[j].passed;
  NeighborEntry& e = entries_[i];
  const uint16_t passed = e.passed;
  e = NeighborEntry{};
  e.passed = passed;
  e.address = ip.bits;
  e.tag = tag;
  used_.Add();
  counts_[static_cast<size_t>(e.state)].Add();
  return &e;
}

void NeighborTable::Remove(NeighborEntry& e) {
  assert(e.in_use() && e.held == 0);
  const uint32_t place = IndexOf(e);
  for (uint32_t j = Home(e.tag, e.address); j != place; j = (j + 1) & mask_) --entries_[j].passed;
  counts_[static_cast<size_t>(e.state)].Sub();
  used_.Sub();
  e.tag = 0;
}

void NeighborTable::SetState(NeighborEntry& e, NeighborState state) {
  counts_[static_cast<size_t>(e.state)].Sub();
  counts_[static_cast<size_t>(state)].Add();
  e.state = state;
}

NeighborEntry* NeighborTable::FindVictim(Nanos idle_since) {
  NeighborEntry* best = nullptr;
  bool best_is_stale = false;
  const uint32_t sweep = std::min(kSweep, places());
  for (uint32_t n = 0; n < sweep; ++n) {
    NeighborEntry& e = entries_[hand_];
    hand_ = (hand_ + 1) & mask_;
    // Packets only wait for incomplete ones.
    if (!e.in_use() || IsFixed(e.state) || e.state == NeighborState::kIncomplete) continue;
    if (e.state == NeighborState::kFailed) return &e;
    const bool is_stale = e.state == NeighborState::kStale;
    if (!is_stale && e.used > idle_since) continue;
    if (best == nullptr || is_stale > best_is_stale ||
        (is_stale == best_is_stale && e.used < best->used)) {
      best = &e;
      best_is_stale = is_stale;
    }
  }
  return best;
}

uint32_t NeighborTable::Enumerate(uint32_t cursor, std::span<NeighborInfo> out,
                                  size_t* written) const {
  *written = 0;
  uint32_t i = cursor;
  for (; i <= mask_ && *written < out.size(); ++i) {
    const NeighborEntry& e = entries_[i];
    if (!e.in_use()) continue;
    out[(*written)++] = {e.ip(),   e.mac,  e.slot(),    e.state, e.is_router,
                         e.probes, e.held, e.confirmed, e.used,  e.updated};
  }
  return i <= mask_ ? i : 0;
}

}  // namespace sluice::stages
