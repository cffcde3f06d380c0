// The control side of the flow tier (dataplane/offload.h is the workers'): owns the maps, says which
// interfaces take part and how, and carries out the workers' orders in batches.
//
// Around each publication of a snapshot the world's generation changes twice: before, so that XDP
// stops to carry by the old state; after, since a worker may have made entries from it in between.
//
// An interface takes part as input in native mode (in generic mode the kernel has made an skb of the
// frame already, and there is less to win), as output when frames can be redirected into it. That is
// looked for every kProbeInterval: the other end of a veth pair may change. In between,
// io/af_xdp/redirect_loss.h closes an output at the first frames that its device does not take; it is
// looked at then, and stays closed for kProbeInterval.
//
// Thread: control. Cost: a turn looks at the workers' rings every 2 to 200 ms, the more often the more
// there is; a batch is a system call per 256 orders.
#ifndef SLUICE_APP_OFFLOAD_CONTROL_H_
#define SLUICE_APP_OFFLOAD_CONTROL_H_

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "app/interfaces.h"
#include "base/time.h"
#include "control/config.h"
#include "dataplane/offload.h"
#include "io/af_xdp/offload_maps.h"
#include "io/af_xdp/redirect_loss.h"
#include "io/af_xdp/redirect_probe.h"
#include "tables/snapshot.h"

namespace sluice::app {

class OffloadControl {
 public:
  static constexpr Nanos kProbeInterval = Seconds(5);
  static constexpr Nanos kUnknownInterval = Seconds(1);  // while there is no answer

  using Served = std::span<const ServedInterface, kMaxInterfaces>;
  using Workers = Interfaces::Workers;

  // `entries` for all workers together.
  static absl::StatusOr<std::unique_ptr<OffloadControl>> Create(control::Choice choice,
                                                                uint32_t entries,
                                                                uint32_t workers);

  const io::af_xdp::OffloadMaps& maps() const { return *maps_; }
  tables::OffloadMemory memory() const { return maps_->memory(); }
  dataplane::OffloadConfig ForWorker(WorkerId worker, uint64_t seed) const;

  // Looks at the interfaces; at most every kProbeInterval, unless one has come. True: something is
  // different from before, a new snapshot should say so.
  bool Probe(Served served, Nanos now);
  void Leaves(const ServedInterface& served);

  // Sockets relay packets, or may do so: from the next Describe on, XDP looks for entries of relays as well.
  // For good, since entries of services that are gone end as their sessions do.
  void ExpectRelays() { relays_ = true; }

  // Sets the snapshot's members about the tier, and tells XDP. Invalidate() before and after its
  // publication.
  void Describe(Served served, tables::Snapshot& snapshot);
  void Invalidate() { tables::BumpWorld(memory()); }

  void Drain(Workers workers, Nanos now);
  Nanos NextDeadline() const { return std::min(next_drain_, next_probe_); }

  // Why an interface does not take part as input or output; empty: it does.
  std::string InputProblem(const ServedInterface& served) const;
  std::string OutputProblem(IfaceSlot slot) const;
  uint64_t failed_orders() const { return maps_->counts().full; }  // the map was full
  uint32_t entries() const { return entries_; }
  // That XDP has sent there, and the device has not taken.
  uint64_t lost_frames(IfaceSlot slot) const { return tables::LostFrames(memory(), slot); }

 private:
  struct Device {
    IfIndex ifindex;
    io::af_xdp::RedirectTarget target = io::af_xdp::RedirectTarget::kUnknown;
    std::string advice;
    bool in_map = false;
    bool announced = false;  // that it cannot
  };

  OffloadControl(control::Choice choice, uint32_t entries, uint32_t workers)
      : choice_(choice), entries_(entries), workers_(workers) {}
  bool CanOutput(const Device& device) const;
  bool ProbeOne(IfaceSlot slot, const std::string& name);
  bool SeeClosed(Served served, Nanos now);
  tables::OffloadModes ModesOf(const ServedInterface& served, const tables::Interface& interface,
                               const tables::Snapshot& snapshot) const;
  void SetOwnAddresses(const tables::Snapshot& snapshot);

  const control::Choice choice_;
  const uint32_t entries_;
  const uint32_t workers_;
  std::unique_ptr<io::af_xdp::OffloadMaps> maps_;
  std::unique_ptr<io::af_xdp::RedirectLoss> loss_;  // null: the kernel cannot
  std::array<Device, kMaxInterfaces> devices_;
  std::vector<tables::OffloadChange> batch_;
  uint64_t closed_ = 0;  // outputs whose closing has been seen
  Nanos next_probe_;
  Nanos next_drain_;
  Nanos drain_interval_;
  bool failed_ = false;  // the kernel refused a batch
  bool relays_ = false;  // there may be entries of relays
};

}  // namespace sluice::app

#endif  // SLUICE_APP_OFFLOAD_CONTROL_H_
