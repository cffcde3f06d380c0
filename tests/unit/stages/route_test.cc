#include "stages/route/route.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using tables::RouteType;
using test::A4;
using test::A6;
using test::Bytes;
using test::FromHost;
using test::FromPeer;
using test::kLan;
using test::kLanIndex;
using test::kTunnelIndex;
using test::kWan;
using test::kWanIndex;
using test::PacketBuilder;
using test::Via;

class RouteTest : public testing::Test {
 protected:
  RouteTest() {
    world.Unicast("203.0.113.0/24", {Via(kWan, kWanIndex, "192.0.2.254")});
    world.Unicast("2001:db8:9::/48", {Via(kWan, kWanIndex, "fe80::254")});
  }
  ~RouteTest() override { world.CheckFrames(); }

  // Parse, check, lookup, decide: what the pipeline does with one packet.
  Verdict Judge(const Bytes& bytes, IfaceSlot slot = kLan) {
    decision = RouteDecision();
    Packet p = world.Receive(bytes, slot);
    const tables::Interface& in = world.snapshot.at(slot);
    const ParseResult parsed = Parse(p, in, world.pool);
    EXPECT_EQ(parsed.verdict, Verdict::Continue());
    const Verdict verdict = parsed.protocol == Protocol::kIpv4 ? Judge4(p, in) : Judge6(p, in);
    out = p.out;
    route_id = tables::RouteId{p.route_id};
    world.Free(p);
    return verdict;
  }
  Verdict Judge4(Packet& p, const tables::Interface& in) {
    const Verdict before = CheckBeforeLookup4(p, in, world.snapshot);
    if (!before.is_continue()) return before;
    const auto id = world.fib4.Lookup(Ipv4::FromWire(p.l3() + 16));
    decision = DecideIpv4(p, id, in, world.snapshot, world.routing(), seed);
    return decision.verdict;
  }
  Verdict Judge6(Packet& p, const tables::Interface& in) {
    const Verdict before = CheckBeforeLookup6(p, in, world.snapshot);
    if (!before.is_continue()) return before;
    const auto id = world.fib6.Lookup(Ipv6::FromWire(p.l3() + 24));
    decision = DecideIpv6(p, id, in, world.snapshot, world.routing(), seed);
    return decision.verdict;
  }
  static Bytes Udp4(const char* source, const char* destination) {
    return FromHost().Ipv4(source, destination).Udp(1, 2).Build();
  }
  static Bytes Udp6(const char* source, const char* destination) {
    return FromHost().Ipv6(source, destination).Udp(1, 2).Build();
  }
  Verdict From(const char* source) { return Judge(Udp4(source, "203.0.113.1")); }
  Verdict To(const char* destination) { return Judge(Udp4("10.0.0.2", destination)); }
  Verdict To6(const char* destination) { return Judge(Udp6("2001:db8::2", destination)); }

  test::RouterWorld world;
  RouteDecision decision;
  IfaceSlot out;
  tables::RouteId route_id;
  uint64_t seed = 7;
};

TEST_F(RouteTest, ForwardsByAGatewayAndToANeighbor) {
  EXPECT_EQ(To("203.0.113.1"), Verdict::Continue());
  EXPECT_EQ(out, kWan);
  EXPECT_EQ(decision.next_hop, IpAddress(A4("192.0.2.254")));
  EXPECT_FALSE(decision.redirect);
  EXPECT_EQ(To("192.0.2.77"), Verdict::Continue());
  EXPECT_EQ(decision.next_hop, IpAddress(A4("192.0.2.77")));

  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Continue());
  EXPECT_EQ(out, kWan);
  EXPECT_EQ(decision.next_hop, IpAddress(A6("fe80::254")));
  EXPECT_EQ(To6("2001:db8:1::7"), Verdict::Continue());
  EXPECT_EQ(decision.next_hop, IpAddress(A6("2001:db8:1::7")));
  EXPECT_FALSE(decision.redirect);
}

TEST_F(RouteTest, ThePacketTellsItsRouteToRules) {
  EXPECT_EQ(To("203.0.113.1"), Verdict::Continue());
  EXPECT_EQ(route_id, world.fib4.Lookup(A4("203.0.113.1")));
  EXPECT_TRUE(route_id.valid());
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Continue());
  EXPECT_EQ(route_id, world.fib6.Lookup(A6("2001:db8:9::1")));
  EXPECT_TRUE(route_id.valid());
}

TEST_F(RouteTest, AnIpv4RouteMayHaveAnIpv6Gateway) {
  world.Unicast("198.51.100.0/24", {Via(kWan, kWanIndex, "fe80::254")});
  EXPECT_EQ(To("198.51.100.1"), Verdict::Continue());
  EXPECT_EQ(decision.next_hop, IpAddress(A6("fe80::254")));
}

TEST_F(RouteTest, AddressesThatNoTableDecidesAbout) {
  world.Unicast("0.0.0.0/0", {Via(kWan, kWanIndex, "192.0.2.254")});  // it must not help
  const struct {
    const char* source;
    const char* destination;
    Verdict verdict;
  } cases[] = {
      {"224.0.0.1", "203.0.113.1", Verdict::Drop(DropReason::kMartianSource)},
      {"255.255.255.255", "203.0.113.1", Verdict::Drop(DropReason::kMartianSource)},
      {"0.0.0.0", "203.0.113.1", Verdict::Drop(DropReason::kMartianSource)},
      {"127.0.0.1", "203.0.113.1", Verdict::Drop(DropReason::kMartianSource)},
      {"10.0.0.2", "127.0.0.1", Verdict::Drop(DropReason::kMartianDestination)},
      {"10.0.0.2", "127.9.9.9", Verdict::Drop(DropReason::kMartianDestination)},
      {"10.0.0.2", "0.0.0.0", Verdict::Drop(DropReason::kMartianDestination)},
      {"0.0.0.0", "0.0.0.0", Verdict::Punt(PuntReason::kBroadcast)},
      {"0.0.0.0", "255.255.255.255", Verdict::Punt(PuntReason::kBroadcast)},
      {"224.0.0.1", "255.255.255.255", Verdict::Drop(DropReason::kMartianSource)},
      {"10.0.0.2", "255.255.255.255", Verdict::Punt(PuntReason::kBroadcast)},
      {"10.0.0.2", "224.0.0.5", Verdict::Punt(PuntReason::kMulticast)},
      {"10.0.0.2", "239.255.255.255", Verdict::Punt(PuntReason::kMulticast)},
      {"10.0.0.2", "0.0.0.1", Verdict::Continue()},    // 0.0.0.0/8 is unicast since Linux 5.3
      {"10.0.0.2", "240.0.0.1", Verdict::Continue()},  // and so is class E
      {"10.0.0.2", "169.254.1.1", Verdict::Continue()},
  };
  for (const auto& c : cases) {
    EXPECT_EQ(Judge(Udp4(c.source, c.destination)), c.verdict)
        << c.source << " to " << c.destination;
  }
}

TEST_F(RouteTest, RouteLocalnetAllowsLoopbackAddresses) {
  world.lan().route_localnet = true;
  EXPECT_EQ(To("127.0.0.1"), Verdict::Local());
  EXPECT_EQ(From("127.5.5.5"), Verdict::Continue());
}

TEST_F(RouteTest, EveryTypeOfRoute4) {
  const struct {
    RouteType type;
    Verdict forwarding;
    Verdict host;  // with forwarding off
  } cases[] = {
      {RouteType::kLocal, Verdict::Local(), Verdict::Local()},
      {RouteType::kBroadcast, Verdict::Punt(PuntReason::kBroadcast),
       Verdict::Punt(PuntReason::kBroadcast)},
      {RouteType::kMulticast, Verdict::Drop(DropReason::kMartianDestination),
       Verdict::Drop(DropReason::kForwardingOff)},
      {RouteType::kAnycast, Verdict::Drop(DropReason::kMartianDestination),
       Verdict::Drop(DropReason::kForwardingOff)},
      {RouteType::kBlackhole, Verdict::Drop(DropReason::kRouteBlackhole),
       Verdict::Drop(DropReason::kForwardingOff)},
      {RouteType::kUnreachable, Verdict::Drop(DropReason::kRouteUnreachable),
       Verdict::Drop(DropReason::kForwardingOff)},
      {RouteType::kProhibit, Verdict::Drop(DropReason::kRouteProhibit),
       Verdict::Drop(DropReason::kForwardingOff)},
      {RouteType::kPunt, Verdict::Punt(PuntReason::kRouteType),
       Verdict::Punt(PuntReason::kRouteType)},
  };
  for (const auto& c : cases) {
    world.Route("198.51.100.0/24", c.type);
    world.lan().forwarding4 = true;
    EXPECT_EQ(To("198.51.100.1"), c.forwarding) << static_cast<int>(c.type);
    world.lan().forwarding4 = false;
    EXPECT_EQ(To("198.51.100.1"), c.host) << static_cast<int>(c.type);
  }
  EXPECT_EQ(To("203.0.113.1"), Verdict::Drop(DropReason::kForwardingOff));
  EXPECT_EQ(To("8.8.8.8"), Verdict::Drop(DropReason::kForwardingOff));
  world.lan().forwarding4 = true;
  EXPECT_EQ(To("8.8.8.8"), Verdict::Drop(DropReason::kNoRoute));
}

TEST_F(RouteTest, EveryTypeOfRoute6) {
  const struct {
    RouteType type;
    Verdict verdict;
  } cases[] = {
      {RouteType::kLocal, Verdict::Local()},
      // Linux answers from another address than the one asked: left to it.
      {RouteType::kAnycast, Verdict::Punt(PuntReason::kLocal)},
      {RouteType::kMulticast, Verdict::Punt(PuntReason::kMulticast)},
      {RouteType::kBlackhole, Verdict::Drop(DropReason::kRouteBlackhole)},
      {RouteType::kUnreachable, Verdict::Drop(DropReason::kRouteUnreachable)},
      {RouteType::kProhibit, Verdict::Drop(DropReason::kRouteProhibit)},
      {RouteType::kPunt, Verdict::Punt(PuntReason::kRouteType)},
  };
  for (const auto& c : cases) {
    world.Route("2001:db8:7::/48", c.type);
    for (const bool forwarding : {true, false}) {
      // As in ip6_pkt_drop, a route that refuses comes before forwarding.
      world.lan().forwarding6 = forwarding;
      EXPECT_EQ(To6("2001:db8:7::1"), c.verdict) << static_cast<int>(c.type);
    }
  }
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Drop(DropReason::kForwardingOff));
  EXPECT_EQ(To6("2001:4860::1"), Verdict::Drop(DropReason::kNoRoute));
}

TEST_F(RouteTest, Ipv6GroupsLinkLocalAndProxies) {
  EXPECT_EQ(To6("ff02::1"), Verdict::Punt(PuntReason::kMulticast));
  EXPECT_EQ(To6("ff0e::1"), Verdict::Punt(PuntReason::kMulticast));
  EXPECT_EQ(To6("fe80::1"), Verdict::Punt(PuntReason::kLocal));
  EXPECT_EQ(To6("fe80::9999"), Verdict::Punt(PuntReason::kLocal));
  world.lan().proxy_ndp = true;
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Punt(PuntReason::kProxy));
  EXPECT_EQ(To6("2001:db8::1"), Verdict::Local());
}

TEST_F(RouteTest, WhatTheKernelMustDecideIsPuntedBeforeAnythingIsJudged) {
  world.snapshot.policy_routing4 = true;
  EXPECT_EQ(From("224.0.0.1"), Verdict::Punt(PuntReason::kPolicyRouting));
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Continue());
  world.snapshot.firewall4 = true;
  EXPECT_EQ(From("10.0.0.2"), Verdict::Punt(PuntReason::kFirewall));
  world.snapshot.policy_routing6 = true;
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Punt(PuntReason::kPolicyRouting));
  world.snapshot.firewall6 = true;
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Punt(PuntReason::kFirewall));
}

TEST_F(RouteTest, OptionsForTheKernel) {
  const Bytes alert =
      FromHost().Ipv4("10.0.0.2", "203.0.113.1").Options({148, 4, 0, 0}).Udp(1, 2).Build();
  EXPECT_EQ(Judge(alert), Verdict::Punt(PuntReason::kIpOptions));
  const Bytes alert6 =
      FromHost().Ipv6("2001:db8::2", "2001:db8:9::1").HopByHop({5, 2, 0, 0}).Udp(1, 2).Build();
  EXPECT_EQ(Judge(alert6), Verdict::Punt(PuntReason::kIpOptions));
  // Martians come first.
  const Bytes martian =
      FromHost().Ipv4("127.0.0.1", "203.0.113.1").Options({148, 4, 0, 0}).Udp(1, 2).Build();
  EXPECT_EQ(Judge(martian), Verdict::Drop(DropReason::kMartianSource));
}

TEST_F(RouteTest, DevicesThatAreNotServedOrDown) {
  world.Unicast("198.51.100.0/24", {Via(IfaceSlot::None(), kTunnelIndex)});
  world.Unicast("2001:db8:7::/48", {Via(IfaceSlot::None(), kTunnelIndex)});
  EXPECT_EQ(To("198.51.100.1"), Verdict::Punt(PuntReason::kUnservedOutput));
  EXPECT_EQ(To6("2001:db8:7::1"), Verdict::Punt(PuntReason::kUnservedOutput));
  world.wan().up = false;
  EXPECT_EQ(To("203.0.113.1"), Verdict::Punt(PuntReason::kUnservedOutput));
  EXPECT_EQ(To6("2001:db8:9::1"), Verdict::Punt(PuntReason::kUnservedOutput));
}

TEST_F(RouteTest, LinkMulticastIsNotForwarded) {
  const auto group = [] { return PacketBuilder().Ethernet(test::kHostMac, Mac::Broadcast()); };
  EXPECT_EQ(Judge(group().Ipv4("10.0.0.2", "203.0.113.1").Udp(1, 2).Build()),
            Verdict::Drop(DropReason::kL2Multicast));
  EXPECT_EQ(Judge(group().Ipv6("2001:db8::2", "2001:db8:9::1").Udp(1, 2).Build()),
            Verdict::Drop(DropReason::kL2Multicast));
  // The source is judged first, and what is ours is ours.
  EXPECT_EQ(Judge(group().Ipv4("10.0.0.1", "203.0.113.1").Udp(1, 2).Build()),
            Verdict::Drop(DropReason::kMartianSource));
  EXPECT_EQ(Judge(group().Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build()), Verdict::Local());
}

// --- fib_validate_source ---

TEST_F(RouteTest, OurOwnAddressesAreNoSources) {
  for (const char* own : {"10.0.0.1", "192.0.2.1", "10.99.0.1"}) {
    for (const uint8_t rp_filter : {0, 1, 2}) {
      world.lan().rp_filter = rp_filter;
      EXPECT_EQ(From(own), Verdict::Drop(DropReason::kMartianSource)) << own << int{rp_filter};
    }
  }
}

TEST_F(RouteTest, AcceptLocal) {
  world.lan().accept_local = true;
  const struct {
    const char* source;
    Verdict by_filter[3];
  } cases[] = {
      // The address of the interface itself is where the packet came from, others' are not.
      {"10.0.0.1", {Verdict::Continue(), Verdict::Continue(), Verdict::Continue()}},
      {"192.0.2.1",
       {Verdict::Continue(), Verdict::Drop(DropReason::kReversePath), Verdict::Continue()}},
  };
  for (const auto& c : cases) {
    for (uint8_t filter = 0; filter < 3; ++filter) {
      world.lan().rp_filter = filter;
      EXPECT_EQ(From(c.source), c.by_filter[filter]) << c.source << " " << int{filter};
    }
  }
}

TEST_F(RouteTest, ReversePathFilter) {
  world.Unicast("172.16.0.0/16", {Via(kLan, kLanIndex, "10.0.0.9")});
  world.Unicast("172.17.0.0/16",
                {Via(kWan, kWanIndex, "192.0.2.254"), Via(kLan, kLanIndex, "10.0.0.9")});
  world.Unicast("172.18.0.0/16", {Via(IfaceSlot::None(), kTunnelIndex)});
  world.Route("172.19.0.0/16", RouteType::kBlackhole);
  world.Route("172.20.0.0/16", RouteType::kUnreachable);
  world.Route("172.21.0.0/16", RouteType::kProhibit);
  world.Route("172.22.0.0/16", RouteType::kPunt);
  const Verdict pass = Verdict::Continue();
  const Verdict filtered = Verdict::Drop(DropReason::kReversePath);
  const Verdict martian = Verdict::Drop(DropReason::kMartianSource);
  const Verdict kernel = Verdict::Punt(PuntReason::kRouteType);
  const struct {
    const char* what;
    const char* source;
    Verdict by_filter[3];  // off, strict, loose
  } cases[] = {
      {"on the link", "10.0.0.2", {pass, pass, pass}},
      {"behind a gateway there", "172.16.0.1", {pass, pass, pass}},
      {"one of its paths", "172.17.0.1", {pass, pass, pass}},
      {"another interface", "203.0.113.7", {pass, filtered, pass}},
      {"a device not served", "172.18.0.1", {pass, filtered, pass}},
      {"no route", "8.8.8.8", {pass, filtered, filtered}},
      {"blackhole", "172.19.0.1", {pass, filtered, filtered}},
      {"unreachable", "172.20.0.1", {pass, filtered, filtered}},
      {"prohibit", "172.21.0.1", {pass, filtered, filtered}},
      {"a subnet's broadcast address", "10.0.0.255", {pass, martian, martian}},
      {"only the kernel knows", "172.22.0.1", {pass, kernel, kernel}},
  };
  for (const auto& c : cases) {
    for (uint8_t filter = 0; filter < 3; ++filter) {
      world.lan().rp_filter = filter;
      EXPECT_EQ(From(c.source), c.by_filter[filter]) << c.what << ", rp_filter " << int{filter};
    }
  }
}

TEST_F(RouteTest, ReversePathOnAnInterfaceWithoutAddresses) {
  world.lan().addresses4.clear();
  world.lan().rp_filter = 2;
  EXPECT_EQ(From("203.0.113.7"), Verdict::Drop(DropReason::kReversePath));
  EXPECT_EQ(From("10.0.0.2"), Verdict::Continue());
  world.lan().rp_filter = 0;
  EXPECT_EQ(From("203.0.113.7"), Verdict::Continue());
}

TEST_F(RouteTest, ValidateSourceForThisMachine) {
  const auto check = [&](const char* source) {
    return ValidateSource4(A4(source), world.lan(), IfaceSlot::None(), world.snapshot,
                           world.routing());
  };
  EXPECT_EQ(check("10.0.0.2"), SourceCheck::kOk);  // the quick way tells no more
  EXPECT_EQ(check("10.0.0.1"), SourceCheck::kMartian);
  world.lan().rp_filter = 1;
  EXPECT_EQ(check("10.0.0.2"), SourceCheck::kOnLink);
  EXPECT_EQ(check("203.0.113.1"), SourceCheck::kReversePath);
}

TEST_F(RouteTest, NoRouteComesBeforeTheSource) {
  world.lan().rp_filter = 1;
  EXPECT_EQ(Judge(Udp4("203.0.113.7", "8.8.8.8")), Verdict::Drop(DropReason::kNoRoute));
}

// --- Redirects ---

TEST_F(RouteTest, RedirectWhenAPacketLeavesAsItCame) {
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.9")});
  world.Unicast("172.16.0.0/16", {Via(kLan, kLanIndex, "10.0.0.8")});
  const auto redirects = [&](const char* source, const char* destination) {
    EXPECT_EQ(Judge(Udp4(source, destination)), Verdict::Continue());
    return decision.redirect;
  };
  EXPECT_TRUE(redirects("10.0.0.2", "198.51.100.1"));
  EXPECT_TRUE(redirects("10.0.0.2", "10.0.0.3"));
  EXPECT_FALSE(redirects("10.0.0.2", "203.0.113.1"));     // another interface
  EXPECT_FALSE(redirects("172.16.0.1", "198.51.100.1"));  // the sender is behind a gateway
  EXPECT_FALSE(redirects("203.0.113.7", "198.51.100.1"));
  for (const uint8_t filter : {0, 1, 2}) {
    world.lan().rp_filter = filter;
    world.lan().send_redirects = true;
    EXPECT_TRUE(redirects("10.0.0.2", "198.51.100.1")) << int{filter};
    world.lan().send_redirects = false;
    EXPECT_FALSE(redirects("10.0.0.2", "198.51.100.1")) << int{filter};
  }
}

// With redirects on, the way back is looked up even without rp_filter, and its type counts.
TEST_F(RouteTest, APacketThatLeavesAsItCameHasItsSourceLookedUp) {
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.9")});
  world.Route("172.19.0.0/16", RouteType::kBlackhole);
  world.Route("172.22.0.0/16", RouteType::kPunt);
  const struct {
    const char* source;
    Verdict looked_up;
  } cases[] = {
      {"10.0.0.255", Verdict::Drop(DropReason::kMartianSource)},
      {"10.0.0.1", Verdict::Drop(DropReason::kMartianSource)},
      {"172.22.0.1", Verdict::Punt(PuntReason::kRouteType)},
      {"172.19.0.1", Verdict::Continue()},
      {"8.8.8.8", Verdict::Continue()},
  };
  for (const auto& c : cases) {
    world.lan().send_redirects = true;
    EXPECT_EQ(Judge(Udp4(c.source, "198.51.100.1")), c.looked_up) << c.source;
    EXPECT_FALSE(decision.redirect);
    world.lan().send_redirects = false;
    const bool own = std::string(c.source) == "10.0.0.1";
    EXPECT_EQ(Judge(Udp4(c.source, "198.51.100.1")), own ? c.looked_up : Verdict::Continue())
        << c.source;
  }
}

TEST_F(RouteTest, WithoutSharedMediaBothMustBeInOneSubnet) {
  world.lan().shared_media = false;
  world.lan().addresses4.push_back(
      {.address = A4("10.0.1.1"), .prefix_length = 24, .secondary = true});
  world.Unicast("10.0.1.0/24", {Via(kLan, kLanIndex)});
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.9")});
  world.Unicast("198.51.101.0/24", {Via(kLan, kLanIndex, "fe80::9")});
  const auto redirects = [&](const char* source, const char* destination) {
    EXPECT_EQ(Judge(Udp4(source, destination)), Verdict::Continue());
    return decision.redirect;
  };
  EXPECT_TRUE(redirects("10.0.0.2", "198.51.100.1"));
  EXPECT_FALSE(redirects("10.0.1.2", "198.51.100.1"));
  // Without an IPv4 gateway only the sender is asked about (inet_addr_onlink).
  EXPECT_TRUE(redirects("10.0.0.2", "10.0.1.2"));
  EXPECT_TRUE(redirects("10.0.1.2", "198.51.101.1"));
}

TEST_F(RouteTest, Redirect6UnlessSourceRouted) {
  world.Unicast("2001:db8:7::/48", {Via(kLan, kLanIndex, "fe80::9")});
  EXPECT_EQ(To6("2001:db8:7::1"), Verdict::Continue());
  EXPECT_TRUE(decision.redirect);
  EXPECT_EQ(Judge(FromHost()
                      .Ipv6("2001:db8::2", "2001:db8:7::1")
                      .Routing(4, 1, Bytes(16))
                      .Udp(1, 2)
                      .Build()),
            Verdict::Continue());
  EXPECT_FALSE(decision.redirect);
}

// --- Several paths ---

class MultipathTest : public RouteTest {
 protected:
  MultipathTest() {
    tables::Path heavy = Via(kWan, kWanIndex, "192.0.2.3");
    heavy.weight = 3;
    world.Unicast("198.51.100.0/24", {Via(kWan, kWanIndex, "192.0.2.2"), heavy});
    world.Unicast("2001:db8:7::/48",
                  {Via(kWan, kWanIndex, "fe80::a"), Via(kWan, kWanIndex, "fe80::b")});
  }
  const IpAddress& HopOf(const Bytes& bytes) {
    EXPECT_EQ(Judge(bytes), Verdict::Continue());
    return decision.next_hop;
  }
  static std::string Host(int i) { return "10.0.0." + std::to_string(i); }
};

TEST_F(MultipathTest, FlowsSpreadByWeightAndStay) {
  std::map<IpAddress, int> count;
  for (int i = 2; i < 250; ++i) {
    const Bytes first = Udp4(Host(i).c_str(), "198.51.100.1");
    const IpAddress hop = HopOf(first);
    ++count[hop];
    EXPECT_EQ(HopOf(first), hop);
    // Policy 0 does not look at ports.
    EXPECT_EQ(HopOf(FromHost().Ipv4(Host(i), "198.51.100.1").Tcp(7, 9).Build()), hop);
  }
  EXPECT_EQ(count.size(), 2u);
  EXPECT_NEAR(count[A4("192.0.2.3")], 186, 30);  // three of four
}

TEST_F(MultipathTest, Policy1LooksAtPortsButNotAtFragments) {
  world.snapshot.multipath_hash_policy4 = world.snapshot.multipath_hash_policy6 = 1;
  std::map<IpAddress, int> count;
  std::map<IpAddress, int> count6;
  std::map<IpAddress, int> of_fragments;
  for (uint16_t port = 1; port < 100; ++port) {
    ++count[HopOf(FromHost().Ipv4("10.0.0.2", "198.51.100.1").Udp(port, 53).Build())];
    ++count6[HopOf(FromHost().Ipv6("2001:db8::2", "2001:db8:7::1").Udp(port, 53).Build())];
    ++of_fragments[HopOf(
        FromHost().Ipv4("10.0.0.2", "198.51.100.1").MoreFragments().Udp(port, 53).Build())];
  }
  EXPECT_EQ(count.size(), 2u);
  EXPECT_EQ(count6.size(), 2u);
  EXPECT_EQ(of_fragments.size(), 1u);
  const Bytes later = FromHost()
                          .Ipv4("10.0.0.2", "198.51.100.1")
                          .FragmentOffset(64)
                          .Protocol(17)
                          .Payload(64)
                          .Build();
  EXPECT_EQ(HopOf(later), of_fragments.begin()->first);
}

TEST_F(MultipathTest, SeedsDiffer) {
  bool moved = false;
  for (int i = 2; i < 100 && !moved; ++i) {
    const Bytes frame = Udp4(Host(i).c_str(), "198.51.100.1");
    seed = 7;
    const IpAddress hop = HopOf(frame);
    seed = 8;
    moved = HopOf(frame) != hop;
  }
  EXPECT_TRUE(moved);
}

// An ICMP error takes the path of the flow that it is about, whatever router it comes from.
TEST_F(MultipathTest, IcmpErrorsFollowTheFlow) {
  for (int i = 2; i < 60; ++i) {
    const Bytes quoted = PacketBuilder().Ipv4(Host(i), "198.51.100.1").Udp(5, 6).Build();
    const IpAddress hop = HopOf(Udp4(Host(i).c_str(), "198.51.100.1"));
    for (const char* router : {"10.0.0.77", "10.0.0.78", "10.0.0.79"}) {
      EXPECT_EQ(HopOf(FromHost().Ipv4(router, "198.51.100.1").Icmp(3, 1).Payload(quoted).Build()),
                hop);
    }
    const std::string host6 = "2001:db8::" + std::to_string(i);
    const Bytes quoted6 = PacketBuilder().Ipv6(host6, "2001:db8:7::1").Udp(5, 6).Build();
    const IpAddress hop6 = HopOf(Udp6(host6.c_str(), "2001:db8:7::1"));
    for (const char* router : {"2001:db8::a1", "2001:db8::a2", "2001:db8::a3"}) {
      EXPECT_EQ(
          HopOf(FromHost().Ipv6(router, "2001:db8:7::1").Icmpv6(1, 0).Payload(quoted6).Build()),
          hop6);
    }
  }
}

TEST_F(MultipathTest, AnErrorCutShortIsHashedAsItself) {
  const Bytes cut = FromHost().Ipv4("10.0.0.2", "198.51.100.1").Icmp(3, 1).Payload(19).Build();
  EXPECT_EQ(HopOf(cut), HopOf(Udp4("10.0.0.2", "198.51.100.1")));
}

// --- MTU ---

TEST(ForwardingMtu, RouteThenInterface) {
  tables::Interface out;
  out.mtu = 1500;
  out.mtu6 = 1400;
  tables::Route route;
  EXPECT_EQ(ForwardingMtu4(route, out), 1500u);
  EXPECT_EQ(ForwardingMtu6(route, out), 1400u);
  route.mtu = 1300;
  EXPECT_EQ(ForwardingMtu4(route, out), 1300u);
  EXPECT_EQ(ForwardingMtu6(route, out), 1400u) << "IPv6 forwarding heeds a locked MTU only";
  route.mtu_locked = true;
  EXPECT_EQ(ForwardingMtu6(route, out), 1300u);
  route.mtu = 9000;
  EXPECT_EQ(ForwardingMtu4(route, out), 9000u);
  route.mtu = 1000;
  EXPECT_EQ(ForwardingMtu6(route, out), 1280u);
  out.mtu = 65535;
  EXPECT_EQ(ForwardingMtu4(tables::Route(), out), 0xfff0u);
}

}  // namespace
}  // namespace sluice::stages
