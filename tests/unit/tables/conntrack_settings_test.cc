#include "tables/conntrack_settings.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace sluice::tables {
namespace {

TEST(ConntrackSettings, EveryTimeoutHasAName) {
  ConntrackSettings settings;
  std::set<std::string_view> names;
  std::set<const Nanos*> places;
  ForEachTimeout(settings, [&](std::string_view name, Nanos& timeout) {
    EXPECT_TRUE(names.insert(name).second) << name;
    EXPECT_TRUE(places.insert(&timeout).second) << name;
    EXPECT_GT(timeout, Nanos()) << name;
  });
  EXPECT_EQ(names.size(), 25u);
}

}  // namespace
}  // namespace sluice::tables
