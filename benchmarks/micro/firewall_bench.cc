// What a translated connection costs in a worker, without any I/O: the whole tick (receive, conntrack,
// rules, NAT, routing, transmit) with the ruleset of a home router: stateful forward chain,
// masquerade behind one address.
//
//   build/firewall_bench
//
// Packets are UDP, 60 bytes, with right checksums, which conntrack verifies as the kernel does.
// Established: packets of `flows` connections in random order, each answered once before.
// EstablishedRecorded: the same while each packet's way is noted for the flow tier.
// New: each packet begins a connection; the table has room for all of them.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <iostream>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "benchmarks/micro/memory_port.h"
#include "control/ruleset/compiler.h"
#include "dataplane/worker.h"
#include "support/filter_world.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"

namespace sluice {
namespace {

constexpr uint32_t kFrames = 4096;
const Mac kLanMac{{2, 0, 0, 0, 0, 1}};
const Mac kWanMac{{2, 0, 0, 0, 0, 2}};
const Mac kHost{{2, 0, 0, 0, 0, 3}};
const Ipv4 kNextHop(198, 51, 100, 254);  // behind it stand the servers
const Ipv4 kOutside(192, 0, 2, 1);
constexpr uint16_t kServerPort = 53;

// Connection i comes from 10.x.y.z and one of 50,000 ports, and goes to the server that has not seen
// the port: behind one address there is no room for more to one server.
Ipv4 ServerOf(uint32_t i) { return Ipv4(198, 51, 100, static_cast<uint8_t>(1 + i / 50'000 % 250)); }
Ipv4 ClientOf(uint32_t i) { return Ipv4(10u << 24 | (i / 64 & 0xffff) << 8 | (10 + (i & 63))); }
uint16_t PortOf(uint32_t i) { return static_cast<uint16_t>(10'000 + i % 50'000); }

struct FlowSource {
  void operator()(uint8_t* frame) {
    const uint32_t i = flows == 0 ? next++ : order[at++ & mask];
    const Ipv4 source = replies ? ServerOf(i) : ClientOf(i);
    const Ipv4 destination = replies ? kOutside : ServerOf(i);
    const uint16_t sport = replies ? kServerPort : PortOf(i);
    const uint16_t dport = replies ? PortOf(i) : kServerPort;
    wire::WriteEthernet(frame, replies ? kWanMac : kLanMac, kHost, wire::kEtherTypeIpv4);
    wire::EmitIpv4Header({frame + 14, 46}, {.payload_length = 26, .protocol = 17,
                                             .source = source, .destination = destination});
    uint8_t* const udp = frame + 34;
    std::memset(udp, 0, 26);
    StoreBe16(udp, sport);
    StoreBe16(udp + 2, dport);
    StoreBe16(udp + 4, 26);
    const uint64_t sum = wire::PseudoHeaderSum(source, destination, 17, 26) + sport + dport + 26;
    StoreBe16(udp + 6, wire::NonZeroChecksum(sum));
  }
  uint32_t flows = 0;  // 0: each packet another connection
  uint32_t next = 0;
  std::vector<uint32_t> order;
  size_t at = 0;
  size_t mask = 0;
  bool replies = false;
};

using Port = MemoryPort<FlowSource>;

test::RulesetModel HomeRouter() {
  using namespace test;  // NOLINT: the vocabulary of rules
  RulesetModel m(nft::TableFamily::kInet);
  nft::Set& by_state = m.AddSet("__map0", 0xb, 4);
  by_state.data_type = 0xffffff00;
  for (const auto& [state, code] : {std::pair(2u, 1), std::pair(4u, 1), std::pair(1u, 0)}) {
    nft::SetElement e = Key(Host32(state));
    e.verdict = {code, ""};
    by_state.elements.insert(e);
  }
  m.Base("forward", 2, 0, 0)
      .Rule({Ct(tables::kCtState), VerdictMap("__map0")})
      .Rule({Meta(tables::kMetaIifName), Cmp(kEq, Name("lan0")), Accept()});
  m.Base("postrouting", 4, 100, 1, "nat")
      .Rule({Meta(tables::kMetaOifName), Cmp(kEq, Name("wan0")), nft::MasqExpr{}});
  return m;
}

struct Router {
  explicit Router(uint32_t capacity)
      : fib4(epochs, {1024, size_t{32} << 20, false}),
        fib6(epochs, {1024, size_t{32} << 20, false}),
        table(epochs),
        arena(packet::FrameArena::Create(kFrames, 2048)),
        pool(*arena),
        lan(IfaceSlot{0}),
        wan(IfaceSlot{1}),
        compiler({}) {
    for (packet::FrameIndex i = 0; i < kFrames; ++i) pool.Free(i);
    AddInterface(0, "lan0", kLanMac, Ipv4(10, 0, 0, 1), 8);
    AddInterface(1, "wan0", kWanMac, kOutside, 24);
    AddRoute({Ipv4(10, 0, 0, 0), 8}, 0);
    AddRoute({Ipv4(198, 51, 100, 0), 24}, 1);
    tables::Route local;
    local.type = tables::RouteType::kLocal;
    (void)fib4.Insert({kOutside, 32}, *table.Intern(local)).ok();
    ruleset = compiler.Compile(HomeRouter().model, now);
    snapshot.ruleset = ruleset.get();
    snapshot.generation = 1;
    snapshot.conntrack.max = 0;
    snapshot.own4.Assign({kOutside, Ipv4(10, 0, 0, 1)});
    current.store(&snapshot);
    mailboxes.push_back(std::make_unique<dataplane::Mailbox>(1));
    const dataplane::Shared shared{current, epochs, mailboxes};
    const dataplane::PipelineConfig config{.tables = {fib4, fib6, table},
                                           .neighbor_limit = 1 << 21,
                                           .start = now,
                                           .firewall = {.flows = capacity, .start = now}};
    worker = std::make_unique<dataplane::Worker<Port>>(WorkerId{0}, shared, config, pool);
    worker->AddPort(&lan);
    worker->AddPort(&wan);
    worker->pipeline().ApplyKernelNeighbor(IfaceSlot{1}, kNextHop, kHost, stages::kNudPermanent,
                                           snapshot, now);
    worker->pipeline().ApplyKernelNeighbor(IfaceSlot{0}, Ipv4(10, 0, 0, 2), kHost,
                                           stages::kNudPermanent, snapshot, now);
  }

  void AddInterface(uint8_t slot, const std::string& name, const Mac& mac, Ipv4 address,
                    uint8_t length) {
    tables::Interface& i = snapshot.interfaces[slot];
    i.slot = IfaceSlot{slot};
    i.name = name;
    i.ifindex = IfIndex{slot + 1u};
    i.mac = mac;
    i.up = true;
    i.forwarding4 = true;
    i.send_redirects = false;
    i.addresses4.push_back({address, length});
  }
  void AddRoute(const Ipv4Prefix& prefix, uint8_t slot) {
    tables::Route route;
    tables::Path path{.oif = IfIndex{slot + 1u}, .slot = IfaceSlot{slot}};
    path.has_gateway = true;  // both ends stand behind one more router
    path.gateway = slot == 0 ? Ipv4(10, 0, 0, 2) : kNextHop;
    route.paths.push_back(path);
    (void)fib4.Insert(prefix, *table.Intern(route)).ok();
  }

  uint64_t forwarded() const {
    return worker->counters().of(IfaceSlot{0}).forwarded_packets.Read() +
           worker->counters().of(IfaceSlot{1}).forwarded_packets.Read();
  }

  // Begins the connections, and answers each of them.
  void Establish(uint32_t flows) {
    const size_t size = std::bit_ceil(size_t{flows});
    for (FlowSource* source : {&lan.source(), &wan.source()}) {
      source->flows = flows;
      source->mask = size - 1;
      for (size_t i = 0; i < size; ++i) {
        source->order.push_back(static_cast<uint32_t>(i % flows));
      }
    }
    wan.source().replies = true;
    for (Port* port : {&lan, &wan}) {
      port->set_receiving(true);
      const uint64_t before = forwarded();
      for (size_t i = 0; i < size / 64 + 1; ++i) Tick();
      if (forwarded() - before < size) Complain();
      port->set_receiving(false);
    }
    Rng rng(5);
    std::vector<uint32_t>& order = lan.source().order;
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[rng.Below(i)]);
  }
  // Not all packets pass: what became of them.
  [[noreturn]] void Complain() const {
    for (const InterfaceCounters& c : worker->counters().interfaces) {
      for (size_t i = 0; i < kDropReasonCount; ++i) {
        if (c.dropped_packets[i].Read() > 0) std::cerr << kDropReasons[i].label << "\n";
      }
      for (size_t i = 0; i < kPuntReasonCount; ++i) {
        if (c.punts[i].Read() > 0) std::cerr << "punt: " << kPuntReasons[i].label << "\n";
      }
    }
    std::exit(1);
  }
  void Tick() {
    benchmark::DoNotOptimize(worker->Tick(now));
    now += Micros(5);
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
  Port lan;
  Port wan;
  control::RulesetCompiler compiler;
  std::shared_ptr<const tables::Ruleset> ruleset;
  std::vector<std::unique_ptr<dataplane::Mailbox>> mailboxes;
  std::unique_ptr<dataplane::Worker<Port>> worker;
};

void PerPacket(benchmark::State& state, uint64_t packets) {
  state.SetItemsProcessed(static_cast<int64_t>(packets));
  // A time, in seconds; printed as "40.1ns".
  state.counters["per_packet"] = benchmark::Counter(
      static_cast<double>(packets), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

void Established(benchmark::State& state, stages::FlowPath* path) {
  const auto flows = static_cast<uint32_t>(state.range(0));
  Router router(flows + flows / 4 + 1024);
  router.Establish(flows);
  router.lan.set_receiving(true);
  router.worker->pipeline().firewall().Record(path);
  const uint64_t before = router.forwarded();
  for (auto _ : state) router.Tick();
  PerPacket(state, router.forwarded() - before);
  state.counters["flows"] = router.worker->pipeline().firewall().flows().size();
}
void BM_Established(benchmark::State& state) { Established(state, nullptr); }
BENCHMARK(BM_Established)->ArgName("flows")->Arg(1)->Arg(10'000)->Arg(100'000)->Arg(1'000'000);

void BM_EstablishedRecorded(benchmark::State& state) {
  stages::FlowPath path;
  Established(state, &path);
  if (path.varies()) state.SkipWithError("the path varies");
}
BENCHMARK(BM_EstablishedRecorded)->ArgName("flows")->Arg(1)->Arg(10'000);

void BM_New(benchmark::State& state) {
  constexpr uint32_t kConnections = 1'000'000;
  for (auto _ : state) {
    state.PauseTiming();
    auto router = std::make_unique<Router>(kConnections + 1024);
    router->lan.set_receiving(true);
    state.ResumeTiming();
    for (uint32_t i = 0; i < kConnections / 64 + 1; ++i) router->Tick();
    state.PauseTiming();
    if (router->worker->pipeline().firewall().flows().size() < kConnections) {
      state.SkipWithError("connections are missing");
    }
    router.reset();
    state.ResumeTiming();
  }
  PerPacket(state, kConnections * state.iterations());
}
BENCHMARK(BM_New)->Iterations(3)->Unit(benchmark::kMillisecond);

// What the packets cost to make: to be taken off the above.
void BM_Source(benchmark::State& state) {
  FlowSource source;
  std::array<uint8_t, 2048> frame;
  for (auto _ : state) {
    source(frame.data());
    benchmark::DoNotOptimize(frame);
  }
}
BENCHMARK(BM_Source);

}  // namespace
}  // namespace sluice
