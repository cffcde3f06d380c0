#include "stages/icmp/icmp_error.h"

#include <gtest/gtest.h>

#include <optional>

#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using test::A4;
using test::A6;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class IcmpErrorTest : public testing::Test {
 protected:
  ~IcmpErrorTest() override { world.CheckFrames(); }

  Packet Offending(const Bytes& bytes, uint32_t segment = 0) {
    Packet p = world.Receive(bytes, test::kLan, segment);
    EXPECT_EQ(Parse(p, world.lan(), world.pool).verdict, Verdict::Continue());
    return p;
  }
  bool MayAnswer(const Bytes& bytes) {
    const Packet p = Offending(bytes);
    const bool may = bytes[12] == 0x08 ? MayBeAnswered4(p) : MayBeAnswered6(p);
    world.Free(p);
    return may;
  }
  // The message from its IP header on; empty when there is none.
  Bytes Error4(const Bytes& bytes, const IcmpError& error, uint32_t mtu = 1500,
               uint32_t segment = 0) {
    const Packet p = Offending(bytes, segment);
    Packet message;
    Bytes result;
    if (BuildError4(p, error, A4("10.0.0.1"), 64, 0x1234, mtu, world.outbox, message)) {
      result = world.BytesOf(message, message.l3_offset);
      EXPECT_EQ(message.l3_offset, 14);
      EXPECT_EQ(message.l4_offset, 34);
      EXPECT_EQ(message.l4_protocol, 1);
      EXPECT_EQ(message.generated, static_cast<uint8_t>(GeneratedKind::kIcmpError));
      EXPECT_FALSE(message.in.valid());
      world.Free(message);
    }
    world.Free(p);
    return result;
  }
  Bytes Error6(const Bytes& bytes, const IcmpError& error, uint32_t segment = 0) {
    const Packet p = Offending(bytes, segment);
    Packet message;
    EXPECT_TRUE(BuildError6(p, error, A6("2001:db8::1"), 63, world.outbox, message));
    const Bytes result = world.BytesOf(message, message.l3_offset);
    EXPECT_EQ(message.l4_offset, 54);
    world.Free(message);
    world.Free(p);
    return result;
  }

  test::RouterWorld world;
};

Bytes FromL3(const Bytes& frame, size_t length) {
  return {frame.begin() + 14,
          frame.begin() + 14 + static_cast<ptrdiff_t>(std::min(length, frame.size() - 14))};
}

TEST(IcmpErrorTable, WhichErrorForWhichDrop) {
  constexpr int kSilent = -1;
  const struct {
    DropReason reason;
    int type4, code4, type6, code6;
  } cases[] = {
      {DropReason::kNoRoute, 3, 0, 1, 0},
      {DropReason::kRouteUnreachable, 3, 1, 1, 0},
      {DropReason::kRouteProhibit, 3, 13, 1, 1},
      {DropReason::kTtlExpired, 11, 0, 3, 0},
      {DropReason::kFragmentTimeout, 11, 1, 3, 1},
      {DropReason::kNeighborFailed, 3, 1, 1, 3},
      {DropReason::kNatExhausted, 3, 1, 1, 3},
      {DropReason::kFragmentationNeeded, 3, 4, kSilent, 0},
      {DropReason::kPacketTooBig, kSilent, 0, 2, 0},
      {DropReason::kLinkLocal, kSilent, 0, 1, 2},
  };
  for (size_t i = 0; i < kDropReasonCount; ++i) {
    const auto reason = static_cast<DropReason>(i);
    int type4 = kSilent, code4 = 0, type6 = kSilent, code6 = 0;
    for (const auto& c : cases) {
      if (c.reason != reason) continue;
      type4 = c.type4, code4 = c.code4, type6 = c.type6, code6 = c.code6;
    }
    const auto error4 = ErrorFor4(reason, 1400);
    const auto error6 = ErrorFor6(reason, 1400);
    ASSERT_EQ(error4.has_value(), type4 != kSilent) << Label(reason);
    ASSERT_EQ(error6.has_value(), type6 != kSilent) << Label(reason);
    if (error4) {
      EXPECT_EQ(error4->type, type4) << Label(reason);
      EXPECT_EQ(error4->code, code4) << Label(reason);
      EXPECT_EQ(error4->rest, reason == DropReason::kFragmentationNeeded ? 1400u : 0u);
    }
    if (error6) {
      EXPECT_EQ(error6->type, type6) << Label(reason);
      EXPECT_EQ(error6->code, code6) << Label(reason);
      EXPECT_EQ(error6->rest, reason == DropReason::kPacketTooBig ? 1400u : 0u);
    }
  }
}

TEST_F(IcmpErrorTest, WhoMayBeAnswered4) {
  const auto from_host = [] { return FromHost().Ipv4("10.0.0.2", "203.0.113.1"); };
  EXPECT_TRUE(MayAnswer(from_host().Udp(1, 2).Build()));
  EXPECT_TRUE(MayAnswer(from_host().MoreFragments().Udp(1, 2).Build()));
  EXPECT_FALSE(MayAnswer(from_host().FragmentOffset(8).Udp(1, 2).Build()));
  EXPECT_FALSE(MayAnswer(PacketBuilder()
                             .Ethernet(test::kHostMac, Mac::Broadcast())
                             .Ipv4("10.0.0.2", "203.0.113.1")
                             .Udp(1, 2)
                             .Build()));
  EXPECT_FALSE(MayAnswer(from_host().Protocol(1).Build())) << "an ICMP packet without a type";
  for (int type = 0; type < 256; ++type) {
    // icmp_pointers: echo, timestamp, information and address mask messages.
    const bool may = type == 0 || type == 8 || (type >= 13 && type <= 18);
    EXPECT_EQ(MayAnswer(from_host().Icmp(static_cast<uint8_t>(type), 0).Build()), may) << type;
  }
}

TEST_F(IcmpErrorTest, WhoMayBeAnswered6) {
  const auto from_host = [] { return FromHost().Ipv6("2001:db8::2", "2001:db8:9::1"); };
  EXPECT_TRUE(MayAnswer(from_host().Udp(1, 2).Build()));
  EXPECT_TRUE(MayAnswer(FromHost().Ipv6("fe80::2", "2001:db8:9::1").Udp(1, 2).Build()));
  EXPECT_FALSE(MayAnswer(FromHost().Ipv6("::", "2001:db8:9::1").Udp(1, 2).Build()));
  EXPECT_FALSE(MayAnswer(PacketBuilder()
                             .Ethernet(test::kHostMac, Mac::Broadcast())
                             .Ipv6("2001:db8::2", "2001:db8:9::1")
                             .Udp(1, 2)
                             .Build()));
  for (int type = 0; type < 256; ++type) {
    const auto t = static_cast<uint8_t>(type);
    EXPECT_EQ(MayAnswer(from_host().Icmpv6(t, 0).Build()), type >= 128) << type;
    EXPECT_EQ(MayAnswer(from_host().DestinationOptions().Icmpv6(t, 0).Build()), type >= 128);
  }
  // is_ineligible: a later fragment shows no type, so nothing speaks against it.
  EXPECT_TRUE(MayAnswer(from_host().Fragment(64, false, 1).Icmpv6(1, 0).Build()));
  EXPECT_FALSE(MayAnswer(from_host().Fragment(0, true, 1).Icmpv6(1, 0).Build()));
  EXPECT_FALSE(MayAnswer(from_host().Protocol(58).Build()));
}

TEST_F(IcmpErrorTest, Ipv4MessageByteForByte) {
  // IPTOS_TOS_MASK keeps 0x1e of the offending TOS; the precedence is internetwork control.
  const struct {
    uint8_t tos, expected;
  } cases[] = {{0, 0xc0}, {0xff, 0xde}, {0x21, 0xc0}, {0x10, 0xd0}, {0x03, 0xc2}};
  for (const auto& c : cases) {
    const Bytes frame =
        FromHost().Ipv4("10.0.0.2", "203.0.113.1").Tos(c.tos).Ttl(1).Udp(1, 2).Payload(31).Build();
    const Bytes expected = PacketBuilder()
                               .Ipv4("10.0.0.1", "10.0.0.2")
                               .Tos(c.expected)
                               .Id(0x1234)
                               .Ttl(64)
                               .Icmp(11, 0)
                               .Payload(FromL3(frame, 9999))
                               .Build();
    EXPECT_EQ(Error4(frame, {11, 0}), expected) << int{c.tos};
  }
}

TEST_F(IcmpErrorTest, Ipv4QuotesUpTo576Bytes) {
  for (const size_t payload : {0u, 1u, 519u, 520u, 521u, 522u, 1000u, 1472u}) {
    const Bytes frame =
        FromHost().Ipv4("10.0.0.2", "203.0.113.1").Udp(1, 2).Payload(payload).Build();
    const Bytes expected = PacketBuilder()
                               .Ipv4("10.0.0.1", "10.0.0.2")
                               .Tos(0xc0)
                               .Id(0x1234)
                               .Icmp(3, 4, 1400)
                               .Payload(FromL3(frame, 576 - 28))
                               .Build();
    EXPECT_EQ(Error4(frame, {3, 4, 1400}), expected) << payload;
    EXPECT_LE(expected.size(), 576u);
    // From several pieces it is the same.
    EXPECT_EQ(Error4(frame, {3, 4, 1400}, 1500, 60), expected) << payload;
  }
}

TEST_F(IcmpErrorTest, Ipv4ErrorOverATinyMtu) {
  const Bytes frame = FromHost().Ipv4("10.0.0.2", "203.0.113.1").Udp(1, 2).Payload(500).Build();
  EXPECT_EQ(Error4(frame, {11, 0}, 296).size(), 296u);
  EXPECT_EQ(Error4(frame, {11, 0}, 49).size(), 49u);
  EXPECT_TRUE(Error4(frame, {11, 0}, 48).empty()) << "not more than one IP header would fit";
  EXPECT_TRUE(Error4(frame, {11, 0}, 20).empty());
}

TEST_F(IcmpErrorTest, Ipv6MessageByteForByte) {
  for (const size_t payload : {0u, 7u, 1183u, 1184u, 1185u, 1400u}) {
    const Bytes frame = FromHost()
                            .Ipv6("2001:db8::2", "2001:db8:9::1")
                            .Tos(0xff)
                            .FlowLabel(0xabcde)
                            .Udp(1, 2)
                            .Payload(payload)
                            .Build();
    const Bytes expected = PacketBuilder()
                               .Ipv6("2001:db8::1", "2001:db8::2")
                               .HopLimit(63)
                               .Icmpv6(2, 0, 1280)
                               .Payload(FromL3(frame, 1280 - 48))
                               .Build();
    EXPECT_EQ(Error6(frame, {2, 0, 1280}), expected) << payload;
    EXPECT_LE(expected.size(), 1280u);
    EXPECT_EQ(Error6(frame, {2, 0, 1280}, 70), expected) << payload;
  }
}

TEST_F(IcmpErrorTest, NoFreeFrame) {
  const Packet p = Offending(FromHost().Ipv4("10.0.0.2", "203.0.113.1").Udp(1, 2).Build());
  std::vector<packet::FrameIndex> taken;
  for (uint32_t n = world.pool.size(); n > 0; --n) taken.push_back(world.pool.Alloc());
  Packet message;
  EXPECT_FALSE(BuildError4(p, {11, 0}, A4("10.0.0.1"), 64, 1, 1500, world.outbox, message));
  for (const auto frame : taken) world.pool.Free(frame);
  world.Free(p);
}

}  // namespace
}  // namespace sluice::stages
