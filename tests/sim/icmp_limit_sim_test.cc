// The kernel's limits on ICMP errors, to the message, under a clock that can be trusted.
#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

class IcmpLimitSimTest : public SimTest {
 protected:
  IcmpLimitSimTest() : row(net, 1) {
    row.Warm(net);
    net.Run(Seconds(10));
  }
  void SendExpiring(bool v6 = false) { row.a->Send(Numbered(row.from(v6), row.to(v6), 0).Ttl(1)); }
  size_t TakeErrors() {
    const size_t n = IcmpOf(row.a->received).size();
    row.a->received.clear();
    return n;
  }

  Row row;
};

// icmp_ratelimit: six at once, then one a second.
TEST_F(IcmpLimitSimTest, SixAtOnceThenOneASecond) {
  for (int i = 0; i < 20; ++i) SendExpiring();
  net.Run(Millis(1));
  EXPECT_EQ(TakeErrors(), 6u);
  EXPECT_EQ(
      row.first().SumWorkers([](const WorkerCounters& c) { return c.icmp_rate_limited.Read(); }),
      14u);
  for (int i = 1; i <= 100; ++i) net.After(Millis(100) * i, [this] { SendExpiring(); });
  net.Run(Seconds(11));
  EXPECT_EQ(TakeErrors(), 10u);
  EXPECT_EQ(row.first().Dropped(DropReason::kTtlExpired), 120u);
}

// After silence the six are there again, and no more than six.
TEST_F(IcmpLimitSimTest, SilenceSavesUpSix) {
  for (int i = 0; i < 6; ++i) SendExpiring();
  net.Run(Seconds(60));
  EXPECT_EQ(TakeErrors(), 6u);
  for (int i = 0; i < 20; ++i) SendExpiring();
  net.Run(Millis(1));
  EXPECT_EQ(TakeErrors(), 6u);
}

// ip_error: routes that refuse cost a second each as well, five saved up, in the same bucket.
TEST_F(IcmpLimitSimTest, RefusingRoutesCostTwice) {
  row.first().AddRoute("172.16.0.0/12", tables::RouteType::kUnreachable);
  for (int i = 0; i < 20; ++i) row.a->Send(Numbered(row.a4, "172.16.0.1", 0));
  net.Run(Millis(1));
  const size_t burst = TakeErrors();
  EXPECT_GE(burst, 2u);
  EXPECT_LE(burst, 5u);
}

// Towards a /64 the interval is a quarter.
TEST_F(IcmpLimitSimTest, Ipv6IsLimitedByTheRouteBack) {
  for (int i = 0; i < 20; ++i) SendExpiring(true);
  net.Run(Millis(1));
  EXPECT_EQ(TakeErrors(), 6u);
  for (int i = 1; i <= 100; ++i) net.After(Millis(100) * i, [this] { SendExpiring(true); });
  net.Run(Seconds(11));
  EXPECT_NEAR(static_cast<double>(TakeErrors()), 40, 8);  // every third attempt at the latest
}

// icmp_msgs_per_sec and icmp_msgs_burst bound all hosts together; each message costs 0 to 2.
TEST_F(IcmpLimitSimTest, AllHostsTogetherAreLimited) {
  row.first().config().icmp.ratelimit4 = Nanos();
  row.first().config().icmp.msgs_per_sec = 100;
  row.first().config().icmp.msgs_burst = 50;
  row.first().Publish();
  // What has been saved up under the old settings goes first.
  for (int i = 0; i < 4000; ++i) net.After(Millis(i), [this] { SendExpiring(); });
  net.Run(Seconds(5));
  TakeErrors();
  net.Run(Seconds(5));
  for (int i = 0; i < 60; ++i) net.After(Micros(10) * i, [this] { SendExpiring(); });
  net.Run(Seconds(1));
  const size_t burst = TakeErrors();
  EXPECT_GE(burst, 25u);
  EXPECT_LE(burst, 60u);
  net.Run(Seconds(5));
  for (int i = 0; i < 5000; ++i) net.After(Millis(2) * i, [this] { SendExpiring(); });
  net.Run(Seconds(11));
  EXPECT_NEAR(static_cast<double>(TakeErrors()), 1000, 150);
}

}  // namespace
}  // namespace sluice::test
