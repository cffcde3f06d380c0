#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <set>
#include <string>
#include <vector>

#include "control/config.h"

namespace sluice::control {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

ConfigResult Parse(const std::string& text) {
  return ParseConfig("interfaces:\n  - name: lan0\n" + text, "f");
}
Config Parsed(const std::string& text) {
  const ConfigResult result = Parse(text);
  for (const ConfigError& e : result.errors) ADD_FAILURE() << ToString(e);
  return result.config.value_or(Config{});
}
std::vector<std::string> Errors(const std::string& text) {
  std::vector<std::string> out;
  for (const ConfigError& e : Parse(text).errors) out.push_back(ToString(e));
  return out;
}

TEST(FirewallConfigTest, Defaults) {
  const Config config = Parsed("");
  EXPECT_EQ(config.unsupported, UnsupportedRules::kKernel);
  EXPECT_EQ(config.early_filter, Choice::kAuto);
  EXPECT_EQ(config.limits.flows, std::nullopt);
  EXPECT_EQ(config.limits.flows_per_source, 0u);
  EXPECT_EQ(config.limits.nat_ports, (PortRange{49'152, 65'535}));
  for (const TimeoutName& timeout : kTimeouts) {
    EXPECT_EQ(config.timeouts.of(timeout.key), std::nullopt);
  }
}

TEST(FirewallConfigTest, ReadsEveryKey) {
  const Config config = Parsed(R"(
unsupported: refuse
early_filter: off
limits: {flows: 500000, flows_per_source: 200, fragments: 64, nat_ports: 20000-29999}
timeouts: {tcp_established: 5d, udp: 45s, udp_stream: 3m, generic: 1h, icmp: 7, tcp_close: kernel}
)");
  EXPECT_EQ(config.unsupported, UnsupportedRules::kRefuse);
  EXPECT_EQ(config.early_filter, Choice::kOff);
  EXPECT_EQ(config.limits.flows, 500'000u);
  EXPECT_EQ(config.limits.flows_per_source, 200u);
  EXPECT_EQ(config.limits.fragments, 64u);
  EXPECT_EQ(config.limits.nat_ports, (PortRange{20'000, 29'999}));
  EXPECT_EQ(config.timeouts.of("tcp_established"), Seconds(432'000));
  EXPECT_EQ(config.timeouts.of("udp"), Seconds(45));
  EXPECT_EQ(config.timeouts.of("udp_stream"), Seconds(180));
  EXPECT_EQ(config.timeouts.of("generic"), Seconds(3'600));
  EXPECT_EQ(config.timeouts.of("icmp"), Seconds(7));
  EXPECT_EQ(config.timeouts.of("tcp_close"), std::nullopt);
  EXPECT_EQ(config.timeouts.of("tcp_syn_sent"), std::nullopt);
}

TEST(FirewallConfigTest, EveryTimeoutHasItsKeyAndTheKernelsSysctl) {
  std::set<std::string_view> keys;
  for (const TimeoutName& timeout : kTimeouts) {
    EXPECT_TRUE(keys.insert(timeout.key).second) << timeout.key;
    const std::string key(timeout.key);
    EXPECT_EQ(Parsed("timeouts: {" + key + ": 90s}").timeouts.of(key), Seconds(90)) << key;
  }
  // Where conntrack is loaded, the names can be checked against it.
  if (access("/proc/sys/net/netfilter/nf_conntrack_max", F_OK) == 0) {
    for (const TimeoutName& timeout : kTimeouts) {
      EXPECT_EQ(access(("/proc/sys/net/" + std::string(timeout.sysctl)).c_str(), F_OK), 0)
          << timeout.sysctl;
    }
  }
}

TEST(FirewallConfigTest, RefusesWhatIsNoTime) {
  for (const char* bad : {"0", "0s", "5w", "s", "''", "-5s", "5 m", "1.5h", "366d", "9999999999d",
                          "99999999999999999999s", "[5]", "forever"}) {
    EXPECT_THAT(Errors("timeouts:\n  udp: " + std::string(bad)),
                ElementsAre(HasSubstr("\"udp\" must be a time such as 30s, 5m, 2h or 5d")))
        << bad;
  }
  EXPECT_EQ(Parsed("timeouts: {udp: 365d}").timeouts.of("udp"), Seconds(365 * 86'400));
  EXPECT_THAT(Errors("timeouts: {tcp_establish: 5d}"),
              ElementsAre("f:3:12: unknown key \"tcp_establish\" in \"timeouts\"; did you mean "
                          "\"tcp_established\"?"));
}

TEST(FirewallConfigTest, RefusesOtherWords) {
  EXPECT_THAT(Errors("unsupported: drop\n"),
              ElementsAre("f:3:14: \"unsupported\" must be one of kernel, refuse, not \"drop\""));
  EXPECT_THAT(Errors("early_filter: maybe\n"), ElementsAre(HasSubstr("auto, on, off")));
}

}  // namespace
}  // namespace sluice::control
