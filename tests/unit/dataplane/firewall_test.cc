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
constexpr uint32_t kInput = 1;
constexpr uint32_t kForward = 2;
constexpr uint32_t kOutput = 3;
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

// Such a one is not translated, and the kernel would take it for the first of a connection.
TEST_F(FirewallTest, AnInvalidSegmentToATranslatedAddressEndsHere) {
  RulesetModel m = DnatTo("203.0.113.7");
  const auto invalid = [] {
    return Exprs{test::Ct(tables::kCtState), test::And(test::Host32(1)),
                 test::Cmp(test::kNeq, test::Host32(0)), nft::CounterExpr{}};
  };
  m.Base("raw", kPrerouting, -300).Rule({nft::CounterExpr{}});
  m.Base("late", kPrerouting, 0).Rule(invalid());
  m.Base("in", kInput).Rule(invalid());
  m.Base("out", kOutput).Rule(invalid());
  Use(m);
  Process(Tcp("10.0.0.1", kSyn));
  ASSERT_EQ(sent.size(), 1u);
  sent.clear();
  const Bytes ack = FromHost().Ipv4("10.0.0.2", "10.0.0.1").Tos(0x2b).Tcp(4000, 80, kAck)
                        .Sequence(1, 77).Build();
  Process(ack);
  EXPECT_TRUE(punts.empty());
  ASSERT_EQ(sent.size(), 1u);
  const wire::Ipv4View ip(sent[0].bytes.data() + 14);
  EXPECT_EQ(ip.source(), *ParseIpv4("10.0.0.1"));
  EXPECT_EQ(ip.destination(), *ParseIpv4("10.0.0.2"));
  EXPECT_EQ(ip.tos(), 0x28);
  EXPECT_EQ(LoadBe32(sent[0].bytes.data() + 38), 77u);
  EXPECT_EQ(sent[0].bytes[47], kRst);
  EXPECT_EQ(Count(1), 2u) << "of the raw chain";
  for (const uint32_t rule : {2, 3, 4}) EXPECT_EQ(Count(rule), 1u) << rule;
  sent.clear();
  Process(FromHost().Ipv4("10.0.0.2", "10.0.0.1").Tcp(4000, 80, kAck).BadChecksum().Build());
  EXPECT_TRUE(punts.empty());
  EXPECT_TRUE(sent.empty());
}

TEST_F(FirewallTest, TheResetOfAnInvalidSegmentIsOfItsConnection) {
  RulesetModel m;
  nft::RejectExpr reset;
  reset.type = 1;
  m.Base("forward", kForward)
      .Rule({test::Ct(tables::kCtState), test::And(test::Host32(1)),
             test::Cmp(test::kNeq, test::Host32(0)), reset});
  m.Base("post", kPostrouting)
      .Rule({test::Ct(tables::kCtDirection), test::Cmp(test::kEq, {1}), nft::CounterExpr{}});
  Use(m);
  Process(Tcp("203.0.113.9", kSyn));
  Process(Tcp("203.0.113.9", kAck));  // before the answer: invalid
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[1].bytes[47] & kRst, kRst);
  EXPECT_EQ(Count(1), 1u);
}

// What began at this machine stays here, whatever the rules would say to a later packet.
TEST_F(FirewallTest, AConnectionThatIsNotTranslatedIsNotAskedAgain) {
  RulesetModel m;
  nft::NatExpr dnat;
  dnat.destination = true;
  dnat.family = 2;
  dnat.addr_min = 0;
  m.Base("pre", kPrerouting, -100, 1, "nat")
      .Rule(Counted({test::Meta(tables::kMetaLength), test::Cmp(test::kEq, test::Host32(128)),
                     test::Set(test::Addr("203.0.113.7"))},
                    dnat));
  Use(m);
  const auto packet = [](size_t payload) {
    return FromHost().Ipv4("10.0.0.2", "10.0.0.1").Udp(4000, 80).Payload(payload).Build();
  };
  Process(packet(50));
  Process(packet(100));
  ASSERT_EQ(punts.size(), 2u);
  EXPECT_EQ(punts[0].reason, PuntReason::kLocal);
  EXPECT_EQ(punts[1].reason, PuntReason::kLocal);
  EXPECT_TRUE(sent.empty());
  Process(FromHost().Ipv4("10.0.0.2", "10.0.0.1").Udp(4001, 80).Payload(100).Build());
  EXPECT_EQ(sent.size(), 1u) << "one that begins so";
}

std::vector<Bytes> InPieces(const char* to) {
  const auto piece = [&] { return FromHost().Ipv4("10.0.0.2", to).Id(7).Protocol(17); };
  Bytes first(16, 0);
  StoreBe16(first.data() + 2, 53);
  StoreBe16(first.data() + 4, 40);
  return {piece().MoreFragments().Payload(first).Build(),
          piece().FragmentOffset(16).Payload(24).Build()};
}

TEST_F(FirewallTest, RulesBeforeReassemblySeeFragments) {
  RulesetModel m;
  m.Base("first", kPrerouting, -450).Rule({nft::CounterExpr{}});
  m.Base("raw", kPrerouting, -300).Rule({nft::CounterExpr{}});
  m.Base("pre", kPrerouting).Rule({test::Ct(0), nft::CounterExpr{}});
  Use(m);
  Process(InPieces("203.0.113.9"));
  EXPECT_EQ(sent.size(), 2u);
  EXPECT_EQ(Count(0), 2u);
  EXPECT_EQ(Count(1), 1u);
  EXPECT_EQ(Count(2), 1u);
  Process(InPieces("10.0.0.1"));  // for this machine: the kernel counts them
  EXPECT_EQ(punts.size(), 2u);
  EXPECT_EQ(Count(0), 2u);
}

TEST_F(FirewallTest, AFragmentMayBeDroppedBeforeReassembly) {
  RulesetModel m;
  m.Base("first", kPrerouting, -450)
      .Rule(Counted({test::Payload(test::kNetwork, 6, 2), test::And({0x1f, 0xff}),
                     test::Cmp(test::kNeq, {0, 0})},
                    test::Drop()));
  m.Base("pre", kPrerouting).Rule({test::Ct(0), nft::CounterExpr{}});
  Use(m);
  Process(InPieces("203.0.113.9"));
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(Count(0), 1u);
  EXPECT_EQ(Count(1), 0u) << "never whole";
  now = now + Seconds(60);
  pipeline->OnTimer(world.snapshot, now);
}

// XDP has counted what reaches a worker; what the kernel is given, it counts as well.
TEST_F(FirewallTest, WhatXdpHasCountedIsTakenBackForTheKernel) {
  RulesetModel m;
  m.Base("raw", kPrerouting, -300).Rule({nft::CounterExpr{}});
  m.Base("pre", kPrerouting).Rule({test::Ct(0), nft::CounterExpr{}});
  Use(m);
  auto out = std::make_shared<tables::EarlyLeftOut>();
  out->rules = {tables::kEarlyAll, 0};
  out->policies = {0, 0};
  world.snapshot.left_out = std::move(out);
  Publish();
  Process(Tcp("203.0.113.9", kSyn));
  EXPECT_EQ(Count(0), 0u);
  Process(Tcp("10.0.0.1", kSyn));
  EXPECT_EQ(punts.size(), 1u);
  EXPECT_EQ(Count(0), 0 - uint64_t{1});
  Process(InPieces("10.0.0.1"));
  EXPECT_EQ(punts.size(), 3u);
  EXPECT_EQ(Count(0), 0 - uint64_t{3});
  EXPECT_EQ(Count(1), 1u);
  world.snapshot.left_out = nullptr;
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

// A packet socket has it before netfilter sees it.
TEST_F(FirewallTest, RulesDoNotSeeWhatADhcpServerSendsToThisMachine) {
  RulesetModel m;
  m.Base("raw", kPrerouting, -300).Rule(Counted({}, test::Drop()));
  m.Base("early", kPrerouting, -140).Rule({test::Ct(tables::kCtState), nft::CounterExpr{}});
  Use(m);
  const Bytes offer = DhcpReply(kWanMac, "192.0.2.77").Build();
  Process(offer, kWan);
  ASSERT_EQ(punts.size(), 1u);
  EXPECT_EQ(punts[0].reason, PuntReason::kDhcp);
  EXPECT_EQ(punts[0].bytes, offer);
  EXPECT_EQ(Count(0), 0u);
  EXPECT_EQ(pipeline->firewall().flows().size(), 0u);
  Process(DhcpReply(kHostMac, "10.0.0.2").Build(), kWan);
  EXPECT_EQ(Count(0), 1u) << "in transit";
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
