#include "tables/conntrack_settings.h"

#include <gtest/gtest.h>

#include <set>
#include <string_view>

namespace sluice::tables {
namespace {

TEST(ConntrackSettings, OverridesChangeWhatTheyName) {
  ConntrackSettings settings;
  ApplyOverrides({}, settings);
  EXPECT_EQ(settings, ConntrackSettings());
  ApplyOverrides({.tcp_established = Seconds(3600), .udp_stream = Seconds(7), .max = 5}, settings);
  EXPECT_EQ(settings.tcp_timeout(TcpState::kEstablished), Seconds(3600));
  EXPECT_EQ(settings.tcp_timeout(TcpState::kFinWait), Seconds(120));
  EXPECT_EQ(settings.udp_stream, Seconds(7));
  EXPECT_EQ(settings.udp, Seconds(30));
  EXPECT_EQ(settings.max, 5u);
}

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
