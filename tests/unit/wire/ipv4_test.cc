#include "wire/ipv4.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "support/packet_builder.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

PacketBuilder Packet() { return PacketBuilder().Ipv4("10.0.0.1", "10.0.1.1"); }

TEST(Ipv4Test, ReadsAllFields) {
  const auto packet =
      Packet().Tos(0xb9).Id(0x1234).DontFragment().Ttl(7).Udp(1, 2).Payload(10).Build();
  const auto ip = Ipv4View::Parse(packet);
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->version(), 4);
  EXPECT_EQ(ip->header_length(), 20);
  EXPECT_FALSE(ip->has_options());
  EXPECT_EQ(ip->tos(), 0xb9);
  EXPECT_EQ(ip->dscp(), 46);
  EXPECT_EQ(ip->ecn(), 1);
  EXPECT_EQ(ip->total_length(), 38);
  EXPECT_EQ(ip->payload_length(), 18);
  EXPECT_EQ(ip->id(), 0x1234);
  EXPECT_TRUE(ip->dont_fragment());
  EXPECT_FALSE(ip->IsFragment());
  EXPECT_EQ(ip->ttl(), 7);
  EXPECT_EQ(ip->protocol(), 17);
  EXPECT_EQ(ip->source(), Ipv4(10, 0, 0, 1));
  EXPECT_EQ(ip->destination(), Ipv4(10, 0, 1, 1));
  EXPECT_TRUE(ip->ChecksumIsRight());
}

TEST(Ipv4Test, Fragments) {
  const auto first = Packet().MoreFragments().Payload(8).Build();
  EXPECT_TRUE(Ipv4View::Parse(first)->IsFragment());
  EXPECT_FALSE(Ipv4View::Parse(first)->IsLaterFragment());
  const auto last = Packet().FragmentOffset(65'528).Payload(8).Build();
  EXPECT_TRUE(Ipv4View::Parse(last)->IsLaterFragment());
  EXPECT_EQ(Ipv4View::Parse(last)->fragment_offset(), 65'528);
  EXPECT_FALSE(Ipv4View::Parse(last)->more_fragments());
}

struct Case {
  const char* what;
  Bytes packet;
  std::optional<DropReason> expected;
};

// What ip_rcv_core does with each: the first failing check names the reason.
TEST(Ipv4Test, AcceptsAndRefusesAsLinux) {
  const Bytes good = Packet().Udp(1, 2).Payload(8).Build();
  Bytes flipped = good;
  flipped[12] ^= 1;
  Bytes options_cut = Packet().Options(Bytes(40, 1)).Udp(1, 2).Build();
  options_cut.resize(59);
  const Case cases[] = {
      {"good", good, {}},
      {"padded by the link layer", Packet().Udp(1, 2).PadTo(46).Build(), {}},
      {"no payload", Packet().Build(), {}},
      {"60-byte header", Packet().Options(Bytes(40, 1)).Udp(1, 2).Build(), {}},
      {"empty", {}, DropReason::kIpv4Header},
      {"19 bytes", Packet().TruncateTo(19).Build(), DropReason::kIpv4Header},
      {"version 5", Packet().Version(5).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"version 0", Packet().Version(0).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"ihl 4", Packet().Ihl(4).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"ihl 0", Packet().Ihl(0).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"ihl beyond the frame", Packet().Ihl(15).Build(), DropReason::kIpv4Header},
      {"options cut", options_cut, DropReason::kIpv4Header},
      {"bad checksum", Packet().BadIpChecksum().Udp(1, 2).Build(), DropReason::kIpv4Checksum},
      {"flipped bit", flipped, DropReason::kIpv4Checksum},
      {"truncated by one", Packet().Payload(8).TruncateTo(27).Build(), DropReason::kIpv4Truncated},
      {"total length 65535", Packet().TotalLength(65'535).Udp(1, 2).Build(),
       DropReason::kIpv4Truncated},
      {"total length 19", Packet().TotalLength(19).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"total length 0", Packet().TotalLength(0).Udp(1, 2).Build(), DropReason::kIpv4Header},
      {"total length below options", Packet().Options(Bytes(4, 1)).TotalLength(23).Build(),
       DropReason::kIpv4Header},
      {"checksum before lengths", Packet().TotalLength(9999).BadIpChecksum().Build(),
       DropReason::kIpv4Checksum},
      {"ttl 0 is for later", Packet().Ttl(0).Udp(1, 2).Build(), {}},
      {"odd addresses are for later", PacketBuilder().Ipv4("224.0.0.1", "0.0.0.0").Build(), {}},
  };
  for (const Case& c : cases) EXPECT_EQ(CheckIpv4(c.packet), c.expected) << c.what;
}

TEST(Ipv4Test, LengthCountsAllPieces) {
  const Bytes packet = Packet().Udp(1, 2).Payload(500).Build();
  const auto first = std::span(packet).first(60);
  EXPECT_EQ(CheckIpv4(first, packet.size()), std::nullopt);
  EXPECT_EQ(CheckIpv4(first, packet.size() - 1), DropReason::kIpv4Truncated);
}

TEST(Ipv4Test, EmitEqualsTheBuilder) {
  Rng rng(1);
  for (int i = 0; i < 5'000; ++i) {
    const auto tos = static_cast<uint8_t>(rng.Next());
    const auto id = static_cast<uint16_t>(rng.Next());
    const auto ttl = static_cast<uint8_t>(rng.Next());
    const auto protocol = static_cast<uint8_t>(rng.Next());
    const Ipv4 a(static_cast<uint32_t>(rng.Next()));
    const Ipv4 b(static_cast<uint32_t>(rng.Next()));
    Bytes options(rng.Below(41));
    for (auto& byte : options) byte = static_cast<uint8_t>(rng.Next());
    const size_t payload = rng.Below(100);
    const auto expected = PacketBuilder()
                              .Ipv4(a, b)
                              .Tos(tos)
                              .Id(id)
                              .DontFragment()
                              .Ttl(ttl)
                              .Protocol(protocol)
                              .Options(options)
                              .Payload(payload)
                              .Build();
    Bytes out(60, 0xee);
    const size_t size = EmitIpv4Header(out,
                                       {.tos = tos,
                                        .payload_length = static_cast<uint16_t>(payload),
                                        .id = id,
                                        .fragment_field = kIpv4DontFragment,
                                        .ttl = ttl,
                                        .protocol = protocol,
                                        .source = a,
                                        .destination = b},
                                       options);
    ASSERT_EQ(size, 20 + (options.size() + 3) / 4 * 4);
    out.resize(size);
    ASSERT_EQ(test::ToHex(out), test::ToHex(std::span(expected).first(size)));
    ASSERT_EQ(CheckIpv4(expected), std::nullopt);
  }
}

TEST(Ipv4Test, EmitRefusesWhatDoesNotFit) {
  Bytes out(60);
  EXPECT_EQ(EmitIpv4Header(std::span(out).first(19), {}), 0u);
  EXPECT_EQ(EmitIpv4Header(std::span(out).first(23), {}, Bytes(1)), 0u);
  EXPECT_EQ(EmitIpv4Header(out, {}, Bytes(41)), 0u);
  EXPECT_EQ(EmitIpv4Header(out, {.payload_length = 65'516}), 0u);
  EXPECT_EQ(EmitIpv4Header(out, {.payload_length = 65'515}), 20u);
}

TEST(Ipv4Test, UpdatesKeepTheChecksumRight) {
  Rng rng(2);
  Bytes packet = Packet().Options(Bytes(8, 1)).Build();
  Ipv4Mutable ip(packet.data());
  for (int i = 0; i < 10'000; ++i) {
    const Ipv4 address(static_cast<uint32_t>(rng.Next()));
    switch (rng.Below(3)) {
      case 0:
        ip.UpdateSource(address);
        ASSERT_EQ(ip.source(), address);
        break;
      case 1:
        ip.UpdateDestination(address);
        ASSERT_EQ(ip.destination(), address);
        break;
      default:
        ip.UpdateTos(static_cast<uint8_t>(address.value));
        ASSERT_EQ(ip.tos(), static_cast<uint8_t>(address.value));
    }
    ASSERT_TRUE(ip.ChecksumIsRight());
    ASSERT_EQ(test::NaiveSum(packet), 0xffff);
  }
  ip.set_total_length(1000);
  ip.set_fragment_field(kIpv4MoreFragments | 5);
  EXPECT_FALSE(ip.ChecksumIsRight());
  ip.FillChecksum();
  EXPECT_EQ(test::NaiveSum(packet), 0xffff);
  EXPECT_EQ(ip.fragment_offset(), 40);
}

}  // namespace
}  // namespace sluice::wire
