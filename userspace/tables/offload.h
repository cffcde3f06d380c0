// What workers, the control thread and XDP share of the flow tier: the generations, the cells of
// entries, and the orders to change the maps. Layouts are those of bpf/include/offload_abi.h.
//
// Threads: the world's and the routes' generations are written by the control thread and, where a
// neighbour changes, by workers (Bump); cells and splices belong to the worker that owns their ids,
// but for the counters, which XDP writes.
#ifndef SLUICE_TABLES_OFFLOAD_H_
#define SLUICE_TABLES_OFFLOAD_H_

#include <cstdint>
#include <span>

#include "base/address.h"
#include "base/ids.h"
#include "bpf/include/offload_abi.h"

namespace sluice::tables {

static_assert(kMaxInterfaces <= 64);  // one word of `closed`

// The maps' memory; null pointers: there is no flow tier.
struct OffloadMemory {
  sluice_offload_state* state = nullptr;
  sluice_offload_cell* cells = nullptr;  // [cpus][ids]
  sluice_splice* splices = nullptr;      // [ids]
  uint32_t ids = 0;
  uint32_t cpus = 0;

  bool valid() const { return state != nullptr; }
  sluice_offload_cell& cell(uint32_t cpu, uint32_t id) const { return cells[size_t{cpu} * ids + id]; }
};

// An order to the map's owner. Of a removal only the key and `entry4.action.id` (`entry6.` ...)
// count: an entry with another id has taken the key over, and stays.
struct OffloadChange {
  enum class Kind : uint8_t { kAdd, kRemove };
  Kind kind = Kind::kAdd;
  Family family = Family::kIpv4;
  union {
    sluice_offload_key4 key4 = {};
    sluice_offload_key6 key6;
  };
  union {
    sluice_offload_entry4 entry4 = {};
    sluice_offload_entry6 entry6;
  };
  sluice_offload_action& action() { return family == Family::kIpv4 ? entry4.action : entry6.action; }
  const sluice_offload_action& action() const {
    return family == Family::kIpv4 ? entry4.action : entry6.action;
  }
};

// The generations, as one reads them before anything that an entry is made from.
inline uint32_t WorldGeneration(const OffloadMemory& memory) {
  return __atomic_load_n(&memory.state->world, __ATOMIC_ACQUIRE);
}
inline uint32_t RouteGeneration(const OffloadMemory& memory, uint16_t bucket) {
  return __atomic_load_n(&memory.state->routes[bucket], __ATOMIC_ACQUIRE);
}

// Outputs that a driver has taken nothing for, as bits by slot: no entries for them. XDP's side sets
// them, before it ends all entries; the control thread takes them back.
inline uint64_t ClosedOutputs(const OffloadMemory& memory) {
  return __atomic_load_n(&memory.state->closed[0], __ATOMIC_ACQUIRE);
}
inline void ReopenOutputs(const OffloadMemory& memory, uint64_t outputs) {
  __atomic_and_fetch(&memory.state->closed[0], ~outputs, __ATOMIC_ACQ_REL);
}
// Frames that XDP has sent there and the driver has not taken.
inline uint64_t LostFrames(const OffloadMemory& memory, IfaceSlot out) {
  return __atomic_load_n(&memory.state->lost[out.value], __ATOMIC_RELAXED);
}

// Ends every entry. Call it after the change is visible.
inline void BumpWorld(const OffloadMemory& memory) {
  if (!memory.valid()) return;
  if (__atomic_add_fetch(&memory.state->world, 1, __ATOMIC_ACQ_REL) == 0) {
    __atomic_add_fetch(&memory.state->world, 1, __ATOMIC_ACQ_REL);
  }
}

inline uint16_t OffloadBucket(Ipv4 address) {
  return static_cast<uint16_t>(SLUICE_OFFLOAD_BUCKET4(address.value >> 16));
}
inline uint16_t OffloadBucket(const Ipv6& address) {
  return static_cast<uint16_t>(SLUICE_OFFLOAD_BUCKET6(static_cast<uint32_t>(address.hi >> 32)));
}

// Ends the entries whose route may be by this prefix. Call it after the FIB has changed. First of all
// it says that something is about to end: a worker that made an entry from what it had looked up
// before asks for RouteChanges at the end once more.
inline uint32_t RouteChanges(const OffloadMemory& memory) {
  return __atomic_load_n(&memory.state->changes, __ATOMIC_ACQUIRE);
}
inline void BumpRoute(const OffloadMemory& memory, uint16_t bucket) {
  __atomic_add_fetch(&memory.state->changes, 1, __ATOMIC_ACQ_REL);
  __atomic_add_fetch(&memory.state->routes[bucket], 1, __ATOMIC_ACQ_REL);
}
inline void BumpRoute(const OffloadMemory& memory, const Ipv4Prefix& prefix) {
  if (!memory.valid()) return;
  if (prefix.length < 16) return BumpWorld(memory);
  BumpRoute(memory, OffloadBucket(prefix.address));
}
inline void BumpRoute(const OffloadMemory& memory, const Ipv6Prefix& prefix) {
  if (!memory.valid()) return;
  if (prefix.length < 32) return BumpWorld(memory);
  BumpRoute(memory, OffloadBucket(prefix.address));
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_OFFLOAD_H_
