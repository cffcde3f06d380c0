// What the compiler keeps from one ruleset to the next, and changes of elements alone.
#include "control/ruleset/compiler.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "support/filter_world.h"

namespace sluice::test {
namespace {

const nft::Expr kSource = Payload(kNetwork, 12, 4);

Bytes From(const std::string& address) {
  return FilterWorld::Udp4(address.c_str(), "10.0.0.2", 1000, 80);
}

TEST(CompilerTest, UnchangedRulesKeepTheirState) {
  FilterWorld w;
  RulesetModel m;
  nft::LimitExpr limit;
  limit.rate = 1;
  limit.burst = 2;
  m.Base("forward", 2)
      .Rule({nft::CounterExpr{}})
      .Rule({Payload(kNetwork, 9, 1), Cmp(kEq, {17}), nft::CounterExpr{}, limit, Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  const auto before = w.ruleset;
  // Another rule in front, and the kernel's counts have moved: the rules are the same.
  auto& rules = m.table().chains[0].rules;
  std::get<nft::CounterExpr>(rules[0].exprs[0]).packets = 77;
  rules.insert(rules.begin(), nft::Rule{99, {nft::CounterExpr{}}, ""});
  w.Use(m);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 0u);
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 2u);
  EXPECT_EQ(w.ruleset->RuleCount(2).packets, 2u);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);  // the bucket is still empty
  EXPECT_EQ(before->RuleCount(0).packets, 3u);          // one cell for both
  // A changed rule begins anew.
  std::get<nft::CmpExpr>(rules[2].exprs[1]).op = kGte;
  w.Use(m);
  EXPECT_EQ(w.ruleset->RuleCount(2).packets, 0u);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
}

// Handles of rules and objects begin again with every table.
TEST(CompilerTest, AnotherTableOfTheSameNameBeginsAnew) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("seen", 0x30, 4).size = 1000;
  m.table().handle = 7;
  m.table().objects.push_back({1, "total", 3, nft::CounterExpr{}});
  m.Base("forward", 2).Rule({nft::CounterExpr{}});
  w.Use(m);
  w.Run(From("10.0.0.1"));
  const auto object = w.ruleset->objects()[0].state;
  w.Use(m);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 1u);
  EXPECT_EQ(w.ruleset->objects()[0].state, object);
  m.table().handle = 8;
  w.Use(m);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 0u);
  EXPECT_NE(w.ruleset->objects()[0].state, object);
}

TEST(CompilerTest, StateOfRulesThatAreGoneIsFreed) {
  FilterWorld w;
  RulesetModel with;
  with.Base("forward", 2);
  for (int i = 0; i < 1000; ++i) with.Rule({nft::CounterExpr{}});
  w.Use(with);
  const size_t bytes = w.ruleset->memory_bytes();
  for (int i = 0; i < 5; ++i) {
    w.Use(RulesetModel());
    w.Use(with);
    EXPECT_EQ(w.ruleset->RuleCount(500).packets, 0u);
    w.Run(From("10.0.0.1"));
    EXPECT_EQ(w.ruleset->RuleCount(500).packets, 1u);
    EXPECT_EQ(w.ruleset->memory_bytes(), bytes);
  }
}

TEST(CompilerTest, RulesetsOutliveTheCompiler) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("s", 0x20, 4);
  m.Base("forward", 2).Rule({nft::CounterExpr{}, kSource, Lookup("s"), Drop()});
  w.Use(m);
  w.compiler.reset();
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 1u);
}

TEST(CompilerTest, ChainsKeepTheirPlaceForVerdictMaps) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& map = m.AddSet("map", 8, 4);
  map.data_type = 0xffffff00;
  nft::SetElement e = Key(Addr("10.0.0.1"));
  e.verdict = {-3, "target"};
  map.elements.insert(e);
  m.Base("forward", 2).Rule({kSource, VerdictMap("map")});
  m.Chain("target").Rule({Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  // The map keeps its version, and with it what was compiled; the chains around are others.
  for (int i = 0; i < 5; ++i) {
    m.table().chains.insert(m.table().chains.begin(), nft::Chain{"a" + std::to_string(i)});
  }
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  m.table().chains.erase(m.table().chains.begin(), m.table().chains.begin() + 3);
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
}

nft::SetDelta Delta(const std::string& set) {
  nft::SetDelta delta;
  delta.family = nft::TableFamily::kIp;
  delta.table = "t";
  delta.set = set;
  return delta;
}

// Random changes of the elements, applied as deltas, against a ruleset compiled anew.
void CheckDeltas(uint32_t flags, bool intervals) {
  Rng rng(flags);
  FilterWorld w;
  FilterWorld anew;
  RulesetModel m;
  nft::Set& set = m.AddSet("s", flags, 4);
  m.Base("forward", 2).Rule({kSource, Lookup("s"), Drop()});
  w.Use(m);
  std::vector<bool> members(256);
  for (int round = 0; round < 300; ++round) {
    const nft::SetElements old = set.elements;
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
      const uint64_t first = rng.Below(250);
      const uint64_t count = intervals ? 1 + rng.Below(6) : 1;
      const bool present = rng.Chance(1, 2);
      for (uint64_t i = first; i < std::min<uint64_t>(first + count, 256); ++i) members[i] = present;
    }
    set.elements.clear();
    for (size_t i = 0; i < 256; ++i) {
      const nft::Bytes key = {10, 0, 0, static_cast<uint8_t>(i)};
      const bool before = i > 0 && members[i - 1];
      if (!intervals && members[i]) set.elements.insert(Key(key));
      if (intervals && members[i] && !before) set.elements.insert(Key(key));
      if (intervals && !members[i] && before) set.elements.insert(End(key));
    }
    if (intervals && members[255]) set.elements.insert(End({10, 0, 1, 0}));
    nft::SetDelta delta = Delta("s");
    for (const nft::SetElement& e : old) {
      if (!set.elements.contains(e)) delta.removed.push_back(e);
    }
    for (const nft::SetElement& e : set.elements) {
      if (!old.contains(e)) delta.added.push_back(e);
    }
    set.version = m.NextVersion();
    ++m.model.generation;
    auto next = w.compiler->ApplyElements(m.model, {&delta, 1}, w.now);
    ASSERT_NE(next, nullptr);
    EXPECT_EQ(next->generation(), m.model.generation);
    w.Adopt(next);
    if (round % 20 == 0) anew.Use(m);
    for (size_t i = 0; i < 256; ++i) {
      const nft::Bytes key = {10, 0, 0, static_cast<uint8_t>(i)};
      ASSERT_EQ(w.ruleset->set(0).Find(key.data(), w.now) != nullptr, members[i])
          << "round " << round << " element " << i;
      if (round % 20 != 0) continue;
      ASSERT_EQ(anew.ruleset->set(0).Find(key.data(), w.now) != nullptr, members[i]);
    }
    if (round % 20 != 0) continue;
    ASSERT_EQ(w.ruleset->set(0).size(), anew.ruleset->set(0).size());
  }
}

TEST(CompilerTest, DeltasOfExactSets) { CheckDeltas(0, false); }
TEST(CompilerTest, DeltasOfIntervalSets) { CheckDeltas(4, true); }

TEST(CompilerTest, OldRulesetsKeepTheirElements) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& set = m.AddSet("s", 0, 4);
  set.elements = {Key(Addr("10.0.0.1"))};
  m.Base("forward", 2).Rule({kSource, Lookup("s"), Drop()});
  w.Use(m);
  const auto old = w.ruleset;
  nft::SetDelta delta = Delta("s");
  delta.removed = {Key(Addr("10.0.0.1"))};
  delta.added = {Key(Addr("10.0.0.2"))};
  set.elements = {Key(Addr("10.0.0.2"))};
  w.Adopt(w.compiler->ApplyElements(m.model, {&delta, 1}, w.now));
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kDrop);
  w.Adopt(old);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kAccept);
}

TEST(CompilerTest, ElementsOfUnknownSetsNeedACompilation) {
  FilterWorld w;
  RulesetModel m;
  const nft::SetDelta delta = Delta("s");
  EXPECT_EQ(w.compiler->ApplyElements(m.model, {&delta, 1}, w.now), nullptr);
  w.Use(m);
  EXPECT_EQ(w.compiler->ApplyElements(m.model, {&delta, 1}, w.now), nullptr);
}

TEST(CompilerTest, ChangedElementsKeepTheirStateWhenTheyStay) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& set = m.AddSet("s", 0x100, 4);
  nft::LimitExpr limit;
  limit.rate = 1;
  limit.burst = 1;
  for (const char* a : {"10.0.0.1", "10.0.0.2"}) {
    nft::SetElement e = Key(Addr(a));
    e.exprs = {limit};
    set.elements.insert(e);
  }
  m.Base("forward", 2).Rule({kSource, Lookup("s"), Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  nft::SetElement third = Key(Addr("10.0.0.3"));
  third.exprs = {limit};
  set.elements.insert(third);
  set.version = m.NextVersion();
  w.Use(m);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  EXPECT_EQ(w.Judge(From("10.0.0.2")), Kind::kDrop);
  EXPECT_EQ(w.Judge(From("10.0.0.3")), Kind::kDrop);
}

nft::Expr Remember(const std::string& set) {
  auto e = std::make_shared<nft::DynsetExpr>();
  e->set = set;
  e->op = 1;
  e->sreg_key = 0;
  e->timeout_ms = 10'000;
  return std::shared_ptr<const nft::DynsetExpr>(e);
}

TEST(CompilerTest, DynamicElementsSurviveAndReachOtherWorkers) {
  FilterWorld w;
  w.Restart({.workers = 2});
  stages::Filter second({.worker = 1});
  RulesetModel m;
  m.AddSet("seen", 0x30, 4).size = 1000;
  m.Base("forward", 2).Rule({kSource, Lookup("seen"), Drop()}).Rule({kSource, Remember("seen")});
  w.Use(m);
  second.UseRuleset(w.ruleset.get(), w.now);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
  m.Rule({nft::CounterExpr{}});
  w.Use(m);  // another ruleset, the same elements
  second.UseRuleset(w.ruleset.get(), w.now);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  w.dry_run = true;
  stages::FilterContext context = w.Context();
  EXPECT_EQ(second.Run(HookPoint::kForward, Family::kIpv4, context).kind, Kind::kAccept);
  std::vector<tables::SetEvent> events;
  w.filter.DrainSetEvents([&](const tables::SetEvent& e) { events.push_back(e); });
  w.Adopt(w.compiler->ApplyEvents(events, w.now));
  second.UseRuleset(w.ruleset.get(), w.now);
  EXPECT_EQ(second.Run(HookPoint::kForward, Family::kIpv4, context).kind, Kind::kDrop);
  context.now += Seconds(10);
  EXPECT_EQ(second.Run(HookPoint::kForward, Family::kIpv4, context).kind, Kind::kAccept);
  EXPECT_EQ(w.compiler->ApplyEvents({}, w.now), nullptr);
}

TEST(CompilerTest, ElementsThatTheKernelRemovesAreGoneFromWorkersToo) {
  FilterWorld w;
  RulesetModel m;
  m.AddSet("seen", 0x30, 4).size = 1000;
  m.Base("forward", 2).Rule({kSource, Lookup("seen"), Drop()}).Rule({kSource, Remember("seen")});
  w.Use(m);
  w.Run(From("10.0.0.1"));
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kDrop);
  nft::SetDelta delta = Delta("seen");
  delta.removed = {Key(Addr("10.0.0.1"))};
  w.Adopt(w.compiler->ApplyElements(m.model, {&delta, 1}, w.now));
  w.filter.Tick(w.now);
  EXPECT_EQ(w.Judge(From("10.0.0.1")), Kind::kAccept);
}

TEST(CompilerTest, LimitsAreSharedByWorkersAndCountersAreNot) {
  FilterWorld w;
  w.Restart({.workers = 2});
  stages::Filter second({.worker = 1});
  RulesetModel m;
  nft::LimitExpr limit;
  limit.rate = 1;
  limit.burst = 3;
  nft::QuotaExpr quota;
  quota.bytes = 48 * 2;
  quota.inverted = true;
  m.Base("forward", 2).Rule({nft::CounterExpr{}, limit, Drop()}).Rule({quota, Drop()});
  w.Use(m);
  second.UseRuleset(w.ruleset.get(), w.now);
  std::string verdicts;
  for (int i = 0; i < 7; ++i) {
    w.Load(From("10.0.0.1"));
    stages::FilterContext context = w.Context();
    stages::Filter& filter = i % 2 == 0 ? w.filter : second;
    const FilterVerdict v = filter.Run(HookPoint::kForward, Family::kIpv4, context);
    verdicts += v.kind == Kind::kAccept ? "-" : std::to_string(v.rule);
  }
  EXPECT_EQ(verdicts, "000--11");
  EXPECT_EQ(w.ruleset->RuleCount(0, 0).packets, 4u);
  EXPECT_EQ(w.ruleset->RuleCount(0, 1).packets, 3u);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 7u);
}

}  // namespace
}  // namespace sluice::test
