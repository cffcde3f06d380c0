#include "stages/rewrite/rewrite.h"

#include <gtest/gtest.h>

#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class RewriteTest : public testing::Test {
 protected:
  ~RewriteTest() override { world.CheckFrames(); }

  // Whether it was completed; `after` is the frame then.
  bool Complete(const Bytes& frame, uint32_t segment = 0) {
    Packet p = world.Receive(frame, test::kLan, segment);
    EXPECT_TRUE(Parse(p, world.lan(), world.pool).verdict.is_continue());
    const bool completed = frame[12] == 0x08 ? CompletePartialChecksum4(*world.arena, p)
                                             : CompletePartialChecksum6(*world.arena, p);
    after = world.BytesOf(p);
    world.Free(p);
    return completed;
  }
  void ExpectUntouched(const PacketBuilder& builder) {
    const Bytes frame = builder.Build();
    EXPECT_FALSE(Complete(frame));
    EXPECT_EQ(after, frame);
  }

  test::RouterWorld world;
  Bytes after;
};

PacketBuilder V4() { return FromHost().Ipv4("10.0.0.2", "203.0.113.1"); }
PacketBuilder V6() { return FromHost().Ipv6("2001:db8::2", "2001:db8:9::1"); }

TEST_F(RewriteTest, CompletesWhatTheSenderLeftOpen) {
  for (const bool v6 : {false, true}) {
    for (const bool tcp : {false, true}) {
      for (const size_t size : {0u, 1u, 2u, 77u, 1000u, 1401u}) {
        for (const uint32_t segment : {0u, 90u, 91u, 333u}) {
          SCOPED_TRACE(testing::Message() << v6 << tcp << " " << size << " in " << segment);
          PacketBuilder b = v6 ? V6() : V4();
          tcp ? b.Tcp(1, 2) : b.Udp(1, 2);
          b.Payload(size);
          const Bytes right = b.Build();
          EXPECT_TRUE(Complete(PacketBuilder(b).PartialChecksum().Build(), segment));
          EXPECT_EQ(after, right);
        }
      }
    }
  }
}

TEST_F(RewriteTest, PaddingDoesNotCount) {
  const Bytes right = V4().Udp(1, 2).Payload(1).Build();
  Bytes padded = V4().Udp(1, 2).PartialChecksum().Payload(1).Build();
  padded.resize(60, 0x5a);
  EXPECT_TRUE(Complete(padded));
  EXPECT_EQ(after, right);
}

TEST_F(RewriteTest, BehindExtensionHeaders) {
  EXPECT_TRUE(Complete(
      V6().HopByHop().DestinationOptions().Udp(1, 2).PartialChecksum().Payload(9).Build()));
  EXPECT_EQ(after, V6().HopByHop().DestinationOptions().Udp(1, 2).Payload(9).Build());
}

TEST_F(RewriteTest, LeavesTheRestAlone) {
  for (const bool v6 : {false, true}) {
    const auto ip = [&] { return v6 ? V6() : V4(); };
    ExpectUntouched(ip().Udp(1, 2).Payload(9));
    ExpectUntouched(ip().Tcp(1, 2).Payload(9));
    ExpectUntouched(ip().Udp(1, 2).BadChecksum().Payload(9));
    ExpectUntouched(ip().Tcp(1, 2).BadChecksum().Payload(9));
    ExpectUntouched(ip().Udp(1, 2).ZeroUdpChecksum().Payload(9));
    ExpectUntouched(ip().Protocol(47).Payload(40));
    ExpectUntouched(ip().Protocol(6).Payload(17));  // cut within the field
    ExpectUntouched(ip().Protocol(17).Payload(7));
  }
  ExpectUntouched(V4().Icmp(8, 0).L4Checksum(0));
}

// Linux completes a checksum before it fragments; a fragment's field means something else.
TEST_F(RewriteTest, Fragments) {
  ExpectUntouched(V4().MoreFragments().Udp(1, 2).PartialChecksum().Payload(8));
  ExpectUntouched(V4().FragmentOffset(8).Udp(1, 2).PartialChecksum().Payload(8));
  ExpectUntouched(V6().Fragment(0, true, 1).Udp(1, 2).PartialChecksum().Payload(8));
  ExpectUntouched(V6().Fragment(8, true, 1).Udp(1, 2).PartialChecksum().Payload(8));
}

TEST_F(RewriteTest, RoutingHeaderNamesAnotherDestination) {
  ExpectUntouched(V6().Routing(4, 1, Bytes(16)).Udp(1, 2).PartialChecksum().Payload(8));
  EXPECT_TRUE(
      Complete(V6().Routing(4, 0, Bytes(16)).Udp(1, 2).PartialChecksum().Payload(8).Build()));
}

}  // namespace
}  // namespace sluice::stages
