// What the flow tier costs a worker, without any I/O.
//
//   build/promotion_bench
//
// Promote: an entry for each of `flows` connections, made anew after the world has changed, as a
// worker does when their next packets come (the ring to the control thread is emptied meanwhile,
// untimed). Asked: what every packet pays that finds its flow promoted. Scan: counts of that many
// entries come back, all of them busy.
#include <benchmark/benchmark.h>

#include <memory>
#include <vector>

#include "dataplane/offload.h"
#include "packet/frame_arena.h"

namespace sluice {
namespace {

using tables::FlowDirection;
using tables::FlowIndex;

const Mac kHost{{2, 0, 0, 0, 0, 3}};
const Ipv4 kNextHop(198, 51, 100, 254);

struct Tier {
  explicit Tier(uint32_t flow_count)
      : flows({.capacity = flow_count + 1024, .start = now}),
        cells(flow_count),
        arena(packet::FrameArena::Create(64, 2048)),
        neighbors(*arena, 64, 1, now) {
    state.world = 1;
    state.ids = flow_count;
    memory = {.state = &state, .cells = cells.data(), .ids = flow_count, .cpus = 1};
    offload = std::make_unique<dataplane::Offload>(
        WorkerId{0},
        dataplane::OffloadConfig{.memory = memory, .ids = flow_count, .adaptive = false}, flows,
        counters);
    snapshot.generation = 1;
    snapshot.interfaces[1].slot = IfaceSlot{1};
    snapshot.interfaces[1].up = true;
    neighbors.UseSnapshot(snapshot);
    neighbors.ApplyKernelNeighbor(IfaceSlot{1}, kNextHop, kHost, stages::kNudPermanent, now);
    for (uint32_t i = 0; i < flow_count; ++i) {
      const FlowIndex index = flows.Allocate(now, [](FlowIndex) {});
      tables::Flow& flow = flows.at(index);
      flow.tuples[0] = {.source = Ipv6(0, 0x0a000000 + i / 60000),
                        .destination = Ipv6(0, 0xc6336401),
                        .source_port = static_cast<uint16_t>(1000 + i % 60000),
                        .destination_port = 53,
                        .protocol = 17};
      flow.tuples[1] = {.source = flow.tuples[0].destination,
                        .destination = Ipv6(0, 0xc0000201),  // translated
                        .source_port = 53,
                        .destination_port = flow.tuples[0].source_port,
                        .protocol = 17};
      flow.tuples[1].source.lo += i / 60000;
      flow.status = tables::kFlowSeenReply | tables::kFlowAssured;
      flow.counts[0].packets = 100;
      flow.expires = now + Seconds(1000);
      flows.Insert(index);
      order.push_back(index);
    }
  }

  void PromoteAll() {
    for (const FlowIndex flow : order) {
      if (!offload->WantsFlow(flow, FlowDirection::kOriginal, way.in)) continue;
      offload->PromoteFlow(flow, FlowDirection::kOriginal, way, path);
      if ((++pushed & 2047) == 0) Drain();
    }
    Drain();
  }
  void Drain() {
    for (tables::OffloadChange order_out; offload->orders().TryPop(order_out);) {
      benchmark::DoNotOptimize(order_out);
    }
  }

  Nanos now = Seconds(1000);
  tables::FlowTable flows;
  sluice_offload_state state{};
  std::vector<sluice_offload_cell> cells;
  tables::OffloadMemory memory;
  WorkerCounters counters;
  std::unique_ptr<packet::FrameArena> arena;
  stages::Neighbors neighbors;
  std::unique_ptr<dataplane::Offload> offload;
  tables::Snapshot snapshot;
  std::vector<FlowIndex> order;
  dataplane::OffloadWay way{.in = IfaceSlot{0},
                            .out = IfaceSlot{1},
                            .next_hop = kNextHop,
                            .mac = kHost,
                            .own_mac = kHost,
                            .routed = Ipv4(198, 51, 100, 1),
                            .also = {},
                            .mtu = 1500};
  stages::FlowPath path;
  uint64_t pushed = 0;
};

void PerFlow(benchmark::State& state, const Tier& tier) {
  const auto n = static_cast<int64_t>(tier.order.size()) * state.iterations();
  state.SetItemsProcessed(n);
  // A time, in seconds; printed as "40.1ns".
  state.counters["per_flow"] = benchmark::Counter(
      static_cast<double>(n), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void BM_Promote(benchmark::State& state) {
  Tier tier(static_cast<uint32_t>(state.range(0)));
  for (auto _ : state) {
    tables::BumpWorld(tier.memory);
    tier.now += Seconds(1);
    tier.offload->BeginTick(tier.now);
    tier.PromoteAll();
  }
  if (tier.counters.offload.promoted.Read() !=
      tier.order.size() * static_cast<uint64_t>(state.iterations())) {
    state.SkipWithError("not all were promoted");
  }
  PerFlow(state, tier);
}
BENCHMARK(BM_Promote)->ArgName("flows")->Arg(1'000)->Arg(10'000)->Arg(100'000);

void BM_Asked(benchmark::State& state) {
  Tier tier(static_cast<uint32_t>(state.range(0)));
  tier.offload->BeginTick(tier.now + Seconds(1));
  tier.PromoteAll();
  for (auto _ : state) tier.PromoteAll();
  PerFlow(state, tier);
}
BENCHMARK(BM_Asked)->ArgName("flows")->Arg(10'000);

void BM_Scan(benchmark::State& state) {
  Tier tier(static_cast<uint32_t>(state.range(0)));
  tier.now += Seconds(1);
  tier.offload->BeginTick(tier.now);
  tier.PromoteAll();
  for (auto _ : state) {
    state.PauseTiming();
    for (sluice_offload_cell& cell : tier.cells) ++cell.packets;
    tier.now += dataplane::Offload::kScanInterval;
    state.ResumeTiming();
    for (size_t i = 0; i <= tier.order.size() / dataplane::Offload::kScanPortion; ++i) {
      tier.offload->Scan(tier.now, tier.snapshot, tier.neighbors);
    }
  }
  PerFlow(state, tier);
}
BENCHMARK(BM_Scan)->ArgName("flows")->Arg(10'000)->Arg(100'000);

}  // namespace
}  // namespace sluice
