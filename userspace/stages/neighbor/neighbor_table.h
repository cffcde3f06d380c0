// The memory of a worker's neighbours: a hash table of fixed capacity whose entries never move, so
// that timers and packets may refer to them by index.
//
// Open addressing with linear probing in an array at least twice the limit. Each slot counts the
// entries that were pushed past it; a lookup ends at a slot that none was pushed past, so removing
// leaves nothing behind and an address that is not there costs one cache line too. An entry is one
// cache line with its key. The hash multiplies by secret odd numbers, so that nobody on the link
// can choose addresses that collide.
//
// This file knows nothing of protocols: states, timers and queues are in neighbors.h.
// Limits: `limit` entries; at the limit FindVictim proposes one to remove, or none.
// Thread: the owning worker; the counts may be read by anyone.
#ifndef SLUICE_STAGES_NEIGHBOR_NEIGHBOR_TABLE_H_
#define SLUICE_STAGES_NEIGHBOR_NEIGHBOR_TABLE_H_

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/address.h"
#include "base/counter.h"
#include "base/ids.h"
#include "base/time.h"
#include "packet/frame_arena.h"
#include "stages/neighbor/neighbor_state.h"

namespace sluice::stages {

struct alignas(64) NeighborEntry {
  Ipv6 address;         // an IPv4 address as in IpAddress
  uint16_t tag = 0;     // family and slot; 0 is a free place
  uint16_t passed = 0;  // entries pushed past this place; belongs to the place, not to the entry
  NeighborState state = NeighborState::kNone;
  bool is_router = false;
  Mac mac;
  uint16_t probes = 0;
  uint16_t held = 0;                                // packets that wait
  packet::FrameIndex last_held = packet::kNoFrame;  // a ring: its next is the first
  Nanos confirmed;
  Nanos used;
  Nanos updated;

  bool in_use() const { return tag != 0; }
  bool is_v4() const { return tag >> 8 == 4; }
  IfaceSlot slot() const { return IfaceSlot{static_cast<uint8_t>(tag)}; }
  IpAddress ip() const {
    return is_v4() ? IpAddress(Ipv4(static_cast<uint32_t>(address.lo))) : IpAddress(address);
  }
};
static_assert(sizeof(NeighborEntry) == 64);

class NeighborTable {
 public:
  static constexpr uint32_t kNoEntry = 0xffffffff;

  NeighborTable(uint32_t limit, uint64_t seed);
  NeighborTable(const NeighborTable&) = delete;
  NeighborTable& operator=(const NeighborTable&) = delete;

  NeighborEntry* Find(IfaceSlot slot, const IpAddress& ip) {
    const uint16_t tag = Tag(slot, ip.family);
    for (uint32_t i = Home(tag, ip.bits);; i = (i + 1) & mask_) {
      NeighborEntry& e = entries_[i];
      if (e.tag == tag && e.address == ip.bits) [[likely]]
        return &e;
      if (e.passed == 0) return nullptr;
    }
  }
  void Prefetch(IfaceSlot slot, const IpAddress& ip) const {
    __builtin_prefetch(&entries_[Home(Tag(slot, ip.family), ip.bits)]);
  }

  // The key must not be there yet. Null when `limit` entries are in use.
  NeighborEntry* Insert(IfaceSlot slot, const IpAddress& ip);
  void Remove(NeighborEntry& e);
  void SetState(NeighborEntry& e, NeighborState state);

  // An entry that may go to make room, or null: one that has failed, else the stale one used least
  // recently, else any other that no packet has used since `idle_since` (never a fixed one, nor one
  // that packets wait for). Looks at up to kSweep places from where it stopped last time: exact in
  // small tables, approximate in large ones.
  NeighborEntry* FindVictim(Nanos idle_since);
  static constexpr uint32_t kSweep = 256;

  uint32_t IndexOf(const NeighborEntry& e) const {
    return static_cast<uint32_t>(&e - entries_.data());
  }
  NeighborEntry& At(uint32_t index) { return entries_[index]; }
  const NeighborEntry& At(uint32_t index) const { return entries_[index]; }
  uint32_t places() const { return mask_ + 1; }  // indices are below this
  uint32_t limit() const { return limit_; }
  uint32_t used() const { return static_cast<uint32_t>(used_.Read()); }
  const Counter& count(NeighborState s) const { return counts_[static_cast<size_t>(s)]; }

  // Copies entries from place `cursor` (0 at first) on. Returns the cursor to continue with, 0 when
  // all have been seen. An entry present throughout is seen exactly once.
  uint32_t Enumerate(uint32_t cursor, std::span<NeighborInfo> out, size_t* written) const;

 private:
  static constexpr uint16_t Tag(IfaceSlot slot, Family family) {
    return static_cast<uint16_t>(static_cast<uint16_t>(family) << 8 | slot.value);
  }
  uint32_t Home(uint16_t tag, const Ipv6& address) const {
    // Two rounds: after one, subnets that count up run into each other for some multipliers.
    uint64_t h = (address.lo ^ uint64_t{tag} << 48) + std::rotl(address.hi * multiplier_b_, 32);
    h *= multiplier_a_;
    h = (h ^ h >> 32) * multiplier_b_;
    return static_cast<uint32_t>(h >> shift_);
  }

  const uint32_t limit_;
  uint32_t mask_;
  uint32_t shift_;
  uint64_t multiplier_a_;
  uint64_t multiplier_b_;
  uint32_t hand_ = 0;  // where the next sweep begins
  std::vector<NeighborEntry> entries_;
  Counter used_;
  std::array<Counter, kNeighborStateCount> counts_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_NEIGHBOR_TABLE_H_
