// How `all` and the interface's own setting combine: on files of the test's own, and on the real
// ones of a namespace.
#include "control/mirror/sysctl.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>

#include "absl/strings/str_cat.h"
#include "support/network_namespace.h"

namespace sluice::control {
namespace {

class FakeSysctls : public testing::Test {
 protected:
  FakeSysctls()
      : root_(std::filesystem::path(testing::TempDir()) /
              absl::StrCat("sysctl_test.", getpid(), ".",
                           testing::UnitTest::GetInstance()->current_test_info()->name())) {}
  ~FakeSysctls() override { std::filesystem::remove_all(root_); }

  void Set(const std::string& path, int64_t value) {
    const std::filesystem::path file = root_ / "net" / path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << value << "\n";
  }
  InterfaceSysctls Read() const {
    return SysctlReader(root_.string()).Read({"eth0"}).interfaces.at("eth0");
  }

  const std::filesystem::path root_;
};

TEST_F(FakeSysctls, CombineAsTheKernelDoes) {
  struct Rule {
    const char* key;
    int (*expected)(int all, int own);
    int (*actual)(const InterfaceSysctls&);
  };
  constexpr auto kOr = [](int a, int b) { return static_cast<int>(a != 0 || b != 0); };
  constexpr auto kAnd = [](int a, int b) { return static_cast<int>(a != 0 && b != 0); };
  constexpr auto kMax = [](int a, int b) { return std::max(a, b); };
  constexpr auto kOwn = [](int, int b) { return static_cast<int>(b != 0); };
  using S = InterfaceSysctls;
  const Rule rules[] = {
      {"forwarding", kOwn, [](const S& s) -> int { return s.forwarding4; }},
      {"rp_filter", kMax, [](const S& s) -> int { return s.rp_filter; }},
      {"arp_ignore", kMax, [](const S& s) -> int { return s.arp_ignore; }},
      {"accept_local", kOr, [](const S& s) -> int { return s.accept_local; }},
      {"send_redirects", kOr, [](const S& s) -> int { return s.send_redirects; }},
      {"shared_media", kOr, [](const S& s) -> int { return s.shared_media; }},
      {"secure_redirects", kOr, [](const S& s) -> int { return s.secure_redirects; }},
      {"proxy_arp", kOr, [](const S& s) -> int { return s.proxy_arp; }},
      {"route_localnet", kOr, [](const S& s) -> int { return s.route_localnet; }},
      {"arp_accept", kOr, [](const S& s) -> int { return s.arp_accept; }},
      {"drop_gratuitous_arp", kOr, [](const S& s) -> int { return s.drop_gratuitous_arp; }},
      {"drop_unicast_in_l2_multicast", kOr,
       [](const S& s) -> int { return s.drop_unicast_in_l2_multicast; }},
      {"accept_source_route", kAnd, [](const S& s) -> int { return s.accept_source_route; }},
      {"bc_forwarding", kAnd, [](const S& s) -> int { return s.bc_forwarding; }},
  };
  for (const Rule& rule : rules) {
    for (int all = 0; all < 3; ++all) {
      for (int own = 0; own < 3; ++own) {
        Set(absl::StrCat("ipv4/conf/all/", rule.key), all);
        Set(absl::StrCat("ipv4/conf/eth0/", rule.key), own);
        EXPECT_EQ(rule.actual(Read()), rule.expected(all, own))
            << rule.key << " all=" << all << " eth0=" << own;
      }
    }
  }
}

TEST_F(FakeSysctls, NeighborAndIcmpUnits) {
  Set("ipv4/neigh/eth0/base_reachable_time_ms", 12'000);
  Set("ipv4/neigh/eth0/retrans_time_ms", 250);
  Set("ipv4/neigh/eth0/delay_first_probe_time", 7);
  Set("ipv6/neigh/eth0/mcast_solicit", 9);
  Set("ipv4/icmp_ratelimit", 500);
  Set("ipv4/icmp_ratemask", 1);
  Set("ipv6/icmp/ratelimit", 0);
  Set("ipv6/conf/all/forwarding", 0);
  Set("ipv6/conf/eth0/forwarding", 1);
  InterfaceSysctls s = Read();
  EXPECT_EQ(s.neighbor4.base_reachable_time, Seconds(12));
  EXPECT_EQ(s.neighbor4.retrans_time, Millis(250));
  EXPECT_EQ(s.neighbor4.delay_first_probe_time, Seconds(7));
  EXPECT_EQ(s.neighbor4.ucast_solicit, 3u) << "no such file: the kernel's default";
  EXPECT_EQ(s.neighbor6.mcast_solicit, 9u);
  EXPECT_FALSE(s.forwarding6) << "IPv6 forwards by `all` alone";
  Set("ipv6/conf/eth0/force_forwarding", 1);
  EXPECT_TRUE(Read().forwarding6);
  const Sysctls all = SysctlReader(root_.string()).Read({});
  EXPECT_EQ(all.icmp.ratelimit4, Millis(500));
  EXPECT_EQ(all.icmp.ratemask4, 1u);
  EXPECT_EQ(all.icmp.ratelimit6, Nanos());
  EXPECT_TRUE(all == SysctlReader(root_.string()).Read({}));
  Set("ipv4/ip_default_ttl", 99);
  EXPECT_FALSE(all == SysctlReader(root_.string()).Read({}));
}

TEST_F(FakeSysctls, Defragmentation) {
  Set("ipv4/ipfrag_time", 5);
  Set("ipv4/ipfrag_high_thresh", 0);
  Set("netfilter/nf_conntrack_frag6_timeout", 7);
  const tables::DefragSettings s = SysctlReader(root_.string()).Read({}).defrag;
  EXPECT_EQ(s.timeout4, Seconds(5));
  EXPECT_EQ(s.high_thresh4, 0u);
  EXPECT_EQ(s.timeout6, Seconds(7));
  EXPECT_EQ(s.high_thresh6, 4u << 20) << "no such file: the kernel's default";
}

TEST_F(FakeSysctls, ConnectionTracking) {
  const auto read = [&] { return SysctlReader(root_.string()).Read({}).conntrack; };
  EXPECT_EQ(read(), tables::ConntrackSettings()) << "absent files leave the defaults";
  const auto set = [&](const std::string& name, int64_t value) {
    Set("netfilter/nf_conntrack_" + name, value);
  };
  set("tcp_timeout_syn_sent", 11);
  set("tcp_timeout_close", 18);
  set("tcp_timeout_max_retrans", 19);
  set("tcp_timeout_unacknowledged", 20);
  set("udp_timeout", 21);
  set("udp_timeout_stream", 22);
  set("icmp_timeout", 23);
  set("icmpv6_timeout", 24);
  set("gre_timeout", 25);
  set("gre_timeout_stream", 26);
  set("generic_timeout", 27);
  set("sctp_timeout_established", 28);
  set("checksum", 0);
  set("tcp_loose", 0);
  set("tcp_be_liberal", 1);
  set("tcp_ignore_invalid_rst", 1);
  set("tcp_max_retrans", 5);
  set("max", 1000);
  const tables::ConntrackSettings s = read();
  EXPECT_EQ(s.tcp_timeout(tables::TcpState::kSynSent), Seconds(11));
  EXPECT_EQ(s.tcp_timeout(tables::TcpState::kClose), Seconds(18));
  EXPECT_EQ(s.tcp_timeout(tables::TcpState::kEstablished), Seconds(432'000));
  EXPECT_EQ(s.tcp_max_retrans_timeout, Seconds(19));
  EXPECT_EQ(s.tcp_unacknowledged, Seconds(20));
  EXPECT_EQ(s.udp, Seconds(21));
  EXPECT_EQ(s.udp_stream, Seconds(22));
  EXPECT_EQ(s.icmp, Seconds(23));
  EXPECT_EQ(s.icmpv6, Seconds(24));
  EXPECT_EQ(s.gre, Seconds(25));
  EXPECT_EQ(s.gre_stream, Seconds(26));
  EXPECT_EQ(s.generic, Seconds(27));
  EXPECT_EQ(s.sctp_timeout(tables::SctpState::kEstablished), Seconds(28));
  EXPECT_FALSE(s.checksum);
  EXPECT_FALSE(s.tcp_loose);
  EXPECT_TRUE(s.tcp_be_liberal);
  EXPECT_TRUE(s.tcp_ignore_invalid_rst);
  EXPECT_EQ(s.tcp_max_retrans, 5);
  EXPECT_EQ(s.max, 1000u);
}

TEST_F(FakeSysctls, AnInterfaceWithoutIpv6HasNone) {
  EXPECT_FALSE(Read().ipv6_enabled);
  EXPECT_EQ(Read().mtu6, 0u);
}

// The defaults here are those of this kernel, where it has the file.
TEST(Sysctl, ConnectionTrackingDefaultsAreTheKernels) {
  test::NetworkNamespace outside;
  tables::ConntrackSettings s = SysctlReader().Read({}).conntrack;
  tables::ConntrackSettings expected;
  s.max = expected.max;  // of the machine's memory
  EXPECT_EQ(s.tcp, expected.tcp);
  EXPECT_EQ(s.sctp, expected.sctp);
  EXPECT_EQ(s, expected);
}

TEST(Sysctl, TheNamespaceOfTheThread) {
  test::NetworkNamespace sandbox;
  test::NetworkNamespace::Ip("link add d0 type veth peer name d1\n");
  const SysctlReader reader;
  const Sysctls before = reader.Read({"d0", "d1"});
  EXPECT_FALSE(before.interfaces.at("d0").forwarding4);
  EXPECT_EQ(before.default_ttl, 64);
  EXPECT_EQ(before.interfaces.at("d0").mtu6, 1500u);
  test::NetworkNamespace::Sysctl("net/ipv4/conf/d0/forwarding", "1");
  test::NetworkNamespace::Sysctl("net/ipv4/conf/all/rp_filter", "2");
  test::NetworkNamespace::Sysctl("net/ipv6/conf/all/forwarding", "1");
  test::NetworkNamespace::Sysctl("net/ipv4/ip_default_ttl", "77");
  const Sysctls after = reader.Read({"d0", "d1"});
  EXPECT_TRUE(after.interfaces.at("d0").forwarding4);
  EXPECT_FALSE(after.interfaces.at("d1").forwarding4);
  EXPECT_TRUE(after.interfaces.at("d1").forwarding6);
  EXPECT_EQ(after.interfaces.at("d1").rp_filter, 2);
  EXPECT_EQ(after.default_ttl, 77);
  EXPECT_FALSE(before == after);
}

}  // namespace
}  // namespace sluice::control
