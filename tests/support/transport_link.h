// Two hosts with the shipped transport stack, and the link between them, which can be bad: loss,
// duplication, reordering, corruption, a bottleneck with a queue, ECN marks, a small MTU in the
// middle with or without ICMP. One thread, time is simulated, a seed decides everything.
#ifndef SLUICE_TESTS_SUPPORT_TRANSPORT_LINK_H_
#define SLUICE_TESTS_SUPPORT_TRANSPORT_LINK_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <queue>
#include <vector>

#include "base/rng.h"
#include "support/transport_host.h"

namespace sluice::test {

class TransportLink {
 public:
  using Bytes = std::vector<uint8_t>;

  // One direction. Chances are per 10,000 packets.
  struct Quality {
    Nanos delay = Millis(10);
    uint64_t bits_per_second = 0;  // 0: no limit
    uint32_t queue_packets = 100;  // at the bottleneck, of 1500 bytes
    uint32_t mark_above = 0;       // ECN: queue length; 0: never
    uint32_t loss = 0;
    uint32_t duplicate = 0;
    uint32_t reorder = 0;  // so many are held back
    Nanos reorder_delay = Millis(5);
    uint32_t corrupt = 0;
    uint32_t mtu = 65535;  // larger packets do not pass
    bool icmp = true;      // ... and the sender is told
  };
  struct Options {
    uint64_t seed = 1;
    bool v6 = false;
    Quality forward;   // from host 0 to host 1
    Quality backward;
    std::array<TransportHost::Options, 2> hosts;
  };

  explicit TransportLink(const Options& options);

  TransportHost& host(int i) { return *hosts_[static_cast<size_t>(i)]; }
  IpAddress address(int i) const;
  Nanos now() const { return now_; }
  Quality& quality(int from) { return quality_[static_cast<size_t>(from)]; }

  // Something else that lives on this clock: asked when it wants to be called, and called then.
  void AddClockwork(std::function<Nanos()> next_deadline, std::function<void(Nanos)> on_timer) {
    clockworks_.push_back({std::move(next_deadline), std::move(on_timer)});
  }

  // One event (an arrival, or a timer); false when nothing is left to happen before `end`.
  bool Step(Nanos end);
  void Run(Nanos time);
  // Until `done`, at most for `time`; whether it came.
  bool RunUntil(const std::function<bool()>& done, Nanos time);

  uint64_t packets(int from) const { return packets_[static_cast<size_t>(from)]; }
  uint64_t lost_in_queue() const { return lost_in_queue_; }
  // Sees every packet that is sent, and may keep it from the link (false).
  std::function<bool(int from, const Bytes&)> filter;
  // Sees every packet that arrives and that no socket claims.
  std::function<void(int at, const Bytes&)> on_unclaimed;
  // A packet from the outside, for host `to`.
  void Inject(int to, Bytes packet) {
    Arrive(to, std::move(packet), now_ + quality_[static_cast<size_t>(1 - to)].delay);
  }

 private:
  struct Event {
    Nanos time;
    uint64_t order;
    int to;
    Bytes packet;
    bool operator>(const Event& o) const {
      return time != o.time ? time > o.time : order > o.order;
    }
  };

  struct Clockwork {
    std::function<Nanos()> next_deadline;
    std::function<void(Nanos)> on_timer;
  };

  void Send(int from, Bytes packet, Nanos now);
  void TellTooBig(int from, const Bytes& packet, uint32_t mtu);
  void Arrive(int to, Bytes packet, Nanos when) {
    events_.push({when, ++order_, to, std::move(packet)});
  }

  const bool v6_;
  Rng rng_;
  std::array<Quality, 2> quality_;
  std::array<std::unique_ptr<TransportHost>, 2> hosts_;
  std::array<Nanos, 2> busy_until_;
  std::array<uint64_t, 2> packets_{};
  std::priority_queue<Event, std::vector<Event>, std::greater<>> events_;
  std::vector<Clockwork> clockworks_;
  uint64_t order_ = 0;
  uint64_t lost_in_queue_ = 0;
  Nanos now_ = Seconds(5000);
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_TRANSPORT_LINK_H_
