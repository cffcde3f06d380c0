// What is remembered of paths: for how long, and how much.
#include "transport/common/path_mtu_cache.h"

#include <gtest/gtest.h>

namespace sluice::transport {
namespace {

IpAddress To(uint32_t i) { return Ipv4(0x0a000000u + i); }

class PathMtu : public testing::Test {
 protected:
  uint32_t At(const IpAddress& a, Nanos now) {
    const auto* const e = cache.Find(a, now);
    return e == nullptr ? 0 : e->mtu;
  }
  uint64_t Entries() const { return cache.counters().entries.Read(); }
  PathMtuCache cache{64, Seconds(600), {1, 2}};
};

TEST_F(PathMtu, IsKnownForItsTime) {
  cache.Learn(To(1), 1400, Seconds(1));
  EXPECT_EQ(At(To(1), Seconds(600)), 1400u);
  EXPECT_EQ(At(To(2), Seconds(600)), 0u);
  EXPECT_EQ(At(To(1), Seconds(601)), 0u);
  EXPECT_EQ(Entries(), 0u);
}

TEST_F(PathMtu, OnlyComesDownWithinItsTime) {
  cache.Learn(To(1), 1400, Seconds(0));
  cache.Learn(To(1), 1450, Seconds(10));
  EXPECT_EQ(At(To(1), Seconds(11)), 1400u);
  cache.Learn(To(1), 1300, Seconds(20));
  EXPECT_EQ(At(To(1), Seconds(619)), 1300u) << "its time begins anew";
  cache.Learn(To(1), 1450, Seconds(700));
  EXPECT_EQ(At(To(1), Seconds(701)), 1450u);
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(PathMtu, FamiliesAreApartAndHaveTheirLeast) {
  cache.Learn(Ipv6(0, 0x0a000001), 1279, Seconds(0));
  cache.Learn(To(1), 551, Seconds(0));
  EXPECT_EQ(Entries(), 0u);
  cache.Learn(Ipv6(0, 0x0a000001), 1280, Seconds(0));
  EXPECT_EQ(At(To(1), Seconds(1)), 0u);
}

// What nobody has proven is for datagrams alone, and has an end of its own.
TEST_F(PathMtu, UnprovenIsKeptApart) {
  cache.LearnUnproven(To(1), 1300, Seconds(0));
  EXPECT_EQ(At(To(1), Seconds(1)), 0u);
  EXPECT_EQ(cache.LeastTold(To(1), Seconds(1)), 1300u);
  EXPECT_EQ(cache.LeastTold(To(2), Seconds(1)), UINT32_MAX);
  cache.Learn(To(1), 1400, Seconds(10));
  EXPECT_EQ(At(To(1), Seconds(11)), 1400u);
  EXPECT_EQ(cache.LeastTold(To(1), Seconds(11)), 1300u);
  EXPECT_EQ(cache.LeastTold(To(1), Seconds(605)), 1400u);
  EXPECT_EQ(Entries(), 1u);
}

TEST_F(PathMtu, UnprovenDisplacesNothingProven) {
  for (uint32_t i = 0; i < 1000; ++i) cache.Learn(To(i), 1400, Seconds(0));
  uint32_t before = 0, after = 0;
  for (uint32_t i = 0; i < 1000; ++i) before += At(To(i), Seconds(1)) != 0;
  ASSERT_EQ(before, 64u);
  for (uint32_t i = 1000; i < 2000; ++i) cache.LearnUnproven(To(i), 1300, Seconds(1));
  for (uint32_t i = 0; i < 1000; ++i) after += At(To(i), Seconds(2)) != 0;
  EXPECT_EQ(after, before);
  EXPECT_EQ(cache.counters().refused.Read(), 1000u);
  // The other way round it does.
  for (uint32_t i = 0; i < 1000; ++i) cache.LearnUnproven(To(i), 1300, Seconds(700));
  for (uint32_t i = 0; i < 1000; ++i) cache.Learn(To(i), 1400, Seconds(700));
  after = 0;
  for (uint32_t i = 0; i < 1000; ++i) after += At(To(i), Seconds(701)) != 0;
  EXPECT_EQ(after, 64u);
}

TEST_F(PathMtu, IsBounded) {
  for (uint32_t i = 0; i < 10'000; ++i) cache.Learn(To(i), 1400, Seconds(i));
  EXPECT_EQ(cache.capacity(), 64u);
  EXPECT_LE(Entries(), 64u);
  EXPECT_GT(Entries(), 32u);
  EXPECT_EQ(At(To(9'999), Seconds(9'999)), 1400u) << "the newest is always there";
}

TEST_F(PathMtu, TheOneThatEndsFirstMakesRoom) {
  for (uint32_t i = 0; i < 200; ++i) cache.Learn(To(i), 1400, Nanos() + Millis(i));
  EXPECT_EQ(cache.counters().evicted.Read(), 200 - Entries());
  uint32_t old = 0, recent = 0;
  for (uint32_t i = 0; i < 200; ++i) (i < 100 ? old : recent) += At(To(i), Seconds(1)) != 0;
  EXPECT_LT(old, recent);
}

}  // namespace
}  // namespace sluice::transport
