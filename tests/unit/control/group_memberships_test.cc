// Against the kernel: what it says of an interface's groups (/proc/net/igmp, /proc/net/igmp6).
#include "control/group_memberships.h"

#include <gtest/gtest.h>
#include <net/if.h>

#include <fstream>
#include <sstream>
#include <string>

#include "support/network_namespace.h"

namespace sluice::control {
namespace {

std::string Read(const char* path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}
// Its bytes in the machine's order, as the kernel prints them: 239.1.2.3.
bool IsMember4() { return Read("/proc/net/igmp").find("030201EF") != std::string::npos; }
// On "one": ff05::1:3.
bool IsMember6() {
  std::stringstream lines(Read("/proc/net/igmp6"));
  for (std::string line; std::getline(lines, line);) {
    if (line.find(" one ") != std::string::npos || line.find("\tone") != std::string::npos) {
      if (line.find("ff050000000000000000000000010003") != std::string::npos) return true;
    }
  }
  return false;
}

class GroupMembershipsTest : public ::testing::Test {
 protected:
  GroupMembershipsTest() { test::NetworkNamespace::Ip("link add one type veth peer name other\n"
                                                      "link set one up\nlink set other up\n"); }
  static IfIndex One() { return {if_nametoindex("one")}; }

  const test::NetworkNamespace ns_;
  const IpAddress v4_ = *ParseIpAddress("239.1.2.3");
  const IpAddress v6_ = *ParseIpAddress("ff05::1:3");
};

TEST_F(GroupMembershipsTest, TheKernelJoinsAndLeaves) {
  GroupMemberships groups;
  EXPECT_FALSE(IsMember4());
  EXPECT_FALSE(IsMember6());
  EXPECT_TRUE(groups.Join({v4_, One()}).ok());
  EXPECT_TRUE(groups.Join({v6_, One()}).ok());
  EXPECT_TRUE(groups.Join({v6_, One()}).ok()) << "once more";
  EXPECT_EQ(groups.size(), 2u);
  EXPECT_TRUE(IsMember4());
  EXPECT_TRUE(IsMember6());
  groups.LeaveAllBut({{v6_, One()}});
  EXPECT_FALSE(IsMember4());
  EXPECT_TRUE(IsMember6());
  {
    GroupMemberships ends;
    EXPECT_TRUE(ends.Join({v4_, One()}).ok());
    EXPECT_TRUE(IsMember4());
  }
  EXPECT_FALSE(IsMember4());
}

TEST_F(GroupMembershipsTest, MoreThanTheKernelAllowsOneSocket) {
  test::NetworkNamespace::Sysctl("net/ipv4/igmp_max_memberships", "1");
  GroupMemberships groups;
  for (uint8_t i = 0; i < 64; ++i) EXPECT_TRUE(groups.Join({Ipv4(239, 0, 0, i), One()}).ok());
  EXPECT_EQ(groups.size(), 64u);
}

TEST_F(GroupMembershipsTest, RefusalsAreTold) {
  GroupMemberships groups;
  EXPECT_FALSE(groups.Join({v4_, IfIndex{9999}}).ok());
  EXPECT_FALSE(groups.Join({v6_, IfIndex{9999}}).ok());
  EXPECT_FALSE(groups.Join({Ipv4(10, 0, 0, 1), One()}).ok());
  EXPECT_EQ(groups.size(), 0u);
}

// Which takes its memberships along; the sockets are let go of all the same.
TEST_F(GroupMembershipsTest, AnInterfaceMayGo) {
  GroupMemberships groups;
  EXPECT_TRUE(groups.Join({v4_, One()}).ok());
  test::NetworkNamespace::Ip("link del one\n");
  EXPECT_FALSE(IsMember4());
  groups.LeaveAllBut({});
  EXPECT_EQ(groups.size(), 0u);
}

}  // namespace
}  // namespace sluice::control
