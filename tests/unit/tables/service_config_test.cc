#include "tables/service_config.h"

#include <gtest/gtest.h>

namespace sluice::tables {
namespace {

ServicesConfig Of(std::initializer_list<const char*> names) {
  ServicesConfig config;
  for (const char* name : names) {
    ServiceConfig s;
    s.name = name;
    s.backends = {{.address = {Ipv4(10, 0, 0, 1), 80}}, {.address = {Ipv4(10, 0, 0, 2), 80}}};
    config.services.push_back(s);
  }
  return config;
}

TEST(ServiceSlotsTest, NamesKeepTheirs) {
  ServiceSlots slots;
  ServicesConfig one = Of({"a", "b"});
  EXPECT_TRUE(slots.Assign(one));
  ServicesConfig two = Of({"c", "b"});
  EXPECT_TRUE(slots.Assign(two));
  EXPECT_EQ(two.services[1].slot, one.services[1].slot);
  EXPECT_EQ(two.services[1].backends[1].slot, one.services[1].backends[1].slot);
  EXPECT_NE(two.services[0].slot, one.services[0].slot);
  EXPECT_NE(two.services[0].backends[0].slot, two.services[0].backends[1].slot);
  EXPECT_EQ(slots.services()[one.services[0].slot].service, "a");
  EXPECT_FALSE(slots.IsCurrent(slots.services()[one.services[0].slot]));
  EXPECT_TRUE(slots.IsCurrent(slots.services()[two.services[0].slot]));
  ServicesConfig three = Of({"a"});
  EXPECT_TRUE(slots.Assign(three));
  EXPECT_EQ(three.services[0].slot, one.services[0].slot);
}

TEST(ServiceSlotsTest, TheLongestUnusedIsGivenAway) {
  ServiceSlots slots;
  for (uint32_t i = 0; i < 10 * ServiceSlots::kServices; ++i) {
    ServicesConfig config = Of({"stays"});
    config.services.push_back(config.services[0]);
    config.services[1].name = "s" + std::to_string(i);
    ASSERT_TRUE(slots.Assign(config));
    EXPECT_EQ(config.services[0].slot, 0u);
    EXPECT_LT(config.services[1].slot, ServiceSlots::kServices);
    EXPECT_LT(config.services[1].backends[1].slot, ServiceSlots::kBackends);
  }
  EXPECT_EQ(slots.services().size(), ServiceSlots::kServices);
}

TEST(ServiceSlotsTest, BackendsBeyondAllSlotsHaveNone) {
  ServicesConfig config;
  for (uint32_t i = 0; i < ServiceSlots::kBackends / 32 + 1; ++i) {
    ServiceConfig s;
    s.name = std::to_string(i);
    for (uint16_t port = 1; port <= 32; ++port) s.backends.push_back({{Ipv4(10, 0, 0, 1), port}});
    config.services.push_back(s);
  }
  ServiceSlots slots;
  EXPECT_FALSE(slots.Assign(config));
  EXPECT_EQ(config.services.back().backends.back().slot, kNoServiceSlot);
}

}  // namespace
}  // namespace sluice::tables
