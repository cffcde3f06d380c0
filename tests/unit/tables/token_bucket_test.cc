#include "tables/token_bucket.h"

#include <gtest/gtest.h>

#include <list>
#include <string>

namespace sluice::tables {
namespace {

constexpr Nanos kStart = Seconds(1000);

template <class Allow>
int CountOf(int tries, Allow allow) {
  int allowed = 0;
  for (int i = 0; i < tries; ++i) allowed += allow() ? 1 : 0;
  return allowed;
}

TEST(PeerBucket, ErrorsSixAtOnceThenOnePerInterval) {
  PeerBucket bucket(kStart);
  const auto allow = [&](Nanos now) { return bucket.AllowError(now, Seconds(1)); };
  EXPECT_EQ(CountOf(20, [&] { return allow(kStart); }), 6);
  EXPECT_FALSE(allow(kStart + Millis(999)));
  EXPECT_TRUE(allow(kStart + Millis(1000)));
  EXPECT_FALSE(allow(kStart + Millis(1001)));
  EXPECT_EQ(CountOf(20, [&] { return allow(kStart + Seconds(4)); }), 3);
  EXPECT_EQ(CountOf(20, [&] { return allow(kStart + Seconds(1000)); }), 6) << "saved up: 6 at most";
}

TEST(PeerBucket, NoIntervalNoLimit) {
  PeerBucket bucket(kStart);
  EXPECT_EQ(CountOf(1000, [&] { return bucket.AllowError(kStart, Nanos()); }), 1000);
}

TEST(PeerBucket, UnreachablesFiveAtOnceThenOnePerSecond) {
  PeerBucket bucket(kStart);
  const ErrorLimit limit;
  EXPECT_EQ(CountOf(20, [&] { return bucket.AllowUnreachable(kStart, limit); }), 5);
  int later = 0;
  for (int ms = 100; ms <= 10'000; ms += 100) {
    later += bucket.AllowUnreachable(kStart + Millis(ms), limit) ? 1 : 0;
  }
  EXPECT_EQ(later, 10);
}

TEST(PeerBucket, BothKindsDrawOnTheSameTokens) {
  PeerBucket bucket(kStart);
  EXPECT_EQ(CountOf(20, [&] { return bucket.AllowUnreachable(kStart, {}); }), 5);
  EXPECT_FALSE(bucket.AllowError(kStart, Seconds(1)));
  EXPECT_TRUE(bucket.AllowError(kStart + Seconds(1), Seconds(1)));
  EXPECT_FALSE(bucket.AllowUnreachable(kStart + Seconds(1), {}));
}

TEST(PeerBucket, RedirectsBackOffAndStop) {
  PeerBucket bucket(kStart);
  const RedirectLimit limit;
  // Sent at once, then more than load << n after the one before, nine in all.
  Nanos now = kStart;
  EXPECT_TRUE(bucket.AllowRedirect(now, limit));
  for (int sent = 1; sent < 9; ++sent) {
    const Nanos wait = limit.load * (1 << sent);
    EXPECT_FALSE(bucket.AllowRedirect(now + wait, limit)) << sent;
    now += wait + Nanos(1);
    EXPECT_TRUE(bucket.AllowRedirect(now, limit)) << sent;
  }
  for (int i = 0; i < 5; ++i) {
    now += limit.silence;  // not more than the silence: the host goes on ignoring us
    EXPECT_FALSE(bucket.AllowRedirect(now, limit));
  }
  EXPECT_TRUE(bucket.AllowRedirect(now + limit.silence + Nanos(1), limit));
}

TEST(Icmpv6Interval, WiderPrefixesGetMore) {
  EXPECT_EQ(Icmpv6Interval(Seconds(1), 128), Seconds(1));
  EXPECT_EQ(Icmpv6Interval(Seconds(1), 97), Seconds(1));
  EXPECT_EQ(Icmpv6Interval(Seconds(1), 96), Millis(500));
  EXPECT_EQ(Icmpv6Interval(Seconds(1), 64), Millis(250));
  EXPECT_EQ(Icmpv6Interval(Seconds(1), 0), Nanos(62'500'000));
}

int Send(GlobalBucket& bucket, Rng& rng, Nanos now, uint32_t rate, uint32_t burst, int tries) {
  return CountOf(tries, [&] {
    if (!bucket.Allow(now, rate, burst)) return false;
    bucket.Consume(rng);
    return true;
  });
}

TEST(GlobalBucket, BurstThenRate) {
  Rng rng(1);
  GlobalBucket bucket(kStart);
  // A message costs one on average, so that 50 credits allow about 50.
  const int burst = Send(bucket, rng, kStart, 1000, 50, 1000);
  EXPECT_GT(burst, 30);
  EXPECT_LT(burst, 75);
  EXPECT_EQ(Send(bucket, rng, kStart + Millis(19), 1000, 50, 100), 0) << "refilled every 20 ms";
  int sent = 0;
  for (int ms = 20; ms <= 10'000; ++ms) {
    sent += Send(bucket, rng, kStart + Millis(ms), 1000, 50, 10);
  }
  EXPECT_NEAR(sent, 10'000, 700);
  const int again = Send(bucket, rng, kStart + Seconds(3600), 1000, 50, 1000);
  EXPECT_LT(again, 75) << "never more than the burst";
}

TEST(GlobalBucket, AllowSpendsNothing) {
  GlobalBucket bucket(kStart);
  for (int i = 0; i < 1000; ++i) EXPECT_TRUE(bucket.Allow(kStart, 1000, 50));
  EXPECT_EQ(bucket.credit(), 50);
}

TEST(GlobalBucket, RateZeroAllowsNothing) {
  GlobalBucket bucket(kStart);
  EXPECT_FALSE(bucket.Allow(kStart + Seconds(5), 0, 50));
}

TEST(RateLimitTable, KeepsABucketPerAddress) {
  RateLimitTable table(16, 7);
  const IpAddress a(Ipv4(10, 0, 0, 1));
  const IpAddress b(Ipv6(0, 0x0a000001));  // the same bits, the other family
  EXPECT_EQ(CountOf(20, [&] { return table.Get(a, kStart).AllowError(kStart, Seconds(1)); }), 6);
  EXPECT_EQ(CountOf(20, [&] { return table.Get(b, kStart).AllowError(kStart, Seconds(1)); }), 6);
  EXPECT_FALSE(table.Get(a, kStart).AllowError(kStart, Seconds(1)));
  EXPECT_EQ(table.size(), 2u);
  EXPECT_EQ(table.evictions(), 0u);
}

TEST(RateLimitTable, TheLeastRecentlyUsedMakesRoom) {
  RateLimitTable table(2, 7);
  const auto use = [&](uint32_t n) {
    return table.Get(IpAddress(Ipv4(n)), kStart).AllowUnreachable(kStart, {.cost = Seconds(5)});
  };
  EXPECT_TRUE(use(1));
  EXPECT_TRUE(use(2));
  EXPECT_FALSE(use(1));
  EXPECT_TRUE(use(3));  // 2 goes
  EXPECT_FALSE(use(1));
  EXPECT_TRUE(use(2)) << "afresh; 3 goes";
  EXPECT_TRUE(use(3));
  EXPECT_EQ(table.size(), 2u);
  EXPECT_EQ(table.capacity(), 2u);
  EXPECT_EQ(table.evictions(), 3u);
}

// Against a list in order of use.
TEST(RateLimitTable, AgreesWithAListOfAddresses) {
  for (uint64_t seed = 1; seed <= 5; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    constexpr size_t kCapacity = 13;
    RateLimitTable table(kCapacity, seed);
    std::list<uint32_t> used;
    uint64_t evictions = 0;
    for (int step = 0; step < 5000; ++step) {
      const uint32_t n = static_cast<uint32_t>(rng.Below(30));
      const auto known = std::find(used.begin(), used.end(), n);
      const bool fresh = known == used.end();
      if (!fresh) used.erase(known);
      used.push_front(n);
      if (used.size() > kCapacity) {
        used.pop_back();
        ++evictions;
      }
      // A fresh bucket holds one token of this size; it is taken at once and never comes back.
      const bool allowed =
          table.Get(IpAddress(Ipv4(n)), kStart).AllowUnreachable(kStart, {.cost = Seconds(5)});
      ASSERT_EQ(allowed, fresh) << "step " << step;
    }
    EXPECT_EQ(table.evictions(), evictions);
  }
}

}  // namespace
}  // namespace sluice::tables
