// Who judges a packet, and what ICMP errors belong to: the pipeline with rulesets.
#include <gtest/gtest.h>

#include "base/byte_order.h"
#include "support/filter_world.h"
#include "unit/dataplane/pipeline_fixture.h"
#include "wire/ipv4.h"

namespace sluice::dataplane {
namespace {

using test::Exprs;
using test::RulesetModel;
using test::TcpDport;
namespace nft = control::nft;

constexpr uint32_t kPrerouting = 0;
constexpr uint32_t kForward = 2;
constexpr uint32_t kPostrouting = 4;

Exprs Counted(Exprs exprs, nft::Expr then) {
  exprs.push_back(nft::CounterExpr{});
  exprs.push_back(std::move(then));
  return exprs;
}

class FirewallTest : public PipelineFixture {
 protected:
  void Use(const RulesetModel& model) {
    ruleset = compiler.Compile(model.model, now);
    world.snapshot.ruleset = ruleset.get();
    Publish();
  }
  void TearDown() override {
    PipelineFixture::TearDown();
    world.snapshot.ruleset = nullptr;
    Publish();
    pipeline->SeeSnapshot(world.snapshot, now);
  }
  uint64_t Count(uint32_t rule) const { return ruleset->RuleCount(rule).packets; }
  static RulesetModel DnatTo(const char* address) {
    RulesetModel m;
    nft::NatExpr dnat;
    dnat.destination = true;
    dnat.family = 2;
    dnat.addr_min = 0;
    m.Base("pre", kPrerouting, -100, 1, "nat")
        .Rule(Counted(test::operator+(TcpDport(80), {test::Set(test::Addr(address))}), dnat));
    return m;
  }
  static Bytes Tcp(const char* to, uint8_t flags, uint8_t ttl = 64) {
    return FromHost().Ipv4("10.0.0.2", to).Ttl(ttl).Tcp(4000, 80, flags).Build();
  }

  control::RulesetCompiler compiler{control::CompilerOptions{}};
  std::shared_ptr<const tables::Ruleset> ruleset;
};

constexpr uint8_t kSyn = 0x02, kRst = 0x04, kAck = 0x10;

TEST_F(FirewallTest, WhatDnatLeadsHereIsTheKernelsAndCountedThere) {
  RulesetModel m;
  m.Base("pre", kPrerouting, -100, 1, "nat").Rule(Counted(TcpDport(80), nft::RedirExpr{}));
  m.Base("early", kPrerouting, -140).Rule({test::Ct(0), nft::CounterExpr{}});
  Use(m);
  for (const uint8_t flags : {kSyn, kAck}) Process(Tcp("203.0.113.9", flags));
  ASSERT_EQ(punts.size(), 2u);
  EXPECT_EQ(punts[0].bytes, Tcp("203.0.113.9", kSyn));
  EXPECT_EQ(punts[0].reason, PuntReason::kLocal);
  EXPECT_EQ(punts[1].reason, PuntReason::kUnsupportedRule) << "the whole connection";
  EXPECT_EQ(Count(0), 0u);
  EXPECT_EQ(Count(1), 0u);
  EXPECT_EQ(pipeline->firewall().flows().size(), 1u);
}

TEST_F(FirewallTest, WhatDnatLeadsAwayIsJudgedHere) {
  Use(DnatTo("203.0.113.7"));
  Process(Tcp("10.0.0.1", kSyn));  // this machine's own address
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(wire::Ipv4View(sent[0].bytes.data() + 14).destination(), *ParseIpv4("203.0.113.7"));
  EXPECT_EQ(Count(0), 1u);
  // Invalid, so not translated: it stays the kernel's.
  Process(FromHost().Ipv4("10.0.0.2", "10.0.0.1").Tcp(4001, 80, kRst).Build());
  EXPECT_EQ(punts.size(), 1u);
  EXPECT_EQ(Count(0), 1u);
}

TEST_F(FirewallTest, ErrorsOfOurOwnBelongToAnUnconfirmedConnection) {
  RulesetModel m = DnatTo("203.0.113.7");
  m.Base("post", kPostrouting).Rule({test::Ct(tables::kCtState), nft::CounterExpr{}});
  Use(m);
  Process(Tcp("203.0.113.9", kSyn, 1));
  ASSERT_EQ(OnlyIcmp(), 11 << 8);
  const uint8_t* const outer = sent[0].bytes.data() + 14;
  EXPECT_EQ(wire::Ipv4View(outer).source(), *ParseIpv4("203.0.113.9")) << "translated back";
  EXPECT_EQ(wire::Ipv4View(outer + 28).destination(), *ParseIpv4("203.0.113.9"));
  EXPECT_EQ(Count(1), 1u);
  EXPECT_EQ(pipeline->firewall().flows().size(), 0u);
}

TEST_F(FirewallTest, ErrorsAreNoPacketsOfTheProtocolThatTheyQuote) {
  RulesetModel m;
  m.Base("forward", kForward).Rule({test::Ct(tables::kCtState), test::And(test::Host32(4)),
                                    test::Cmp(test::kNeq, test::Host32(0)), nft::CounterExpr{}});
  Use(m);
  const Bytes request = FromHost().Ipv4("10.0.0.2", "203.0.113.9").Udp(1000, 53).Payload(8).Build();
  Process(request);
  const Bytes quoted(request.begin() + 14, request.end());
  Process(FromPeer().Ipv4("203.0.113.9", "10.0.0.2").Icmp(3, 3, 0).Payload(quoted).Build(), kWan);
  EXPECT_EQ(sent.size(), 2u);
  EXPECT_EQ(Count(0), 1u) << "related";
  pipeline->firewall().flows().Visit(0, 65536, [](tables::FlowIndex, const tables::Flow& flow) {
    EXPECT_EQ(flow.counts[1].packets, 0u);
    EXPECT_FALSE(flow.Has(tables::kFlowSeenReply));
  });
}

TEST_F(FirewallTest, APathIsThatOfAllHooks) {
  RulesetModel m;
  m.Base("forward", kForward).Rule({test::Ct(tables::kCtState), nft::CounterExpr{}});
  m.Base("post", kPostrouting).Rule({nft::CounterExpr{}});
  m.Base("nat", kPostrouting, 100, 1, "nat").Rule(Counted(TcpDport(81), nft::MasqExpr{}));
  Use(m);
  const Bytes request = FromHost().Ipv4("10.0.0.2", "203.0.113.9").Udp(1000, 53).Payload(8).Build();
  stages::FlowPath path;
  pipeline->firewall().Record(&path);
  Process(request);
  EXPECT_EQ(path.variance, stages::Variance::kConnectionState) << "the first packet";
  Process(FromPeer().Ipv4("203.0.113.9", "10.0.0.2").Udp(53, 1000).Payload(8).Build(), kWan);
  path = {};
  Process(request);
  EXPECT_FALSE(path.varies());
  ASSERT_EQ(path.cell_count, 2);
  EXPECT_EQ(path.cells[0], ruleset->rule(0).counter);
  EXPECT_EQ(path.cells[1], ruleset->rule(1).counter);
  // The error is no packet of the flow.
  path = {};
  Process(FromHost().Ipv4("10.0.0.2", "203.0.113.9").Ttl(1).Udp(1000, 53).Payload(8).Build());
  EXPECT_EQ(Count(1), 4u);
  EXPECT_EQ(path.cell_count, 0);
  pipeline->firewall().Record(nullptr);
}

}  // namespace
}  // namespace sluice::dataplane
