// Sockets behind rules of DNAT: a connection to another port, or another address, that rules lead to a
// socket's. Whoever began it sees the port and address that it knows.
#include <map>
#include <memory>
#include <vector>

#include "sim/sockets_fixture.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::test {
namespace {

constexpr uint8_t kReg = 1;

Exprs Dport(uint8_t protocol, uint16_t port) {
  return L4Proto(protocol) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(port))};
}

// What comes to a connected socket of UDP.
class Datagrams final : public transport::UdpHandler {
 public:
  explicit Datagrams(transport::Udp& udp) : udp_(udp) {}
  SocketError Send(const char* to, uint16_t port, size_t size, Nanos now) {
    if (!socket_.valid()) {
      const SocketError opened = udp_.Open({}, {*ParseIpAddress(to), port}, this, socket_);
      if (opened != SocketError::kNone) return opened;
    }
    return udp_.Send(socket_, std::vector<uint8_t>(size), now).error;
  }
  void OnReadable(transport::UdpSocket s, Nanos) override {
    std::vector<uint8_t> buffer(8192);
    while (udp_.Receive(s, buffer, from).ok()) ++received;
  }
  void OnError(transport::UdpSocket, SocketError e, Nanos) override { error = e; }

  size_t received = 0;
  Endpoint from;
  SocketError error = SocketError::kNone;

 private:
  transport::Udp& udp_;
  transport::UdpSocket socket_;
};

class SocketsNatSimTest : public SocketsSimTest {
 protected:
  // tcp and udp dport 80 counter redirect to :`port`; and a counter of new connections at INPUT.
  static RulesetModel Redirect(uint16_t port) {
    RulesetModel m(nft::TableFamily::kInet);
    nft::RedirExpr to;
    to.proto_min = kReg;
    m.Base("pre", kPrerouting, -100, 1, "nat");
    for (const uint8_t protocol : {6, 17}) {
      m.Rule(Dport(protocol, 80) + Exprs{nft::CounterExpr{}, Set(Net16(port), kReg), to});
    }
    m.Base("in", kInput).Rule(L4Proto(6) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(port)),
                                                 nft::CounterExpr{}});
    return m;
  }
  // ip daddr 203.0.113.1 tcp and udp dport 80 dnat to `address`:`port`.
  static RulesetModel Dnat(const char* address, uint16_t port, uint32_t hook = kPrerouting) {
    RulesetModel m;
    nft::NatExpr to;
    to.destination = true;
    to.family = 2;
    to.addr_min = kReg;
    to.proto_min = kReg + 1;
    m.Base("dnat", hook, -100, 1, "nat");
    for (const uint8_t protocol : {6, 17}) {
      m.Rule(Daddr("203.0.113.1") + Dport(protocol, 80) +
             Exprs{Set(Addr(address), kReg), Set(Net16(port), kReg + 1), to});
    }
    return m;
  }
  void Exchange(const std::vector<const char*>& to, uint16_t port, int each) {
    std::vector<std::unique_ptr<Client>> clients;
    for (int i = 0; i < each; ++i) {
      for (const char* address : to) {
        clients.push_back(std::make_unique<Client>(h->sockets().tcp(), 50'000));
        ASSERT_EQ(clients.back()->Connect(address, port, net.now()), SocketError::kNone);
      }
    }
    net.Run(Seconds(20));
    for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
    EXPECT_EQ(Accepted(), clients.size());
  }
};

TEST_P(SocketsNatSimTest, ARedirectedConnectionReachesTheSocket) {
  Use(Redirect(kPort));
  Exchange({"10.0.0.1", "2001:db8::1"}, 80, 6);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 12u) << "each connection's first packet, once";
  EXPECT_GT(ruleset->RuleCount(2).packets, 100u) << "INPUT sees the port behind the translation";
  EXPECT_EQ(r->Dropped(), 0u);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(SocketsNatSimTest, ARedirectedConnectionToSomebodyElseReachesTheSocket) {
  Use(Redirect(kPort));
  Exchange({"203.0.113.7", "2001:db8:7::7"}, 80, 4);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

// A client's ports may come twice: by the translation, and straight.
TEST_P(SocketsNatSimTest, TheSamePortsByBothWaysAreTwoConnections) {
  Use(Redirect(kPort));
  for (const uint16_t port : {uint16_t{80}, kPort}) {
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(5555, port).Payload(size_t{40}));
    net.Run(Millis(100));
  }
  ASSERT_EQ(h->unclaimed.size(), 2u);
  const uint16_t from[] = {LoadBe16(h->unclaimed[0].data() + 20),
                           LoadBe16(h->unclaimed[1].data() + 20)};
  EXPECT_EQ(from[0], 80);
  EXPECT_EQ(from[1], kPort);
  for (const Bytes& answer : h->unclaimed) EXPECT_EQ(LoadBe16(answer.data() + 22), 5555);
}

TEST_P(SocketsNatSimTest, RedirectedDatagramsAreAnsweredFromThePortTheyWereSentTo) {
  Use(Redirect(kPort));
  for (uint16_t source = 5000; source < 5010; ++source) {
    h->link().Send(
        PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(source, 80).Payload(size_t{100}));
    h->link().Send(
        PacketBuilder().Ipv6("2001:db8::2", "2001:db8::1").Udp(source, 80).Payload(size_t{100}));
  }
  net.Run(Millis(100));
  ASSERT_EQ(h->unclaimed.size(), 20u);
  for (const Bytes& answer : h->unclaimed) {
    const size_t l4 = answer[0] >> 4 == 4 ? 20 : 40;
    EXPECT_EQ(LoadBe16(answer.data() + l4), 80);
  }
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(SocketsNatSimTest, DnatToTheSocketsAddressAndPortReachesIt) {
  Use(Dnat("10.0.0.1", kPort));
  Exchange({"203.0.113.1"}, 80, 6);
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(SocketsNatSimTest, WhatIsLedToAPortWithoutASocketIsTheKernels) {
  Use(Redirect(kPort + 1));
  for (uint16_t source = 1000; source < 1010; ++source) {
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Tcp(source, 80, 0x02));
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(source, 80));
  }
  net.Run(Millis(100));
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 20u);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 0u) << "the kernel counts";
}

// A range of which the first port is no socket's and the last is: what rules cannot foresee goes to the
// kernel as it came, with its connection.
TEST_P(SocketsNatSimTest, ARandomPortOfARangeNeverSplitsAConnection) {
  RulesetModel m;
  nft::RedirExpr to;
  to.proto_min = kReg;
  to.proto_max = kReg + 1;
  to.flags = 1u << 2;  // NF_NAT_RANGE_PROTO_RANDOM
  m.Base("pre", kPrerouting, -100, 1, "nat")
      .Rule(Dport(17, 80) + Exprs{Set(Net16(kPort), kReg), Set(Net16(kPort + 1), kReg + 1), to});
  Use(m);
  for (int round = 0; round < 3; ++round) {
    for (uint16_t source = 3000; source < 3020; ++source) {
      h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(source, 80).Payload(size_t{9}));
    }
    net.Run(Millis(100));
  }
  std::map<uint16_t, int> answered, punted;
  for (const Bytes& b : h->unclaimed) ++answered[LoadBe16(b.data() + 22)];
  for (const Bytes& b : r->punted) {
    if (b[14 + 9] == 17) ++punted[LoadBe16(b.data() + 34)];
  }
  EXPECT_FALSE(answered.empty());
  for (uint16_t source = 3000; source < 3020; ++source) {
    EXPECT_EQ(answered[source] + punted[source], 3) << source;
    EXPECT_TRUE(answered[source] == 0 || punted[source] == 0) << source;
  }
}

// What the kernel has had before a service listens: its datagrams have no state, so the next one is the
// service's, however long its client keeps its port; a segment may be of a connection of the kernel's.
TEST_P(SocketsNatSimTest, DatagramsOfAFlowOfTheKernelsReachASocketThatComesLater) {
  constexpr uint16_t kLater = kPort + 1;
  Use(Redirect(kLater));
  const auto send = [&] {
    h->unclaimed.clear();
    for (const uint16_t port : {uint16_t{80}, kLater}) {
      const auto source = static_cast<uint16_t>(5000 + port);
      h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(source, port).Payload(size_t{9}));
      h->link().Send(
          PacketBuilder().Ipv6("2001:db8::2", "2001:db8::1").Udp(source, port).Payload(size_t{9}));
      h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Tcp(source, port, 0x02));
    }
    net.Run(Millis(100));
  };
  send();
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 6u);
  EXPECT_TRUE(h->unclaimed.empty());
  std::vector<std::unique_ptr<examples::EchoServer>> later;
  for (size_t w = 0; w < r->worker_count(); ++w) {
    transport::Transport& stack = *r->worker(w).pipeline().sockets().stack();
    later.push_back(std::make_unique<examples::EchoServer>(stack.tcp()));
    ASSERT_EQ(later.back()->Listen({IpAddress(Ipv4()), kLater}), SocketError::kNone);
    for (const IpAddress any : {IpAddress(Ipv4()), IpAddress(Ipv6())}) {
      transport::UdpSocket socket;
      ASSERT_EQ(stack.udp().Bind({any, kLater}, udp_servers[w].get(), socket), SocketError::kNone);
    }
  }
  for (int round = 1; round < 4; ++round) {
    send();
    EXPECT_EQ(r->Punted(PuntReason::kLocal), 6u + 2u * static_cast<unsigned>(round))
        << "the segments, which are the kernel's";
    ASSERT_EQ(h->unclaimed.size(), 4u);
    for (const Bytes& answer : h->unclaimed) {
      const size_t l4 = answer[0] >> 4 == 4 ? 20 : 40;
      EXPECT_EQ(LoadBe16(answer.data() + l4), LoadBe16(answer.data() + l4 + 2) - 5000);
    }
  }
  EXPECT_EQ(r->Dropped(), 0u);
}

// A router on the way says that a translated connection's segment was too large, and quotes it as it
// was on the wire.
TEST_P(SocketsNatSimTest, AnIcmpErrorAboutATranslatedDatagramIsTheSockets) {
  Use(Redirect(kPort));
  h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(5000, 80).Payload(size_t{100}));
  net.Run(Millis(100));
  ASSERT_EQ(h->unclaimed.size(), 1u);
  h->link().Send(PacketBuilder().Ipv4("10.0.0.9", "10.0.0.1").Icmp(3, 3).Payload(h->unclaimed[0]));
  net.Run(Millis(100));
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

// The other way round: rules of OUTPUT lead what sockets send elsewhere.
class OutputNatSimTest : public SocketsNatSimTest {
 protected:
  void SetUp() override {
    r->AddRoute("203.0.113.0/24", "10.0.0.2");
    for (size_t w = 0; w < r->worker_count(); ++w) {
      datagrams.push_back(
          std::make_unique<Datagrams>(r->worker(w).pipeline().sockets().stack()->udp()));
    }
  }
  void SendDatagrams(size_t size) {
    r->OnWorkers([this, size](SimRouter::Worker& worker) {
      EXPECT_EQ(datagrams[worker.id().value]->Send("203.0.113.1", 80, size, worker.now()),
                SocketError::kNone);
    });
    net.Run(Millis(100));
  }
  void Connect(size_t size) {
    for (auto& client : ConnectFromWorkers(size, "203.0.113.1")) clients.push_back(std::move(client));
  }
  void ExpectDone() const {
    for (const auto& client : clients) EXPECT_TRUE(client->done()) << client->received;
  }

  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::unique_ptr<Datagrams>> datagrams;
};

TEST_P(OutputNatSimTest, AnswersComeToTheConnectionsThatWereLedElsewhere) {
  Use(Dnat("10.0.0.2", 8080, kOutput));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 8080}), SocketError::kNone);
  for (int i = 0; i < 5; ++i) Connect(50'000);
  net.Run(Seconds(20));
  ExpectDone();
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

TEST_P(OutputNatSimTest, AnswersAndErrorsComeToTheDatagramsThatWereLedElsewhere) {
  Use(Dnat("10.0.0.2", 8080, kOutput));
  SendDatagrams(9);
  ASSERT_EQ(h->unclaimed.size(), r->worker_count());
  for (const Bytes& sent : h->unclaimed) {
    EXPECT_EQ(LoadBe16(sent.data() + 22), 8080);
    h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(8080, LoadBe16(sent.data() + 20))
                       .Payload(size_t{9}));
    h->link().Send(PacketBuilder().Ipv4("10.0.0.9", "10.0.0.1").Icmp(3, 3).Payload(sent));
  }
  net.Run(Millis(100));
  for (const auto& d : datagrams) {
    EXPECT_EQ(d->received, 1u);
    EXPECT_EQ(d->from, (Endpoint{*ParseIpAddress("203.0.113.1"), 80}));
    EXPECT_EQ(d->error, SocketError::kUnreachable);
  }
  EXPECT_EQ(r->Punted(PuntReason::kLocal), 0u);
}

// The worker that saw the answers forgets whose they were: else it had the ports of the dead for days.
TEST_P(OutputNatSimTest, ConnectionsThatWereLedElsewhereLeaveNothingBehind) {
  Use(Dnat("10.0.0.2", 8080, kOutput));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 8080}), SocketError::kNone);
  for (int i = 0; i < 5; ++i) Connect(1000);
  net.Run(Seconds(600));
  ExpectDone();
  for (size_t w = 0; w < r->worker_count(); ++w) {
    EXPECT_EQ(r->worker(w).pipeline().firewall().flows().size(), 0u) << "worker " << w;
  }
}

// ... whose link may be narrower than the one that the socket knows.
TEST_P(OutputNatSimTest, WhatIsLedToANarrowerLinkFits) {
  r->AddInterface("right", "02:00:00:00:00:02", {"10.1.0.1/24"}, 1000);
  r->Publish();
  auto& narrow = static_cast<SocketHost&>(
      net.Add(std::make_unique<SocketHost>("narrow", "02:00:00:00:0b:00", "10.1.0.2/24",
                                           "2001:db8:1::2/64", "10.1.0.1", "2001:db8:1::1", net.now())));
  SimLink& right = net.Connect(narrow, 0, *r, r->PortOf("right"));
  size_t largest = 0;
  right.lose_if = [&](const Bytes& frame) {
    if (frame[4] == 0x0b) largest = std::max(largest, frame.size() - 14);  // to it
    return false;
  };
  Use(Dnat("10.1.0.2", 8080, kOutput));
  examples::EchoServer server(narrow.sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 8080}), SocketError::kNone);
  Connect(50'000);
  net.Run(Seconds(5));
  ExpectDone();
  SendDatagrams(3000);
  EXPECT_EQ(narrow.unclaimed.size(), 4 * r->worker_count());
  EXPECT_LE(largest, 1000u);
  EXPECT_GT(largest, 900u);
}

INSTANTIATE_TEST_SUITE_P(Workers, OutputNatSimTest, testing::Values(1, 2, 3));
INSTANTIATE_TEST_SUITE_P(Workers, SocketsNatSimTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace sluice::test
