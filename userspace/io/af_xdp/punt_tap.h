// The way back into the kernel: frames written here are received by the kernel as if they had come
// in by the interface that this belongs to (its conntrack, its sockets, its forwarding).
//
// A TAP device with one queue (file descriptor) per worker, whose ingress redirects every frame to
// the interface (bpf/punt.bpf.c). It is not persistent: it goes when the process ends. It has no
// addresses and says nothing by itself; its name is "slu" and the index of the interface.
//
// The kernel takes checksums as they are (CHECKSUM_NONE): they must be complete.
//
// Thread: opened by control; queue w is written by worker w only.
#ifndef SLUICE_IO_AF_XDP_PUNT_TAP_H_
#define SLUICE_IO_AF_XDP_PUNT_TAP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "bpf/include/abi.h"
#include "io/port.h"
#include "packet/packet.h"

struct sluice_punt;

namespace sluice::io::af_xdp {

class PuntTap {
 public:
  // `cookie`: see XdpProgram::punt_cookie().
  static absl::StatusOr<std::unique_ptr<PuntTap>> Open(IfIndex target, uint16_t workers,
                                                       uint64_t cookie);
  ~PuntTap();
  PuntTap(const PuntTap&) = delete;
  PuntTap& operator=(const PuntTap&) = delete;

  // Never blocks. False when the kernel did not take the packet. The packet stays the caller's.
  bool Write(WorkerId worker, const packet::FrameArena& arena, const packet::Packet& p);

  const std::string& name() const { return name_; }

 private:
  PuntTap() = default;
  absl::Status CreateDevice(uint16_t workers);
  absl::Status ConfigureDevice();
  absl::Status AttachRedirect(IfIndex target);

  std::string name_;
  std::vector<int> fds_;  // by worker
  sluice_punt* skeleton_ = nullptr;
  bool marks_ = false;
  sluice_punt_header mark_{};
};

static_assert(PuntDevice<PuntTap>);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_PUNT_TAP_H_
