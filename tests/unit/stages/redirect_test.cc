#include "stages/icmp/redirect.h"

#include <gtest/gtest.h>

#include "base/worker_counters.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "wire/ndp.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using test::A6;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class RedirectTest : public testing::Test {
 protected:
  ~RedirectTest() override { world.CheckFrames(); }

  Bytes Redirect(const Bytes& frame, const std::optional<Mac>& mac) {
    Packet p = world.Receive(frame);
    EXPECT_TRUE(Parse(p, world.lan(), world.pool).verdict.is_continue());
    Packet message;
    EXPECT_TRUE(BuildRedirect6(p, A6("fe80::1"), A6("fe80::9"), mac, world.outbox, message));
    EXPECT_EQ(message.generated, static_cast<uint8_t>(GeneratedKind::kRedirect));
    EXPECT_FALSE(message.in.valid());
    const Bytes bytes = world.BytesOf(message, message.l3_offset);
    world.Free(message);
    world.Free(p);
    return bytes;
  }

  test::RouterWorld world;
};

Bytes Packet6(size_t payload) {
  return FromHost().Ipv6("2001:db8::2", "2001:db8:7::1").Udp(1, 2).Payload(payload).Build();
}

// RFC 4861 section 8.2: target, destination, target link-layer address, as much of the packet as
// fits 1280 bytes; the option's length counts in units of 8.
TEST_F(RedirectTest, ByteForByte) {
  const struct {
    size_t payload;
    std::optional<Mac> mac;
    size_t quoted;
  } cases[] = {
      {0, {}, 48},
      {3, {}, 48},  // 51 bytes, of which whole units
      {8, test::kPeerMac, 56},
      {1400, {}, 1192},
      {1400, test::kPeerMac, 1184},
      {1144, {}, 1192},
      {1136, test::kPeerMac, 1184},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.payload);
    const Bytes frame = Packet6(c.payload);
    Bytes option = {4, static_cast<uint8_t>((8 + c.quoted) / 8), 0, 0, 0, 0, 0, 0};
    option.insert(option.end(), frame.begin() + 14,
                  frame.begin() + 14 + static_cast<ptrdiff_t>(c.quoted));
    PacketBuilder expected;
    expected.Ipv6("fe80::1", "2001:db8::2").Redirect("fe80::9", "2001:db8:7::1");
    if (c.mac) expected.TargetLinkLayer(*c.mac);
    const Bytes message = Redirect(frame, c.mac);
    EXPECT_EQ(message, expected.NdOption(option).Build());
    EXPECT_LE(message.size(), 1280u);
  }
}

// RFC 4861 section 8.1: what a host checks before it believes one.
TEST_F(RedirectTest, PassesTheChecksOfAHost) {
  for (const size_t payload : {0u, 1u, 500u, 1400u}) {
    for (const std::optional<Mac>& mac :
         {std::optional<Mac>(), std::optional<Mac>(test::kPeerMac)}) {
      const Bytes bytes = Redirect(Packet6(payload), mac);
      const std::span<const uint8_t> message = std::span(bytes).subspan(40);
      EXPECT_EQ(wire::CheckNd(A6("fe80::1"), A6("2001:db8::2"), bytes[7], message),
                wire::NdError::kNone);
      const auto nd = wire::NdView::Parse(message);
      ASSERT_TRUE(nd);
      EXPECT_EQ(nd->target(), A6("fe80::9"));
      EXPECT_EQ(nd->redirect_destination(), A6("2001:db8:7::1"));
      EXPECT_EQ(nd->target_link_layer(), mac);
    }
  }
}

}  // namespace
}  // namespace sluice::stages
