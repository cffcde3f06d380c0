#include "control/netlink/netlink_socket.h"

#include <netlink/errno.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

constexpr size_t kReadBytes = 256 * 1024;  // more than the kernel ever puts into one datagram

absl::Status ErrnoStatus(absl::string_view what) { return absl::ErrnoToStatus(errno, what); }

}  // namespace

void NetlinkSocket::Free::operator()(nl_sock* socket) const { nl_socket_free(socket); }

NetlinkSocket::NetlinkSocket(nl_sock* socket) : socket_(socket), buffer_(kReadBytes) {}
NetlinkSocket::NetlinkSocket(NetlinkSocket&&) noexcept = default;
NetlinkSocket& NetlinkSocket::operator=(NetlinkSocket&&) noexcept = default;
NetlinkSocket::~NetlinkSocket() = default;

int NetlinkSocket::fd() const { return nl_socket_get_fd(socket_.get()); }

absl::StatusOr<NetlinkSocket> NetlinkSocket::Open(const NetlinkOptions& options) {
  nl_sock* raw = nl_socket_alloc();
  if (raw == nullptr) return absl::ResourceExhaustedError("no memory for a netlink socket");
  NetlinkSocket socket(raw);
  if (const int e = nl_connect(raw, options.protocol); e < 0) {
    return absl::UnavailableError(absl::StrCat("cannot open a netlink socket: ", nl_geterror(e)));
  }
  if (const int e = nl_socket_set_nonblocking(raw); e < 0) {
    return absl::InternalError(absl::StrCat("netlink socket: ", nl_geterror(e)));
  }
  const int bytes = options.receive_buffer;
  const bool forced = options.force_buffer && setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUFFORCE,
                                                         &bytes, sizeof bytes) == 0;
  if (!forced && setsockopt(socket.fd(), SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) != 0) {
    return ErrnoStatus("netlink SO_RCVBUF");
  }
  const int on = 1;
  if (options.strict_check &&
      setsockopt(socket.fd(), SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, sizeof on) != 0) {
    return ErrnoStatus("NETLINK_GET_STRICT_CHK");
  }
  // Error replies without a copy of the request, with the kernel's text instead.
  if (setsockopt(socket.fd(), SOL_NETLINK, NETLINK_CAP_ACK, &on, sizeof on) != 0 ||
      setsockopt(socket.fd(), SOL_NETLINK, NETLINK_EXT_ACK, &on, sizeof on) != 0) {
    return ErrnoStatus("NETLINK_EXT_ACK");
  }
  return socket;
}

absl::Status NetlinkSocket::Join(absl::Span<const int> groups) {
  for (const int group : groups) {
    if (const int e = nl_socket_add_membership(socket_.get(), group); e < 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot join netlink group ", group, ": ", nl_geterror(e)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> NetlinkSocket::Send(uint16_t type, uint16_t flags,
                                             absl::Span<const uint8_t> body) {
  std::vector<uint8_t> request(NLMSG_SPACE(body.size()));
  nlmsghdr header{};
  header.nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(body.size()));
  header.nlmsg_type = type;
  header.nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
  header.nlmsg_seq = ++sequence_;
  header.nlmsg_pid = nl_socket_get_local_port(socket_.get());
  std::memcpy(request.data(), &header, sizeof header);
  if (!body.empty()) std::memcpy(request.data() + NLMSG_HDRLEN, body.data(), body.size());
  sockaddr_nl kernel{};
  kernel.nl_family = AF_NETLINK;
  if (sendto(fd(), request.data(), header.nlmsg_len, 0, reinterpret_cast<sockaddr*>(&kernel),
             sizeof kernel) < 0) {
    return ErrnoStatus("netlink request");
  }
  return header.nlmsg_seq;
}

absl::StatusOr<NetlinkSocket::ReadResult> NetlinkSocket::Read(
    size_t budget, absl::FunctionRef<void(const nlmsghdr&)> visit) {
  for (size_t i = 0; i < budget; ++i) {
    sockaddr_nl from{};
    socklen_t from_length = sizeof from;
    const ssize_t n = recvfrom(fd(), buffer_.data(), buffer_.size(), MSG_TRUNC | MSG_DONTWAIT,
                               reinterpret_cast<sockaddr*>(&from), &from_length);
    if (n < 0) {
      if (errno == EAGAIN || errno == EWOULDBLOCK) return ReadResult::kDrained;
      if (errno == EINTR) continue;
      if (errno == ENOBUFS) return ReadResult::kOverflow;
      return ErrnoStatus("netlink receive");
    }
    if (from.nl_pid != 0) continue;  // only the kernel is believed
    if (static_cast<size_t>(n) > buffer_.size()) return ReadResult::kOverflow;
    size_t left = static_cast<size_t>(n);
    const uint8_t* at = buffer_.data();
    while (left >= sizeof(nlmsghdr)) {
      const auto* message = reinterpret_cast<const nlmsghdr*>(at);
      if (message->nlmsg_len < sizeof(nlmsghdr) || message->nlmsg_len > left) break;
      visit(*message);
      const size_t step = NLMSG_ALIGN(message->nlmsg_len);
      if (step >= left) break;
      at += step;
      left -= step;
    }
  }
  return ReadResult::kMore;
}

}  // namespace sluice::control
