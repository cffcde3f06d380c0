// An AF_XDP socket on one queue of one interface, opened by libxdp in copy mode, and the frame
// arena that the sockets share: what the bare forwarder needs and no more. One thread uses both.
// Every socket registers the whole arena as a UMEM of its own, so a frame received on one interface
// is sent from where it lies on the other. Refuses nothing: the frames come from the rig itself.
#ifndef SLUICE_BENCHMARKS_RIG_XSK_PORT_H_
#define SLUICE_BENCHMARKS_RIG_XSK_PORT_H_

#include <xdp/xsk.h>

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sluice::rig {

struct XskOptions {
  uint32_t ring = 2048;       // entries of each of the four rings
  uint32_t fill = 0;          // frames kept in a fill ring; 0: as many as it holds
  uint32_t frames = 0;        // arena; 0: twice what the rings hold
  uint32_t chunk = 2048;      // bytes per frame
  uint32_t stride = 0;        // distance of frames; other than `chunk`: unaligned chunks
  bool fifo = false;          // reuse the frame that rested longest, not the last one
  uint32_t batch = 64;        // frames taken from a receive ring at once
  uint32_t kick_every = 0;    // sendto after this many frames; 0: once per batch
  uint32_t budget = 0;        // XDP_MAX_TX_SKB_BUDGET; 0: the kernel's 32
  uint32_t send_buffer = 0;   // SO_SNDBUF (forced); 0: the system's default
  bool multi_buffer = false;  // XDP_USE_SG and a frags program
  bool spin = false;          // never sleep in poll()
};

class Arena {
 public:
  explicit Arena(const XskOptions& options);
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  uint8_t* memory() const { return memory_; }
  uint64_t bytes() const { return bytes_; }
  size_t free_frames() const { return fifo_ ? tail_ - head_ : free_.size(); }
  void Put(uint64_t address);
  uint64_t Take();  // only while free_frames() > 0

 private:
  bool fifo_;
  uint64_t stride_, chunk_;
  uint8_t* memory_ = nullptr;
  uint64_t bytes_ = 0;
  std::vector<uint64_t> free_;  // a stack, or a circle of which [head_, tail_) is used
  uint64_t head_ = 0, tail_ = 0;
};

struct PortCounters {
  uint64_t received = 0, sent = 0, ring_full = 0;
  uint64_t kicks = 0, again = 0, busy = 0, other_errors = 0;
};

class XskPort {
 public:
  XskPort(const std::string& interface, Arena& arena, const XskOptions& options);
  XskPort(const XskPort&) = delete;
  XskPort& operator=(const XskPort&) = delete;

  int fd() const { return xsk_socket__fd(socket_); }
  const std::string& name() const { return name_; }
  const PortCounters& counters() const { return counters_; }
  bool tx_pending() const {
    return *tx_.producer != __atomic_load_n(tx_.consumer, __ATOMIC_ACQUIRE);
  }

  // Completed frames back to the arena, then as many as fit to the fill ring.
  void Reap();
  void Refill();
  // Fills `descriptors`; the frames belong to the caller.
  size_t Receive(std::span<xdp_desc> descriptors);
  // Queues the frames and kicks until the kernel has taken all or takes no more for now.
  void Send(std::span<const xdp_desc> descriptors);
  void Kick();
  std::string StatisticsJson() const;

 private:
  bool TryOpen(const XskOptions& options);  // false with errno set
  void Open(const XskOptions& options);

  std::string name_;
  Arena& arena_;
  XskOptions options_;
  xsk_umem* umem_ = nullptr;
  xsk_socket* socket_ = nullptr;
  xsk_ring_prod fill_ = {}, tx_ = {};
  xsk_ring_cons completion_ = {}, rx_ = {};
  uint32_t fill_level_ = 0;
  PortCounters counters_;
};

}  // namespace sluice::rig

#endif  // SLUICE_BENCHMARKS_RIG_XSK_PORT_H_
