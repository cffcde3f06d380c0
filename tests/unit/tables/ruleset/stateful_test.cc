#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <set>
#include <thread>
#include <vector>

#include "base/rng.h"
#include "tables/ruleset/connection_count.h"
#include "tables/ruleset/state_pool.h"
#include "tables/ruleset/stateful.h"

namespace sluice::tables {
namespace {

StatefulExpr Packets(uint64_t rate, uint64_t unit_ns, uint64_t burst) {
  StatefulExpr limit;
  limit.kind = StatefulKind::kLimit;
  limit.rate = rate;
  limit.unit_ns = unit_ns;
  limit.packet_cost = unit_ns / rate;
  limit.tokens_max = limit.packet_cost * burst;
  return limit;
}

// The bucket as nft_limit_eval keeps it: tokens, and when they were counted.
class KernelBucket {
 public:
  KernelBucket(uint64_t max, Nanos now) : max_(max), tokens_(max), last_(now) {}
  bool Take(Nanos now, uint64_t cost) {
    uint64_t tokens = tokens_ + static_cast<uint64_t>((now - last_).count());
    if (tokens > max_) tokens = max_;
    last_ = now;
    const auto delta = static_cast<int64_t>(tokens - cost);
    tokens_ = delta >= 0 ? static_cast<uint64_t>(delta) : tokens;
    return delta >= 0;
  }

 private:
  uint64_t max_;
  uint64_t tokens_;
  Nanos last_;
};

TEST(LimitTest, TakesWhatTheKernelsBucketTakes) {
  Rng rng(5);
  for (int round = 0; round < 200; ++round) {
    StatefulExpr limit = Packets(1 + rng.Below(1000), 1'000'000'000, 1 + rng.Below(20));
    limit.bytes = rng.Chance(1, 2);
    if (limit.bytes) {
      limit.tokens_max = static_cast<uint64_t>(static_cast<unsigned __int128>(limit.unit_ns) *
                                               (limit.rate + rng.Below(3000)) / limit.rate);
    }
    Nanos now = Seconds(static_cast<int64_t>(rng.Below(100)));
    StateCell cell;
    FillBucket(limit, cell, now);
    KernelBucket kernel(limit.tokens_max, now);
    for (int i = 0; i < 500; ++i) {
      now += Nanos(static_cast<int64_t>(rng.Below(2 * limit.unit_ns / limit.rate)));
      const uint64_t cost = LimitCost(limit, static_cast<uint32_t>(20 + rng.Below(1480)));
      const bool peeked = TakeTokens(limit, cell, now, cost, true);
      const bool took = TakeTokens(limit, cell, now, cost, false);
      ASSERT_EQ(peeked, took);
      ASSERT_EQ(took, kernel.Take(now, cost)) << "round " << round << " packet " << i;
    }
  }
}

TEST(LimitTest, ABucketStartsFullAndRefills) {
  const StatefulExpr limit = Packets(10, 1'000'000'000, 5);
  StateCell cell;
  Nanos now = Seconds(50);
  FillBucket(limit, cell, now);
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(TakeTokens(limit, cell, now, limit.packet_cost, false));
  EXPECT_FALSE(TakeTokens(limit, cell, now, limit.packet_cost, false));
  now += Millis(99);
  EXPECT_FALSE(TakeTokens(limit, cell, now, limit.packet_cost, false));
  now += Millis(1);
  EXPECT_TRUE(TakeTokens(limit, cell, now, limit.packet_cost, false));
}

TEST(LimitTest, WorkersShareABucket) {
  const StatefulExpr limit = Packets(1, 1'000'000'000, 1000);
  StateCell cell;
  FillBucket(limit, cell, Seconds(1));
  std::atomic<uint32_t> taken{0};
  const auto work = [&] {
    for (int i = 0; i < 900; ++i) {
      if (TakeTokens(limit, cell, Seconds(1), limit.packet_cost, false)) taken.fetch_add(1);
    }
  };
  std::thread other(work);
  work();
  other.join();
  EXPECT_EQ(taken.load(), 1000u);
}

TEST(StatePoolTest, CellsAreZeroAndGivenBack) {
  const auto pool = StatePool::Create(3);
  std::vector<StateHandle> handles;
  for (size_t i = 0; i < 3 * kCellsPerSlab; ++i) {
    handles.push_back(pool->Allocate());
    for (uint32_t w = 0; w < 3; ++w) {
      StateCell& cell = WorkerCell(handles.back().get(), w);
      ASSERT_EQ(cell.a.load(), 0u);
      StateCell::Add(cell.a, i + w + 1);
    }
  }
  for (size_t i = 0; i < handles.size(); ++i) {
    for (uint32_t w = 0; w < 3; ++w) {
      ASSERT_EQ(WorkerCell(handles[i].get(), w).a.load(), i + w + 1);
    }
  }
  const size_t bytes = pool->memory_bytes();
  handles.clear();
  EXPECT_EQ(pool->used(), 0u);
  const StateHandle again = pool->Allocate();
  EXPECT_EQ(again->a.load(), 0u);
  EXPECT_EQ(pool->memory_bytes(), bytes);
}

TEST(ConnectionCountsTest, CountsEachConnectionOncePerOwner) {
  ConnectionCounts counts(1000);
  std::set<uint64_t> alive;
  const auto is_alive = [&](const ConnectionCounts::Connection& c) {
    return alive.contains(c.fingerprint);
  };
  Rng rng(2);
  std::set<std::pair<uint64_t, uint64_t>> model;
  std::vector<uint64_t> current;  // one that has ended never comes again
  uint64_t next = 1;
  const auto start = [&] {
    alive.insert(next);
    return next++;
  };
  for (int i = 0; i < 60; ++i) current.push_back(start());
  for (int i = 0; i < 20'000; ++i) {
    const Nanos now = Millis(10 * i);
    const uint64_t owner = rng.Below(4);
    const uint64_t connection = current[rng.Below(current.size())];
    const auto live_of = [&] {
      return static_cast<uint32_t>(std::count_if(model.begin(), model.end(), [&](const auto& m) {
        return m.first == owner && alive.contains(m.second);
      }));
    };
    const bool known = model.contains({owner, connection});
    // A limit of 0 makes it look at all of the owner's.
    const uint32_t peeked = counts.Add(owner, {0, connection}, 0, now, is_alive, true);
    EXPECT_GE(peeked, live_of() + (known ? 0 : 1));
    model.insert({owner, connection});
    ASSERT_EQ(counts.Add(owner, {0, connection}, 0, now, is_alive, false), live_of());
    std::erase_if(model, [&](const auto& m) { return m.first == owner && !alive.contains(m.second); });
    if (rng.Chance(1, 3)) {
      uint64_t& ended = current[rng.Below(current.size())];
      alive.erase(ended);
      ended = start();
    }
  }
  alive.clear();
  for (int i = 0; i < 1000; ++i) counts.Sweep(2, is_alive);
  EXPECT_EQ(counts.size(), 0u);
}

TEST(ConnectionCountsTest, ReportsWhatItHasWhenFull) {
  ConnectionCounts counts(3);
  const auto alive = [](const ConnectionCounts::Connection&) { return true; };
  for (uint64_t c = 1; c <= 10; ++c) {
    EXPECT_EQ(counts.Add(1, {0, c}, 100, Seconds(1), alive, false), std::min<uint64_t>(c, 3));
  }
}

}  // namespace
}  // namespace sluice::tables
