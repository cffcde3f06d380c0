#include "control/reserved_ports.h"

#include <gtest/gtest.h>

#include <fstream>
#include <string>

#include "support/network_namespace.h"

namespace sluice::control {
namespace {

TEST(AddPorts, SortsAndMerges) {
  EXPECT_EQ(AddPorts("", {{49152, 65535}}), "49152-65535");
  EXPECT_EQ(AddPorts("8080", {{49152, 65535}}), "8080,49152-65535");
  EXPECT_EQ(AddPorts("50000-50010,8080", {{49152, 65535}}), "8080,49152-65535");
  EXPECT_EQ(AddPorts("49000-49151", {{49152, 65535}}), "49000-65535");
  EXPECT_EQ(AddPorts("1,2,3", {{5, 5}}), "1-3,5");
}

TEST(AddPorts, RefusesWhatIsNoList) {
  EXPECT_FALSE(AddPorts("x", {{1, 2}}));
  EXPECT_FALSE(AddPorts("5-3", {{1, 2}}));
  EXPECT_FALSE(AddPorts("1,,2", {{1, 2}}));
  EXPECT_FALSE(AddPorts("70000", {{1, 2}}));
}

TEST(RemovePorts, TakesOutTheRangeButForWhatIsKept) {
  EXPECT_EQ(RemovePorts("8080,49152-65535", {{49152, 65535}}, ""), "8080");
  EXPECT_EQ(RemovePorts("1-100", {{10, 20}}, "15,30-40"), "1-9,15,21-100");
  EXPECT_FALSE(RemovePorts("x", {{1, 2}}, ""));
}

std::string Reserved() {
  std::string line;
  std::ifstream file("/proc/sys/net/ipv4/ip_local_reserved_ports");
  std::getline(file, line);
  return line;
}

TEST(ReservedPorts, AddsToTheKernelsAndPutsBack) {
  const test::NetworkNamespace ns;
  std::ofstream("/proc/sys/net/ipv4/ip_local_reserved_ports") << "8080\n";
  {
    ReservedPorts ports;
    ASSERT_TRUE(ports.Reserve({{49152, 65535}}).ok());
    EXPECT_EQ(Reserved(), "8080,49152-65535");
  }
  EXPECT_EQ(Reserved(), "8080");
}

TEST(ReservedPorts, LeavesWhatSomebodyElseHasWritten) {
  const test::NetworkNamespace ns;
  ReservedPorts ports;
  ASSERT_TRUE(ports.Reserve({{49152, 65535}}).ok());
  std::ofstream("/proc/sys/net/ipv4/ip_local_reserved_ports") << "1234\n";
  ports.Release();
  EXPECT_EQ(Reserved(), "1234");
}

// Those that services listen on change with the configuration.
TEST(ReservedPorts, ThoseOfNowInPlaceOfThoseBefore) {
  const test::NetworkNamespace ns;
  std::ofstream("/proc/sys/net/ipv4/ip_local_reserved_ports") << "8080,40001\n";
  ReservedPorts ports;
  ASSERT_TRUE(ports.Reserve({{40'000, 40'000}, {40'002, 40'002}, {80, 80}}).ok());
  EXPECT_EQ(Reserved(), "80,8080,40000-40002");
  ASSERT_TRUE(ports.Reserve({{40'001, 40'001}, {40'003, 40'003}}).ok());
  EXPECT_EQ(Reserved(), "8080,40001,40003");
  ASSERT_TRUE(ports.Reserve({}).ok());
  EXPECT_EQ(Reserved(), "8080,40001");
}

// NAT's and those of sockets come and go without each other.
TEST(ReservedPorts, TwoEndInAnyOrder) {
  const test::NetworkNamespace ns;
  ReservedPorts first;
  ReservedPorts second;
  ASSERT_TRUE(first.Reserve({{49152, 65535}}).ok());
  ASSERT_TRUE(second.Reserve({{16384, 32767}}).ok());
  EXPECT_EQ(Reserved(), "16384-32767,49152-65535");
  first.Release();
  EXPECT_EQ(Reserved(), "16384-32767");
  second.Release();
  EXPECT_EQ(Reserved(), "");
}

}  // namespace
}  // namespace sluice::control
