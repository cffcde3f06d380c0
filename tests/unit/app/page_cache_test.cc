#include "app/page_cache.h"

#include <gtest/gtest.h>

#include <memory>
#include <string>

namespace sluice::app {
namespace {

TEST(PageCache, WritesAgainAfterAMomentOnly) {
  PageCache cache;
  int written = 0;
  const auto render = [&] { return std::to_string(++written); };
  Nanos now = Seconds(1000);
  for (int i = 0; i < 100; ++i) EXPECT_EQ(*cache.Get(render, now), "1");
  now = now + PageCache::kLifetime - Nanos(1);
  EXPECT_EQ(*cache.Get(render, now), "1");
  now = now + Nanos(1);
  EXPECT_EQ(*cache.Get(render, now), "2");
  EXPECT_EQ(*cache.Get(render, now + Seconds(3600)), "3");
  EXPECT_EQ(written, 3);
}

// What a worker still sends is not freed by it.
TEST(PageCache, KeepsWhatOthersHold) {
  PageCache cache;
  const auto render = [] { return std::string("x"); };
  auto held = cache.Get(render, Seconds(1));
  const std::weak_ptr<const std::string> watch = held;
  cache.Get(render, Seconds(2));
  EXPECT_EQ(cache.old(), 1u);
  held = nullptr;
  EXPECT_FALSE(watch.expired());
  cache.Get(render, Seconds(3));
  EXPECT_TRUE(watch.expired());
  EXPECT_LE(cache.old(), 1u);
}

}  // namespace
}  // namespace sluice::app
