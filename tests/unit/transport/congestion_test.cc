// CUBIC, NewReno and HyStart++ as arithmetic, against the RFCs' formulas worked out here.
#include "transport/congestion/congestion.h"

#include <gtest/gtest.h>

#include <cmath>

namespace sluice::transport {
namespace {

constexpr uint32_t kMss = 1000;

// One round trip in which the whole window is acknowledged, segment by segment.
void Round(CongestionControl& c, Nanos& now, Nanos rtt, wire::TcpSeq& una) {
  const uint32_t window = c.cwnd() / kMss;
  const wire::TcpSeq next = una + window * kMss;
  for (uint32_t i = 0; i < window; ++i) {
    now += rtt / window;
    una += kMss;
    c.OnAck({kMss, una, next + (i + 1) * kMss, rtt, rtt, now});
  }
}

// RFC 5681 section 3.1: congestion avoidance adds a full-sized segment per round trip.
TEST(Rfc5681, NewRenoAddsOneSegmentPerRoundTrip) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kNewReno, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  c.OnCongestion(20 * kMss, now);
  EXPECT_EQ(c.ssthresh(), 10 * kMss);
  c.set_cwnd(c.ssthresh());
  for (uint32_t i = 1; i <= 20; ++i) {
    Round(c, now, Millis(50), una);
    EXPECT_NEAR(c.cwnd(), (10 + i) * kMss, kMss);
  }
}

// RFC 9438 section 4.2: W(t) = C (t - K)^3 + W_max.
TEST(Rfc9438, WindowFollowsTheCurve) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  c.set_cwnd(1000 * kMss);
  c.OnCongestion(1000 * kMss, now);
  EXPECT_EQ(c.ssthresh(), 700 * kMss);  // beta 0.7
  c.set_cwnd(c.ssthresh());
  const double k = std::cbrt(300 / 0.4);
  const Nanos rtt = Millis(100);
  const Nanos start = now;
  while (now - start < Seconds(15)) {
    Round(c, now, rtt, una);
    const double t = (now - start).seconds();
    const double wanted = 0.4 * std::pow(t - k, 3) + 1000;
    // It aims at where the curve is one round trip from now.
    EXPECT_NEAR(c.cwnd() / 1000.0, wanted, 0.03 * wanted) << t;
  }
}

// Section 4.3: at small windows and short round trips it grows as Reno would, with alpha 0.53.
TEST(Rfc9438, RenoFriendlyRegion) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  c.set_cwnd(20 * kMss);
  c.OnCongestion(20 * kMss, now);
  c.set_cwnd(c.ssthresh());
  for (int i = 0; i < 10; ++i) Round(c, now, Millis(5), una);
  EXPECT_NEAR(c.cwnd() / 1000.0, 14 + 10 * 3 * 0.3 / 1.7, 1.0);
}

// Section 4.7: a window that did not come up to the last maximum gives room.
TEST(Rfc9438, FastConvergence) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  const Nanos now = Seconds(1);
  c.set_cwnd(100 * kMss);
  c.OnCongestion(100 * kMss, now);
  c.set_cwnd(80 * kMss);
  c.OnCongestion(80 * kMss, now);
  EXPECT_EQ(c.ssthresh(), 56 * kMss);
  c.set_cwnd(c.ssthresh());
  // W_max is 80 * 0.85 = 68: with K seconds gone the window is there, and not at 80.
  const double k = std::cbrt((68 - 56) / 0.4);
  Nanos t = now;
  wire::TcpSeq una(1);
  const Nanos end = now + Nanos(static_cast<int64_t>(k * 1e9));
  while (t < end) Round(c, t, Millis(200), una);
  EXPECT_NEAR(c.cwnd() / 1000.0, 68, 2.5);
}

// RFC 9438 section 4.9.1: after a timeout that was needless, window and threshold are as before it.
TEST(Rfc9438, UndoRestores) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  c.set_cwnd(50 * kMss);
  c.OnTimeout(50 * kMss, false, Seconds(1));
  EXPECT_EQ(c.cwnd(), kMss);
  EXPECT_EQ(c.ssthresh(), 35 * kMss);
  c.Undo();
  EXPECT_EQ(c.cwnd(), 50 * kMss);
  EXPECT_FALSE(c.cwnd() >= c.ssthresh());
}

// RFC 9406 section 4.2: a round whose least RTT (of at least 8 samples) is above the last one's by the
// threshold goes on at a quarter of the speed; after five such rounds slow start ends.
TEST(Rfc9406, RisingRttEndsSlowStart) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  Round(c, now, Millis(40), una);
  Round(c, now, Millis(40), una);
  EXPECT_EQ(c.cwnd(), 40 * kMss);
  EXPECT_FALSE(c.in_css());
  int rounds = 0;
  Nanos rtt = Millis(46);
  while (c.in_slow_start() && rounds < 20) {
    Round(c, now, rtt, una);
    if (rounds > 0 && c.in_slow_start()) {
      EXPECT_TRUE(c.in_css());
    }
    ++rounds;
    rtt += Millis(1);
  }
  EXPECT_LE(rounds, 8);
  EXPECT_GE(rounds, 5);
  EXPECT_EQ(c.ssthresh() <= c.cwnd(), true);
}

// Section 4.2: if the RTT falls again it was a false alarm.
TEST(Rfc9406, FallingRttResumesSlowStart) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kCubic, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  Round(c, now, Millis(40), una);
  Round(c, now, Millis(50), una);
  Round(c, now, Millis(50), una);
  EXPECT_TRUE(c.in_css());
  Round(c, now, Millis(40), una);
  Round(c, now, Millis(40), una);
  EXPECT_FALSE(c.in_css());
  EXPECT_TRUE(c.in_slow_start());
}

// RFC 9406 section 4.3: a steady RTT, or a rise below MIN_RTT_THRESH (4 ms), does nothing.
TEST(Rfc9406, SmallRisesAreIgnored) {
  CongestionControl c;
  c.Start(CongestionAlgorithm::kNewReno, kMss);
  Nanos now = Seconds(1);
  wire::TcpSeq una(1);
  for (int i = 0; i < 6; ++i) {
    Round(c, now, Millis(10 + i * 3), una);
    EXPECT_FALSE(c.in_css());
  }
}

}  // namespace
}  // namespace sluice::transport
