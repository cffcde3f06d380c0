// A router with sockets on its workers, and a host that talks to it: what the tests of both share.
#ifndef SLUICE_TESTS_SIM_SOCKETS_FIXTURE_H_
#define SLUICE_TESTS_SIM_SOCKETS_FIXTURE_H_

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "control/ruleset/compiler.h"
#include "examples/echo_server.h"
#include "sim/sim_fixture.h"
#include "support/filter_world.h"
#include "support/socket_host.h"

namespace sluice::test {

using transport::Endpoint;
using transport::SocketError;
using transport::TcpSocket;

inline constexpr uint16_t kPort = 7;
inline constexpr uint32_t kPrerouting = 0;
inline constexpr uint32_t kInput = 1;
inline constexpr uint32_t kOutput = 3;
inline constexpr uint32_t kFlowsPerSource = 32;  // of a worker

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
  // That many more, on an open connection.
  void More(size_t bytes, Nanos now) {
    size_ += bytes;
    Pump(now);
  }
  void Abort(Nanos now) {
    closed = true;
    tcp_.Abort(socket_, now);
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
  size_t size_;
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
    // Of three workers one has no queue of its own.
    r->AddInterface("left", "02:00:00:00:00:01", {"10.0.0.1/24", "2001:db8::1/64"}, 1500,
                    std::min(GetParam(), 2u));
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
  // From each worker, `each` that send `size` bytes to the host, whose port 80 echoes.
  std::vector<std::unique_ptr<Client>> ConnectFromWorkers(size_t size,
                                                          const std::string& to = "10.0.0.2",
                                                          size_t each = 1) {
    std::vector<std::unique_ptr<Client>> clients;
    // By worker; the command runs when the workers do.
    std::vector<std::vector<Client*>> of(r->worker_count());
    for (size_t w = 0; w < r->worker_count(); ++w) {
      transport::Tcp& tcp = r->worker(w).pipeline().sockets().stack()->tcp();
      for (size_t i = 0; i < each; ++i) {
        of[w].push_back(clients.emplace_back(std::make_unique<Client>(tcp, size)).get());
      }
    }
    r->OnWorkers([of, to](SimRouter::Worker& worker) {
      for (Client* const client : of[worker.id().value]) {
        EXPECT_EQ(client->Connect(to, 80, worker.now()), SocketError::kNone);
      }
    });
    return clients;
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

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SIM_SOCKETS_FIXTURE_H_
