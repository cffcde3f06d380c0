#include "wire/partial_checksum.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

// A packet of random addresses, ports and payload, without a link layer.
struct Random {
  bool v6;
  bool tcp;
  PacketBuilder builder;
  size_t l4_offset;

  explicit Random(Rng& rng) : v6(rng.Chance(1, 2)), tcp(rng.Chance(1, 2)) {
    if (v6) {
      builder.Ipv6(Ipv6(rng.Next(), rng.Next()), Ipv6(rng.Next(), rng.Next()));
    } else {
      builder.Ipv4(Ipv4(static_cast<uint32_t>(rng.Next())),
                   Ipv4(static_cast<uint32_t>(rng.Next())));
    }
    l4_offset = v6 ? 40 : 20;
    const auto a = static_cast<uint16_t>(rng.Next());
    const auto b = static_cast<uint16_t>(rng.Next());
    tcp ? builder.Tcp(a, b) : builder.Udp(a, b);
    Bytes payload(rng.Below(300));
    for (auto& byte : payload) byte = static_cast<uint8_t>(rng.Next());
    builder.Payload(payload);
  }
  uint8_t protocol() const { return tcp ? kProtocolTcp : kProtocolUdp; }
  uint32_t PseudoSum(const Bytes& packet) const {
    if (v6) {
      return Ipv6View(packet.data())
          .PseudoSum(protocol(), static_cast<uint32_t>(packet.size() - l4_offset));
    }
    return Ipv4View(packet.data()).PseudoSum();
  }
};

TEST(PartialChecksumTest, EveryPartialFrameIsRecognisedAndCompletedToTheRightValue) {
  Rng rng(1);
  for (int i = 0; i < 20'000; ++i) {
    Random random(rng);
    PacketBuilder partial_builder = random.builder;
    Bytes partial = partial_builder.PartialChecksum().Build();
    const Bytes right = random.builder.Build();
    const auto l4 = std::span(partial).subspan(random.l4_offset);
    const uint32_t pseudo = random.PseudoSum(partial);
    ASSERT_EQ(ClassifyL4Checksum(random.protocol(), l4, pseudo), L4Checksum::kPartial);
    CompleteL4Checksum(random.protocol(), l4);
    ASSERT_EQ(test::ToHex(partial), test::ToHex(right));
    ASSERT_TRUE(L4ChecksumIsRight(pseudo, l4));
  }
}

TEST(PartialChecksumTest, RightFramesStayAsTheyAre) {
  Rng rng(2);
  int by_chance = 0;
  for (int i = 0; i < 50'000; ++i) {
    Random random(rng);
    Bytes packet = random.builder.Build();
    const Bytes before = packet;
    const auto l4 = std::span(packet).subspan(random.l4_offset);
    const uint32_t pseudo = random.PseudoSum(packet);
    ASSERT_TRUE(L4ChecksumIsRight(pseudo, l4));
    // One in 65,536 looks partial; completing it must change nothing.
    if (ClassifyL4Checksum(random.protocol(), l4, pseudo) == L4Checksum::kPartial) ++by_chance;
    if (ClassifyL4Checksum(random.protocol(), l4, pseudo) == L4Checksum::kPartial) {
      CompleteL4Checksum(random.protocol(), l4);
      ASSERT_EQ(packet, before);
    }
  }
  EXPECT_LT(by_chance, 20);
}

// Chooses the payload so that the right checksum equals the folded pseudo header sum.
TEST(PartialChecksumTest, ARightFrameThatLooksPartialIsUnchangedByCompletion) {
  PacketBuilder builder;
  builder.Ipv4("10.0.0.1", "10.0.0.2").Udp(1000, 2000);
  const Bytes probe = PacketBuilder(builder).Payload(Bytes{0, 0}).PartialChecksum().Build();
  const uint16_t partial = LoadBe16(&probe[26]);
  for (uint32_t word = 0; word <= 0xffff; ++word) {
    const Bytes payload = {static_cast<uint8_t>(word >> 8), static_cast<uint8_t>(word)};
    Bytes packet = PacketBuilder(builder).Payload(payload).Build();
    if (LoadBe16(&packet[26]) != partial) continue;
    const Bytes before = packet;
    const auto l4 = std::span(packet).subspan(20);
    ASSERT_EQ(ClassifyL4Checksum(kProtocolUdp, l4, Ipv4View(packet.data()).PseudoSum()),
              L4Checksum::kPartial);
    CompleteL4Checksum(kProtocolUdp, l4);
    ASSERT_EQ(packet, before);
    return;
  }
  FAIL() << "no payload gives that checksum";
}

TEST(PartialChecksumTest, CorruptFramesCountAsFilled) {
  Rng rng(3);
  for (int i = 0; i < 5'000; ++i) {
    Random random(rng);
    const Bytes packet = random.builder.BadChecksum().Build();
    const auto l4 = std::span(packet).subspan(random.l4_offset);
    const uint32_t pseudo = random.PseudoSum(packet);
    ASSERT_EQ(ClassifyL4Checksum(random.protocol(), l4, pseudo), L4Checksum::kFilled);
    ASSERT_FALSE(L4ChecksumIsRight(pseudo, l4));
  }
}

TEST(PartialChecksumTest, CompletionOverPiecesEqualsTheWhole) {
  Rng rng(4);
  for (int i = 0; i < 5'000; ++i) {
    Random random(rng);
    PacketBuilder partial_builder = random.builder;
    const Bytes partial = partial_builder.PartialChecksum().Build();
    const Bytes right = random.builder.Build();
    const auto l4 = std::span(partial).subspan(random.l4_offset);
    const size_t header = random.tcp ? 20 : 8;
    const size_t cut = header + rng.Below(l4.size() - header + 1);
    const size_t cut2 = cut + rng.Below(l4.size() - cut + 1);
    Bytes first(l4.begin(), l4.begin() + static_cast<ptrdiff_t>(cut));
    const std::span<const uint8_t> rest[] = {l4.subspan(cut, cut2 - cut), l4.subspan(cut2)};
    CompleteL4Checksum(random.protocol(), first, rest);
    const size_t field = L4ChecksumOffset(random.protocol());
    ASSERT_EQ(LoadBe16(&first[field]), LoadBe16(&right[random.l4_offset + field]));
    ASSERT_TRUE(L4ChecksumIsRight(random.PseudoSum(partial), first, rest));
  }
}

// A UDP payload whose checksum computes to zero: it is sent as ffff.
TEST(PartialChecksumTest, UdpZeroBecomesAllOnes) {
  PacketBuilder builder;
  builder.Ipv4("10.0.0.1", "10.0.0.2").Udp(1000, 2000);
  Bytes packet = PacketBuilder(builder).Payload(Bytes{0, 0}).PartialChecksum().Build();
  // The payload word that makes the sum ffff.
  const uint16_t sum = Fold(Sum(std::span(packet).subspan(20)));
  StoreBe16(&packet[28], static_cast<uint16_t>(0xffff - sum));
  CompleteL4Checksum(kProtocolUdp, std::span(packet).subspan(20));
  EXPECT_EQ(LoadBe16(&packet[26]), 0xffff);
  EXPECT_TRUE(
      L4ChecksumIsRight(Ipv4View(packet.data()).PseudoSum(), std::span(packet).subspan(20)));
}

TEST(PartialChecksumTest, AbsentAndOtherProtocols) {
  const auto udp =
      PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Udp(1, 2).ZeroUdpChecksum().Payload(4).Build();
  const auto udp_l4 = std::span(udp).subspan(20);
  const uint32_t pseudo = Ipv4View(udp.data()).PseudoSum();
  EXPECT_EQ(ClassifyL4Checksum(kProtocolUdp, udp_l4, pseudo), L4Checksum::kAbsent);
  EXPECT_EQ(ClassifyL4Checksum(kProtocolIcmp, udp_l4, pseudo), L4Checksum::kNone);
  EXPECT_EQ(ClassifyL4Checksum(kProtocolUdp, udp_l4.first(7), pseudo), L4Checksum::kNone);
  EXPECT_EQ(ClassifyL4Checksum(kProtocolTcp, udp_l4, pseudo), L4Checksum::kNone) << "too short";
  const auto tcp =
      PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Tcp(1, 2).L4Checksum(0).Payload(4).Build();
  EXPECT_EQ(ClassifyL4Checksum(kProtocolTcp, std::span(tcp).subspan(20),
                               Ipv4View(tcp.data()).PseudoSum()),
            L4Checksum::kFilled)
      << "zero is a value like others in TCP";
}

}  // namespace
}  // namespace sluice::wire
