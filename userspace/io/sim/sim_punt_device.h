// A simulated interface's way into the kernel (io/port.h): it keeps what it is given.
//
// Thread: one (simulations step everything in turn).
#ifndef SLUICE_IO_SIM_SIM_PUNT_DEVICE_H_
#define SLUICE_IO_SIM_SIM_PUNT_DEVICE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "io/port.h"
#include "packet/packet.h"

namespace sluice::io {

class SimPuntDevice {
 public:
  using Bytes = std::vector<uint8_t>;

  bool Write(WorkerId, const packet::FrameArena& arena, const packet::Packet& p) {
    if (blocked_) return false;
    Bytes& bytes = written_.emplace_back(p.length);
    packet::CopyOut(arena, p, 0, bytes.data(), p.length);
    return true;
  }

  std::vector<Bytes> TakeWritten() { return std::exchange(written_, {}); }
  // The kernel takes nothing from now on, or takes it up again.
  void set_blocked(bool blocked) { blocked_ = blocked; }

 private:
  std::vector<Bytes> written_;
  bool blocked_ = false;
};

static_assert(PuntDevice<SimPuntDevice>);

}  // namespace sluice::io

#endif  // SLUICE_IO_SIM_SIM_PUNT_DEVICE_H_
