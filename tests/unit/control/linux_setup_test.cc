// Against the kernel, in a network namespace that only the test's thread is in. Needs root.
#include "control/linux_setup.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

namespace sluice::control {
namespace {

using ::testing::HasSubstr;

// Runs `body` in a fresh namespace with the pair a0 (up) and b0 (up), and c0, d0 (down).
void InNamespace(const std::function<void()>& body) {
  std::thread([&] {
    ASSERT_EQ(unshare(CLONE_NEWNET), 0) << "these tests need root";
    ASSERT_EQ(std::system("ip link set lo up && ip link add a0 type veth peer name b0 && "
                          "ip link set a0 up && ip link set b0 up && "
                          "ip link add c0 type veth peer name d0"),
              0);
    body();
  }).join();
}

std::string Output(const std::string& command) {
  FILE* pipe = popen((command + " 2>&1").c_str(), "r");
  if (pipe == nullptr) return "popen failed";
  std::string out;
  char buffer[512];
  while (fgets(buffer, sizeof buffer, pipe) != nullptr) out += buffer;
  EXPECT_EQ(pclose(pipe), 0) << out;
  return out;
}

const LinuxConfig kBoth = {
    {{"a0", Ipv4(10, 0, 0, 1), 24}, {"a0", Ipv6(0x2001'0db8'0000'0000, 1), 64}},
    {{Ipv4(192, 0, 2, 0), 24, Ipv4(10, 0, 0, 2), ""},
     {Ipv4(), 0, Ipv4(10, 0, 0, 3), "a0"},
     {Ipv4(198, 51, 100, 0), 24, std::nullopt, "a0"},
     {Ipv6(0x2001'0db8'0001'0000, 0), 48, Ipv6(0x2001'0db8'0000'0000, 2), "a0"}}};

TEST(LinuxSetupTest, InstallsAndMayBeRepeated) {
  InNamespace([] {
    for (int i = 0; i < 2; ++i) {
      const absl::Status status = InstallLinuxConfig(kBoth);
      ASSERT_TRUE(status.ok()) << status;
      EXPECT_THAT(Output("ip -4 -o addr show dev a0"), HasSubstr("inet 10.0.0.1/24 scope global"));
      EXPECT_THAT(Output("ip -6 -o addr show dev a0"), HasSubstr("inet6 2001:db8::1/64"));
      const std::string routes = Output("ip -4 route");
      EXPECT_THAT(routes, HasSubstr("192.0.2.0/24 via 10.0.0.2 dev a0 proto static"));
      EXPECT_THAT(routes, HasSubstr("default via 10.0.0.3 dev a0 proto static"));
      EXPECT_THAT(routes, HasSubstr("198.51.100.0/24 dev a0 proto static scope link"));
      EXPECT_THAT(Output("ip -6 route"),
                  HasSubstr("2001:db8:1::/48 via 2001:db8::2 dev a0 proto static"));
      EXPECT_EQ(Output("ip -4 route show 192.0.2.0/24 | wc -l"), "1\n");
      EXPECT_EQ(Output("ip -6 route show 2001:db8:1::/48 | wc -l"), "1\n");
    }
  });
}

TEST(LinuxSetupTest, AChangedRouteReplacesTheOldOne) {
  InNamespace([] {
    ASSERT_TRUE(InstallLinuxConfig(kBoth).ok());
    LinuxConfig changed = kBoth;
    changed.routes[0].via = Ipv4(10, 0, 0, 9);
    ASSERT_TRUE(InstallLinuxConfig(changed).ok());
    EXPECT_THAT(Output("ip -4 route show 192.0.2.0/24"), ::testing::StartsWith("192.0.2.0/24 via "
                                                                               "10.0.0.9 "));
  });
}

TEST(LinuxSetupTest, NamesWhatFailedAndWhy) {
  InNamespace([] {
    absl::Status status = InstallLinuxConfig({{{"nope0", Ipv4(10, 0, 0, 1), 24}}, {}});
    EXPECT_TRUE(absl::IsNotFound(status));
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("cannot add address 10.0.0.1/24 on nope0: no interface \"nope0\""));
    status = InstallLinuxConfig({{}, {{Ipv4(), 0, Ipv4(203, 0, 113, 1), ""}}});
    EXPECT_FALSE(status.ok());
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("cannot add route 0.0.0.0/0 via 203.0.113.1: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr("the gateway in one of its networks?"));
    status = InstallLinuxConfig({{}, {{Ipv4(192, 0, 2, 0), 24, std::nullopt, "c0"}}});
    EXPECT_THAT(std::string(status.message()), HasSubstr("is the device up"));
  });
}

}  // namespace
}  // namespace sluice::control
