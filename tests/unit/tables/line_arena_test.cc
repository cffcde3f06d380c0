#include "tables/line_arena.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/rng.h"

namespace sluice::tables {
namespace {

TEST(LineArena, HandsOutFromTheEndOfTheReserve) {
  LineArena arena(100 * LineArena::kLineBytes, 10, false);
  EXPECT_EQ(arena.Allocate(3), 10u);
  EXPECT_EQ(arena.Allocate(1), 13u);
  EXPECT_EQ(arena.used_lines(), 4u);
  EXPECT_EQ(arena.reached_lines(), 14u);
}

TEST(LineArena, RefusesBeyondItsCapacity) {
  LineArena arena(100 * LineArena::kLineBytes, 10, false);
  EXPECT_TRUE(arena.CanAllocate(90));
  EXPECT_FALSE(arena.CanAllocate(91));
  const uint32_t first = arena.Allocate(65);
  EXPECT_EQ(arena.Allocate(26), 0u);
  EXPECT_EQ(arena.Allocate(25), 75u);
  EXPECT_EQ(arena.Allocate(1), 0u);
  arena.Free(first, 65);
  EXPECT_EQ(arena.Allocate(65), first);
}

TEST(LineArena, MergesNeighbours) {
  LineArena arena(1000 * LineArena::kLineBytes, 1, false);
  const uint32_t a = arena.Allocate(20);
  const uint32_t b = arena.Allocate(20);
  const uint32_t c = arena.Allocate(20);
  const uint32_t keep = arena.Allocate(1);
  arena.Free(a, 20);
  arena.Free(c, 20);
  arena.Free(b, 20);  // closes the gap
  EXPECT_EQ(arena.Allocate(60), a);
  arena.Free(a, 60);
  arena.Free(keep, 1);
  EXPECT_EQ(arena.reached_lines(), 1u);
  EXPECT_EQ(arena.used_lines(), 0u);
}

// Blocks never overlap, keep what was written to them, and all come back.
TEST(LineArena, RandomUse) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    LineArena arena(2000 * LineArena::kLineBytes, 1, false);
    std::map<uint32_t, uint32_t> blocks;  // line to size
    size_t used = 0;
    for (int step = 0; step < 20'000; ++step) {
      if (rng.Chance(1, 2)) {
        const uint32_t lines = 1 + static_cast<uint32_t>(rng.Below(65));
        const uint32_t line = arena.Allocate(lines);
        if (line == 0) continue;
        const auto above = blocks.lower_bound(line);
        ASSERT_TRUE(above == blocks.end() || line + lines <= above->first);
        ASSERT_TRUE(above == blocks.begin() ||
                    std::prev(above)->first + std::prev(above)->second <= line);
        ASSERT_LE(line + lines, 2000u);
        blocks[line] = lines;
        used += lines;
        for (uint32_t i = 0; i < lines * LineArena::kLineWords; ++i) arena.At(line)[i] = line;
      } else if (!blocks.empty()) {
        auto it = blocks.lower_bound(static_cast<uint32_t>(rng.Below(2000)));
        if (it == blocks.end()) it = blocks.begin();
        for (uint32_t i = 0; i < it->second * LineArena::kLineWords; ++i) {
          ASSERT_EQ(arena.At(it->first)[i], it->first);
        }
        arena.Free(it->first, it->second);
        used -= it->second;
        blocks.erase(it);
      }
      ASSERT_EQ(arena.used_lines(), used);
    }
    for (const auto& [line, lines] : blocks) arena.Free(line, lines);
    EXPECT_EQ(arena.reached_lines(), 1u);
  }
}

}  // namespace
}  // namespace sluice::tables
