#include "stages/neighbor/neighbor_table.h"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <utility>
#include <vector>

#include "base/rng.h"

namespace sluice::stages {
namespace {

using Key = std::pair<uint8_t, IpAddress>;

IpAddress SomeAddress(Rng& rng) {
  const auto n = static_cast<uint32_t>(rng.Below(300));
  if (rng.Chance(1, 2)) return Ipv4(0x0a000000 + n);
  return Ipv6(0x2001'0db8'0000'0000ull + n % 3, n);
}

// Against std::map, with so many collisions and removals that every probe sequence gets broken up.
TEST(NeighborTableTest, BehavesAsAMap) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    NeighborTable table(100, seed);
    std::map<Key, uint16_t> model;
    for (int step = 0; step < 20'000; ++step) {
      const IfaceSlot slot{static_cast<uint8_t>(rng.Below(3))};
      const IpAddress ip = SomeAddress(rng);
      const Key key{slot.value, ip};
      NeighborEntry* e = table.Find(slot, ip);
      ASSERT_EQ(e != nullptr, model.contains(key));
      if (e != nullptr) {
        ASSERT_EQ(e->slot(), slot);
        ASSERT_EQ(e->ip(), ip);
        ASSERT_EQ(e->probes, model[key]);
        if (rng.Chance(1, 2)) {
          table.Remove(*e);
          model.erase(key);
        }
      } else {
        e = table.Insert(slot, ip);
        ASSERT_EQ(e != nullptr, model.size() < 100);
        if (e != nullptr) {
          ASSERT_EQ(e->state, NeighborState::kNone);
          e->probes = static_cast<uint16_t>(step);
          model[key] = e->probes;
        }
      }
      ASSERT_EQ(table.used(), model.size());
    }
    for (const auto& [key, probes] : model) {
      NeighborEntry* e = table.Find(IfaceSlot{key.first}, key.second);
      ASSERT_NE(e, nullptr);
      table.Remove(*e);
    }
    for (uint32_t i = 0; i < table.places(); ++i) ASSERT_EQ(table.At(i).passed, 0);
  }
}

TEST(NeighborTableTest, EntriesDoNotMove) {
  NeighborTable table(64, 7);
  std::vector<NeighborEntry*> entries;
  for (uint32_t i = 0; i < 64; ++i) entries.push_back(table.Insert(IfaceSlot{1}, Ipv4(i)));
  for (uint32_t i = 0; i < 64; i += 2) table.Remove(*entries[i]);
  for (uint32_t i = 1; i < 64; i += 2) EXPECT_EQ(table.Find(IfaceSlot{1}, Ipv4(i)), entries[i]);
}

TEST(NeighborTableTest, SameAddressOnTwoInterfacesAndInBothFamilies) {
  NeighborTable table(8, 7);
  NeighborEntry* a = table.Insert(IfaceSlot{0}, Ipv4(1));
  NeighborEntry* b = table.Insert(IfaceSlot{1}, Ipv4(1));
  NeighborEntry* c = table.Insert(IfaceSlot{0}, Ipv6(0, 1));
  EXPECT_EQ(table.Find(IfaceSlot{0}, Ipv4(1)), a);
  EXPECT_EQ(table.Find(IfaceSlot{1}, Ipv4(1)), b);
  EXPECT_EQ(table.Find(IfaceSlot{0}, Ipv6(0, 1)), c);
  EXPECT_EQ(table.Find(IfaceSlot{1}, Ipv6(0, 1)), nullptr);
}

TEST(NeighborTableTest, EnumeratesInSlices) {
  NeighborTable table(100, 3);
  for (uint32_t i = 0; i < 100; ++i) table.Insert(IfaceSlot{0}, Ipv4(i));
  std::set<IpAddress> seen;
  NeighborInfo slice[9];
  uint32_t cursor = 0;
  int calls = 0;
  do {
    size_t n = 0;
    cursor = table.Enumerate(cursor, slice, &n);
    for (size_t i = 0; i < n; ++i) EXPECT_TRUE(seen.insert(slice[i].address).second);
    ++calls;
  } while (cursor != 0);
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_GE(calls, 12);
  size_t n = 0;
  EXPECT_EQ(NeighborTable(4, 1).Enumerate(0, slice, &n), 0u);
  EXPECT_EQ(n, 0u);
}

TEST(NeighborTableTest, VictimsInOrder) {
  NeighborTable table(8, 3);
  const auto add = [&](uint32_t ip, NeighborState state, Nanos used) {
    NeighborEntry* e = table.Insert(IfaceSlot{0}, Ipv4(ip));
    table.SetState(*e, state);
    e->used = used;
    return e;
  };
  const Nanos idle_since = Seconds(100);
  add(1, NeighborState::kPermanent, Seconds(1));
  add(2, NeighborState::kIncomplete, Seconds(1));
  add(3, NeighborState::kReachable, Seconds(200));
  EXPECT_EQ(table.FindVictim(idle_since), nullptr);
  NeighborEntry* idle = add(4, NeighborState::kReachable, Seconds(50));
  EXPECT_EQ(table.FindVictim(idle_since), idle);
  NeighborEntry* stale = add(5, NeighborState::kStale, Seconds(90));
  EXPECT_EQ(table.FindVictim(idle_since), stale);
  NeighborEntry* older = add(6, NeighborState::kStale, Seconds(80));
  EXPECT_EQ(table.FindVictim(idle_since), older);
  NeighborEntry* failed = add(7, NeighborState::kFailed, Seconds(300));
  EXPECT_EQ(table.FindVictim(idle_since), failed);
}

// Addresses that follow each other, as in a subnet, must spread well: the usual lookup is one line.
TEST(NeighborTableTest, SubnetsSpread) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    NeighborTable table(10'000, seed);
    for (uint32_t i = 0; i < 5'000; ++i) {
      ASSERT_NE(table.Insert(IfaceSlot{0}, Ipv4(0x0a000000 + i)), nullptr);
      ASSERT_NE(table.Insert(IfaceSlot{1}, Ipv6(0x2001'0db8'0000'0000ull, i)), nullptr);
    }
    uint64_t passed = 0;
    for (uint32_t i = 0; i < table.places(); ++i) passed += table.At(i).passed;
    EXPECT_LT(passed, 5'000u) << "more than half a step per entry, seed " << seed;
  }
}

}  // namespace
}  // namespace sluice::stages
