// One non-blocking netlink socket: large buffers, one message at a time, losses told apart.
//
// Threads: the control thread only. Messages handed to the callback live until it returns.
// The kernel answers a dump in pieces of up to 32 KiB and counts what did not fit into the receive
// buffer of a subscriber as one ENOBUFS (net/netlink/af_netlink.c, netlink_overrun).
#ifndef SLUICE_CONTROL_NETLINK_NETLINK_SOCKET_H_
#define SLUICE_CONTROL_NETLINK_NETLINK_SOCKET_H_

#include <linux/netlink.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

struct nl_sock;

namespace sluice::control {

struct NetlinkOptions {
  int protocol = NETLINK_ROUTE;
  int receive_buffer = 8 << 20;  // bytes; beyond rmem_max with CAP_NET_ADMIN
  bool force_buffer = true;      // false: let rmem_max limit it
  bool strict_check = true;      // dump requests are filtered by the kernel
};

class NetlinkSocket {
 public:
  enum class ReadResult {
    kMore,      // the budget was used up, more may wait
    kDrained,   // nothing waits
    kOverflow,  // messages were lost (ENOBUFS)
  };

  static absl::StatusOr<NetlinkSocket> Open(const NetlinkOptions& options);
  NetlinkSocket(NetlinkSocket&&) noexcept;
  NetlinkSocket& operator=(NetlinkSocket&&) noexcept;
  ~NetlinkSocket();

  int fd() const;
  absl::Status Join(absl::Span<const int> groups);
  // Sends header and body as one request with a new sequence number, which it returns.
  absl::StatusOr<uint32_t> Send(uint16_t type, uint16_t flags, absl::Span<const uint8_t> body);
  // Up to `budget` datagrams; the callback sees every message of each.
  absl::StatusOr<ReadResult> Read(size_t budget,
                                  absl::FunctionRef<void(const nlmsghdr& message)> visit);

 private:
  struct Free {
    void operator()(nl_sock* socket) const;
  };
  explicit NetlinkSocket(nl_sock* socket);

  std::unique_ptr<nl_sock, Free> socket_;
  std::vector<uint8_t> buffer_;
  uint32_t sequence_ = 0;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETLINK_NETLINK_SOCKET_H_
