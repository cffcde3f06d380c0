// README.md's table of nftables' words, which is written from nft_words.inc, is what the compiler
// does: every example goes through nft and the kernel. Needs root.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "control/nft/ruleset_reader.h"
#include "control/ruleset/compiler.h"
#include "control/ruleset/keys.h"
#include "support/filter_world.h"
#include "support/network_namespace.h"
#include "unit/control/ruleset/nft_examples.h"

namespace sluice::test {
namespace {

// Whether a compiled rule is one that goes to the kernel, by comment.
std::map<std::string, std::string> LeftToTheKernel(const nft::Ruleset& model) {
  control::RulesetCompiler compiler({});
  const auto ruleset = compiler.Compile(model, Seconds(1));
  std::map<std::string, std::string> out;
  for (const auto& u : ruleset->unsupported()) out[ruleset->rule(u.rule).comment] = u.name;
  return out;
}

TEST(NftWordsTest, EveryExampleIsWhatTheTableSays) {
  const NetworkNamespace inside;
  for (const NftWords& words : kNftWords) {
    SCOPED_TRACE(words.text);
    const std::vector<NftExample> examples = SplitNftExamples(words.rules);
    ASSERT_FALSE(examples.empty());
    NetworkNamespace::Nft(NftRulesetOf(examples));
    auto reader = nft::RulesetReader::Open();
    ASSERT_TRUE(reader.ok()) << reader.status();
    auto model = reader->Read(Seconds(1));
    ASSERT_TRUE(model.ok()) << model.status();
    std::set<std::string> loaded;
    for (const nft::Table& table : model->tables) {
      for (const nft::Chain& chain : table.chains) {
        for (const nft::Rule& rule : chain.rules) loaded.insert(rule.comment);
      }
    }
    auto left = LeftToTheKernel(*model);
    for (size_t i = 0; i < examples.size(); ++i) {
      const std::string number = std::to_string(i);
      if (examples[i].rule.starts_with("lacking ")) {
        RulesetModel one;
        one.Base("c", 2).Rule({nft::UnsupportedExpr{examples[i].rule.substr(8)}});
        const auto result = LeftToTheKernel(one.model);
        if (!result.empty()) left[number] = result.begin()->second;
      } else {
        EXPECT_TRUE(loaded.contains(number)) << examples[i].rule;
      }
      EXPECT_EQ(left.contains(number), words.who == NftWho::kKernel)
          << examples[i].rule << (left.contains(number) ? ": not known is " + left[number] : "");
    }
  }
}

// Every key of meta and ct that the compiler knows is named in the table, and vice versa.
TEST(NftWordsTest, EveryKeyIsNamed) {
  const auto named = [](const std::string& statement, const std::string& key, NftWho who) {
    for (const NftWords& words : kNftWords) {
      const std::string text = words.text;
      if (words.who == who && text.find("`" + statement) != std::string::npos &&
          text.find("`" + key + "`") != std::string::npos) {
        return true;
      }
    }
    return false;
  };
  // Not keys of a match: set only, a bridge's, or put into another word.
  const std::set<std::string> others = {"nftrace", "ibrpvid", "ibrvproto", "broute", "secmark",
                                        "event",   "ip saddr", "ip daddr", "ip6 saddr",
                                        "ip6 daddr"};
  for (uint32_t key = 0; !control::MetaName(key).starts_with("key "); ++key) {
    const std::string name = control::MetaName(key);
    if (others.contains(name)) continue;
    const NftWho who = control::MetaLength(key) > 0 ? NftWho::kSluice : NftWho::kKernel;
    EXPECT_TRUE(named("meta", name, who)) << "meta " << name;
  }
  for (uint32_t key = 0; !control::CtName(key).starts_with("key "); ++key) {
    const std::string name = control::CtName(key);
    if (others.contains(name)) continue;
    const NftWho who =
        control::CtLength(key, nft::TableFamily::kIp) > 0 ? NftWho::kSluice : NftWho::kKernel;
    EXPECT_TRUE(named("ct", name, who)) << "ct " << name;
  }
}

}  // namespace
}  // namespace sluice::test
