// The UDP proxy above a layer that carries its datagrams: which are offered, what comes back of them, and
// when they are wanted here again.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

#include "support/packet_builder.h"
#include "support/proxy_worlds.h"
#include "support/service_rig.h"
#include "support/udp_ends.h"
#include "wire/protocol.h"

namespace sluice::test {
namespace {

using ::testing::ElementsAre;
using services::ServiceFailure;
using tables::ServiceConfig;

// The layer below host 1: it carries what it is offered, from the first packet on, and tells of it at
// the end, or when the test says so.
class Tier {
 public:
  explicit Tier(ServiceRig& rig) : rig_(rig) {
    rig.link().host(1).on_relayed = [this](const transport::Relayed& r) {
      EXPECT_EQ(r.protocol, wire::kProtocolUdp);
      EXPECT_EQ(r.splice, nullptr);
      ++offered;
      if (r.handle->entry != 0) return;
      r.handle->entry = ++entries_;
      carried_[r.handle] = {r, 0};
    };
    rig.link().host(1).on_end_relayed = [this](transport::RelayHandle& handle, Nanos now) {
      const auto found = carried_.find(&handle);
      if (found == carried_.end()) return;
      const Carried c = found->second;
      carried_.erase(found);
      handle = {};
      Tell(c, now);
    };
  }

  struct Carried {
    transport::Relayed relayed;
    uint64_t packets = 0;  // untold, of `kSize` bytes of IP each
  };
  static constexpr uint64_t kSize = 100;

  // The one to this port.
  Carried* Towards(uint16_t port) {
    for (auto& [handle, c] : carried_) {
      if (c.relayed.leaves.remote.port == port) return &c;
    }
    return nullptr;
  }
  void Scan() {
    for (auto& [handle, c] : carried_) {
      Tell(c, rig_.now());
      c.packets = 0;
    }
  }
  size_t size() const { return carried_.size(); }

  uint64_t offered = 0;

 private:
  static void Tell(const Carried& c, Nanos now) {
    if (c.packets == 0) return;
    c.relayed.user->OnCarried(c.relayed.token, {.packets = c.packets, .bytes = c.packets * kSize},
                              now);
  }

  ServiceRig& rig_;
  uint32_t entries_ = 0;
  std::map<transport::RelayHandle*, Carried> carried_;
};

constexpr uint16_t kClientPort = 7000;

class UdpRelay : public testing::Test {
 protected:
  // A question, and its answer.
  void Start(const ServiceConfig& config) {
    rig.Apply({config});
    client.Say(53, "q");
    rig.Run(Seconds(1));
  }
  const services::ServiceStats& stats() { return rig.stats("dns"); }

  ServiceRig rig;
  Tier tier{rig};
  UdpServer server{rig, ServiceRig::Backend(5353), "s"};
  UdpClient client{rig, kClientPort};
};

TEST_F(UdpRelay, BothDirectionsAreOffered) {
  Start(UdpProxyTo({5353}));
  ASSERT_EQ(tier.size(), 2u);
  const transport::Relayed up = tier.Towards(5353)->relayed;
  const transport::Relayed down = tier.Towards(kClientPort)->relayed;
  const transport::Endpoint listening = EndpointOf(ServiceRig::Proxy(53));
  const transport::Endpoint backend = EndpointOf(ServiceRig::Backend(5353));
  const transport::Endpoint from{rig.link().address(0), kClientPort};
  EXPECT_EQ(up.arrives, (transport::Tuple{listening, from}));
  EXPECT_EQ(up.leaves, (transport::Tuple{server.last, backend}));
  EXPECT_EQ(down.arrives, (transport::Tuple{server.last, backend}));
  EXPECT_EQ(down.leaves, (transport::Tuple{listening, from}));
  EXPECT_NE(up.token, down.token);
  EXPECT_THAT(client.got, ElementsAre("s:q"));
}

// Where any address is listened on, the one that was asked is what counts.
TEST_F(UdpRelay, AnyAddress) {
  ServiceConfig config = UdpProxyTo({5353});
  config.listen = {{Ipv4(), 53}};
  Start(config);
  ASSERT_EQ(tier.size(), 2u);
  EXPECT_EQ(tier.Towards(5353)->relayed.arrives.local, EndpointOf(ServiceRig::Proxy(53)));
  EXPECT_EQ(tier.Towards(kClientPort)->relayed.leaves.local, EndpointOf(ServiceRig::Proxy(53)));
}

TEST_F(UdpRelay, WhatIsCarriedCountsAndKeepsTheSession) {
  Start(UdpProxyTo({5353}));
  const uint64_t bytes_in = stats().bytes_in.Read();
  const uint64_t bytes_out = stats().bytes_out.Read();
  for (int i = 0; i < 6; ++i) {
    tier.Towards(5353)->packets = 10;
    tier.Towards(kClientPort)->packets = 20;
    tier.Scan();
    rig.Run(Seconds(20));
  }
  EXPECT_EQ(stats().active.Read(), 1u);
  EXPECT_EQ(stats().accepted.Read(), 1u);
  EXPECT_EQ(stats().messages_in.Read(), 1u + 60);
  EXPECT_EQ(stats().messages_out.Read(), 1u + 120);
  EXPECT_EQ(stats().bytes_in.Read(), bytes_in + 60 * (Tier::kSize - 28));
  EXPECT_EQ(stats().bytes_out.Read(), bytes_out + 120 * (Tier::kSize - 28));
  // The sockets' too.
  const transport::UdpCounters& sockets = rig.link().host(1).udp().counters();
  EXPECT_EQ(sockets.datagrams_received.Read(), 2u + 180);
  EXPECT_EQ(sockets.datagrams_sent.Read(), 2u + 180);
  rig.Run(Seconds(11));
  EXPECT_EQ(stats().active.Read(), 0u);
  EXPECT_EQ(tier.size(), 0u) << "it ends with the session";
  EXPECT_EQ(rig.Leftovers(), "");
}

// Something has been carried that nobody has told of yet when the time is up.
TEST_F(UdpRelay, BeforeASessionEndsTheTierIsAsked) {
  Start(UdpProxyTo({5353}));
  tier.Towards(5353)->packets = 1;
  rig.Run(Seconds(30));
  EXPECT_EQ(stats().active.Read(), 1u);
  EXPECT_EQ(stats().messages_in.Read(), 2u);
  EXPECT_EQ(tier.size(), 0u);
  rig.Run(Seconds(30));
  EXPECT_EQ(stats().active.Read(), 0u);
  EXPECT_EQ(rig.Leftovers(), "");
}

TEST_F(UdpRelay, InUseItIsNotTheIdlest) {
  ServiceConfig config = UdpProxyTo({5353});
  config.max_connections = 2;
  Start(config);
  UdpClient second(rig), third(rig);
  second.Say(53, "q");
  rig.Run(Seconds(1));
  tier.Towards(5353)->packets = 0;
  tier.Towards(kClientPort)->packets = 5;
  tier.Scan();
  third.Say(53, "q");
  rig.Run(Seconds(1));
  EXPECT_NE(tier.Towards(kClientPort), nullptr);
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kEvicted), 1u);
  EXPECT_EQ(tier.size(), 4u) << "what was evicted is not carried any more";
}

TEST_F(UdpRelay, WhoCountsRepliesSeesThem) {
  ServiceConfig config = UdpProxyTo({5353});
  config.replies = 2;
  Start(config);
  EXPECT_EQ(tier.offered, 0u);
}

TEST_F(UdpRelay, OnceRepliesAreToBeCountedTheyComeHere) {
  ServiceConfig config = UdpProxyTo({5353});
  Start(config);
  ASSERT_EQ(tier.size(), 2u);
  config.replies = 2;
  rig.Apply({config});
  EXPECT_EQ(tier.size(), 0u);
}

TEST_F(UdpRelay, GroupsAndOtherFamiliesAreNot) {
  UdpServer six(rig, ServiceRig::Backend(5353, /*v6=*/true), "six");
  ServiceConfig config = UdpProxyTo({});
  config.backends = {{ServiceRig::Backend(5353, true)}};
  Start(config);
  EXPECT_THAT(client.got, ElementsAre("six:q"));
  EXPECT_EQ(tier.offered, 0u);
  config = UdpProxyTo({5353});
  config.listen = {{*ParseIpAddress("239.1.2.3"), 53}};
  rig.Apply({config});
  client.SayTo(config.listen[0], "q");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre("six:q", "s:q"));
  EXPECT_EQ(tier.offered, 0u);
}

TEST_F(UdpRelay, Ipv6) {
  UdpServer six(rig, ServiceRig::Backend(5353, /*v6=*/true), "six");
  UdpClient client6(rig, 7001, /*v6=*/true);
  ServiceConfig config = UdpProxyTo({});
  config.listen = {ServiceRig::Proxy(53, true)};
  config.backends = {{ServiceRig::Backend(5353, true)}};
  rig.Apply({config});
  client6.SayTo(ServiceRig::Proxy(53, true), "q");
  rig.Run(Seconds(1));
  ASSERT_EQ(tier.size(), 2u);
  const uint64_t bytes = stats().bytes_out.Read();
  tier.Towards(7001)->packets = 3;
  tier.Scan();
  EXPECT_EQ(stats().bytes_out.Read(), bytes + 3 * (Tier::kSize - 48));
}

// What does not go in one packet is not like what XDP carries.
TEST_F(UdpRelay, LargeDatagramsAreNotOffered) {
  rig.link().host(1).set_mtu(600);
  rig.Apply({UdpProxyTo({5353})});
  client.Say(53, std::string(1000, 'x'));
  rig.Run(Seconds(1));
  EXPECT_EQ(server.asked, 0) << "in fragments, which the simulated host does not put together";
  EXPECT_EQ(tier.offered, 0u);
}

// A router on the way to the backend takes less. Large datagrams have to be fragmented here.
TEST_F(UdpRelay, APathThatIsNarrowerThanThought) {
  Bytes seen;
  rig.link().filter = [&](int from, const Bytes& p) {
    if (from == 1 && LoadBe16(&p[22]) == 5353) seen = p;
    return true;
  };
  Start(UdpProxyTo({5353}));
  ASSERT_EQ(tier.size(), 2u);
  tier.Towards(5353)->packets = 2;
  seen[6] |= 0x40;  // as the client has sent it, what is carried must not be fragmented
  rig.link().Inject(1, PacketBuilder()
                           .Ipv4("10.0.0.9", "10.0.0.2")
                           .Icmp(3, 4, /*rest=*/1000)
                           .Payload(seen)
                           .Build());
  rig.Run(Seconds(1));
  EXPECT_EQ(tier.Towards(5353), nullptr);
  EXPECT_NE(tier.Towards(kClientPort), nullptr) << "the other direction";
  EXPECT_EQ(stats().messages_in.Read(), 3u);
  client.Say(53, "again");
  rig.Run(Seconds(1));
  EXPECT_EQ(server.asked, 2);
  EXPECT_EQ(tier.Towards(5353), nullptr);
}

// Its client's next datagram comes here, and to another backend.
TEST_F(UdpRelay, ABackendThatIsFoundDown) {
  UdpServer other(rig, ServiceRig::Backend(5354), "o");
  NamedServer checked(rig, ServiceRig::Backend(5353), "s");
  NamedServer other_checked(rig, ServiceRig::Backend(5354), "o");
  ServiceConfig config = UdpProxyTo({5353, 5354});
  config.health = {.kind = tables::HealthCheckConfig::Kind::kTcp,
                   .interval = Seconds(1),
                   .timeout = Millis(500),
                   .rise = 1,
                   .fall = 2};
  Start(config);
  const bool first = server.asked == 1;
  UdpClient second(rig, 7001);
  second.Say(53, "q");
  rig.Run(Seconds(1));
  ASSERT_EQ(tier.size(), 4u);
  const uint16_t dead = first ? 5353 : 5354;
  const uint16_t alive = first ? 5354 : 5353;
  tier.Towards(dead)->packets = 7;
  (first ? checked : other_checked).Stop();
  ASSERT_TRUE(rig.RunUntil([&] { return rig.backend("dns", dead).up.Read() == 0; }, Seconds(10)));
  EXPECT_EQ(tier.Towards(dead), nullptr);
  EXPECT_EQ(tier.Towards(kClientPort), nullptr);
  EXPECT_NE(tier.Towards(alive), nullptr) << "others stay";
  EXPECT_EQ(stats().messages_in.Read(), 2u + 7);
  EXPECT_EQ(stats().active.Read(), 2u) << "it may still have something to say";
  client.got.clear();
  client.Say(53, "again");
  rig.Run(Seconds(1));
  EXPECT_THAT(client.got, ElementsAre(first ? "o:again" : "s:again"));
  EXPECT_NE(tier.Towards(kClientPort), nullptr);
}

TEST_F(UdpRelay, AnUnreachableBackend) {
  Bytes seen;
  rig.link().filter = [&](int from, const Bytes& p) {
    if (from == 1 && LoadBe16(&p[22]) == 5353) seen = p;
    return true;
  };
  Start(UdpProxyTo({5353}));
  tier.Towards(5353)->packets = 1;
  rig.link().Inject(
      1, PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Icmp(3, 3).Payload(seen).Build());
  rig.Run(Seconds(1));
  EXPECT_EQ(rig.failed("dns", ServiceFailure::kBackendReset), 1u);
  EXPECT_EQ(tier.size(), 0u);
  EXPECT_EQ(stats().messages_in.Read(), 2u);
  EXPECT_EQ(rig.Leftovers(), "");
}

// A service that is taken away drains: what is carried goes on until then.
TEST_F(UdpRelay, DrainsAndEnds) {
  ServiceConfig config = UdpProxyTo({5353});
  config.drain_timeout = Seconds(10);
  Start(config);
  rig.Apply({});
  EXPECT_EQ(tier.size(), 2u);
  server.answers = 0;
  client.Say(53, "more");
  rig.Run(Seconds(1));
  EXPECT_EQ(server.asked, 2) << "by a socket of the session's own";
  EXPECT_EQ(tier.size(), 2u);
  rig.Run(Seconds(10));
  EXPECT_EQ(tier.size(), 0u);
  EXPECT_TRUE(rig.set().Drained());
  EXPECT_EQ(rig.Leftovers(), "");
}

}  // namespace
}  // namespace sluice::test
