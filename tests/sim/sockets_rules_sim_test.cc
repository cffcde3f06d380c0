// Sockets and rules that Sluice cannot carry out, or that reject: whoever speaks to a socket is told, and
// so is the socket.
#include <algorithm>
#include <iterator>
#include <memory>
#include <span>
#include <vector>

#include "sim/sockets_fixture.h"

namespace sluice::test {
namespace {

class SocketsRulesSimTest : public SocketsSimTest {
 protected:
  // A rule for what is to or from `port` that Sluice cannot carry out, as nft's `queue`.
  static RulesetModel CannotDo(uint32_t hook, uint8_t protocol, uint16_t port) {
    RulesetModel m(nft::TableFamily::kInet);
    m.Base("c", hook).Rule(L4Proto(protocol) +
                           Exprs{Payload(kTransport, hook == kInput ? 2 : 0, 2),
                                 Cmp(kEq, Net16(port)), nft::UnsupportedExpr{"synproxy"}});
    return m;
  }
  uint64_t RefusedOfSockets() const {
    return r->SumWorkers([](const WorkerCounters& c) { return c.sockets_refused.Read(); });
  }
  uint32_t Connections() const {
    uint32_t n = 0;
    for (size_t w = 0; w < r->worker_count(); ++w) {
      n += r->worker(w).pipeline().sockets().stack()->tcp().usage().connections;
    }
    return n;
  }
};

TEST_P(SocketsRulesSimTest, ANewConnectionThatMeetsARuleWeCannotDoIsRefused) {
  Use(CannotDo(kInput, 6, kPort));
  for (const char* to : {"10.0.0.1", "2001:db8::1"}) {
    Client client(h->sockets().tcp(), 1);
    ASSERT_EQ(client.Connect(to, kPort, net.now()), SocketError::kNone);
    net.Run(Millis(100));
    EXPECT_EQ(client.error, SocketError::kRefused) << to;
  }
  EXPECT_EQ(r->Dropped(DropReason::kUnsupportedRule), 2u);
  EXPECT_EQ(r->Punted(PuntReason::kUnsupportedRule), 0u) << "the kernel has no such socket";
  EXPECT_EQ(Accepted(), 0u);
}

TEST_P(SocketsRulesSimTest, ADatagramThatMeetsARuleWeCannotDoIsAnsweredWithAnError) {
  Use(CannotDo(kInput, 17, kPort));
  h->link().Send(PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(5000, kPort).Payload(size_t{9}));
  h->link().Send(
      PacketBuilder().Ipv6("2001:db8::2", "2001:db8::1").Udp(5000, kPort).Payload(size_t{9}));
  net.Run(Millis(100));
  ASSERT_EQ(h->unclaimed.size(), 2u);
  EXPECT_EQ(h->unclaimed[0][20], 3);
  EXPECT_EQ(h->unclaimed[0][21], 13) << "administratively prohibited";
  EXPECT_EQ(h->unclaimed[1][40], 1);
  EXPECT_EQ(h->unclaimed[1][41], 1);
  EXPECT_EQ(r->Dropped(DropReason::kUnsupportedRule), 2u);
  for (const auto& server : udp_servers) EXPECT_TRUE(server->sizes.empty());
}

TEST_P(SocketsRulesSimTest, AnEstablishedConnectionEndsWithAReset) {
  Client client(h->sockets().tcp(), 0);
  ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Millis(100));
  ASSERT_TRUE(client.connected);
  Use(CannotDo(kInput, 6, kPort));
  client.More(100, net.now());
  net.Run(Millis(100));
  EXPECT_EQ(client.error, SocketError::kReset);
  EXPECT_EQ(r->Dropped(DropReason::kUnsupportedRule), 1u);
  EXPECT_EQ(Connections(), 0u) << "the socket's end knows as well";
}

// Before routing the kernel is given what it is to judge, and resets the client, whose connection it
// does not know: the socket's end is over too.
TEST_P(SocketsRulesSimTest, AnEstablishedConnectionEndsWhenTheKernelIsToJudgeIt) {
  for (const int priority : {-300, -150, 0}) {  // before conntrack, and behind it
    Client client(h->sockets().tcp(), 0);
    ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
    net.Run(Millis(100));
    ASSERT_TRUE(client.connected);
    EXPECT_EQ(Connections(), 1u);
    RulesetModel m(nft::TableFamily::kInet);
    m.Base("c", kPrerouting, priority)
        .Rule(TcpDport(kPort) + Exprs{nft::UnsupportedExpr{"synproxy"}});
    m.Base("in", kInput).Rule({Ct(0), Cmp(kNeq, Host32(0))});  // connections are tracked
    Use(m);
    const uint64_t before = r->Punted(PuntReason::kUnsupportedRule);
    client.More(100, net.now());
    net.Run(Millis(100));
    EXPECT_GT(r->Punted(PuntReason::kUnsupportedRule), before) << priority;
    EXPECT_EQ(Connections(), 0u) << priority;
    client.Abort(net.now());
    net.Run(Millis(100));
    Use(RulesetModel(nft::TableFamily::kInet));
    net.Run(Millis(100));
  }
}

// Of a connection that rules have led to the socket by another port, and one from here.
TEST_P(SocketsRulesSimTest, ATranslatedConnectionEndsWhenTheKernelIsToJudgeIt) {
  const auto model = [](bool cannot) {
    RulesetModel m(nft::TableFamily::kInet);
    if (cannot) {
      m.Base("c", kPrerouting, -150)
          .Rule(TcpDport(80) + Exprs{nft::UnsupportedExpr{"synproxy"}})
          .Rule(L4Proto(6) + Exprs{Payload(kTransport, 0, 2), Cmp(kEq, Net16(80)),
                                   nft::UnsupportedExpr{"synproxy"}});
    }
    nft::RedirExpr to;
    to.proto_min = 1;
    m.Base("pre", kPrerouting, -100, 1, "nat").Rule(TcpDport(80) + Exprs{Set(Net16(kPort), 1), to});
    return m;
  };
  Use(model(false));
  examples::EchoServer server(h->sockets().tcp());
  ASSERT_EQ(server.Listen({IpAddress(Ipv4()), 80}), SocketError::kNone);
  Client client(h->sockets().tcp(), 0);
  ASSERT_EQ(client.Connect("10.0.0.1", 80, net.now()), SocketError::kNone);
  const auto from_here = ConnectFromWorkers(0);
  net.Run(Millis(100));
  ASSERT_TRUE(client.connected);
  for (const auto& c : from_here) ASSERT_TRUE(c->connected);
  EXPECT_EQ(Connections(), 1 + from_here.size());

  Use(model(true));
  client.More(100, net.now());
  r->OnWorkers([&](SimRouter::Worker& worker) {
    from_here[worker.id().value]->More(100, worker.now());
  });
  net.Run(Millis(100));
  EXPECT_EQ(Connections(), 0u);
  for (const auto& c : from_here) EXPECT_EQ(c->error, SocketError::kReset);
  client.Abort(net.now());
  net.Run(Millis(100));
}

// Other connections go on.
TEST_P(SocketsRulesSimTest, OnlyWhatMeetsTheRuleIsRefused) {
  Use(CannotDo(kInput, 6, kPort + 1));
  Client client(h->sockets().tcp(), 50'000);
  ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Seconds(5));
  EXPECT_TRUE(client.done());
  EXPECT_EQ(r->Dropped(), 0u);
}

TEST_P(SocketsRulesSimTest, ASocketIsToldThatOutputCannotJudge) {
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("out", kOutput).Rule(TcpDport(80) + Exprs{nft::UnsupportedExpr{"synproxy"}});
  Use(m);
  const auto clients = ConnectFromWorkers(1000);
  net.Run(Millis(100));
  for (const auto& client : clients) EXPECT_EQ(client->error, SocketError::kUnreachable);
  EXPECT_EQ(RefusedOfSockets(), clients.size());
  EXPECT_TRUE(h->unclaimed.empty());
}

TEST_P(SocketsRulesSimTest, ASocketIsToldThatOutputRejects) {
  RulesetModel m(nft::TableFamily::kInet);
  nft::RejectExpr reject;
  reject.type = 1;  // with a TCP reset
  m.Base("out", kOutput).Rule(TcpDport(80) + Exprs{reject});
  Use(m);
  const auto clients = ConnectFromWorkers(1000);
  net.Run(Millis(100));
  for (const auto& client : clients) EXPECT_EQ(client->error, SocketError::kUnreachable);
  EXPECT_EQ(RefusedOfSockets(), clients.size());
}

// What OUTPUT cannot judge of an established connection does not leave; the connection has its time.
TEST_P(SocketsRulesSimTest, AnEstablishedConnectionThatOutputCannotJudgeTimesOut) {
  link->options.latency = Millis(1);  // so that it is not over before the rule comes
  Client client(h->sockets().tcp(), 100'000'000);
  ASSERT_EQ(client.Connect("10.0.0.1", kPort, net.now()), SocketError::kNone);
  net.Run(Millis(20));
  ASSERT_GT(client.received, 0u);
  ASSERT_FALSE(client.closed);
  Use(CannotDo(kOutput, 6, kPort));
  const size_t before = client.received;
  net.Run(Seconds(5));
  EXPECT_LE(client.received, before + 200'000u) << "what was on its way";
  EXPECT_GT(RefusedOfSockets(), 1u);
  EXPECT_FALSE(client.closed);
  net.Run(Seconds(3000));
  EXPECT_TRUE(client.closed);
  EXPECT_EQ(client.error, SocketError::kTimedOut);
}

// A datagram in more than one piece is one packet to rules and connections, as in the kernel, whose
// OUTPUT comes before fragmentation.
class LargeDatagramsSimTest : public SocketsRulesSimTest {
 protected:
  static constexpr uint16_t kThere = 5000;

  // One from each worker and family to the host. The fragments that arrived, by the protocol's version.
  void SendLarge(size_t size) {
    data_.resize(size);
    for (size_t i = 0; i < size; ++i) data_[i] = static_cast<uint8_t>(i * 131 + (i >> 8));
    r->OnWorkers([&](SimRouter::Worker& worker) {
      transport::Udp& udp = worker.pipeline().sockets().stack()->udp();
      for (const char* to : {"10.0.0.2", "2001:db8::2"}) {
        transport::UdpSocket socket;
        const Endpoint there{*ParseIpAddress(to), kThere};
        ASSERT_EQ(udp.Open({}, there, nullptr, socket), SocketError::kNone);
        EXPECT_EQ(udp.Send(socket, data_, worker.now()).bytes, size);
      }
    });
    net.Run(Millis(100));
  }
  // What was sent, put together from fragments that must be in order; and the source port of it.
  void ExpectDatagram(std::span<const Bytes> fragments, uint16_t* source = nullptr) {
    const bool v4 = fragments[0][0] >> 4 == 4;
    Bytes whole;
    for (const Bytes& f : fragments) {
      EXPECT_LE(f.size(), 1500u);
      const size_t offset = v4 ? (LoadBe16(&f[6]) & 0x1fff) * 8u : LoadBe16(&f[42]) & 0xfff8u;
      EXPECT_EQ(offset, whole.size());
      whole.insert(whole.end(), f.begin() + (v4 ? 20 : 48), f.end());
    }
    ASSERT_EQ(whole.size(), 8 + data_.size());
    EXPECT_EQ(Bytes(whole.begin() + 8, whole.end()), data_);
    Bytes sum = v4 ? PseudoHeader(Ipv4(LoadBe32(&fragments[0][12])), Ipv4(LoadBe32(&fragments[0][16])),
                                  17, whole.size())
                   : PseudoHeader(Ipv6::FromWire(&fragments[0][8]), Ipv6::FromWire(&fragments[0][24]),
                                  17, whole.size());
    sum.insert(sum.end(), whole.begin(), whole.end());
    EXPECT_EQ(NaiveSum(sum), 0xffff) << "the checksum";
    if (source != nullptr) *source = LoadBe16(whole.data());
  }
  // Of all datagrams that have arrived, so many fragments each.
  void ExpectDatagrams(size_t pieces4, size_t pieces6, uint16_t source4 = 0) {
    for (const bool v4 : {true, false}) {
      const size_t pieces = v4 ? pieces4 : pieces6;
      std::vector<Bytes> arrived;
      std::copy_if(h->unclaimed.begin(), h->unclaimed.end(), std::back_inserter(arrived),
                   [&](const Bytes& b) { return (b[0] >> 4 == 4) == v4; });
      ASSERT_EQ(arrived.size(), pieces * r->worker_count());
      for (size_t at = 0; at < arrived.size(); at += pieces) {
        uint16_t source = 0;
        ExpectDatagram(std::span(arrived).subspan(at, pieces), &source);
        if (v4 && source4 != 0) {
          EXPECT_EQ(source, source4);
        }
      }
    }
  }

 private:
  Bytes data_;
};

TEST_P(LargeDatagramsSimTest, LeaveInFragmentsWithoutRules) {
  SendLarge(10'000);
  ExpectDatagrams(7, 7);
}

TEST_P(LargeDatagramsSimTest, AreTrackedAndJudgedOnceAsAWhole) {
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("out", kOutput, 0, 0)  // policy drop
      .Rule(L4Proto(17) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(kThere)), Ct(0),
                                And(Host32(8)), Cmp(kNeq, Host32(0)), nft::CounterExpr{}, Accept()});
  Use(m);
  SendLarge(10'000);
  ExpectDatagrams(7, 7);
  EXPECT_EQ(ruleset->RuleCount(0).packets, 2 * r->worker_count()) << "new, and once each";
}

TEST_P(LargeDatagramsSimTest, AreDroppedAsAWhole) {
  RulesetModel m(nft::TableFamily::kInet);
  m.Base("out", kOutput).Rule({Meta(tables::kMetaLength), Cmp(kGt, Host32(0)), nft::CounterExpr{}})
      .Rule(L4Proto(17) + Exprs{Payload(kTransport, 2, 2), Cmp(kEq, Net16(kThere)), Drop()});
  Use(m);
  SendLarge(10'000);
  EXPECT_TRUE(h->unclaimed.empty());
  EXPECT_EQ(ruleset->RuleCount(0).packets, 2 * r->worker_count());
  EXPECT_EQ(ruleset->RuleCount(0).bytes, r->worker_count() * (2 * 10'008 + 20 + 40));
}

TEST_P(LargeDatagramsSimTest, AreTranslatedAsAWhole) {
  RulesetModel m;
  nft::NatExpr to;
  to.family = 2;
  to.addr_min = 1;
  to.proto_min = 2;
  m.Base("post", 4, 100, 1, "nat")
      .Rule(L4Proto(17) + Exprs{Set(Addr("10.0.0.1"), 1), Set(Net16(7777), 2), to});
  Use(m);
  SendLarge(3000);
  ExpectDatagrams(3, 3, 7777);
}

TEST_P(LargeDatagramsSimTest, OfManyFragmentsGoThrough) {
  SendLarge(1);  // so that the neighbour is known
  h->unclaimed.clear();
  SendLarge(40'000);  // the ports of the simulation take 64 frames at once
  ExpectDatagrams(28, 28);
}

INSTANTIATE_TEST_SUITE_P(Workers, LargeDatagramsSimTest, testing::Values(1, 2));
INSTANTIATE_TEST_SUITE_P(Workers, SocketsRulesSimTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace sluice::test
