#include "tables/maglev.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace sluice::tables {
namespace {

std::vector<MaglevBackend> Some(uint32_t n) {
  std::vector<MaglevBackend> out;
  for (uint32_t i = 0; i < n; ++i) out.push_back({MixBits(i), 1});
  return out;
}

std::vector<uint32_t> Shares(const std::vector<uint8_t>& table, size_t n) {
  std::vector<uint32_t> shares(n);
  for (const uint8_t b : table) ++shares.at(b);
  return shares;
}

TEST(MaglevTest, SizeIsPrime) {
  for (uint32_t d = 2; d * d <= kMaglevSize; ++d) ASSERT_NE(kMaglevSize % d, 0u);
}

TEST(MaglevTest, EvenWithinOnePercent) {
  for (const uint32_t n : {1u, 2u, 3u, 10u, 64u}) {
    const auto table = BuildMaglev(Some(n));
    ASSERT_EQ(table.size(), kMaglevSize);
    for (const uint32_t share : Shares(table, n)) {
      EXPECT_NEAR(share, kMaglevSize / n, kMaglevSize / n / 100 + 1);
    }
  }
  EXPECT_TRUE(BuildMaglev({}).empty());
}

TEST(MaglevTest, SharesFollowWeights) {
  auto backends = Some(4);
  const uint32_t weights[] = {1, 2, 5, 256};
  for (size_t i = 0; i < 4; ++i) backends[i].weight = weights[i];
  const auto shares = Shares(BuildMaglev(backends), 4);
  for (size_t i = 0; i < 4; ++i) {
    const double wanted = kMaglevSize * weights[i] / 264.0;
    EXPECT_NEAR(shares[i], wanted, wanted / 50 + 2) << i;
  }
}

// Section 3.4: when a backend goes, its share moves, and of the others' little does.
TEST(MaglevTest, LittleMovesWhenABackendGoes) {
  const auto all = Some(10);
  auto fewer = all;
  fewer.erase(fewer.begin() + 3);
  const auto before = BuildMaglev(all);
  const auto after = BuildMaglev(fewer);
  uint32_t moved = 0, others = 0;
  for (size_t i = 0; i < before.size(); ++i) {
    const uint64_t was = all[before[i]].key, is = fewer[after[i]].key;
    if (was == is) continue;
    ++moved;
    if (before[i] != 3) ++others;
  }
  EXPECT_GE(moved, kMaglevSize / 10 - kMaglevSize / 1000);
  EXPECT_LT(others, kMaglevSize / 25);
}

// The list's order does not matter but for collisions.
TEST(MaglevTest, DependsOnKeysRatherThanOrder) {
  const auto all = Some(10);
  const std::vector<MaglevBackend> reversed(all.rbegin(), all.rend());
  const auto a = BuildMaglev(all), b = BuildMaglev(reversed);
  uint32_t differ = 0;
  for (size_t i = 0; i < a.size(); ++i) differ += a[i] != 9 - b[i];
  EXPECT_LT(differ, kMaglevSize / 20);
}

TEST(MaglevTest, PlacesAreWithinTheTable) {
  EXPECT_EQ(MaglevPlace(0), 0u);
  EXPECT_EQ(MaglevPlace(UINT64_MAX), kMaglevSize - 1);
}

}  // namespace
}  // namespace sluice::tables
