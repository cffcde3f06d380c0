#include "stages/icmp/source_address.h"

#include <gtest/gtest.h>

#include "support/router_world.h"

namespace sluice::stages {
namespace {

using test::A4;
using test::A6;
using test::kLan;
using test::kLanIndex;
using test::kWan;
using test::Via;

class SourceAddressTest : public testing::Test {
 protected:
  std::optional<Ipv4> Select4(const char* gateway) {
    return SelectSource4(route, Via(kLan, kLanIndex, gateway), world.snapshot);
  }
  std::optional<Ipv6> Select6(const char* destination, IfaceSlot near = kLan) {
    return SelectSource6(route, A6(destination), near, world.snapshot);
  }
  void Add4(const char* address, bool secondary = false, uint8_t scope = 0) {
    world.lan().addresses4.push_back(
        {.address = A4(address), .prefix_length = 24, .secondary = secondary, .scope = scope});
  }
  void Add6(const char* address, bool tentative = false, bool deprecated = false) {
    world.lan().addresses6.push_back({.address = A6(address),
                                      .prefix_length = 64,
                                      .tentative = tentative,
                                      .deprecated = deprecated});
  }

  test::RouterWorld world;
  tables::Route route;
};

TEST_F(SourceAddressTest, ThePreferredSourceOfTheRouteWins) {
  route.has_prefsrc = true;
  route.prefsrc = A4("10.99.0.1");
  EXPECT_EQ(Select4(nullptr), A4("10.99.0.1"));
  EXPECT_EQ(Select4("10.0.0.9"), A4("10.99.0.1"));
  route.prefsrc = A6("2001:db8:99::1");
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8:99::1"));
}

TEST_F(SourceAddressTest, Ipv4ByGatewayAndByDefault) {
  Add4("10.0.1.1");
  Add4("10.0.2.1", /*secondary=*/true);
  EXPECT_EQ(Select4(nullptr), A4("10.0.0.1"));
  EXPECT_EQ(Select4("10.0.1.9"), A4("10.0.1.1"));
  EXPECT_EQ(Select4("10.0.2.9"), A4("10.0.0.1")) << "secondary addresses are not chosen";
  EXPECT_EQ(Select4("172.16.0.1"), A4("10.0.0.1"));
  EXPECT_EQ(Select4("fe80::9"), A4("10.0.0.1"));
  world.lan().addresses4.clear();
  EXPECT_EQ(Select4(nullptr), std::nullopt);
}

TEST_F(SourceAddressTest, Ipv4Scopes) {
  world.lan().addresses4.clear();
  Add4("10.9.0.1", false, 254);  // host
  EXPECT_EQ(Select4(nullptr), std::nullopt);
  Add4("169.254.0.1", false, kScopeLink);
  EXPECT_EQ(Select4(nullptr), A4("169.254.0.1"));
  EXPECT_EQ(Select4("169.254.0.9"), std::nullopt) << "through a gateway: global scope only";
  Add4("10.0.3.1");
  EXPECT_EQ(Select4("169.254.0.9"), A4("10.0.3.1"));
}

TEST_F(SourceAddressTest, InterfaceAddressNearSomebody) {
  Add4("10.0.1.1");
  EXPECT_EQ(InterfaceAddress4(world.lan(), A4("10.0.1.77"), kScopeLink), A4("10.0.1.1"));
  EXPECT_EQ(InterfaceAddress4(world.lan(), A4("8.8.8.8"), kScopeLink), A4("10.0.0.1"));
  EXPECT_EQ(InterfaceAddress4(world.lan(), {}, kScopeLink), A4("10.0.0.1"));
}

TEST_F(SourceAddressTest, Ipv6ScopeBeforeInterface) {
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8::1"));
  EXPECT_EQ(Select6("2001:db8:9::1", kWan), A6("2001:db8:1::1"));
  world.lan().addresses6.erase(world.lan().addresses6.begin());  // link-local only
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8:1::1"));
  EXPECT_EQ(Select6("fe80::77"), A6("fe80::1"));
  EXPECT_EQ(Select6("fe80::77", kWan), A6("fe80::2")) << "of the link in question";
  world.wan().addresses6.clear();
  EXPECT_EQ(Select6("2001:db8:9::1"), std::nullopt) << "a link-local one would not be answered";
}

TEST_F(SourceAddressTest, Ipv6Preferences) {
  Add6("2001:db8:9::5", /*tentative=*/true);
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8::1"));
  Add6("2001:db8:9::6", false, /*deprecated=*/true);
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8::1")) << "not deprecated before prefix";
  Add6("2001:db8:9::7");
  EXPECT_EQ(Select6("2001:db8:9::1"), A6("2001:db8:9::7")) << "longest common prefix";
  // No more counts than the prefix: the first of the subnet stays.
  Add6("2001:db8:9::1:1");
  EXPECT_EQ(Select6("2001:db8:9::1:2"), A6("2001:db8:9::7"));
  EXPECT_EQ(Select6("2001:db8:9::1", kWan), A6("2001:db8:1::1")) << "near before prefix";
  EXPECT_EQ(Select6("2001:db8:9::7", kWan), A6("2001:db8:9::7")) << "the same address before all";
}

}  // namespace
}  // namespace sluice::stages
