// Sockets on workers: the whole router with a transport stack on each worker, and a host that talks to
// it. Checked after every step (SimRouter): all frames are somewhere, all packets have one outcome.
#include <algorithm>
#include <memory>
#include <vector>

#include "control/ruleset/compiler.h"
#include "examples/echo_server.h"
#include "sim/sim_fixture.h"
#include "support/filter_world.h"
#include "support/socket_host.h"

namespace sluice::test {
namespace {

using transport::Endpoint;
using transport::SocketError;
using transport::TcpSocket;

constexpr uint16_t kPort = 7;
constexpr uint32_t kInput = 1;
constexpr uint32_t kOutput = 3;
constexpr uint32_t kFlowsPerSource = 4;  // of a worker

// Sends `size` bytes and keeps what comes back.
class Client final : public transport::TcpHandler {
 public:
  Client(transport::Tcp& tcp, size_t size) : tcp_(tcp), size_(size) {}

  SocketError Connect(const std::string& to, uint16_t port, Nanos now) {
    return tcp_.Connect({}, {*ParseIpAddress(to), port}, {}, this, now, socket_);
  }
  void OnConnected(TcpSocket, Nanos now) override {
    connected = true;
    Pump(now);
  }
  void OnWritable(TcpSocket, Nanos now) override { Pump(now); }
  void OnReadable(TcpSocket s, Nanos now) override {
    std::vector<uint8_t> buffer(16384);
    for (;;) {
      const auto r = tcp_.Receive(s, buffer, now);
      if (!r.ok()) {
        if (r.error == SocketError::kEndOfData) Close(now);
        return;
      }
      for (uint32_t i = 0; i < r.bytes; ++i) right = right && buffer[i] == At(received + i);
      received += r.bytes;
      if (received == size_) tcp_.Shutdown(s, now);
    }
  }
  void OnError(TcpSocket, SocketError e, Nanos now) override {
    error = e;
    Close(now);
  }
  bool done() const { return closed && right && received == size_; }

  bool connected = false;
  bool closed = false;
  bool right = true;
  size_t received = 0;
  SocketError error = SocketError::kNone;

 private:
  static uint8_t At(size_t i) { return static_cast<uint8_t>(i * 131 + (i >> 8)); }
  void Pump(Nanos now) {
    while (sent_ < size_) {
      std::vector<uint8_t> piece(std::min<size_t>(4096, size_ - sent_));
      for (size_t i = 0; i < piece.size(); ++i) piece[i] = At(sent_ + i);
      const auto r = tcp_.Send(socket_, piece, now);
      if (!r.ok()) return;
      sent_ += r.bytes;
    }
  }
  void Close(Nanos now) {
    closed = true;
    tcp_.Close(socket_, now);
  }

  transport::Tcp& tcp_;
  const size_t size_;
  size_t sent_ = 0;
  TcpSocket socket_;
};

class UdpEcho final : public transport::UdpHandler {
 public:
  explicit UdpEcho(transport::Udp& udp) : udp_(udp) {}
  void OnReadable(transport::UdpSocket s, Nanos now) override {
    std::vector<uint8_t> buffer(8192);
    Endpoint from;
    for (;;) {
      const auto r = udp_.Receive(s, buffer, from);
      if (!r.ok()) return;
      sizes.push_back(r.bytes);
      const auto sent = udp_.SendTo(s, from, std::span<const uint8_t>(buffer).first(
                                                 std::min<size_t>(r.bytes, 1000)), now);
      EXPECT_TRUE(sent.ok());
    }
  }
  std::vector<uint32_t> sizes;

 private:
  transport::Udp& udp_;
};

class SocketsSimTest : public SimTest, public testing::WithParamInterface<uint32_t> {
 protected:
  SocketsSimTest() {
    SimRouter::Options options;
    options.workers = GetParam();
    options.frames = 4096;
    options.flows_per_source = kFlowsPerSource;
    r = &net.AddRouter("r", options);
    r->AddInterface("left", "02:00:00:00:00:01", {"10.0.0.1/24", "2001:db8::1/64"});
    r->Publish();
    r->AddSockets();
    for (size_t w = 0; w < r->worker_count(); ++w) {
      transport::Transport& stack = *r->worker(w).pipeline().sockets().stack();
      udp_servers.push_back(std::make_unique<UdpEcho>(stack.udp()));
      for (const IpAddress any : {IpAddress(Ipv4()), IpAddress(Ipv6())}) {
        listeners.push_back(std::make_unique<examples::EchoServer>(stack.tcp()));
        EXPECT_EQ(listeners.back()->Listen({any, kPort}), SocketError::kNone);
        transport::UdpSocket socket;
        EXPECT_EQ(stack.udp().Bind({any, kPort}, udp_servers.back().get(), socket),
                  SocketError::kNone);
      }
    }
    h = static_cast<SocketHost*>(&net.Add(std::make_unique<SocketHost>(
        "h", "02:00:00:00:0a:00", "10.0.0.2/24", "2001:db8::2/64", "10.0.0.1", "2001:db8::1",
        net.now())));
    link = &net.Connect(*h, 0, *r, r->PortOf("left"));
  }
  void TearDown() override {
    net.Run(Seconds(130));  // TIME-WAIT
    for (size_t w = 0; w < r->worker_count(); ++w) {
      const transport::TcpUsage usage = r->worker(w).pipeline().sockets().stack()->tcp().usage();
      EXPECT_EQ(usage.connections, 0u) << "worker " << w;
      EXPECT_EQ(usage.timers, 0u);
      EXPECT_EQ(usage.receive_frames + usage.send_frames + usage.segments, 0u);
    }
    EXPECT_EQ(r->Held(), 0u);
    r->config().ruleset = nullptr;
    r->Publish();
    net.Run(Millis(1));
    SimTest::TearDown();
  }

  void Use(const RulesetModel& model) {
    ruleset = compiler.Compile(model.model, net.now());
    r->config().ruleset = ruleset.get();
    r->Publish();
  }
  // INPUT: what belongs to connections, ICMP, and new ones to `port`; nothing else. Counters at all.
  static RulesetModel Guarded(uint16_t port) {
    RulesetModel m(nft::TableFamily::kInet);
    const auto counted = [](Exprs e) { return e + Exprs{nft::CounterExpr{}, Accept()}; };
    m.Base("in", kInput, 0, 0)
        .Rule(counted({Ct(0), And(Host32(2 | 4)), Cmp(kNeq, Host32(0))}))  // established, related
        .Rule(counted(TcpDport(port) + Exprs{Ct(0), And(Host32(8)), Cmp(kNeq, Host32(0))}));
    m.Base("out", kOutput).Rule({nft::CounterExpr{}});
    return m;
  }
  uint64_t Accepted() const {
    uint64_t n = 0;
    for (size_t w = 0; w < r->worker_count(); ++w) {
      n += r->worker(w).pipeline().sockets().stack()->tcp().counters().connections_accepted.Read();
    }
    return n;
  }

  SimRouter* r;
  SocketHost* h;
  SimLink* link;
  std::vector<std::unique_ptr<examples::EchoServer>> listeners;
  std::vector<std::unique_ptr<UdpEcho>> udp_servers;
  control::RulesetCompiler compiler{control::CompilerOptions{.workers = GetParam()}};
  std::shared_ptr<const tables::Ruleset> ruleset;
};

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
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t w = 0; w < r->worker_count(); ++w) {
    for (int i = 0; i < 10; ++i) {
      clients.push_back(std::make_unique<Client>(
          r->worker(w).pipeline().sockets().stack()->tcp(), 50'000));
    }
  }
  r->OnWorkers([&](SimRouter::Worker& worker) {
    for (size_t i = 0; i < 10; ++i) {
      EXPECT_EQ(clients[worker.id().value * 10 + i]->Connect("10.0.0.2", 80, worker.now()),
                SocketError::kNone);
    }
  });
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
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t w = 0; w < r->worker_count(); ++w) {
    clients.push_back(
        std::make_unique<Client>(r->worker(w).pipeline().sockets().stack()->tcp(), 1));
  }
  r->OnWorkers([&](SimRouter::Worker& worker) {
    EXPECT_EQ(clients[worker.id().value]->Connect("10.9.0.9", 80, worker.now()),
              SocketError::kNone);
  });
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
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t w = 0; w < r->worker_count(); ++w) {
    clients.push_back(
        std::make_unique<Client>(r->worker(w).pipeline().sockets().stack()->tcp(), 50'000));
  }
  r->OnWorkers([&](SimRouter::Worker& worker) {
    EXPECT_EQ(clients[worker.id().value]->Connect("10.0.0.2", 80, worker.now()),
              SocketError::kNone);
  });
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
  std::vector<std::unique_ptr<Client>> clients;
  for (size_t i = 0; i < r->worker_count() * 3 * kFlowsPerSource; ++i) {
    clients.push_back(std::make_unique<Client>(
        r->worker(i % r->worker_count()).pipeline().sockets().stack()->tcp(), 1000));
  }
  r->OnWorkers([&](SimRouter::Worker& worker) {
    for (size_t i = worker.id().value; i < clients.size(); i += r->worker_count()) {
      EXPECT_EQ(clients[i]->Connect("10.0.0.2", 80, worker.now()), SocketError::kNone);
    }
  });
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

INSTANTIATE_TEST_SUITE_P(Workers, SocketsSimTest, testing::Values(1, 2, 3));

}  // namespace
}  // namespace sluice::test
