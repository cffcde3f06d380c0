#include "tables/ruleset/dynamic_set.h"

#include <gtest/gtest.h>

#include <cstring>
#include <map>

#include "base/rng.h"

namespace sluice::tables {
namespace {

struct Key {
  explicit Key(uint32_t v) { std::memcpy(bytes, &v, 4); }
  uint8_t bytes[4];
};

TEST(OverlayTest, AgreesWithAMapThatExpires) {
  Rng rng(11);
  Nanos now = Seconds(1);
  Overlay overlay({.key_length = 4, .capacity = 300, .seed = 1}, now);
  std::map<uint32_t, int64_t> model;  // expiry, 0: never
  for (int i = 0; i < 50'000; ++i) {
    now += Millis(static_cast<int64_t>(rng.Below(20)));
    std::erase_if(model, [&](const auto& e) { return e.second != 0 && e.second <= now.count(); });
    const auto key = static_cast<uint32_t>(rng.Below(400));
    Overlay::Node* node = overlay.Find(Key(key).bytes, now);
    ASSERT_EQ(node != nullptr, model.contains(key)) << i;
    if (node == nullptr) {
      node = overlay.Insert(Key(key).bytes, now);
      if (node == nullptr) {
        // It may be full of elements whose time is over; not of fewer live ones than it holds.
        ASSERT_EQ(overlay.size(), overlay.capacity());
        overlay.Expire(now, 10'000);
        continue;
      }
      const int64_t expires = rng.Chance(1, 50) ? 0 : (now + Millis(500)).count();
      overlay.SetExpiry(node, Nanos(expires));
      model[key] = expires;
    } else if (rng.Chance(1, 4)) {
      overlay.Remove(node);
      model.erase(key);
    } else {
      overlay.SetExpiry(node, now + Seconds(1));
      model[key] = (now + Seconds(1)).count();
    }
    if (rng.Chance(1, 10)) overlay.Expire(now, 20);
  }
  overlay.Clear();
  EXPECT_EQ(overlay.size(), 0u);
}

TEST(OverlayTest, IsFullAtItsCapacity) {
  Overlay overlay({.key_length = 4, .capacity = 3}, Nanos());
  for (uint32_t k = 0; k < 3; ++k) ASSERT_NE(overlay.Insert(Key(k).bytes, Nanos()), nullptr);
  EXPECT_EQ(overlay.Insert(Key(3).bytes, Nanos()), nullptr);
  overlay.Remove(overlay.Find(Key(1).bytes, Nanos()));
  EXPECT_NE(overlay.Insert(Key(3).bytes, Nanos()), nullptr);
}

TEST(OverlayTest, WhatIsOverMakesRoom) {
  Overlay overlay({.key_length = 4, .capacity = 2}, Nanos());
  for (uint32_t k = 0; k < 2; ++k) {
    overlay.SetExpiry(overlay.Insert(Key(k).bytes, Nanos()), Seconds(1));
  }
  EXPECT_NE(overlay.Insert(Key(7).bytes, Seconds(2)), nullptr);
}

TEST(DynamicSetTest, WorkersFollowTheKernelsRemovals) {
  DynamicSet set(1, {.key_length = 4, .capacity = 1000}, 2, Nanos(), Nanos());
  for (uint32_t worker = 0; worker < 2; ++worker) {
    for (uint32_t k = 0; k < 10; ++k) set.worker(worker).Insert(Key(k).bytes, Nanos());
  }
  set.RequestRemoval(Key(3).bytes);
  set.FollowRequests(0);
  EXPECT_EQ(set.worker(0).size(), 9u);
  EXPECT_EQ(set.worker(0).Find(Key(3).bytes, Nanos()), nullptr);
  EXPECT_EQ(set.worker(1).size(), 10u);
  set.RequestFlush();
  set.FollowRequests(0);
  set.FollowRequests(1);
  EXPECT_EQ(set.worker(0).size() + set.worker(1).size(), 0u);
}

TEST(DynamicSetTest, MoreRemovalsThanItRemembersEmptyIt) {
  DynamicSet set(1, {.key_length = 4, .capacity = 5000}, 1, Nanos(), Nanos());
  for (uint32_t k = 0; k < 5000; ++k) set.worker(0).Insert(Key(k).bytes, Nanos());
  for (uint32_t k = 0; k < 2 * DynamicSet::kMaxRemovals; ++k) set.RequestRemoval(Key(k).bytes);
  set.FollowRequests(0);
  EXPECT_EQ(set.worker(0).size(), 0u);
}

}  // namespace
}  // namespace sluice::tables
