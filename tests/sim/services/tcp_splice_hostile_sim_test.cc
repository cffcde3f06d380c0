// Spliced relays against strangers who know addresses and ports but no numbers (RFC 5961), and in
// corners: much carried at once, a close from both ends at once, a port that is wanted again.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <memory>
#include <string>

#include "base/byte_order.h"
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

constexpr uint32_t kMiB = 1 << 20;

ServiceConfig IdleAfter(Nanos time) {
  ServiceConfig config = TcpProxyTo({8080});
  config.idle_timeout = time;
  return config;
}

// Of whose peers a stranger knows all but the numbers.
struct HostileWorld : SplicedWorld {
  using SplicedWorld::SplicedWorld;

  // The peers' own ends: of the client, of the backend.
  const transport::Tcb& EndOf(bool backend) {
    const transport::Tcb* found = nullptr;
    rig.tcp().ForEachConnection([&](const transport::Tcb& t) {
      if ((backend ? t.tuple.local.port == 8080 : t.tuple.remote.port == 80)) found = &t;
    });
    EXPECT_NE(found, nullptr);
    return *found;
  }
  // In the name of that peer, with numbers so far from its own.
  void Forge(bool backend, uint8_t flags, uint32_t seq_off, uint32_t ack_off, size_t payload) {
    const transport::Tcb& t = EndOf(backend);
    rig.link().Inject(1,
                      PacketBuilder()
                          .Ipv4(t.tuple.local.address.v4(), t.tuple.remote.address.v4())
                          .Tcp(t.tuple.local.port, t.tuple.remote.port, flags)
                          .Options({1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0})  // so that it is carried
                          .Sequence((t.snd_nxt + seq_off).value(), (t.rcv_nxt + ack_off).value())
                          .Payload(Bytes(payload, 'z'))
                          .Build());
    rig.Run(Millis(100));
  }
};

// Answers the first byte, and takes what comes after it; finishes when its client does.
struct Sink : transport::TcpHandler {
  explicit Sink(ServiceRig& r, uint32_t buffer = 0) : rig(r) {
    EXPECT_EQ(rig.tcp().Listen(EndpointOf(ServiceRig::Backend(8080)),
                               {.receive_buffer_max = buffer}, 16, this, listener),
              SocketError::kNone);
  }
  ~Sink() override { rig.tcp().CloseListener(listener, rig.now()); }
  void OnAcceptable(transport::TcpListenerId id, Nanos now) override {
    transport::TcpSocket s;
    while (rig.tcp().Accept(id, this, s) == SocketError::kNone) OnReadable(s, now);
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    static std::array<uint8_t, 65536> data;
    transport::IoResult result;
    while ((result = rig.tcp().Receive(s, data, now)).ok()) {
      if (received == 0) rig.tcp().Send(s, BytesOf("s"), now);
      received += result.bytes;
    }
    if (result.error == SocketError::kEndOfData) rig.tcp().Close(s, now);
  }
  void OnError(transport::TcpSocket s, SocketError, Nanos now) override { rig.tcp().Close(s, now); }

  ServiceRig& rig;
  transport::TcpListenerId listener;
  uint64_t received = 0;
};

struct SinkWorld {
  explicit SinkWorld(const ServiceRig::Options& options, uint32_t buffer = 0,
                     const ServiceConfig& config = TcpProxyTo({8080}))
      : rig(options), sink(rig, buffer) {
    rig.Apply({config});
    client = std::make_unique<TextClient>(rig, ServiceRig::Proxy(80), "x");
    EXPECT_TRUE(rig.RunUntil([&] { return client->got == "s"; }, Seconds(30)));
  }
  transport::Tcp& proxy() { return rig.link().host(1).tcp(); }
  // The client, which has said one byte before, finishes: `more` arrived and was counted, all has ended.
  void FinishesAfter(uint64_t more) {
    client->Finish();
    ASSERT_TRUE(rig.RunUntil([&] { return client->closed; }, Seconds(60)));
    EXPECT_EQ(client->error, SocketError::kNone);
    rig.Run(Seconds(1));
    EXPECT_EQ(sink.received, more + 1);
    EXPECT_EQ(rig.stats("web").bytes_in.Read(), more + 1);
    EXPECT_EQ(proxy().usage().splices, 0u);
  }

  ServiceRig rig;
  Sink sink;
  std::unique_ptr<TextClient> client;
};

// A FIN counts when its receiver has acknowledged it, not because somebody has sent one.
TEST(Rfc5961, SpliceSurvivesBlindFins) {
  // One of both numbers may be right.
  constexpr uint32_t kFar = 1000 * kMiB;
  const std::array<std::array<uint32_t, 2>, 6> forged = {{{kFar, 0},
                                                          {1u << 31, 0},
                                                          {0u - kFar, 0},
                                                          {0, kFar},
                                                          {1000, 0u - kFar},
                                                          {0u - 10, 1u << 31}}};
  for (const auto& [off, ack_off] : forged) {
    HostileWorld world;
    for (const bool backend : {false, true}) {
      world.Forge(backend, wire::kTcpFin | wire::kTcpAck, off, ack_off, 0);
    }
    EXPECT_EQ(world.spliced(), 1u) << off;
    EXPECT_TRUE(world.Says("y")) << off;
    EXPECT_EQ(world.client->error, SocketError::kNone);
    // Nor does it keep the relay from ending.
    world.client->Finish();
    EXPECT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(10))) << off;
    EXPECT_TRUE(world.rig.RunUntil([&] { return world.spliced() == 0; }, Seconds(1))) << off;
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 0u);
  }
}

// One with which the client's half has ended, and what the server sends then ends it all.
TEST(Rfc5961, BlindFinDoesNotEndAHalf) {
  HostileWorld world;
  world.Forge(false, wire::kTcpFin | wire::kTcpAck, 0u - 100u * kMiB, 0, 0);
  ASSERT_EQ(world.server.open.size(), 1u);
  ASSERT_EQ(world.rig.tcp().Shutdown(world.server.open[0], world.rig.now()), SocketError::kNone);
  ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->ended; }, Seconds(5)));
  world.rig.Run(Seconds(1));
  EXPECT_EQ(world.spliced(), 1u);
}

// What a stranger sends does not count as the client's data, and the client's counts after it.
TEST(Rfc5961, BlindDataDoesNotCount) {
  for (const uint32_t off : {8 * kMiB, 1000 * kMiB}) {
    HostileWorld world({}, IdleAfter(Seconds(10)));
    world.Forge(false, wire::kTcpAck, off, 500 * kMiB, 10);
    EXPECT_EQ(world.rig.stats("web").bytes_in.Read(), 1u) << off;
    EXPECT_TRUE(world.Says("y"));
    EXPECT_EQ(world.rig.stats("web").bytes_in.Read(), 2u) << off;
  }
}

// Even one that has guessed well cannot make a relay look idle while data passes.
TEST(Rfc5961, LuckyDataDoesNotMakeItIdle) {
  for (const uint32_t carry : {0u, 3u}) {
    HostileWorld world(Carrying(carry), IdleAfter(Seconds(10)));
    world.Forge(false, wire::kTcpAck, 8 * kMiB, 0, 10);
    world.Forge(true, wire::kTcpAck, 8 * kMiB, 0, 10);
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(world.Says("y")) << carry << i;
      world.rig.Run(Seconds(4));
    }
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 0u) << carry;
    // ACKs and probes alone are no use of it.
    world.rig.Run(Seconds(15));
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 1u) << carry;
  }
}

// Carried below the stack, a stranger's segments count no more than above it.
TEST(Rfc5961, BlindDataThatIsCarriedDoesNotCount) {
  for (const uint32_t off : {100 * kMiB, 1000 * kMiB, 0u - 1000 * kMiB}) {
    HostileWorld world(Carrying(3));
    for (int i = 0; i < 5; ++i) ASSERT_TRUE(world.Says("y"));
    const uint64_t carried = world.rig.link().host(1).carried();
    for (const bool backend : {false, true}) {
      for (int i = 0; i < 3; ++i) world.Forge(backend, wire::kTcpAck, off, 0u - off, 10);
    }
    ASSERT_TRUE(world.Says("y"));
    EXPECT_GE(world.rig.link().host(1).carried(), carried + 8);
    world.client->Finish();
    EXPECT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(10))) << off;
    EXPECT_TRUE(world.rig.RunUntil([&] { return world.spliced() == 0; }, Seconds(1))) << off;
    EXPECT_EQ(world.rig.stats("web").bytes_in.Read(), 7u) << off;
  }
}

// Nobody acknowledges what has not been sent, so it does not decide which number a reset has.
TEST(Rfc5961, AcksOfTheUnsentDoNotCount) {
  HostileWorld world;
  for (const bool backend : {false, true}) world.Forge(backend, wire::kTcpAck, 0u - 1, kMiB, 0);
  world.rig.Apply({});
  ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(40)));
  EXPECT_EQ(world.client->error, SocketError::kReset);
  EXPECT_TRUE(world.rig.RunUntil([&] { return world.server.errors == 1; }, Seconds(1)));
}

// A damaged one that would change the state goes nowhere, and is counted as nothing but dropped.
TEST(TcpSplice, DamagedFinsAreNotPassedOn) {
  HostileWorld world;
  world.rig.Run(Seconds(1));  // the last ACK has come by
  const transport::Tcb& t = world.EndOf(false);
  const uint64_t sent = world.proxy().counters().segments_sent.Read();
  const uint64_t passed = world.proxy().counters().segments_spliced.Read();
  world.rig.link().Inject(1, PacketBuilder()
                                 .Ipv4(t.tuple.local.address.v4(), t.tuple.remote.address.v4())
                                 .Tcp(t.tuple.local.port, 80, wire::kTcpFin | wire::kTcpAck)
                                 .Sequence(t.snd_nxt.value(), t.rcv_nxt.value())
                                 .BadChecksum()
                                 .Build());
  world.rig.Run(Millis(100));
  EXPECT_EQ(world.rig.link().host(1).dropped(DropReason::kChecksum), 1u);
  EXPECT_EQ(world.proxy().counters().segments_sent.Read(), sent);
  EXPECT_EQ(world.proxy().counters().segments_spliced.Read(), passed);
  EXPECT_TRUE(world.Says("y"));
}

// A segment without an acknowledgment has nothing in that field.
TEST(TcpSplice, NumbersOfSynsDoNotCount) {
  HostileWorld world;
  // As far as the relay knows, the client has acknowledged all that the server will say.
  world.Forge(false, wire::kTcpSyn, 0, kMiB, 0);
  EXPECT_EQ(world.spliced(), 1u);
  ASSERT_TRUE(world.Says("y"));
  // Who aborts does so with numbers that the peers believe.
  world.rig.Apply({});
  ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(40)));
  EXPECT_EQ(world.client->error, SocketError::kReset);
}

// More than a window is carried between two times that the stack is told of it.
TEST(TcpSplice, MuchIsCarriedAtOnce) {
  ServiceRig::Options options = Carrying(3);
  options.link.forward.delay = options.link.backward.delay = Micros(20);
  for (const bool severed : {false, true}) {
    SinkWorld world(options);
    world.client->Say(std::string(60'000'000, 'y'));
    if (!severed) {
      ASSERT_NO_FATAL_FAILURE(world.FinishesAfter(60'000'000));
      EXPECT_GT(world.rig.link().host(1).carried(), 40'000u);
      EXPECT_EQ(world.rig.Leftovers(), "");
      continue;
    }
    // Rules that reset the client name its latest number.
    world.rig.RunUntil([&] { return world.sink.received > 50'000'000; }, Seconds(60));
    const transport::Tcb* const client = world.rig.tcp().Find(world.client->socket);
    ASSERT_NE(client, nullptr);
    ASSERT_EQ(world.proxy().usage().splices, 1u);
    world.proxy().OnSevered({client->tuple.remote, client->tuple.local}, client->snd_una,
                            world.rig.now());
    EXPECT_EQ(world.proxy().usage().splices, 0u);
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kClientReset), 1u);
    world.rig.Run(Seconds(1));
  }
}

// XDP's entries end amid more than a window of which nobody has been told: what comes here next is far
// ahead of what is known, and is believed.
TEST(TcpSplice, MuchWasCarriedWhenItComesHereAgain) {
  ServiceRig::Options options = Carrying(3);
  options.link.hosts[1].tell_every = Seconds(1000);
  options.link.forward.delay = options.link.backward.delay = Micros(20);
  SinkWorld world(options);
  world.client->Say(std::string(60'000'000, 'y'));
  ASSERT_TRUE(world.rig.RunUntil([&] { return world.sink.received > 20'000'000; }, Seconds(60)));
  world.rig.link().host(1).StopCarrying();
  ASSERT_NO_FATAL_FAILURE(world.FinishesAfter(60'000'000));
  EXPECT_EQ(world.rig.Leftovers(), "");
}

// Something has been carried that nobody has told of yet when the time is up.
TEST(TcpSplice, BeforeItEndsByTimeTheLayerBelowIsAsked) {
  ServiceRig::Options options = Carrying(3);
  options.link.hosts[1].tell_every = Seconds(1000);
  HostileWorld world(options, IdleAfter(Seconds(10)));
  for (int i = 0; i < 8; ++i) {
    ASSERT_TRUE(world.Says("y")) << i;
    world.rig.Run(Seconds(4));
  }
  EXPECT_GT(world.rig.link().host(1).carried(), 8u);
  EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 0u);
  world.rig.Run(Seconds(15));
  EXPECT_EQ(world.rig.failed("web", ServiceFailure::kIdleTimeout), 1u);
}

// Our own link takes less than it did, and what is sent again while a FIN is not acknowledged is told of it
// as everything else is.
TEST(TcpSplice, TooLargeForOurLinkBehindAFin) {
  HostileWorld world;
  world.rig.link().host(1).set_mtu(600);
  world.rig.link().quality(1).mtu = 600;
  world.rig.link().quality(1).icmp = false;
  world.rig.link().filter = [lost = false](int from, const ServiceRig::Bytes& packet) mutable {
    if (from != 0 || packet.size() < 1000 || lost) return true;
    lost = true;
    return false;
  };
  world.client->Say(std::string(1000, 'y'));
  world.client->Finish();
  ASSERT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(60)));
  EXPECT_EQ(world.client->error, SocketError::kNone);
  EXPECT_EQ(world.server.received, "x" + std::string(1000, 'y'));
  EXPECT_EQ(world.rig.tcp().counters().black_holes.Read(), 0u);
}

// Both FINs cross, and one's acknowledgment is lost: who sends its FIN again is told so, and not
// reset.
TEST(TcpSplice, ClosedFromBothEndsAtOnce) {
  for (const bool to_backend : {false, true}) {
    HostileWorld world;
    ASSERT_EQ(world.server.open.size(), 1u);
    world.rig.Run(Seconds(1));  // delayed ACKs
    const uint16_t client_port = world.EndOf(false).tuple.local.port;
    bool lost = false;
    world.rig.link().filter = [=](int from, const ServiceRig::Bytes& packet) mutable {
      const uint8_t* const tcp = packet.data() + 20;
      const uint16_t to = to_backend ? 8080 : client_port;
      if (from != 1 || LoadBe16(tcp + 2) != to || tcp[13] != wire::kTcpAck || lost) return true;
      lost = true;
      return false;
    };
    world.rig.tcp().Shutdown(world.server.open[0], world.rig.now());
    world.rig.tcp().Shutdown(world.client->socket, world.rig.now());
    world.rig.Run(Seconds(20));
    EXPECT_EQ(world.spliced(), 0u);
    EXPECT_EQ(world.rig.tcp().counters().resets_received.Read(), 0u) << to_backend;
    EXPECT_EQ(world.server.errors, 0u);
  }
}

// RFC 6191: a port in TIME-WAIT is not used again within a second of its last segment.
TEST(TcpSplice, PortsInTimeWaitRestAsTheyDo) {
  for (const bool splice : {false, true}) {
    ServiceRig::Options options;
    options.link.hosts[1].config.tcp.first_port = 40'000;
    options.link.hosts[1].config.tcp.last_port = 40'000;
    ServiceConfig config = TcpProxyTo({8080});
    config.splice = splice;
    HostileWorld world(options, config);
    world.rig.Run(Seconds(5));
    world.client->Finish();
    ASSERT_TRUE(
        world.rig.RunUntil([&] { return world.rig.set().usage().relays == 0; }, Seconds(5)));
    world.rig.Run(Millis(100));
    ASSERT_EQ(world.proxy().usage().time_wait, 1u) << splice;
    TextClient again(world.rig, ServiceRig::Proxy(80), "x");
    world.rig.Run(Millis(200));
    EXPECT_EQ(world.rig.failed("web", ServiceFailure::kLimit), 1u) << splice;
  }
}

// Windows smaller than the other connection's unit would be told as closed ones.
TEST(TcpSplice, SmallWindows) {
  for (const bool splice : {false, true}) {
    ServiceRig rig;
    NamedServer server(rig, ServiceRig::Backend(8080), "s");
    ServiceConfig config = TcpProxyTo({8080});
    config.splice = splice;
    rig.Apply({config});
    TextClient client(rig, ServiceRig::Proxy(80), "x", false, {.receive_buffer_max = 100});
    ASSERT_TRUE(rig.RunUntil([&] { return client.got == "s:x"; }, Seconds(30))) << splice;
    client.Say(std::string(1000, 'y'));
    EXPECT_TRUE(rig.RunUntil([&] { return client.got.size() == 1003; }, Seconds(300)))
        << splice << " " << client.got.size();
  }
}

// Who probes is answered by the other peer, and learns when that has gone.
TEST(TcpSplice, KeepalivesGoThrough) {
  ServiceRig rig;
  NamedServer server(rig, ServiceRig::Backend(8080), "s");
  rig.Apply({TcpProxyTo({8080})});
  TextClient client(rig, ServiceRig::Proxy(80), "x", false,
                    {.keepalive = true,
                     .keepalive_probes = 3,
                     .keepalive_idle = Seconds(5),
                     .keepalive_interval = Seconds(1)});
  ASSERT_TRUE(rig.RunUntil([&] { return client.got == "s:x"; }, Seconds(30)));
  rig.Run(Seconds(60));
  EXPECT_GE(rig.tcp().counters().keepalive_probes.Read(), 10u);
  EXPECT_FALSE(client.closed);
  rig.Vanish(8080);
  rig.Run(Seconds(20));
  EXPECT_EQ(client.error, SocketError::kTimedOut);
  rig.Reappear();
}

// The peers probe each other's closed windows.
TEST(TcpSplice, ClosedWindows) {
  for (const uint32_t carry : {0u, 3u}) {
    HostileWorld world(Carrying(carry), IdleAfter(Seconds(1000)));
    world.client->reading = false;
    // More than buffers hold, so the server stops.
    world.client->Say(std::string(2'000'000, 'y'));
    world.rig.Run(Seconds(200));
    EXPECT_FALSE(world.client->closed) << carry;
    EXPECT_EQ(world.spliced(), 1u);
    const size_t had = world.client->got.size();
    world.client->reading = true;
    world.client->OnReadable(world.client->socket, world.rig.now());
    world.rig.Run(Seconds(200));
    EXPECT_GT(world.client->got.size(), had) << carry;
  }
}

// A client that has forgotten all, and begins anew with the same port.
TEST(TcpSplice, ClientsThatBeginAnew) {
  for (const bool splice : {false, true}) {
    ServiceConfig config = TcpProxyTo({8080});
    config.splice = splice;
    HostileWorld world({}, config);
    const transport::Tuple tuple = world.EndOf(false).tuple;
    world.rig.Run(Seconds(5));
    const auto filter = world.rig.link().filter;
    world.rig.link().filter = [](int, const ServiceRig::Bytes&) { return false; };
    world.client->Abort();
    world.rig.link().filter = filter;
    struct : transport::TcpHandler {
      void OnConnected(transport::TcpSocket, Nanos) override { connected = true; }
      bool connected = false;
    } again;
    transport::TcpSocket socket;
    ASSERT_EQ(
        world.rig.tcp().Connect(tuple.local, tuple.remote, {}, &again, world.rig.now(), socket),
        SocketError::kNone);
    EXPECT_TRUE(world.rig.RunUntil([&] { return again.connected; }, Seconds(10))) << splice;
    world.rig.Run(Seconds(2));
    EXPECT_EQ(world.server.errors, 1u) << splice;
    EXPECT_EQ(world.rig.set().usage().relays, 1u) << splice;
  }
}

// The far end's window is smaller than what the proxy has offered, and data for that is on its way.
TEST(TcpSplice, WindowsShrink) {
  for (const bool splice : {false, true}) {
    ServiceConfig config = TcpProxyTo({8080});
    config.splice = splice;
    SinkWorld world({}, 4000, config);
    world.client->Say(std::string(300'000, 'y'));
    world.client->Finish();
    EXPECT_TRUE(world.rig.RunUntil([&] { return world.client->closed; }, Seconds(60)))
        << splice << " " << world.sink.received;
    EXPECT_EQ(world.client->error, SocketError::kNone);
    EXPECT_EQ(world.sink.received, 300'001u);
    EXPECT_EQ(world.rig.Leftovers(), "");
  }
}

// RFC 7323: to each peer the proxy's clock does not go back, when a splice begins or ends, and what
// it echoes the peer has said.
TEST(Rfc7323, ClocksOfASplice) {
  for (const uint32_t carry : {0u, 3u}) {
    for (const bool drained : {false, true}) {
      HostileWorld world(Carrying(carry));
      struct Clock {
        uint32_t said = 0;
        uint32_t of_peer = 0;
        bool known = false;
      };
      std::map<uint32_t, Clock> clocks;  // by ports, the peer's first
      size_t seen = 0;
      world.rig.link().filter = [&](int from, const ServiceRig::Bytes& packet) {
        const uint8_t* const tcp = packet.data() + 20;
        if (packet[9] != 6 || (tcp[13] & (wire::kTcpSyn | wire::kTcpRst)) != 0) return true;
        if (tcp[12] >> 4 != 8 || LoadBe32(tcp + 20) != 0x0101080a) return true;
        const uint32_t value = LoadBe32(tcp + 24);
        const uint32_t echo = LoadBe32(tcp + 28);
        const uint32_t ports = LoadBe32(tcp);
        Clock& clock = clocks[from == 0 ? ports : ports << 16 | ports >> 16];
        if (from == 0) {
          clock.of_peer = value;
          clock.known = true;
          return true;
        }
        if (clock.said != 0) {
          EXPECT_GE(static_cast<int32_t>(value - clock.said), 0);
        }
        if (clock.known) {
          EXPECT_LE(static_cast<int32_t>(echo - clock.of_peer), 0);
        }
        clock.said = value;
        ++seen;
        return true;
      };
      TextClient second(world.rig, ServiceRig::Proxy(80), "z");
      for (int i = 0; i < 10; ++i) {
        world.rig.Run(Millis(i * 700));
        ASSERT_TRUE(world.Says("y"));
        second.Say("z");
      }
      world.rig.Run(Seconds(1));
      EXPECT_EQ(world.spliced(), 2u);
      if (drained) {
        world.rig.Apply({});
        world.rig.Run(Seconds(40));
      } else {
        world.client->Finish();
        second.Finish();
        world.rig.Run(Seconds(2));
      }
      EXPECT_TRUE(world.client->closed);
      EXPECT_EQ(world.spliced(), 0u);
      EXPECT_GT(seen, 30u);
    }
  }
}

}  // namespace
}  // namespace sluice::test
