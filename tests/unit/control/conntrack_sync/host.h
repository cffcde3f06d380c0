// Other machines for tests: network namespaces on the far end of veth pairs, and sockets in them.
// The test itself is in the router's namespace (support/network_namespace.h).
#ifndef SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_HOST_H_
#define SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_HOST_H_

#include <arpa/inet.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sched.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <optional>
#include <string>

#include "base/address.h"
#include "support/network_namespace.h"

namespace sluice::test {

inline sockaddr_storage SocketAddress(const IpAddress& address, uint16_t port) {
  sockaddr_storage storage{};
  if (address.is_v4()) {
    auto* in = reinterpret_cast<sockaddr_in*>(&storage);
    in->sin_family = AF_INET;
    in->sin_port = htons(port);
    in->sin_addr.s_addr = htonl(address.v4().value);
  } else {
    auto* in6 = reinterpret_cast<sockaddr_in6*>(&storage);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons(port);
    address.v6().ToWire(in6->sin6_addr.s6_addr);
  }
  return storage;
}

// A socket that gives up waiting after five seconds.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {
    EXPECT_GE(fd_, 0) << std::strerror(errno);
    const timeval patience{.tv_sec = 5};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    const int on = 1;
    setsockopt(fd_, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
  }
  Socket(Socket&& other) noexcept : fd_(other.fd_) { other.fd_ = -1; }
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }

  void Bind(const std::string& address, uint16_t port) {
    const auto to = SocketAddress(*ParseIpAddress(address), port);
    EXPECT_EQ(bind(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to), 0)
        << std::strerror(errno);
  }
  bool Connect(const std::string& address, uint16_t port) {
    const auto to = SocketAddress(*ParseIpAddress(address), port);
    return connect(fd_, reinterpret_cast<const sockaddr*>(&to), sizeof to) == 0;
  }
  void Listen() { EXPECT_EQ(listen(fd_, 8), 0); }
  Socket Accept() { return Socket(accept(fd_, nullptr, nullptr)); }
  bool Send(const std::string& text) {
    return send(fd_, text.data(), text.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(text.size());
  }
  // What comes next, "" when nothing does; `from` is "address:port".
  std::string Receive(std::string* from = nullptr) {
    char bytes[2048];
    sockaddr_storage peer{};
    socklen_t length = sizeof peer;
    const ssize_t n =
        recvfrom(fd_, bytes, sizeof bytes, 0, reinterpret_cast<sockaddr*>(&peer), &length);
    if (n <= 0) return "";
    if (from != nullptr) *from = Name(peer);
    reply_to_ = peer;
    return std::string(bytes, static_cast<size_t>(n));
  }
  // To whom the last datagram came from.
  bool Reply(const std::string& text) {
    return sendto(fd_, text.data(), text.size(), 0, reinterpret_cast<const sockaddr*>(&reply_to_),
                  sizeof reply_to_) == static_cast<ssize_t>(text.size());
  }
  uint16_t port() const {
    sockaddr_storage own{};
    socklen_t length = sizeof own;
    getsockname(fd_, reinterpret_cast<sockaddr*>(&own), &length);
    return ntohs(reinterpret_cast<const sockaddr_in*>(&own)->sin_port);
  }

 private:
  static std::string Name(const sockaddr_storage& peer) {
    char text[64] = "";
    if (peer.ss_family == AF_INET) {
      const auto& in = reinterpret_cast<const sockaddr_in&>(peer);
      inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    } else {
      const auto& in6 = reinterpret_cast<const sockaddr_in6&>(peer);
      inet_ntop(AF_INET6, &in6.sin6_addr, text, sizeof text);
    }
    return std::string(text) + ":" +
           std::to_string(ntohs(reinterpret_cast<const sockaddr_in&>(peer).sin_port));
  }

  int fd_;
  sockaddr_storage reply_to_{};
};

class Host {
 public:
  // Connected to the current namespace by a link, whose near end is called `link`; addresses with
  // their prefix lengths; the near ones are the default gateways.
  Host(const std::string& link, const std::string& near4, const std::string& far4,
       const std::string& near6, const std::string& far6)
      : router_(Current()) {
    EXPECT_EQ(unshare(CLONE_NEWNET), 0);
    own_ = Current();
    EXPECT_EQ(setns(router_, CLONE_NEWNET), 0);
    const std::string here = "/proc/" + std::to_string(getpid()) + "/fd/" + std::to_string(own_);
    NetworkNamespace::Ip("link add " + link + " type veth peer name eth0 netns " + here +
                         "\naddr add " + near4 + " dev " + link + "\naddr add " + near6 + " dev " +
                         link + " nodad\nlink set " + link + " up\n");
    Inside([&] {
      NetworkNamespace::Ip("link set lo up\naddr add " + far4 + " dev eth0\naddr add " + far6 +
                           " dev eth0 nodad\nlink set eth0 up\n");
      NetworkNamespace::Ip("route add default via " + near4.substr(0, near4.find('/')) + "\n");
      NetworkNamespace::Ip6("route add default via " + near6.substr(0, near6.find('/')) + "\n");
    });
  }
  ~Host() {
    close(own_);
    close(router_);
  }
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  Socket Open(int family, int type) {
    int fd = -1;
    Inside([&] { fd = socket(family, type | SOCK_CLOEXEC, 0); });
    return Socket(fd);
  }

 private:
  static int Current() { return open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC); }
  template <class F>
  void Inside(const F& f) {
    EXPECT_EQ(setns(own_, CLONE_NEWNET), 0);
    f();
    EXPECT_EQ(setns(router_, CLONE_NEWNET), 0);
  }

  const int router_;
  int own_ = -1;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_UNIT_CONTROL_CONNTRACK_SYNC_HOST_H_
