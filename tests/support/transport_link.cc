#include "support/transport_link.h"

#include <algorithm>

#include "support/packet_builder.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::test {

TransportLink::TransportLink(const Options& options)
    : v6_(options.v6), rng_(options.seed), quality_{options.forward, options.backward} {
  for (int i = 0; i < 2; ++i) {
    TransportHost::Options host = options.hosts[static_cast<size_t>(i)];
    host.address = *ParseIpAddress(i == 0 ? "10.0.0.1" : "10.0.0.2");
    host.address6 = *ParseIpAddress(i == 0 ? "2001:db8::1" : "2001:db8::2");
    host.seed = options.seed * 2 + static_cast<uint64_t>(i);
    host.config.start = now_;
    hosts_[static_cast<size_t>(i)] = std::make_unique<TransportHost>(host);
    hosts_[static_cast<size_t>(i)]->on_output = [this, i](Bytes packet, Nanos now) {
      Send(i, std::move(packet), now);
    };
    transport::Transport& stack = hosts_[static_cast<size_t>(i)]->stack();
    AddClockwork([&stack] { return stack.NextDeadline(); },
                 [&stack](Nanos now) { stack.OnTimer(now); });
  }
}

IpAddress TransportLink::address(int i) const {
  return *ParseIpAddress(v6_ ? (i == 0 ? "2001:db8::1" : "2001:db8::2")
                             : (i == 0 ? "10.0.0.1" : "10.0.0.2"));
}

void TransportLink::TellTooBig(int from, const Bytes& packet, uint32_t mtu) {
  const Bytes quoted(packet.begin(),
                     packet.begin() + std::min<long>(static_cast<long>(packet.size()), 68));
  PacketBuilder b;
  if (v6_) {
    b.Ipv6("2001:db8::9", from == 0 ? "2001:db8::1" : "2001:db8::2").Icmpv6(2, 0, mtu);
  } else {
    b.Ipv4("10.0.0.9", from == 0 ? "10.0.0.1" : "10.0.0.2").Icmp(3, 4, mtu);
  }
  Arrive(from, b.Payload(quoted).Build(), now_ + quality_[static_cast<size_t>(from)].delay);
}

void TransportLink::Send(int from, Bytes packet, Nanos now) {
  const size_t f = static_cast<size_t>(from);
  const Quality& q = quality_[f];
  ++packets_[f];
  if (filter && !filter(from, packet)) return;
  if (packet.size() > q.mtu) {
    if (q.icmp) TellTooBig(from, packet, q.mtu);
    return;
  }
  if (rng_.Chance(q.loss, 10000)) return;
  Nanos leaves = now;
  if (q.bits_per_second > 0) {
    const Nanos each(static_cast<int64_t>(packet.size() * 8 * 1'000'000'000 / q.bits_per_second));
    busy_until_[f] = std::max(busy_until_[f], now);
    const Nanos full(int64_t{1500} * 8 * 1'000'000'000 / static_cast<int64_t>(q.bits_per_second));
    const int64_t waiting = (busy_until_[f] - now) / std::max(full, Nanos(1));
    if (waiting > q.queue_packets) {
      ++lost_in_queue_;
      return;
    }
    if (q.mark_above > 0 && waiting > q.mark_above) {
      if (!v6_ && (packet[1] & 3) == 2) wire::Ipv4Mutable(packet.data()).UpdateTos(packet[1] | 3);
      if (v6_ && wire::Ipv6View(packet.data()).ecn() == 2) {
        wire::Ipv6Mutable ip(packet.data());
        ip.set_traffic_class(ip.traffic_class() | 3);
      }
    }
    busy_until_[f] += each;
    leaves = busy_until_[f];
  }
  if (rng_.Chance(q.corrupt, 10000)) {
    packet[rng_.Below(packet.size())] ^= static_cast<uint8_t>(1 + rng_.Below(255));
  }
  Nanos arrives = leaves + q.delay;
  if (rng_.Chance(q.reorder, 10000)) {
    arrives += Nanos(static_cast<int64_t>(
        rng_.Below(static_cast<uint64_t>(q.reorder_delay.count()) + 1)));
  }
  if (rng_.Chance(q.duplicate, 10000)) Arrive(1 - from, packet, arrives + Micros(10));
  Arrive(1 - from, std::move(packet), arrives);
}

bool TransportLink::Step(Nanos end) {
  Nanos next = events_.empty() ? Nanos::Max() : events_.top().time;
  const Clockwork* due = nullptr;
  for (const Clockwork& c : clockworks_) {
    const Nanos deadline = c.next_deadline();
    if (deadline < next) {
      next = deadline;
      due = &c;
    }
  }
  if (next > end) {
    now_ = std::max(now_, end);
    return false;
  }
  now_ = std::max(now_, next);
  if (due != nullptr) {
    due->on_timer(now_);
    return true;
  }
  Event event = std::move(const_cast<Event&>(events_.top()));
  events_.pop();
  const bool claimed = host(event.to).Deliver(event.packet, now_);
  if (!claimed && on_unclaimed) on_unclaimed(event.to, event.packet);
  return true;
}

void TransportLink::Run(Nanos time) {
  const Nanos end = now_ + time;
  while (Step(end)) {
  }
}

bool TransportLink::RunUntil(const std::function<bool()>& done, Nanos time) {
  const Nanos end = now_ + time;
  while (!done()) {
    if (!Step(end)) return done();
  }
  return true;
}

}  // namespace sluice::test
