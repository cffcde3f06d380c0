// HTTP requests on connections that stay open.
//   http_load ADDRESS PORT --connections N --rate R [--seconds S] [--warm-up S]
//       R requests per second on a fixed schedule, each on whichever connection is free. A request's
//       latency counts from when it was due: one that had to wait for a connection has waited. Prints
//       what the latencies were, as JSON.
//   http_load ADDRESS PORT --connections N --hold
//       opens them, has one answer on each, says {} and keeps them open until its input ends
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "command_loop.h"
#include "options.h"

namespace sluice::rig {
namespace {

constexpr uint64_t kSecond = 1000000000;
constexpr uint64_t kPatience = 2 * kSecond;  // an answer later than this is lost
constexpr int kAnswerSeconds = 5;            // while connections are being opened

struct Options {
  sockaddr_in target = {};
  std::string request;
  size_t connections = 64;
  double rate = 0, seconds = 4, warm_up = 1;
  bool hold = false;
};

Options ParseOptions(int argc, char** argv) {
  Options options;
  const auto words = ReadOptions(argc, argv, {{"connections", &options.connections},
                                              {"rate", &options.rate},
                                              {"seconds", &options.seconds},
                                              {"warm-up", &options.warm_up},
                                              {"hold", &options.hold}});
  if (words.size() != 2 || (!options.hold && options.rate <= 0))
    Fail("usage: http_load ADDRESS PORT --connections N (--rate R | --hold)");
  options.target.sin_family = AF_INET;
  options.target.sin_port = htons(static_cast<uint16_t>(std::stoul(words[1])));
  if (inet_pton(AF_INET, words[0].c_str(), &options.target.sin_addr) != 1) Fail("no address");
  options.request = "GET / HTTP/1.1\r\nHost: " + words[0] + "\r\n\r\n";
  return options;
}

// The length of a complete answer at the beginning; 0: there is none.
size_t AnswerLength(std::string_view data) {
  const size_t header = data.find("\r\n\r\n");
  if (header == data.npos) return 0;
  constexpr std::string_view kLength = "\r\nContent-Length: ";
  const size_t at = data.find(kLength);
  if (at == data.npos || at > header) Fail("an answer without a length");
  const size_t total = header + 4 + std::strtoull(data.data() + at + kLength.size(), nullptr, 10);
  return data.size() >= total ? total : 0;
}

int Connect(const Options& options) {
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0) Fail(std::string("socket: ") + std::strerror(errno));
  const timeval patience = {.tv_sec = kAnswerSeconds, .tv_usec = 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  const int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  if (connect(fd, reinterpret_cast<const sockaddr*>(&options.target), sizeof(options.target)) != 0)
    Fail(std::string("connect: ") + std::strerror(errno));
  return fd;
}

void AskOnce(int fd, const std::string& request) {
  if (write(fd, request.data(), request.size()) != ssize_t(request.size())) Fail("write");
  std::string answer;
  std::array<char, 4096> buffer;
  while (AnswerLength(answer) == 0) {
    const ssize_t got = read(fd, buffer.data(), buffer.size());
    if (got <= 0) Fail("a connection without an answer");
    answer.append(buffer.data(), size_t(got));
  }
}

std::vector<int> OpenAll(const Options& options) {
  rlimit files = {options.connections + 64, options.connections + 64};
  if (setrlimit(RLIMIT_NOFILE, &files) != 0) Fail("too many connections");
  std::vector<int> all;
  for (size_t i = 0; i < options.connections; ++i) {
    all.push_back(Connect(options));
    AskOnce(all.back(), options.request);
  }
  return all;
}

class Schedule {
 public:
  explicit Schedule(const Options& options) : options_(options), epoll_(epoll_create1(0)) {
    for (const int fd : OpenAll(options)) {
      epoll_event event = {.events = EPOLLIN, .data = {.u32 = uint32_t(connections_.size())}};
      if (epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event) != 0) Fail("epoll_ctl");
      free_.push_back(connections_.size());
      connections_.push_back({.fd = fd});
    }
  }

  void Run() {
    const double every = double(kSecond) / options_.rate;
    const uint64_t start = MonotonicNanos() + kSecond / 100;
    first_ = start + uint64_t(options_.warm_up * kSecond);
    end_ = first_ + uint64_t(options_.seconds * kSecond);
    uint64_t number = 0;
    while (true) {
      const uint64_t now = MonotonicNanos();
      uint64_t due = start + uint64_t(every * double(number));
      while (due <= now && due < end_ && !free_.empty()) {
        Send(due);
        due = start + uint64_t(every * double(++number));
      }
      const bool all_sent = due >= end_;
      if (all_sent && (free_.size() == connections_.size() || now > end_ + kPatience)) break;
      if (now > end_ + kPatience) break;  // it cannot keep up by far
      Wait(!all_sent && !free_.empty() ? due - std::min(now, due) : kSecond / 10);
    }
    // Those that were never sent, or never answered, were due as well.
    const uint64_t wanted = uint64_t(options_.rate * options_.seconds);
    Report(wanted > latencies_.size() ? wanted - latencies_.size() : 0);
  }

 private:
  struct Connection {
    int fd = -1;
    uint64_t due = 0;
    std::string partial = {};
  };

  void Send(uint64_t due) {
    Connection& c = connections_[free_.back()];
    free_.pop_back();
    c.due = due;
    const std::string& request = options_.request;
    if (write(c.fd, request.data(), request.size()) != ssize_t(request.size()))
      Fail(std::string("write: ") + std::strerror(errno));
  }

  void Wait(uint64_t nanos) {
    std::array<epoll_event, 64> events;
    const timespec timeout = {.tv_sec = time_t(nanos / kSecond), .tv_nsec = long(nanos % kSecond)};
    const int count = epoll_pwait2(epoll_, events.data(), int(events.size()), &timeout, nullptr);
    if (count < 0 && errno != EINTR) Fail("epoll_pwait2");
    for (int i = 0; i < count; ++i) Receive(events[size_t(i)].data.u32);
  }

  void Receive(size_t index) {
    Connection& c = connections_[index];
    std::array<char, 4096> buffer;
    const ssize_t got = read(c.fd, buffer.data(), buffer.size());
    if (got <= 0) Fail("a connection was closed");
    c.partial.append(buffer.data(), size_t(got));
    if (AnswerLength(c.partial) == 0) return;
    c.partial.clear();
    if (c.due >= first_) latencies_.push_back(MonotonicNanos() - c.due);
    free_.push_back(index);
  }

  void Report(uint64_t lost) {
    if (latencies_.empty()) Fail("no answer");
    std::sort(latencies_.begin(), latencies_.end());
    const auto at = [&](double share) {
      return std::to_string(latencies_[size_t(share * double(latencies_.size() - 1))]);
    };
    Say("{\"answered\": " + std::to_string(latencies_.size()) + ", \"lost\": " +
        std::to_string(lost) + ", \"p50_ns\": " + at(0.5) + ", \"p90_ns\": " + at(0.9) +
        ", \"p99_ns\": " + at(0.99) + ", \"p999_ns\": " + at(0.999) + "}");
  }

  const Options& options_;
  int epoll_;
  uint64_t first_ = 0, end_ = 0;
  std::vector<Connection> connections_;
  std::vector<size_t> free_;
  std::vector<uint64_t> latencies_;
};

int Main(int argc, char** argv) {
  const Options options = ParseOptions(argc, argv);
  prctl(PR_SET_TIMERSLACK, 1);
  if (options.hold) {
    const std::vector<int> held = OpenAll(options);
    Say("{}");
    RunCommands([](const std::string&) { return true; });
    return 0;
  }
  Schedule(options).Run();
  return 0;
}

}  // namespace
}  // namespace sluice::rig

int main(int argc, char** argv) { return sluice::rig::Main(argc, argv); }
