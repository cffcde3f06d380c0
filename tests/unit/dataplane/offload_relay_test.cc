// Relays of sockets in the flow tier: from the socket's call to the order, and back to its user.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "transport/common/datagram.h"
#include "transport/transport.h"
#include "unit/dataplane/offload_fixture.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"

namespace sluice::dataplane {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

constexpr uint64_t kToken = 77;

struct Told {
  uint64_t token;
  uint64_t packets;
  uint64_t bytes;
  uint32_t end = 0;
  uint32_t ack = 0;
  bool operator==(const Told&) const = default;
};

// A client on the LAN has a connection to 10.0.0.1 port 53, we one to 203.0.113.9 port 5353.
class OffloadRelayTest : public OffloadTest, public transport::RelayUser {
 protected:
  void OnCarried(uint64_t token, const transport::Carried& c, Nanos) override {
    EXPECT_FALSE(sending) << "the stack is in the middle of something";
    told.push_back({token, c.packets, c.bytes, c.end, c.ack});
  }
  static transport::Endpoint At(const char* address, uint16_t port) {
    return {*ParseIpAddress(address), port};
  }
  transport::Relayed Up() {
    return {.in = kLan,
            .arrives = {At("10.0.0.1", 53), At("10.0.0.2", 4000)},
            .leaves = {At("192.0.2.1", 40000), At("203.0.113.9", 5353)},
            .protocol = wire::kProtocolUdp,
            .handle = &up,
            .user = this,
            .token = kToken};
  }
  transport::Relayed Down() {
    return {.in = kWan,
            .arrives = {At("192.0.2.1", 40000), At("203.0.113.9", 5353)},
            .leaves = {At("10.0.0.1", 53), At("10.0.0.2", 4000)},
            .protocol = wire::kProtocolUdp,
            .handle = &down,
            .user = this,
            .token = kToken + 1};
  }
  transport::Relayed Up6() {
    return {.in = kLan,
            .arrives = {At("2001:db8::1", 53), At("2001:db8::2", 4000)},
            .leaves = {At("2001:db8:1::1", 40000), At("2001:db8:9::1", 5353)},
            .protocol = wire::kProtocolUdp,
            .handle = &up,
            .user = this,
            .token = kToken};
  }
  transport::Relayed Spliced() {
    transport::Relayed r = Up();
    r.protocol = wire::kProtocolTcp;
    r.splice = &splice;
    return r;
  }

  // The socket's call, `n` times.
  void Relay(const transport::Relayed& r, uint32_t n = 1) {
    const bool v4 = r.leaves.local.address.is_v4();
    PacketBuilder builder;
    const std::string from = ToString(r.leaves.local.address);
    const std::string to = ToString(r.leaves.remote.address);
    builder.Ethernet(Mac{}, Mac{});
    v4 ? builder.Ipv4(from, to) : builder.Ipv6(from, to);
    if (r.splice == nullptr) {
      builder.Udp(r.leaves.local.port, r.leaves.remote.port);
    } else {
      builder.Tcp(r.leaves.local.port, r.leaves.remote.port, kAck)
          .Sequence(sequence + splice.seq, acknowledgment + splice.ack);
    }
    builder.Payload(30);
    const Bytes bytes = builder.Build();
    for (uint32_t i = 0; i < n; ++i) {
      packet::Packet p = world.Receive(bytes);
      p.in = IfaceSlot::None();
      p.l3_offset = 14;
      p.l4_offset = static_cast<uint16_t>(14 + (v4 ? 20 : 40));
      p.l4_protocol = r.protocol;
      pipeline->BeginTick(now);
      pipeline->SeeSnapshot(world.snapshot, now);
      sending = true;
      pipeline->sockets().OutputRelayed(p, r, now);
      sending = false;
      Collect();
      pipeline->EndTick();
    }
  }
  void Promote(const transport::Relayed& r) {
    Relay(r, kEnough);
    ASSERT_EQ(Drain(), 1u);
    ASSERT_TRUE(InForce(*last));
  }
  void End(transport::RelayHandle& handle) { pipeline->sockets().EndRelayed(handle, now); }
  // XDP on that CPU has carried a segment of a splice.
  void CarrySegment(const OffloadChange& order, uint32_t end, uint32_t ack, uint32_t cpu = 0) {
    Carry(order, 1, 52, cpu);
    sluice_offload_cell& cell = cells[order.action().id];  // CPU 0's has the numbers of all
    const auto note = [](uint32_t& latest, uint32_t value) {
      if (static_cast<int32_t>(value - latest) > 0) latest = value;
    };
    note(cell.last_end, end);
    note(cell.last_ack, ack);
  }

  transport::RelayHandle up, down;
  uint32_t sequence = 0xffff'0000;  // of segments, as they came
  uint32_t acknowledgment = 0x1000'0000;
  sluice_splice splice{.seq = 1, .ack = 2, .tsval = 3, .tsecr = 4, .window_right = 2};
  std::vector<Told> told;
  bool sending = false;
};

TEST_F(OffloadRelayTest, IsPromotedByItsConnection) {
  Relay(Up(), Offload::kThreshold);
  EXPECT_EQ(Drain(), 0u);
  EXPECT_EQ(up.entry, 0u);
  Relay(Up());
  ASSERT_EQ(Drain(), 1u);
  EXPECT_NE(up.entry, 0u);
  const OffloadChange& o = *last;
  EXPECT_EQ(o.key4.source, __builtin_bswap32(A4("10.0.0.2").value));
  EXPECT_EQ(o.key4.destination, __builtin_bswap32(A4("10.0.0.1").value));
  EXPECT_EQ(o.key4.source_port, __builtin_bswap16(4000));
  EXPECT_EQ(o.key4.destination_port, __builtin_bswap16(53));
  EXPECT_EQ(o.key4.protocol, wire::kProtocolUdp);
  EXPECT_EQ(o.key4.slot, kLan.value);
  EXPECT_EQ(o.entry4.source, __builtin_bswap32(A4("192.0.2.1").value));
  EXPECT_EQ(o.entry4.destination, __builtin_bswap32(A4("203.0.113.9").value));
  EXPECT_EQ(o.action().source_port, __builtin_bswap16(40000));
  EXPECT_EQ(o.action().destination_port, __builtin_bswap16(5353));
  EXPECT_EQ(o.action().flags, SLUICE_OFFLOAD_REWRITE | SLUICE_OFFLOAD_RELAY);
  EXPECT_EQ(o.action().out, kWan.value);
  EXPECT_EQ(o.action().mtu, 1500);
  EXPECT_EQ(Mac::FromWire(o.action().link), kPeerMac);
  EXPECT_EQ(Mac::FromWire(o.action().link + 6), kWanMac);
  EXPECT_EQ(o.action().bucket[0], tables::OffloadBucket(A4("203.0.113.9")));
  EXPECT_EQ(o.action().bucket[1], tables::OffloadBucket(A4("10.0.0.1")));
  EXPECT_TRUE(InForce(o));
  Relay(Up(), 5);
  EXPECT_EQ(Drain(), 0u) << "once is enough";
  Promote(Down());
  EXPECT_EQ(last->key4.slot, kWan.value);
  EXPECT_EQ(last->entry4.destination, __builtin_bswap32(A4("10.0.0.2").value));
  EXPECT_EQ(EntriesInForce(), 2u);
  EXPECT_EQ(sent.size(), 2 * kEnough + 5u) << "all have been sent as well";
}

// What XDP makes of a UDP checksum by the entry is the checksum of the packet that leaves.
TEST_F(OffloadRelayTest, TheRewritesDifferenceIsRight) {
  const auto checksums = [](const Bytes& b, bool v4) {
    const size_t l4 = 14 + (v4 ? 20 : 40);
    return std::pair<uint16_t, uint16_t>{v4 ? LoadBe16(b.data() + 24) : uint16_t{0},
                                         LoadBe16(b.data() + l4 + 6)};
  };
  const auto after = [](uint16_t before, uint16_t delta) {
    const uint32_t host = __builtin_bswap16(delta);
    return static_cast<uint16_t>(~wire::Fold((~before & 0xffffu) + host));
  };
  Promote(Up());
  auto before = checksums(FromHost().Ipv4("10.0.0.2", "10.0.0.1").Udp(4000, 53).Payload(30).Build(), true);
  auto wanted = checksums(sent.back().bytes, true);
  EXPECT_EQ(after(before.first, last->action().l3_delta), wanted.first);
  EXPECT_EQ(after(before.second, last->action().l4_delta), wanted.second);
  End(up);
  Drain();
  Promote(Up6());
  EXPECT_EQ(last->family, Family::kIpv6);
  before = checksums(FromHost().Ipv6("2001:db8::2", "2001:db8::1").Udp(4000, 53).Payload(30).Build(), false);
  wanted = checksums(sent.back().bytes, false);
  EXPECT_EQ(after(before.second, last->action().l4_delta), wanted.second);
}

TEST_F(OffloadRelayTest, CountsComeBackToTheUserAndTheInterfaces) {
  Promote(Up());
  const uint64_t generated = Generated(GeneratedKind::kSocket);
  EXPECT_EQ(generated, kEnough);
  Carry(*last, 100, 5800);
  Carry(*last, 20, 1160, 1);
  EXPECT_THAT(told, IsEmpty());
  RunTimersFor(Millis(150));
  EXPECT_THAT(told, ElementsAre(Told{kToken, 120, 6960}));
  const InterfaceCounters& lan = counters->of(kLan);
  EXPECT_EQ(lan.received_packets.Read(), 120u);
  EXPECT_EQ(lan.received_bytes.Read(), 6960u + 120 * 14);
  EXPECT_EQ(lan.local_packets.Read(), 120u) << "it was for this machine";
  EXPECT_EQ(lan.forwarded_packets.Read(), 0u);
  EXPECT_EQ(lan.offloaded_packets.Read(), 120u);
  const InterfaceCounters& wan = counters->of(kWan);
  EXPECT_EQ(wan.transmitted_packets.Read(), 120u);
  EXPECT_EQ(wan.transmitted_bytes.Read(), 6960u + 120 * 14);
  EXPECT_EQ(Generated(GeneratedKind::kSocket), generated + 120) << "and then this machine's";
  RunTimersFor(Millis(500));
  EXPECT_EQ(told.size(), 1u) << "nothing more";
}

TEST_F(OffloadRelayTest, ItsEndTellsWhatIsLeft) {
  Promote(Up());
  const OffloadChange entry = *last;
  Carry(entry, 3, 174);
  End(up);
  EXPECT_THAT(told, ElementsAre(Told{kToken, 3, 174}));
  EXPECT_EQ(up.entry, 0u);
  EXPECT_EQ(up.packets, 0u);
  EXPECT_EQ(EntriesInForce(), 0u);
  EXPECT_EQ(counters->offload.ended_flow.Read(), 1u);
  EXPECT_EQ(counters->offload.entries.Read(), 0u);
  Drain();
  EXPECT_TRUE(entries.empty());
  // What was on its way in XDP: for the interfaces. There is no user any more.
  cells[entry.action().id].packets += 2;
  RunTimersFor(Seconds(2));
  EXPECT_EQ(counters->of(kLan).local_packets.Read(), 5u);
  EXPECT_EQ(told.size(), 1u);
  End(up);
  EXPECT_EQ(up.packets, 0u);
  Promote(Up());
}

TEST_F(OffloadRelayTest, AnIdleOneGoesAndMayComeBack) {
  Promote(Up());
  LetPass(Seconds(34));
  EXPECT_EQ(counters->offload.ended_idle.Read(), 1u);
  EXPECT_EQ(up.entry, 0u);
  EXPECT_EQ(up.packets, 0u);
  EXPECT_THAT(told, IsEmpty());
  Drain();
  Promote(Up());
}

TEST_F(OffloadRelayTest, TrafficKeepsItAndItsNeighbour) {
  Promote(Up());
  for (int i = 0; i < 600; ++i) {
    Carry(*last, 1, 60);
    RunTimersFor(Millis(100));
    if (i % 20 == 19) Confirm();
  }
  EXPECT_NE(up.entry, 0u);
  EXPECT_TRUE(InForce(*last));
  EXPECT_EQ(counters->of(kLan).offloaded_packets.Read(), 600u);
}

TEST_F(OffloadRelayTest, AStaleOneIsMadeAnewUnderItsId) {
  Promote(Up());
  const OffloadChange before = *last;
  Carry(before, 4, 240);
  tables::BumpRoute(memory, *ParseIpv4Prefix("203.0.113.0/24"));
  EXPECT_EQ(EntriesInForce(), 0u);
  Promote(Up());  // not told in the middle of it: see OnCarried
  EXPECT_EQ(last->action().id, before.action().id);
  EXPECT_NE(last->action().epoch, before.action().epoch);
  Carry(*last, 1, 60);
  RunTimersFor(Millis(150));
  EXPECT_THAT(told, ElementsAre(Told{kToken, 5, 300}));
  // The route by which the packets are for this machine.
  tables::BumpRoute(memory, *ParseIpv4Prefix("10.0.0.0/16"));
  EXPECT_EQ(EntriesInForce(), 0u);
}

TEST_F(OffloadRelayTest, WithReversePathFilterTheClientsRouteCounts) {
  world.lan().rp_filter = 1;
  SetModes(SLUICE_OFFLOAD_PAIR);
  Promote(Up());
  EXPECT_EQ(last->action().bucket[1], tables::OffloadBucket(A4("10.0.0.2")));
}

// Under the old key nothing may stay behind; its user is told by a scan, and not in the middle of a call.
TEST_F(OffloadRelayTest, PacketsThatComeByAnotherInterfaceFromNowOn) {
  Promote(Up());
  const OffloadChange before = *last;
  Carry(before, 2, 120);
  transport::Relayed moved = Up();
  moved.in = kWan;
  Relay(moved, 10);
  EXPECT_TRUE(InForce(before)) << "they may come by both";
  now += Seconds(1);
  Relay(moved, 10);
  EXPECT_FALSE(InForce(before));
  EXPECT_EQ(Drain(), 0u);
  RunTimersFor(Millis(150));
  EXPECT_THAT(told, ElementsAre(Told{kToken, 2, 120}));
  EXPECT_EQ(up.entry, 0u);
  Drain();
  EXPECT_TRUE(entries.empty());
  Promote(moved);
  EXPECT_EQ(last->key4.slot, kWan.value);
}

TEST_F(OffloadRelayTest, OfASpliceTheHeaderIsWrittenFirst) {
  Promote(Spliced());
  EXPECT_EQ(last->key4.protocol, wire::kProtocolTcp);
  EXPECT_EQ(last->action().flags,
            SLUICE_OFFLOAD_REWRITE | SLUICE_OFFLOAD_RELAY | SLUICE_OFFLOAD_SPLICE);
  const sluice_splice& written = splices[last->action().id];
  EXPECT_EQ(written.ack, 2u);
  EXPECT_EQ(written.window_right, 2u);
  // Another one is another entry's.
  const uint32_t id = last->action().id;
  splice.seq = 9;
  tables::BumpRoute(memory, *ParseIpv4Prefix("203.0.113.0/24"));
  Relay(Spliced());
  EXPECT_EQ(Drain(), 0u);
  RunTimersFor(Millis(150));
  Drain();
  Promote(Spliced());
  EXPECT_NE(last->action().id, id);
  EXPECT_EQ(splices[id].seq, 1u);
  EXPECT_EQ(splices[last->action().id].seq, 9u);
}

TEST_F(OffloadRelayTest, OfTcpTheLatestNumbersAreTold) {
  for (sluice_offload_cell& cell : cells) {  // who had the id before
    cell.last_ack = 0x7000'0000;
    cell.last_end = 0x0000'1000;
  }
  Promote(Spliced());
  const uint32_t end = sequence + 30;
  const uint32_t ack = acknowledgment;
  CarrySegment(*last, end - 1000, ack - 1000, 1);  // sent again: nothing new
  RunTimersFor(Millis(150));
  CarrySegment(*last, end + 0x2'0000, ack, 0);  // later, modulo 2^32
  CarrySegment(*last, end + 100, ack + 50, 1);
  RunTimersFor(Millis(150));
  CarrySegment(*last, end + 200, ack + 20, 1);
  End(up);
  EXPECT_THAT(told, ElementsAre(Told{kToken, 1, 52, end, ack},
                                Told{kToken, 2, 104, end + 0x2'0000, ack + 50},
                                Told{kToken, 1, 52, end + 0x2'0000, ack + 50}));
}

// XDP believes no segment that is far from where it knows the connection to be.
TEST_F(OffloadRelayTest, XdpIsToldHowFarTheWorkerHasCome) {
  Promote(Spliced());
  const sluice_offload_cell& cell = cells[last->action().id];
  EXPECT_EQ(cell.last_end, sequence + 30);
  EXPECT_EQ(cell.last_ack, acknowledgment);
  // Segments that are not XDP's, with SACK blocks say, for longer than is near.
  for (int i = 0; i < 100; ++i) {
    acknowledgment += SLUICE_SPLICE_NEAR / 4;
    Relay(Spliced());
  }
  EXPECT_EQ(Drain(), 0u);
  EXPECT_EQ(cell.last_ack, acknowledgment);
  EXPECT_EQ(cell.last_end, sequence + 30);
  // Overtaken by what XDP has carried: that stands.
  CarrySegment(*last, sequence + 5000, acknowledgment + 5000);
  Relay(Spliced());
  EXPECT_EQ(cell.last_end, sequence + 5000);
  EXPECT_EQ(cell.last_ack, acknowledgment + 5000);
  // While the entry is stale.
  tables::BumpRoute(memory, *ParseIpv4Prefix("203.0.113.0/24"));
  sequence += 0x6000'0000;
  Promote(Spliced());
  EXPECT_EQ(cell.last_end, sequence + 30);
  EXPECT_EQ(cell.last_ack, acknowledgment + 5000);
}

TEST_F(OffloadRelayTest, WithRulesThereAreNone) {
  Promote(Up());
  Carry(*last, 2, 120);
  Use(Tracked());
  pipeline->SeeSnapshot(world.snapshot, now);
  EXPECT_EQ(EntriesInForce(), 0u);
  Relay(Up(), 20);
  EXPECT_EQ(Drain(), 0u);
  LetPass(Seconds(4));
  EXPECT_EQ(up.entry, 0u) << "a stale one does not stay";
  EXPECT_EQ(counters->offload.ended_stale.Read(), 1u);
  EXPECT_THAT(told, ElementsAre(Told{kToken, 2, 120}));
  Relay(Up(), 20);
  Drain();
  EXPECT_TRUE(entries.empty());
}

TEST_F(OffloadRelayTest, WhereTheKernelsInputCouldObjectThereAreNone) {
  world.snapshot.input_firewall4 = true;
  Change();
  Relay(Up(), 20);
  EXPECT_EQ(Drain(), 0u);
  Promote(Up6());
}

TEST_F(OffloadRelayTest, WhatXdpCannotCarryIsNotPromoted) {
  transport::Relayed mixed = Up();
  mixed.arrives = Up6().arrives;
  Relay(mixed, 20);
  transport::Relayed unknown = Up();
  unknown.in = IfaceSlot::None();
  Relay(unknown, 20);
  world.Unicast("203.0.113.0/25", {Via(kWan, kWanIndex, "192.0.2.254"),
                                   Via(kWan, kWanIndex, "192.0.2.253")});
  Relay(Up(), 20);
  EXPECT_EQ(up.packets, 0u) << "not even looked at";
  world.Unicast("203.0.113.0/26", {Via(kWan, kWanIndex, "192.0.2.254")}, nullptr, 1400);
  Promote(Up());
  EXPECT_EQ(last->action().mtu, 1400);
  for (const uint8_t mode : {SLUICE_OFFLOAD_OFF, SLUICE_OFFLOAD_FLOW}) {
    SetModes(mode);
    Relay(Up(), 20);
    EXPECT_EQ(Drain(), 0u);
  }
  SetModes(SLUICE_OFFLOAD_DESTINATION);
  world.wan().offload_output = false;
  Change();
  Relay(Up(), 20);
  EXPECT_EQ(Drain(), 0u);
}

// Whether others may be carried or not (a FIN, say), a segment of a splice is as large as its sender likes.
TEST_F(OffloadRelayTest, WhatIsTooLargeForItsWayIsRefused) {
  transport::Relayed alone = Spliced();
  alone.handle = nullptr;
  Relay(alone, 20);
  EXPECT_EQ(Drain(), 0u);
  EXPECT_EQ(sent.size(), 20u);
  world.Unicast("203.0.113.0/26", {Via(kWan, kWanIndex, "192.0.2.254")}, nullptr, 69);
  for (const transport::Relayed& r : {alone, Spliced()}) Relay(r);
  EXPECT_EQ(sent.size(), 20u);
  EXPECT_EQ(counters->generated_dropped.Read(), 2u);
}

TEST_F(OffloadRelayTest, WhileTracedTheyAreLeftToTheWorker) {
  TraceSession session;
  pipeline->Trace(&session);
  Relay(Up(), 20);
  EXPECT_EQ(Drain(), 0u);
  pipeline->Trace(nullptr);
  Relay(Up());
  EXPECT_EQ(Drain(), 1u);
}

// A program on the stack that relays datagrams for 10.0.0.1 port 53.
class Forwarder final : public transport::UdpHandler {
 public:
  Forwarder(transport::Transport& stack, transport::RelayUser& user) : stack_(stack), user_(user) {
    transport::UdpSocket listener;
    EXPECT_EQ(stack_.udp().Bind({*ParseIpAddress("10.0.0.1"), 53}, this, listener),
              transport::SocketError::kNone);
    EXPECT_EQ(stack_.udp().Open({}, backend_, this, out_), transport::SocketError::kNone);
  }
  void OnReadable(transport::UdpSocket s, Nanos now) override {
    transport::ReceivedData d;
    transport::Endpoint from;
    while (stack_.udp().ReceivePacket(s, d, from) == transport::SocketError::kNone) {
      const std::span<const uint8_t> data(d.packet.data + d.offset, d.length);
      const transport::Relayed relayed{
          .in = d.packet.in,
          .arrives = {{transport::EndsOf(d.packet).destination, 53}, from},
          .protocol = wire::kProtocolUdp,
          .handle = &handle,
          .user = &user_};
      EXPECT_TRUE(stack_.udp().SendRelayed(out_, backend_, data, relayed, now).ok());
      stack_.udp().Release(d);
    }
  }
  transport::RelayHandle handle;

 private:
  const transport::Endpoint backend_{*ParseIpAddress("203.0.113.9"), 5353};
  transport::Transport& stack_;
  transport::RelayUser& user_;
  transport::UdpSocket out_;
};

TEST_F(OffloadRelayTest, FromTheWireToTheEntry) {
  LocalSockets& sockets = pipeline->sockets();
  auto stack = std::make_unique<transport::Transport>(transport::TransportConfig{}, world.pool,
                                                      sockets);
  pipeline->SeeSnapshot(world.snapshot, now);
  Forwarder forwarder(*stack, *this);
  sockets.Install(std::move(stack), nullptr);
  const Bytes question =
      FromHost().Ipv4("10.0.0.2", "10.0.0.1").Udp(4000, 53).Payload("q").Build();

  TraceSession session;  // of everything
  pipeline->Trace(&session);
  Repeat(question, 20);
  EXPECT_EQ(Drain(), 0u) << "a trace sees every packet";
  TraceRecord record;
  bool would = false;
  while (session.ring.TryPop(record)) would |= record.offload;
  EXPECT_TRUE(would) << "and says who would have carried it";
  pipeline->Trace(nullptr);

  Forget();
  Process(question);
  ASSERT_EQ(Drain(), 1u);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(last->key4.slot, kLan.value);
  EXPECT_EQ(last->key4.source_port, __builtin_bswap16(4000));
  EXPECT_EQ(last->key4.destination, __builtin_bswap32(A4("10.0.0.1").value));
  // What it says is what the worker has just done.
  EXPECT_EQ(__builtin_bswap16(last->action().source_port), LoadBe16(&sent[0].bytes[34]));
  EXPECT_EQ(__builtin_bswap32(last->entry4.source), LoadBe32(&sent[0].bytes[26]));
  EXPECT_EQ(__builtin_bswap32(last->entry4.destination), LoadBe32(&sent[0].bytes[30]));
  Carry(*last, 2, 58);
  RunTimersFor(Millis(150));
  EXPECT_THAT(told, ElementsAre(Told{0, 2, 58}));
  End(forwarder.handle);
}

TEST_F(OffloadRelayTest, AtTheLimitTheyStayWithTheWorker) {
  std::vector<transport::RelayHandle> handles(kIds + 4);
  for (uint16_t i = 0; i < kIds + 4; ++i) {
    transport::Relayed r = Up();
    r.arrives.remote.port = static_cast<uint16_t>(1000 + i);
    r.handle = &handles[i];
    Relay(r, kEnough);
  }
  Drain();
  EXPECT_EQ(entries.size(), kIds);
  EXPECT_EQ(counters->offload.refused_full.Read(), 4u);
  for (transport::RelayHandle& handle : handles) End(handle);
  EXPECT_EQ(counters->offload.entries.Read(), 0u);
  Drain();
  EXPECT_TRUE(entries.empty());
}

}  // namespace
}  // namespace sluice::dataplane
