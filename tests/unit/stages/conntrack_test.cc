// Connection tracking of everything but TCP: UDP, ICMP, errors, GRE, others; and its limits.
#include "unit/stages/conntrack_fixture.h"

namespace sluice::stages {
namespace {

constexpr const char* kA = "10.0.0.2";
constexpr const char* kB = "192.0.2.9";
constexpr const char* kRouter = "192.0.2.77";
constexpr const char* kA6 = "2001:db8::2";
constexpr const char* kB6 = "2001:db8:1::9";

PacketBuilder FromA() { return FromHost().Ipv4(kA, kB); }
PacketBuilder FromB() { return FromHost().Ipv4(kB, kA); }
PacketBuilder FromA6() { return FromHost().Ipv6(kA6, kB6); }
PacketBuilder FromB6() { return FromHost().Ipv6(kB6, kA6); }
Bytes WithoutEthernet(const Bytes& frame) { return Bytes(frame.begin() + 14, frame.end()); }

TEST_F(ConntrackFixture, UdpBecomesAStreamAfterTwoSeconds) {
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).Payload(10)), CtState::kNew);
  EXPECT_EQ(Left(), Seconds(30));
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).Payload(10)), CtState::kNew);
  EXPECT_EQ(Pass(FromB().Udp(53, 5000).Payload(10)), CtState::kEstablished);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).Payload(10)), CtState::kEstablished);
  EXPECT_EQ(Left(), Seconds(30));
  EXPECT_FALSE(flow().Has(tables::kFlowAssured));
  Wait(Seconds(2));
  EXPECT_EQ(Pass(FromB().Udp(53, 5000).Payload(10)), CtState::kEstablished);
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Left(), Seconds(120));
  EXPECT_EQ(flow().counts[0].packets, 3u);
  EXPECT_EQ(flow().counts[0].bytes, 3u * 38);
  EXPECT_EQ(flow().counts[1].packets, 2u);
  Wait(Seconds(121));
  EXPECT_EQ(Pass(FromB().Udp(53, 5000).Payload(10)), CtState::kNew);
  EXPECT_EQ(counters.expired.Read(), 1u);
}

TEST_F(ConntrackFixture, AFlowPastItsTimeIsGoneAlsoBeforeItsTimerFires) {
  EXPECT_EQ(Pass(FromA().Udp(5000, 53)), CtState::kNew);
  now += Seconds(31);
  EXPECT_EQ(Pass(FromB().Udp(53, 5000)), CtState::kNew);
  EXPECT_EQ(direction(), FlowDirection::kOriginal);
  EXPECT_EQ(table->size(), 1u);
}

TEST_F(ConntrackFixture, Udp6) {
  EXPECT_EQ(Pass(FromA6().Udp(5000, 53)), CtState::kNew);
  EXPECT_EQ(Pass(FromB6().Udp(53, 5000)), CtState::kEstablished);
  EXPECT_EQ(Pass(FromB6().Udp(53, 5001)), CtState::kNew);
}

TEST_F(ConntrackFixture, UdpThatIsNotSound) {
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).BadChecksum().Payload(10)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).UdpLength(7)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).UdpLength(100)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).TotalLength(27)), CtState::kInvalid);
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(counters.invalid.Read(), 4u);
  EXPECT_EQ(Pass(FromA().Udp(5000, 53).ZeroUdpChecksum().Payload(3)), CtState::kNew);
  EXPECT_EQ(Pass(FromA().Udp(5001, 53).PartialChecksum().Payload(3)), CtState::kNew);
  EXPECT_EQ(Pass(FromA6().Udp(5001, 53).PartialChecksum().Payload(3)), CtState::kNew);
  EXPECT_EQ(Pass(FromA6().Udp(5001, 53).BadChecksum().Payload(3)), CtState::kInvalid);
  settings.checksum = false;
  EXPECT_EQ(Pass(FromA().Udp(5002, 53).BadChecksum().Payload(10)), CtState::kNew);
}

TEST_F(ConntrackFixture, ChecksumsOverPieces) {
  for (const uint32_t segment : {100u, 101u, 255u}) {
    EXPECT_EQ(Pass(FromA().Udp(5000, 53).Payload(1001).Build(), segment), CtState::kNew);
    EXPECT_EQ(Pass(FromA().Udp(5000, 53).BadChecksum().Payload(1001).Build(), segment),
              CtState::kInvalid);
    EXPECT_EQ(Pass(FromA6().Tcp(1, 2).Payload(1001).Build(), segment), CtState::kNew);
    EXPECT_EQ(Pass(FromA6().Tcp(1, 2).BadChecksum().Payload(1001).Build(), segment),
              CtState::kInvalid);
  }
}

TEST_F(ConntrackFixture, UdpLite) {
  const auto packet = [](uint16_t coverage, uint16_t covered_bytes) {
    Bytes l4 = {0x13, 0x88, 0, 53, 0, 0, 0, 0, 1, 2, 3, 4};
    StoreBe16(l4.data() + 4, coverage);
    Bytes all = test::PseudoHeader(test::A4(kA), test::A4(kB), 136, l4.size());
    all.insert(all.end(), l4.begin(), l4.begin() + covered_bytes);
    StoreBe16(l4.data() + 6, test::NaiveChecksum(all));
    return FromA().Protocol(136).Payload(l4);
  };
  EXPECT_EQ(Pass(packet(8, 8)), CtState::kNew);
  EXPECT_EQ(flow().tuples[0].source_port, 5000);
  EXPECT_EQ(flow().tuples[0].destination_port, 53);
  EXPECT_EQ(Pass(packet(0, 12)), CtState::kNew);
  EXPECT_EQ(Pass(packet(0, 8)), CtState::kInvalid);
  EXPECT_EQ(Pass(packet(7, 7)), CtState::kInvalid);
  EXPECT_EQ(Pass(packet(13, 12)), CtState::kInvalid);
}

TEST_F(ConntrackFixture, Ping) {
  EXPECT_EQ(Pass(FromA().IcmpEcho(7, 1).Payload(56)), CtState::kNew);
  EXPECT_EQ(Left(), Seconds(30));
  EXPECT_EQ(flow().tuples[0].source_port, 7);
  EXPECT_EQ(flow().tuples[0].destination_port, 0x0800);
  EXPECT_EQ(flow().tuples[1].destination_port, 0x0000);
  EXPECT_EQ(Pass(FromB().IcmpEchoReply(7, 1).Payload(56)), CtState::kEstablished);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  EXPECT_EQ(Pass(FromA().IcmpEcho(7, 2).Payload(56)), CtState::kEstablished);
  EXPECT_EQ(Pass(FromA().IcmpEcho(8, 1).Payload(56)), CtState::kNew) << "another ping";
  EXPECT_EQ(Pass(FromB().IcmpEchoReply(9, 1).Payload(56)), CtState::kInvalid) << "nobody asked";
  EXPECT_EQ(table->size(), 2u);
}

TEST_F(ConntrackFixture, OtherIcmp) {
  EXPECT_EQ(Pass(FromA().Icmp(13, 0, 7 << 16).Payload(12)), CtState::kNew);
  EXPECT_EQ(Pass(FromB().Icmp(14, 0, 7 << 16).Payload(12)), CtState::kEstablished);
  EXPECT_EQ(Pass(FromA().Icmp(17, 0, 7 << 16).Payload(4)), CtState::kNew);
  EXPECT_EQ(Pass(FromA().Icmp(9, 0)), CtState::kInvalid) << "router advertisement";
  EXPECT_EQ(Pass(FromA().Icmp(19, 0)), CtState::kInvalid) << "unknown";
  EXPECT_EQ(Pass(FromA().IcmpEcho(7, 1).BadChecksum().Payload(56)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().Protocol(1).Payload(Bytes{8, 0, 0})), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().Protocol(58).Payload(Bytes{128, 0, 0, 0, 0, 0, 0, 0})), CtState::kInvalid);
}

TEST_F(ConntrackFixture, Ping6) {
  EXPECT_EQ(Pass(FromA6().Icmpv6Echo(7, 1).Payload(56)), CtState::kNew);
  EXPECT_EQ(Pass(FromB6().Icmpv6EchoReply(7, 1).Payload(56)), CtState::kEstablished);
  EXPECT_EQ(Pass(FromB6().Icmpv6EchoReply(8, 1).Payload(56)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA6().Icmpv6Echo(7, 1).BadChecksum()), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA6().Icmpv6(150, 0)), CtState::kInvalid);
}

TEST_F(ConntrackFixture, NeighbourDiscoveryAndListenersAreNotTracked) {
  EXPECT_EQ(Pass(FromA6().NeighborSolicitation(kB6)), CtState::kUntracked);
  EXPECT_EQ(Pass(FromA6().RouterSolicitation()), CtState::kUntracked);
  EXPECT_EQ(Pass(FromA6().Icmpv6(131, 0).Payload(16)), CtState::kUntracked);
  EXPECT_EQ(Pass(FromA6().Icmpv6(143, 0)), CtState::kUntracked);
  EXPECT_EQ(Pass(FromA6().Icmpv6(143, 0).BadChecksum()), CtState::kInvalid);
  EXPECT_EQ(table->size(), 0u);
}

TEST_F(ConntrackFixture, UntrackedPacketsPass) {
  preset = CtState::kUntracked;
  EXPECT_EQ(Pass(FromA().Udp(5000, 53)), CtState::kUntracked);
  EXPECT_EQ(table->size(), 0u);
  preset = CtState::kNone;
  Packet tracked = TrackOnly(FromA().Udp(5000, 53).Build());
  EXPECT_EQ(table->size(), 1u);
  conntrack->Untrack(tracked);
  EXPECT_EQ(tracked.ct_state, static_cast<uint8_t>(CtState::kUntracked));
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(conntrack->Confirm(tracked, now), Verdict::Continue());
  world.Free(tracked);
}

class IcmpErrors : public ConntrackFixture {
 protected:
  void SetUp() override {
    request = FromA().Udp(5000, 53).Payload(20).Build();
    reply = FromB().Udp(53, 5000).Payload(20).Build();
    ASSERT_EQ(Pass(request), CtState::kNew);
    ASSERT_EQ(Pass(reply), CtState::kEstablished);
    of = p.flow;
  }
  // From a router on the way to whoever sent `quoted`.
  CtState Error(const char* to, const Bytes& quoted, size_t length, uint8_t type = 3) {
    Bytes quote = WithoutEthernet(quoted);
    quote.resize(std::min(quote.size(), length));
    return Pass(FromHost().Ipv4(kRouter, to).Icmp(type, 1).Payload(quote));
  }

  Bytes request;
  Bytes reply;
  FlowIndex of = tables::kNoFlow;
};

TEST_F(IcmpErrors, GoWithTheFlowOfThePacketTheyQuote) {
  // About a's packet: it travels to a, the way of the replies.
  EXPECT_EQ(Error(kA, request, 28), CtState::kRelated);
  EXPECT_EQ(p.flow, of);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  EXPECT_EQ(Error(kB, reply, 28), CtState::kRelated);
  EXPECT_EQ(direction(), FlowDirection::kOriginal);
  EXPECT_EQ(flow().counts[0].packets, 1u) << "errors are not counted";
  for (const uint8_t type : {4, 5, 11, 12}) {
    EXPECT_EQ(Error(kA, request, 28, type), CtState::kRelated);
  }
}

TEST_F(IcmpErrors, NeedTheQuotedPorts) {
  EXPECT_EQ(Error(kA, request, 24), CtState::kRelated);
  EXPECT_EQ(Error(kA, request, 23), CtState::kInvalid);
  EXPECT_EQ(Error(kA, request, 19), CtState::kInvalid);
  EXPECT_EQ(Error(kA, request, 0), CtState::kInvalid);
}

TEST_F(IcmpErrors, MustGoToTheSenderOfTheQuotedPacket) {
  EXPECT_EQ(Error("10.0.0.3", request, 28), CtState::kInvalid);
  EXPECT_EQ(Error(kB, request, 28), CtState::kInvalid);
}

TEST_F(IcmpErrors, AboutNoFlow) {
  EXPECT_EQ(Error(kA, FromA().Udp(5001, 53).Build(), 28), CtState::kInvalid);
  EXPECT_EQ(Error(kA, FromA().Udp(5000, 53).FragmentOffset(8).Build(), 28), CtState::kInvalid);
  EXPECT_EQ(Error(kA, FromA().Icmp(9, 0).Build(), 28), CtState::kInvalid);
  now += Seconds(31);
  EXPECT_EQ(Error(kA, request, 28), CtState::kInvalid) << "the flow is over";
}

TEST_F(IcmpErrors, WithABadChecksum) {
  EXPECT_EQ(Pass(FromHost().Ipv4(kRouter, kA).Icmp(3, 1).BadChecksum().Payload(
                WithoutEthernet(request))),
            CtState::kInvalid);
}

TEST_F(IcmpErrors, AboutAPing) {
  const Bytes ping = FromA().IcmpEcho(7, 1).Payload(8).Build();
  ASSERT_EQ(Pass(ping), CtState::kNew);
  const FlowIndex ping_flow = p.flow;
  EXPECT_EQ(Error(kA, ping, 28, 11), CtState::kRelated);
  EXPECT_EQ(p.flow, ping_flow);
  EXPECT_EQ(Error(kA, ping, 27, 11), CtState::kInvalid) << "without the identifier";
}

TEST_F(IcmpErrors, AfterTranslationTheyAreFoundByTheTranslatedTuple) {
  // a's packets leave as 198.51.100.1:6000.
  Packet tracked = TrackOnly(FromA().Udp(7000, 53).Build());
  FlowTuple& answers = table->at(tracked.flow).tuples[1];
  answers.destination = Ipv6(0, test::A4("198.51.100.1").value);
  answers.destination_port = 6000;
  ASSERT_EQ(conntrack->Confirm(tracked, now), Verdict::Continue());
  const FlowIndex translated = tracked.flow;
  world.Free(tracked);
  const Bytes outside = FromHost().Ipv4("198.51.100.1", kB).Udp(6000, 53).Build();
  EXPECT_EQ(Error("198.51.100.1", outside, 28), CtState::kRelated);
  EXPECT_EQ(p.flow, translated);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  // From b's side the error travels the original way, and quotes what b sent.
  EXPECT_EQ(Error(kB, FromHost().Ipv4(kB, kA).Udp(53, 7000).Build(), 28), CtState::kRelated);
  EXPECT_EQ(direction(), FlowDirection::kOriginal);
}

TEST_F(ConntrackFixture, Icmpv6Errors) {
  const Bytes request = FromA6().Udp(5000, 53).Payload(20).Build();
  ASSERT_EQ(Pass(request), CtState::kNew);
  const auto error = [&](const char* to, uint8_t type, const Bytes& quoted) {
    return Pass(FromHost().Ipv6("2001:db8:5::1", to).Icmpv6(type, 0).Payload(
        WithoutEthernet(quoted)));
  };
  for (uint8_t type = 1; type <= 4; ++type) EXPECT_EQ(error(kA6, type, request), CtState::kRelated);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  EXPECT_EQ(error(kB6, 1, request), CtState::kInvalid);
  const Bytes with_options = FromA6().DestinationOptions().Udp(5000, 53).Build();
  EXPECT_EQ(error(kA6, 2, with_options), CtState::kRelated);
  EXPECT_EQ(error(kA6, 2, FromA6().Fragment(8, true, 1).Udp(5000, 53).Build()), CtState::kInvalid);
}

TEST_F(ConntrackFixture, GreByAddressAndPptpByCall) {
  const auto gre = [](bool from_a, Bytes header) {
    return (from_a ? FromA() : FromB()).Protocol(47).Payload(header);
  };
  EXPECT_EQ(Pass(gre(true, {0, 0, 8, 0, 1, 2})), CtState::kNew);
  EXPECT_EQ(Left(), Seconds(30));
  EXPECT_EQ(Pass(gre(false, {0, 0, 8, 0})), CtState::kEstablished);
  EXPECT_EQ(Pass(gre(true, {0, 0, 8, 0})), CtState::kEstablished);
  EXPECT_EQ(Left(), Seconds(180));
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Pass(gre(true, {0x20, 1, 0x88, 0x0b, 0, 8, 0x12, 0x34})), CtState::kNew);
  EXPECT_EQ(flow().tuples[0].destination_port, 0x1234);
  EXPECT_EQ(Pass(gre(true, {0x20, 1, 8, 0, 0, 8, 0x12, 0x34})), CtState::kInvalid);
}

TEST_F(ConntrackFixture, OtherProtocolsByAddress) {
  EXPECT_EQ(Pass(FromA().Protocol(50).Payload(Bytes{1, 2, 3})), CtState::kNew);
  EXPECT_EQ(Left(), Seconds(600));
  EXPECT_EQ(Pass(FromB().Protocol(50).Payload(Bytes{9})), CtState::kEstablished);
  EXPECT_EQ(Pass(FromA().Protocol(51).Payload(Bytes{1, 2, 3})), CtState::kNew);
  EXPECT_EQ(Pass(FromA6().Protocol(59)), CtState::kInvalid) << "no next header";
}

TEST_F(ConntrackFixture, FragmentsAreReassembledBeforeOrInvalid) {
  EXPECT_EQ(Pass(FromA().MoreFragments().Udp(5000, 53).Payload(16)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA().FragmentOffset(24).Protocol(17).Payload(16)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA6().Fragment(0, true, 1).Udp(5000, 53).Payload(16)), CtState::kInvalid);
  EXPECT_EQ(Pass(FromA6().Fragment(0, false, 1).Udp(5000, 53).Payload(16)), CtState::kNew)
      << "an atomic one is whole";
}

TEST_F(ConntrackFixture, AbandonedPacketsLeaveNothing) {
  Packet tracked = TrackOnly(FromA().Udp(5000, 53).Build());
  EXPECT_EQ(table->size(), 1u);
  conntrack->Abandon(tracked);
  EXPECT_EQ(table->size(), 0u);
  world.Free(tracked);
  EXPECT_EQ(Pass(FromB().Udp(53, 5000)), CtState::kNew);
  tracked = TrackOnly(FromB().Udp(53, 5000).Build());
  conntrack->Abandon(tracked);
  EXPECT_EQ(table->size(), 1u) << "a confirmed flow stays";
  world.Free(tracked);
}

TEST_F(ConntrackFixture, AFullTableDropsWhenNothingCanGo) {
  UseTable({.capacity = 4, .hash_seed = 1, .start = kStart});
  const auto both_ways = [&] {
    for (uint16_t port = 1; port <= 4; ++port) {
      Pass(FromA().Udp(port, 53));
      Pass(FromB().Udp(53, port));
    }
  };
  both_ways();
  Wait(Seconds(3));
  both_ways();
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Pass(FromA().Udp(5, 53)), CtState::kNone);
  EXPECT_EQ(verdict, Verdict::Drop(DropReason::kConntrackFull));
  EXPECT_EQ(counters.full.Read(), 1u);
  EXPECT_EQ(table->size(), 4u);
  for (uint16_t port = 1; port <= 4; ++port) {
    EXPECT_EQ(Pass(FromA().Udp(port, 53)), CtState::kEstablished) << "those that are go on";
  }
}

TEST_F(ConntrackFixture, AFullTableGivesUpWhatNobodyAnswered) {
  UseTable({.capacity = 4, .hash_seed = 1, .start = kStart});
  for (uint16_t port = 1; port <= 100; ++port) {
    EXPECT_EQ(Pass(FromA().Udp(port, 53)), CtState::kNew);
  }
  EXPECT_EQ(table->size(), 4u);
  EXPECT_EQ(counters.early_dropped.Read(), 96u);
  EXPECT_EQ(counters.full.Read(), 0u);
}

TEST_F(ConntrackFixture, PerSource) {
  UseTable({.capacity = 64, .per_source = 2, .hash_seed = 1, .start = kStart});
  EXPECT_EQ(Pass(FromA().Udp(1, 53)), CtState::kNew);
  EXPECT_EQ(Pass(FromA().Udp(2, 53)), CtState::kNew);
  EXPECT_EQ(Pass(FromA().Udp(3, 53)), CtState::kNone);
  EXPECT_EQ(verdict, Verdict::Drop(DropReason::kConntrackPerSource));
  EXPECT_EQ(counters.per_source.Read(), 1u);
  EXPECT_EQ(Pass(FromB().Udp(3, 53)), CtState::kNew);
  Wait(Seconds(31));
  EXPECT_EQ(Pass(FromA().Udp(3, 53)), CtState::kNew);
}

TEST_F(ConntrackFixture, TwoFlowsThatWantTheSameRepliesClash) {
  Packet first = TrackOnly(FromA().Udp(1, 53).Build());
  Packet second = TrackOnly(FromHost().Ipv4("10.0.0.3", kB).Udp(1, 53).Build());
  for (const Packet* tracked : {&first, &second}) {
    table->at(tracked->flow).tuples[1].destination = Ipv6(0, test::A4("198.51.100.1").value);
  }
  EXPECT_EQ(conntrack->Confirm(first, now), Verdict::Continue());
  EXPECT_EQ(conntrack->Confirm(second, now), Verdict::Drop(DropReason::kConntrackClash));
  EXPECT_EQ(second.flow, packet::kNoFlowIndex);
  EXPECT_EQ(counters.clashed.Read(), 1u);
  EXPECT_EQ(table->size(), 1u);
  world.Free(first);
  world.Free(second);
}

TEST_F(ConntrackFixture, BothSidesSendingInOneTickAreOneFlow) {
  Packet first = TrackOnly(FromA().Udp(1, 53).Build());
  Packet second = TrackOnly(FromB().Udp(53, 1).Build());
  EXPECT_EQ(conntrack->Confirm(first, now), Verdict::Continue());
  EXPECT_EQ(conntrack->Confirm(second, now), Verdict::Continue());
  EXPECT_EQ(second.flow, first.flow);
  EXPECT_EQ(second.ct_direction, static_cast<uint8_t>(FlowDirection::kReply));
  EXPECT_EQ(table->size(), 1u);
  world.Free(first);
  world.Free(second);
}

// --- SCTP ---

class Sctp : public ConntrackFixture {
 protected:
  static constexpr uint32_t kTagA = 0x1111'1111, kTagB = 0x2222'2222;
  static Bytes Chunk(uint8_t type, Bytes body = {}, uint8_t flags = 0) {
    Bytes chunk = {type, flags, 0, 0};
    StoreBe16(chunk.data() + 2, static_cast<uint16_t>(4 + body.size()));
    chunk.insert(chunk.end(), body.begin(), body.end());
    chunk.resize((chunk.size() + 3) / 4 * 4);
    return chunk;
  }
  static Bytes Init(uint8_t type, uint32_t tag) {
    Bytes body(16);
    StoreBe32(body.data(), tag);
    return Chunk(type, body);
  }
  CtState Send(bool from_a, uint32_t tag, std::initializer_list<Bytes> chunks) {
    Bytes l4(12);
    StoreBe16(l4.data(), from_a ? 1000 : 2000);
    StoreBe16(l4.data() + 2, from_a ? 2000 : 1000);
    StoreBe32(l4.data() + 4, tag);
    for (const Bytes& chunk : chunks) l4.insert(l4.end(), chunk.begin(), chunk.end());
    return Pass((from_a ? FromA() : FromB()).Protocol(132).Payload(l4));
  }
  void Associate() {
    ASSERT_EQ(Send(true, 0, {Init(1, kTagA)}), CtState::kNew);
    ASSERT_EQ(Send(false, kTagA, {Init(2, kTagB)}), CtState::kEstablished);
    ASSERT_EQ(Send(true, kTagB, {Chunk(10, {1, 2, 3, 4})}), CtState::kEstablished);
    ASSERT_EQ(Send(false, kTagA, {Chunk(11)}), CtState::kEstablished);
    ASSERT_EQ(state(), tables::SctpState::kEstablished);
  }
  tables::SctpState state() const {
    return static_cast<tables::SctpState>(flow().sctp.state);
  }
};

TEST_F(Sctp, FromBeginningToEnd) {
  Associate();
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Send(true, kTagB, {Chunk(0, Bytes(20))}), CtState::kEstablished);
  EXPECT_EQ(Left(), settings.sctp_timeout(tables::SctpState::kEstablished));
  EXPECT_EQ(Send(true, kTagB, {Chunk(7, Bytes(4))}), CtState::kEstablished);
  EXPECT_EQ(state(), tables::SctpState::kShutdownSent);
  EXPECT_EQ(Send(false, kTagA, {Chunk(8)}), CtState::kEstablished);
  EXPECT_EQ(state(), tables::SctpState::kShutdownAckSent);
  EXPECT_EQ(Send(true, kTagB, {Chunk(14)}), CtState::kEstablished);
  EXPECT_EQ(state(), tables::SctpState::kClosed);
}

TEST_F(Sctp, VerificationTags) {
  Associate();
  EXPECT_EQ(Send(true, kTagB + 1, {Chunk(0, Bytes(20))}), CtState::kInvalid);
  EXPECT_EQ(Send(true, kTagB + 1, {Chunk(6)}), CtState::kInvalid);
  EXPECT_EQ(Send(true, kTagA, {Chunk(6)}), CtState::kInvalid);
  EXPECT_EQ(Send(true, kTagA, {Chunk(6, {}, 1)}), CtState::kEstablished) << "reflected";
  EXPECT_EQ(state(), tables::SctpState::kClosed);
}

TEST_F(Sctp, WhatDoesNotBeginOne) {
  EXPECT_EQ(Send(true, kTagB, {Chunk(0, Bytes(20))}), CtState::kInvalid);
  EXPECT_EQ(Send(true, 5, {Init(1, kTagA)}), CtState::kInvalid) << "INIT has no tag";
  EXPECT_EQ(Send(true, kTagB, {Chunk(6)}), CtState::kInvalid);
  EXPECT_EQ(Send(true, 0, {Init(1, kTagA), Chunk(0, Bytes(20))}), CtState::kInvalid);
  EXPECT_EQ(Send(true, 0, {}), CtState::kInvalid);
  EXPECT_EQ(Send(true, 0, {{1, 0, 0, 0}}), CtState::kInvalid) << "a chunk of length zero";
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(Send(true, kTagB, {Chunk(4, Bytes(8))}), CtState::kNew) << "a second path";
  EXPECT_EQ(Send(false, kTagA, {Chunk(5, Bytes(8))}), CtState::kEstablished);
  EXPECT_EQ(state(), tables::SctpState::kEstablished);
}

}  // namespace
}  // namespace sluice::stages
