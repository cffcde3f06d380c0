// A network namespace of the test's own, and raw sockets to speak through the far end of a veth
// pair.
//
// Needs root. The namespace has no name and ends with the process, with all that was made in it.
// IPv6 is off on new interfaces, so that nothing but the test's frames is on the links.
#ifndef SLUICE_TESTS_SUPPORT_NET_SANDBOX_H_
#define SLUICE_TESTS_SUPPORT_NET_SANDBOX_H_

#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace sluice::test {

inline void Require(bool condition, const std::string& what) {
  if (condition) return;
  std::fprintf(stderr, "test set-up: %s: %s\n", what.c_str(), std::strerror(errno));
  std::abort();
}

// Runs a command line that must succeed.
inline void Shell(const std::string& command) {
  Require(std::system(command.c_str()) == 0, command);
}

inline void WriteFile(const std::string& path, const std::string& text) {
  const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
  Require(fd >= 0, path);
  Require(write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()), path);
  close(fd);
}

// Moves the calling thread, and those it makes, into a new namespace, once per process.
inline void EnterSandbox() {
  static const bool entered = [] {
    Require(unshare(CLONE_NEWNET) == 0, "a network namespace of our own (root?)");
    Shell("ip link set dev lo up");
    WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1");
    return true;
  }();
  static_cast<void>(entered);
}

// Polls `condition` until it holds; false when it does not within ten seconds.
inline bool Eventually(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    usleep(500);
  }
  return true;
}

// A pair of Ethernet interfaces, gone with the object.
class VethPair {
 public:
  // `options` as for both ends of `ip link add ... type veth`, for example "mtu 9000".
  VethPair(const std::string& near, const std::string& far, const std::string& options = "",
           int queues = 1)
      : near_(near), far_(far) {
    EnterSandbox();
    const std::string numbers =
        " numtxqueues " + std::to_string(queues) + " numrxqueues " + std::to_string(queues) + " ";
    Shell("ip link add " + near + numbers + options +
          " address 02:00:00:00:00:01 type veth peer name " + far + numbers + options +
          " address 02:00:00:00:00:02");
    Shell("ip link set dev " + far + " up");
    Shell("ip link set dev " + near + " up");
    Require(Eventually([&] {
              return system(("ip link show " + near + " | grep -q LOWER_UP").c_str()) == 0;
            }),
            "carrier");
  }
  ~VethPair() { Remove(); }
  VethPair(const VethPair&) = delete;
  VethPair& operator=(const VethPair&) = delete;

  void Remove() {
    if (removed_) return;
    removed_ = true;
    Shell("ip link del dev " + near_);
  }
  const std::string& near() const { return near_; }
  const std::string& far() const { return far_; }

 private:
  const std::string near_;
  const std::string far_;
  bool removed_ = false;
};

// Sends and receives whole frames on one interface.
class RawSocket {
 public:
  explicit RawSocket(const std::string& interface) {
    fd_ = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, htons(0x0003));  // ETH_P_ALL
    Require(fd_ >= 0, "raw socket");
    const int buffer = 64 << 20;
    setsockopt(fd_, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
    setsockopt(fd_, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
    const int on = 1;
    setsockopt(fd_, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof on);
    sockaddr_ll address{};
    address.sll_family = AF_PACKET;
    address.sll_protocol = htons(0x0003);
    address.sll_ifindex = static_cast<int>(if_nametoindex(interface.c_str()));
    Require(bind(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0,
            "bind " + interface);
  }
  ~RawSocket() { close(fd_); }
  RawSocket(const RawSocket&) = delete;
  RawSocket& operator=(const RawSocket&) = delete;

  bool Send(const std::vector<uint8_t>& frame) {
    return send(fd_, frame.data(), frame.size(), 0) == static_cast<ssize_t>(frame.size());
  }
  // Takes from now on what a classic BPF program lets through.
  void SetFilter(std::vector<sock_filter> code) {
    const sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
    Require(setsockopt(fd_, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof program) == 0, "filter");
  }
  // What has arrived already.
  std::optional<std::vector<uint8_t>> TryReceive() {
    std::vector<uint8_t> frame(70000);
    const ssize_t n = recv(fd_, frame.data(), frame.size(), 0);
    if (n < 0) return {};
    frame.resize(static_cast<size_t>(n));
    return frame;
  }
  // Waits for the next frame, up to five seconds.
  std::optional<std::vector<uint8_t>> Receive() {
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, 5000) != 1) return {};
    return TryReceive();
  }

 private:
  int fd_ = -1;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_NET_SANDBOX_H_
