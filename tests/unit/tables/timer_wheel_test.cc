#include "tables/timer_wheel.h"

#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/rng.h"

namespace sluice::tables {
namespace {

constexpr Nanos kTick = Millis(10);

std::vector<uint32_t> Fired(TimerWheel& wheel, Nanos now) {
  std::vector<uint32_t> fired;
  EXPECT_TRUE(wheel.Advance(now, [&](uint32_t timer) { fired.push_back(timer); }));
  return fired;
}

TEST(TimerWheel, FiresOnceAtItsTickAndNeverEarly) {
  TimerWheel wheel(4, kTick, 64, Seconds(1));
  wheel.Schedule(2, Seconds(1) + Millis(25));
  EXPECT_TRUE(wheel.IsSet(2));
  EXPECT_EQ(wheel.NextDeadline(), Seconds(1) + Millis(30));
  EXPECT_TRUE(Fired(wheel, Seconds(1) + Millis(29)).empty());
  EXPECT_EQ(Fired(wheel, Seconds(1) + Millis(30)), std::vector<uint32_t>{2});
  EXPECT_FALSE(wheel.IsSet(2));
  EXPECT_TRUE(Fired(wheel, Seconds(9)).empty());
  EXPECT_EQ(wheel.NextDeadline(), Nanos::Max());
}

TEST(TimerWheel, CancelAndMove) {
  TimerWheel wheel(4, kTick, 64, Nanos());
  wheel.Schedule(0, Millis(50));
  wheel.Schedule(1, Millis(50));
  wheel.Schedule(2, Millis(50));
  wheel.Cancel(1);
  wheel.Cancel(1);
  wheel.Schedule(2, Millis(90));
  EXPECT_EQ(wheel.size(), 2u);
  EXPECT_EQ(Fired(wheel, Millis(50)), std::vector<uint32_t>{0});
  EXPECT_EQ(wheel.NextDeadline(), Millis(90));
  EXPECT_EQ(Fired(wheel, Millis(90)), std::vector<uint32_t>{2});
}

TEST(TimerWheel, PastDeadlinesFireInTheNextTick) {
  TimerWheel wheel(1, kTick, 64, Seconds(5));
  wheel.Schedule(0, Seconds(1));
  EXPECT_EQ(wheel.NextDeadline(), Seconds(5) + kTick);
  EXPECT_EQ(Fired(wheel, Seconds(5) + kTick).size(), 1u);
}

TEST(TimerWheel, LaterTurnsWaitTheirTurn) {
  TimerWheel wheel(2, kTick, 64, Nanos());
  wheel.Schedule(0, kTick * 3);
  wheel.Schedule(1, kTick * (3 + 64 * 2));
  EXPECT_EQ(Fired(wheel, kTick * 3), std::vector<uint32_t>{0});
  EXPECT_LE(wheel.NextDeadline(), kTick * (3 + 64 * 2));
  EXPECT_TRUE(Fired(wheel, kTick * (2 + 64 * 2)).empty());
  EXPECT_EQ(Fired(wheel, kTick * (3 + 64 * 2)), std::vector<uint32_t>{1});
}

TEST(TimerWheel, ALongPauseFiresEverythingThatWasDue) {
  TimerWheel wheel(1000, kTick, 64, Nanos());
  for (uint32_t i = 0; i < 1000; ++i) wheel.Schedule(i, kTick * (i + 1));
  EXPECT_EQ(Fired(wheel, kTick * 900).size(), 900u);
  EXPECT_EQ(wheel.size(), 100u);
  EXPECT_EQ(Fired(wheel, Seconds(3600)).size(), 100u);
}

TEST(TimerWheel, TheCallbackMayChangeAnyTimer) {
  TimerWheel wheel(5, kTick, 64, Nanos());
  for (uint32_t i = 0; i < 4; ++i) wheel.Schedule(i, kTick);
  std::vector<uint32_t> fired;
  wheel.Advance(kTick, [&](uint32_t timer) {
    fired.push_back(timer);
    if (fired.size() == 1) {
      // Two of the others go, among them the one that is next in line; one timer comes back.
      for (uint32_t i = 0; i < 4; ++i) {
        if (i != timer && i != 0) wheel.Cancel(i);
      }
      wheel.Schedule(timer, Nanos());
      wheel.Schedule(4, kTick);
    }
  });
  EXPECT_EQ(fired.size(), 2u);
  EXPECT_EQ(fired.back(), 0u);
  EXPECT_EQ(wheel.size(), 2u);
  EXPECT_EQ(Fired(wheel, kTick * 2).size(), 2u) << "set for the past: in the next tick";
}

TEST(TimerWheel, WorkPerCallIsBounded) {
  TimerWheel wheel(100, kTick, 64, Nanos());
  for (uint32_t i = 0; i < 100; ++i) wheel.Schedule(i, kTick * (1 + i % 3));
  size_t fired = 0;
  const auto count = [&](uint32_t) { ++fired; };
  EXPECT_FALSE(wheel.Advance(kTick * 5, count, 30));
  EXPECT_EQ(fired, 30u);
  EXPECT_LE(wheel.NextDeadline(), kTick * 5) << "more to do at once";
  EXPECT_FALSE(wheel.Advance(kTick * 5, count, 30));
  EXPECT_FALSE(wheel.Advance(kTick * 5, count, 30));
  EXPECT_TRUE(wheel.Advance(kTick * 5, count, 30));
  EXPECT_EQ(fired, 100u);
}

// Against a plain ordered map, with random times, bounds, cancellations and pauses.
TEST(TimerWheel, AgreesWithAPriorityQueue) {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    constexpr uint32_t kTimers = 200;
    const bool bounded = seed % 2 == 0;
    TimerWheel wheel(kTimers, kTick, 64, Seconds(100));
    std::map<uint32_t, int64_t> model;  // timer to tick
    Nanos now = Seconds(100);
    int64_t reached = now / kTick;
    for (int step = 0; step < 2000; ++step) {
      const uint32_t timer = static_cast<uint32_t>(rng.Below(kTimers));
      if (rng.Chance(1, 4)) {
        wheel.Cancel(timer);
        model.erase(timer);
      } else {
        const Nanos deadline =
            now + Micros(static_cast<int64_t>(rng.Below(3'000'000))) - Millis(50);
        wheel.Schedule(timer, deadline);
        const int64_t tick = (deadline.count() + kTick.count() - 1) / kTick.count();
        model[timer] = std::max(tick, reached + 1);
      }
      ASSERT_EQ(wheel.size(), model.size());
      if (!rng.Chance(1, 3)) continue;
      now += rng.Chance(1, 20) ? Seconds(2) : Micros(static_cast<int64_t>(rng.Below(40'000)));
      reached = now / kTick;
      const auto fire = [&](uint32_t fired) {
        ASSERT_TRUE(model.count(fired));
        EXPECT_LE(model[fired], reached) << "early";
        model.erase(fired);
      };
      bool done = false;
      for (int calls = 0; !done && calls < 1000; ++calls) {
        done = wheel.Advance(now, fire, bounded ? 3 : SIZE_MAX);
      }
      ASSERT_TRUE(done);
      Nanos next = Nanos::Max();
      for (const auto& [t, tick] : model) {
        EXPECT_GT(tick, reached) << "timer " << t << " was due";
        next = std::min(next, kTick * tick);
      }
      EXPECT_LE(wheel.NextDeadline(), next);
      EXPECT_GT(wheel.NextDeadline(), now);
    }
  }
}

}  // namespace
}  // namespace sluice::tables
