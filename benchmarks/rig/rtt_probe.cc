// Round trips of UDP datagrams between two hosts of the rig, beside a steady load of other flows.
//   rtt_probe reflect ADDRESS PORT
//       sends back whatever it receives, until its input ends
//   rtt_probe ask SOURCE TARGET PORT [--samples N] [--interval MICROSECONDS] [--settle SECONDS]
//             [--load DATAGRAMS_PER_SECOND] [--flows N]
//       one datagram at a time, each after the answer to the one before; prints what the round
//       trips took, as JSON.
// Datagrams that are to be answered begin with a mark (rig_abi.h), without which the sink counts
// and drops them: those of the load. Its flows are answered while they settle, so that whoever
// tracks connections has seen both directions for long enough to believe in them.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <thread>
#include <vector>

#include "command_loop.h"
#include "options.h"
#include "rig_abi.h"

namespace sluice::rig {
namespace {

constexpr size_t kPayload = 22;  // a frame of 64 bytes
constexpr uint64_t kSecond = 1000000000;
constexpr uint64_t kBurstEvery = 100000;  // the load is sent in bursts, this many nanoseconds apart
constexpr int kAnswerMillis = 100;        // later than this is lost
constexpr uint64_t kMarkEvery = kSecond / 10;

struct Options {
  std::string source, target;
  uint16_t port = 0;
  uint64_t samples = 5000, interval_us = 400, load = 0, flows = 100;
  double settle = 3;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  const auto words = ReadOptions(argc, argv, {{"samples", &options.samples},
                                              {"interval", &options.interval_us},
                                              {"load", &options.load},
                                              {"flows", &options.flows},
                                              {"settle", &options.settle}});
  if (words.size() != 4) Fail("usage: rtt_probe ask SOURCE TARGET PORT [OPTIONS]");
  options.flows = std::max<uint64_t>(1, options.flows);
  options.source = words[1];
  options.target = words[2];
  options.port = static_cast<uint16_t>(std::stoul(words[3]));
  return options;
}

sockaddr_in Address(const std::string& text, uint16_t port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  if (inet_pton(AF_INET, text.c_str(), &address.sin_addr) != 1) Fail("bad address " + text);
  return address;
}

int BoundSocket(const sockaddr_in& address) {
  const int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || bind(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    Fail(std::string("cannot bind a socket: ") + std::strerror(errno));
  }
  return fd;
}

int Connected(const Options& options) {
  const int fd = BoundSocket(Address(options.source, 0));
  const sockaddr_in target = Address(options.target, options.port);
  if (connect(fd, reinterpret_cast<const sockaddr*>(&target), sizeof target) != 0) {
    Fail(std::string("cannot connect a socket: ") + std::strerror(errno));
  }
  return fd;
}

void SleepUntil(uint64_t when) {
  const timespec time{.tv_sec = static_cast<time_t>(when / kSecond),
                      .tv_nsec = static_cast<long>(when % kSecond)};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, nullptr) == EINTR) {
  }
}

// The flows that the probe shares the device with.
class Load {
 public:
  explicit Load(const Options& options) : rate_(options.load) {
    for (uint64_t i = 0; rate_ > 0 && i < options.flows; ++i)
      sockets_.push_back(Connected(options));
  }
  ~Load() {
    for (const int fd : sockets_) close(fd);
  }
  Load(const Load&) = delete;
  Load& operator=(const Load&) = delete;

  void Mark() {
    std::array<char, kPayload> data = {RIG_MARK};
    for (const int fd : sockets_) {
      if (send(fd, data.data(), data.size(), MSG_DONTWAIT) > 0) ++marked_;
      while (recv(fd, data.data(), data.size(), MSG_DONTWAIT) > 0) {
      }
    }
  }

  void Run(const std::atomic<bool>& stop) {
    const std::array<char, kPayload> data = {};
    const double per_nano = static_cast<double>(rate_) / kSecond;
    // What a thread that was held up has missed is not sent in one burst later.
    const auto burst = static_cast<uint64_t>(2 * per_nano * kBurstEvery) + 1;
    const uint64_t begin = MonotonicNanos();
    uint64_t due_before = 0;
    while (!stop.load(std::memory_order_relaxed) && !sockets_.empty()) {
      const uint64_t now = MonotonicNanos();
      const auto due = static_cast<uint64_t>(static_cast<double>(now - begin) * per_nano);
      for (uint64_t i = std::min(due - due_before, burst); i > 0; --i) {
        const int fd = sockets_[next_++ % sockets_.size()];
        if (send(fd, data.data(), data.size(), MSG_DONTWAIT) > 0) {
          sent_.fetch_add(1, std::memory_order_relaxed);
        }
      }
      due_before = due;
      SleepUntil(now + kBurstEvery);
    }
  }

  uint64_t sent() const { return sent_.load(std::memory_order_relaxed); }
  uint64_t marked() const { return marked_; }

 private:
  const uint64_t rate_;
  std::vector<int> sockets_;
  uint64_t next_ = 0;
  std::atomic<uint64_t> sent_ = 0;
  uint64_t marked_ = 0;
};

// One datagram there and back; 0 if it is lost.
class Probe {
 public:
  explicit Probe(const Options& options) : fd_(Connected(options)) {
    const timeval limit{.tv_sec = 0, .tv_usec = kAnswerMillis * 1000};
    setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  }
  ~Probe() { close(fd_); }
  Probe(const Probe&) = delete;
  Probe& operator=(const Probe&) = delete;

  uint64_t RoundTrip() {
    std::array<char, kPayload> data = {RIG_MARK};
    const uint64_t number = ++number_;
    std::memcpy(data.data() + 1, &number, sizeof number);
    const uint64_t begin = MonotonicNanos();
    if (send(fd_, data.data(), data.size(), 0) < 0) return 0;
    for (uint64_t answered = 0; answered != number;) {
      if (recv(fd_, data.data(), data.size(), 0) < static_cast<ssize_t>(1 + sizeof number))
        return 0;
      std::memcpy(&answered, data.data() + 1, sizeof answered);  // an older one may come late
    }
    return MonotonicNanos() - begin;
  }

  uint64_t sent() const { return number_; }

 private:
  const int fd_;
  uint64_t number_ = 0;
};

// Of sorted values: the one that `share` of them do not exceed.
uint64_t Percentile(const std::vector<uint64_t>& sorted, double share) {
  const auto rank = static_cast<size_t>(share * static_cast<double>(sorted.size()));
  return sorted[std::min(rank, sorted.size() - 1)];
}

void Report(std::vector<uint64_t> trips, uint64_t lost, double load, uint64_t sent) {
  if (trips.empty()) Fail("no answer to any datagram");
  std::sort(trips.begin(), trips.end());
  const auto field = [&](const char* name, double share) {
    return std::string(",\"") + name + "\":" + std::to_string(Percentile(trips, share));
  };
  Say("{\"samples\":" + std::to_string(trips.size()) + ",\"lost\":" + std::to_string(lost) +
      ",\"load\":" + std::to_string(load) + ",\"sent\":" + std::to_string(sent) +
      field("p50_ns", 0.5) + field("p90_ns", 0.9) + field("p99_ns", 0.99) +
      field("p999_ns", 0.999) + field("max_ns", 1) + "}");
}

int Ask(const Options& options) {
  Probe probe(options);
  Load load(options);
  const uint64_t begin = MonotonicNanos();
  const auto settled = begin + static_cast<uint64_t>(options.settle * kSecond);
  for (uint64_t now = begin; now < settled; now = MonotonicNanos()) {
    load.Mark();
    probe.RoundTrip();
    SleepUntil(now + kMarkEvery);
  }
  std::atomic<bool> stop = false;
  std::thread loading([&] { load.Run(stop); });
  std::vector<uint64_t> trips;
  uint64_t lost = 0, loaded = 0, counting_since = 0;
  // The first second only warms up.
  const uint64_t warm = MonotonicNanos() + kSecond;
  while (trips.size() + lost < options.samples) {
    const uint64_t now = MonotonicNanos();
    const uint64_t trip = probe.RoundTrip();
    if (now >= warm) {
      if (counting_since == 0) {
        counting_since = now;
        loaded = load.sent();
      }
      if (trip == 0) {
        ++lost;
      } else {
        trips.push_back(trip);
      }
    }
    SleepUntil(now + options.interval_us * 1000);
  }
  const double seconds = static_cast<double>(MonotonicNanos() - counting_since) / kSecond;
  const double rate = static_cast<double>(load.sent() - loaded) / seconds;
  stop = true;
  loading.join();
  Report(std::move(trips), lost, rate, load.sent() + load.marked() + probe.sent());
  return 0;
}

int Reflect(const std::string& address, uint16_t port) {
  const int fd = BoundSocket(Address(address, port));
  Say("{\"ready\":true}");
  std::array<pollfd, 2> fds = {pollfd{fd, POLLIN, 0}, pollfd{STDIN_FILENO, POLLIN, 0}};
  std::array<char, 2048> data;
  while (poll(fds.data(), fds.size(), -1) > 0 && fds[1].revents == 0) {
    sockaddr_in from = {};
    socklen_t size = sizeof from;
    ssize_t length;
    while ((length = recvfrom(fd, data.data(), data.size(), MSG_DONTWAIT,
                              reinterpret_cast<sockaddr*>(&from), &size)) > 0) {
      static_cast<void>(sendto(fd, data.data(), static_cast<size_t>(length), MSG_DONTWAIT,
                               reinterpret_cast<const sockaddr*>(&from), size));
    }
  }
  return 0;
}

int Main(int argc, char** argv) {
  const std::string what = argc > 1 ? argv[1] : "";
  if (what == "reflect" && argc == 4) {
    return Reflect(argv[2], static_cast<uint16_t>(std::stoul(argv[3])));
  }
  if (what == "ask") return Ask(ParseOptions(argc, argv));
  Fail("usage: rtt_probe reflect ADDRESS PORT | rtt_probe ask SOURCE TARGET PORT [OPTIONS]");
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
