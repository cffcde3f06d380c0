// Sockets on workers: the whole router with a transport stack on each worker, and a host that talks to
// it. Checked after every step (SimRouter): all frames are somewhere, all packets have one outcome.
#include <algorithm>
#include <map>
#include <memory>
#include <vector>

#include "sim/sockets_fixture.h"

namespace sluice::test {
namespace {

TEST_P(SocketsSimTest, EchoOverBothFamilies) {
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(std::make_unique<Client>(h->sockets().tcp(), 100'000));
    ASSERT_EQ(clients.back()->Connect(i % 2 == 0 ? "10.0.0.1" : "2001:db8::1", kPort, net.now()),
              SocketError::kNone);
  }
  net.Run(Seconds(20));
  for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
  EXPECT_EQ(Accepted(), 20u);
  EXPECT_EQ(r->Dropped(), 0u);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
  for (size_t w = 0; w < r->worker_count(); ++w) {
    EXPECT_GT(r->worker(w).counters().generated[static_cast<size_t>(GeneratedKind::kSocket)].Read(),
              0u)
        << "worker " << w << " has had no connection";
  }
}

// What workers get in the wrong order or not at all, TCP puts right.
TEST_P(SocketsSimTest, EchoOverABadLink) {
  link->options.loss = 0.02;
  link->options.duplicate = 0.01;
  link->options.reorder = 0.05;
  Client client(h->sockets().tcp(), 1'000'000);
  ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Seconds(60));
  EXPECT_TRUE(client.done()) << client.received;
}

TEST_P(SocketsSimTest, ConnectionsFromHereComeBackToTheirWorker) {
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 80}), SocketError::kNone);
  const auto clients = ConnectFromWorkers(50'000, "10.0.0.2", 10);
  net.Run(Seconds(20));
  for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(SocketsSimTest, WhatNoSocketWantsIsTheKernels) {
  for (uint16_t port = 1000; port < 1010; ++port) {
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Tcp(port, 22, 0x02));
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(port, 53));
  }
  net.Run(Millis(100));
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 20u);
}

// RFC 1122 section 4.2.3.9: a hard error ends a handshake.
TEST_P(SocketsSimTest, AnIcmpErrorReachesTheConnectionItIsAbout) {
  r->AddRoute("10.9.0.0/16", "10.0.0.2");
  const auto clients = ConnectFromWorkers(1, "10.9.0.9");
  net.Run(Millis(100));
  ASSERT_EQ(h->unclaimed.size(), r->worker_count());
  for (const Bytes& syn : h->unclaimed) {
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Icmp(3, 3).Payload(syn));
  }
  net.Run(Millis(100));
  for (const auto& client : clients) EXPECT_EQ(client->error, SocketError::kUnreachable);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(SocketsSimTest, InputRulesStandBeforeSockets) {
  Use(Guarded(kPort));
  Client good(h->sockets().tcp(), 100'000);
  ASSERT_EQ(good.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  Client good6(h->sockets().tcp(), 100'000);
  ASSERT_EQ(good6.Connect("2001:db8::1", kPort, net.now()), SocketError::kNone);
  net.Run(Seconds(5));
  EXPECT_TRUE(good.done() && good6.done());
  EXPECT_EQ(ruleset->RuleCount(1).packets, 2u) << "new connections, once each";
  EXPECT_GT(ruleset->RuleCount(0).packets, 100u);
  EXPECT_EQ(r->Dropped(), 0u);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);

  Use(Guarded(kPort + 1));
  Client refused(h->sockets().tcp(), 1);
  ASSERT_EQ(refused.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Seconds(10));
  EXPECT_FALSE(refused.connected);
  EXPECT_GT(r->Dropped(DropReason::kFirewallRule), 1u);
  EXPECT_EQ(Accepted(), 2u);
  net.Run(Seconds(300));
  EXPECT_TRUE(refused.closed);
}

// Answers to connections from here are established, whatever INPUT says to new ones.
TEST_P(SocketsSimTest, AnswersPassInputByTheirConnection) {
  Use(Guarded(1));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 80}), SocketError::kNone);
  const auto clients = ConnectFromWorkers(50'000);
  net.Run(Seconds(5));
  for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
  EXPECT_EQ(ruleset->RuleCount(1).packets, 0u);
  EXPECT_GT(ruleset->RuleCount(2).packets, 10u) << "OUTPUT";
  EXPECT_EQ(r->Dropped(), 0u);
}

// What one source may have is for others: connections from here all have the same.
TEST_P(SocketsSimTest, ConnectionsFromHereDoNotCountAsOneSources) {
  Use(Guarded(kPort));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 80}), SocketError::kNone);
  const auto clients = ConnectFromWorkers(1000, "10.0.0.2", 3 * kFlowsPerSource);
  net.Run(Seconds(20));
  for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
  EXPECT_EQ(r->Dropped(), 0u);

  // ... and those of others are counted as ever.
  std::vector<std::unique_ptr<Client>> of_one;
  for (size_t i = 0; i < 10 * r->worker_count() * kFlowsPerSource; ++i) {
    of_one.push_back(std::make_unique<Client>(h->sockets().tcp(), 1));
    ASSERT_EQ(of_one.back()->Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  }
  net.Run(Seconds(1));
  EXPECT_LE(Accepted(), r->worker_count() * kFlowsPerSource);
  EXPECT_GT(r->Dropped(DropReason::kConntrackPerSource), 0u);
  net.Run(Seconds(300));
}

// IPv6 counts by the /64, which a router's own addresses share with their neighbours.
TEST_P(SocketsSimTest, ConnectionsFromHereLeaveNeighboursOfTheirPrefixTheirShare) {
  Use(Guarded(kPort));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv6()), 80}), SocketError::kNone);
  const auto clients = ConnectFromWorkers(1, "2001:db8::2", 3 * kFlowsPerSource);
  net.Run(Seconds(20));
  for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;

  std::vector<std::unique_ptr<Client>> neighbours;
  for (int i = 0; i < 10; ++i) {
    neighbours.push_back(std::make_unique<Client>(h->sockets().tcp(), 1));
    ASSERT_EQ(neighbours.back()->Connect("2001:db8::1", kPort, net.now()), SocketError::kNone);
  }
  net.Run(Seconds(5));
  for (const auto& client : neighbours) EXPECT_TRUE(client->done());
  EXPECT_EQ(r->Dropped(), 0u);
  net.Run(Seconds(300));
}

TEST_P(SocketsSimTest, OutputRulesStandBehindSockets) {
  RulesetModel m;
  m.Base("out", kOutput, 0, 1).Rule(L4Proto(6) + Exprs{nft::CounterExpr{}, Drop()});
  Use(m);
  Client client(h->sockets().tcp(), 1);
  ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Seconds(5));
  EXPECT_FALSE(client.connected);
  EXPECT_GT(ruleset->RuleCount(0).packets, 1u);
  net.Run(Seconds(300));
}

TEST_P(SocketsSimTest, DatagramsInFragmentsArePutTogether) {
  for (uint16_t source = 5000; source < 5010; ++source) {
    const Bytes whole = PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(source, kPort)
                            .Payload(size_t{3000}).Build();
    for (size_t at = 0; at < whole.size() - 20; at += 1480) {
      const auto from = whole.begin() + 20 + static_cast<long>(at);
      const size_t size = std::min<size_t>(1480, whole.size() - 20 - at);
      PacketBuilder piece;
      piece.Ipv4("10.0.0.2", "10.0.0.1").Id(source).Protocol(17)
          .FragmentOffset(static_cast<uint16_t>(at));
      if (at + size + 20 < whole.size()) piece.MoreFragments();
      h->link().Send(piece.Payload(Bytes(from, from + static_cast<long>(size))));
    }
  }
  net.Run(Millis(100));
  size_t got = 0;
  for (const auto& server : udp_servers) {
    for (const uint32_t size : server->sizes) got += size == 3000;
  }
  EXPECT_EQ(got, 10u);
  EXPECT_EQ(h->unclaimed.size(), 10u) << "answers";
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

// RFC 1112: the members get it, as does the kernel, which keeps the groups.
class MulticastSimTest : public SocketsSimTest {
 protected:
  static constexpr uint16_t kGroupPort = 5353;

  // On each worker, of both families.
  void JoinEverywhere() {
    for (size_t w = 0; w < r->worker_count(); ++w) {
      transport::Udp& udp = r->worker(w).pipeline().sockets().stack()->udp();
      for (const char* group : {"239.1.2.3", "ff05::1:3"}) {
        const IpAddress to = *ParseIpAddress(group);
        transport::UdpSocket socket;
        EXPECT_EQ(udp.Bind({to.is_v4() ? IpAddress(Ipv4()) : IpAddress(Ipv6()), kGroupPort},
                           udp_servers[w].get(), socket),
                  SocketError::kNone);
        EXPECT_EQ(udp.Join(socket, to), SocketError::kNone);
      }
    }
  }
  void SendTo(const char* group4, const char* group6, uint16_t port) {
    for (uint16_t source = 6000; source < 6010; ++source) {
      h->link().SendFrame(PacketBuilder().Ethernet("02:00:00:00:0a:00", "01:00:5e:01:02:03")
                              .Ipv4("10.0.0.2", group4).Udp(source, port).Payload(size_t{100})
                              .Build());
      h->link().SendFrame(PacketBuilder().Ethernet("02:00:00:00:0a:00", "33:33:00:01:00:03")
                              .Ipv6("2001:db8::2", group6).Udp(source, port).Payload(size_t{100})
                              .Build());
    }
    net.Run(Millis(100));
  }
  size_t Got() const {
    size_t got = 0;
    for (const auto& server : udp_servers) got += server->sizes.size();
    return got;
  }
  size_t KernelGot() const {
    return static_cast<size_t>(std::count_if(r->punted.begin(), r->punted.end(), [](const Bytes& b) {
      return b[0] == 1 || (b[0] == 0x33 && b[14 + 6] == 17);
    }));
  }
};

TEST_P(MulticastSimTest, MembersAndTheKernelGetEachDatagramOnce) {
  JoinEverywhere();
  SendTo("239.1.2.3", "ff05::1:3", kGroupPort);
  EXPECT_EQ(Got(), 20u);
  EXPECT_EQ(KernelGot(), 20u);
  EXPECT_EQ(h->unclaimed.size(), 20u) << "answers, from an address of the router's own";
  EXPECT_EQ(r->Dropped(), 0u);
}

TEST_P(MulticastSimTest, OtherGroupsAndPortsAreTheKernelsAlone) {
  JoinEverywhere();
  SendTo("239.1.2.4", "ff05::1:4", kGroupPort);
  SendTo("239.1.2.3", "ff05::1:3", kGroupPort + 1);
  EXPECT_EQ(Got(), 0u);
  EXPECT_EQ(r->Punted(PuntReason::kMulticast), 40u);
}

TEST_P(MulticastSimTest, InputRulesStandBeforeMembers) {
  JoinEverywhere();
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("in", kInput, 0, 1).Rule(L4Proto(17) + Exprs{Ct(0), And(Host32(8)), Cmp(kNeq, Host32(0)),
                                                      nft::CounterExpr{}, Drop()});
  Use(m);
  SendTo("239.1.2.3", "ff05::1:3", kGroupPort);
  EXPECT_EQ(Got(), 0u);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 20u);
  EXPECT_EQ(r->Dropped(DropReason::kFirewallRule), 20u);
  EXPECT_EQ(KernelGot(), 20u) << "it judges its own copy";
}

// What the kernel's routes say of unicast addresses does not concern groups.
TEST_P(MulticastSimTest, ADefaultRouteLeadsGroupsNowhere) {
  JoinEverywhere();
  r->AddRoute("0.0.0.0/0", tables::RouteType::kPunt);  // by an interface that is not served
  r->AddRoute("::/0", tables::RouteType::kPunt);
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("in", kInput).Rule(L4Proto(17) + Exprs{Ct(0), nft::CounterExpr{}, Accept()});
  Use(m);
  SendTo("239.1.2.3", "ff05::1:3", kGroupPort);
  EXPECT_EQ(Got(), 20u);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 20u);
  EXPECT_EQ(KernelGot(), 20u);
  EXPECT_EQ(r->Dropped(), 0u);
}

// Joined on another interface, it is not for a socket of ours, although it came to the worker.
TEST_P(MulticastSimTest, GroupsComeByTheInterfacesTheyAreJoinedOn) {
  std::vector<std::pair<size_t, transport::UdpSocket>> joined;
  for (const bool here : {false, true}) {
    IfaceSet on;
    on.Add(IfaceSlot{static_cast<uint8_t>(here ? 0 : 1)});
    for (size_t w = 0; w < r->worker_count(); ++w) {
      transport::Udp& udp = r->worker(w).pipeline().sockets().stack()->udp();
      const IpAddress group = *ParseIpAddress("239.1.2.3");
      transport::UdpSocket socket;
      EXPECT_EQ(udp.Bind({group, kGroupPort}, udp_servers[w].get(), socket), SocketError::kNone);
      EXPECT_EQ(udp.Join(socket, group, on), SocketError::kNone);
      joined.push_back({w, socket});
    }
    SendTo("239.1.2.3", "ff05::1:3", kGroupPort);
    EXPECT_EQ(Got(), here ? 10u : 0u);
    for (const auto& [w, socket] : joined) {
      r->worker(w).pipeline().sockets().stack()->udp().Close(socket);
    }
    joined.clear();
  }
  EXPECT_EQ(KernelGot(), 40u);
}

// In one jumbo frame, which takes several of ours.
TEST_P(MulticastSimTest, DatagramsOfSeveralFrames) {
  JoinEverywhere();
  for (uint16_t source = 6000; source < 6010; ++source) {
    h->link().SendFrame(PacketBuilder().Ethernet("02:00:00:00:0a:00", "01:00:5e:01:02:03")
                            .Ipv4("10.0.0.2", "239.1.2.3").Udp(source, kGroupPort)
                            .Payload(size_t{8000}).Build());
  }
  net.Run(Millis(100));
  EXPECT_EQ(Got(), 10u);
  ASSERT_EQ(KernelGot(), 10u);
  for (const auto& server : udp_servers) {
    for (const uint32_t size : server->sizes) EXPECT_EQ(size, 8000u);
  }
  for (const Bytes& b : r->punted) {
    if (b[0] != 1) continue;
    ASSERT_EQ(b.size(), 14u + 20 + 8 + 8000);
    for (size_t i = 0; i < 8000; ++i) ASSERT_EQ(b[14 + 20 + 8 + i], i % 251) << i;
  }
  EXPECT_EQ(r->Dropped(), 0u);
}

// Datagrams for a group that come in fragments: on one worker, where a burst stays one.
class MulticastPiecesSimTest : public MulticastSimTest {
 protected:
  static constexpr uint16_t kPiece = 1480;

  // The fragments `from` to `to` of a datagram that is so many long.
  void SendPieces(uint16_t id, int from, int to, int count) {
    const Bytes whole = PacketBuilder().Ipv4("10.0.0.2", "239.1.2.3").Udp(6000, kGroupPort)
                            .Payload(static_cast<size_t>(count * kPiece - 8)).Build();
    for (int i = from; i < to; ++i) {
      PacketBuilder piece;
      piece.Ethernet("02:00:00:00:0a:00", "01:00:5e:01:02:03").Ipv4("10.0.0.2", "239.1.2.3").Id(id)
          .Protocol(17).FragmentOffset(static_cast<uint16_t>(i * kPiece));
      if (i + 1 < count) piece.MoreFragments();
      const auto at = whole.begin() + 20 + i * kPiece;
      h->link().SendFrame(piece.Payload(Bytes(at, at + kPiece)).Build());
    }
  }
};

// There is no room for all that the kernel is to have of a burst.
TEST_P(MulticastPiecesSimTest, TheKernelAndMembersHaveTheSameWhenThereIsNoRoomForAll) {
  constexpr uint16_t kDatagrams = 64;
  constexpr int kPieces = 5;
  JoinEverywhere();
  RulesetModel m;
  m.Base("in", kInput).Rule({Ct(0), nft::CounterExpr{}});
  Use(m);
  for (uint16_t id = 1; id <= kDatagrams; ++id) SendPieces(id, 0, kPieces - 1, kPieces);
  for (uint16_t id = 1; id <= kDatagrams; ++id) SendPieces(id, kPieces - 1, kPieces, kPieces);
  net.Run(Millis(100));
  std::map<uint16_t, int> pieces;
  for (const Bytes& b : r->punted) {
    if (b[0] == 1) ++pieces[LoadBe16(&b[14 + 4])];
  }
  EXPECT_TRUE(std::any_of(pieces.begin(), pieces.end(),
                          [](const auto& of) { return of.second < kPieces; }));
  EXPECT_EQ(Got(), pieces.size()) << "what the kernel has something of, members have";
  EXPECT_EQ(r->Dropped(DropReason::kPuntFailed), kDatagrams - pieces.size());
}

TEST_P(MulticastPiecesSimTest, WhatXdpHasCountedIsTakenBackForTheKernelsCopy) {
  JoinEverywhere();
  RulesetModel m;
  m.Base("raw", kPrerouting, -300)
      .Rule(L4Proto(17) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(kGroupPort)),
                                nft::CounterExpr{}});
  m.Base("in", kInput).Rule({Ct(0), nft::CounterExpr{}});
  auto out = std::make_shared<tables::EarlyLeftOut>();
  out->rules = {tables::kEarlyAll, 0};
  out->policies = {0, 0};
  r->config().left_out = std::move(out);
  Use(m);
  SendPieces(1, 0, 3, 3);
  net.Run(Millis(100));
  EXPECT_EQ(Got(), 1u);
  EXPECT_EQ(KernelGot(), 3u);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 0 - uint64_t{1}) << "the one with ports";
  r->config().left_out = nullptr;
}

// Without rules as with them; whole for the members, and as they came for the kernel.
class MulticastFragmentsSimTest : public MulticastPiecesSimTest {};

TEST_P(MulticastFragmentsSimTest, ArePutTogetherForMembers) {
  JoinEverywhere();
  for (uint16_t id = 1; id <= 10; ++id) SendPieces(id, 0, 3, 3);
  net.Run(Millis(100));
  EXPECT_EQ(Got(), 10u);
  EXPECT_EQ(KernelGot(), 30u);
  for (const auto& server : udp_servers) {
    for (const uint32_t size : server->sizes) EXPECT_EQ(size, 3u * kPiece - 8);
  }
  EXPECT_EQ(r->Dropped(), 0u);
}

INSTANTIATE_TEST_SUITE_P(OneWorker, MulticastPiecesSimTest, testing::Values(1));
INSTANTIATE_TEST_SUITE_P(Workers, MulticastFragmentsSimTest, testing::Values(1, 2, 3));
INSTANTIATE_TEST_SUITE_P(Workers, MulticastSimTest, testing::Values(1, 2, 3));
INSTANTIATE_TEST_SUITE_P(Workers, SocketsSimTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace sluice::test
