// Services in memory, on one core, all ends' cost together: a client, the proxy and an echo server as
// backend, each with the same stack. What the proxy adds is the difference to transport_bench.
#include <benchmark/benchmark.h>

#include <string_view>

#include "benchmarks/micro/requests.h"
#include "support/memory_services.h"

namespace sluice::test {
namespace {

using tables::ServiceKind;

// Connect, a request of 100 bytes, an answer, close: two connections, four ends.
void ProxyConnectRequestClose(benchmark::State& state) {
  MemoryServices world;
  world.Proxy(ServiceKind::kTcpProxy, 80);
  MeasureConnections(state, world.link(), 80, [&] { world.Settle(); });
}
BENCHMARK(ProxyConnectRequestClose);

// A request of 100 bytes and its answer on a connection that is there.
void ProxyRequest(benchmark::State& state) {
  MemoryServices world;
  world.Proxy(ServiceKind::kTcpProxy, 80);
  MeasureRequests(state, world.link(), 80, [&] { world.Settle(); });
}
BENCHMARK(ProxyRequest);

// One stream, MSS 1448, to a backend that discards it.
void ProxyBulk(benchmark::State& state) {
  MemoryLink link;
  struct NoPages : services::PageSource {
    bool Request(uint64_t) override { return false; }
  } pages;
  services::ServiceSet set(link.stack(1), {}, pages, {}, link.now());
  Discard sink(link.tcp(0));
  Source source(link.tcp(0));
  transport::TcpListenerId id;
  link.tcp(0).Listen({Ipv4(), 9}, {}, 16, &sink, id);
  auto config = std::make_shared<tables::ServicesConfig>();
  config->services.resize(1);
  config->services[0].name = "bulk";
  config->services[0].listen = {{link.address(1), 80}};
  config->services[0].backends = {{{link.address(0), 9}}};
  set.Apply(config, link.now());
  transport::TcpSocket s;
  link.tcp(0).Connect({}, {link.address(1), 80}, {}, &source, link.now(), s);
  for (int i = 0; i < 100; ++i) link.Round();
  const uint64_t bytes = sink.bytes;
  for (auto _ : state) {
    link.Round();
    if (set.NextDeadline() <= link.now()) set.OnTimer(link.now());
  }
  const auto moved = static_cast<double>(sink.bytes - bytes);
  state.counters["segments/s"] = benchmark::Counter(moved / 1448, benchmark::Counter::kIsRate);
  state.counters["bit/s"] = benchmark::Counter(moved * 8, benchmark::Counter::kIsRate);
}
BENCHMARK(ProxyBulk);

// A query of 40 bytes and its answer: with a session for each, or in one that is there.
void ProxyDatagram(benchmark::State& state) {
  MemoryServices world;
  world.Proxy(ServiceKind::kUdpProxy, 53, static_cast<uint32_t>(state.range(0)));
  UdpCounter client(world.udp());
  transport::UdpSocket s;
  world.udp().Bind({Ipv4(), 1000}, &client, s);
  const std::array<uint8_t, 40> query{};
  for (auto _ : state) {
    world.udp().SendTo(s, {world.link().address(1), 53}, query, world.link().now());
    world.Settle();
  }
  state.counters["queries/s"] = benchmark::Counter(client.received, benchmark::Counter::kIsRate);
}
BENCHMARK(ProxyDatagram)->ArgName("replies")->Arg(0)->Arg(1);

}  // namespace
}  // namespace sluice::test
