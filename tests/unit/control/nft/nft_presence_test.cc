#include "control/nft/nft_presence.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace sluice::control::nft {
namespace {

using testing::ElementsAre;

Ruleset OneChain(TableFamily family, uint32_t hook, uint32_t policy, size_t rules) {
  Chain chain;
  chain.name = "c";
  chain.base = BaseChain{.type = "filter", .hook = hook, .policy = policy};
  chain.rules.resize(rules);
  Table table;
  table.family = family;
  table.name = "t";
  table.chains.push_back(chain);
  table.chains.push_back(Chain{.name = "other", .rules = std::vector<Rule>(5)});
  Ruleset ruleset;
  ruleset.tables.push_back(table);
  return ruleset;
}

TEST(NftPresence, HooksAndFamilies) {
  struct Case {
    TableFamily family;
    uint32_t hook;
    bool forward4, forward6, input4, input6;
  };
  const Case cases[] = {
      {TableFamily::kIp, 0, false, false, true, false},       // prerouting
      {TableFamily::kIp6, 2, false, false, false, false},     // forward: Sluice's own
      {TableFamily::kInet, 1, false, false, true, true},      // input
      {TableFamily::kInet, 4, false, false, false, false},    // postrouting: Sluice's own
      {TableFamily::kInet, 3, false, false, false, false},    // output
      {TableFamily::kInet, 5, false, false, true, true},      // ingress
      {TableFamily::kNetdev, 0, false, false, true, true},    // ingress
      {TableFamily::kNetdev, 1, true, true, false, false},    // egress
      {TableFamily::kBridge, 2, false, false, false, false},  // forward
      {TableFamily::kArp, 0, false, false, false, false},     // input
  };
  for (const Case& c : cases) {
    const std::string what = std::string(FamilyName(c.family)) + " " + std::to_string(c.hook);
    for (const bool by_policy : {false, true}) {
      const FirewallPresence p =
          JudgeRuleset(OneChain(c.family, c.hook, by_policy ? 0 : 1, by_policy ? 0 : 1));
      EXPECT_EQ(p.forward4, c.forward4) << what;
      EXPECT_EQ(p.forward6, c.forward6) << what;
      EXPECT_EQ(p.input4, c.input4) << what;
      EXPECT_EQ(p.input6, c.input6) << what;
      EXPECT_EQ(p.reasons.empty(), !(p.forward4 || p.forward6)) << what;
    }
    EXPECT_EQ(JudgeRuleset(OneChain(c.family, c.hook, 1, 0)), FirewallPresence{}) << what;
    Ruleset dormant = OneChain(c.family, c.hook, 0, 3);
    dormant.tables[0].dormant = true;
    EXPECT_EQ(JudgeRuleset(dormant), FirewallPresence{}) << what;
  }
}

TEST(NftPresence, TheReasonNamesTheChain) {
  EXPECT_THAT(JudgeRuleset(OneChain(TableFamily::kNetdev, 1, 0, 2)).reasons,
              ElementsAre("nft table netdev t, chain c: Sluice has no egress hook"));
}

}  // namespace
}  // namespace sluice::control::nft
