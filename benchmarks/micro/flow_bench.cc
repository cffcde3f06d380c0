// What connection tracking costs: packets of flows that are known, in random order over a table of
// given size, in bursts with prefetch; new flows; and memory per flow.
//
// Packets are 64-byte TCP segments (60 bytes and the FCS) or UDP packets. The frames themselves are
// few and in cache, as they are after parsing: what is timed is hash, lookup, tracking and Confirm.
// "sum": with verification of checksums, which is the default; "nosum": without.
#include <benchmark/benchmark.h>

#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "packet/frame_pool.h"
#include "stages/conntrack/conntrack.h"
#include "tables/flow_table.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/protocol.h"

namespace sluice::stages {
namespace {

constexpr size_t kBurst = 64;
constexpr Nanos kStart = Seconds(1000);
constexpr Nanos kTick = Micros(4);

using packet::Packet;
using tables::FlowTable;
using tables::FlowTuple;

// 64 frames, one per place in a burst, which are made into packets of any flow.
class Frames {
 public:
  explicit Frames(uint8_t protocol) : protocol_(protocol) {
    arena_ = packet::FrameArena::Create(kBurst, 2048);
    if (!arena_) std::abort();
    for (size_t i = 0; i < kBurst; ++i) {
      Packet& p = packets_[i];
      p.frame = static_cast<packet::FrameIndex>(i);
      p.data = arena_->Chunk(p.frame) + packet::kHeadroom;
      const uint16_t l4 = protocol == wire::kProtocolTcp ? 20 : 26;
      p.l3_offset = 14;
      p.l4_offset = 34;
      p.l4_protocol = protocol;
      p.length = p.segment_length = static_cast<uint16_t>(34 + l4);
      wire::EmitIpv4Header({p.data + 14, 20},
                           {.payload_length = l4, .protocol = protocol, .source = Ipv4(1),
                            .destination = Ipv4(2)});
      std::fill_n(p.l4(), l4, uint8_t{0});
      if (protocol == wire::kProtocolTcp) {
        p.l4()[12] = 0x50;
        StoreBe16(p.l4() + 14, 60'000);
      } else {
        StoreBe16(p.l4() + 4, l4);
      }
    }
  }

  Packet& Set(size_t i, uint32_t flow, bool reply, uint8_t flags, uint32_t sequence,
              uint32_t acknowledgment) {
    Packet& p = packets_[i];
    p.ct_state = 0;
    p.flow = packet::kNoFlowIndex;
    Ipv4 from(0x0a00'0000 + flow / 16'384);
    Ipv4 to(0xc633'6401);
    auto from_port = static_cast<uint16_t>(20'000 + flow % 16'384);
    uint16_t to_port = 443;
    if (reply) {
      std::swap(from, to);
      std::swap(from_port, to_port);
    }
    from.ToWire(p.l3() + 12);
    to.ToWire(p.l3() + 16);
    uint8_t* l4 = p.l4();
    StoreBe16(l4, from_port);
    StoreBe16(l4 + 2, to_port);
    const size_t sum_at = protocol_ == wire::kProtocolTcp ? 16 : 6;
    if (protocol_ == wire::kProtocolTcp) {
      StoreBe32(l4 + 4, sequence);
      StoreBe32(l4 + 8, acknowledgment);
      l4[13] = flags;
    }
    StoreBe16(l4 + sum_at, 0);
    const uint32_t length = p.length - p.l4_offset;
    StoreBe16(l4 + sum_at,
              wire::NonZeroChecksum(uint64_t{wire::PseudoHeaderSum(from, to, protocol_, length)} +
                                    wire::Sum({l4, length})));
    return p;
  }

  std::array<Packet, kBurst>& packets() { return packets_; }
  const packet::FrameArena& arena() const { return *arena_; }

 private:
  const uint8_t protocol_;
  std::unique_ptr<packet::FrameArena> arena_;
  std::array<Packet, kBurst> packets_;
};

struct Tracker {
  explicit Tracker(uint32_t capacity)
      : table({.capacity = capacity, .hash_seed = 42, .start = kStart}),
        conntrack(table, counters) {}

  // As the pipeline does it: three passes, then the end of each packet's way.
  void Burst(std::array<Packet, kBurst>& packets, const packet::FrameArena& arena, size_t count) {
    for (size_t i = 0; i < count; ++i) {
      hashes[i] = MakeTuple(packets[i], tuples[i]) ? table.Hash(tuples[i]) : 0;
      table.PrefetchBucket(hashes[i]);
    }
    for (size_t i = 0; i < count; ++i) table.PrefetchFlow(hashes[i]);
    for (size_t i = 0; i < count; ++i) {
      const auto verdict =
          conntrack.Track(packets[i], tuples[i], hashes[i], settings, arena, now);
      if (!verdict.is_continue() || !conntrack.Confirm(packets[i], now).is_continue()) std::abort();
    }
    now += kTick;
    while (now >= conntrack.NextDeadline()) conntrack.Expire(now);
  }

  FlowTable table;
  ConntrackCounters counters;
  Conntrack conntrack;
  tables::ConntrackSettings settings;
  Nanos now = kStart;
  std::array<FlowTuple, kBurst> tuples;
  std::array<uint64_t, kBurst> hashes;
};

void OpenAll(Tracker& tracker, Frames& frames, uint32_t flows, uint8_t protocol) {
  for (uint32_t at = 0; at < flows; at += kBurst) {
    const size_t count = std::min<size_t>(kBurst, flows - at);
    const int steps = protocol == wire::kProtocolTcp ? 3 : 2;
    for (int step = 0; step < steps; ++step) {
      static constexpr uint8_t kFlags[] = {0x02, 0x12, 0x10};
      for (size_t i = 0; i < count; ++i) {
        const bool reply = step == 1;
        frames.Set(i, at + static_cast<uint32_t>(i), reply, kFlags[step],
                   reply ? 5000 : step == 0 ? 1000 : 1001,
                   reply ? 1001 : step == 0 ? 0 : 5001);
      }
      tracker.Burst(frames.packets(), frames.arena(), count);
    }
  }
  if (tracker.table.size() != flows) std::abort();
}

// Established flows, both directions, in random order. Writing the packets is not timed apart: its
// cost is that of the case "frames".
void Established(benchmark::State& state, uint8_t protocol, bool checksum, bool track) {
  const auto flows = static_cast<uint32_t>(state.range(0));
  Tracker tracker(flows + flows / 8);
  Frames frames(protocol);
  tracker.settings.checksum = checksum;
  if (track) OpenAll(tracker, frames, flows, protocol);
  Rng rng(7);
  for (auto _ : state) {
    for (size_t i = 0; i < kBurst; ++i) {
      const uint64_t draw = rng.Next();
      const bool reply = (draw & 1) != 0;
      const auto flow = static_cast<uint32_t>(((draw >> 32) * flows) >> 32);
      frames.Set(i, flow, reply, 0x10, reply ? 5001 : 1001, reply ? 1001 : 5001);
    }
    if (track) {
      tracker.Burst(frames.packets(), frames.arena(), kBurst);
    } else {
      benchmark::DoNotOptimize(frames.packets());
      benchmark::ClobberMemory();
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBurst));
}

// SYNs or first UDP packets of new flows, into a table that is full after a while and then gives up
// those that nobody answered.
void NewFlows(benchmark::State& state, uint8_t protocol) {
  const auto capacity = static_cast<uint32_t>(state.range(0));
  Tracker tracker(capacity);
  Frames frames(protocol);
  uint32_t next = 0;
  for (auto _ : state) {
    for (size_t i = 0; i < kBurst; ++i) frames.Set(i, next++, false, 0x02, 1000, 0);
    tracker.Burst(frames.packets(), frames.arena(), kBurst);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBurst));
  state.counters["early_dropped"] = static_cast<double>(tracker.counters.early_dropped.Read());
}

size_t ResidentBytes() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
}

// What the process grows by until all flows are there. Run alone.
void Memory(benchmark::State& state) {
  const auto flows = static_cast<uint32_t>(state.range(0));
  for (auto _ : state) {
    Frames frames(wire::kProtocolUdp);
    const size_t before = ResidentBytes();
    Tracker tracker(flows);
    OpenAll(tracker, frames, flows, wire::kProtocolUdp);
    state.counters["B_per_flow"] = static_cast<double>(ResidentBytes() - before) / flows;
  }
}

BENCHMARK(Memory)->Arg(1'000'000)->Iterations(1);
BENCHMARK_CAPTURE(Established, frames, wire::kProtocolTcp, false, false)->Arg(1'000'000);
BENCHMARK_CAPTURE(Established, tcp_nosum, wire::kProtocolTcp, false, true)
    ->Arg(1'000)->Arg(10'000)->Arg(100'000)->Arg(1'000'000);
BENCHMARK_CAPTURE(Established, tcp_sum, wire::kProtocolTcp, true, true)
    ->Arg(10'000)->Arg(1'000'000);
BENCHMARK_CAPTURE(Established, udp_nosum, wire::kProtocolUdp, false, true)
    ->Arg(10'000)->Arg(1'000'000);
BENCHMARK_CAPTURE(NewFlows, tcp, wire::kProtocolTcp)->Arg(10'000)->Arg(1'000'000);
BENCHMARK_CAPTURE(NewFlows, udp, wire::kProtocolUdp)->Arg(10'000)->Arg(1'000'000);

}  // namespace
}  // namespace sluice::stages
