// One AF_XDP socket: bound to a receive queue, with its four rings. What goes through the rings is
// port.h's business.
//
// The whole arena is registered anew for each socket (not shared between sockets by the kernel),
// which leaves each socket free to be zero-copy or not and to be closed by itself.
//
// The fill ring is filled before the socket is bound: some drivers stay without buffers otherwise.
//
// Thread: opened and closed by control; the rings belong to one worker in between.
#ifndef SLUICE_IO_AF_XDP_SOCKET_H_
#define SLUICE_IO_AF_XDP_SOCKET_H_

#include <xdp/xsk.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "packet/frame_arena.h"

namespace sluice::io::af_xdp {

// Entries, each a power of two. With no more frames to receive into than the receive ring has
// entries, that ring cannot overflow. What is sent and not yet let go of by its receiver occupies
// the completion ring; while that is full nothing is sent. Larger rings cost cache and brought
// nothing on veth.
struct RingSizes {
  uint32_t fill = 2048;
  uint32_t receive = 2048;
  uint32_t transmit = 2048;
  uint32_t completion = 2048;
};

// What the kernel counts for one socket (XDP_STATISTICS).
struct SocketStatistics {
  uint64_t rx_dropped = 0;  // frames larger than a chunk, or no buffer
  uint64_t rx_invalid = 0;  // descriptors of ours that the kernel refused
  uint64_t tx_invalid = 0;
  uint64_t rx_ring_full = 0;     // the worker was too slow
  uint64_t fill_ring_empty = 0;  // no buffer was there
  uint64_t tx_ring_empty = 0;
};

class Socket {
 public:
  struct Options {
    std::string interface;
    QueueId queue;
    RingSizes rings;
    bool zero_copy = false;
    bool multi_buffer = false;  // XDP_USE_SG
  };

  // `frames` go into the fill ring (at most its size). When it fails they are the caller's again.
  static absl::StatusOr<std::unique_ptr<Socket>> Open(const Options& options,
                                                      const packet::FrameArena& arena,
                                                      std::span<const packet::FrameIndex> frames);
  ~Socket();
  Socket(const Socket&) = delete;
  Socket& operator=(const Socket&) = delete;

  int fd() const { return fd_; }
  bool zero_copy() const { return zero_copy_; }  // as the kernel tells
  absl::StatusOr<SocketStatistics> ReadStatistics() const;
  // The error that the kernel left on the socket, as an errno, taking it away: ENETDOWN once the
  // interface has gone.
  int TakeError() const;

  xsk_ring_prod fill{};
  xsk_ring_cons completion{};
  xsk_ring_cons receive{};
  xsk_ring_prod transmit{};

 private:
  Socket() = default;

  xsk_umem* umem_ = nullptr;
  xsk_socket* socket_ = nullptr;
  int fd_ = -1;
  bool zero_copy_ = false;
};

// Waits until the queue of a closed socket is free again, that is, until the kernel (and in
// zero-copy mode the NIC) no longer touches its frames. False when that takes longer than two
// seconds.
bool WaitUntilReleased(const std::string& interface, QueueId queue);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_SOCKET_H_
