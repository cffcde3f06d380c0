// The life of a neighbour: the state machine of RFC 4861 section 7.3 with the kernel's rules
// (net/core/neighbour.c), for ARP as well as ND. Packets wait here until their next hop answers.
//
//     (none) --packet--> INCOMPLETE --answer--> REACHABLE --time--> STALE --packet--> DELAY
//                            |  no answer           ^        (in use: DELAY at once)    | 5 s
//                            v                      |                                   v
//                          FAILED                   +------------- answer ----------- PROBE -->
//                          FAILED
//
// Kernel rules kept here: the reachable time is drawn from 0.5 to 1.5 times its base, anew every
// five minutes per interface and family; the first question leaves at once, others each
// retrans_time; `mcast_solicit` questions to all when the MAC address is unknown, `ucast_solicit`
// probes when it is known; a packet too many pushes out the oldest one that waits; a MAC address
// younger than a second is not replaced by plain ARP; an entry that failed is asked for again when
// needed. Stale and failed entries unused for a minute are removed once there are more than
// kKeepEntries.
//
// Differences from the kernel: time is counted in ticks of kTick; when the table is full, an entry
// in use is never pushed out by a new one.
//
// Refuses: packets for a new neighbour when the table is full of entries in use.
// Cost: Resolve is one lookup; all else is O(1) but InterfaceDown and Enumerate.
// Thread: the owning worker. No allocation after construction, no clock.
#ifndef SLUICE_STAGES_NEIGHBOR_NEIGHBOR_MACHINE_H_
#define SLUICE_STAGES_NEIGHBOR_NEIGHBOR_MACHINE_H_

#include <array>
#include <cstdint>

#include "base/address.h"
#include "base/ids.h"
#include "base/reason.h"
#include "base/rng.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/neighbor/neighbor_state.h"
#include "stages/neighbor/neighbor_table.h"
#include "tables/snapshot.h"
#include "tables/timer_wheel.h"

namespace sluice::stages {

// The kernel's NUD_* bits, as rtnetlink tells them.
enum KernelNeighborState : uint16_t {
  kNudIncomplete = 0x01,
  kNudReachable = 0x02,
  kNudStale = 0x04,
  kNudDelay = 0x08,
  kNudProbe = 0x10,
  kNudFailed = 0x20,
  kNudNoArp = 0x40,
  kNudPermanent = 0x80,
};

// A packet whose wait has ended badly. It is the taker's to free.
struct LostPacket {
  packet::Packet packet;
  DropReason reason = DropReason::kNeighborFailed;
  bool report = false;  // its sender is owed an ICMP host (IPv6: address) unreachable
};

class NeighborMachine {
 public:
  static constexpr Nanos kTick = Millis(10);
  static constexpr Nanos kLockTime = Seconds(1);    // net.ipv4.neigh.*.locktime
  static constexpr Nanos kStaleTime = Seconds(60);  // net.*.neigh.*.gc_stale_time
  static constexpr uint32_t kKeepEntries = 128;     // net.*.neigh.default.gc_thresh1
  static constexpr Nanos kIdle = Seconds(5);        // when full, unused for this long may go
  static constexpr Nanos kRedraw = Seconds(300);    // of the reachable time
  static constexpr size_t kTimersPerAdvance = 256;  // keeps a tick, and the outbox, in bounds

  NeighborMachine(const packet::FrameArena& arena, uint32_t limit, uint64_t seed, Nanos start);

  // Takes over the settings. Flushes interfaces that are no longer up or are other devices now.
  // Does nothing when it knows this generation; all calls that get a snapshot do it.
  void UseSnapshot(const tables::Snapshot& snapshot);

  // The MAC address to send to, or null: Hold the packet. Valid until the next call of anything.
  const Mac* Resolve(IfaceSlot slot, const IpAddress& next_hop, Nanos now) {
    NeighborEntry* e = table_.Find(slot, next_hop);
    if (e == nullptr || !IsUsable(e->state)) [[unlikely]]
      return nullptr;
    e->used = now;
    if (e->state == NeighborState::kStale) [[unlikely]]
      StartDelay(*e, now);
    return &e->mac;
  }
  // The same without counting as use.
  const Mac* Peek(IfaceSlot slot, const IpAddress& next_hop) {
    NeighborEntry* e = table_.Find(slot, next_hop);
    return e == nullptr || !IsUsable(e->state) ? nullptr : &e->mac;
  }
  void Prefetch(IfaceSlot slot, const IpAddress& next_hop) const {
    table_.Prefetch(slot, next_hop);
  }

  // Keeps a packet (its IP header in place, ready but for the Ethernet header) until `next_hop`
  // answers, and asks. Held: it is ours now. Drop: it is still the caller's.
  packet::Verdict Hold(packet::Packet p, IfaceSlot slot, const IpAddress& next_hop,
                       const tables::Snapshot& snapshot, Nanos now, packet::Outbox& outbox,
                       WorkerCounters& counters);

  // Packets whose wait is over. Order among those of one neighbour is kept. The held_packets gauge
  // goes down as they are taken.
  bool has_settled() const { return ready_ != packet::kNoFrame || lost_any_; }
  // Its Ethernet header is complete and `out` is set: only to be transmitted.
  bool TakeReady(packet::Packet& p, WorkerCounters& counters);
  bool TakeLost(LostPacket& lost, WorkerCounters& counters);

  // Judges evidence by the rules of neigh_update. True when a MAC address or a state changed.
  bool Learn(const NeighborEvent& event, Nanos now);

  // A message of the kernel's table about one of its entries.
  void ApplyKernelNeighbor(IfaceSlot slot, const IpAddress& ip, const Mac& mac, uint16_t nud,
                           Nanos now);
  void RemoveKernelNeighbor(IfaceSlot slot, const IpAddress& ip, Nanos now);
  // Forgets an interface's neighbours, but for fixed ones: the kernel tells when those go.
  void InterfaceDown(IfaceSlot slot);

  // Goes up when a MAC address that packets were sent to is another one now, or none: what was
  // derived from one is to be derived anew. (An entry that nobody used for a minute goes silently.)
  uint64_t changes() const { return changes_; }

  Nanos NextDeadline() const { return timers_.NextDeadline(); }
  void Advance(Nanos now, const tables::Snapshot& snapshot, packet::Outbox& outbox,
               WorkerCounters& counters);

  const NeighborTable& table() const { return table_; }
  // What the reachable time of this interface and family is at present.
  Nanos ReachableTime(IfaceSlot slot, Family family, Nanos now);

 private:
  // Lists of packets that no longer wait, by fate.
  enum Fate : uint8_t { kFailed, kPushedOut, kDown, kFateCount };

  struct Parameters {
    tables::NeighborSettings settings;
    Nanos reachable_time;
    Nanos drawn_from;  // the base it was drawn from
    Nanos drawn_at;
  };
  struct Device {
    bool up = false;
    IfIndex ifindex;
    Mac mac;
    Parameters by_family[2];
  };
  struct Environment {
    const tables::Snapshot& snapshot;
    packet::Outbox& outbox;
    WorkerCounters& counters;
  };

  Parameters& parameters(IfaceSlot slot, Family family) {
    return devices_[slot.value].by_family[family == Family::kIpv6];
  }
  Parameters& parameters(const NeighborEntry& e) {
    return parameters(e.slot(), e.is_v4() ? Family::kIpv4 : Family::kIpv6);
  }
  Nanos ReachableTime(const NeighborEntry& e, Nanos now) {
    return ReachableTime(e.slot(), e.is_v4() ? Family::kIpv4 : Family::kIpv6, now);
  }

  NeighborEntry* Create(IfaceSlot slot, const IpAddress& ip, Nanos now);
  void Drop(NeighborEntry& e);
  void Arm(const NeighborEntry& e, Nanos deadline) {
    timers_.Schedule(table_.IndexOf(e), deadline);
  }
  void Enter(NeighborEntry& e, NeighborState state, Nanos now);
  void StartDelay(NeighborEntry& e, Nanos now);
  bool Update(NeighborEntry& e, const Mac* mac, NeighborState wanted, uint16_t flags, bool admin,
              Nanos now);
  void ReleaseReady(NeighborEntry& e);
  void ReleaseLost(NeighborEntry& e, Fate fate);
  void OnTimer(NeighborEntry& e, Nanos now, Environment& env);
  void Ask(NeighborEntry& e, Nanos now, Environment& env);
  void Collect(NeighborEntry& e, Nanos now);

  const packet::FrameArena& arena_;
  NeighborTable table_;
  tables::TimerWheel timers_;
  Rng rng_;
  uint64_t generation_ = ~uint64_t{0};
  std::array<Device, kMaxInterfaces> devices_;
  packet::FrameIndex ready_ = packet::kNoFrame;
  std::array<packet::FrameIndex, kFateCount> lost_;
  bool lost_any_ = false;
  uint64_t changes_ = 0;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_NEIGHBOR_MACHINE_H_
