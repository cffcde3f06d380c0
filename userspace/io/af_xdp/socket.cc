#include "io/af_xdp/socket.h"

#include <net/if.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xdp/libxdp.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "io/af_xdp/uapi.h"

namespace sluice::io::af_xdp {
namespace {

// A closed socket's queue is free only after work that the kernel defers.
constexpr auto kBusyRetry = std::chrono::milliseconds(20);
constexpr int kBusyRetries = 100;

void RaiseMemoryLock() {
  // With CAP_IPC_LOCK the limit does not matter; without it, and without the right to raise the
  // limit, registering the arena fails with an error that says so.
  const rlimit unlimited{RLIM_INFINITY, RLIM_INFINITY};
  static_cast<void>(setrlimit(RLIMIT_MEMLOCK, &unlimited));
}

// libxdp copies IFNAMSIZ bytes from where the name is.
struct PaddedName {
  explicit PaddedName(const std::string& name) {
    std::memcpy(text, name.data(), std::min(name.size(), sizeof text - 1));
  }
  char text[IFNAMSIZ] = {};
};

std::string Where(const Socket::Options& options) {
  return absl::StrCat("interface ", options.interface, ", receive queue ", options.queue.value);
}

absl::Status UmemError(const Socket::Options& options, int error) {
  const char* advice = "";
  if (error == ENOBUFS || error == EPERM) {
    advice =
        "; locked memory is limited: run with CAP_IPC_LOCK, or raise the limit "
        "(LimitMEMLOCK=infinity)";
  } else if (error == ENOMEM) {
    advice = "; too little memory: lower limits.frames";
  } else if (error == EAFNOSUPPORT) {
    advice = "; the kernel is built without AF_XDP (CONFIG_XDP_SOCKETS)";
  }
  return absl::FailedPreconditionError(absl::StrCat(
      Where(options), ": the frame memory cannot be registered: ", std::strerror(error), advice));
}

absl::Status BindError(const Socket::Options& options, int error) {
  const std::string what =
      absl::StrCat(Where(options), ": the AF_XDP socket cannot be bound: ", std::strerror(error));
  switch (error) {
    case EBUSY:
      return absl::UnavailableError(
          absl::StrCat(what, "; another program has an AF_XDP socket on this queue"));
    case EPERM:
      return absl::PermissionDeniedError(
          absl::StrCat(what, "; run as root or grant CAP_NET_RAW and CAP_NET_ADMIN"));
    case ENODEV:
      return absl::NotFoundError(absl::StrCat(what, "; the interface has gone"));
    case ENETDOWN:
      return absl::FailedPreconditionError(
          absl::StrCat(what, "; bring it up first: `ip link set dev ", options.interface, " up`"));
    case EINVAL:
    case EOPNOTSUPP:
      // What the socket was asked to be, the driver or the kernel cannot.
      return absl::UnimplementedError(absl::StrCat(
          what, options.zero_copy ? "; use `zero_copy: off`" : "",
          options.multi_buffer ? "; frames in several buffers are not supported" : ""));
    default:
      return absl::InternalError(what);
  }
}

// One store of the producer for all of them.
void PutIntoFill(xsk_ring_prod& fill, const packet::FrameArena& arena,
                 std::span<const packet::FrameIndex> frames) {
  uint32_t index = 0;
  const auto count = static_cast<uint32_t>(frames.size());
  if (count == 0 || xsk_ring_prod__reserve(&fill, count, &index) != count) return;
  for (const packet::FrameIndex frame : frames) {
    *xsk_ring_prod__fill_addr(&fill, index++) = uint64_t{frame} * arena.chunk_size();
  }
  xsk_ring_prod__submit(&fill, count);
}

}  // namespace

absl::StatusOr<std::unique_ptr<Socket>> Socket::Open(const Options& options,
                                                     const packet::FrameArena& arena,
                                                     std::span<const packet::FrameIndex> frames) {
  if (frames.size() > options.rings.fill) {
    return absl::InvalidArgumentError(
        absl::StrCat(Where(options), ": more frames than the fill ring has entries"));
  }
  libxdp_set_print(nullptr);
  RaiseMemoryLock();
  std::unique_ptr<Socket> s(new Socket);
  xsk_umem_config umem_config{};
  umem_config.fill_size = options.rings.fill;
  umem_config.comp_size = options.rings.completion;
  umem_config.frame_size = arena.chunk_size();
  int error = xsk_umem__create(&s->umem_, arena.base(), arena.size_bytes(), &s->fill,
                               &s->completion, &umem_config);
  if (error != 0) {
    s->umem_ = nullptr;
    return UmemError(options, -error);
  }
  PutIntoFill(s->fill, arena, frames);

  xsk_socket_config config{};
  config.rx_size = options.rings.receive;
  config.tx_size = options.rings.transmit;
  config.libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD;
  config.bind_flags =
      static_cast<uint16_t>((options.zero_copy ? XDP_ZEROCOPY : XDP_COPY) | XDP_USE_NEED_WAKEUP |
                            (options.multi_buffer ? kBindUseSg : 0));
  const PaddedName name(options.interface);
  for (int attempt = 0;; ++attempt) {
    error = xsk_socket__create(&s->socket_, name.text, options.queue.value, s->umem_, &s->receive,
                               &s->transmit, &config);
    if (error != -EBUSY || attempt == kBusyRetries) break;
    std::this_thread::sleep_for(kBusyRetry);
  }
  if (error != 0) {
    s->socket_ = nullptr;
    return BindError(options, -error);
  }
  s->fd_ = xsk_socket__fd(s->socket_);
  xdp_options actual{};
  socklen_t size = sizeof actual;
  if (getsockopt(s->fd_, SOL_XDP, XDP_OPTIONS, &actual, &size) == 0) {
    s->zero_copy_ = (actual.flags & XDP_OPTIONS_ZEROCOPY) != 0;
  }
  // Where the kernel can (6.18), one sendto() empties the ring; elsewhere it sends 32 at a time.
  const uint32_t budget = options.rings.transmit;
  static_cast<void>(setsockopt(s->fd_, SOL_XDP, kSockOptMaxTxSkbBudget, &budget, sizeof budget));
  return s;
}

Socket::~Socket() {
  if (socket_ != nullptr) xsk_socket__delete(socket_);
  if (umem_ != nullptr) xsk_umem__delete(umem_);
}

absl::StatusOr<SocketStatistics> Socket::ReadStatistics() const {
  xdp_statistics raw{};
  socklen_t size = sizeof raw;
  if (getsockopt(fd_, SOL_XDP, XDP_STATISTICS, &raw, &size) != 0) {
    return absl::InternalError(
        absl::StrCat("the statistics of a socket cannot be read: ", std::strerror(errno)));
  }
  return SocketStatistics{.rx_dropped = raw.rx_dropped,
                          .rx_invalid = raw.rx_invalid_descs,
                          .tx_invalid = raw.tx_invalid_descs,
                          .rx_ring_full = raw.rx_ring_full,
                          .fill_ring_empty = raw.rx_fill_ring_empty_descs,
                          .tx_ring_empty = raw.tx_ring_empty_descs};
}

int Socket::TakeError() const {
  int error = 0;
  socklen_t size = sizeof error;
  if (getsockopt(fd_, SOL_SOCKET, SO_ERROR, &error, &size) != 0) return errno;
  return error;
}

bool WaitUntilReleased(const std::string& interface, QueueId queue) {
  // A queue that another socket can be bound to is one that the old socket has left. One that
  // cannot be tried, since the interface has gone, is left as well.
  const std::unique_ptr<packet::FrameArena> arena = packet::FrameArena::Create(16, 4096);
  if (arena == nullptr) return false;
  Socket::Options options;
  options.interface = interface;
  options.queue = queue;
  options.rings = {.fill = 16, .receive = 16, .transmit = 16, .completion = 16};
  const auto socket = Socket::Open(options, *arena, {});
  return socket.ok() || absl::IsNotFound(socket.status());
}

}  // namespace sluice::io::af_xdp
