// Every parser on every prefix of frames of every kind, and on frames with random damage. Each
// input lies alone in a heap block of its exact size: under the address sanitizer one byte too far
// ends the test.
#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "support/parse_everything.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

std::vector<Bytes> Frames() {
  const auto link = PacketBuilder().Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02");
  const auto v4 = PacketBuilder(link).Ipv4("10.0.0.1", "10.0.1.1");
  const auto v6 = PacketBuilder(link).Ipv6("fe80::1", "fe80::2");
  const Mac mac{{2, 0, 0, 0, 0, 1}};
  return {
      PacketBuilder(link).ArpRequest(mac, "10.0.0.1", "10.0.0.2").Build(),
      PacketBuilder(link).Vlan(1).Vlan(2).Ipv4("1.1.1.1", "2.2.2.2").Udp(1, 2).Build(),
      PacketBuilder(v4).Udp(1, 2).Payload(7).Build(),
      PacketBuilder(v4).Tcp(1, 2).Options({2, 4, 5, 180, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0}).Build(),
      PacketBuilder(v4).IcmpEcho(1, 2).Payload(5).Build(),
      PacketBuilder(v4).Options({148, 4, 0, 0, 7, 7, 4, 0, 0, 0, 0, 131, 3, 4}).Udp(1, 2).Build(),
      PacketBuilder(v4).Options({68, 12, 5, 1, 0, 0, 0, 0, 0, 0, 0, 0}).Tcp(1, 2).Build(),
      PacketBuilder(v6)
          .HopByHop({5, 2, 0, 0})
          .DestinationOptions(Bytes(14, 0))
          .Routing(4, 1, Bytes(16))
          .Fragment(0, true, 1)
          .Authentication()
          .Tcp(1, 2)
          .Build(),
      PacketBuilder(v6).HopByHop({0xc2, 4, 0, 1, 0, 0}).PayloadLength(0).Udp(1, 2).Build(),
      PacketBuilder(v6).NeighborSolicitation("fe80::2").SourceLinkLayer(mac).Build(),
      PacketBuilder(v6).NeighborAdvertisement("fe80::1", 1, 1, 1).TargetLinkLayer(mac).Build(),
      PacketBuilder(v6).RouterAdvertisement(9).SourceLinkLayer(mac).Build(),
      PacketBuilder(v6).Redirect("fe80::3", "fe80::4").TargetLinkLayer(mac).Build(),
  };
}

TEST(TruncationTest, EveryPrefixOfEveryFrame) {
  for (const Bytes& frame : Frames()) {
    // Frames from every layer on, too: the parsers may be handed any part.
    for (size_t start = 0; start < frame.size(); ++start) {
      for (size_t end = start; end <= frame.size(); ++end) {
        const std::vector<uint8_t> part(frame.begin() + static_cast<ptrdiff_t>(start),
                                        frame.begin() + static_cast<ptrdiff_t>(end));
        ASSERT_EQ(test::ParseEverything(part), test::ParseEverything(part));
      }
    }
  }
}

TEST(TruncationTest, RandomDamage) {
  Rng rng(1);
  const auto frames = Frames();
  for (int i = 0; i < 100'000; ++i) {
    Bytes frame = frames[rng.Below(frames.size())];
    for (uint64_t n = 1 + rng.Below(4); n > 0; --n) {
      frame[rng.Below(frame.size())] = static_cast<uint8_t>(rng.Next());
    }
    frame.resize(rng.Below(frame.size() + 1));
    const std::vector<uint8_t> exact(frame.begin(), frame.end());
    ASSERT_EQ(test::ParseEverything(exact), test::ParseEverything(exact));
  }
}

}  // namespace
}  // namespace sluice::wire
