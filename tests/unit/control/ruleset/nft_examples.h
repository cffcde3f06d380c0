// The examples of nft_words.inc, and a ruleset that has them in the chains that they are meant for.
#ifndef SLUICE_TESTS_UNIT_CONTROL_RULESET_NFT_EXAMPLES_H_
#define SLUICE_TESTS_UNIT_CONTROL_RULESET_NFT_EXAMPLES_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

namespace sluice::test {

enum class NftWho { kSluice, kKernel };
struct NftWords {
  NftWho who;
  const char* text;
  const char* rules;
};
inline constexpr NftWords kNftWords[] = {
#define SLUICE_NFT(who, kind, text, rules) {NftWho::who, text, rules},
#include "unit/control/ruleset/nft_words.inc"
#undef SLUICE_NFT
};

inline constexpr const char* kNftObjects = R"(
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
struct NftPlace {
  const char* table;
  const char* hook;
};
inline const std::map<std::string, NftPlace> kNftPlaces = {
    {"forward", {"inet", "type filter hook forward priority filter;"}},
    {"prerouting", {"inet", "type filter hook prerouting priority mangle;"}},
    {"raw", {"inet", "type filter hook prerouting priority raw;"}},
    {"dnat", {"inet", "type nat hook prerouting priority dstnat;"}},
    {"snat", {"inet", "type nat hook postrouting priority srcnat;"}},
    {"ip", {"ip", "type filter hook forward priority filter;"}},
    {"ingress", {"netdev", "type filter hook ingress device \"lo\" priority filter;"}},
};

struct NftExample {
  std::string place = "forward";
  std::string rule;
};
inline std::vector<NftExample> SplitNftExamples(const std::string& rules) {
  std::vector<NftExample> out;
  for (size_t at = 1, end = 0; at < rules.size(); at = end + 1) {
    end = rules.find('\n', at);
    NftExample e{.rule = rules.substr(at, end - at)};
    const size_t colon = e.rule.find(": ");
    if (colon != std::string::npos && kNftPlaces.contains(e.rule.substr(0, colon))) {
      e.place = e.rule.substr(0, colon);
      e.rule.erase(0, colon + 2);
    }
    out.push_back(std::move(e));
  }
  return out;
}

// The example's number is its comment.
inline std::string NftRulesetOf(const std::vector<NftExample>& examples) {
  std::string text = "flush ruleset\n";
  for (const auto& [name, place] : kNftPlaces) {
    text += std::string("table ") + place.table + " t_" + name + " {\n";
    if (std::string(place.table) == "inet") text += kNftObjects;
    text += std::string("  chain c {\n    ") + place.hook + "\n";
    for (size_t i = 0; i < examples.size(); ++i) {
      if (examples[i].place != name || examples[i].rule.starts_with("lacking ")) continue;
      text += "    " + examples[i].rule + " comment \"" + std::to_string(i) + "\"\n";
    }
    text += "  }\n}\n";
  }
  return text;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_UNIT_CONTROL_RULESET_NFT_EXAMPLES_H_
