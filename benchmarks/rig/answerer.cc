// A server for the rig that costs as little as it can: what stands behind a proxy, or in place of it.
//   answerer ADDRESS HTTP_PORT DNS_PORT
// HTTP over TCP: one fixed page for each request (anything that ends with an empty line; bodies are not
// expected). The connection stays open, unless the request is of HTTP/1.0 or asks to close.
// DNS over UDP: the question comes back with an A record, whatever was asked.
// One thread; says {} when it listens, and ends when its input does.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string_view>
#include <vector>

#include "command_loop.h"

namespace sluice::rig {
namespace {

constexpr int kBacklog = 65535;
constexpr size_t kBatch = 64, kDatagram = 512, kDnsHeader = 12;
constexpr int kQueueBytes = 8 << 20;
constexpr std::string_view kPageOpen =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\n\r\n"
    "0123456789012345678901234567890123456789012345678901234567890123";
constexpr std::string_view kPageClose =
    "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 64\r\nConnection: close\r\n\r\n"
    "0123456789012345678901234567890123456789012345678901234567890123";
// The name as in the question, A, IN, a minute, 192.0.2.1.
constexpr std::array<uint8_t, 16> kRecord = {0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1};

sockaddr_in Address(const std::string& text, const std::string& port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(std::stoul(port)));
  if (inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) Fail("no address: " + text);
  return address;
}

int Open(int type, const sockaddr_in& address) {
  const int fd = socket(AF_INET, type | SOCK_NONBLOCK, 0);
  const int one = 1;
  setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  if (type == SOCK_DGRAM) {
    setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &kQueueBytes, sizeof(kQueueBytes));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &kQueueBytes, sizeof(kQueueBytes));
  }
  if (bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 ||
      (type == SOCK_STREAM && listen(fd, kBacklog) != 0))
    Fail(std::string("cannot listen: ") + std::strerror(errno));
  return fd;
}

class HttpSide {
 public:
  explicit HttpSide(int epoll, const sockaddr_in& address)
      : epoll_(epoll), listener_(Open(SOCK_STREAM, address)) {}
  int listener() const { return listener_; }

  void Accept() {
    for (int fd; (fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK)) >= 0;) {
      const int one = 1;
      setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
      if (size_t(fd) >= seen_.size()) seen_.resize(size_t(fd) + 1024);
      seen_[size_t(fd)].clear();
      // The request has often come with the handshake's last segment.
      if (!Serve(fd)) continue;
      epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
      epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
    }
  }

  // False: the connection is closed.
  bool Serve(int fd) {
    std::array<char, 4096> buffer;
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got < 0 && errno == EAGAIN) return true;
    if (got <= 0) return Close(fd);
    std::string_view data(buffer.data(), size_t(got));
    std::string& before = seen_[size_t(fd)];
    if (!before.empty()) {
      before += data;
      data = before;
    }
    std::string_view rest = data;
    for (size_t end; (end = rest.find("\r\n\r\n")) != rest.npos; rest.remove_prefix(end + 4)) {
      const std::string_view request = rest.substr(0, end + 4);
      const bool close = request.find("HTTP/1.0\r\n") != request.npos ||
                         request.find("Connection: close\r\n") != request.npos;
      const std::string_view page = close ? kPageClose : kPageOpen;
      // A page fits into any send buffer, unless nobody reads.
      if (write(fd, page.data(), page.size()) != ssize_t(page.size()) || close) return Close(fd);
    }
    before = std::string(rest);  // of a request that is not complete; mostly empty
    return true;
  }

 private:
  static bool Close(int fd) {
    close(fd);
    return false;
  }

  int epoll_, listener_;
  std::vector<std::string> seen_;  // by descriptor: the beginning of a request
};

class DnsSide {
 public:
  explicit DnsSide(const sockaddr_in& address) : fd_(Open(SOCK_DGRAM, address)) {
    for (size_t i = 0; i < kBatch; ++i) {
      pieces_[i] = {data_[i].data(), 0};
      messages_[i].msg_hdr = {&names_[i], 0, &pieces_[i], 1, nullptr, 0, 0};
    }
  }
  int fd() const { return fd_; }

  void Serve() {
    for (size_t i = 0; i < kBatch; ++i) {
      messages_[i].msg_hdr.msg_namelen = sizeof(names_[i]);
      pieces_[i].iov_len = kDatagram;
    }
    const int got = recvmmsg(fd_, messages_.data(), kBatch, 0, nullptr);
    for (int i = 0; i < got; ++i)
      pieces_[size_t(i)].iov_len = Answer(data_[size_t(i)].data(), messages_[size_t(i)].msg_len);
    for (int sent = 0; sent < got;) {
      const int now = sendmmsg(fd_, &messages_[size_t(sent)], unsigned(got - sent), 0);
      if (now <= 0) return;  // the queue is full: they are lost, as datagrams may be
      sent += now;
    }
  }

 private:
  static size_t Answer(uint8_t* data, size_t size) {
    if (size < kDnsHeader || size > kDatagram) return size;
    size_t end = kDnsHeader;
    while (end < size && data[end] != 0) end += size_t(data[end]) + 1;
    end += 5;  // the root, type and class
    if (end > size) return size;
    data[2] |= 0x84;                     // an answer, with authority
    data[3] = 0x80;                      // no error
    data[7] = 1;                         // one record
    std::memset(data + 8, 0, 4);         // and nothing else (EDNS)
    std::memcpy(data + end, kRecord.data(), kRecord.size());
    return end + kRecord.size();
  }

  int fd_;
  std::array<std::array<uint8_t, kDatagram + 32>, kBatch> data_ = {};
  std::array<sockaddr_in, kBatch> names_ = {};
  std::array<iovec, kBatch> pieces_ = {};
  std::array<mmsghdr, kBatch> messages_ = {};
};

void Watch(int epoll, int fd) {
  epoll_event event = {.events = EPOLLIN, .data = {.fd = fd}};
  if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) != 0) Fail("epoll_ctl");
}

int Main(int argc, char** argv) {
  if (argc != 4) Fail("usage: answerer ADDRESS HTTP_PORT DNS_PORT");
  const int epoll = epoll_create1(0);
  HttpSide http(epoll, Address(argv[1], argv[2]));
  DnsSide dns(Address(argv[1], argv[3]));
  Watch(epoll, http.listener());
  Watch(epoll, dns.fd());
  Watch(epoll, STDIN_FILENO);
  Say("{}");
  std::array<epoll_event, 256> events;
  while (true) {
    const int count = epoll_wait(epoll, events.data(), int(events.size()), -1);
    if (count < 0 && errno != EINTR) Fail("epoll_wait");
    for (int i = 0; i < count; ++i) {
      const int fd = events[size_t(i)].data.fd;
      if (fd == STDIN_FILENO) return 0;
      if (fd == http.listener()) {
        http.Accept();
      } else if (fd == dns.fd()) {
        dns.Serve();
      } else {
        http.Serve(fd);
      }
    }
  }
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
