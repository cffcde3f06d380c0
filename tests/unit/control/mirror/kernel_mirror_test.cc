// The mirror's ways with sockets, dumps and the smaller tables, in namespaces of the test's own.
#include "control/mirror/kernel_mirror.h"

#include <gtest/gtest.h>
#include <linux/if_addr.h>
#include <linux/neighbour.h>

#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "control/rib/fib_sink.h"
#include "unit/control/mirror/mirror_fixture.h"

namespace sluice::control {
namespace {

using test::NetworkNamespace;

// `count` routes to 20.0.0.0/8 upwards, /24 each, by two gateways in turn.
std::string ManyRoutes(int count, const char* verb = "add") {
  std::string lines;
  for (int i = 0; i < count; ++i) {
    absl::StrAppend(&lines, "route ", verb, " ", 20 + (i >> 16), ".", (i >> 8) & 255, ".", i & 255,
                    ".0/24 via 10.0.0.", 2 + i % 2, "\n");
  }
  return lines;
}

TEST_F(MirrorTest, LostEventsLeadToAResync) {
  NetworkNamespace::Ip(SetUpLinks(1));
  MirrorOptions options = QuietOptions();
  options.receive_buffer = 4096;
  options.force_buffer = false;
  Start(options);
  EXPECT_EQ(mirror_->divergence(), 0u);
  const uint64_t resyncs = mirror_->stats().resyncs;

  NetworkNamespace::Ip(ManyRoutes(5000));
  NetworkNamespace::Ip("route del 20.0.0.0/24\nroute replace 20.0.1.0/24 via 10.0.0.9\n");
  bool diverged = false;
  ASSERT_TRUE(Eventually([&] {
    EXPECT_TRUE(mirror_->Run(Clock()).ok());
    diverged = diverged || mirror_->divergence() > 0;
    return mirror_->stats().overflows > 0;
  }));
  EXPECT_TRUE(diverged);
  Settle();
  EXPECT_EQ(mirror_->divergence(), 0u);
  EXPECT_GT(mirror_->stats().resyncs, resyncs);
  std::vector<IpAddress> addresses;
  for (uint32_t i = 0; i < 5000; i += 13) addresses.push_back(Ipv4(0x14000001 + (i << 8)));
  addresses.push_back(Ipv4(20, 0, 0, 1));
  addresses.push_back(Ipv4(20, 0, 1, 1));
  Compare(addresses, "5000 routes");
  ExpectAuditFindsNothing("5000 routes");
}

TEST_F(MirrorTest, AnAuditCorrectsAndCounts) {
  NetworkNamespace::Ip(SetUpLinks(1) + ManyRoutes(100));
  Start();
  ExpectAuditFindsNothing("start");
  // A route that nobody told us of: the mirror is made to forget one.
  RouteUpdate forgotten;
  forgotten.destination = IpAddress(Ipv4(20, 0, 5, 0)).bits;
  forgotten.length = 24;
  forgotten.protocol = 3;  // boot
  RoutePath& path = forgotten.spec.paths.emplace_back();
  path.oif = mirror_->state().FindLink("d0")->ifindex;
  path.has_gateway = true;
  path.gateway = Ipv4(10, 0, 0, 3);
  ASSERT_TRUE(const_cast<Rib4&>(mirror_->rib4()).Remove(forgotten));
  EXPECT_EQ(sink_.Find(Ipv4(20, 0, 5, 1)), nullptr);
  mirror_->RequestAudit(Clock());
  Settle();
  EXPECT_EQ(mirror_->stats().audit_route_corrections, 1u);
  EXPECT_NE(sink_.Find(Ipv4(20, 0, 5, 1)), nullptr);
}

TEST_F(MirrorTest, AuditsComeByThemselves) {
  NetworkNamespace::Ip(SetUpLinks(1));
  MirrorOptions options;
  options.audit_interval = Seconds(60);
  Start(options);
  const Nanos next = mirror_->NextDeadline();
  EXPECT_GT(next, Clock() + Seconds(30));
  EXPECT_LE(next, Clock() + Seconds(60));
  ASSERT_TRUE(mirror_->Run(next).ok());
  EXPECT_EQ(mirror_->stats().audits, 1u);
}

// The FIBs of the data plane, and how long they take to fill. Printed, not judged.
TEST_F(MirrorTest, AHundredThousandRoutes) {
  NetworkNamespace::Ip(SetUpLinks(1) + ManyRoutes(100'000));
  tables::EpochDomain domain;
  tables::RouteTable routes(domain);
  tables::Fib4 fib4(domain);
  tables::Fib6 fib6(domain);
  FibSink sink(routes, fib4, fib6);
  const Nanos start = Clock();
  auto mirror = KernelMirror::Open(
      QuietOptions(), sink, [](IfIndex) { return IfaceSlot::None(); }, start);
  ASSERT_TRUE(mirror.ok());
  ASSERT_TRUE((*mirror)->LoadAll(Clock, start + Seconds(60)).ok());
  const MirrorStats stats = (*mirror)->stats();
  std::printf("100,000 routes: %.0f ms, %.1f bytes per route in the RIB\n",
              (Clock() - start).seconds() * 1e3,
              static_cast<double>(stats.rib4.bytes + stats.attribute_bytes) /
                  static_cast<double>(stats.rib4.prefixes));
  EXPECT_GE(fib4.size(), 100'000u);
  EXPECT_EQ(stats.rib4.installed, fib4.size());
  EXPECT_EQ(routes.Get(fib4.Lookup(Ipv4(20, 0, 7, 1))).paths[0].gateway,
            IpAddress(Ipv4(10, 0, 0, 3)));
}

TEST_F(MirrorTest, LinksAndAddresses) {
  NetworkNamespace::Ip(SetUpLinks(1));
  Start();
  const Link* link = mirror_->state().FindLink("d0");
  ASSERT_NE(link, nullptr);
  EXPECT_TRUE(link->up());
  EXPECT_EQ(link->kind, "veth");
  EXPECT_EQ(link->mtu, 1500u);
  EXPECT_FALSE(link->mac.IsZero());
  const uint32_t ifindex = link->ifindex.value;
  EXPECT_TRUE(Eventually([&] { return mirror_->state().FindLink("d0")->carrier; }));
  (void)mirror_->TakeChanges();

  NetworkNamespace::Ip(
      "link set d0 mtu 1400\naddr add 10.0.0.7/24 dev d0\n"
      "addr add 10.9.0.1/16 dev d0\n");
  Settle();
  const uint32_t changes = mirror_->TakeChanges();
  EXPECT_TRUE(changes & mirror_change::kLinks);
  EXPECT_TRUE(changes & mirror_change::kSnapshot);
  EXPECT_EQ(mirror_->state().FindLink("d0")->mtu, 1400u);
  const auto& addresses = mirror_->state().addresses4.at(ifindex);
  ASSERT_EQ(addresses.size(), 3u);
  EXPECT_EQ(addresses[0].address, IpAddress(Ipv4(10, 0, 0, 1)));
  EXPECT_EQ(addresses[1].address, IpAddress(Ipv4(10, 9, 0, 1))) << "primaries come first";
  EXPECT_EQ(addresses[2].address, IpAddress(Ipv4(10, 0, 0, 7)));
  EXPECT_TRUE(addresses[2].flags & IFA_F_SECONDARY);

  NetworkNamespace::Ip("link set d0 down\nlink set d0 name lan\nlink set lan up\n");
  Settle();
  EXPECT_EQ(mirror_->state().FindLink("d0"), nullptr);
  ASSERT_NE(mirror_->state().FindLink("lan"), nullptr);
  EXPECT_EQ(mirror_->state().FindLink("lan")->ifindex.value, ifindex);

  NetworkNamespace::Ip("link del lan\n");
  Settle();
  EXPECT_EQ(mirror_->state().FindLink("lan"), nullptr);
  EXPECT_FALSE(mirror_->state().addresses4.contains(ifindex));
}

TEST_F(MirrorTest, Rules) {
  Start();
  EXPECT_FALSE(mirror_->state().policy_routing(Family::kIpv4));
  EXPECT_FALSE(mirror_->state().policy_routing(Family::kIpv6));
  NetworkNamespace::Ip("rule add from 10.0.0.0/8 lookup 100\n");
  Settle();
  EXPECT_TRUE(mirror_->state().policy_routing(Family::kIpv4));
  EXPECT_FALSE(mirror_->state().policy_routing(Family::kIpv6));
  EXPECT_TRUE(mirror_->TakeChanges() & mirror_change::kSnapshot);
  NetworkNamespace::Ip("rule del from 10.0.0.0/8 lookup 100\n");
  NetworkNamespace::Ip6("rule add fwmark 1 lookup main\n");
  Settle();
  EXPECT_FALSE(mirror_->state().policy_routing(Family::kIpv4));
  EXPECT_TRUE(mirror_->state().policy_routing(Family::kIpv6));
}

TEST_F(MirrorTest, NeighborsAreTold) {
  NetworkNamespace::Ip(SetUpLinks(1) +
                       "neigh add 10.0.0.50 lladdr 02:00:00:00:00:50 dev d0 nud permanent\n");
  Start();
  std::map<std::string, NeighborEvent> seen;
  mirror_->set_neighbor_observer(
      [&](const NeighborEvent& e) { seen[ToString(e.key.address)] = e; });
  const IfIndex d0 = mirror_->state().FindLink("d0")->ifindex;
  EXPECT_TRUE(mirror_->state().neighbors.at({d0, Ipv4(10, 0, 0, 50)}).permanent());

  NetworkNamespace::Ip(
      "neigh add 10.0.0.51 lladdr 02:00:00:00:00:51 dev d0 nud reachable\n"
      "neigh add fd00:0::51 lladdr 02:00:00:00:00:51 dev d0 router extern_learn\n"
      "neigh del 10.0.0.50 dev d0\n");
  Settle();
  ASSERT_TRUE(seen.contains("10.0.0.51"));
  EXPECT_EQ(ToString(seen["10.0.0.51"].neighbor.mac), "02:00:00:00:00:51");
  EXPECT_TRUE(seen["10.0.0.51"].neighbor.valid());
  EXPECT_FALSE(seen["10.0.0.51"].removed);
  ASSERT_TRUE(seen.contains("fd00::51"));
  EXPECT_TRUE(seen["fd00::51"].neighbor.router());
  EXPECT_TRUE(seen["fd00::51"].neighbor.externally_learned());
  ASSERT_TRUE(seen.contains("10.0.0.50"));
  EXPECT_FALSE(mirror_->state().neighbors.contains({d0, Ipv4(10, 0, 0, 50)}) &&
               mirror_->state().neighbors.at({d0, Ipv4(10, 0, 0, 50)}).valid());
}

TEST_F(MirrorTest, SlotsAreFilledWhenInterfacesAreServed) {
  NetworkNamespace::Ip(SetUpLinks(1) + "route add 20.0.0.0/8 via 10.0.0.2\n");
  bool served = false;
  auto mirror = KernelMirror::Open(
      QuietOptions(), sink_, [&](IfIndex) { return served ? IfaceSlot{3} : IfaceSlot::None(); },
      Clock());
  ASSERT_TRUE(mirror.ok());
  ASSERT_TRUE((*mirror)->LoadAll(Clock, Clock() + Seconds(30)).ok());
  EXPECT_FALSE(sink_.Find(Ipv4(20, 0, 0, 1))->paths[0].slot.valid());
  served = true;
  (*mirror)->OnSlotsChanged();
  EXPECT_EQ(sink_.Find(Ipv4(20, 0, 0, 1))->paths[0].slot, IfaceSlot{3});
}

TEST_F(MirrorTest, RouteDetails) {
  NetworkNamespace::Ip(SetUpLinks(2) +
                       "route add 20.0.0.0/8 via 10.0.0.2 mtu lock 1300 src 10.0.1.1\n"
                       "route add 21.0.0.0/8 via 10.0.0.9 dev d1 onlink\n"
                       "route add 22.0.0.0/8 tos 0x10 via 10.0.0.2\n"
                       "route add 23.0.0.0/8 encap ip id 1 dst 10.0.0.2 dev d0\n");
  Start();
  const tables::Route* route = sink_.Find(Ipv4(20, 0, 0, 1));
  ASSERT_NE(route, nullptr);
  EXPECT_EQ(route->mtu, 1300u);
  EXPECT_TRUE(route->mtu_locked);
  EXPECT_TRUE(route->has_prefsrc);
  EXPECT_EQ(route->prefsrc, IpAddress(Ipv4(10, 0, 1, 1)));
  EXPECT_TRUE(sink_.Find(Ipv4(21, 0, 0, 1))->paths[0].onlink);
  EXPECT_EQ(sink_.Find(Ipv4(22, 0, 0, 1))->type, tables::RouteType::kPunt);
  ASSERT_NE(sink_.Find(Ipv4(23, 0, 0, 1)), nullptr);
  EXPECT_EQ(sink_.Find(Ipv4(23, 0, 0, 1))->type, tables::RouteType::kPunt);
  EXPECT_EQ(sink_.Find(Ipv4(23, 0, 0, 1))->punt_reason, PuntReason::kRouteType);
}

TEST_F(MirrorTest, AnotherSocketsNamespaceIsNotSeen) {
  Start();
  const size_t links = mirror_->state().links.size();
  {
    NetworkNamespace other;
    NetworkNamespace::Ip("link add x0 type veth peer name x1\n");
    Settle();
  }
  EXPECT_EQ(mirror_->state().links.size(), links);
}

}  // namespace
}  // namespace sluice::control
