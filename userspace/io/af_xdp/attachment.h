// Everything that binds one interface to Sluice: its XDP program, a port per receive queue, and the
// way back into the kernel. Opening it changes nothing for the traffic; Enable(true) does.
//
// Closing goes from the outside in: no frame is redirected any more, then the program goes, then
// the sockets, and every frame is given back.
//
// Errors are one sentence that names the interface, what failed and what to do about it.
//
// Thread: control. The ports are lent to the workers between Open and Close.
#ifndef SLUICE_IO_AF_XDP_ATTACHMENT_H_
#define SLUICE_IO_AF_XDP_ATTACHMENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "io/af_xdp/interface_probe.h"
#include "io/af_xdp/port.h"
#include "io/af_xdp/punt_tap.h"
#include "io/af_xdp/xdp_program.h"
#include "packet/frame_pool.h"

namespace sluice::io::af_xdp {

enum class Choice : uint8_t { kAuto, kOn, kOff };

// For `sluice show interfaces` and the metrics.
struct AttachmentDescription {
  InterfaceInfo interface;
  std::string mode;            // "native" or "generic"
  std::string native_refusal;  // why not native, when that was tried
  bool zero_copy = false;
  bool multi_buffer = false;  // jumbo frames in several buffers
  uint16_t queues = 0;
  uint32_t chunk_size = 0;
  bool busy_polling = false;
  uint32_t program_id = 0;
  std::string punt_device;
  SocketStatistics statistics;  // summed over the queues
};

class InterfaceAttachment {
 public:
  struct Options {
    std::string name;
    IfaceSlot slot;
    XdpMode mode = XdpMode::kAuto;
    Choice zero_copy = Choice::kAuto;
    Choice busy_poll = Choice::kAuto;  // auto: only on real NICs
    uint16_t queues = 0;               // 0: as many as the interface has now
    uint16_t workers = 1;              // writers of the punt device
    RingSizes rings;
    uint32_t fill_target = 0;  // frames per queue to receive into; 0: the fill ring's size
    EarlyLimits* early_limits = nullptr;  // outlives the attachment; null: no early filter
    const OffloadMaps* offload = nullptr;  // likewise; null: no flow tier
  };

  // Takes up to fill_target frames per queue from `pool`, which the caller owns at the moment.
  static absl::StatusOr<std::unique_ptr<InterfaceAttachment>> Open(const Options& options,
                                                                   const packet::FrameArena& arena,
                                                                   packet::FramePool& pool);
  // Close() must come first, or the frames are lost.
  ~InterfaceAttachment();
  InterfaceAttachment(const InterfaceAttachment&) = delete;
  InterfaceAttachment& operator=(const InterfaceAttachment&) = delete;

  // No worker may use the ports or the punt device any more. All frames go to `pool`.
  void Close(packet::FramePool& pool);

  // Whether XDP hands frames to the workers, or everything to the kernel.
  void SetEnabled(bool enabled) { program_->SetEnabled(enabled); }
  // The interface's MAC address has changed.
  void SetOwnMac(const Mac& mac) { program_->SetOwnMac(mac); }
  // Likewise its MTU.
  void SetMtu(uint32_t mtu) { program_->SetMtu(mtu); }
  // What the flow tier does with what arrives here, see XdpProgram.
  bool SetOffload(uint32_t word) { return program_->SetOffload(word); }

  // Groups whose UDP datagrams go to the workers, see XdpProgram.
  XdpProgram::GroupProblems SetGroups(std::span<const IpAddress> groups) {
    return program_->SetGroups(groups);
  }
  size_t groups() const { return program_->groups(); }

  IfaceSlot slot() const { return slot_; }
  const InterfaceInfo& interface() const { return interface_; }
  size_t queue_count() const { return ports_.size(); }
  AfXdpPort& port(QueueId queue) { return *ports_[queue.value]; }
  PuntTap& punt() { return *punt_; }
  // True when the interface has gone (any of its ports is dead): close it, and open it anew when
  // it is back.
  bool dead() const;
  // Frames that a NIC did not let go of when it was closed (zero-copy only).
  uint32_t frames_lost() const { return frames_lost_; }

  absl::StatusOr<XdpCounts> ReadXdpCounts() const { return program_->ReadCounts(); }
  // Null without Options::early_limits.
  EarlyFilter* early_filter() { return program_->early_filter(); }
  AttachmentDescription Describe() const;

 private:
  InterfaceAttachment() = default;
  absl::Status OpenWith(const Options& options, const packet::FrameArena& arena,
                        packet::FramePool& pool, bool zero_copy, bool multi_buffer);
  void CloseSockets(packet::FramePool& pool);

  IfaceSlot slot_;
  InterfaceInfo interface_;
  uint32_t chunk_size_ = 0;
  uint32_t frames_lost_ = 0;
  bool restore_vlan_offload_ = false;
  std::unique_ptr<XdpProgram> program_;
  std::vector<std::unique_ptr<AfXdpPort>> ports_;  // by queue
  std::unique_ptr<PuntTap> punt_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_ATTACHMENT_H_
