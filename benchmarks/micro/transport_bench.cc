// Two TCP stacks against each other in memory, on one core, both ends' cost together: bulk data,
// connections with one request each, requests on a connection that stays.
#include <benchmark/benchmark.h>

#include "examples/echo_server.h"
#include "benchmarks/micro/requests.h"
#include "support/memory_link.h"

namespace sluice::test {
namespace {

// Segments with data per second, MSS 1448, and their ACKs.
void Bulk(benchmark::State& state) {
  MemoryLink link;
  link.bursts = state.range(0) != 0;
  Discard sink(link.tcp(1));
  Source source(link.tcp(0));
  transport::TcpListenerId id;
  link.tcp(1).Listen({Ipv4(), 9}, {}, 16, &sink, id);
  transport::TcpSocket s;
  link.tcp(0).Connect({}, {link.address(1), 9}, {}, &source, link.now(), s);
  for (int i = 0; i < 100; ++i) link.Round();
  const uint64_t bytes = sink.bytes;
  const uint64_t packets = link.packets();
  for (auto _ : state) link.Round();
  const auto moved = static_cast<double>(sink.bytes - bytes);
  state.counters["segments/s"] = benchmark::Counter(moved / 1448, benchmark::Counter::kIsRate);
  state.counters["packets/s"] = benchmark::Counter(static_cast<double>(link.packets() - packets),
                                                   benchmark::Counter::kIsRate);
  state.counters["bit/s"] = benchmark::Counter(moved * 8, benchmark::Counter::kIsRate);
}
BENCHMARK(Bulk)->ArgName("bursts")->Arg(0)->Arg(1);

// Connect, a request of 100 bytes, an answer, close from the client; both ends.
void ConnectRequestClose(benchmark::State& state) {
  MemoryLink link;
  examples::EchoServer echo(link.tcp(1));
  echo.Listen({Ipv4(), 7});
  MeasureConnections(state, link, 7, [&] { link.Settle(); });
}
BENCHMARK(ConnectRequestClose);

// A request of 100 bytes and its answer on a connection that is there.
void Request(benchmark::State& state) {
  MemoryLink link;
  examples::EchoServer echo(link.tcp(1));
  echo.Listen({Ipv4(), 7});
  MeasureRequests(state, link, 7, [&] { link.Settle(); });
}
BENCHMARK(Request);

}  // namespace
}  // namespace sluice::test
