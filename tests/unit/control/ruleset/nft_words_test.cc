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

namespace sluice::test {
namespace {

enum class Who { kSluice, kKernel };
struct Words {
  Who who;
  const char* text;
  const char* rules;
};
constexpr Words kWords[] = {
#define SLUICE_NFT(who, kind, text, rules) {Who::who, text, rules},
#include "unit/control/ruleset/nft_words.inc"
#undef SLUICE_NFT
};

constexpr const char* kObjects = R"(
  set dynamic4 { type ipv4_addr; size 100; flags dynamic, timeout; timeout 1m; }
  set limited4 { type ipv4_addr; size 100; flags dynamic; }
  set counted4 { type ipv4_addr; size 100; flags dynamic; }
  set connections4 { type ipv4_addr; size 100; flags dynamic; }
  map seen { type ipv4_addr : inet_service; size 100; flags dynamic, timeout; }
  set ports { type inet_service; flags interval; elements = { 1-10 }; }
  set blocked4 { type ipv4_addr; flags interval, timeout; counter; elements = { 10.1.0.0/16 timeout 1h }; }
  counter hits { }
  limit slowly { rate 5/second }
  quota volume { over 10 mbytes }
  ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
  ct timeout slowly { protocol tcp; l3proto ip; policy = { established: 100 }; }
  ct expectation data { protocol udp; dport 9876; timeout 2m; size 12; l3proto ip; }
  chain other { }
)";
struct Place {
  const char* table;
  const char* hook;
};
const std::map<std::string, Place> kPlaces = {
    {"forward", {"inet", "type filter hook forward priority filter;"}},
    {"prerouting", {"inet", "type filter hook prerouting priority mangle;"}},
    {"raw", {"inet", "type filter hook prerouting priority raw;"}},
    {"dnat", {"inet", "type nat hook prerouting priority dstnat;"}},
    {"snat", {"inet", "type nat hook postrouting priority srcnat;"}},
    {"ip", {"ip", "type filter hook forward priority filter;"}},
    {"ingress", {"netdev", "type filter hook ingress device \"lo\" priority filter;"}},
};

struct Example {
  std::string place = "forward";
  std::string rule;
};
std::vector<Example> Split(const std::string& rules) {
  std::vector<Example> out;
  for (size_t at = 1, end = 0; at < rules.size(); at = end + 1) {
    end = rules.find('\n', at);
    Example e{.rule = rules.substr(at, end - at)};
    const size_t colon = e.rule.find(": ");
    if (colon != std::string::npos && kPlaces.contains(e.rule.substr(0, colon))) {
      e.place = e.rule.substr(0, colon);
      e.rule.erase(0, colon + 2);
    }
    out.push_back(std::move(e));
  }
  return out;
}

// The example's number is its comment.
std::string RulesetOf(const std::vector<Example>& examples) {
  std::string text = "flush ruleset\n";
  for (const auto& [name, place] : kPlaces) {
    text += std::string("table ") + place.table + " t_" + name + " {\n";
    if (std::string(place.table) == "inet") text += kObjects;
    text += std::string("  chain c {\n    ") + place.hook + "\n";
    for (size_t i = 0; i < examples.size(); ++i) {
      if (examples[i].place != name || examples[i].rule.starts_with("lacking ")) continue;
      text += "    " + examples[i].rule + " comment \"" + std::to_string(i) + "\"\n";
    }
    text += "  }\n}\n";
  }
  return text;
}

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
  for (const Words& words : kWords) {
    SCOPED_TRACE(words.text);
    const std::vector<Example> examples = Split(words.rules);
    ASSERT_FALSE(examples.empty());
    NetworkNamespace::Nft(RulesetOf(examples));
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
      EXPECT_EQ(left.contains(number), words.who == Who::kKernel)
          << examples[i].rule << (left.contains(number) ? ": not known is " + left[number] : "");
    }
  }
}

// Every key of meta and ct that the compiler knows is named in the table, and vice versa.
TEST(NftWordsTest, EveryKeyIsNamed) {
  const auto named = [](const std::string& statement, const std::string& key, Who who) {
    for (const Words& words : kWords) {
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
    const Who who = control::MetaLength(key) > 0 ? Who::kSluice : Who::kKernel;
    EXPECT_TRUE(named("meta", name, who)) << "meta " << name;
  }
  for (uint32_t key = 0; !control::CtName(key).starts_with("key "); ++key) {
    const std::string name = control::CtName(key);
    if (others.contains(name)) continue;
    const Who who =
        control::CtLength(key, nft::TableFamily::kIp) > 0 ? Who::kSluice : Who::kKernel;
    EXPECT_TRUE(named("ct", name, who)) << "ct " << name;
  }
}

}  // namespace
}  // namespace sluice::test
