#include "xsk_port.h"

#include <sys/mman.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "command_loop.h"

namespace sluice::rig {
namespace {

// Newer than Debian 12's headers (kernels 6.6 and 6.17).
constexpr uint16_t kXdpUseSg = 1 << 4;
constexpr int kXdpMaxTxSkbBudget = 9;
// More kicks in a row than a full ring needs mean that the device takes no more for now.
constexpr int kSpareKicks = 4;

std::string Why(const std::string& what) { return what + ": " + std::strerror(errno); }

}  // namespace

Arena::Arena(const XskOptions& options)
    : fifo_(options.fifo),
      stride_(options.stride != 0 ? options.stride : options.chunk),
      chunk_(options.chunk) {
  const uint64_t frames = options.frames != 0 ? options.frames : 2ull * 4 * options.ring;
  constexpr uint64_t kHugePage = 2u << 20;
  bytes_ = (frames * stride_ + chunk_ + kHugePage - 1) / kHugePage * kHugePage;
  void* memory =
      mmap(nullptr, bytes_ + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) Fail(Why("mmap"));
  const uint64_t base = (reinterpret_cast<uint64_t>(memory) + kHugePage - 1) & ~(kHugePage - 1);
  memory_ = reinterpret_cast<uint8_t*>(base);
  madvise(memory_, bytes_, MADV_HUGEPAGE);  // advice only: small pages work as well
  std::memset(memory_, 0, bytes_);
  if (fifo_) free_.resize(frames);
  for (uint64_t i = 0; i < frames; ++i) Put(i * stride_);
}

void Arena::Put(uint64_t address) {
  // What comes back points into the frame: past the headroom, which unaligned mode keeps apart.
  address = stride_ == chunk_ ? address & ~(chunk_ - 1) : xsk_umem__extract_addr(address);
  if (fifo_) {
    free_[tail_++ % free_.size()] = address;
  } else {
    free_.push_back(address);
  }
}

uint64_t Arena::Take() {
  if (fifo_) return free_[head_++ % free_.size()];
  const uint64_t address = free_.back();
  free_.pop_back();
  return address;
}

XskPort::XskPort(const std::string& interface, Arena& arena, const XskOptions& options)
    : name_(interface), arena_(arena), options_(options) {
  name_.reserve(64);  // libxdp 1.3.1 copies IFNAMSIZ bytes from the name
  Open(options);
}

bool XskPort::TryOpen(const XskOptions& options) {
  fill_level_ = options.fill != 0 ? std::min(options.fill, options.ring) : options.ring;
  // libxdp takes them as fresh: what an earlier try has put into a fill ring would count as there.
  fill_ = tx_ = {};
  completion_ = rx_ = {};
  xsk_umem_config umem_config = {};
  umem_config.fill_size = options.ring;
  umem_config.comp_size = options.ring;
  umem_config.frame_size = options.chunk;
  const bool unaligned = options.stride != 0 && options.stride != options.chunk;
  umem_config.flags = unaligned ? XDP_UMEM_UNALIGNED_CHUNK_FLAG : 0;
  if (xsk_umem__create(&umem_, arena_.memory(), arena_.bytes(), &fill_, &completion_,
                       &umem_config) != 0) {
    Fail(Why("xsk_umem__create"));
  }
  Refill();  // before bind: some drivers look only once
  xsk_socket_config config = {};
  config.rx_size = options.ring;
  config.tx_size = options.ring;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  config.bind_flags = XDP_COPY | XDP_USE_NEED_WAKEUP;
  if (options.multi_buffer) config.bind_flags |= kXdpUseSg;
  if (xsk_socket__create(&socket_, name_.c_str(), 0, umem_, &rx_, &tx_, &config) != 0) {
    // The frames that Refill() gave to the ring come back, and libxdp's ring goes.
    const int error = errno;
    for (uint32_t i = 0; i < fill_.cached_prod; ++i) {
      arena_.Put(*xsk_ring_prod__fill_addr(&fill_, i));
    }
    xsk_umem__delete(umem_);
    errno = error;
    return false;
  }
  return true;
}

void XskPort::Open(const XskOptions& options) {
  // The kernel releases a queue some time after its last socket is closed.
  constexpr int kTries = 100;
  for (int tries = 1; !TryOpen(options); ++tries) {
    if (errno != EBUSY || tries == kTries) Fail(Why("xsk_socket__create on " + name_));
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  if (options.budget != 0 &&
      setsockopt(fd(), SOL_XDP, kXdpMaxTxSkbBudget, &options.budget, sizeof(options.budget)) != 0) {
    Fail(Why("XDP_MAX_TX_SKB_BUDGET"));
  }
  if (options.send_buffer != 0 && setsockopt(fd(), SOL_SOCKET, SO_SNDBUFFORCE, &options.send_buffer,
                                             sizeof(options.send_buffer)) != 0) {
    Fail(Why("SO_SNDBUFFORCE"));
  }
}

void XskPort::Reap() {
  uint32_t index = 0;
  const uint32_t count = xsk_ring_cons__peek(&completion_, options_.ring, &index);
  for (uint32_t i = 0; i < count; ++i) {
    arena_.Put(*xsk_ring_cons__comp_addr(&completion_, index + i));
  }
  if (count > 0) xsk_ring_cons__release(&completion_, count);
}

void XskPort::Refill() {
  const uint32_t space = xsk_prod_nb_free(&fill_, fill_.size);
  const uint32_t unused = fill_.size - fill_level_;
  if (space <= unused) return;
  const uint32_t count = std::min<uint64_t>(space - unused, arena_.free_frames());
  uint32_t index = 0;
  if (count == 0 || xsk_ring_prod__reserve(&fill_, count, &index) == 0) return;
  for (uint32_t i = 0; i < count; ++i) {
    *xsk_ring_prod__fill_addr(&fill_, index + i) = arena_.Take();
  }
  xsk_ring_prod__submit(&fill_, count);
}

size_t XskPort::Receive(std::span<xdp_desc> descriptors) {
  uint32_t index = 0;
  const uint32_t count = xsk_ring_cons__peek(&rx_, descriptors.size(), &index);
  for (uint32_t i = 0; i < count; ++i) descriptors[i] = *xsk_ring_cons__rx_desc(&rx_, index + i);
  if (count > 0) xsk_ring_cons__release(&rx_, count);
  counters_.received += count;
  return count;
}

void XskPort::Send(std::span<const xdp_desc> descriptors) {
  const uint32_t space = xsk_prod_nb_free(&tx_, descriptors.size());
  const uint32_t count = std::min<size_t>(space, descriptors.size());
  uint32_t index = 0;
  if (count > 0) xsk_ring_prod__reserve(&tx_, count, &index);
  for (uint32_t i = 0; i < count; ++i) *xsk_ring_prod__tx_desc(&tx_, index + i) = descriptors[i];
  if (count > 0) xsk_ring_prod__submit(&tx_, count);
  counters_.sent += count;
  counters_.ring_full += descriptors.size() - count;
  for (const xdp_desc& refused : descriptors.subspan(count)) arena_.Put(refused.addr);
}

void XskPort::Kick() {
  const uint32_t pending = *tx_.producer - __atomic_load_n(tx_.consumer, __ATOMIC_ACQUIRE);
  int tries = int(pending) / 32 + kSpareKicks;
  while (tx_pending() && tries-- > 0) {
    ++counters_.kicks;
    if (sendto(fd(), nullptr, 0, MSG_DONTWAIT, nullptr, 0) >= 0) continue;
    if (errno == EAGAIN) {
      // The kernel's batch is done, or there is no room for completions: reap, then go on.
      ++counters_.again;
      Reap();
    } else if (errno == EBUSY) {
      ++counters_.busy;  // one frame dropped by the device, and completed
    } else if (errno == ENOBUFS) {
      ++counters_.other_errors;
      Reap();
    } else {
      Fail(Why("sendto on " + name_));
    }
  }
}

std::string XskPort::StatisticsJson() const {
  xdp_statistics kernel = {};
  socklen_t size = sizeof(kernel);
  if (getsockopt(fd(), SOL_XDP, XDP_STATISTICS, &kernel, &size) != 0) Fail(Why("XDP_STATISTICS"));
  const auto field = [](const char* name, uint64_t value) {
    return std::string("\"") + name + "\":" + std::to_string(value);
  };
  return "{" + field("received", counters_.received) + "," + field("sent", counters_.sent) + "," +
         field("tx_ring_full", counters_.ring_full) + "," + field("kicks", counters_.kicks) + "," +
         field("again", counters_.again) + "," + field("busy", counters_.busy) + "," +
         field("no_buffers", counters_.other_errors) + "," +
         field("rx_dropped", kernel.rx_dropped) + "," + field("rx_ring_full", kernel.rx_ring_full) +
         "," + field("fill_empty", kernel.rx_fill_ring_empty_descs) + "," +
         field("tx_invalid", kernel.tx_invalid_descs) + "}";
}

}  // namespace sluice::rig
