#include "app/random_bytes.h"

#include <gtest/gtest.h>

#include <array>
#include <cstdint>
#include <set>
#include <vector>

namespace sluice::app {
namespace {

TEST(FillRandom, FillsAllOfIt) {
  // Of many bytes each value comes; of zeros that were left none but the generator's 1 in 256.
  std::vector<uint8_t> bytes(100'000);
  FillRandom(bytes);
  std::array<int, 256> counts{};
  for (const uint8_t b : bytes) ++counts[b];
  for (int value = 0; value < 256; ++value) {
    EXPECT_GT(counts[static_cast<size_t>(value)], 200) << value;
    EXPECT_LT(counts[static_cast<size_t>(value)], 600) << value;
  }
  FillRandom({});
}

TEST(RandomValue, IsAnotherEachTime) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(seen.insert(RandomValue<uint64_t>()).second);
}

}  // namespace
}  // namespace sluice::app
