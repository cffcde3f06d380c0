// What a SimRouter counts, and what must hold between two of its steps.
#include <algorithm>
#include <numeric>
#include <set>
#include <string>

#include "stages/neighbor/neighbor_table.h"
#include "support/sim_router.h"

namespace sluice::test {

using stages::NeighborEntry;
using stages::NeighborTable;

namespace {

std::string Differ(const std::string& what, uint64_t a, uint64_t b) {
  return what + ": " + std::to_string(a) + " and " + std::to_string(b) + " should be equal";
}

uint64_t SumOfDrops(const InterfaceCounters& c) {
  uint64_t sum = 0;
  for (const Counter& n : c.dropped_packets) sum += n.Read();
  return sum;
}

}  // namespace

uint64_t SimRouter::Sum(const std::function<uint64_t(const InterfaceCounters&)>& value,
                        const std::string& name) const {
  uint64_t sum = 0;
  for (size_t slot = 0; slot < interfaces_.size(); ++slot) {
    const tables::Interface& i = config_.interfaces[slot];
    if (!name.empty() && i.name != name) continue;
    for (const auto& worker : workers_) {
      sum += value(static_cast<const Worker&>(*worker).counters().of(i.slot));
    }
  }
  return sum;
}

uint64_t SimRouter::SumWorkers(const std::function<uint64_t(const WorkerCounters&)>& value) const {
  uint64_t sum = 0;
  for (const auto& worker : workers_) sum += value(worker->counters());
  return sum;
}

uint64_t SimRouter::Received(const std::string& name) const {
  return Sum([](const InterfaceCounters& c) { return c.received_packets.Read(); }, name);
}

uint64_t SimRouter::Forwarded(const std::string& name) const {
  return Sum([](const InterfaceCounters& c) { return c.forwarded_packets.Read(); }, name);
}

uint64_t SimRouter::Held(const std::string& name) const {
  return Sum([](const InterfaceCounters& c) { return c.held_packets.Read(); }, name);
}

uint64_t SimRouter::Dropped(DropReason reason, const std::string& name) const {
  const auto i = static_cast<size_t>(reason);
  return Sum([i](const InterfaceCounters& c) { return c.dropped_packets[i].Read(); }, name);
}

uint64_t SimRouter::Dropped() const { return Sum(SumOfDrops); }

uint64_t SimRouter::Punted(PuntReason reason) const {
  const auto i = static_cast<size_t>(reason);
  return Sum([i](const InterfaceCounters& c) { return c.punts[i].Read(); });
}

uint64_t SimRouter::Generated(GeneratedKind kind) const {
  const auto i = static_cast<size_t>(kind);
  return SumWorkers([i](const WorkerCounters& c) { return c.generated[i].Read(); });
}

uint32_t SimRouter::FreeFrames() const {
  return std::accumulate(pools_.begin(), pools_.end(), 0u,
                         [](uint32_t sum, const auto& pool) { return sum + pool->size(); });
}

uint64_t SimRouter::LostForWantOfFrames() const {
  uint64_t sum = 0;
  for (const Wire& wire : interfaces_) {
    for (const auto& port : wire.ports) sum += port->lost_for_want_of_frames();
  }
  return sum;
}

std::vector<stages::NeighborInfo> SimRouter::Neighbors(size_t worker) const {
  const NeighborTable& table = workers_[worker]->pipeline().neighbors().table();
  std::vector<stages::NeighborInfo> all(table.used());
  size_t written = 0;
  table.Enumerate(0, all, &written);
  all.resize(written);
  return all;
}

std::string SimRouter::CheckInvariants() const {
  for (const auto& check :
       {&SimRouter::CheckNeighbors, &SimRouter::CheckFrames, &SimRouter::CheckCounters}) {
    if (std::string problem = (this->*check)(); !problem.empty()) return problem;
  }
  return {};
}

// Frames in pools, in rings, in the neighbours' queues and with sockets: all there are, none twice.
std::string SimRouter::CheckFrames() const {
  uint64_t held = 0;
  std::set<packet::FrameIndex> seen;
  for (const auto& worker : workers_) {
    if (const transport::Transport* stack = worker->pipeline().sockets().stack()) {
      const transport::TcpUsage usage = stack->tcp().usage();
      held += usage.receive_frames + usage.send_frames + stack->udp().frames_waiting();
    }
    const NeighborTable& table = worker->pipeline().neighbors().table();
    for (uint32_t i = 0; i < table.places(); ++i) {
      const NeighborEntry& e = table.At(i);
      if (!e.in_use() || e.held == 0) continue;
      packet::FrameIndex frame = e.last_held;
      do {
        const packet::HeldPacket& waiting = packet::HeldOf(*arena_, frame);
        packet::FrameIndex piece = frame;
        for (uint8_t n = 0; n < waiting.packet.segment_count; ++n) {
          if (!seen.insert(piece).second) return "a frame waits twice";
          ++held;
          piece = packet::LinkOf(*arena_, piece).next;
        }
        frame = waiting.next;
      } while (frame != e.last_held);
    }
    if (worker->pipeline().neighbors().has_settled()) return "settled packets were left behind";
  }
  uint64_t rings = 0;
  for (const Wire& wire : interfaces_) {
    for (const auto& port : wire.ports) rings += port->frames_in_fill() + port->frames_in_tx();
  }
  const uint64_t all = FreeFrames() + rings + held;
  if (all == TotalFrames()) return {};
  return Differ("frames (" + std::to_string(FreeFrames()) + " free, " + std::to_string(rings) +
                    " in rings, " + std::to_string(held) + " held) and all there are",
                all, TotalFrames());
}

std::string SimRouter::CheckCounters() const {
  uint64_t transmitted_in_all = 0;
  for (size_t slot = 0; slot < interfaces_.size(); ++slot) {
    const tables::Interface& i = config_.interfaces[slot];
    const auto sum = [&](const std::function<uint64_t(const InterfaceCounters&)>& value) {
      return Sum(value, i.name);
    };
    const uint64_t ends = sum([](const InterfaceCounters& c) {
      return c.forwarded_packets.Read() + c.local_packets.Read() + c.punted_packets.Read() +
             c.held_packets.Read() + c.merged_packets.Read() + SumOfDrops(c);
    });
    if (Received(i.name) != ends) {
      return Differ(i.name + ": received, and what became of them", Received(i.name), ends);
    }
    const uint64_t punted_packets =
        sum([](const InterfaceCounters& c) { return c.punted_packets.Read(); });
    const uint64_t punts = sum([](const InterfaceCounters& c) {
      uint64_t n = 0;
      for (const Counter& p : c.punts) n += p.Read();
      return n;
    });
    if (punts != punted_packets) return Differ(i.name + ": punts by reason", punts, punted_packets);
    const uint64_t transmitted =
        sum([](const InterfaceCounters& c) { return c.transmitted_packets.Read(); });
    uint64_t waiting = 0;
    for (const auto& port : interfaces_[i.slot.value].ports) waiting += port->frames_in_tx();
    const uint64_t left = interfaces_[i.slot.value].sent;
    // Packets on a blocked ring have one frame or more.
    if (transmitted < left || transmitted > left + waiting) {
      return Differ(i.name + ": transmitted, and what has left", transmitted, left);
    }
    transmitted_in_all += transmitted;
  }
  // What leaves is forwarded or our own.
  uint64_t own_waiting = 0;
  for (size_t w = 0; w < workers_.size(); ++w) {
    for (const stages::NeighborInfo& info : Neighbors(w)) own_waiting += info.held;
  }
  own_waiting -= Held();
  const uint64_t generated = SumWorkers([](const WorkerCounters& c) {
    uint64_t n = 0;
    for (const Counter& kind : c.generated) n += kind.Read();
    return n;
  });
  const uint64_t lost =
      SumWorkers([](const WorkerCounters& c) { return c.generated_dropped.Read(); });
  const uint64_t own = transmitted_in_all - Forwarded() + own_waiting + lost;
  if (generated != own) return Differ("generated, and what became of them", generated, own);
  return {};
}

// The gauge of held packets agrees with the queues.
std::string SimRouter::CheckNeighbors() const {
  std::array<uint64_t, kMaxInterfaces> waiting{};
  for (const auto& worker : workers_) {
    const NeighborTable& table = worker->pipeline().neighbors().table();
    for (uint32_t i = 0; i < table.places(); ++i) {
      const NeighborEntry& e = table.At(i);
      if (!e.in_use() || e.held == 0) continue;
      packet::FrameIndex frame = e.last_held;
      uint32_t n = 0;
      do {
        const packet::HeldPacket& held = packet::HeldOf(*arena_, frame);
        if (held.packet.in.valid()) ++waiting[held.packet.in.value];
        frame = held.next;
        ++n;
      } while (frame != e.last_held && n <= e.held);
      if (n != e.held) return Differ("packets in a neighbour's queue, and its count", n, e.held);
    }
  }
  for (size_t slot = 0; slot < interfaces_.size(); ++slot) {
    const tables::Interface& i = config_.interfaces[slot];
    if (Held(i.name) != waiting[i.slot.value]) {
      return Differ(i.name + ": gauge of held packets, and those that wait", Held(i.name),
                    waiting[i.slot.value]);
    }
  }
  return {};
}

}  // namespace sluice::test
