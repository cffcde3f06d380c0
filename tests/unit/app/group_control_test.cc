// Which interfaces' groups a service has, for its workers. (What is joined where is seen from outside, by
// tests/e2e/groups_test.py.)
#include "app/group_control.h"

#include <gtest/gtest.h>

#include <array>

namespace sluice::app {
namespace {

TEST(GroupControl, InterfacesHaveTheirPlaces) {
  std::array<ServedInterface, kMaxInterfaces> interfaces;
  interfaces[0].config.name = "lan0";
  interfaces[2].config.name = "lan1";
  interfaces[63].config.name = "wan0";
  tables::ServicesConfig services;
  for (const std::vector<std::string>& names :
       {std::vector<std::string>{}, {"lan1"}, {"wan0", "lan0"}, {"gone"}}) {
    services.services.emplace_back().group_interfaces = names;
  }
  GroupControl::Place(services, interfaces);
  const auto slots = [&](size_t i) { return services.services[i].group_slots; };
  EXPECT_EQ(slots(0), IfaceSet::All()) << "also those that are free now";
  EXPECT_EQ(slots(1).bits, uint64_t{1} << 2);
  EXPECT_EQ(slots(2).bits, uint64_t{1} << 63 | 1);
  EXPECT_EQ(slots(3).bits, 0u);
  for (const uint8_t slot : {uint8_t{0}, uint8_t{2}, uint8_t{63}}) {
    EXPECT_TRUE(slots(0).Has(IfaceSlot{slot}));
    EXPECT_EQ(slots(1).Has(IfaceSlot{slot}), slot == 2);
  }
  EXPECT_FALSE(slots(0).Has(IfaceSlot::None()));
  // Once more, after a reload by which an interface has got another place.
  interfaces[2].config.name.clear();
  interfaces[5].config.name = "lan1";
  GroupControl::Place(services, interfaces);
  EXPECT_EQ(slots(1).bits, uint64_t{1} << 5);
}

TEST(GroupControl, NothingIsJoinedWithoutInterfaces) {
  const std::array<ServedInterface, kMaxInterfaces> interfaces{};
  tables::ServicesConfig services;
  services.services.emplace_back().listen = {{Ipv4(239, 1, 2, 3), 7}};
  GroupControl groups;
  groups.Follow(services, interfaces, {});
  EXPECT_EQ(groups.used(), 0u);
  EXPECT_EQ(groups.not_joined(), 0u);
}

}  // namespace
}  // namespace sluice::app
