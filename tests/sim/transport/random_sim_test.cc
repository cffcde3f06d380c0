// Segments of any kind thrown at live connections, and many short connections at once. Nothing may
// crash, hang or leak, and the invariants of each connection hold after every step. A failure prints
// its seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "support/bulk_transfer.h"
#include "support/packet_builder.h"

namespace sluice::test {
namespace {

uint64_t Seeds() {
  const char* text = std::getenv("SLUICE_SIM_SEEDS");
  return text == nullptr ? 12 : std::strtoull(text, nullptr, 10);
}

// What holds for a connection at any time.
void CheckInvariants(const transport::Tcb* t) {
  if (t == nullptr || !transport::IsSynchronized(t->state)) return;
  ASSERT_TRUE(t->snd_una.AtOrBefore(t->snd_nxt));
  ASSERT_TRUE(t->snd_nxt.AtOrBefore(t->write_end() + 1));
  ASSERT_TRUE(t->rcv_nxt.AtOrBefore(t->rcv_adv));
  ASSERT_GE(t->congestion.cwnd(), 1u);
  ASSERT_LE(t->scoreboard.sacked_bytes() + t->scoreboard.lost_bytes(),
            t->Flight() + t->scoreboard.retransmitted_bytes());
  ASSERT_EQ(t->scoreboard.empty(), t->snd_una == t->snd_nxt);
  ASSERT_LE(t->receive.bytes(), t->rcv_buffer_max);
  // Something in flight or waiting has a timer.
  if (!t->scoreboard.empty() && t->state != transport::TcpState::kTimeWait) {
    ASSERT_NE(t->retransmit_timer, transport::RetransmitTimer::kNone);
  }
}

TEST(Random, SegmentsOfAnyKindOnLiveConnections) {
  for (uint64_t seed = 1; seed <= Seeds() * 4; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    TransportLink::Options o;
    o.seed = seed;
    o.forward.loss = o.backward.loss = 100;
    for (auto& host : o.hosts) {
      host.config.tcp.ecn = transport::EcnMode::kActive;
      host.config.tcp.limits.segments = 200;
      host.config.tcp.limits.receive_frames = 300;
    }
    TransportLink link(o);
    std::vector<Bytes> seen;
    link.filter = [&](int, const Bytes& packet) {
      if (seen.size() < 64) seen.push_back(packet);
      else seen[rng.Below(64)] = packet;
      return true;
    };
    BulkTransfer bulk(link, 300'000, 100'000);
    for (int step = 0; step < 3000; ++step) {
      if (!link.Step(link.now() + Millis(50)) && bulk.client.done() && bulk.server.done()) break;
      if (!seen.empty() && rng.Chance(1, 3)) {
        // A real packet with a few bytes of its TCP header changed, and the checksum made right.
        Bytes packet = seen[rng.Below(seen.size())];
        const size_t header = packet.size() < 40 ? 0 : (packet[32] >> 4) * size_t{4};
        if (header >= 20 && 20 + header <= packet.size()) {
          const int changes = static_cast<int>(1 + rng.Below(3));
          for (int i = 0; i < changes; ++i) {
            packet[24 + rng.Below(header - 4)] = static_cast<uint8_t>(rng.Next());
          }
          packet[36] = packet[37] = 0;
          Bytes summed = PseudoHeader(Ipv4::FromWire(&packet[12]), Ipv4::FromWire(&packet[16]), 6,
                                      packet.size() - 20);
          summed.insert(summed.end(), packet.begin() + 20, packet.end());
          const uint16_t sum = NaiveChecksum(summed);
          packet[36] = static_cast<uint8_t>(sum >> 8);
          packet[37] = static_cast<uint8_t>(sum);
          const int to = packet[19] == 1 ? 0 : 1;
          link.host(to).Deliver(packet, link.now());
        }
      }
      CheckInvariants(link.host(0).tcp().Find(bulk.client.socket));
      CheckInvariants(link.host(1).tcp().Find(bulk.server.socket));
      if (HasFatalFailure()) return;
      ASSERT_TRUE(link.host(0).FramesBalance());
      ASSERT_TRUE(link.host(1).FramesBalance());
    }
    link.filter = nullptr;
    link.host(0).tcp().Abort(bulk.client.socket, link.now());
    link.host(1).tcp().Abort(bulk.server.socket, link.now());
    // Connections that a changed SYN has made are nobody's.
    link.host(1).tcp().CloseListener(bulk.listener, link.now());
    link.Run(Seconds(1000));
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// Requests and answers on many short connections at once, with losses.
class Client : public transport::TcpHandler {
 public:
  Client(TransportLink& link, int count) : link_(link), left_(count) {}
  void Start() {
    --left_;
    transport::TcpSocket s;
    ASSERT_EQ(link_.host(0).tcp().Connect({}, {link_.address(1), 80}, {}, this, link_.now(), s),
              transport::SocketError::kNone);
  }
  void OnConnected(transport::TcpSocket s, Nanos now) override {
    const uint8_t request[100] = {42};
    tcp().Send(s, request, now);
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    uint8_t buffer[3000];
    for (;;) {
      const auto r = tcp().Receive(s, buffer, now);
      got += r.bytes;
      if (r.error == transport::SocketError::kEndOfData) {
        tcp().Close(s, now);
        ++finished;
        if (left_ > 0) Start();
        return;
      }
      if (!r.ok()) return;
    }
  }
  void OnError(transport::TcpSocket s, transport::SocketError, Nanos now) override {
    ++failed;
    tcp().Close(s, now);
  }
  int finished = 0;
  int failed = 0;
  uint64_t got = 0;

 private:
  transport::Tcp& tcp() { return link_.host(0).tcp(); }
  TransportLink& link_;
  int left_;
};

class Server : public transport::TcpHandler {
 public:
  explicit Server(transport::Tcp& tcp) : tcp_(tcp) {}
  void OnAcceptable(transport::TcpListenerId id, Nanos) override {
    transport::TcpSocket s;
    while (tcp_.Accept(id, this, s) == transport::SocketError::kNone) {
    }
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    uint8_t buffer[200];
    const auto r = tcp_.Receive(s, buffer, now);
    if (r.bytes == 0) return;
    const std::vector<uint8_t> answer(5000, 7);
    tcp_.Send(s, answer, now);
    tcp_.Close(s, now);
  }
  void OnError(transport::TcpSocket s, transport::SocketError, Nanos now) override {
    tcp_.Close(s, now);
  }

 private:
  transport::Tcp& tcp_;
};

TEST(Random, ManyShortConnections) {
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TransportLink::Options o;
    o.seed = seed;
    o.forward.loss = o.backward.loss = 200;
    o.forward.reorder = o.backward.reorder = 500;
    for (auto& host : o.hosts) {
      host.config.tcp.limits.connections = 400;
      host.config.tcp.limits.time_wait = 200;
    }
    TransportLink link(o);
    Server server(link.host(1).tcp());
    transport::TcpListenerId id;
    link.host(1).tcp().Listen({link.address(1), 80}, {}, 8, &server, id);
    Client client(link, 1000);
    for (int i = 0; i < 50; ++i) client.Start();
    link.RunUntil([&] { return client.finished + client.failed == 1000; }, Seconds(2000));
    EXPECT_EQ(client.finished, 1000);
    EXPECT_EQ(client.got, 5'000'000u);
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// Six hours: short connections that come and go over a link which is bad for a minute in ten, and quiet
// ones that keepalive looks after. Each is what it was in the end, and nothing is left of them.
TEST(Random, HoursOfShortAndQuietConnections) {
  constexpr int kQuiet = 20;
  TransportLink::Options o;
  o.seed = 6;
  TransportLink link(o);
  Server server(link.host(1).tcp());
  transport::TcpListenerId id;
  ASSERT_EQ(link.host(1).tcp().Listen({link.address(1), 80}, {}, 8, &server, id),
            transport::SocketError::kNone);
  struct Quiet final : transport::TcpHandler {
    void OnError(transport::TcpSocket, transport::SocketError, Nanos) override { ++errors; }
    int errors = 0;
  } quiet;
  std::vector<transport::TcpSocket> sockets(kQuiet);
  for (transport::TcpSocket& s : sockets) {
    ASSERT_EQ(link.host(0).tcp().Connect({}, {link.address(1), 80},
                                         {.keepalive = true, .keepalive_idle = Seconds(60)}, &quiet,
                                         link.now(), s),
              transport::SocketError::kNone);
  }
  link.Run(Seconds(5));
  const uint64_t opened = link.packets(0);
  int asked = 0;
  Client client(link, 0);  // one request each time
  for (int minute = 0; minute < 6 * 60; ++minute) {
    const uint32_t loss = minute % 10 == 5 ? 3000 : 0;
    link.quality(0).loss = link.quality(1).loss = loss;
    client.Start();
    ++asked;
    link.Run(Seconds(60));
    ASSERT_TRUE(link.host(0).FramesBalance());
    ASSERT_TRUE(link.host(1).FramesBalance());
  }
  EXPECT_GT(link.packets(0) - opened, uint64_t{kQuiet} * 300);  // the quiet ones have said something
  EXPECT_EQ(quiet.errors, 0);
  for (const transport::TcpSocket s : sockets) {
    const transport::Tcb* const t = link.host(0).tcp().Find(s);
    ASSERT_NE(t, nullptr);
    EXPECT_EQ(t->state, transport::TcpState::kEstablished);
    link.host(0).tcp().Abort(s, link.now());
  }
  link.Run(Seconds(1000));
  EXPECT_EQ(client.finished, asked);
  EXPECT_EQ(client.got, asked * uint64_t{5000});
  EXPECT_TRUE(NothingIsLeft(link));
}

}  // namespace
}  // namespace sluice::test
