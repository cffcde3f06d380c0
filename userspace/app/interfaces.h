// The served interfaces: attaches those that are there, lets go of those that vanish, and takes them
// back when they return. Slots belong to names and last as long as the configuration names them.
//
// An interface is attached when it exists and is administratively up. It is let go when it vanishes,
// becomes another device (ifindex), changes its number of queues, or its configuration changes.
// Carrier and MTU come and go without that.
//
// Frames: each attachment borrows what it fills its rings with from the spare pool. When it closes,
// the same number returns there, and the workers' pools even out the difference, so that no flap
// ever moves frames from one side to the other for good.
//
// Thread: control.
#ifndef SLUICE_APP_INTERFACES_H_
#define SLUICE_APP_INTERFACES_H_

#include <array>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "app/served_port.h"
#include "app/worker_thread.h"
#include "base/ids.h"
#include "base/time.h"
#include "control/config.h"
#include "control/mirror/kernel_state.h"
#include "io/af_xdp/attachment.h"
#include "packet/frame_pool.h"

namespace sluice::app {

struct ServedInterface {
  control::InterfaceConfig config;  // empty name: the slot is free
  std::unique_ptr<io::af_xdp::InterfaceAttachment> attachment;
  std::vector<std::unique_ptr<ServedPort>> ports;  // by queue
  uint32_t borrowed = 0;    // frames it took from the spare pool
  bool enabled = false;     // XDP hands its frames to the workers
  bool leaving = false;     // about to be let go: nothing new is sent its way
  std::string problem;      // why it is not attached, or not in the mode asked for
  Nanos retry_at;           // after a failed attempt
  uint32_t attempts = 0;

  bool attached() const { return attachment != nullptr; }
  IfIndex ifindex() const { return attachment ? attachment->interface().index : IfIndex{}; }
};

class Interfaces {
 public:
  using Workers = std::span<const std::unique_ptr<WorkerThread>>;

  // What one queue of one interface is given to receive into, and what it may have in flight.
  static constexpr uint32_t kFillFrames = 1024;
  static constexpr uint32_t kRingSize = 2048;
  static constexpr uint32_t kFramesPerQueue = kFillFrames + kRingSize + 512;

  // Called when an interface is about to be let go, while its ports still send: routes and snapshot
  // are to leave it out from then on, so that packets towards it go to the kernel and none is lost.
  void set_before_detach(std::function<void()> callback) { before_detach_ = std::move(callback); }

  // Called before an interface is attached, at first without rules in XDP.
  void set_before_attach(std::function<void()> callback) { before_attach_ = std::move(callback); }
  // For the early filter; without, there is none.
  void set_early_limits(io::af_xdp::EarlyLimits* limits) { early_limits_ = limits; }

  // The flow tier's maps; without, there is none.
  void set_offload(const io::af_xdp::OffloadMaps* maps) { offload_ = maps; }

  // `spare` holds every frame that no worker has.
  Interfaces(const packet::FrameArena& arena, packet::FramePool& spare, Workers workers)
      : arena_(arena), spare_(spare), workers_(workers) {}

  // Takes over the names. Those that are gone, or configured otherwise now, are let go. Error: more
  // than kMaxInterfaces in use at once; nothing is changed then.
  absl::Status Configure(const std::vector<control::InterfaceConfig>& wanted);

  // Brings the attachments in line with what the kernel has. True when any came or went. With
  // `strict` the first failure is returned (the start of the program); otherwise it is kept in
  // `problem` and tried again later.
  absl::StatusOr<bool> Reconcile(const control::KernelState& kernel, bool strict, Nanos now);

  // XDP hands frames over, or leaves all to the kernel: per worker that is stuck, and at the end.
  void SetEnabled(bool enabled);
  void Shed(WorkerId stalled, bool shed);

  void CloseAll();

  IfaceSlot SlotOf(IfIndex ifindex) const;
  std::span<const ServedInterface, kMaxInterfaces> all() const { return slots_; }

 private:
  ServedInterface& SlotFor(const std::string& name);  // there is a free one
  absl::Status Attach(IfaceSlot slot, const control::Link& link);
  void Detach(IfaceSlot slot, const std::string& why);
  bool MustDetach(const ServedInterface& served, const control::Link* link, std::string& why) const;
  WorkerId WorkerOf(size_t queue) const {
    return WorkerId{static_cast<uint8_t>(queue % workers_.size())};
  }
  void GivePorts(IfaceSlot slot);
  void EvenOut(uint32_t borrowed, uint32_t returned);

  const packet::FrameArena& arena_;
  packet::FramePool& spare_;
  const Workers workers_;
  std::array<ServedInterface, kMaxInterfaces> slots_;
  std::array<std::string, kMaxInterfaces> last_names_;  // who had the slot last
  std::array<bool, kMaxWorkers> shed_{};
  bool enabled_ = false;
  std::function<void()> before_detach_;
  std::function<void()> before_attach_;
  io::af_xdp::EarlyLimits* early_limits_ = nullptr;
  const io::af_xdp::OffloadMaps* offload_ = nullptr;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_INTERFACES_H_
