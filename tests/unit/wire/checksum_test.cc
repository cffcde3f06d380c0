#include "wire/checksum.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"
#include "support/packet_builder.h"

namespace sluice::wire {
namespace {

using test::Bytes;

Bytes RandomBytes(Rng& rng, size_t size) {
  Bytes bytes(size);
  for (auto& b : bytes) {
    // Runs of ff and 00 are where carries and the two zeros of one's complement live.
    const uint64_t kind = rng.Below(4);
    b = kind == 0 ? 0xff : kind == 1 ? 0 : static_cast<uint8_t>(rng.Next());
  }
  return bytes;
}

// RFC 1071 section 3 works this one out: the sum of 00 01 f2 03 f4 f5 f6 f7 is ddf2.
TEST(ChecksumTest, ExampleOfRfc1071) {
  const Bytes bytes = test::FromHex("0001 f203 f4f5 f6f7");
  EXPECT_EQ(Sum(bytes), 0xddf2u);
  EXPECT_EQ(InternetChecksum(bytes), 0x220d);
}

TEST(ChecksumTest, SumMatchesNaiveAtEveryLengthAndAlignment) {
  Rng rng(1);
  const Bytes bytes = RandomBytes(rng, 400);
  for (size_t start = 0; start < 40; ++start) {
    for (size_t size = 0; size + start <= 300; ++size) {
      const auto part = std::span(bytes).subspan(start, size);
      ASSERT_EQ(Sum(part), test::NaiveSum(part)) << start << "+" << size;
    }
  }
}

TEST(ChecksumTest, SumOfAllOnesAndAllZeros) {
  for (size_t size = 0; size < 100; ++size) {
    EXPECT_EQ(Sum(Bytes(size, 0)), 0u);
    EXPECT_EQ(Sum(Bytes(size, 0xff)), test::NaiveSum(Bytes(size, 0xff))) << size;
  }
}

TEST(ChecksumTest, SumOfALargeBuffer) {
  Rng rng(2);
  const Bytes bytes = RandomBytes(rng, 70'001);
  EXPECT_EQ(Sum(bytes), test::NaiveSum(bytes));
}

TEST(ChecksumTest, FoldTakesAllCarries) {
  EXPECT_EQ(Fold(0), 0);
  EXPECT_EQ(Fold(0xffff), 0xffff);
  EXPECT_EQ(Fold(0x10000), 1);
  EXPECT_EQ(Fold(~uint64_t{0}), 0xffff);
  Rng rng(3);
  for (int i = 0; i < 100'000; ++i) {
    const uint64_t v = rng.Next() >> rng.Below(64);
    const uint64_t expected = v == 0 ? 0 : v % 0xffff == 0 ? 0xffff : v % 0xffff;
    ASSERT_EQ(Fold(v), expected) << v;
  }
}

TEST(ChecksumTest, ChainOfPiecesEqualsTheWhole) {
  Rng rng(4);
  for (int i = 0; i < 20'000; ++i) {
    const Bytes bytes = RandomBytes(rng, rng.Below(200));
    SumChain chain;
    std::span<const uint8_t> left(bytes);
    while (!left.empty()) {
      const size_t size = rng.Below(left.size() + 1);  // empty pieces too
      chain.Add(left.first(size));
      left = left.subspan(size);
    }
    ASSERT_EQ(Fold(chain.sum()), test::NaiveSum(bytes)) << test::ToHex(bytes);
  }
}

TEST(ChecksumTest, ChainStartsFromItsInitialSum) {
  const Bytes bytes = {1, 2, 3};
  SumChain chain(0xffff0);
  chain.Add(bytes);
  EXPECT_EQ(Fold(chain.sum()), Fold(0xffff0 + Sum(bytes)));
}

TEST(ChecksumTest, Ipv4HeaderSumMatchesNaive) {
  Rng rng(5);
  for (unsigned words = 5; words <= 15; ++words) {
    for (int i = 0; i < 1000; ++i) {
      const Bytes header = RandomBytes(rng, words * 4);
      ASSERT_EQ(Fold(Ipv4HeaderSum(header.data(), words)), test::NaiveSum(header));
    }
  }
}

TEST(ChecksumTest, PseudoHeadersMatchTheirBytes) {
  Rng rng(6);
  for (int i = 0; i < 20'000; ++i) {
    const auto protocol = static_cast<uint8_t>(rng.Next());
    const auto length = static_cast<uint16_t>(rng.Next());
    const Ipv4 a4(static_cast<uint32_t>(rng.Next()));
    const Ipv4 b4(static_cast<uint32_t>(rng.Next()));
    ASSERT_EQ(Fold(PseudoHeaderSum(a4, b4, protocol, length)),
              test::NaiveSum(test::PseudoHeader(a4, b4, protocol, length)));
    const Ipv6 a6(rng.Next(), rng.Next());
    const Ipv6 b6(rng.Next(), rng.Next());
    const auto long_length = static_cast<uint32_t>(rng.Next());
    ASSERT_EQ(Fold(PseudoHeaderSum(a6, b6, protocol, long_length)),
              test::NaiveSum(test::PseudoHeader(a6, b6, protocol, long_length)));
  }
  const Ipv6 ones(~uint64_t{0}, ~uint64_t{0});
  EXPECT_EQ(Fold(PseudoHeaderSum(ones, ones, 255, 0xffff'ffff)),
            test::NaiveSum(test::PseudoHeader(ones, ones, 255, 0xffff'ffff)));
}

// A message with its checksum at offset 0; changing a field incrementally must give what computing
// anew gives. One's complement has two zeros: a checksum over data that is not all zero is never
// ffff when computed, and equation 3 keeps to that.
class IncrementalTest : public ::testing::Test {
 protected:
  void NewMessage() {
    message_ = RandomBytes(rng_, 64);
    Fill();
  }
  void Fill() {
    StoreBe16(message_.data(), 0);
    StoreBe16(message_.data(), test::NaiveChecksum(message_));
  }
  uint16_t check() const { return LoadBe16(message_.data()); }
  uint16_t Recomputed() {
    Fill();
    return check();
  }

  Rng rng_{7};
  Bytes message_;
};

TEST_F(IncrementalTest, SixteenBits) {
  for (int i = 0; i < 100'000; ++i) {
    NewMessage();
    const size_t at = 2 + 2 * rng_.Below(31);
    const uint16_t before = LoadBe16(&message_[at]);
    const auto after =
        static_cast<uint16_t>(rng_.Chance(1, 4) ? rng_.Below(2) * 0xffff : rng_.Next());
    const uint16_t updated = UpdateChecksum16(check(), before, after);
    StoreBe16(&message_[at], after);
    ASSERT_EQ(updated, Recomputed());
  }
}

TEST_F(IncrementalTest, ThirtyTwoBitsAndIpv4Addresses) {
  for (int i = 0; i < 100'000; ++i) {
    NewMessage();
    const size_t at = 4 + 4 * rng_.Below(15);
    const uint32_t before = LoadBe32(&message_[at]);
    const auto after = static_cast<uint32_t>(rng_.Next());
    const uint16_t updated = UpdateChecksum32(check(), before, after);
    ASSERT_EQ(UpdateChecksum(check(), Ipv4(before), Ipv4(after)), updated);
    StoreBe32(&message_[at], after);
    ASSERT_EQ(updated, Recomputed());
  }
}

TEST_F(IncrementalTest, Ipv6Addresses) {
  for (int i = 0; i < 100'000; ++i) {
    NewMessage();
    const size_t at = 8 + 8 * rng_.Below(5);
    const Ipv6 before = Ipv6::FromWire(&message_[at]);
    const Ipv6 after =
        rng_.Chance(1, 8) ? Ipv6(~uint64_t{0}, ~uint64_t{0}) : Ipv6(rng_.Next(), rng_.Next());
    const uint16_t updated = UpdateChecksum(check(), before, after);
    after.ToWire(&message_[at]);
    ASSERT_EQ(updated, Recomputed());
  }
}

// Linux' ip_decrease_ttl: as a little-endian number, the field grows by one, and what reaches ffff
// wraps past it.
uint16_t CheckAfterLinuxDecrement(uint16_t check) {
  const uint32_t raw = uint32_t{__builtin_bswap16(check)} + 1;
  return __builtin_bswap16(static_cast<uint16_t>(raw + (raw >= 0xffff ? 1 : 0)));
}

TEST(DecrementTtlTest, LeavesLinuxBytesForEveryChecksum) {
  for (uint32_t check = 0; check <= 0xffff; ++check) {
    Bytes header(20);
    header[8] = 64;
    StoreBe16(&header[10], static_cast<uint16_t>(check));
    DecrementTtl(header.data());
    ASSERT_EQ(LoadBe16(&header[10]), CheckAfterLinuxDecrement(static_cast<uint16_t>(check)));
    ASSERT_EQ(header[8], 63);
  }
}

TEST(DecrementTtlTest, KeepsAHeaderRight) {
  Rng rng(8);
  for (int ttl = 1; ttl <= 255; ++ttl) {
    auto packet = test::PacketBuilder()
                      .Ipv4(Ipv4(static_cast<uint32_t>(rng.Next())), "10.1.2.3")
                      .Id(static_cast<uint16_t>(rng.Next()))
                      .Ttl(static_cast<uint8_t>(ttl))
                      .Build();
    DecrementTtl(packet.data());
    EXPECT_EQ(packet[8], ttl - 1);
    EXPECT_EQ(test::NaiveSum(packet), 0xffff);
  }
}

TEST(UdpChecksumTest, ZeroRules) {
  EXPECT_EQ(Checksum(0xffff), 0);
  EXPECT_EQ(NonZeroChecksum(0xffff), 0xffff);
  EXPECT_EQ(NonZeroChecksum(0x1234), Checksum(0x1234));
  EXPECT_EQ(KeepUdpRules(0, 0x1234), 0) << "absent stays absent";
  EXPECT_EQ(KeepUdpRules(0x1234, 0), 0xffff);
  EXPECT_EQ(KeepUdpRules(0x1234, 0x4321), 0x4321);
}

}  // namespace
}  // namespace sluice::wire
