// POSIX sockets on the stack, as packetdrill's scripts call them: blocking or not, errors as errno, and
// the socket options that the stack has. Results are those of the system calls: -1 with errno set.
//
// A socket's number is a descriptor of the kernel's (of /dev/null), since packetdrill closes what a
// script leaves open by itself.
#ifndef SLUICE_TESTS_PACKETDRILL_SOCKETS_H_
#define SLUICE_TESTS_PACKETDRILL_SOCKETS_H_

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include <map>
#include <optional>
#include <span>

#include "packetdrill/machine.h"

namespace sluice::test {

class Sockets : public transport::TcpHandler {
 public:
  using Held = Machine::Held;
  explicit Sockets(Machine& machine) : machine_(machine) {}

  int Socket(int domain, int type, int protocol);
  int Bind(int fd, const sockaddr* address, socklen_t length);
  int Listen(int fd, int backlog);
  int Accept(Held lock, int fd, sockaddr* address, socklen_t* length);
  int Connect(Held lock, int fd, const sockaddr* address, socklen_t length);
  ssize_t Receive(Held lock, int fd, std::span<const iovec> to, int flags);
  ssize_t ReceiveMessage(Held lock, int fd, msghdr* message, int flags);
  ssize_t Send(Held lock, int fd, std::span<const iovec> from, int flags);
  int Control(int fd, int command, int argument);  // fcntl
  int Query(int fd, unsigned long request, int* value);  // ioctl
  int Close(int fd);
  int Shutdown(int fd, int how);
  int GetOption(int fd, int level, int name, void* value, socklen_t* length);
  int SetOption(int fd, int level, int name, const void* value, socklen_t length);
  int Poll(Held lock, std::span<pollfd> fds, int timeout);
  int EpollCreate();
  int EpollControl(int epfd, int op, int fd, epoll_event* event);
  int EpollWait(Held lock, int epfd, epoll_event* events, int most, int timeout);

  bool Has(int fd) const { return sockets_.contains(fd); }

  // transport::TcpHandler
  void OnConnected(transport::TcpSocket s, Nanos) override { Mark(s, EPOLLOUT); }
  void OnReadable(transport::TcpSocket s, Nanos) override { Mark(s, EPOLLIN); }
  void OnWritable(transport::TcpSocket s, Nanos) override { Mark(s, EPOLLOUT); }
  void OnError(transport::TcpSocket s, transport::SocketError, Nanos) override {
    Mark(s, EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP);
  }
  void OnAcceptable(transport::TcpListenerId, Nanos) override;

 private:
  struct Entry {
    bool v6 = false;
    bool nonblocking = false;
    bool listening = false;
    bool connecting = false;  // Connect was called, and its end not told
    bool read_shutdown = false;
    bool inq = false;         // TCP_INQ
    bool error_told = false;
    bool writable_seen = false;
    transport::Endpoint local;
    transport::TcpSocketOptions options;
    transport::TcpSocket socket;
    transport::TcpListenerId listener;
    uint32_t send_buffer = 0;     // as set, doubled as Linux does
    uint32_t receive_buffer = 0;
    int tos = 0;
    uint32_t edges = 0;           // epoll events since the last time
  };
  struct Watch {
    epoll_event event;
    uint32_t told = 0;
    bool off = false;  // EPOLLONESHOT has fired
  };

  Entry* Find(int fd);
  const transport::Tcb* TcbOf(const Entry& e);
  // Reads as reading would: kNone, kWouldBlock, kEndOfData or an error.
  transport::SocketError Readable(Entry& e);
  bool Writable(Entry& e);
  uint32_t Events(Entry& e);
  void Mark(transport::TcpSocket socket, uint32_t events);
  int Fail(int error);
  int FailWith(Entry& e, transport::SocketError error, bool sending);
  // The error that waits to be told, once.
  int TakeError(Entry& e);
  std::optional<transport::Endpoint> ToEndpoint(const sockaddr* address, socklen_t length) const;
  void FromEndpoint(const Entry& e, const transport::Endpoint& from, sockaddr* to,
                    socklen_t* length) const;
  int TcpOption(Entry& e, int name, int64_t value);
  int FillTcpInfo(Entry& e, void* value, socklen_t* length);

  Machine& machine_;
  std::map<int, Entry> sockets_;
  std::map<int, std::map<int, Watch>> epolls_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_PACKETDRILL_SOCKETS_H_
