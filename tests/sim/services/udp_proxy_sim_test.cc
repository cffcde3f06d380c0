// The UDP proxy: sessions, answers that find their clients, limits, backends that are not there.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>

#include "support/packet_builder.h"
#include "support/proxy_worlds.h"
#include "support/service_rig.h"
#include "support/udp_ends.h"

namespace sluice::test {
namespace {

using ::testing::ElementsAre;
using services::ServiceFailure;
using tables::ServiceConfig;

TEST(UdpProxy, AnswersFindTheirClients) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  rig.Apply({UdpProxyTo({5353})});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 50; ++i) clients.push_back(std::make_unique<UdpClient>(rig));
  for (int round = 0; round < 2; ++round) {
    for (int i = 0; i < 50; ++i) {
      clients[static_cast<size_t>(i)]->Say(53, "q" + std::to_string(i));
    }
    rig.Run(Seconds(1));
  }
  for (int i = 0; i < 50; ++i) {
    const std::string answer = "s:q" + std::to_string(i);
    const UdpClient& c = *clients[static_cast<size_t>(i)];
    EXPECT_THAT(c.got, ElementsAre(answer, answer));
    EXPECT_EQ(c.from, EndpointOf(ServiceRig::Proxy(53)));
  }
  EXPECT_EQ(rig.stats("dns").accepted.Read(), 50u);
  EXPECT_EQ(rig.stats("dns").active.Read(), 50u);
  EXPECT_EQ(rig.stats("dns").messages_in.Read(), 100u);
  EXPECT_EQ(rig.stats("dns").messages_out.Read(), 100u);
  // They end by time.
  rig.Run(Seconds(28));
  EXPECT_EQ(rig.stats("dns").active.Read(), 50u);
  rig.Run(Seconds(2));
  EXPECT_EQ(rig.stats("dns").active.Read(), 0u);
  EXPECT_EQ(rig.link().host(1).udp().sockets(), 1u);
  EXPECT_EQ(rig.Leftovers(), "");
  EXPECT_EQ(rig.set().usage().timers, 0u);
}

TEST(UdpProxy, FamiliesMix) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353, /*v6=*/true), "six");
  ServiceConfig config = UdpProxyTo({});
  config.backends = {{ServiceRig::Backend(5353, true)}};
  rig.Apply({config});
  UdpClient client(rig);
  client.Say(53, "q");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("six:q"));
}

// Asked by a group, answered from an address of the machine; to the end, when the group is left.
TEST(UdpProxy, ListensToGroups) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  ServiceConfig config = UdpProxyTo({5353});
  config.listen = {{*ParseIpAddress("239.1.2.3"), 53}};
  rig.Apply({config});
  UdpClient client(rig);
  client.SayTo(config.listen[0], "q");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("s:q"));
  EXPECT_EQ(client.from, EndpointOf(ServiceRig::Proxy(53)));
  rig.Apply({});
  rig.udp().SendTo(server.socket, server.last, BytesOf("late"), rig.now());
  client.SayTo(config.listen[0], "no longer");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("s:q", "late"));
  EXPECT_EQ(client.from, EndpointOf(ServiceRig::Proxy(53)));
  EXPECT_EQ(server.asked, 1);
}

TEST(UdpProxy, TrafficKeepsASession) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  rig.Apply({UdpProxyTo({5353})});
  UdpClient client(rig);
  for (int i = 0; i < 5; ++i) {
    client.Say(53, "q");
    rig.Run(Seconds(20));
  }
  EXPECT_EQ(rig.stats("dns").accepted.Read(), 1u);
}

TEST(UdpProxy, SessionsAreBalanced) {
  ServiceRig rig;
  UdpServer a(rig, ServiceRig::Backend(5301), "a");
  UdpServer b(rig, ServiceRig::Backend(5302), "b");
  ServiceConfig config = UdpProxyTo({5301, 5302});
  config.backends[1].weight = 3;
  rig.Apply({config});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<UdpClient>(rig));
    clients.back()->Say(53, "q");
  }
  rig.Run(Seconds(1));
  EXPECT_EQ(a.asked, 10);
  EXPECT_EQ(b.asked, 30);
}

// At the limit the idlest session makes room.
TEST(UdpProxy, LimitEvictsTheIdlest) {
  for (const bool worker_limit : {false, true}) {
    ServiceRig::Options options;
    if (worker_limit) options.limits.udp_sessions = 10;
    ServiceRig rig(options);
    UdpServer server(rig, ServiceRig::Backend(5353), "s");
    ServiceConfig config = UdpProxyTo({5353});
    if (!worker_limit) config.max_connections = 10;
    rig.Apply({config});
    std::vector<std::unique_ptr<UdpClient>> clients;
    for (int i = 0; i < 10; ++i) {
      clients.push_back(std::make_unique<UdpClient>(rig));
      clients.back()->Say(53, "q");
      rig.Run(Millis(100));
    }
    clients[0]->Say(53, "again");  // no longer the idlest
    rig.Run(Millis(100));
    UdpClient late(rig);
    late.Say(53, "late");
    rig.Run(Seconds(1));
    EXPECT_THAT(late.got, ElementsAre("s:late"));
    EXPECT_EQ(rig.failed("dns", ServiceFailure::kEvicted), 1u);
    EXPECT_EQ(rig.stats("dns").active.Read(), 10u);
    EXPECT_EQ(rig.stats("dns").accepted.Read(), 11u);
    clients[0]->Say(53, "still");
    rig.Run(Seconds(1));
    EXPECT_EQ(rig.stats("dns").accepted.Read(), 11u);
    clients[1]->Say(53, "anew");
    rig.Run(Seconds(1));
    EXPECT_EQ(rig.stats("dns").accepted.Read(), 12u);
    EXPECT_EQ(clients[1]->got.back(), "s:anew");
  }
}

// At the worker's limit the service with the most sessions makes room, whoever needs it.
TEST(UdpProxy, AFloodOfOneServiceLeavesRoomForAnother) {
  ServiceRig::Options options;
  options.limits.udp_sessions = 20;
  ServiceRig rig(options);
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  ServiceConfig flooded = UdpProxyTo({5353});
  flooded.name = "flooded";
  flooded.listen = {ServiceRig::Proxy(54)};
  rig.Apply({flooded, UdpProxyTo({5353})});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 40; ++i) {
    clients.push_back(std::make_unique<UdpClient>(rig));
    clients.back()->Say(54, "q");
  }
  rig.Run(Millis(100));
  std::vector<std::unique_ptr<UdpClient>> good;
  for (int i = 0; i < 10; ++i) {
    good.push_back(std::make_unique<UdpClient>(rig));
    good.back()->Say(53, "q");
    rig.Run(Millis(100));
  }
  for (int i = 0; i < 100; ++i) {
    clients.push_back(std::make_unique<UdpClient>(rig));
    clients.back()->Say(54, "q");
  }
  rig.Run(Millis(100));
  for (const auto& c : good) {
    c->Say(53, "r");
    rig.Run(Millis(100));
    EXPECT_THAT(c->got, ElementsAre("s:q", "s:r"));
  }
  EXPECT_EQ(rig.stats("dns").accepted.Read(), 10u) << "nobody's session was taken away";
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kEvicted), 0u);
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kLimit), 0u);
  EXPECT_EQ(rig.stats("flooded").active.Read(), 10u);
  EXPECT_EQ(rig.failed("flooded", ServiceFailure::kEvicted), 130u);
  rig.Apply({});
  rig.Run(Seconds(60));
  EXPECT_EQ(rig.Leftovers(), "");
}

// A flood of clients, more than there is room for: memory stays, and each is answered.
TEST(UdpProxy, FloodOfClients) {
  ServiceRig::Options options;
  options.limits.udp_sessions = 64;
  options.link.hosts[1].config.udp.sockets = 40;  // fewer still
  ServiceRig rig(options);
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  rig.Apply({UdpProxyTo({5353})});
  uint64_t answered = 0;
  rig.link().filter = [&](int from, const Bytes& p) {
    if (from == 1 && p.size() > 28 && p[9] == 17 && p[20] == 0 && p[21] == 53) ++answered;
    return true;
  };
  for (int i = 0; i < 2000; ++i) {
    rig.link().Inject(1, PacketBuilder()
                             .Ipv4("10.9.0.1", "10.0.0.2")
                             .Udp(static_cast<uint16_t>(1000 + i), 53)
                             .Payload("q")
                             .Build());
    if (i % 8 == 7) rig.Run(Millis(50));
  }
  rig.Run(Seconds(1));
  EXPECT_EQ(answered, 2000u);
  EXPECT_EQ(rig.link().host(1).udp().sockets(), 40u);
  rig.Run(Seconds(60));
  EXPECT_EQ(rig.Leftovers(), "");
}

// More sessions than ports: the idlest gives up its own.
TEST(UdpProxy, PortsRunOut) {
  ServiceRig::Options options;
  options.link.hosts[1].config.udp.first_port = 40'000;
  options.link.hosts[1].config.udp.last_port = 40'019;
  ServiceRig rig(options);
  UdpServer a(rig, ServiceRig::Backend(5301), "s");
  UdpServer b(rig, ServiceRig::Backend(5302), "s");
  rig.Apply({UdpProxyTo({5301, 5302})});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 500; ++i) {
    clients.push_back(std::make_unique<UdpClient>(rig));
    clients.back()->Say(53, "q");
    if (i % 4 == 3) rig.Run(Millis(50));
  }
  rig.Run(Seconds(1));
  for (const auto& c : clients) EXPECT_THAT(c->got, ElementsAre("s:q"));
  EXPECT_LE(rig.stats("dns").active.Read(), 40u);
  EXPECT_GE(rig.stats("dns").active.Read(), 30u);
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kLimit), 0u);
  rig.Run(Seconds(60));
  EXPECT_EQ(rig.stats("dns").active.Read(), 0u);
}

TEST(UdpProxy, SessionMayEndAfterItsReplies) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  server.answers = 3;
  ServiceConfig config = UdpProxyTo({5353});
  config.replies = 2;
  rig.Apply({config});
  UdpClient client(rig);
  client.Say(53, "q");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got.size(), 2u);
  EXPECT_EQ(rig.stats("dns").active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// Each datagram of the client's has its replies: the first answer does not end what the second waits for.
TEST(UdpProxy, RepliesAreOfEachDatagram) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  ServiceConfig config = UdpProxyTo({5353});
  config.replies = 1;
  rig.Apply({config});
  UdpClient client(rig);
  client.Say(53, "a");
  client.Say(53, "b");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("s:a", "s:b"));
  EXPECT_EQ(rig.stats("dns").active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// The port of a session takes only what its backend says (RFC 5452 section 9.1 wants that of DNS).
TEST(UdpProxy, StrangersAreNotHeard) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  server.answers = 0;
  rig.Apply({UdpProxyTo({5353})});
  UdpClient client(rig);
  client.Say(53, "q");
  rig.Run(Seconds(1));
  const uint16_t port = server.last.port;
  const uint64_t unclaimed = rig.link().host(1).unclaimed();
  rig.link().Inject(1, PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Udp(5354, port).Payload("x")
                           .Build());
  rig.link().Inject(1, PacketBuilder().Ipv4("10.0.0.3", "10.0.0.2").Udp(5353, port).Payload("x")
                           .Build());
  rig.Run(Seconds(1));
  EXPECT_TRUE(client.got.empty());
  EXPECT_EQ(rig.link().host(1).unclaimed(), unclaimed + 2);
}

// ICMP port unreachable ends the session, and the next datagram finds another backend.
TEST(UdpProxy, UnreachableBackend) {
  ServiceRig rig;
  UdpServer good(rig, ServiceRig::Backend(5302), "good");
  rig.Apply({UdpProxyTo({5301, 5302})});
  Bytes seen;
  rig.link().filter = [&](int from, const Bytes& p) {
    if (from == 1 && p[9] == 17 && p[22] == 5301 >> 8 && p[23] == (5301 & 0xff)) seen = p;
    return true;
  };
  UdpClient a(rig), b(rig);
  a.Say(53, "one");
  b.Say(53, "two");
  rig.Run(Seconds(1));
  ASSERT_FALSE(seen.empty());
  rig.link().Inject(1, PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Icmp(3, 3).Payload(seen).Build());
  rig.Run(Seconds(1));
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kBackendReset), 1u);
  EXPECT_EQ(rig.backend("dns", 5301).failures.Read(), 1u);
  EXPECT_EQ(rig.stats("dns").active.Read(), 1u);
  UdpClient& unlucky = a.got.empty() ? a : b;
  for (int i = 0; i < 2 && unlucky.got.empty(); ++i) {
    unlucky.Say(53, "again");
    rig.Run(Seconds(1));
    rig.link().Inject(1, PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Icmp(3, 3).Payload(seen)
                             .Build());
    rig.Run(Seconds(1));
  }
  EXPECT_THAT(unlucky.got, ElementsAre("good:again"));
}

TEST(UdpProxy, LossyLink) {
  ServiceRig::Options options;
  options.link.forward.loss = options.link.backward.loss = 500;
  options.link.forward.duplicate = options.link.backward.reorder = 500;
  ServiceRig rig(options);
  UdpServer server(rig, ServiceRig::Backend(5353), "s");
  rig.Apply({UdpProxyTo({5353})});
  std::vector<std::unique_ptr<UdpClient>> clients;
  for (int i = 0; i < 100; ++i) clients.push_back(std::make_unique<UdpClient>(rig));
  const auto answered = [](const auto& c) { return !c->got.empty(); };
  for (int round = 0; round < 20; ++round) {  // as resolvers do
    for (const auto& c : clients) {
      if (!answered(c)) c->Say(53, "q");
    }
    rig.Run(Seconds(1));
  }
  EXPECT_TRUE(std::all_of(clients.begin(), clients.end(), answered));
  rig.Run(Seconds(40));
  EXPECT_EQ(rig.stats("dns").active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// The service goes, another gets its address, and open sessions still get their answers.
TEST(UdpProxy, DrainsWhileAnotherListens) {
  ServiceRig rig;
  UdpServer server(rig, ServiceRig::Backend(5353), "old");
  server.answers = 0;
  ServiceConfig config = UdpProxyTo({5353});
  config.drain_timeout = Seconds(10);
  rig.Apply({config});
  UdpClient client(rig);
  client.Say(53, "q");
  rig.Run(Seconds(1));
  UdpServer next(rig, ServiceRig::Backend(5354), "new");
  ServiceConfig other = UdpProxyTo({5354});
  other.name = "dns2";
  rig.Apply({other});
  EXPECT_FALSE(rig.set().Drained());
  rig.udp().SendTo(server.socket, server.last, BytesOf("late answer"), rig.now());
  UdpClient fresh(rig);
  fresh.Say(53, "q");
  client.Say(53, "more");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("late answer"));
  EXPECT_EQ(client.from, EndpointOf(ServiceRig::Proxy(53)));
  EXPECT_THAT(fresh.got, ElementsAre("new:q"));
  EXPECT_EQ(server.asked, 2);  // the open session's
  rig.Run(Seconds(10));
  EXPECT_TRUE(rig.set().Drained());
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kDrainTimeout), 1u);
  client.Say(53, "q");
  rig.Run(Seconds(1));
  EXPECT_EQ(client.got.back(), "new:q");
}

}  // namespace
}  // namespace sluice::test
