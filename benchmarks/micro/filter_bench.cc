// What the rule engine costs per packet, and what a new ruleset or element costs.
//
// Rules are given as the kernel's expressions, in the order in which nft sends them. Packets lie in
// the cache, as they do in a worker that has just parsed them; rules and elements do not need to.
#include <benchmark/benchmark.h>

#include <cstdlib>
#include <memory>

#include "base/rng.h"
#include "support/filter_world.h"

namespace sluice::test {
namespace {

const nft::Expr kState = Ct(tables::kCtState);

// The home router of the nftables wiki ("Simple ruleset for a home router"), its forward and NAT
// chains.
RulesetModel HomeRouter() {
  RulesetModel m(nft::TableFamily::kInet);
  nft::Set& by_state = m.AddSet("__map0", 0xb, 4);
  by_state.data_type = 0xffffff00;
  for (const auto& [state, code] : {std::pair(2u, 1), std::pair(4u, 1), std::pair(1u, 0)}) {
    nft::SetElement e = Key(Host32(state));
    e.verdict = {code, ""};
    by_state.elements.insert(e);
  }
  m.Base("forward", 2, 0, 0)
      .Rule({kState, VerdictMap("__map0")})
      .Rule({Meta(tables::kMetaIifName), Cmp(kEq, Name("lan0")), Accept()});
  m.Base("postrouting", 4, 100, 1, "nat")
      .Rule({Meta(tables::kMetaNfProto), Cmp(kEq, {2}), Payload(kNetwork, 12, 4),
             And(Addr("255.255.0.0")), Cmp(kEq, Addr("192.168.0.0")), Meta(tables::kMetaOifName),
             Cmp(kEq, Name("wan0")), nft::MasqExpr{}});
  return m;
}

// Rules that none of the packets matches, each another address and port.
RulesetModel Linear(uint32_t rules) {
  RulesetModel m;
  Rng rng(1);
  m.Base("forward", 2);
  for (uint32_t i = 0; i < rules; ++i) {
    const auto r = static_cast<uint32_t>(rng.Next());
    m.Rule({Payload(kNetwork, 12, 4),
            Cmp(kEq, {20, static_cast<uint8_t>(r), static_cast<uint8_t>(r >> 8),
                      static_cast<uint8_t>(r >> 16)}),
            Meta(tables::kMetaL4Proto), Cmp(kEq, {6}), Payload(kTransport, 2, 2),
            Cmp(kEq, Net16(static_cast<uint16_t>(rng.Next()))), nft::CounterExpr{}, Drop()});
  }
  return m;
}

nft::Bytes Random4(Rng& rng) {
  const uint64_t r = rng.Next();
  nft::Bytes b(4);
  std::memcpy(b.data(), &r, 4);
  return b;
}

// `kind` 0: addresses, 1: prefixes of /24, 2: addresses with port ranges.
RulesetModel WithSet(uint32_t elements, int kind) {
  RulesetModel m;
  Rng rng(2);
  nft::Set& set = m.AddSet("s", kind == 0 ? 0 : kind == 1 ? 4 : 0x84, kind == 2 ? 8 : 4);
  if (kind == 2) set.field_lengths = {4, 2};
  while (set.elements.size() < elements * (kind == 1 ? 2 : 1)) {
    nft::Bytes a = Random4(rng);
    if (kind == 0) set.elements.insert(Key(a));
    if (kind == 1) {
      a[3] = 0;
      a[2] &= 0xfe;
      set.elements.insert(Key(a));
      a[2] |= 1;
      set.elements.insert(End(a));
    }
    if (kind == 2) {
      nft::SetElement e = Key(Join({a, Net16(80)}));
      e.key_end = Join({a, Net16(90)});
      e.order = set.elements.size();
      set.elements.insert(e);
    }
  }
  if (kind == 2) {
    m.Base("forward", 2).Rule({Payload(kNetwork, 12, 4), Payload(kTransport, 2, 2, 1),
                               Lookup("s"), Drop()});
  } else {
    m.Base("forward", 2).Rule({Payload(kNetwork, 12, 4), Lookup("s"), Drop()});
  }
  return m;
}

void RunAll(benchmark::State& state, FilterWorld& w, HookPoint hook) {
  stages::FilterContext context = w.Context();
  for (auto _ : state) benchmark::DoNotOptimize(w.filter.Run(hook, w.family, context));
  state.counters["ruleset_KiB"] = static_cast<double>(w.ruleset->memory_bytes()) / 1024;
}

// While the packets' path is noted for the flow tier.
void RunAllRecorded(benchmark::State& state, FilterWorld& w, HookPoint hook) {
  stages::FilterContext context = w.Context();
  stages::FlowPath path;
  context.path = &path;
  for (auto _ : state) {
    path.Begin(w.p);
    benchmark::DoNotOptimize(w.filter.Run(hook, w.family, context));
  }
  if (path.varies()) state.SkipWithError("the path varies");
}

void HomeRouterForward(benchmark::State& state) {
  FilterWorld w;
  w.Use(HomeRouter());
  w.Load(FilterWorld::Tcp4("192.168.1.2", "8.8.8.8", 1000, 443));
  w.p.ct_state = static_cast<uint8_t>(state.range(0) != 0 ? tables::CtState::kEstablished
                                                          : tables::CtState::kNew);
  if (w.Run().kind != Kind::kAccept) std::abort();
  RunAll(state, w, HookPoint::kForward);
}
BENCHMARK(HomeRouterForward)->ArgName("established")->Arg(1)->Arg(0);

void HomeRouterRecorded(benchmark::State& state) {
  FilterWorld w;
  w.Use(HomeRouter());
  w.Load(FilterWorld::Tcp4("192.168.1.2", "8.8.8.8", 1000, 443));
  w.p.ct_state = static_cast<uint8_t>(tables::CtState::kEstablished);
  RunAllRecorded(state, w, HookPoint::kForward);
}
BENCHMARK(HomeRouterRecorded);

void HomeRouterMasquerade(benchmark::State& state) {
  FilterWorld w;
  w.Use(HomeRouter());
  w.Load(FilterWorld::Tcp4("192.168.1.2", "8.8.8.8", 1000, 443));
  if (w.Run(HookPoint::kPostroutingNat).kind != Kind::kNat) std::abort();
  RunAll(state, w, HookPoint::kPostroutingNat);
}
BENCHMARK(HomeRouterMasquerade);

void LinearRules(benchmark::State& state) {
  FilterWorld w;
  control::CompilerOptions options;
  if (state.range(1) == 0) options.index_threshold = 1u << 30;
  w.Restart(options);
  w.Use(Linear(static_cast<uint32_t>(state.range(0))));
  w.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1000, 443));
  RunAll(state, w, HookPoint::kForward);
}
BENCHMARK(LinearRules)->ArgNames({"rules", "index"})
    ->ArgsProduct({{1, 4, 8, 10, 16, 24, 32, 64, 1000, 10000}, {0}})
    ->ArgsProduct({{24, 32, 64, 1000, 10000, 100000}, {1}});

void LinearRulesRecorded(benchmark::State& state) {
  FilterWorld w;
  w.Use(Linear(static_cast<uint32_t>(state.range(0))));
  w.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1000, 443));
  RunAllRecorded(state, w, HookPoint::kForward);
}
BENCHMARK(LinearRulesRecorded)->ArgName("rules")->Arg(8)->Arg(1000)->Arg(10000);

// The same with packets from many addresses, so that the index is looked up all over.
void LinearRulesManyPackets(benchmark::State& state) {
  FilterWorld w;
  w.Use(Linear(static_cast<uint32_t>(state.range(0))));
  w.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1000, 443));
  stages::FilterContext context = w.Context();
  Rng rng(3);
  for (auto _ : state) {
    StoreBe32(w.p.l3() + 12, static_cast<uint32_t>(20u << 24 | rng.Next() >> 40));
    StoreBe16(w.p.l4() + 2, static_cast<uint16_t>(rng.Next()));
    benchmark::DoNotOptimize(w.filter.Run(HookPoint::kForward, w.family, context));
  }
}
BENCHMARK(LinearRulesManyPackets)->ArgName("rules")->Arg(1000)->Arg(10000);

void SetLookup(benchmark::State& state) {
  FilterWorld w;
  w.Use(WithSet(static_cast<uint32_t>(state.range(0)), static_cast<int>(state.range(1))));
  w.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1000, 85));
  stages::FilterContext context = w.Context();
  Rng rng(3);
  for (auto _ : state) {
    StoreBe32(w.p.l3() + 12, static_cast<uint32_t>(rng.Next()));
    benchmark::DoNotOptimize(w.filter.Run(HookPoint::kForward, w.family, context));
  }
  state.counters["B_per_element"] = static_cast<double>(w.ruleset->set(0).memory_bytes()) /
                                    static_cast<double>(state.range(0));
}
BENCHMARK(SetLookup)->ArgNames({"elements", "kind"})
    ->ArgsProduct({{1000, 100000}, {0, 1}})->Args({100, 2})->Args({1000, 2})->Args({100000, 2});

void CompileRules(benchmark::State& state) {
  const RulesetModel m = Linear(static_cast<uint32_t>(state.range(0)));
  FilterWorld w;
  for (auto _ : state) w.Use(m);
}
BENCHMARK(CompileRules)->ArgName("rules")->Arg(1000)->Arg(10000)->Unit(benchmark::kMillisecond);

void CompileSet(benchmark::State& state) {
  const RulesetModel m = WithSet(100'000, static_cast<int>(state.range(0)));
  for (auto _ : state) {
    control::RulesetCompiler compiler({});
    benchmark::DoNotOptimize(compiler.Compile(m.model, Nanos()));
  }
}
BENCHMARK(CompileSet)->ArgName("kind")->DenseRange(0, 2)->Unit(benchmark::kMillisecond);

// One element more, and one less, in a set of 100,000: what the control thread does for it.
void OneElement(benchmark::State& state) {
  const int kind = static_cast<int>(state.range(0));
  RulesetModel m = WithSet(100'000, kind);
  nft::Set& set = m.table().sets["s"];
  FilterWorld w;
  w.Use(m);
  std::vector<nft::SetElement> change;
  if (kind == 0) change = {Key(Addr("1.2.3.4"))};
  if (kind == 1) change = {Key(Addr("1.2.3.4")), End(Addr("1.2.3.5"))};
  if (kind == 2) {
    change = {Key(Join({Addr("1.2.3.4"), Net16(1)}))};
    change[0].key_end = Join({Addr("1.2.3.4"), Net16(9)});
  }
  nft::SetDelta delta;
  delta.family = nft::TableFamily::kIp;
  delta.table = "t";
  delta.set = "s";
  bool present = false;
  for (auto _ : state) {
    state.PauseTiming();
    delta.added.clear();
    delta.removed.clear();
    (present ? delta.removed : delta.added) = change;
    for (const nft::SetElement& e : change) {
      if (present) {
        set.elements.erase(e);
      } else {
        set.elements.insert(e);
      }
    }
    present = !present;
    state.ResumeTiming();
    w.Adopt(w.compiler->ApplyElements(m.model, {&delta, 1}, w.now));
  }
}
BENCHMARK(OneElement)->ArgName("kind")->DenseRange(0, 2)->Unit(benchmark::kMicrosecond);

// The flood meter of the wiki: each packet updates an element.
void FloodMeter(benchmark::State& state) {
  RulesetModel m;
  m.AddSet("flood", 0x30, 4).size = 65535;
  nft::LimitExpr limit;
  limit.rate = 10;
  limit.burst = 5;
  limit.inverted = true;
  auto update = std::make_shared<nft::DynsetExpr>();
  update->set = "flood";
  update->op = 1;
  update->sreg_key = 0;
  update->timeout_ms = 60'000;
  update->exprs = {limit};
  m.Base("forward", 2).Rule({Payload(kNetwork, 12, 4),
                             std::shared_ptr<const nft::DynsetExpr>(update), Drop()});
  FilterWorld w;
  w.Use(m);
  w.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1000, 85));
  stages::FilterContext context = w.Context();
  Rng rng(4);
  const auto sources = static_cast<uint64_t>(state.range(0));
  for (auto _ : state) {
    context.now += Nanos(300);
    StoreBe32(w.p.l3() + 12, static_cast<uint32_t>(rng.Below(sources)));
    benchmark::DoNotOptimize(w.filter.Run(HookPoint::kForward, w.family, context));
  }
}
BENCHMARK(FloodMeter)->ArgName("sources")->Arg(100)->Arg(50000);

}  // namespace
}  // namespace sluice::test
