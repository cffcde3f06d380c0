// Workers judge packets while the control thread changes rules and elements: each packet by one
// generation, and nothing is lost or freed too early. (Run under the thread sanitizer.)
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "support/filter_world.h"

namespace sluice::test {
namespace {

// Generation g drops its packets by the set `a` exactly when g is even, and by `b` when it is odd;
// so each packet is dropped by exactly one of the two rules, unless it saw a mixture.
RulesetModel Model() {
  RulesetModel m;
  m.AddSet("a", 0, 4).elements = {Key(Addr("10.0.0.1"))};
  m.AddSet("b", 0, 4);
  m.AddSet("seen", 0x30, 4).size = 1000;
  auto update = std::make_shared<nft::DynsetExpr>();
  update->set = "seen";
  update->op = 1;
  update->sreg_key = 0;
  update->timeout_ms = 1000;
  nft::LimitExpr limit;
  limit.rate = 1'000'000;
  limit.burst = 1000;
  const nft::Expr source = Payload(kNetwork, 12, 4);
  m.Base("forward", 2)
      .Rule({source, std::shared_ptr<const nft::DynsetExpr>(update), nft::CounterExpr{}})
      .Rule({limit, nft::LogExpr{}})
      .Rule({source, Lookup("a"), nft::CounterExpr{}, Set(Host32(1)), MetaSet(tables::kMetaMark)})
      .Rule({source, Lookup("b"), nft::CounterExpr{}, Meta(tables::kMetaMark, 4),
             Cmp(kEq, Host32(0), 4), Drop()})
      .Rule({Meta(tables::kMetaMark), Cmp(kEq, Host32(1)), Drop()});
  return m;
}

TEST(RulesetSwapTest, PacketsSeeWholeGenerations) {
  constexpr uint32_t kWorkers = 2;
  constexpr uint32_t kChanges = 400;
  RulesetModel m = Model();
  control::RulesetCompiler compiler({.workers = kWorkers});
  tables::EpochDomain domain;
  std::shared_ptr<const tables::Ruleset> current = compiler.Compile(m.model, Seconds(1));
  std::atomic<const tables::Ruleset*> published{current.get()};
  std::atomic<bool> done{false};
  std::atomic<uint64_t> accepted{0};
  std::array<std::atomic<uint64_t>, kWorkers> judged{};
  std::array<std::unique_ptr<stages::Filter>, kWorkers> filters;
  std::vector<std::thread> threads;
  for (uint32_t w = 0; w < kWorkers; ++w) {
    filters[w] = std::make_unique<stages::Filter>(stages::Filter::Options{.worker = w});
    threads.emplace_back([&, w] {
      FilterWorld world;
      stages::Filter& filter = *filters[w];
      const Bytes frame = FilterWorld::Udp4("10.0.0.1", "10.0.0.2", 1, 2);
      domain.Online(WorkerId{static_cast<uint8_t>(w)});
      while (!done.load()) {
        filter.UseRuleset(published.load(std::memory_order_acquire), world.now);
        filter.Tick(world.now);
        for (int i = 0; i < 20; ++i) {
          world.Load(frame);
          world.now += Micros(1);
          stages::FilterContext context = world.Context();
          const Kind kind = filter.Run(HookPoint::kForward, Family::kIpv4, context).kind;
          if (kind != Kind::kDrop) accepted.fetch_add(1);
        }
        judged[w].fetch_add(20);
        domain.Quiescent(WorkerId{static_cast<uint8_t>(w)});
      }
      filter.UseRuleset(nullptr, world.now);
      domain.Offline(WorkerId{static_cast<uint8_t>(w)});
    });
  }
  const auto publish = [&](std::shared_ptr<const tables::Ruleset> next) {
    published.store(next.get(), std::memory_order_release);
    domain.RetireObject(
        std::make_unique<std::shared_ptr<const tables::Ruleset>>(std::move(current)));
    current = std::move(next);
  };
  for (uint32_t g = 1; g <= kChanges; ++g) {
    nft::Set& from = m.table().sets[g % 2 == 1 ? "a" : "b"];
    nft::Set& to = m.table().sets[g % 2 == 1 ? "b" : "a"];
    std::array<nft::SetDelta, 2> deltas;
    for (nft::SetDelta& d : deltas) {
      d.family = nft::TableFamily::kIp;
      d.table = "t";
    }
    deltas[0].set = from.name;
    deltas[0].removed = {Key(Addr("10.0.0.1"))};
    deltas[1].set = to.name;
    deltas[1].added = deltas[0].removed;
    from.elements.clear();
    to.elements = {Key(Addr("10.0.0.1"))};
    from.version = m.NextVersion();
    to.version = m.NextVersion();
    ++m.model.generation;
    if (g % 5 == 0) {
      publish(compiler.Compile(m.model, Seconds(1)));
    } else {
      publish(compiler.ApplyElements(m.model, deltas, Seconds(1)));
    }
    std::vector<tables::SetEvent> events;
    for (const auto& filter : filters) {
      filter->DrainSetEvents([&](const tables::SetEvent& e) { events.push_back(e); });
      filter->DrainLog([](const stages::LogRecord&) {});
    }
    if (auto next = compiler.ApplyEvents(events, Seconds(1))) publish(std::move(next));
    domain.Reclaim();
    // Each generation is seen by somebody before the next.
    const uint64_t before = judged[g % kWorkers].load();
    while (judged[g % kWorkers].load() == before) std::this_thread::yield();
  }
  done = true;
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(accepted.load(), 0u);
  uint64_t total = 0;
  for (const auto& n : judged) total += n.load();
  EXPECT_EQ(current->RuleCount(0).packets, total);
  EXPECT_EQ(current->RuleCount(2).packets + current->RuleCount(3).packets, total);
  domain.Reclaim();
}

}  // namespace
}  // namespace sluice::test
