#include "packetdrill/sockets.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/sockios.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>

namespace sluice::test {

using transport::Endpoint;
using transport::SocketError;
using transport::TcpState;

namespace {

bool NoWait(bool nonblocking, int flags) { return nonblocking || (flags & MSG_DONTWAIT) != 0; }

}  // namespace

int Sockets::Fail(int error) {
  errno = error;
  return -1;
}

Sockets::Entry* Sockets::Find(int fd) {
  const auto it = sockets_.find(fd);
  return it == sockets_.end() ? nullptr : &it->second;
}

const transport::Tcb* Sockets::TcbOf(const Entry& e) { return machine_.tcp().Find(e.socket); }

std::optional<Endpoint> Sockets::ToEndpoint(const sockaddr* address, socklen_t length) const {
  if (address->sa_family == AF_INET && length >= sizeof(sockaddr_in)) {
    const auto* in = reinterpret_cast<const sockaddr_in*>(address);
    return Endpoint{Ipv4(ntohl(in->sin_addr.s_addr)), ntohs(in->sin_port)};
  }
  if (address->sa_family == AF_INET6 && length >= sizeof(sockaddr_in6)) {
    const auto* in = reinterpret_cast<const sockaddr_in6*>(address);
    const uint16_t port = ntohs(in->sin6_port);
    if (IN6_IS_ADDR_V4MAPPED(&in->sin6_addr)) {
      return Endpoint{Ipv4::FromWire(in->sin6_addr.s6_addr + 12), port};
    }
    return Endpoint{Ipv6::FromWire(in->sin6_addr.s6_addr), port};
  }
  return {};
}

void Sockets::FromEndpoint(const Entry& e, const Endpoint& from, sockaddr* to,
                           socklen_t* length) const {
  if (to == nullptr || length == nullptr) return;
  sockaddr_storage out{};
  socklen_t size = sizeof(sockaddr_in);
  if (e.v6) {
    auto* in = reinterpret_cast<sockaddr_in6*>(&out);
    in->sin6_family = AF_INET6;
    in->sin6_port = htons(from.port);
    if (from.address.is_v4()) {
      in->sin6_addr.s6_addr[10] = in->sin6_addr.s6_addr[11] = 0xff;
      from.address.v4().ToWire(in->sin6_addr.s6_addr + 12);
    } else {
      from.address.v6().ToWire(in->sin6_addr.s6_addr);
    }
    size = sizeof(sockaddr_in6);
  } else {
    auto* in = reinterpret_cast<sockaddr_in*>(&out);
    in->sin_family = AF_INET;
    in->sin_port = htons(from.port);
    in->sin_addr.s_addr = htonl(from.address.v4().value);
  }
  std::memcpy(to, &out, std::min(*length, size));
  *length = size;
}

int Sockets::Socket(int domain, int type, int protocol) {
  if ((domain != AF_INET && domain != AF_INET6) || (type & 0xff) != SOCK_STREAM ||
      (protocol != 0 && protocol != IPPROTO_TCP)) {
    return Fail(EPROTONOSUPPORT);
  }
  const Tunables& tunables = machine_.tunables();
  const int fd = ::open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  Entry e;
  e.v6 = domain == AF_INET6;
  e.nonblocking = (type & SOCK_NONBLOCK) != 0;
  e.options.congestion = tunables.congestion;
  e.options.ecn = ReadEcn();
  e.local.address.family = e.v6 ? Family::kIpv6 : Family::kIpv4;
  e.send_buffer = tunables.tcp.send_buffer_initial;
  e.receive_buffer = tunables.tcp.receive_buffer_initial;
  sockets_[fd] = e;
  return fd;
}

int Sockets::Bind(int fd, const sockaddr* address, socklen_t length) {
  Entry* const e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  const auto local = ToEndpoint(address, length);
  if (!local) return Fail(EINVAL);
  e->local = *local;
  return 0;
}

int Sockets::Listen(int fd, int backlog) {
  Entry* const e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  const SocketError error =
      machine_.tcp().Listen(e->local, e->options, static_cast<uint32_t>(std::max(backlog, 1)), this,
                            e->listener);
  if (error != SocketError::kNone) return Fail(EADDRINUSE);
  e->listening = true;
  return 0;
}

int Sockets::Accept(Held lock, int fd, sockaddr* address, socklen_t* length) {
  for (;;) {
    Entry* const e = Find(fd);
    if (e == nullptr) return Fail(EBADF);
    if (!e->listening) return Fail(EINVAL);
    transport::TcpSocket socket;
    const SocketError error = machine_.tcp().Accept(e->listener, this, socket);
    if (error == SocketError::kNone) {
      const int made = ::open("/dev/null", O_RDWR | O_CLOEXEC);
      if (made < 0) return -1;
      Entry& n = sockets_[made] = Entry{};
      n.v6 = e->v6;
      n.options = e->options;
      n.socket = socket;
      n.send_buffer = e->send_buffer;
      n.receive_buffer = e->receive_buffer;
      const transport::Tcb* const t = TcbOf(n);
      n.local = t->tuple.local;
      FromEndpoint(n, t->tuple.remote, address, length);
      return made;
    }
    if (e->nonblocking) return Fail(EAGAIN);
    const auto waiting = [&] {
      Entry* const now = Find(fd);
      return now == nullptr || machine_.tcp().Acceptable(now->listener);
    };
    if (!machine_.WaitFor(lock, waiting, Nanos::Max())) return Fail(EDEADLK);
  }
}

int Sockets::Connect(Held lock, int fd, const sockaddr* address, socklen_t length) {
  Entry* e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  const auto state = [&] {
    const transport::Tcb* const t = TcbOf(*e);
    return t == nullptr ? TcpState::kClosed : t->state;
  };
  if (!e->socket.valid()) {
    const auto remote = ToEndpoint(address, length);
    if (!remote) return Fail(EINVAL);
    const SocketError error = machine_.tcp().Connect(e->local, *remote, e->options, this,
                                                     machine_.now(), e->socket);
    if (error != SocketError::kNone) return FailWith(*e, error, true);
    e->local = TcbOf(*e)->tuple.local;
    e->connecting = true;
    if (e->nonblocking) return Fail(EINPROGRESS);
  } else if (!e->connecting) {
    return Fail(EISCONN);
  }
  const auto done = [&] {
    e = Find(fd);
    return e == nullptr || (state() != TcpState::kSynSent && state() != TcpState::kSynReceived);
  };
  if (!done()) {
    if (e->nonblocking) return Fail(EALREADY);
    if (!machine_.WaitFor(lock, done, Nanos::Max())) return Fail(EDEADLK);
    if (e == nullptr) return Fail(EBADF);
  }
  e->connecting = false;
  if (const int error = TakeError(*e)) {
    // As Linux: the socket may try again.
    machine_.tcp().Close(e->socket, machine_.now());
    e->socket = {};
    e->error_told = false;
    return Fail(error);
  }
  return 0;
}

SocketError Sockets::Readable(Entry& e) {
  const transport::Tcb* const t = TcbOf(e);
  if (t == nullptr) return SocketError::kNotConnected;
  if (t->receive.bytes() > 0) return SocketError::kNone;
  if (t->error != SocketError::kNone && !e.error_told) return t->error;
  if (e.read_shutdown || t->fin_received || t->state == TcpState::kClosed) {
    return SocketError::kEndOfData;
  }
  return IsSynchronized(t->state) || e.connecting ? SocketError::kWouldBlock
                                                  : SocketError::kNotConnected;
}

ssize_t Sockets::Receive(Held lock, int fd, std::span<const iovec> to, int flags) {
  size_t wanted = 0;
  for (const iovec& v : to) wanted += v.iov_len;
  for (;;) {
    Entry* e = Find(fd);
    if (e == nullptr) return Fail(EBADF);
    if (!e->socket.valid()) return Fail(ENOTCONN);
    const SocketError error = Readable(*e);
    if (error == SocketError::kNone) break;
    if (error == SocketError::kEndOfData || wanted == 0) return 0;
    if (error != SocketError::kWouldBlock) return FailWith(*e, error, false);
    if (NoWait(e->nonblocking, flags)) return Fail(EAGAIN);
    const auto readable = [&] {
      Entry* const now = Find(fd);
      return now == nullptr || Readable(*now) != SocketError::kWouldBlock;
    };
    if (!machine_.WaitFor(lock, readable, Nanos::Max())) return Fail(EDEADLK);
  }
  Entry* const e = Find(fd);
  ssize_t total = 0;
  std::vector<uint8_t> scrap;
  for (const iovec& v : to) {
    size_t done = 0;
    while (done < v.iov_len) {
      uint8_t* out = static_cast<uint8_t*>(v.iov_base) + done;
      size_t room = v.iov_len - done;
      if ((flags & MSG_TRUNC) != 0) {  // Linux' tcp(7): thrown away
        scrap.resize(room);
        out = scrap.data();
      }
      const transport::IoResult r = machine_.tcp().Receive(e->socket, {out, room}, machine_.now());
      if (!r.ok() || r.bytes == 0) return total;
      done += r.bytes;
      total += r.bytes;
    }
  }
  return total;
}

ssize_t Sockets::ReceiveMessage(Held lock, int fd, msghdr* message, int flags) {
  if ((flags & MSG_ERRQUEUE) != 0) return Fail(EAGAIN);
  const ssize_t result =
      Receive(lock, fd, {message->msg_iov, message->msg_iovlen}, flags);
  const socklen_t room = static_cast<socklen_t>(message->msg_controllen);
  message->msg_controllen = 0;
  message->msg_flags = 0;
  Entry* const e = Find(fd);
  if (result < 0 || e == nullptr || !e->inq || room < CMSG_SPACE(sizeof(int))) return result;
  const transport::Tcb* const t = TcbOf(*e);
  cmsghdr* const c = static_cast<cmsghdr*>(message->msg_control);
  c->cmsg_level = SOL_TCP;
  c->cmsg_type = TCP_CM_INQ;
  c->cmsg_len = CMSG_LEN(sizeof(int));
  int left = t == nullptr ? 0 : static_cast<int>(t->receive.bytes());
  if (left == 0 && t != nullptr && t->fin_received) left = 1;  // there is an end to be read
  std::memcpy(CMSG_DATA(c), &left, sizeof(left));
  message->msg_controllen = CMSG_SPACE(sizeof(int));
  return result;
}

ssize_t Sockets::Send(Held lock, int fd, std::span<const iovec> from, int flags) {
  ssize_t total = 0;
  for (const iovec& v : from) {
    const auto* data = static_cast<const uint8_t*>(v.iov_base);
    size_t left = v.iov_len;
    while (left > 0) {
      Entry* const e = Find(fd);
      if (e == nullptr) return Fail(EBADF);
      if (!e->socket.valid()) return Fail(EPIPE);
      const transport::IoResult r =
          (flags & MSG_MORE) != 0
              ? machine_.tcp().SendMore(e->socket, {data, left}, machine_.now())
              : machine_.tcp().Send(e->socket, {data, left}, machine_.now());
      if (r.ok()) {
        data += r.bytes;
        left -= r.bytes;
        total += r.bytes;
        continue;
      }
      const bool wait = r.error == SocketError::kWouldBlock ||
                        (r.error == SocketError::kNotConnected && e->connecting);
      if (!wait) return total > 0 ? total : FailWith(*e, r.error, true);
      if (NoWait(e->nonblocking, flags)) return total > 0 ? total : Fail(EAGAIN);
      e->writable_seen = false;
      const auto writable = [&] {
        Entry* const now = Find(fd);
        return now == nullptr || now->writable_seen;
      };
      if (!machine_.WaitFor(lock, writable, Nanos::Max())) return Fail(EDEADLK);
    }
  }
  if ((flags & MSG_EOR) != 0) {
    if (Entry* const e = Find(fd)) machine_.tcp().EndRecord(e->socket);
  }
  return total;
}

int Sockets::TakeError(Entry& e) {
  const transport::Tcb* const t = TcbOf(e);
  if (t == nullptr || t->error == SocketError::kNone || e.error_told) return 0;
  FailWith(e, t->error, false);
  return errno;
}

int Sockets::FailWith(Entry& e, SocketError error, bool sending) {
  const bool told = e.error_told;
  switch (error) {
    case SocketError::kReset:
      e.error_told = true;
      return Fail(told ? EPIPE : ECONNRESET);
    case SocketError::kRefused:
      e.error_told = true;
      return Fail(told ? EPIPE : ECONNREFUSED);
    case SocketError::kTimedOut:
      e.error_told = true;
      return Fail(told ? EPIPE : ETIMEDOUT);
    case SocketError::kUnreachable:
      e.error_told = true;
      return Fail(told ? EPIPE : EHOSTUNREACH);
    case SocketError::kShutdown: return Fail(EPIPE);
    case SocketError::kNotConnected: return Fail(sending ? EPIPE : ENOTCONN);
    case SocketError::kAddressInUse: return Fail(EADDRINUSE);
    case SocketError::kNoPorts: return Fail(EADDRNOTAVAIL);
    case SocketError::kNoMemory: return Fail(ENOBUFS);
    case SocketError::kBadSocket: return Fail(EBADF);
    case SocketError::kWouldBlock: return Fail(EAGAIN);
    default: return Fail(EINVAL);
  }
}

int Sockets::Control(int fd, int command, int argument) {
  Entry* const e = Find(fd);
  if (e == nullptr) return ::fcntl(fd, command, argument);
  switch (command) {
    case F_GETFL:
      return O_RDWR | (e->nonblocking ? O_NONBLOCK : 0);
    case F_SETFL:
      e->nonblocking = (argument & O_NONBLOCK) != 0;
      return 0;
    default:
      return ::fcntl(fd, command, argument);
  }
}

int Sockets::Query(int fd, unsigned long request, int* value) {
  Entry* const e = Find(fd);
  if (e == nullptr) return ::ioctl(fd, request, value);
  const transport::Tcb* const t = TcbOf(*e);
  switch (request) {
    case SIOCINQ:
      if (e->listening || t == nullptr) return Fail(EINVAL);
      *value = static_cast<int>(t->receive.bytes());
      return 0;
    case SIOCOUTQ:
      *value = t == nullptr ? 0 : static_cast<int>(t->send.size());
      return 0;
    default:
      return Fail(ENOTTY);
  }
}

int Sockets::Close(int fd) {
  Entry* const e = Find(fd);
  if (e != nullptr) {
    if (e->listening) machine_.tcp().CloseListener(e->listener, machine_.now());
    if (e->socket.valid()) machine_.tcp().Close(e->socket, machine_.now());
    sockets_.erase(fd);
    for (auto& [epfd, watches] : epolls_) watches.erase(fd);
  }
  epolls_.erase(fd);
  return ::close(fd);
}

int Sockets::Shutdown(int fd, int how) {
  Entry* const e = Find(fd);
  if (e == nullptr) return Fail(EBADF);
  if (e->listening) return 0;
  const transport::Tcb* const t = TcbOf(*e);
  if (t == nullptr || !IsSynchronized(t->state)) return Fail(ENOTCONN);
  if (how == SHUT_RD || how == SHUT_RDWR) e->read_shutdown = true;
  if (how == SHUT_WR || how == SHUT_RDWR) machine_.tcp().Shutdown(e->socket, machine_.now());
  return 0;
}

}  // namespace sluice::test
