// What a packet costs in a worker, without any I/O: the whole tick (receive, pipeline, transmit) on
// a port made of memory, and each stage by itself.
//
//   build/pipeline_bench
//
// The port writes the headers of each frame anew before it is "received", as the kernel does in copy
// mode, so that the header is as warm in the cache as it would be there; that is in the figures.
// Destinations: 1, 10,000 different ones, or random over the whole table.
#include <benchmark/benchmark.h>
#include <x86intrin.h>

#include <cstring>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "benchmarks/micro/memory_port.h"
#include "dataplane/worker.h"
#include "stages/parse/parse.h"
#include "stages/rewrite/rewrite.h"
#include "tables/fib.h"
#include "tables/route_table.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice {
namespace {

constexpr uint32_t kFrames = 4096;
constexpr size_t kDestinations = 1 << 16;
const Mac kIn{{2, 0, 0, 0, 0, 1}};
const Mac kOut{{2, 0, 0, 0, 0, 2}};
const Mac kNextHop{{2, 0, 0, 0, 0, 3}};

using Header = std::array<uint8_t, kFrameLength>;

Header Ipv4Frame(Ipv4 destination) {
  Header h{};
  wire::WriteEthernet(h.data(), kIn, kNextHop, wire::kEtherTypeIpv4);
  wire::EmitIpv4Header(std::span(h).subspan(14), {.payload_length = 26,
                                                  .protocol = wire::kProtocolUdp,
                                                  .source = Ipv4(198, 18, 0, 1),
                                                  .destination = destination});
  return h;
}

Header Ipv6Frame(const Ipv6& destination) {
  Header h{};
  wire::WriteEthernet(h.data(), kIn, kNextHop, wire::kEtherTypeIpv6);
  wire::EmitIpv6Header(std::span(h).subspan(14), {.payload_length = 6,
                                                  .next_header = 59,
                                                  .source = Ipv6(0x2001'0002'0000'0000, 1),
                                                  .destination = destination});
  return h;
}

// A list of headers, round and round.
struct HeaderList {
  void operator()(uint8_t* frame) {
    std::memcpy(frame, headers[at].data(), headers[at].size());
    at = at + 1 == headers.size() ? 0 : at + 1;
  }
  std::vector<Header> headers;
  size_t at = 0;
};
using Port = MemoryPort<HeaderList>;

// A router with two interfaces: everything comes in by 0 and leaves by 1 over one gateway.
struct Router {
  explicit Router(bool v6, size_t routes, size_t destinations)
      : fib4(epochs, {routes + 16, size_t{1} << 30, true}),
        fib6(epochs, {routes + 16, size_t{2} << 30, true}),
        table(epochs),
        arena(packet::FrameArena::Create(kFrames, 2048)),
        pool(*arena),
        in(IfaceSlot{0}),
        out(IfaceSlot{1}) {
    for (packet::FrameIndex i = 0; i < kFrames; ++i) pool.Free(i);
    for (uint8_t i = 0; i < 2; ++i) {
      tables::Interface& interface = snapshot.interfaces[i];
      interface.slot = IfaceSlot{i};
      interface.ifindex = IfIndex{i + 1u};
      interface.mac = i == 0 ? kIn : kOut;
      interface.up = true;
      interface.forwarding4 = interface.forwarding6 = true;
    }
    snapshot.generation = 1;
    current.store(&snapshot);
    AddRoutes(v6, routes);
    mailboxes.push_back(std::make_unique<dataplane::Mailbox>(1));
    const dataplane::Shared shared{current, epochs, mailboxes};
    const dataplane::PipelineConfig config{.tables = {fib4, fib6, table}, .start = now};
    worker = std::make_unique<dataplane::Worker<Port>>(WorkerId{0}, shared, config, pool);
    worker->AddPort(&in);
    worker->AddPort(&out);
    worker->pipeline().ApplyKernelNeighbor(IfaceSlot{1}, gateway, kNextHop,
                                           stages::kNudPermanent, snapshot, now);
    in.source().headers = Traffic(v6, destinations);
    in.set_receiving(true);
  }

  void AddRoutes(bool v6, size_t routes) {
    gateway = v6 ? IpAddress(Ipv6(0xfe80'0000'0000'0000, 1)) : IpAddress(Ipv4(192, 0, 2, 1));
    // Many prefixes, some thirty next hops: as a router with that many peers sees them.
    std::vector<tables::RouteId> ids;
    for (uint32_t i = 0; i < 32; ++i) {
      tables::Route route;
      route.paths.push_back({.oif = IfIndex{2}, .slot = IfaceSlot{1}, .has_gateway = true,
                             .gateway = gateway});
      route.mtu = i == 0 ? 0 : 1500 + i;  // so that they differ
      ids.push_back(*table.Intern(route));
    }
    Rng rng(42);
    for (size_t i = 0; i < routes; ++i) {
      const tables::RouteId id = ids[rng.Below(ids.size())];
      const uint64_t dice = rng.Below(100);
      if (v6) {
        const uint8_t length = dice < 50 ? 48 : dice < 80 ? 32 + dice % 16 : 56;
        const Ipv6 a(0x2000'0000'0000'0000 | rng.Next() >> 3, 0);
        (void)fib6.Insert(Ipv6Prefix{a, length}.Canonical(), id).ok();
        prefixes6.push_back(a);
      } else {
        const uint8_t length = dice < 60 ? 24 : dice < 95 ? 16 + dice % 8 : 25 + dice % 8;
        // 128/8 to 223/8: no loopback, no multicast.
        const Ipv4 a(static_cast<uint32_t>(0x80000000 + rng.Below(0x60000000)));
        (void)fib4.Insert(Ipv4Prefix{a, length}.Canonical(), id).ok();
        prefixes4.push_back(a);
      }
    }
  }

  std::vector<Header> Traffic(bool v6, size_t destinations) {
    Rng rng(7);
    std::vector<Header> headers;
    for (size_t i = 0; i < destinations; ++i) {
      if (v6) {
        headers.push_back(Ipv6Frame(prefixes6[rng.Below(prefixes6.size())]));
      } else {
        headers.push_back(Ipv4Frame(prefixes4[rng.Below(prefixes4.size())]));
      }
    }
    return headers;
  }

  Nanos now = Seconds(1000);
  tables::EpochDomain epochs;
  tables::Fib4 fib4;
  tables::Fib6 fib6;
  tables::RouteTable table;
  tables::Snapshot snapshot;
  std::atomic<const tables::Snapshot*> current{nullptr};
  std::unique_ptr<packet::FrameArena> arena;
  packet::FramePool pool;
  Port in;
  Port out;
  std::vector<std::unique_ptr<dataplane::Mailbox>> mailboxes;
  std::unique_ptr<dataplane::Worker<Port>> worker;
  IpAddress gateway;
  std::vector<Ipv4> prefixes4;
  std::vector<Ipv6> prefixes6;
};

void PerPacket(benchmark::State& state, uint64_t packets, uint64_t cycles) {
  state.SetItemsProcessed(static_cast<int64_t>(packets));
  // A time, in seconds; printed as "40.1ns".
  state.counters["per_packet"] = benchmark::Counter(
      static_cast<double>(packets), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["cycles_per_packet"] = static_cast<double>(cycles) / static_cast<double>(packets);
}

void BM_Forward(benchmark::State& state, bool v6) {
  Router router(v6, static_cast<size_t>(state.range(0)), static_cast<size_t>(state.range(1)));
  const uint64_t start = __rdtsc();
  for (auto _ : state) {
    benchmark::DoNotOptimize(router.worker->Tick(router.now));
    router.now += Micros(5);
  }
  const uint64_t cycles = __rdtsc() - start;
  const uint64_t forwarded =
      router.worker->counters().of(IfaceSlot{0}).forwarded_packets.Read();
  if (forwarded != router.worker->counters().of(IfaceSlot{0}).received_packets.Read()) {
    state.SkipWithError("not everything was forwarded");
    return;
  }
  PerPacket(state, forwarded, cycles);
}
void Cases(benchmark::internal::Benchmark* b) {
  b->ArgNames({"routes", "destinations"});
  for (const int64_t routes : {10, 100'000, 1'000'000}) {
    for (const int64_t destinations : {1, 10'000, static_cast<int>(kDestinations) * 8}) {
      b->Args({routes, destinations});
    }
  }
}
BENCHMARK_CAPTURE(BM_Forward, ipv4, false)->Apply(Cases);
BENCHMARK_CAPTURE(BM_Forward, ipv6, true)->Apply(Cases);

// --- The stages, over bursts of 64, on the same traffic: random over 1,000,000 routes ---

struct Burst {
  explicit Burst(Router& r) : router(r) {}
  std::span<packet::Packet> Receive() {
    router.in.RxBurst(packets, router.pool, counters);
    return packets;
  }
  void Return() { router.out.TxBurst(packets, router.pool); }

  Router& router;
  InterfaceCounters counters;
  std::array<packet::Packet, 64> packets;
};

Router& LargeRouter() {
  static Router router(false, 1'000'000, kDestinations * 8);
  return router;
}

// Runs `stage` on burst after burst and times it alone, receiving and returning left out.
template <class Stage>
void TimeStage(benchmark::State& state, Stage&& stage) {
  Burst burst(LargeRouter());
  uint64_t cycles = 0;
  uint64_t packets = 0;
  for (auto _ : state) {
    const std::span<packet::Packet> p = burst.Receive();
    for (packet::Packet& packet : p) {
      stages::Parse(packet, burst.router.snapshot.interfaces[0], burst.router.pool);
      packet.out = IfaceSlot{1};
    }
    const uint64_t start = __rdtsc();
    stage(p);
    cycles += __rdtsc() - start;
    packets += p.size();
    burst.Return();
  }
  state.counters["cycles_per_packet"] = static_cast<double>(cycles) / static_cast<double>(packets);
}

void BM_StageParse(benchmark::State& state) {
  TimeStage(state, [](std::span<packet::Packet> burst) {
    for (packet::Packet& p : burst) {
      p.flags = 0;
      benchmark::DoNotOptimize(
          stages::Parse(p, LargeRouter().snapshot.interfaces[0], LargeRouter().pool));
    }
  });
}
BENCHMARK(BM_StageParse);

void BM_StageLookup(benchmark::State& state) {
  std::array<Ipv4, 64> destinations;
  std::array<tables::RouteId, 64> routes;
  TimeStage(state, [&](std::span<packet::Packet> burst) {
    for (size_t i = 0; i < burst.size(); ++i) {
      destinations[i] = wire::Ipv4View(burst[i].l3()).destination();
    }
    LargeRouter().fib4.LookupBatch(destinations.data(), routes.data(), burst.size());
    benchmark::DoNotOptimize(routes);
  });
}
BENCHMARK(BM_StageLookup);

void BM_StageDecide(benchmark::State& state) {
  Router& r = LargeRouter();
  const stages::RoutingTables tables{r.fib4, r.fib6, r.table};
  TimeStage(state, [&](std::span<packet::Packet> burst) {
    for (packet::Packet& p : burst) {
      benchmark::DoNotOptimize(stages::DecideIpv4(p, tables::RouteId{1}, r.snapshot.interfaces[0],
                                                  r.snapshot, tables, 1));
    }
  });
}
BENCHMARK(BM_StageDecide);

void BM_StageNeighborAndRewrite(benchmark::State& state) {
  Router& r = LargeRouter();
  auto& neighbors = const_cast<stages::Neighbors&>(r.worker->pipeline().neighbors());
  TimeStage(state, [&](std::span<packet::Packet> burst) {
    for (packet::Packet& p : burst) {
      wire::Ipv4Mutable(p.l3()).DecrementTtl();
      const Mac* const mac = neighbors.Resolve(IfaceSlot{1}, r.gateway, r.now);
      wire::WriteEthernet(p.data, *mac, kOut, wire::kEtherTypeIpv4);
    }
  });
}
BENCHMARK(BM_StageNeighborAndRewrite);

void BM_StagePartialChecksumTest(benchmark::State& state) {
  TimeStage(state, [&](std::span<packet::Packet> burst) {
    for (packet::Packet& p : burst) {
      benchmark::DoNotOptimize(stages::CompletePartialChecksum4(*LargeRouter().arena, p));
    }
  });
}
BENCHMARK(BM_StagePartialChecksumTest);

}  // namespace
}  // namespace sluice

BENCHMARK_MAIN();
