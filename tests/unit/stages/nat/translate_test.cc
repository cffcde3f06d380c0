// Rewriting: what comes out equals what PacketBuilder makes of the translated addresses from
// scratch.
#include "stages/nat/translate.h"

#include <vector>

#include "base/rng.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "tables/flow_owner.h"
#include "unit/stages/nat/nat_fixture.h"
#include "wire/crc32c.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;
using test::Bytes;
using test::PacketBuilder;

// Every way an L4 header can look. The payload gets `size` bytes.
enum class Kind { kTcp, kUdp, kUdpNoChecksum, kUdpLite, kSctp, kIcmp, kGre };
constexpr Kind kKinds[] = {Kind::kTcp,     Kind::kUdp,  Kind::kUdpNoChecksum,
                           Kind::kUdpLite, Kind::kSctp, Kind::kIcmp,
                           Kind::kGre};

uint8_t ProtocolOf(Kind kind, bool v6) {
  switch (kind) {
    case Kind::kTcp:
      return wire::kProtocolTcp;
    case Kind::kUdp:
    case Kind::kUdpNoChecksum:
      return wire::kProtocolUdp;
    case Kind::kUdpLite:
      return wire::kProtocolUdpLite;
    case Kind::kSctp:
      return wire::kProtocolSctp;
    case Kind::kIcmp:
      return v6 ? wire::kProtocolIcmpv6 : wire::kProtocolIcmp;
    case Kind::kGre:
      return 47;
  }
  return 0;
}

// The slow and obvious CRC32c.
uint32_t NaiveCrc32c(const Bytes& bytes) {
  uint32_t crc = ~uint32_t{0};
  for (const uint8_t byte : bytes) {
    crc ^= byte;
    for (int i = 0; i < 8; ++i) crc = crc & 1 ? (crc >> 1) ^ 0x82f63b78 : crc >> 1;
  }
  return ~crc;
}

void Put16(Bytes& bytes, size_t at, uint16_t value) {
  bytes[at] = static_cast<uint8_t>(value >> 8);
  bytes[at + 1] = static_cast<uint8_t>(value);
}

// UDP-Lite and SCTP, which PacketBuilder does not know, as the payload of their protocol.
Bytes UdpLite(const FlowTuple& t, const Bytes& payload) {
  Bytes l4(8);
  Put16(l4, 0, t.source_port);
  Put16(l4, 2, t.destination_port);
  l4.insert(l4.end(), payload.begin(), payload.end());
  const bool v4 = t.family == Family::kIpv4;
  Bytes sum = v4 ? test::PseudoHeader(Ipv4(static_cast<uint32_t>(t.source.lo)),
                                      Ipv4(static_cast<uint32_t>(t.destination.lo)), 136, l4.size())
                 : test::PseudoHeader(t.source, t.destination, 136, l4.size());
  sum.insert(sum.end(), l4.begin(), l4.end());
  const uint16_t check = test::NaiveChecksum(sum);
  Put16(l4, 6, check == 0 ? 0xffff : check);
  return l4;
}
Bytes Sctp(const FlowTuple& t, const Bytes& payload) {
  Bytes l4(12);
  Put16(l4, 0, t.source_port);
  Put16(l4, 2, t.destination_port);
  l4[7] = 0x77;  // verification tag
  l4.insert(l4.end(), payload.begin(), payload.end());
  const uint32_t crc = NaiveCrc32c(l4);
  for (size_t i = 0; i < 4; ++i) l4[8 + i] = static_cast<uint8_t>(crc >> (8 * i));
  return l4;
}

PacketBuilder Build(Kind kind, const FlowTuple& t, const Bytes& payload) {
  const bool v4 = t.family == Family::kIpv4;
  PacketBuilder b = test::FromHost();
  if (v4) {
    b.Ipv4(Ipv4(static_cast<uint32_t>(t.source.lo)), Ipv4(static_cast<uint32_t>(t.destination.lo)));
  } else {
    b.Ipv6(t.source, t.destination);
  }
  switch (kind) {
    case Kind::kTcp:
      return b.Tcp(t.source_port, t.destination_port).Sequence(5, 6).Payload(payload);
    case Kind::kUdp:
      return b.Udp(t.source_port, t.destination_port).Payload(payload);
    case Kind::kUdpNoChecksum:
      return b.Udp(t.source_port, t.destination_port).ZeroUdpChecksum().Payload(payload);
    case Kind::kUdpLite:
      return b.Protocol(136).Payload(UdpLite(t, payload));
    case Kind::kSctp:
      return b.Protocol(132).Payload(Sctp(t, payload));
    case Kind::kGre:
      return b.Protocol(47).Payload(Bytes{0, 0, 8, 0, 1, 2, 3, 4}).Payload(payload);
    case Kind::kIcmp: {
      const bool request = (t.destination_port & 0xff00) == (v4 ? 0x0800 : 0x8000);
      if (v4) {
        request ? b.IcmpEcho(t.source_port, 3) : b.IcmpEchoReply(t.source_port, 3);
      } else {
        request ? b.Icmpv6Echo(t.source_port, 3) : b.Icmpv6EchoReply(t.source_port, 3);
      }
      return b.Payload(payload);
    }
  }
  return b;
}

class TranslateTest : public NatFixture {
 protected:
  ~TranslateTest() override { world.CheckFrames(); }

  Packet Receive(const Bytes& frame, uint32_t segment = 0) {
    Packet p = world.Receive(frame, test::kLan, segment);
    EXPECT_TRUE(Parse(p, world.lan(), world.pool).verdict.is_continue()) << test::ToHex(frame);
    return p;
  }
  Bytes Finish(const Packet& p) {
    const Bytes bytes = world.BytesOf(p);
    world.Free(p);
    return bytes;
  }
  Verdict Apply(Packet& p, const Flow& flow, FlowDirection direction, NatManip manip) {
    return Translate(*world.arena, p, flow, direction, manip);
  }
  // Through the router: PREROUTING, then POSTROUTING.
  Bytes Through(const Bytes& frame, const Flow& flow, FlowDirection direction,
                uint32_t segment = 0) {
    Packet p = Receive(frame, segment);
    EXPECT_TRUE(Apply(p, flow, direction, NatManip::kDestination).is_continue());
    EXPECT_TRUE(Apply(p, flow, direction, NatManip::kSource).is_continue());
    return Finish(p);
  }
  static Flow Translated(const FlowTuple& original, const FlowTuple& outside) {
    Flow flow{};
    flow.tuples = {original, Inverse(outside)};
    const bool icmp = tables::IsIcmp(original.protocol);
    if (original.source != outside.source || original.source_port != outside.source_port) {
      flow.status |= tables::kFlowSourceNat;
    }
    if (original.destination != outside.destination ||
        (!icmp && original.destination_port != outside.destination_port)) {
      flow.status |= tables::kFlowDestinationNat;
    }
    flow.status |= tables::kFlowSourceNatDone | tables::kFlowDestinationNatDone;
    return flow;
  }
  FlowTuple RandomTuple(Kind kind, bool v6) {
    const auto address = [&] {
      return v6 ? Ipv6(0x2001'0db8'0000'0000 | rng.Below(1 << 20), rng.Next())
                : Ipv6(0, 0x0a00'0000 | rng.Below(1 << 24));
    };
    FlowTuple t;
    t.family = v6 ? Family::kIpv6 : Family::kIpv4;
    t.source = address();
    t.destination = address();
    t.protocol = ProtocolOf(kind, v6);
    if (kind != Kind::kGre) t.source_port = static_cast<uint16_t>(rng.Next());
    if (kind == Kind::kIcmp) {
      t.destination_port = v6 ? 0x8000 : 0x0800;
    } else if (kind != Kind::kGre) {
      t.destination_port = static_cast<uint16_t>(rng.Next());
    }
    return t;
  }
  Bytes RandomPayload(size_t most) {
    Bytes payload(rng.Below(most));
    for (uint8_t& b : payload) b = static_cast<uint8_t>(rng.Next());
    return payload;
  }

  Rng rng{20261125};
  test::RouterWorld world;
};

TEST_F(TranslateTest, IncrementalEqualsFromScratch) {
  for (int round = 0; round < 400; ++round) {
    for (const Kind kind : kKinds) {
      for (const bool v6 : {false, true}) {
        const FlowTuple original = RandomTuple(kind, v6);
        FlowTuple outside = RandomTuple(kind, v6);
        // Also one end only, and addresses only.
        if (rng.Chance(1, 3)) {
          outside.destination = original.destination;
          outside.destination_port = original.destination_port;
        } else if (rng.Chance(1, 3)) {
          outside.source = original.source;
          outside.source_port = original.source_port;
        }
        if (rng.Chance(1, 4)) {
          outside.source_port = original.source_port;
          outside.destination_port = original.destination_port;
        }
        const Flow flow = Translated(original, outside);
        const Bytes payload = RandomPayload(300);
        const uint32_t segment = rng.Chance(1, 4) ? 120 : 0;
        SCOPED_TRACE(testing::Message() << round << " kind " << static_cast<int>(kind) << " v6 "
                                        << v6 << " " << Show(original) << " " << Show(outside));
        const Bytes before = Build(kind, original, payload).Build();
        const Bytes after = Build(kind, outside, payload).Build();
        ASSERT_EQ(Through(before, flow, FlowDirection::kOriginal, segment), after);
        // And the answer.
        const Bytes answer = Build(kind, Inverse(outside), payload).Build();
        ASSERT_EQ(Through(answer, flow, FlowDirection::kReply, segment),
                  Build(kind, Inverse(original), payload).Build());
      }
    }
  }
}

TEST_F(TranslateTest, ChecksumsThatComeToZero) {
  // Walk one 16-bit word of the payload through all values: some of them make the sum all ones.
  const FlowTuple original = Tuple("10.0.0.2", 4000, "1.1.1.1", 53, wire::kProtocolUdp);
  const FlowTuple outside = Tuple("192.0.2.1", 50001, "1.1.1.1", 53, wire::kProtocolUdp);
  const Flow flow = Translated(original, outside);
  int all_ones = 0;
  for (uint32_t word = 0; word < 0x10000; ++word) {
    const Bytes payload{static_cast<uint8_t>(word >> 8), static_cast<uint8_t>(word)};
    const Bytes after = Build(Kind::kUdp, outside, payload).Build();
    ASSERT_EQ(Through(Build(Kind::kUdp, original, payload).Build(), flow, FlowDirection::kOriginal),
              after);
    all_ones += after[14 + 20 + 6] == 0xff && after[14 + 20 + 7] == 0xff;
  }
  EXPECT_GE(all_ones, 1);
}

TEST_F(TranslateTest, AWrongChecksumStaysWrong) {
  const FlowTuple original = Tuple("10.0.0.2", 4000, "1.1.1.1", 80);
  const FlowTuple outside = Tuple("192.0.2.1", 50001, "1.1.1.1", 80);
  const Bytes right = Build(Kind::kTcp, original, {1, 2, 3}).Build();
  Bytes wrong = right;
  Put16(wrong, 14 + 20 + 16, static_cast<uint16_t>(LoadBe16(&right[14 + 20 + 16]) ^ 0x0100));
  const Flow flow = Translated(original, outside);
  const Bytes from_right = Through(right, flow, FlowDirection::kOriginal);
  const Bytes from_wrong = Through(wrong, flow, FlowDirection::kOriginal);
  EXPECT_NE(from_right, from_wrong);
}

TEST_F(TranslateTest, APartialChecksumStaysThePseudoHeadersSum) {
  for (const bool v6 : {false, true}) {
    for (const Kind kind : {Kind::kTcp, Kind::kUdp}) {
      for (int i = 0; i < 200; ++i) {
        const FlowTuple original = RandomTuple(kind, v6);
        const FlowTuple outside = RandomTuple(kind, v6);
        const Flow flow = Translated(original, outside);
        Packet p = Receive(Build(kind, original, {1, 2, 3}).PartialChecksum().Build());
        p.flags |= packet::kFlagPartialChecksum;
        Apply(p, flow, FlowDirection::kOriginal, NatManip::kDestination);
        Apply(p, flow, FlowDirection::kOriginal, NatManip::kSource);
        EXPECT_EQ(Finish(p), Build(kind, outside, {1, 2, 3}).PartialChecksum().Build());
      }
    }
  }
}

TEST_F(TranslateTest, EachHookChangesItsEnd) {
  const FlowTuple original = Tuple("10.0.0.2", 4000, "192.0.2.1", 80);
  const FlowTuple outside = Tuple("10.0.0.1", 4001, "10.0.0.5", 8080);
  const Flow flow = Translated(original, outside);  // hairpin
  const FlowTuple between = Tuple("10.0.0.2", 4000, "10.0.0.5", 8080);
  Packet p = Receive(Build(Kind::kTcp, original, {}).Build());
  Apply(p, flow, FlowDirection::kOriginal, NatManip::kDestination);
  EXPECT_EQ(world.BytesOf(p), Build(Kind::kTcp, between, {}).Build());
  Apply(p, flow, FlowDirection::kOriginal, NatManip::kSource);
  EXPECT_EQ(Finish(p), Build(Kind::kTcp, outside, {}).Build());

  const FlowTuple answer_between = Tuple("10.0.0.5", 8080, "10.0.0.2", 4000);
  p = Receive(Build(Kind::kTcp, Inverse(outside), {}).Build());
  Apply(p, flow, FlowDirection::kReply, NatManip::kDestination);
  EXPECT_EQ(world.BytesOf(p), Build(Kind::kTcp, answer_between, {}).Build());
  Apply(p, flow, FlowDirection::kReply, NatManip::kSource);
  EXPECT_EQ(Finish(p), Build(Kind::kTcp, Inverse(original), {}).Build());
}

TEST_F(TranslateTest, UntranslatedFlowsAreNotTouched) {
  const FlowTuple t = Tuple("10.0.0.2", 4000, "1.1.1.1", 80);
  const Flow flow = Translated(t, t);
  Bytes frame = Build(Kind::kTcp, t, {1, 2}).BadChecksum().Build();
  EXPECT_EQ(Through(frame, flow, FlowDirection::kOriginal), frame);
}

TEST_F(TranslateTest, BehindOptionsAndExtensionHeaders) {
  const FlowTuple o4 = Tuple("10.0.0.2", 4000, "1.1.1.1", 80);
  const FlowTuple n4 = Tuple("192.0.2.1", 50000, "1.1.1.1", 80);
  const auto v4 = [](const char* from, uint16_t port) {
    return test::FromHost()
        .Ipv4(from, "1.1.1.1")
        .Options({1, 1, 1, 0})
        .Tcp(port, 80)
        .Payload(9)
        .Build();
  };
  EXPECT_EQ(Through(v4("10.0.0.2", 4000), Translated(o4, n4), FlowDirection::kOriginal),
            v4("192.0.2.1", 50000));
  const FlowTuple o6 = Tuple("2001:db8::2", 4000, "2001:4860::8", 80, wire::kProtocolUdp);
  const FlowTuple n6 = Tuple("2001:db8:1::1", 50000, "2001:4860::8", 80, wire::kProtocolUdp);
  const auto v6 = [](const char* from, uint16_t port) {
    return test::FromHost()
        .Ipv6(from, "2001:4860::8")
        .HopByHop()
        .DestinationOptions()
        .Udp(port, 80)
        .Payload(9)
        .Build();
  };
  EXPECT_EQ(Through(v6("2001:db8::2", 4000), Translated(o6, n6), FlowDirection::kOriginal),
            v6("2001:db8:1::1", 50000));
}

TEST_F(TranslateTest, HeadersCutShort) {
  for (const Kind kind : kKinds) {
    const FlowTuple original = RandomTuple(kind, false);
    const FlowTuple outside = RandomTuple(kind, false);
    const Flow flow = Translated(original, outside);
    const Bytes whole = Build(kind, original, {1, 2, 3, 4}).Build();
    for (size_t l4 = 0; l4 <= 12; ++l4) {
      // An IP packet that says itself that it is that short.
      const Bytes payload(whole.begin() + 34, whole.begin() + 34 + static_cast<long>(l4));
      const Bytes frame = test::FromHost()
                              .Ipv4(Ipv4(static_cast<uint32_t>(original.source.lo)),
                                    Ipv4(static_cast<uint32_t>(original.destination.lo)))
                              .Protocol(original.protocol)
                              .Payload(payload)
                              .Build();
      Packet p = Receive(frame);
      const Verdict verdict = Apply(p, flow, FlowDirection::kOriginal, NatManip::kSource);
      const bool has_ports = kind != Kind::kGre;
      const bool has_l4 = p.l4_offset != 0;
      if (has_ports && has_l4 && l4 < 8) {
        EXPECT_EQ(verdict, Verdict::Drop(DropReason::kNatUntranslatable));
        EXPECT_EQ(world.BytesOf(p), frame) << "untouched";
      } else {
        EXPECT_TRUE(verdict.is_continue());
        EXPECT_TRUE(RestoreOriginal(*world.arena, p, flow, FlowDirection::kOriginal));
        if (kind != Kind::kSctp) {
          EXPECT_EQ(world.BytesOf(p), frame);
        }
      }
      world.Free(p);
    }
  }
}

TEST_F(TranslateTest, RestoresAtAnyPoint) {
  for (int round = 0; round < 100; ++round) {
    for (const Kind kind : kKinds) {
      for (const bool v6 : {false, true}) {
        const FlowTuple original = RandomTuple(kind, v6);
        const Flow flow = Translated(original, RandomTuple(kind, v6));
        for (const FlowDirection d : {FlowDirection::kOriginal, FlowDirection::kReply}) {
          const Bytes frame = Build(kind, flow.tuple(d), RandomPayload(60)).Build();
          for (const int steps : {0, 1, 2}) {
            Packet p = Receive(frame);
            if (steps > 0) Apply(p, flow, d, NatManip::kDestination);
            if (steps > 1) Apply(p, flow, d, NatManip::kSource);
            EXPECT_TRUE(RestoreOriginal(*world.arena, p, flow, d));
            EXPECT_EQ(Finish(p), frame) << static_cast<int>(kind) << " " << steps;
          }
        }
      }
    }
  }
}

TEST(Crc32cTest, KnownValues) {
  // RFC 3720 appendix B.4.
  wire::Crc32c zeros;
  zeros.Add(Bytes(32, 0));
  EXPECT_EQ(zeros.value(), 0x8a9136aau);
  wire::Crc32c ones;
  ones.Add(Bytes(16, 0xff));
  ones.Add(Bytes(16, 0xff));
  EXPECT_EQ(ones.value(), 0x62a8ab43u);
}

}  // namespace
}  // namespace sluice::stages
