// One receive queue of a real interface, as the worker sees it (io::IoPort over an AF_XDP socket).
//
// Frames of this port are in one of three places, and each is in exactly one: with the kernel to be
// received into (fill ring, kernel, receive ring; also the pieces of a jumbo frame whose last piece
// has not come yet), with the kernel to be sent (transmit ring, kernel, completion ring), or not
// here. A byte per frame of the arena says which. It costs one plain store when a frame changes
// place, and is the only way to know all of them when the socket goes: the kernel keeps some where
// no ring shows them.
//
// In copy mode one sendto() sends 32 frames (more where the kernel lets us ask for it), so Flush()
// asks again until the ring is empty, the kernel takes nothing more, or it has tried often enough.
//
// A port is dead when its interface has gone. It then receives nothing and takes nothing; the
// control thread closes it, which gives all its frames back.
//
// Thread: the owning worker; Open, Close and the statistics: control.
#ifndef SLUICE_IO_AF_XDP_PORT_H_
#define SLUICE_IO_AF_XDP_PORT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/ids.h"
#include "base/worker_counters.h"
#include "io/af_xdp/socket.h"
#include "io/port.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"

namespace sluice::io::af_xdp {

class AfXdpPort {
 public:
  struct Options {
    IfaceSlot slot;
    Socket::Options socket;
    uint32_t fill_target = 0;  // frames to keep ready to be received into; 0: the fill ring's size
    bool busy_poll = false;    // drive the NIC from the worker, if the kernel can here
  };

  // `frames` are received into at once; more are taken from the worker's pool by Flush.
  static absl::StatusOr<std::unique_ptr<AfXdpPort>> Open(
      const Options& options, const packet::FrameArena& arena,
      std::span<const packet::FrameIndex> frames);
  ~AfXdpPort();
  AfXdpPort(const AfXdpPort&) = delete;
  AfXdpPort& operator=(const AfXdpPort&) = delete;

  // Closes the socket and appends every frame that was with it. The frames of a zero-copy socket
  // that the NIC does not let go of are not appended, but counted: see frames_lost().
  void Close(std::vector<packet::FrameIndex>& frames);

  // IoPort. A packet that RxBurst drops itself (too many pieces) it also counts as received.
  IfaceSlot slot() const { return slot_; }
  size_t RxBurst(std::span<packet::Packet> packets, packet::FramePool& pool,
                 InterfaceCounters& counters);
  size_t TxBurst(std::span<packet::Packet> packets, packet::FramePool& pool);
  void Flush(packet::FramePool& pool, InterfaceCounters& counters);
  uint32_t frames_in_fill() const { return static_cast<uint32_t>(frames_in_fill_.Read()); }
  // How many frames the kernel has put into the receive ring, and the worker has taken, modulo
  // 2^32. Any thread, until Close.
  uint32_t received() const { return __atomic_load_n(socket_->receive.producer, __ATOMIC_ACQUIRE); }
  uint32_t taken() const { return __atomic_load_n(socket_->receive.consumer, __ATOMIC_ACQUIRE); }
  uint32_t frames_in_tx() const { return static_cast<uint32_t>(frames_in_tx_.Read()); }

  // For poll(POLLIN) while the worker is idle.
  int fd() const { return fd_; }
  // Whether poll() should be called even if there is no time to sleep: the NIC waits for it.
  bool WantsPollWakeup() const;
  // Whether there is something to do that no poll() reports: frames wait to be sent or completed.
  bool HasPendingTx() const { return frames_in_tx() > 0; }
  // Whether some of them have not been taken by the device.
  bool HasUnsentTx() const;
  // Finds out whether the port is dead: sending does, but poll() does not. For the control thread
  // when it hears that the interface has gone, and for a worker now and then.
  void CheckAlive();
  bool dead() const { return dead_.Read() != 0; }
  // The kernel refused to send because the interface is (administratively) down.
  bool down() const { return down_.Read() != 0; }

  QueueId queue() const { return queue_; }
  bool zero_copy() const { return zero_copy_; }
  bool multi_buffer() const { return multi_buffer_; }
  bool busy_polling() const { return busy_poll_state_.Read() == kBusyPollOn; }
  uint32_t frames_lost() const { return frames_lost_; }
  absl::StatusOr<SocketStatistics> ReadStatistics() const { return socket_->ReadStatistics(); }

 private:
  enum Place : uint8_t { kElsewhere, kInFill, kInTx };
  enum BusyPollState : uint64_t { kBusyPollOff, kBusyPollAsked, kBusyPollOn };

  AfXdpPort(const Options& options, const packet::FrameArena& arena);
  bool AddPiece(packet::FrameIndex frame, const xdp_desc& desc, packet::FramePool& pool,
                InterfaceCounters& counters);
  bool Sendable(const packet::Packet& p) const;
  void PutOnRing(const packet::Packet& p, uint32_t index);
  void Kick(packet::FramePool& pool, InterfaceCounters& counters);
  bool CountSendError(int error, InterfaceCounters& counters);
  void Reap(packet::FramePool& pool);
  void Refill(packet::FramePool& pool);
  void ReleasePartial();
  void DriveReceive();
  void SetUpBusyPoll();
  void ConfirmBusyPoll();
  void WaitForTransmits();

  const packet::FrameArena& arena_;
  const IfaceSlot slot_;
  const QueueId queue_;
  const std::string interface_;
  const uint32_t fill_target_;
  const bool multi_buffer_;
  bool zero_copy_ = false;
  int fd_ = -1;
  std::unique_ptr<Socket> socket_;
  std::unique_ptr<uint8_t[]> place_;  // by frame
  Counter frames_in_fill_;
  Counter frames_in_tx_;
  Counter dead_;
  Counter down_;
  Counter busy_poll_state_;
  uint32_t unsendable_ = 0;  // packets that TxBurst had to discard, for Flush to count
  uint32_t frames_lost_ = 0;

  // The packet whose last piece has not come yet.
  packet::Packet partial_;
  packet::FrameIndex partial_tail_ = packet::kNoFrame;
  bool skipping_ = false;  // the rest of a packet with too many pieces
};

static_assert(IoPort<AfXdpPort>);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_PORT_H_
