// The call backs of interface.h. Also getsockopt for the whole program when it is preloaded, since
// packetdrill reads TCP_INFO for a script's assertions past its own interface.
#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <cstdlib>
#include <cstring>
#include <string>

#include "packetdrill/interface.h"
#include "packetdrill/sockets.h"

#define SLUICE_EXPORT __attribute__((visibility("default")))

namespace sluice::test {
namespace {

struct Adapter {
  explicit Adapter(const char* flags) : machine(flags == nullptr ? "" : flags), sockets(machine) {}
  Machine machine;
  Sockets sockets;
};
Adapter* current = nullptr;

// `call(sockets, lock)` under the lock.
template <class Call>
auto On(void* self, Call&& call) {
  auto& a = *static_cast<Adapter*>(self);
  auto lock = a.machine.Lock();
  return call(a.sockets, lock);
}

iovec One(const void* data, size_t size) { return {const_cast<void*>(data), size}; }

ssize_t Receive(void* self, int fd, void* data, size_t size, int flags) {
  const iovec v = One(data, size);
  return On(self, [&](Sockets& s, auto& lock) { return s.Receive(lock, fd, {&v, 1}, flags); });
}
ssize_t Send(void* self, int fd, const void* data, size_t size, int flags) {
  const iovec v = One(data, size);
  return On(self, [&](Sockets& s, auto& lock) { return s.Send(lock, fd, {&v, 1}, flags); });
}

int Control(void* self, int fd, int command, ...) {
  va_list args;
  va_start(args, command);
  const int argument = va_arg(args, int);
  va_end(args);
  return On(self, [&](Sockets& s, auto&) { return s.Control(fd, command, argument); });
}
int Query(void* self, int fd, unsigned long request, ...) {
  va_list args;
  va_start(args, request);
  int* const value = va_arg(args, int*);
  va_end(args);
  return On(self, [&](Sockets& s, auto&) { return s.Query(fd, request, value); });
}

int NetdevSend(void* self, const void* packet, size_t length) {
  auto& a = *static_cast<Adapter*>(self);
  auto lock = a.machine.Lock();
  a.machine.Deliver(lock, {static_cast<const uint8_t*>(packet), length});
  return 0;
}

int NetdevReceive(void* self, void* out, size_t* length, long long* usecs) {
  auto& a = *static_cast<Adapter*>(self);
  auto lock = a.machine.Lock();
  std::vector<uint8_t> packet;
  Nanos sent = a.machine.now();
  if (!a.machine.NextPacket(lock, packet, sent)) packet.clear();
  *length = std::min(*length, packet.size());
  std::memcpy(out, packet.data(), *length);
  *usecs = sent / Micros(1);
  return 0;
}

void Init(const char* text, PacketdrillInterface* i) {
  // The programs that scripts start have no use for it.
  ::unsetenv("LD_PRELOAD");
  current = new Adapter(text);
  i->self = current;
  i->free = [](void* self) {
    current = nullptr;
    delete static_cast<Adapter*>(self);
  };
  i->socket = [](void* self, int domain, int type, int protocol) {
    return On(self, [&](Sockets& s, auto&) { return s.Socket(domain, type, protocol); });
  };
  i->bind = [](void* self, int fd, const sockaddr* a, socklen_t n) {
    return On(self, [&](Sockets& s, auto&) { return s.Bind(fd, a, n); });
  };
  i->listen = [](void* self, int fd, int backlog) {
    return On(self, [&](Sockets& s, auto&) { return s.Listen(fd, backlog); });
  };
  i->accept = [](void* self, int fd, sockaddr* a, socklen_t* n) {
    return On(self, [&](Sockets& s, auto& lock) { return s.Accept(lock, fd, a, n); });
  };
  i->connect = [](void* self, int fd, const sockaddr* a, socklen_t n) {
    return On(self, [&](Sockets& s, auto& lock) { return s.Connect(lock, fd, a, n); });
  };
  i->read = [](void* self, int fd, void* data, size_t size) {
    return Receive(self, fd, data, size, 0);
  };
  i->readv = [](void* self, int fd, const iovec* v, int count) {
    return On(self, [&](Sockets& s, auto& lock) {
      return s.Receive(lock, fd, {v, static_cast<size_t>(count)}, 0);
    });
  };
  i->recv = Receive;
  i->recvfrom = [](void* self, int fd, void* data, size_t size, int flags, sockaddr*, socklen_t*) {
    return Receive(self, fd, data, size, flags);
  };
  i->recvmsg = [](void* self, int fd, msghdr* m, int flags) {
    return On(self, [&](Sockets& s, auto& lock) { return s.ReceiveMessage(lock, fd, m, flags); });
  };
  i->write = [](void* self, int fd, const void* data, size_t size) {
    return Send(self, fd, data, size, 0);
  };
  i->writev = [](void* self, int fd, const iovec* v, int count) {
    return On(self, [&](Sockets& s, auto& lock) {
      return s.Send(lock, fd, {v, static_cast<size_t>(count)}, 0);
    });
  };
  i->send = Send;
  i->sendto = [](void* self, int fd, const void* data, size_t size, int flags, const sockaddr*,
                 socklen_t) { return Send(self, fd, data, size, flags); };
  i->sendmsg = [](void* self, int fd, const msghdr* m, int flags) {
    return On(self, [&](Sockets& s, auto& lock) {
      return s.Send(lock, fd, {m->msg_iov, m->msg_iovlen}, flags);
    });
  };
  i->fcntl = Control;
  i->ioctl = Query;
  i->close = [](void* self, int fd) {
    return On(self, [&](Sockets& s, auto&) { return s.Close(fd); });
  };
  i->shutdown = [](void* self, int fd, int how) {
    return On(self, [&](Sockets& s, auto&) { return s.Shutdown(fd, how); });
  };
  i->getsockopt = [](void* self, int fd, int level, int name, void* value, socklen_t* n) {
    return On(self, [&](Sockets& s, auto&) { return s.GetOption(fd, level, name, value, n); });
  };
  i->setsockopt = [](void* self, int fd, int level, int name, const void* value, socklen_t n) {
    return On(self, [&](Sockets& s, auto&) { return s.SetOption(fd, level, name, value, n); });
  };
  i->poll = [](void* self, pollfd* fds, nfds_t count, int timeout) {
    return On(self, [&](Sockets& s, auto& lock) { return s.Poll(lock, {fds, count}, timeout); });
  };
  i->netdev_send = NetdevSend;
  i->netdev_receive = NetdevReceive;
  i->usleep = [](void* self, useconds_t usecs) {
    auto& a = *static_cast<Adapter*>(self);
    auto lock = a.machine.Lock();
    a.machine.Sleep(lock, Micros(usecs));
    return 0;
  };
  i->gettimeofday = [](void* self, timeval* tv, struct timezone*) {
    auto& a = *static_cast<Adapter*>(self);
    auto lock = a.machine.Lock();
    const int64_t usecs = a.machine.ReadClock(lock) / Micros(1);
    *tv = {usecs / 1'000'000, usecs % 1'000'000};
    return 0;
  };
  i->epoll_create = [](void* self, int) {
    return On(self, [&](Sockets& s, auto&) { return s.EpollCreate(); });
  };
  i->epoll_ctl = [](void* self, int epfd, int op, int fd, epoll_event* event) {
    return On(self, [&](Sockets& s, auto&) { return s.EpollControl(epfd, op, fd, event); });
  };
  i->epoll_wait = [](void* self, int epfd, epoll_event* events, int most, int timeout) {
    return On(self, [&](Sockets& s, auto& lock) {
      return s.EpollWait(lock, epfd, events, most, timeout);
    });
  };
  i->pipe = [](void*, int fds[2]) { return ::pipe(fds); };
  i->splice = [](void*, int, loff_t*, int, loff_t*, size_t, unsigned) -> ssize_t {
    errno = EOPNOTSUPP;
    return -1;
  };
}

}  // namespace
}  // namespace sluice::test

extern "C" {

SLUICE_EXPORT void packetdrill_interface_init(const char* flags, PacketdrillInterface* interface) {
  sluice::test::Init(flags, interface);
}

SLUICE_EXPORT int getsockopt(int fd, int level, int name, void* __restrict value,
                             socklen_t* __restrict length) noexcept {
  using sluice::test::current;
  if (current != nullptr) {
    auto lock = current->machine.Lock();
    if (current->sockets.Has(fd)) {
      return current->sockets.GetOption(fd, level, name, value, length);
    }
  }
  return static_cast<int>(::syscall(SYS_getsockopt, fd, level, name, value, length));
}

}  // extern "C"
