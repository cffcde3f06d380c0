// What ARP and ND input have in common: the context of a call, and the frame's way to the kernel.
//
// Verdicts of HandleArp and HandleNdp:
//   Local       consumed. When p.frame is kNoFrame, the outbox has the frame (a copy for the
//               kernel, which the worker frees after writing it); otherwise the caller frees it.
//   Punt, Drop  the frame is still the caller's.
//   Continue    (HandleNdp only) not neighbour discovery.
// The caller counts the verdict; packets made here are counted here (counters.generated). A copy
// is counted (punt_copies) by the worker when the kernel has taken it.
#ifndef SLUICE_STAGES_NEIGHBOR_INPUT_H_
#define SLUICE_STAGES_NEIGHBOR_INPUT_H_

#include <cstddef>
#include <span>
#include <vector>

#include "base/counter.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/neighbor/neighbor_machine.h"
#include "stages/neighbor/neighbor_state.h"
#include "tables/snapshot.h"

namespace sluice::stages {

// Evidence on its way to the other workers; what does not fit is lost and counted (they will find
// out by asking).
class NeighborEvents {
 public:
  static constexpr size_t kCapacity = 512;

  NeighborEvents() { events_.reserve(kCapacity); }

  void Push(const NeighborEvent& event) {
    if (events_.size() == kCapacity) {
      lost_.Add();
      return;
    }
    events_.push_back(event);
  }
  std::span<const NeighborEvent> all() const { return events_; }
  void Clear() { events_.clear(); }
  const Counter& lost() const { return lost_; }

 private:
  std::vector<NeighborEvent> events_;
  Counter lost_;
};

struct InputContext {
  NeighborMachine& machine;
  NeighborEvents& events;
  const tables::Snapshot& snapshot;
  Nanos now;
  packet::Outbox& outbox;
  WorkerCounters& counters;

  bool Learn(const NeighborEvent& event) {
    events.Push(event);
    return machine.Learn(event, now);
  }
};

// Consumed here, and shown to the kernel: its own neighbour table lives on answers, too. When the
// list is full the kernel misses one and asks again.
inline packet::Verdict LocalWithCopy(packet::Packet& p, packet::Outbox& outbox) {
  if (outbox.Punt(p, PuntReason::kNeighborDiscovery, true)) p.frame = packet::kNoFrame;
  return packet::Verdict::Local();
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_INPUT_H_
