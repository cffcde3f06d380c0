#include "services/timers.h"

#include <gtest/gtest.h>

#include <utility>
#include <vector>

namespace sluice::services {
namespace {

TEST(TimersTest, FiresByKindAndIndex) {
  Timers timers({1, 2, 0, 3, 4}, Seconds(10));
  EXPECT_EQ(timers.NextDeadline(), Nanos::Max());
  timers.Set(TimerKind::kService, 0, Seconds(11));
  timers.Set(TimerKind::kRelay, 1, Seconds(12));
  timers.Set(TimerKind::kEndpoint, 0, Seconds(13));
  timers.Set(TimerKind::kEndpoint, 2, Seconds(13));
  timers.Set(TimerKind::kProbe, 3, Seconds(400));
  timers.Clear(TimerKind::kEndpoint, 0);
  EXPECT_EQ(timers.size(), 4u);
  std::vector<std::pair<TimerKind, uint32_t>> fired;
  const auto fire = [&](TimerKind kind, uint32_t index) { fired.emplace_back(kind, index); };
  using Fired = std::vector<std::pair<TimerKind, uint32_t>>;
  timers.Advance(Millis(10'999), fire);
  EXPECT_EQ(fired, Fired());
  timers.Advance(Seconds(14), fire);
  EXPECT_EQ(fired, (Fired{{TimerKind::kService, 0}, {TimerKind::kRelay, 1},
                          {TimerKind::kEndpoint, 2}}));
  timers.Advance(Seconds(401), fire);
  EXPECT_EQ(fired.back(), (std::pair{TimerKind::kProbe, 3u}));
  EXPECT_EQ(timers.size(), 0u);
}

}  // namespace
}  // namespace sluice::services
