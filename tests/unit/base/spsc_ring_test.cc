#include "base/spsc_ring.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <thread>

namespace sluice {
namespace {

TEST(SpscRingTest, FillsAndDrainsInOrder) {
  SpscRing<int> ring(5);  // rounded up to 8
  int value = 0;
  EXPECT_FALSE(ring.TryPop(value));
  for (int lap = 0; lap < 3; ++lap) {
    for (int i = 0; i < 8; ++i) EXPECT_TRUE(ring.TryPush(lap * 10 + i));
    EXPECT_FALSE(ring.TryPush(99));
    EXPECT_EQ(ring.size(), 8u);
    for (int i = 0; i < 8; ++i) {
      ASSERT_TRUE(ring.TryPop(value));
      EXPECT_EQ(value, lap * 10 + i);
    }
    EXPECT_TRUE(ring.empty());
    EXPECT_FALSE(ring.TryPop(value));
  }
}

TEST(SpscRingTest, ARefusedElementStaysWithTheCaller) {
  SpscRing<std::unique_ptr<int>> ring(1);
  ASSERT_TRUE(ring.TryPush(std::make_unique<int>(1)));
  auto second = std::make_unique<int>(2);
  EXPECT_FALSE(ring.TryPush(std::move(second)));
  ASSERT_NE(second, nullptr);
  std::unique_ptr<int> out;
  ASSERT_TRUE(ring.TryPop(out));
  EXPECT_EQ(*out, 1);
  EXPECT_TRUE(ring.TryPush(std::move(second)));
}

// Two threads, a small ring that is full and empty all the time: nothing is lost, doubled,
// reordered or torn.
TEST(SpscRingTest, TwoThreads) {
  struct Element {
    uint64_t number = 0;
    uint64_t complement = 0;
  };
  constexpr uint64_t kCount = 200'000;
  SpscRing<Element> ring(16);
  std::thread producer([&ring] {
    for (uint64_t i = 0; i < kCount; ++i) {
      while (!ring.TryPush(Element{i, ~i})) std::this_thread::yield();
    }
  });
  uint64_t mismatches = 0;
  for (uint64_t i = 0; i < kCount; ++i) {
    Element element;
    while (!ring.TryPop(element)) std::this_thread::yield();
    if (element.number != i || element.complement != ~i) ++mismatches;
  }
  producer.join();
  EXPECT_EQ(mismatches, 0u);
  EXPECT_TRUE(ring.empty());
}

}  // namespace
}  // namespace sluice
