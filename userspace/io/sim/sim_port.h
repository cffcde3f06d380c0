// One queue of a simulated NIC: the same contract as an AF_XDP port (io/port.h), with the kernel
// replaced by two vectors.
//
// Frames that arrive are bytes put in by Deliver(); they take a frame from the fill ring and are lost
// (counted) when there is none. Frames that leave stay in the tx ring until Flush(), which copies
// their bytes to `TakeSent()` and completes them.
// With `segment_bytes` set, larger frames arrive in pieces, as multi-buffer AF_XDP delivers them.
//
// Thread: one (simulations step everything in turn).
#ifndef SLUICE_IO_SIM_SIM_PORT_H_
#define SLUICE_IO_SIM_SIM_PORT_H_

#include <cstdint>
#include <deque>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/worker_counters.h"
#include "io/sim/sim_punt_device.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"

namespace sluice::io {

class SimPort {
 public:
  using Bytes = std::vector<uint8_t>;

  struct Options {
    uint32_t fill_depth = 64;
    uint32_t tx_depth = 64;
    uint32_t segment_bytes = 0;  // 0: as much as a chunk holds
  };

  SimPort(IfaceSlot slot, Options options) : slot_(slot), options_(options) {}

  // The network's side.
  void Deliver(Bytes frame) { arrived_.push_back(std::move(frame)); }
  std::vector<Bytes> TakeSent() { return std::move(sent_); }
  bool idle() const { return arrived_.empty(); }
  uint64_t lost_for_want_of_frames() const { return lost_; }
  // The driver refuses to send from now on (a full or stopped queue), or takes it up again.
  void set_tx_blocked(bool blocked) { tx_blocked_ = blocked; }

  // The worker's side: io::IoPort and dataplane::WorkerPort.
  using PuntDevice = SimPuntDevice;
  IfaceSlot slot() const { return slot_; }
  size_t RxBurst(std::span<packet::Packet> out, packet::FramePool& pool,
                 InterfaceCounters& counters);
  size_t TxBurst(std::span<packet::Packet> packets, packet::FramePool& pool);
  void Flush(packet::FramePool& pool, InterfaceCounters& counters);
  uint32_t frames_in_fill() const { return static_cast<uint32_t>(fill_.size()); }
  uint32_t frames_in_tx() const { return tx_frames_; }

 private:
  bool TakeFrames(const Bytes& frame, packet::FramePool& pool, packet::Packet& out);

  const IfaceSlot slot_;
  const Options options_;
  std::deque<Bytes> arrived_;
  std::vector<packet::FrameIndex> fill_;
  std::vector<packet::Packet> tx_;
  uint32_t tx_frames_ = 0;
  std::vector<Bytes> sent_;
  uint64_t lost_ = 0;
  bool tx_blocked_ = false;
};

}  // namespace sluice::io

#endif  // SLUICE_IO_SIM_SIM_PORT_H_
