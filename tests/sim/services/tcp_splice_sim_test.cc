// Relays whose two connections have become one: on bad links, with part of the segments carried below the
// stack, and every way in which they end.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "support/packet_builder.h"
#include "support/proxy_worlds.h"
#include "support/service_rig.h"
#include "support/splice_world.h"
#include "wire/tcp.h"

namespace sluice::test {
namespace {

using services::ServiceFailure;
using tables::ServiceConfig;
using transport::SocketError;

// Of one family on both sides.
ServiceConfig TcpProxyOf(bool v6) {
  ServiceConfig config = TcpProxyTo({});
  config.listen = {ServiceRig::Proxy(80, v6)};
  config.backends = {{ServiceRig::Backend(8080, v6)}};
  return config;
}

// Gives back all of what one client sends, as fast as that takes it, and then its FIN.
struct Echo : transport::TcpHandler {
  Echo(ServiceRig& r, const tables::ServiceAddress& at) : rig(r) {
    EXPECT_EQ(rig.tcp().Listen(EndpointOf(at), {}, 16, this, listener), SocketError::kNone);
  }
  ~Echo() override { rig.tcp().CloseListener(listener, rig.now()); }
  void OnAcceptable(transport::TcpListenerId id, Nanos now) override {
    transport::TcpSocket s;
    while (rig.tcp().Accept(id, this, s) == SocketError::kNone) OnReadable(s, now);
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    std::array<uint8_t, 4000> data;
    transport::IoResult result;
    while ((result = rig.tcp().Receive(s, data, now)).ok()) {
      pending.append(data.begin(), data.begin() + result.bytes);
    }
    ended = result.error == SocketError::kEndOfData;
    OnWritable(s, now);
  }
  void OnWritable(transport::TcpSocket s, Nanos now) override {
    while (!pending.empty()) {
      const auto result = rig.tcp().Send(s, BytesOf(pending), now);
      if (!result.ok()) return;
      pending.erase(0, result.bytes);
    }
    if (ended) rig.tcp().Close(s, now);
  }
  void OnError(transport::TcpSocket s, SocketError, Nanos now) override { rig.tcp().Close(s, now); }

  ServiceRig& rig;
  transport::TcpListenerId listener;
  std::string pending;
  bool ended = false;
};

TEST(TcpSplice, BeginsWithTheFirstAnswer) {
  SplicedWorld world;
  EXPECT_EQ(world.spliced(), 1u);
  EXPECT_TRUE(world.Says("y"));
  EXPECT_EQ(world.proxy().counters().splices.Read(), 1u);
  EXPECT_GE(world.proxy().counters().segments_spliced.Read(), 4u);
  EXPECT_EQ(world.rig.stats("web").bytes_in.Read(), 2u);
  EXPECT_EQ(world.rig.stats("web").bytes_out.Read(), 4u);
}

TEST(TcpSplice, NotWhereItIsTurnedOff) {
  ServiceConfig config = TcpProxyTo({8080});
  config.splice = false;
  SplicedWorld world({}, config);
  EXPECT_TRUE(world.Says("y"));
  EXPECT_EQ(world.proxy().counters().splices.Read(), 0u);
}

TEST(TcpSplice, NotBetweenFamilies) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080, true), "s");
  ServiceConfig config = TcpProxyTo({8080});
  config.backends = {{ServiceRig::Backend(8080, true)}};
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return client.got == "s:x"; }, Seconds(5)));
  EXPECT_EQ(rig.link().host(1).tcp().counters().splices.Read(), 0u);
}

// What the peers have not agreed on with each other cannot be passed on.
TEST(TcpSplice, NotWhereOptionsDiffer) {
  for (const int what : {0, 1}) {
    ServiceRig::Options options;
    // Host 0 is client and server alike: the proxy speaks neither timestamps nor SACK, or both do.
    auto& tcp = options.link.hosts[static_cast<size_t>(what)].config.tcp;
    tcp.timestamps = false;
    tcp.sack = false;
    SplicedWorld world(options);
    EXPECT_EQ(world.spliced(), 1u) << what;  // neither connection has them
    EXPECT_TRUE(world.Says(std::string(5000, 'y'))) << what;
  }
}

// Bulk both ways after a first exchange: what gets lost, is overtaken or comes twice is the peers' to mend,
// by SACK and DSACK with the numbers of the other connection.
TEST(TcpSplice, TransfersOverBadLinks) {
  for (const uint32_t carry : {0u, 6u}) {
    for (const bool v6 : {false, true}) {
      for (uint64_t seed = 1; seed <= 3; ++seed) {
        ServiceRig::Options options = Carrying(carry);
        options.link.seed = seed;
        for (auto* q : {&options.link.forward, &options.link.backward}) {
          q->delay = Millis(1);
          q->loss = 50;
          q->duplicate = 20;
          q->reorder = 100;
          q->corrupt = 20;
        }
        ServiceRig rig(options);
        rig.Apply({TcpProxyOf(v6)});
        Echo server(rig, ServiceRig::Backend(8080, v6));
        std::string text;
        for (int i = 0; i < 100'000; ++i) text += std::to_string(i);
        TextClient client(rig, ServiceRig::Proxy(80, v6), "x");
        ASSERT_TRUE(rig.RunUntil([&] { return client.got == "x"; }, Seconds(60)));
        client.Say(text);
        client.Finish();
        ASSERT_TRUE(rig.RunUntil([&] { return client.closed; }, Seconds(300)))
            << carry << v6 << seed << " " << client.got.size();
        EXPECT_TRUE(client.got == "x" + text);
        EXPECT_EQ(client.error, SocketError::kNone);
        EXPECT_EQ(rig.link().host(1).tcp().counters().splices.Read(), 1u);
        EXPECT_EQ(rig.stats("web").bytes_in.Read(), text.size() + 1);
        EXPECT_EQ(rig.stats("web").bytes_out.Read(), text.size() + 1);
        // With SACK on, holes are mended without waiting for a timeout each.
        EXPECT_LT(rig.link().host(0).tcp().counters().timeouts.Read(), 20u);
        EXPECT_EQ(rig.link().host(1).carried() > 100, carry != 0) << rig.link().host(1).carried();
        EXPECT_EQ(rig.Leftovers(), "");
      }
    }
  }
}

// Each end closes first; the second one's last acknowledgment gets lost.
TEST(TcpSplice, EndsAsConnectionsDo) {
  for (const bool lose : {false, true}) {
    SplicedWorld world;
    if (lose) {
      // The final ACK of whoever was the first to finish, on its way to the second.
      int fins = 0;
      bool lost = false;
      world.rig.link().filter = [fins, lost](int from, const ServiceRig::Bytes& packet) mutable {
        const uint8_t* const tcp = packet.data() + 20;
        if (from == 1 && (tcp[13] & wire::kTcpFin) != 0) ++fins;
        if (from != 1 || fins < 2 || tcp[13] != wire::kTcpAck || lost) return true;
        lost = true;
        return false;
      };
    }
    world.client->Finish();
    ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(10)));
    EXPECT_EQ(world.client->error, SocketError::kNone);
    ASSERT_TRUE(world.rig.RunUntil([&] { return world.spliced() == 0; }, Seconds(10)));
    EXPECT_EQ(world.rig.set().usage().relays, 0u);
    // Who waits for the ACK gets it, and no reset.
    EXPECT_EQ(world.proxy().usage().time_wait, 1u);
    EXPECT_EQ(world.server.errors, 0u);
    EXPECT_EQ(world.rig.Leftovers(), "");
    EXPECT_EQ(world.rig.tcp().counters().resets_received.Read(), 0u);
  }
}

TEST(TcpSplice, HalfClosedConnectionsGoOn) {
  for (const uint32_t carry : {0u, 4u}) {
    ServiceRig rig(Carrying(carry));
    rig.Apply({TcpProxyTo({8080})});
    ProxiedTransfer down(rig, 8080, 10, 3'000'000);
    EXPECT_TRUE(down.Run(Seconds(60)));
    EXPECT_EQ(rig.Leftovers(), "");
  }
}

TEST(TcpSplice, ResetsArePassedOnAndEndIt) {
  for (const uint32_t carry : {0u, 3u}) {
    for (const bool by_client : {false, true}) {
      SplicedWorld world(Carrying(carry));
      for (int i = 0; i < 5; ++i) ASSERT_TRUE(world.Says("y"));
      if (by_client) {
        world.client->Abort();
        ASSERT_TRUE(world.rig.RunUntil([&] { return world.server.errors == 1; }, Seconds(5)));
        EXPECT_EQ(world.rig.failed("web", ServiceFailure::kClientReset), 1u);
      } else {
        world.server.AbortAll();
        ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(5)));
        EXPECT_EQ(world.client->error, SocketError::kReset);
        EXPECT_EQ(world.rig.failed("web", ServiceFailure::kBackendReset), 1u);
      }
      EXPECT_EQ(world.spliced(), 0u);
      EXPECT_EQ(world.rig.set().usage().relays, 0u);
      EXPECT_EQ(world.rig.Leftovers(), "");
    }
  }
}

// Resets with data in flight behind them, which XDP may have carried.
TEST(TcpSplice, ResetInMidTransfer) {
  for (const uint32_t carry : {0u, 3u}) {
    SplicedWorld world(Carrying(carry));
    world.client->Say(std::string(1'000'000, 'y'));
    world.rig.RunUntil([&] { return world.server.received.size() > 400'000; }, Seconds(30));
    ASSERT_GT(world.server.received.size(), 400'000u);
    ASSERT_LT(world.server.received.size(), 1'000'000u);
    world.client->Abort();
    ASSERT_TRUE(world.rig.RunUntil([&] { return world.server.errors == 1; }, Seconds(5))) << carry;
    EXPECT_EQ(world.spliced(), 0u);
    EXPECT_EQ(world.rig.Leftovers(), "");
  }
}

// RFC 5961 section 3: a reset that a stranger has guessed the ports for, but not the number.
TEST(Rfc5961Section3, SpliceSurvivesBlindResets) {
  SplicedWorld world;
  const transport::Tcb* tcb = nullptr;
  world.rig.tcp().ForEachConnection([&](const transport::Tcb& t) {
    if (t.tuple.remote.port == 80) tcb = &t;
  });
  ASSERT_NE(tcb, nullptr);
  for (const uint32_t off : {1u, 1000u, 0u - 1u, 1u << 31}) {
    auto packet = PacketBuilder()
                      .Ipv4(tcb->tuple.local.address.v4(), tcb->tuple.remote.address.v4())
                      .Tcp(tcb->tuple.local.port, 80, wire::kTcpRst)
                      .Sequence(tcb->snd_nxt.value() + off)
                      .Build();
    world.rig.link().Inject(1, packet);
    world.rig.Run(Seconds(1));
    EXPECT_EQ(world.spliced(), 1u) << off;
    EXPECT_TRUE(world.Says("y")) << off;
  }
  EXPECT_EQ(world.client->error, SocketError::kNone);
}

// Who ends a service after its time tells both peers, with numbers that they believe.
TEST(TcpSplice, DrainTimeoutResetsBoth) {
  for (const uint32_t carry : {0u, 3u}) {
    SplicedWorld world(Carrying(carry));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(world.Says("y"));
    world.rig.Apply({});
    ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(40))) << carry;
    EXPECT_EQ(world.client->error, SocketError::kReset);
    ASSERT_TRUE(world.rig.RunUntil([&] { return world.server.errors == 1; }, Seconds(1)));
    EXPECT_EQ(world.rig.Leftovers(), "");
  }
}

TEST(TcpSplice, IdleConnectionsEnd) {
  for (const uint32_t carry : {0u, 3u}) {
    ServiceConfig config = TcpProxyTo({8080});
    config.idle_timeout = Seconds(10);
    SplicedWorld world(Carrying(carry), config);
    for (int i = 0; i < 5; ++i) {
      world.rig.Run(Seconds(8));
      ASSERT_TRUE(world.Says("y")) << carry << i;
    }
    world.rig.Run(Seconds(9));
    EXPECT_FALSE(world.client->closed);
    world.rig.Run(Seconds(2));
    EXPECT_TRUE(world.client->closed);
    EXPECT_EQ(world.client->error, SocketError::kReset);
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 1u);
    EXPECT_EQ(world.rig.Leftovers(), "");
  }
}

// The peer at the other end is told of the way's MTU, and sends less (RFC 1191, RFC 8201).
TEST(TcpSplice, TooLargeForTheWay) {
  for (const bool v6 : {false, true}) {
    ServiceRig::Options options;
    options.link.v6 = v6;
    ServiceRig rig(options);
    rig.Apply({TcpProxyOf(v6)});
    Echo server(rig, ServiceRig::Backend(8080, v6));
    TextClient client(rig, ServiceRig::Proxy(80, v6), "x");
    ASSERT_TRUE(rig.RunUntil([&] { return client.got == "x"; }, Seconds(5)));
    rig.link().quality(1).mtu = 1300;  // from the proxy
    client.Say(std::string(200'000, 'y'));
    ASSERT_TRUE(rig.RunUntil([&] { return client.got.size() == 200'001; }, Seconds(60))) << v6;
    EXPECT_EQ(rig.link().host(1).tcp().counters().splices.Read(), 1u);
    EXPECT_LE(rig.tcp().counters().timeouts.Read(), 2u) << v6;
    EXPECT_EQ(rig.tcp().counters().black_holes.Read(), 0u);
  }
}

// A port that is used again at once, by numbers and clocks that have gone on elsewhere.
TEST(TcpSplice, PortsAreUsedAgain) {
  ServiceRig::Options options;
  options.link.hosts[1].config.tcp.first_port = 40'000;
  options.link.hosts[1].config.tcp.last_port = 40'003;
  ServiceRig rig(options);
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080})});
  for (int i = 0; i < 12; ++i) {
    TextClient client(rig, ServiceRig::Proxy(80), "x");
    ASSERT_TRUE(rig.RunUntil([&] { return client.got == "s:x"; }, Seconds(200))) << i;
    client.Abort();
    rig.Run(Seconds(1));
  }
  EXPECT_EQ(rig.link().host(1).tcp().counters().splices.Read(), 12u);
}

// Nothing is sent twice, acknowledged or timed by the proxy any more.
TEST(TcpSplice, NoSegmentsOfTheProxysOwn) {
  SplicedWorld world;
  const uint64_t received = world.proxy().counters().segments_received.Read();
  const uint64_t sent = world.proxy().counters().segments_sent.Read();
  for (int i = 0; i < 20; ++i) ASSERT_TRUE(world.Says(std::string(3000, 'y')));
  world.rig.Run(Seconds(100));
  EXPECT_EQ(world.proxy().counters().segments_received.Read() - received,
            world.proxy().counters().segments_sent.Read() - sent);
  EXPECT_EQ(world.proxy().usage().timers, 0u);
}

TEST(TcpSplice, ProxyProtocolHeaderCounts) {
  ServiceConfig config = TcpProxyTo({8080});
  config.proxy_protocol = true;
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({config});
  TextClient client(rig, ServiceRig::Proxy(80), "x");
  ASSERT_TRUE(rig.RunUntil([&] { return server.received.ends_with("x"); }, Seconds(5)));
  rig.Run(Seconds(1));
  client.Say("yz");
  ASSERT_TRUE(rig.RunUntil([&] { return client.got.ends_with("xyz"); }, Seconds(5)));
  EXPECT_EQ(rig.link().host(1).tcp().counters().splices.Read(), 1u);
}

}  // namespace
}  // namespace sluice::test
