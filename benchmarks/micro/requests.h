// Requests of 100 bytes and their answers, over a MemoryLink, from host 0 to whatever answers on a port of
// host 1. `settle` delivers until nobody has anything to say.
#ifndef SLUICE_BENCHMARKS_MICRO_REQUESTS_H_
#define SLUICE_BENCHMARKS_MICRO_REQUESTS_H_

#include <benchmark/benchmark.h>

#include <cstdint>

#include "support/memory_link.h"

namespace sluice::test {

// Each on a connection of its own: connect, request, answer, close.
template <class Settle>
void MeasureConnections(benchmark::State& state, MemoryLink& link, uint16_t port,
                        Settle&& settle) {
  OneRequest client(link.tcp(0), 100);
  for (auto _ : state) {
    transport::TcpSocket s;
    if (link.tcp(0).Connect({}, {link.address(1), port}, {}, &client, link.now(), s) !=
        transport::SocketError::kNone) {
      state.SkipWithError("no connection");
      break;
    }
    settle();
  }
  state.counters["connections/s"] =
      benchmark::Counter(client.answers, benchmark::Counter::kIsRate);
}

// All on one connection, which is there.
template <class Settle>
void MeasureRequests(benchmark::State& state, MemoryLink& link, uint16_t port, Settle&& settle) {
  OneRequest client(link.tcp(0), 100);
  client.close_after_answer = false;
  transport::TcpSocket s;
  link.tcp(0).Connect({}, {link.address(1), port}, {.no_delay = true}, &client, link.now(), s);
  settle();
  for (auto _ : state) {
    client.OnConnected(s, link.now());
    settle();
  }
  state.counters["requests/s"] = benchmark::Counter(client.answers, benchmark::Counter::kIsRate);
}

}  // namespace sluice::test

#endif  // SLUICE_BENCHMARKS_MICRO_REQUESTS_H_
