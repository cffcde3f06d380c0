// The neighbour stage as the pipeline sees it: what it sends to by MAC address, what comes in by
// ARP and ND, and what the kernel and the other workers say about neighbours.
//
// Who counts what (the conservation law of worker_counters.h rests on it):
//  - held_packets of the arrival interface: up in Hold when it says Held, down in TakeReady and
//    TakeLost. All here. Packets without an arrival interface (our own) are not counted.
//  - what becomes of a taken packet: the caller. forwarded when the output ring has taken it,
//    dropped[reason] for a lost one.
//  - the verdicts of Hold, HandleArp and HandleNdp: the caller (local, punted, dropped).
//  - generated[kArpRequest, kArpReply, kNeighborSolicitation, kNeighborAdvertisement]: here, when
//    the outbox has taken the packet.
//  - punt_copies: the worker, when the kernel has taken a copy.
//
// A tick of the worker: HandleArp/HandleNdp/Hold as packets come; after each call that may settle
// packets (has_settled), TakeReady and TakeLost until they are empty, so that order is kept;
// Advance; then events() to the other workers, ClearEvents.
//
// Gratuitous ARP and unsolicited NA for our own addresses are the kernel's to send.
// Thread: the owning worker.
#ifndef SLUICE_STAGES_NEIGHBOR_NEIGHBORS_H_
#define SLUICE_STAGES_NEIGHBOR_NEIGHBORS_H_

#include <cstdint>
#include <span>

#include "stages/neighbor/arp_input.h"
#include "stages/neighbor/input.h"
#include "stages/neighbor/ndp_input.h"
#include "stages/neighbor/neighbor_machine.h"
#include "stages/neighbor/neighbor_state.h"

namespace sluice::stages {

// The machine, and the messages that feed it.
class Neighbors : public NeighborMachine {
 public:
  // At most `limit` neighbours. `seed` decides the hash and the jitter; `start` is the time now.
  Neighbors(const packet::FrameArena& arena, uint32_t limit, uint64_t seed, Nanos start)
      : NeighborMachine(arena, limit, seed, start) {}

  packet::Verdict HandleArp(packet::Packet& p, const tables::Snapshot& snapshot, Nanos now,
                            packet::Outbox& outbox, WorkerCounters& counters) {
    UseSnapshot(snapshot);
    InputContext context{*this, events_, snapshot, now, outbox, counters};
    return stages::HandleArp(p, context);
  }
  packet::Verdict HandleNdp(packet::Packet& p, const tables::Snapshot& snapshot, Nanos now,
                            packet::Outbox& outbox, WorkerCounters& counters) {
    UseSnapshot(snapshot);
    InputContext context{*this, events_, snapshot, now, outbox, counters};
    return stages::HandleNdp(p, context);
  }

  // Evidence from frames that this worker received, for the other workers.
  std::span<const NeighborEvent> events() const { return events_.all(); }
  void ClearEvents() { events_.Clear(); }
  const Counter& events_lost() const { return events_.lost(); }
  // Evidence that another worker received. It is not passed on.
  void ApplyPeerEvent(const NeighborEvent& event, Nanos now) { Learn(event, now); }

 private:
  NeighborEvents events_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_NEIGHBORS_H_
