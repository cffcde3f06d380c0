#include "tables/route_table.h"

#include <gtest/gtest.h>

#include <map>
#include <vector>

#include "base/rng.h"

namespace sluice::tables {
namespace {

Route Via(uint32_t oif, Ipv4 gateway, uint32_t weight = 1) {
  Route route;
  route.paths.push_back(
      {.oif = {oif}, .slot = {1}, .has_gateway = true, .weight = weight, .gateway = gateway});
  return route;
}

class RouteTableTest : public testing::Test {
 protected:
  RouteId Intern(const Route& route) {
    const auto id = table_.Intern(route);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(RouteId::None());
  }
  EpochDomain domain_;
  RouteTable table_{domain_, 4};
};

TEST_F(RouteTableTest, EqualContentIsOneRoute) {
  const RouteId a = Intern(Via(2, Ipv4(10, 0, 0, 1)));
  const RouteId b = Intern(Via(2, Ipv4(10, 0, 0, 1)));
  const RouteId c = Intern(Via(3, Ipv4(10, 0, 0, 1)));
  EXPECT_EQ(a, b);
  EXPECT_NE(a, c);
  EXPECT_TRUE(a.valid());
  EXPECT_EQ(table_.used(), 2u);
  EXPECT_EQ(table_.uses(a), 2u);
  EXPECT_EQ(table_.Get(a).paths[0].gateway, IpAddress(Ipv4(10, 0, 0, 1)));
}

TEST_F(RouteTableTest, EveryFieldCounts) {
  RouteTable table(domain_, 100);
  std::vector<Route> all(10, Via(2, Ipv4(10, 0, 0, 1)));
  all[1].mtu = 1400;
  all[2].mtu_locked = true;
  all[3].has_prefsrc = true;
  all[4].type = RouteType::kLocal;
  all[5].paths[0].onlink = true;
  all[6].paths[0].slot = IfaceSlot::None();
  all[7].paths[0].gateway = Ipv6(0, 0x0a000001);  // the same bits, the other family
  all[8].paths.push_back(all[8].paths[0]);
  all[9].punt_reason = PuntReason::kMulticast;
  std::map<RouteId, size_t> ids;
  for (size_t i = 0; i < all.size(); ++i) {
    const auto id = table.Intern(all[i]);
    ASSERT_TRUE(id.ok());
    EXPECT_TRUE(ids.emplace(*id, i).second) << i << " taken for " << ids[*id];
  }
}

TEST_F(RouteTableTest, TheLastReleaseFreesTheIdOnceWorkersHavePassed) {
  const RouteId a = Intern(Via(2, Ipv4(10, 0, 0, 1)));
  table_.AddUse(a);
  domain_.Online(WorkerId{0});
  table_.Release(a);
  EXPECT_EQ(table_.used(), 1u);
  table_.Release(a);
  EXPECT_EQ(table_.used(), 0u);
  domain_.Reclaim();
  EXPECT_EQ(table_.Get(a).paths[0].oif.value, 2u) << "a worker may still hold the id";
  const RouteId b = Intern(Via(2, Ipv4(10, 0, 0, 1)));
  EXPECT_NE(a, b);
  domain_.Quiescent(WorkerId{0});
  domain_.Reclaim();
  EXPECT_EQ(Intern(Via(9, Ipv4(10, 0, 0, 1))), a) << "used again now";
  domain_.Offline(WorkerId{0});
}

TEST_F(RouteTableTest, TheLimitHolds) {
  for (uint32_t i = 1; i <= 4; ++i) EXPECT_EQ(Intern(Via(i, Ipv4())).value, i);
  EXPECT_EQ(table_.Intern(Via(5, Ipv4())).status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(table_.used(), table_.limit());
  EXPECT_EQ(Intern(Via(4, Ipv4())).value, 4u) << "known content needs no room";
  table_.Release(RouteId{1});
  EXPECT_EQ(Intern(Via(5, Ipv4())).value, 1u);
}

TEST_F(RouteTableTest, ReplaceKeepsTheIdAndItsUses) {
  const RouteId a = Intern(Via(2, Ipv4(10, 0, 0, 1)));
  table_.AddUse(a);
  const Route* before = &table_.Get(a);
  domain_.Online(WorkerId{0});
  ASSERT_TRUE(table_.Replace(a, Via(7, Ipv4(10, 0, 0, 9))).ok());
  EXPECT_EQ(table_.Get(a).paths[0].oif.value, 7u);
  EXPECT_EQ(before->paths[0].oif.value, 2u) << "still there for a worker that reads it";
  EXPECT_EQ(table_.uses(a), 2u);
  EXPECT_EQ(Intern(Via(7, Ipv4(10, 0, 0, 9))), a) << "found by its new content";
  EXPECT_NE(Intern(Via(2, Ipv4(10, 0, 0, 1))), a) << "and not by the old one";
  domain_.Offline(WorkerId{0});
  EXPECT_EQ(domain_.Reclaim(), 1u);
}

TEST_F(RouteTableTest, ReplaceMayMakeTwoAlikeAndEachIsReleasedOnItsOwn) {
  const RouteId a = Intern(Via(1, Ipv4()));
  const RouteId b = Intern(Via(2, Ipv4()));
  ASSERT_TRUE(table_.Replace(b, Via(1, Ipv4())).ok());
  EXPECT_EQ(table_.Get(a), table_.Get(b));
  table_.Release(a);
  EXPECT_EQ(Intern(Via(1, Ipv4())), b);
  table_.Release(b);
  table_.Release(b);
  EXPECT_EQ(table_.used(), 0u);
}

TEST_F(RouteTableTest, RefusesRoutesThatCannotForward) {
  EXPECT_EQ(table_.Intern(Route()).status().code(), absl::StatusCode::kInvalidArgument);
  Route wide = Via(1, Ipv4());
  wide.paths.resize(Route::kMaxPaths + 1);
  EXPECT_EQ(table_.Intern(wide).status().code(), absl::StatusCode::kInvalidArgument);
  const RouteId a = Intern(Via(1, Ipv4()));
  EXPECT_EQ(table_.Replace(a, Route()).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(table_.Get(a).paths.size(), 1u);
  Route blackhole;
  blackhole.type = RouteType::kBlackhole;
  EXPECT_TRUE(table_.Intern(blackhole).ok());
}

TEST_F(RouteTableTest, ForEachSeesWhatIsUsed) {
  const RouteId a = Intern(Via(1, Ipv4()));
  const RouteId b = Intern(Via(2, Ipv4()));
  table_.Release(a);
  std::vector<RouteId> seen;
  table_.ForEach([&](RouteId id, const Route& route) {
    seen.push_back(id);
    EXPECT_EQ(route.paths[0].oif.value, 2u);
  });
  EXPECT_EQ(seen, std::vector<RouteId>{b});
}

TEST_F(RouteTableTest, NoneIsUnreachable) {
  EXPECT_EQ(table_.Get(RouteId::None()).type, RouteType::kUnreachable);
}

Route Multipath(const std::vector<uint32_t>& weights) {
  Route route;
  for (const uint32_t w : weights) {
    route.paths.push_back({.oif = {static_cast<uint32_t>(route.paths.size())},
                           .slot = {},
                           .weight = w,
                           .gateway = {}});
  }
  Rebalance(route);
  return route;
}

TEST(Multipath, BoundsAreTheKernels) {
  // fib_rebalance for weights 1, 2, 1: 2^31 * 1/4 - 1, 2^31 * 3/4 - 1, 2^31 - 1.
  const Route r = Multipath({1, 2, 1});
  EXPECT_EQ(r.paths[0].upper_bound, 0x1fff'ffff);
  EXPECT_EQ(r.paths[1].upper_bound, 0x5fff'ffff);
  EXPECT_EQ(r.paths[2].upper_bound, 0x7fff'ffff);
  // Thirds are rounded to the closest: 2^31 / 3 = 715827882.67, 2^32 / 3 = 1431655765.33.
  const Route thirds = Multipath({1, 1, 1});
  EXPECT_EQ(thirds.paths[0].upper_bound, 715827882);
  EXPECT_EQ(thirds.paths[1].upper_bound, 1431655764);
  EXPECT_EQ(thirds.paths[2].upper_bound, 0x7fff'ffff);
}

TEST(Multipath, BoundariesBelongToTheEarlierPath) {
  const Route r = Multipath({1, 1});
  EXPECT_EQ(SelectPath(r, 0).oif.value, 0u);
  EXPECT_EQ(SelectPath(r, 0x3fff'ffff).oif.value, 0u);
  EXPECT_EQ(SelectPath(r, 0x4000'0000).oif.value, 1u);
  EXPECT_EQ(SelectPath(r, 0x7fff'ffff).oif.value, 1u);
  EXPECT_EQ(SelectPath(r, 0x8000'0000).oif.value, 0u) << "only 31 bits count";
}

TEST(Multipath, SharesFollowTheWeights) {
  const std::vector<uint32_t> weights = {1, 5, 0, 10, 256};
  const Route r = Multipath(weights);
  std::vector<uint64_t> hits(weights.size());
  Rng rng(1);
  constexpr uint64_t kDraws = 1'000'000;
  for (uint64_t i = 0; i < kDraws; ++i) {
    ++hits[SelectPath(r, static_cast<uint32_t>(rng.Next())).oif.value];
  }
  for (size_t i = 0; i < weights.size(); ++i) {
    const double share = static_cast<double>(hits[i]) / kDraws;
    EXPECT_NEAR(share, weights[i] / 272.0, 0.001) << "path " << i;
  }
  EXPECT_EQ(hits[2], 0u) << "a dead path";
}

TEST(Multipath, ManyPathsAndLargeWeights) {
  const Route r = Multipath(std::vector<uint32_t>(Route::kMaxPaths, 65536));
  for (uint32_t i = 0; i < Route::kMaxPaths; ++i) {
    EXPECT_EQ(SelectPath(r, i << 23).oif.value, i);
    EXPECT_EQ(SelectPath(r, (i << 23) + 0x7f'ffff).oif.value, i);
  }
}

TEST(Multipath, AllDeadIsTheFirst) {
  EXPECT_EQ(SelectPath(Multipath({0, 0}), 77).oif.value, 0u);
  EXPECT_EQ(SelectPath(Multipath({0, 3}), 0).oif.value, 1u);
}

TEST(RouteLayout, OnePathRoutesAnswerFromTheFirstLine) {
  Route route = Via(1, Ipv4());
  const auto* start = reinterpret_cast<const char*>(&route);
  const auto* path = reinterpret_cast<const char*>(route.paths.data());
  EXPECT_LE(path + sizeof(Path) - start, 64);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(start) % 64, 0u);
}

}  // namespace
}  // namespace sluice::tables
