#include "services/backend_pool.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "tables/maglev.h"

namespace sluice::services {
namespace {

using tables::Balance;
using tables::ServiceConfig;

ServiceConfig Of(Balance balance, std::vector<uint32_t> weights) {
  ServiceConfig c;
  c.balance = balance;
  std::vector<tables::MaglevBackend> keys;
  for (size_t i = 0; i < weights.size(); ++i) {
    const auto port = static_cast<uint16_t>(1000 + i);
    c.backends.push_back({{Ipv4(10, 0, 0, 1), port}, weights[i]});
    keys.push_back({tables::MixBits(port), weights[i]});
  }
  if (balance == Balance::kMaglev) c.maglev = tables::BuildMaglev(keys);
  return c;
}

class BackendPoolTest : public testing::Test {
 protected:
  void Configure(ServiceConfig config) {
    config_ = std::move(config);
    pool_.Configure(config_, Seconds(1));
  }
  // Its index, or -1.
  int Pick(uint32_t client = 0, BackendMask tried = 0) {
    Backend* const b = pool_.Pick(IpAddress(Ipv4(client)), tried);
    return b == nullptr ? -1 : static_cast<int>(b->index);
  }
  std::vector<int> Picks(int n) {
    std::vector<int> out;
    for (int i = 0; i < n; ++i) out.push_back(Pick());
    return out;
  }

  ServiceCounters counters_;
  BackendPool pool_{counters_, 0};
  ServiceConfig config_;
};

TEST_F(BackendPoolTest, RoundRobinIsEvenlyMixed) {
  Configure(Of(Balance::kRoundRobin, {5, 1, 1}));
  EXPECT_EQ(Picks(14), (std::vector<int>{0, 0, 1, 0, 2, 0, 0, 0, 0, 1, 0, 2, 0, 0}));
}

TEST_F(BackendPoolTest, NobodyThatIsDownOrTried) {
  for (const Balance balance :
       {Balance::kRoundRobin, Balance::kLeastConnections, Balance::kMaglev}) {
    Configure(Of(balance, {1, 1, 1, 1}));
    pool_.current()[1]->up = false;
    std::map<int, int> seen;
    for (uint32_t i = 0; i < 1000; ++i) ++seen[Pick(i, 0b1000)];
    EXPECT_EQ(seen.size(), 2u);
    EXPECT_GT(seen[0], 400);
    EXPECT_GT(seen[2], 400);
    EXPECT_EQ(Pick(0, 0b1101), -1);
    pool_.current()[1]->up = true;
    EXPECT_EQ(Pick(0, 0b1101), 1);
  }
  Configure(Of(Balance::kRoundRobin, {}));
  EXPECT_EQ(Pick(), -1);
}

TEST_F(BackendPoolTest, LeastConnectionsByWeight) {
  Configure(Of(Balance::kLeastConnections, {1, 2, 3}));
  for (int i = 0; i < 60; ++i) pool_.current()[static_cast<size_t>(Pick())]->Began();
  EXPECT_EQ(pool_.current()[0]->connections, 10u);
  EXPECT_EQ(pool_.current()[1]->connections, 20u);
  EXPECT_EQ(pool_.current()[2]->connections, 30u);
  // Whoever has become idle is next.
  for (int i = 0; i < 10; ++i) pool_.current()[0]->Ended();
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(Pick(), 0);
    pool_.current()[0]->Began();
  }
}

// Equals take turns.
TEST_F(BackendPoolTest, LeastConnectionsAmongEquals) {
  Configure(Of(Balance::kLeastConnections, {1, 1, 1}));
  EXPECT_EQ(Picks(6), (std::vector<int>{0, 1, 2, 0, 1, 2}));
}

// When a backend is down only its clients go elsewhere, to all the others, and they come back.
TEST_F(BackendPoolTest, MaglevMovesOnlyWhoMust) {
  constexpr uint32_t kClients = 20'000;
  Configure(Of(Balance::kMaglev, {1, 1, 2, 1}));
  std::vector<int> before;
  for (uint32_t i = 0; i < kClients; ++i) before.push_back(Pick(i));
  std::map<int, int> shares;
  for (const int b : before) ++shares[b];
  for (int b = 0; b < 4; ++b) {
    const int wanted = static_cast<int>(kClients) / 5 * (b == 2 ? 2 : 1);
    EXPECT_NEAR(shares[b], wanted, wanted / 10) << b;
  }
  pool_.current()[0]->up = false;
  std::map<int, int> taken_over;
  for (uint32_t i = 0; i < kClients; ++i) {
    const int now = Pick(i);
    if (before[i] == 0) {
      ++taken_over[now];
    } else {
      ASSERT_EQ(now, before[i]) << i;
    }
  }
  EXPECT_EQ(taken_over.count(0), 0u);
  EXPECT_NEAR(taken_over[1], shares[0] / 4, shares[0] / 20);
  EXPECT_NEAR(taken_over[2], shares[0] / 2, shares[0] / 20);
  EXPECT_NEAR(taken_over[3], shares[0] / 4, shares[0] / 20);
  pool_.current()[0]->up = true;
  for (uint32_t i = 0; i < kClients; ++i) ASSERT_EQ(Pick(i), before[i]);
}

TEST_F(BackendPoolTest, ReconfigurationKeepsWhatStays) {
  Configure(Of(Balance::kRoundRobin, {1, 1, 1}));
  Backend* const second = pool_.current()[1];
  second->Began();
  second->up = false;
  Backend* const third = pool_.current()[2];
  third->Began();
  ServiceConfig fewer = Of(Balance::kRoundRobin, {1, 7});
  Configure(fewer);
  EXPECT_EQ(pool_.current()[1], second);
  EXPECT_EQ(second->config.weight, 7u);
  EXPECT_FALSE(second->up);
  EXPECT_EQ(second->connections, 1u);
  EXPECT_TRUE(third->removed);
  size_t all = 0;
  const auto count = [&] {
    all = 0;
    pool_.ForEach([&](const Backend&) { ++all; });
    return all;
  };
  pool_.Collect();
  EXPECT_EQ(count(), 3u);
  third->Ended();
  pool_.Collect();
  EXPECT_EQ(count(), 2u);
}

}  // namespace
}  // namespace sluice::services
