#include "control/netfilter/netfilter_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>

#include <memory>
#include <string>

#include "control/netfilter/nft_ruleset.h"
#include "support/network_namespace.h"

namespace sluice::control {
namespace {

using test::NetworkNamespace;
using testing::HasSubstr;

class NetfilterWatchTest : public testing::Test {
 protected:
  void Open() {
    auto watch = NetfilterWatch::Open(now_);
    ASSERT_TRUE(watch.ok()) << watch.status();
    watch_ = *std::move(watch);
  }
  // Lets the notification arrive and the pause pass, on a clock of the test's own.
  bool Run() {
    pollfd polled{watch_->fd(), POLLIN, 0};
    EXPECT_GE(poll(&polled, 1, 5000), 1) << "no notification";
    const absl::StatusOr<bool> first = watch_->Run(now_);
    EXPECT_TRUE(first.ok());
    now_ += Seconds(100);
    EXPECT_LE(watch_->NextDeadline(), now_);
    const absl::StatusOr<bool> second = watch_->Run(now_);
    EXPECT_TRUE(second.ok());
    return *first || *second;
  }

  NetworkNamespace namespace_;
  Nanos now_ = Seconds(1000);
  std::unique_ptr<NetfilterWatch> watch_;
};

TEST_F(NetfilterWatchTest, FollowsTheRuleset) {
  Open();
  EXPECT_EQ(watch_->presence(), FirewallPresence{});

  NetworkNamespace::Nft(
      "table inet filter {\n chain forward {\n"
      "  type filter hook forward priority 0; policy accept;\n }\n}\n");
  EXPECT_FALSE(Run()) << "an empty chain that accepts judges nothing";

  NetworkNamespace::Nft("add rule inet filter forward ip saddr 10.0.0.1 drop\n");
  EXPECT_TRUE(Run());
  EXPECT_TRUE(watch_->presence().forward4);
  EXPECT_TRUE(watch_->presence().forward6);
  EXPECT_FALSE(watch_->presence().input4);
  ASSERT_EQ(watch_->presence().reasons.size(), 1u);
  EXPECT_THAT(watch_->presence().reasons[0], HasSubstr("inet filter, chain forward"));

  NetworkNamespace::Nft("flush ruleset\n");
  EXPECT_TRUE(Run());
  EXPECT_EQ(watch_->presence(), FirewallPresence{});

  NetworkNamespace::Nft(
      "table ip6 t {\n chain in {\n"
      "  type filter hook input priority 0; policy drop;\n }\n}\n");
  EXPECT_TRUE(Run());
  EXPECT_TRUE(watch_->presence().input6);
  EXPECT_FALSE(watch_->presence().input4);
  EXPECT_FALSE(watch_->presence().forward6);
}

TEST_F(NetfilterWatchTest, SeesWhatWasThereBefore) {
  NetworkNamespace::Nft(
      "table ip nat {\n chain post {\n"
      "  type nat hook postrouting priority 100;\n  masquerade\n }\n}\n");
  Open();
  EXPECT_TRUE(watch_->presence().forward4);
  EXPECT_FALSE(watch_->presence().forward6);
  EXPECT_FALSE(watch_->presence().input4);
}

TEST_F(NetfilterWatchTest, IpsecPoliciesAreTheKernels) {
  Open();
  const std::string policy =
      "xfrm policy add src 10.1.0.0/16 dst 10.2.0.0/16 dir fwd "
      "tmpl src 192.0.2.1 dst 192.0.2.2 proto esp mode tunnel\n";
  NetworkNamespace::Ip(policy);
  now_ += Seconds(100);
  const absl::StatusOr<bool> changed = watch_->Run(now_);
  ASSERT_TRUE(changed.ok());
  EXPECT_TRUE(*changed);
  EXPECT_TRUE(watch_->presence().forward4);
  ASSERT_EQ(watch_->presence().reasons.size(), 1u);
  EXPECT_THAT(watch_->presence().reasons[0], HasSubstr("IPsec"));
}

std::string Ruleset(const std::string& family, const std::string& hook, const std::string& policy,
                    int rules) {
  std::string text = R"({"nftables": [{"metainfo": {}}, {"table": {"family": ")" + family +
                     R"(", "name": "t"}}, {"chain": {"family": ")" + family +
                     R"(", "table": "t", "name": "c", "type": "filter", "hook": ")" + hook +
                     R"(", "prio": 0, "policy": ")" + policy + R"("}})";
  for (int i = 0; i < rules; ++i) {
    text += R"(, {"rule": {"family": ")" + family + R"(", "table": "t", "chain": "c"}})";
  }
  return text + "]}";
}

TEST(NftRuleset, HooksAndFamilies) {
  struct Case {
    const char* family;
    const char* hook;
    bool forward4, forward6, input4, input6;
  };
  const Case cases[] = {
      {"ip", "prerouting", true, false, true, false},
      {"ip6", "forward", false, true, false, false},
      {"inet", "input", false, false, true, true},
      {"inet", "postrouting", true, true, false, false},
      {"inet", "output", false, false, false, false},
      {"netdev", "ingress", true, true, true, true},
      {"netdev", "egress", true, true, false, false},
      {"bridge", "forward", false, false, false, false},
      {"arp", "input", false, false, false, false},
  };
  for (const Case& c : cases) {
    for (const bool by_policy : {false, true}) {
      FirewallPresence p;
      ASSERT_TRUE(
          JudgeNftRuleset(
              Ruleset(c.family, c.hook, by_policy ? "drop" : "accept", by_policy ? 0 : 1), p)
              .ok());
      EXPECT_EQ(p.forward4, c.forward4) << c.family << " " << c.hook;
      EXPECT_EQ(p.forward6, c.forward6) << c.family << " " << c.hook;
      EXPECT_EQ(p.input4, c.input4) << c.family << " " << c.hook;
      EXPECT_EQ(p.input6, c.input6) << c.family << " " << c.hook;
      EXPECT_EQ(p.reasons.empty(), !(p.forward4 || p.forward6 || p.input4 || p.input6));
    }
    FirewallPresence empty;
    ASSERT_TRUE(JudgeNftRuleset(Ruleset(c.family, c.hook, "accept", 0), empty).ok());
    EXPECT_EQ(empty, FirewallPresence{});
  }
}

TEST(NftRuleset, NonsenseIsAnError) {
  FirewallPresence p;
  EXPECT_FALSE(JudgeNftRuleset("", p).ok());
  EXPECT_FALSE(JudgeNftRuleset("{\"nftables\": 3}", p).ok());
  EXPECT_FALSE(JudgeNftRuleset("{\"nftables\": [", p).ok());
  EXPECT_TRUE(
      JudgeNftRuleset(R"({"nftables": [3, {}, {"chain": 7}, {"rule": {"chain": 1}}]})", p).ok());
  EXPECT_EQ(p, FirewallPresence{});
}

}  // namespace
}  // namespace sluice::control
