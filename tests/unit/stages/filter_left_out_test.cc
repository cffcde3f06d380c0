// Rules that XDP has applied before: who leaves them out, and when not.
#include <gtest/gtest.h>

#include <memory>

#include "support/filter_world.h"

namespace sluice::test {
namespace {

using tables::EarlyLeftOut;

constexpr uint32_t kPrerouting = 0;
constexpr uint8_t kBoth = tables::kEarlyIpv4 | tables::kEarlyIpv6;
const Bytes kPacket = FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 80);
const Bytes kPacket6 = FilterWorld::Tcp6("fd00::1", "fd00::2", 1000, 80);

class Recorder : public stages::TraceSink {
 public:
  void EnterChain(uint32_t) override {}
  void LeaveChain(uint32_t) override {}
  void RuleMatched(uint32_t) override { ++matched; }
  void PolicyApplied(uint32_t, bool) override {}
  int matched = 0;
};

// One chain with one rule, which drops everything.
class FilterLeftOutTest : public testing::Test {
 protected:
  FilterLeftOutTest() {
    RulesetModel m(nft::TableFamily::kInet);
    m.Base("pre", kPrerouting, -300).Rule({Drop()});
    w.Use(m);
  }
  void LeaveOut(uint8_t bits) {
    auto out = std::make_shared<EarlyLeftOut>();
    out->rules = {bits};
    out->policies = {0};
    w.snapshot.left_out = std::move(out);
  }
  Kind Judge(const Bytes& frame) { return w.Judge(frame, HookPoint::kPreroutingRaw); }

  FilterWorld w;
};

TEST_F(FilterLeftOutTest, OfItsFamilies) {
  EXPECT_EQ(Judge(kPacket), Kind::kDrop);
  LeaveOut(kBoth);
  EXPECT_EQ(Judge(kPacket), Kind::kAccept);
  EXPECT_EQ(Judge(kPacket6), Kind::kAccept);
  LeaveOut(tables::kEarlyIpv6);
  EXPECT_EQ(Judge(kPacket), Kind::kDrop);
  EXPECT_EQ(Judge(kPacket6), Kind::kAccept);
  LeaveOut(tables::kEarlyIpv4 | EarlyLeftOut::kWholePackets);
  EXPECT_EQ(Judge(kPacket), Kind::kAccept);
  EXPECT_EQ(Judge(kPacket6), Kind::kDrop);
}

TEST_F(FilterLeftOutTest, NotOfFragmentsAndExtensionHeadersThatXdpDoesNotJudge) {
  const Bytes fragment = FilterWorld::Ethernet()
                             .Ipv4("10.0.0.1", "10.0.0.2")
                             .FragmentOffset(8)
                             .Udp(1, 2)
                             .Payload(20)
                             .Build();
  const Bytes options =
      FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").HopByHop().Udp(1, 2).Payload(20).Build();
  LeaveOut(kBoth);
  EXPECT_EQ(Judge(fragment), Kind::kAccept);
  EXPECT_EQ(Judge(options), Kind::kDrop);
  w.Load(kPacket).fragment_size = 1000;  // reassembled
  EXPECT_EQ(w.Run(HookPoint::kPreroutingRaw).kind, Kind::kAccept);
  w.Load(kPacket6).fragment_size = 1280;
  EXPECT_EQ(w.Run(HookPoint::kPreroutingRaw).kind, Kind::kDrop);

  LeaveOut(kBoth | EarlyLeftOut::kWholePackets);
  EXPECT_EQ(Judge(fragment), Kind::kDrop);
  w.Load(kPacket).fragment_size = 1000;
  EXPECT_EQ(w.Run(HookPoint::kPreroutingRaw).kind, Kind::kDrop);
  EXPECT_EQ(Judge(kPacket), Kind::kAccept);
}

TEST_F(FilterLeftOutTest, ExplainShowsThem) {
  LeaveOut(kBoth);
  Recorder recorder;
  w.trace = &recorder;
  w.dry_run = true;
  EXPECT_EQ(Judge(kPacket), Kind::kDrop);
  EXPECT_EQ(recorder.matched, 1);
  // A packet's own way, watched or tried beforehand, leaves them out.
  w.dry_run = false;
  EXPECT_EQ(Judge(kPacket), Kind::kAccept);
  w.trace = nullptr;
  w.dry_run = true;
  EXPECT_EQ(Judge(kPacket), Kind::kAccept);
}

TEST_F(FilterLeftOutTest, NotOfPacketsThatSluiceMakes) {
  LeaveOut(kBoth);
  w.in_known = false;
  EXPECT_EQ(Judge(kPacket), Kind::kDrop);
}

TEST(FilterLeftOutPolicyTest, APolicyAndRulesBehindAnIndex) {
  FilterWorld w;
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("pre", kPrerouting, -300, 0);
  for (uint16_t port = 1; port <= 64; ++port) m.Rule(TcpDport(port) + Exprs{Drop()});
  w.Use(m);
  ASSERT_NE(w.ruleset->program().chains[0].index, nullptr);
  EXPECT_EQ(w.Judge(kPacket, HookPoint::kPreroutingRaw), Kind::kDrop);
  auto out = std::make_shared<EarlyLeftOut>();
  out->rules.assign(w.ruleset->rule_count(), kBoth);
  out->policies = {tables::kEarlyIpv4};
  w.snapshot.left_out = out;
  EXPECT_EQ(w.Judge(kPacket, HookPoint::kPreroutingRaw), Kind::kAccept);
  EXPECT_EQ(w.Judge(kPacket6, HookPoint::kPreroutingRaw), Kind::kDrop);
  const Bytes dropped = FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 40);
  EXPECT_EQ(w.Judge(dropped, HookPoint::kPreroutingRaw), Kind::kAccept);
  auto without = std::make_shared<EarlyLeftOut>(*out);
  without->rules[39] = 0;
  w.snapshot.left_out = without;
  EXPECT_EQ(w.Judge(dropped, HookPoint::kPreroutingRaw), Kind::kDrop);
}

}  // namespace
}  // namespace sluice::test
