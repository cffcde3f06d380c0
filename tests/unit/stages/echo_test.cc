#include "stages/icmp/echo.h"

#include <gtest/gtest.h>

#include "base/worker_counters.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class EchoTest : public testing::Test {
 protected:
  ~EchoTest() override { world.CheckFrames(); }

  Packet Receive(const Bytes& bytes, uint32_t segment = 0) {
    Packet p = world.Receive(bytes, test::kLan, segment);
    EXPECT_TRUE(Parse(p, world.lan(), world.pool).verdict.is_continue());
    return p;
  }
  bool IsRequest(const Bytes& bytes, uint32_t segment = 0) {
    const Packet p = Receive(bytes, segment);
    const bool is = bytes[12] == 0x08 ? IsEchoRequest4(p) : IsEchoRequest6(p);
    world.Free(p);
    return is;
  }

  test::RouterWorld world;
};

PacketBuilder To4() { return FromHost().Ipv4("10.0.0.2", "10.0.0.1"); }
PacketBuilder To6() { return FromHost().Ipv6("2001:db8::2", "2001:db8::1"); }

TEST_F(EchoTest, WhatIsAnsweredHere) {
  EXPECT_TRUE(IsRequest(To4().IcmpEcho(1, 2).Build()));
  EXPECT_TRUE(IsRequest(To4().Icmp(8, 5).Build())) << "Linux ignores the code";
  EXPECT_FALSE(IsRequest(To4().IcmpEchoReply(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To4().Icmp(13, 0).Build()));
  EXPECT_FALSE(IsRequest(To4().Udp(8, 8).Build()));
  EXPECT_FALSE(IsRequest(To4().MoreFragments().IcmpEcho(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To4().FragmentOffset(8).IcmpEcho(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To4().Options({1, 1, 1, 1}).IcmpEcho(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To4().TotalLength(27).IcmpEcho(1, 2).Build())) << "cut short";
  EXPECT_FALSE(IsRequest(To4().IcmpEcho(1, 2).Payload(50).Build(), 41)) << "header in two pieces";
  EXPECT_FALSE(IsRequest(PacketBuilder()
                             .Ethernet(test::kHostMac, Mac::Broadcast())
                             .Ipv4("10.0.0.2", "10.0.0.1")
                             .IcmpEcho(1, 2)
                             .Build()));

  EXPECT_TRUE(IsRequest(To6().Icmpv6Echo(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To6().Icmpv6EchoReply(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To6().DestinationOptions().Icmpv6Echo(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To6().Fragment(0, true, 1).Icmpv6Echo(1, 2).Build()));
  EXPECT_FALSE(IsRequest(To6().PayloadLength(7).Icmpv6Echo(1, 2).Build()));
  EXPECT_FALSE(IsRequest(PacketBuilder()
                             .Ethernet(test::kHostMac, Mac::Broadcast())
                             .Ipv6("2001:db8::2", "2001:db8::1")
                             .Icmpv6Echo(1, 2)
                             .Build()));
}

// Odd sizes, odd pieces, padding behind: checksum tested and the reply byte for byte.
TEST_F(EchoTest, RepliesByteForByte) {
  for (const size_t size : {0u, 1u, 2u, 3u, 17u, 56u, 99u, 1001u, 1472u}) {
    for (const uint32_t segment : {0u, 62u, 63u, 301u}) {
      SCOPED_TRACE(testing::Message() << size << " bytes in pieces of " << segment);
      const Bytes request = To4()
                                .Tos(0x2f)
                                .Ttl(9)
                                .Id(77)
                                .DontFragment()
                                .IcmpEcho(7, 8)
                                .Payload(size)
                                .PadTo(60)
                                .Build();
      Packet p = Receive(request, segment);
      ASSERT_TRUE(IsEchoRequest4(p));
      ASSERT_TRUE(EchoChecksumIsRight4(*world.arena, p));
      MakeEchoReply4(p, 64, 0x4321);
      EXPECT_EQ(world.BytesOf(p, 14), PacketBuilder()
                                          .Ipv4("10.0.0.1", "10.0.0.2")
                                          .Tos(0x2f)
                                          .Id(0x4321)
                                          .IcmpEchoReply(7, 8)
                                          .Payload(size)
                                          .Build());
      EXPECT_FALSE(p.in.valid());
      EXPECT_EQ(p.generated, static_cast<uint8_t>(GeneratedKind::kEchoReply));
      world.Free(p);

      const Bytes request6 = To6()
                                 .Tos(0x2f)
                                 .HopLimit(9)
                                 .FlowLabel(0x12345)
                                 .Icmpv6Echo(7, 8)
                                 .Payload(size)
                                 .PadTo(70)
                                 .Build();
      p = Receive(request6, segment);
      ASSERT_TRUE(IsEchoRequest6(p));
      ASSERT_TRUE(EchoChecksumIsRight6(*world.arena, p));
      MakeEchoReply6(p, 64);
      EXPECT_EQ(world.BytesOf(p, 14), PacketBuilder()
                                          .Ipv6("2001:db8::1", "2001:db8::2")
                                          .Tos(0x2f)
                                          .Icmpv6EchoReply(7, 8)
                                          .Payload(size)
                                          .Build());
      world.Free(p);
    }
  }
}

TEST_F(EchoTest, EveryDamagedByteIsFound) {
  const Bytes good = To4().IcmpEcho(7, 8).Payload(21).Build();
  const Bytes good6 = To6().Icmpv6Echo(7, 8).Payload(21).Build();
  for (size_t at = 34; at < good.size(); ++at) {
    Bytes bad = good;
    bad[at] ^= 0x10;
    const Packet p = Receive(bad, 45);
    EXPECT_FALSE(EchoChecksumIsRight4(*world.arena, p)) << at;
    world.Free(p);
  }
  for (size_t at = 54; at < good6.size(); ++at) {
    Bytes bad = good6;
    bad[at] ^= 0x10;
    const Packet p = Receive(bad, 65);
    EXPECT_FALSE(EchoChecksumIsRight6(*world.arena, p)) << at;
    world.Free(p);
  }
}

}  // namespace
}  // namespace sluice::stages
