#include "control/netfilter/nft_ruleset.h"

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <tuple>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

using Json = nlohmann::json;

std::string Text(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>() : std::string();
}

struct Chain {
  std::string hook;
  std::string policy;
  size_t rules = 0;
};

void Judge(const std::string& family, const std::string& table, const std::string& name,
           const Chain& chain, FirewallPresence& presence) {
  const bool both = family == "inet" || family == "netdev";
  const bool v4 = both || family == "ip";
  const bool v6 = both || family == "ip6";
  const bool early = chain.hook == "prerouting" || chain.hook == "ingress";
  const bool forward =
      early || chain.hook == "forward" || chain.hook == "postrouting" || chain.hook == "egress";
  const bool input = early || chain.hook == "input";
  if ((!v4 && !v6) || (!forward && !input)) return;
  const bool accepts = chain.policy.empty() || chain.policy == "accept";
  if (chain.rules == 0 && accepts) return;
  presence.forward4 |= forward && v4;
  presence.forward6 |= forward && v6;
  presence.input4 |= input && v4;
  presence.input6 |= input && v6;
  presence.reasons.push_back(absl::StrCat("nft table ", family, " ", table, ", chain ", name, " (",
                                          chain.hook, "): ", chain.rules,
                                          chain.rules == 1 ? " rule" : " rules",
                                          accepts ? "" : absl::StrCat(", policy ", chain.policy)));
}

}  // namespace

absl::Status JudgeNftRuleset(std::string_view json, FirewallPresence& presence) {
  const Json document = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (!document.is_object() || !document.contains("nftables") || !document["nftables"].is_array()) {
    return absl::InternalError("nft printed something that is not a ruleset in JSON");
  }
  std::map<std::tuple<std::string, std::string, std::string>, Chain> base_chains;
  // Rules come after all chains of their table.
  for (const Json& item : document["nftables"]) {
    if (!item.is_object() || item.empty()) continue;
    const std::string kind = item.begin().key();
    const Json& object = item.begin().value();
    if (!object.is_object()) continue;
    if (kind == "chain" && object.contains("hook")) {
      base_chains[{Text(object, "family"), Text(object, "table"), Text(object, "name")}] =
          Chain{Text(object, "hook"), Text(object, "policy"), 0};
    } else if (kind == "rule") {
      const auto chain =
          base_chains.find({Text(object, "family"), Text(object, "table"), Text(object, "chain")});
      if (chain != base_chains.end()) ++chain->second.rules;
    }
  }
  for (const auto& [key, chain] : base_chains) {
    Judge(std::get<0>(key), std::get<1>(key), std::get<2>(key), chain, presence);
  }
  return absl::OkStatus();
}

}  // namespace sluice::control
