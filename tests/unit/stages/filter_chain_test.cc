// Chains, hooks and verdicts: nf_tables_core.c, and the order of base chains.
#include <gtest/gtest.h>

#include "support/filter_world.h"

namespace sluice::test {
namespace {

const Bytes kPacket = FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 80);

class Recorder : public stages::TraceSink {
 public:
  void EnterChain(uint32_t chain) override { text += " >" + std::to_string(chain); }
  void LeaveChain(uint32_t chain) override { text += " <" + std::to_string(chain); }
  void RuleMatched(uint32_t rule) override { text += " r" + std::to_string(rule); }
  void PolicyApplied(uint32_t, bool accept) override { text += accept ? " accept" : " drop"; }
  std::string text;
};

TEST(FilterChainTest, WithoutRulesEverythingIsAccepted) {
  FilterWorld w;
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  w.Use(RulesetModel());
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  EXPECT_FALSE(w.ruleset->Has(HookPoint::kForward, Family::kIpv4));
}

TEST(FilterChainTest, PolicyDecidesAtTheEnd) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2, 0, 0).Rule(TcpDport(80) + Exprs{Accept()});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  const FilterVerdict v = w.Run(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 81));
  EXPECT_EQ(v.kind, Kind::kDrop);
  EXPECT_EQ(v.rule, stages::kNoRule);
  EXPECT_EQ(w.ruleset->chain(v.chain).name, "forward");
  EXPECT_FALSE(w.ruleset->Has(HookPoint::kForward, Family::kIpv6));
  EXPECT_EQ(w.Judge(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 81)), Kind::kAccept);
}

TEST(FilterChainTest, JumpGotoAndReturn) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2)
      .Rule({Jump("a")})   // 0
      .Rule({Drop()});     // 1
  m.Chain("a")
      .Rule({Jump("b")})   // 2
      .Rule({Goto("c")})   // 3
      .Rule({Accept()});   // 4: never
  m.Chain("b").Rule({Return()}).Rule({Accept()});
  m.Chain("c").Rule({Verdict(-1)});
  w.Use(m);
  Recorder recorder;
  w.trace = &recorder;
  const FilterVerdict v = w.Run(kPacket);
  EXPECT_EQ(v.kind, Kind::kDrop);
  EXPECT_EQ(v.rule, 1u);
  EXPECT_EQ(recorder.text, " >0 r0 >1 r2 >2 r5 <2 r3 >3 r7 <3 r1");
}

TEST(FilterChainTest, AJumpFromTheLastRuleComesBackToThePolicy) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2, 0, 0).Rule({Goto("a")});
  m.Chain("a").Rule({Return()});
  w.Use(m);
  EXPECT_EQ(w.Run(kPacket).chain, 0u);
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);
}

TEST(FilterChainTest, JumpsAreSixteenDeepAtMost) {
  FilterWorld w;
  const auto depth = [](int n) {
    RulesetModel m;
    m.Base("forward", 2).Rule({Jump("c1")});
    for (int i = 1; i <= n; ++i) {
      m.Chain("c" + std::to_string(i));
      if (i < n) m.Rule({Jump("c" + std::to_string(i + 1))});
    }
    return m;
  };
  w.Use(depth(16));
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  w.Use(depth(17));  // the kernel refuses to load it; met all the same, it drops
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);
}

TEST(FilterChainTest, AcceptEndsItsBaseChainAndDropEndsAll) {
  FilterWorld w;
  RulesetModel m;
  m.Base("late", 2, 10).Rule(TcpDport(80) + Exprs{Drop()});
  m.Base("early", 2, -10).Rule({Accept()}).Rule({Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);
  EXPECT_EQ(w.Judge(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 81)), Kind::kAccept);
  m = RulesetModel();
  m.Base("late", 2, 10).Rule({nft::CounterExpr{}});
  m.Base("early", 2, -10).Rule({Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 0u);
}

// As tried on 6.18: of equal priorities the chain that was registered last comes first.
TEST(FilterChainTest, OfEqualPrioritiesTheLastRegisteredIsFirst) {
  FilterWorld w;
  RulesetModel m;
  m.Base("first", 2, 0).Rule({nft::CounterExpr{}, Drop()});
  m.AddTable(nft::TableFamily::kInet, "u");
  m.Base("second", 2, 0).Rule({nft::CounterExpr{}, Drop()});
  m.Base("third", 2, 0).Rule({nft::CounterExpr{}});
  w.Use(m);
  const FilterVerdict v = w.Run(kPacket);
  EXPECT_EQ(w.ruleset->chain(v.chain).name, "second");
  EXPECT_EQ(w.ruleset->RuleCount(2).packets, 1u);
}

TEST(FilterChainTest, HooksAreCutWhereConntrackAndNatStand) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kInet);
  const struct {
    uint32_t hook;
    int32_t priority;
    const char* type;
    HookPoint point;
  } kCases[] = {{0, -300, "filter", HookPoint::kPreroutingRaw},
                {0, -201, "filter", HookPoint::kPreroutingRaw},
                {0, -200, "filter", HookPoint::kPreroutingEarly},
                {0, -100, "filter", HookPoint::kPreroutingEarly},
                {0, -99, "filter", HookPoint::kPreroutingLate},
                {0, -100, "nat", HookPoint::kPreroutingNat},
                {1, 0, "filter", HookPoint::kInput},
                {1, 100, "nat", HookPoint::kInputNat},
                {2, 0, "filter", HookPoint::kForward},
                {3, -300, "filter", HookPoint::kOutputRaw},
                {3, 0, "route", HookPoint::kOutput},
                {3, -100, "nat", HookPoint::kOutputNat},
                {4, 100, "filter", HookPoint::kPostroutingEarly},
                {4, 101, "filter", HookPoint::kPostroutingLate},
                {4, 100, "nat", HookPoint::kPostroutingNat}};
  for (const auto& c : kCases) {
    m = RulesetModel(nft::TableFamily::kInet);
    m.Base("c", c.hook, c.priority, 1, c.type).Rule({Drop()});
    w.Use(m);
    for (size_t h = 0; h < tables::kHookPointCount; ++h) {
      const auto hook = static_cast<HookPoint>(h);
      EXPECT_EQ(w.ruleset->Has(hook, Family::kIpv4), hook == c.point) << h;
      EXPECT_EQ(w.ruleset->Has(hook, Family::kIpv6), hook == c.point) << h;
      EXPECT_EQ(w.Judge(kPacket, hook), hook == c.point ? Kind::kDrop : Kind::kAccept) << h;
    }
    EXPECT_EQ(w.ruleset->has_nat(Family::kIpv6), IsNat(c.point));
  }
}

TEST(FilterChainTest, FamiliesMeetInOneOrder) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kIp);
  m.Base("a", 2, 5).Rule(L4Proto(6) + Exprs{Drop()});
  m.AddTable(nft::TableFamily::kInet, "i");
  m.Base("b", 2, 0).Rule({Set(Host32(7)), MetaSet(tables::kMetaMark)});
  m.AddTable(nft::TableFamily::kIp6, "s");
  m.Base("c", 2, -5).Rule({Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);
  EXPECT_EQ(w.p.mark, 7u);
  EXPECT_EQ(w.Judge(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2)), Kind::kDrop);
  EXPECT_EQ(w.p.mark, 0u);
}

TEST(FilterChainTest, DormantTablesAreOff) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2, 0, 0).Rule({Ct(tables::kCtState), Cmp(kEq, Host32(1)), Drop()});
  m.table().dormant = true;
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  EXPECT_FALSE(w.ruleset->Has(HookPoint::kForward, Family::kIpv4));
  // Its rules hold the kernel's conntrack all the same.
  EXPECT_TRUE(w.ruleset->needs_conntrack(Family::kIpv4));
  EXPECT_FALSE(w.ruleset->needs_conntrack(Family::kIpv6));
}

TEST(FilterChainTest, WhatIsNotServedIsNamed) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kBridge);
  m.Base("forward", 2, 0, 0);
  m.AddTable(nft::TableFamily::kNetdev, "n");
  m.Base("egress", 1, 0, 0);
  m.table().chains.back().base->devices = {"lan0"};
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kAccept);
  ASSERT_EQ(w.ruleset->ignored_chains().size(), 2u);
  EXPECT_EQ(w.ruleset->ignored_chains()[0], "bridge t forward (hook 2)");
}

TEST(FilterChainTest, IngressIsPerDevice) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kNetdev);
  m.Base("in", 0).Rule({Meta(tables::kMetaNfProto), Cmp(kEq, {5}), Meta(tables::kMetaProtocol),
                        Cmp(kEq, {8, 6}), Drop()});
  m.Rule({Meta(tables::kMetaProtocol), Cmp(kEq, {8, 0}), Drop()});
  m.table().chains.back().base->devices = {"lan0", "dmz0"};
  m.AddTable(nft::TableFamily::kInet, "i");
  m.Base("in", 5, -1).Rule({Meta(tables::kMetaNfProto), Cmp(kEq, {10}), Drop()});
  m.table().chains.back().base->devices = {"lan0"};
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket, HookPoint::kIngress), Kind::kDrop);
  EXPECT_EQ(w.Judge(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2), HookPoint::kIngress),
            Kind::kDrop);
  w.snapshot.interfaces[0].name = "other";
  EXPECT_EQ(w.Judge(kPacket, HookPoint::kIngress), Kind::kAccept);
  w.snapshot.interfaces[0].name = "lan0";
  w.Load(PacketBuilder()
             .Ethernet("02:00:00:00:00:99", "ff:ff:ff:ff:ff:ff")
             .ArpRequest("02:00:00:00:00:99", "10.0.0.1", "10.0.0.2")
             .Build());
  ASSERT_TRUE(w.ruleset->HasIngressOther());
  EXPECT_EQ(w.RunOther().kind, Kind::kDrop);
}

TEST(FilterChainTest, VerdictMaps) {
  FilterWorld w;
  RulesetModel m;
  nft::Set& map = m.AddSet("map", 8, 2);
  map.data_type = 0xffffff00;
  const auto add = [&](uint16_t port, int32_t code, const char* chain = "") {
    nft::SetElement e = Key(Net16(port));
    e.verdict = {code, chain};
    map.elements.insert(e);
  };
  add(80, 1);
  add(81, 0);
  add(82, -3, "more");
  add(83, -1);
  m.Base("forward", 2)
      .Rule(L4Proto(6) + Exprs{Payload(kTransport, 2, 2), VerdictMap("map"), nft::CounterExpr{}})
      .Rule({nft::CounterExpr{}});
  m.Chain("more").Rule({Drop()});
  w.Use(m);
  const auto run = [&](uint16_t port) {
    return w.Run(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, port));
  };
  EXPECT_EQ(run(80).kind, Kind::kAccept);
  EXPECT_EQ(run(80).rule, 0u);
  EXPECT_EQ(run(81).kind, Kind::kDrop);
  EXPECT_EQ(run(82).rule, 2u);
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 0u);
  EXPECT_EQ(run(83).rule, stages::kNoRule);  // continue: the rest of the rule, and the next ones
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 1u);
  EXPECT_EQ(run(99).kind, Kind::kAccept);  // not there: the rule does not match
  EXPECT_EQ(w.ruleset->RuleCount(0).packets, 1u);
  EXPECT_EQ(w.ruleset->RuleCount(1).packets, 2u);
}

TEST(FilterChainTest, WhatCannotBeDoneIsTheKernels) {
  FilterWorld w;
  RulesetModel m;
  m.Base("forward", 2)
      .Rule(TcpDport(81) + Exprs{nft::UnsupportedExpr{"osf"}, Drop()})
      .Rule({Drop()});
  w.Use(m);
  EXPECT_EQ(w.Judge(kPacket), Kind::kDrop);  // does not come so far as to need it
  const FilterVerdict v = w.Run(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 81));
  EXPECT_EQ(v.kind, Kind::kKernel);
  EXPECT_EQ(v.rule, 0u);
  ASSERT_EQ(w.ruleset->unsupported().size(), 1u);
  EXPECT_EQ(w.ruleset->unsupported()[0].name, "osf");
  EXPECT_EQ(w.ruleset->unsupported()[0].rule, 0u);
}

// Nothing in a model may make the compiler or the evaluator read where nothing is.
TEST(FilterChainTest, NonsenseIsTheKernels) {
  FilterWorld w;
  nft::PayloadExpr far;
  far.dreg = 14;
  far.length = 16;
  nft::LookupExpr nowhere;
  nowhere.set = "none";
  nft::NatExpr nat;
  nat.addr_min = 15;
  nat.family = 10;
  for (const nft::Expr& expr :
       {nft::Expr(far), nft::Expr(nowhere), nft::Expr(nat), Jump("none"), Payload(4, 0, 1),
        Cmp(9, {1}), Cmp(kEq, nft::Bytes(20)), Cmp(kEq, {}), Meta(99), Ct(99), Verdict(7),
        Set(nft::Bytes(40)), Payload(kNetwork, 0, 0)}) {
    RulesetModel m;
    m.Base("forward", 2).Rule({expr, Drop()});
    w.Use(m);
    EXPECT_EQ(w.Judge(kPacket), Kind::kKernel);
    EXPECT_EQ(w.ruleset->unsupported().size(), 1u);
  }
}

TEST(FilterChainTest, RulesAreFoundByIdentity) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("forward", 2);
  for (int i = 0; i < 50; ++i) m.Rule({nft::CounterExpr{}});
  m.Chain("other").Rule({nft::CounterExpr{}});
  w.Use(m);
  for (const nft::Chain& chain : m.model.tables[0].chains) {
    for (const nft::Rule& rule : chain.rules) {
      const uint32_t index = w.ruleset->FindRule(1, "t", chain.name, rule.handle);
      ASSERT_NE(index, stages::kNoRule);
      EXPECT_EQ(w.ruleset->rule(index).handle, rule.handle);
      EXPECT_EQ(w.ruleset->chain(w.ruleset->rule(index).chain).name, chain.name);
    }
  }
  EXPECT_EQ(w.ruleset->FindRule(2, "t", "forward", 2), stages::kNoRule);
  EXPECT_EQ(w.ruleset->FindRule(1, "t", "other", 2), stages::kNoRule);
  EXPECT_GT(w.ruleset->memory_bytes(), 1000u);
}

}  // namespace
}  // namespace sluice::test
