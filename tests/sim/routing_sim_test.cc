// What routes decide: paths by weight, routes that refuse, changes while traffic flows.
#include <map>

#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

// Host a behind "left"; two next hops, up1 (10.0.1.2) and up2 (10.0.2.2), that take everything.
class ForkSimTest : public SimTest {
 protected:
  ForkSimTest() {
    r = &net.AddRouter("r");
    r->AddInterface("left", "02:00:00:00:00:01", {"10.0.0.1/24", "2001:db8::1/64"})
        .AddInterface("up1", "02:00:00:00:00:02", {"10.0.1.1/24", "2001:db8:0:1::1/64"})
        .AddInterface("up2", "02:00:00:00:00:03", {"10.0.2.1/24", "2001:db8:0:2::1/64"})
        .Publish();
    a = &net.AddHost("a", "02:00:00:00:0a:00", {"10.0.0.2/24", "2001:db8::2/64"},
                     {"10.0.0.1", "2001:db8::1"});
    up1 = &net.AddHost("up1", "02:00:00:00:0b:01", {"10.0.1.2/24", "2001:db8:0:1::2/64"},
                       {"10.0.1.1", "2001:db8:0:1::1"});
    up2 = &net.AddHost("up2", "02:00:00:00:0b:02", {"10.0.2.2/24", "2001:db8:0:2::2/64"},
                       {"10.0.2.1", "2001:db8:0:2::1"});
    net.Connect(*a, 0, *r, r->PortOf("left"));
    net.Connect(*up1, 0, *r, r->PortOf("up1"));
    net.Connect(*up2, 0, *r, r->PortOf("up2"));
    for (const char* host : {"10.0.1.2", "10.0.2.2"}) a->Send(Numbered("10.0.0.2", host, 0));
    for (const char* host : {"2001:db8:0:1::2", "2001:db8:0:2::2"}) {
      a->Send(Numbered("2001:db8::2", host, 0));
    }
    net.Run(Millis(100));
    for (SimHost* host : {a, up1, up2}) host->received.clear();
  }

  SimRouter* r;
  SimHost* a;
  SimHost* up1;
  SimHost* up2;
};

TEST_F(ForkSimTest, FlowsAreSpreadByWeightAndStayOnTheirPath) {
  r->config().multipath_hash_policy4 = r->config().multipath_hash_policy6 = 1;
  r->Publish();
  r->AddMultipath("172.16.0.0/12", {{"10.0.1.2", "", 3}, {"10.0.2.2", "", 1}});
  r->AddMultipath("fd00::/8", {{"2001:db8:0:1::2", "", 3}, {"2001:db8:0:2::2", "", 1}});
  constexpr uint32_t kFlows = 2000;
  for (const bool v6 : {false, true}) {
    up1->received.clear();
    up2->received.clear();
    for (uint32_t i = 0; i < 3 * kFlows; ++i) {
      const uint32_t flow = i % kFlows;
      net.After(Micros(10) * i, [this, v6, flow] {
        a->Send(Numbered(v6 ? "2001:db8::2" : "10.0.0.2", v6 ? "fd00::5" : "172.16.3.4", flow, 80,
                         static_cast<uint16_t>(1024 + flow)));
      });
    }
    net.Run(Seconds(1));
    std::map<uint32_t, int> seen;  // by flow: packets by path 1, and 10 for each by path 2
    for (const uint32_t flow : NumbersOf(up1->received)) seen[flow] += 1;
    for (const uint32_t flow : NumbersOf(up2->received)) seen[flow] += 10;
    ASSERT_EQ(seen.size(), kFlows);
    for (const auto& [flow, count] : seen) {
      ASSERT_TRUE(count == 3 || count == 30) << "flow " << flow << " took both paths: " << count;
    }
    const double share = static_cast<double>(up1->received.size()) / (3 * kFlows);
    EXPECT_NEAR(share, 0.75, 0.04);
  }
}

TEST_F(ForkSimTest, RouteChangeTakesEffectOnTheNextPacketAndLosesNothing) {
  r->AddRoute("172.16.0.0/12", "10.0.1.2");
  constexpr uint32_t kPackets = 1000;
  constexpr uint32_t kChange = 432;
  for (uint32_t i = 0; i < kPackets; ++i) {
    // Before the packet reaches the router, and after the one before has.
    if (i == kChange) {
      net.After(Micros(50) * i, [this] { r->AddRoute("172.16.0.0/12", "10.0.2.2"); });
    }
    net.After(Micros(50) * i, [this, i] { a->Send(Numbered("10.0.0.2", "172.16.3.4", i)); });
  }
  net.Run(Seconds(1));
  std::vector<uint32_t> after;
  for (uint32_t i = kChange; i < kPackets; ++i) after.push_back(i);
  EXPECT_EQ(NumbersOf(up1->received), UpTo(kChange));
  EXPECT_EQ(NumbersOf(up2->received), after);
}

TEST_F(ForkSimTest, RoutesThatRefuseSayWhy) {
  using tables::RouteType;
  struct Refusal {
    RouteType type;
    DropReason reason;
    int code4;  // -1: silent
    int code6;
  };
  const Refusal refusals[] = {
      {RouteType::kBlackhole, DropReason::kRouteBlackhole, -1, -1},
      {RouteType::kUnreachable, DropReason::kRouteUnreachable, wire::kIcmpHostUnreachable,
       wire::kIcmpv6NoRoute},
      {RouteType::kProhibit, DropReason::kRouteProhibit, wire::kIcmpFiltered,
       wire::kIcmpv6Prohibited},
  };
  for (const Refusal& refusal : refusals) {
    r->AddRoute("172.16.0.0/12", refusal.type).AddRoute("fd00::/8", refusal.type);
    for (const bool v6 : {false, true}) {
      net.Run(Seconds(10));  // the limit on errors is not what this is about
      a->received.clear();
      const uint64_t before = r->Dropped(refusal.reason);
      a->Send(Numbered(v6 ? "2001:db8::2" : "10.0.0.2", v6 ? "fd00::5" : "172.16.3.4", 1));
      net.Run(Millis(100));
      EXPECT_EQ(r->Dropped(refusal.reason), before + 1);
      const auto errors = IcmpOf(a->received);
      const int code = v6 ? refusal.code6 : refusal.code4;
      ASSERT_EQ(errors.size(), code < 0 ? 0u : 1u);
      if (code < 0) continue;
      EXPECT_EQ(PacketReader{errors[0]}.icmp_type(),
                v6 ? wire::kIcmpv6Unreachable : wire::kIcmpUnreachable);
      EXPECT_EQ(PacketReader{errors[0]}.icmp_code(), code);
    }
  }
  r->RemoveRoute("172.16.0.0/12").RemoveRoute("fd00::/8");
  net.Run(Seconds(10));
  a->received.clear();
  a->Send(Numbered("10.0.0.2", "172.16.3.4", 1));
  a->Send(Numbered("2001:db8::2", "fd00::5", 1));
  net.Run(Millis(100));
  EXPECT_EQ(r->Dropped(DropReason::kNoRoute), 2u);
  EXPECT_EQ(IcmpOf(a->received).size(), 2u);
}

TEST_F(ForkSimTest, AMoreSpecificRouteWinsAndGivesBack) {
  r->AddRoute("0.0.0.0/0", "10.0.1.2").AddRoute("172.16.3.4/32", "10.0.2.2");
  a->Send(Numbered("10.0.0.2", "172.16.3.4", 1));
  a->Send(Numbered("10.0.0.2", "172.16.3.5", 2));
  net.Run(Millis(10));
  r->RemoveRoute("172.16.3.4/32");
  a->Send(Numbered("10.0.0.2", "172.16.3.4", 3));
  net.Run(Millis(10));
  EXPECT_EQ(NumbersOf(up2->received), std::vector<uint32_t>{1});
  EXPECT_EQ(NumbersOf(up1->received), (std::vector<uint32_t>{2, 3}));
}

// The router is asked itself.
TEST_F(ForkSimTest, EchoRequestsAreAnsweredAndTheRestIsTheKernels) {
  a->Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.1.1").IcmpEcho(5, 6).Payload(100));
  a->Send(PacketBuilder().Ipv6("2001:db8::2", "2001:db8:0:1::1").Icmpv6Echo(5, 6).Payload(100));
  a->Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.1.1").Tcp(5, 22));
  net.Run(Millis(10));
  const auto replies = IcmpOf(a->received);
  ASSERT_EQ(replies.size(), 2u);
  for (const Bytes& reply : replies) {
    const PacketReader read{reply};
    EXPECT_TRUE(read.checksums_right());
    EXPECT_EQ(read.icmp_type(), read.v4() ? 0 : 129);
    EXPECT_EQ(read.icmp_rest(), 0x00050006u);
  }
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 1u);
}

}  // namespace
}  // namespace sluice::test
