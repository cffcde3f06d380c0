// How fast FIB lookups and changes are, and what a route costs in memory.
//
// IPv4 tables have the length mix of the public routing table (60 % /24, the rest mostly /16 to
// /23, 3 % /25 to /32) at random places of the unicast space, which is harder than real tables:
// nothing clusters. Destinations are random addresses within random prefixes ("hit") or anywhere
// ("any").
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <ctime>
#include <memory>
#include <vector>

#include "base/rng.h"
#include "tables/fib.h"

namespace sluice::tables {
namespace {

constexpr size_t kAddresses = size_t{1} << 20;
constexpr size_t kBurst = 32;
constexpr uint32_t kNextHops = 1000;

template <class Table>
struct Loaded {
  using Address = typename Table::Address;
  using Prefix = typename Table::Prefix;
  EpochDomain domain;
  Table fib{domain};
  std::vector<Prefix> prefixes;
  std::vector<Address> hits;
  std::vector<Address> anywhere;
  double load_seconds = 0;
};

uint8_t RandomLength4(Rng& rng) {
  const uint64_t draw = rng.Below(1000);
  if (draw < 600) return 24;
  if (draw < 970) return static_cast<uint8_t>(16 + rng.Below(8));
  return static_cast<uint8_t>(25 + rng.Below(8));
}

uint8_t RandomLength6(Rng& rng) {
  const uint64_t draw = rng.Below(1000);
  if (draw < 450) return 48;
  if (draw < 900) return static_cast<uint8_t>(29 + rng.Below(16));
  return static_cast<uint8_t>(49 + rng.Below(16));
}

Ipv4 RandomAddress(Rng& rng, Ipv4) {  // 1.0.0.0 to 223.255.255.255
  return Ipv4(static_cast<uint32_t>((uint64_t{1} << 24) + rng.Below(uint64_t{223} << 24)));
}
Ipv6 RandomAddress(Rng& rng, Ipv6) {  // 2000::/8, of which 200 different /20
  return Ipv6(uint64_t{0x20} << 56 | rng.Below(200) << 44 | rng.Next() >> 20, rng.Next());
}
Ipv4 Within(const Ipv4Prefix& p, Ipv4 a) { return Ipv4(p.address.value | (a.value & ~p.mask())); }
Ipv6 Within(const Ipv6Prefix& p, const Ipv6& a) {
  return Ipv6(p.address.hi | (a.hi & ~p.mask().hi), p.address.lo | (a.lo & ~p.mask().lo));
}
uint8_t RandomLength(Rng& rng, Ipv4) { return RandomLength4(rng); }
uint8_t RandomLength(Rng& rng, const Ipv6&) { return RandomLength6(rng); }

// Each table is built once and kept for all cases that use it.
template <class Table>
Loaded<Table>& Get(size_t routes) {
  static std::vector<std::unique_ptr<Loaded<Table>>> cache;
  for (const auto& t : cache) {
    if (t->prefixes.size() == routes) return *t;
  }
  using Address = typename Table::Address;
  cache.push_back(std::make_unique<Loaded<Table>>());
  Loaded<Table>& t = *cache.back();
  Rng rng(42);
  std::vector<typename Table::Prefix> unique;
  {
    EpochDomain domain;
    Table seen(domain);
    while (unique.size() < routes) {
      const Address a = RandomAddress(rng, Address{});
      const auto p = typename Table::Prefix{a, RandomLength(rng, a)}.Canonical();
      if (seen.Find(p).valid()) continue;
      if (!seen.Insert(p, RouteId{1}).ok()) std::abort();
      unique.push_back(p);
    }
  }
  const std::clock_t start = std::clock();  // CPU time: the machine may be shared
  for (const auto& p : unique) {
    const RouteId route{1 + static_cast<uint32_t>(rng.Below(kNextHops))};
    if (!t.fib.Insert(p, route).ok()) std::abort();
  }
  t.load_seconds = static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
  t.domain.Reclaim();
  t.prefixes = std::move(unique);
  for (size_t i = 0; i < kAddresses; ++i) {
    const Address a = RandomAddress(rng, Address{});
    t.anywhere.push_back(a);
    t.hits.push_back(Within(t.prefixes[rng.Below(routes)], a));
  }
  return t;
}

template <class Table>
void ReportMemory(benchmark::State& state, const Loaded<Table>& t) {
  const FibStats s = t.fib.stats();
  const double routes = static_cast<double>(s.routes);
  state.counters["lookup_MiB"] = static_cast<double>(s.lookup_bytes) / (1 << 20);
  state.counters["control_MiB"] = static_cast<double>(s.control_bytes) / (1 << 20);
  state.counters["extent_MiB"] = static_cast<double>(s.extent_bytes) / (1 << 20);
  state.counters["B_per_route"] = static_cast<double>(s.extent_bytes + s.control_bytes) / routes;
  state.counters["load_s"] = t.load_seconds;
}

template <class Table>
void Single(benchmark::State& state) {
  Loaded<Table>& t = Get<Table>(static_cast<size_t>(state.range(0)));
  size_t i = 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(t.fib.Lookup(t.hits[i]));
    i = (i + 1) & (kAddresses - 1);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations()));
}

template <class Table>
void Batch(benchmark::State& state) {
  Loaded<Table>& t = Get<Table>(static_cast<size_t>(state.range(0)));
  const auto& addresses = state.range(1) != 0 ? t.hits : t.anywhere;
  state.SetLabel(state.range(1) != 0 ? "hit" : "any");
  RouteId out[kBurst];
  size_t i = 0;
  for (auto _ : state) {
    t.fib.LookupBatch(&addresses[i], out, kBurst);
    benchmark::DoNotOptimize(out);
    i = (i + kBurst) & (kAddresses - 1);
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * kBurst));
  ReportMemory(state, t);
}

// One prefix goes and comes back, at random over the table: two updates per iteration.
template <class Table>
void Flap(benchmark::State& state) {
  Loaded<Table>& t = Get<Table>(static_cast<size_t>(state.range(0)));
  Rng rng(1);
  for (auto _ : state) {
    const auto& p = t.prefixes[rng.Below(t.prefixes.size())];
    const RouteId route = t.fib.Find(p);
    t.fib.Erase(p);
    if (!t.fib.Insert(p, route).ok()) std::abort();
  }
  state.SetItemsProcessed(static_cast<int64_t>(2 * state.iterations()));
}

// The default route and other short prefixes, with everything below them.
void FlapShort(benchmark::State& state) {
  Loaded<Fib4>& t = Get<Fib4>(1'000'000);
  const Ipv4Prefix p =
      Ipv4Prefix{Ipv4(64, 0, 0, 0), static_cast<uint8_t>(state.range(0))}.Canonical();
  for (auto _ : state) {
    if (!t.fib.Insert(p, RouteId{7}).ok()) std::abort();
    t.fib.Erase(p);
  }
  state.SetItemsProcessed(static_cast<int64_t>(2 * state.iterations()));
}

void Insert4(benchmark::State& state) {
  const Loaded<Fib4>& t = Get<Fib4>(static_cast<size_t>(state.range(0)));
  for (auto _ : state) {
    EpochDomain domain;
    Fib4 fib(domain);
    for (size_t i = 0; i < t.prefixes.size(); ++i) {
      if (!fib.Insert(t.prefixes[i], RouteId{1 + static_cast<uint32_t>(i) % kNextHops}).ok()) {
        std::abort();
      }
    }
  }
  state.SetItemsProcessed(static_cast<int64_t>(state.iterations() * t.prefixes.size()));
}

BENCHMARK(Single<Fib4>)->Arg(10)->Arg(100'000)->Arg(1'000'000);
BENCHMARK(Batch<Fib4>)->ArgsProduct({{10, 100'000, 1'000'000}, {1, 0}});
BENCHMARK(Insert4)->Arg(100'000)->Arg(1'000'000)->Unit(benchmark::kMillisecond);
BENCHMARK(Flap<Fib4>)->Arg(10)->Arg(100'000)->Arg(1'000'000);
BENCHMARK(FlapShort)->Arg(0)->Arg(1)->Arg(8)->Arg(16)->Unit(benchmark::kMicrosecond);
BENCHMARK(Single<Fib6>)->Arg(10)->Arg(200'000);
BENCHMARK(Batch<Fib6>)->ArgsProduct({{10, 200'000}, {1, 0}});
BENCHMARK(Flap<Fib6>)->Arg(200'000);

}  // namespace
}  // namespace sluice::tables
