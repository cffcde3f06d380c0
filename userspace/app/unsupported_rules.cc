#include "app/unsupported_rules.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "app/rule_status.h"
#include "control/nft/nft_listing.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {
namespace {

// An anonymous set may have thousands of elements, which nobody reads in a log.
constexpr size_t kLongestText = 400;

absl::string_view View(std::string_view text) { return {text.data(), text.size()}; }

// What cannot be carried out, by rule.
std::map<uint32_t, std::string> NamesOf(const tables::Ruleset& ruleset) {
  std::map<uint32_t, std::string> names;
  for (const tables::UnsupportedExpression& u : ruleset.unsupported()) {
    std::string& of_rule = names[u.rule];
    absl::StrAppend(&of_rule, of_rule.empty() ? "" : ", ", u.name);
  }
  return names;
}

}  // namespace

std::vector<std::string> UnsupportedRules(const tables::Ruleset& ruleset) {
  const std::map<uint32_t, std::string> names = NamesOf(ruleset);
  if (names.empty()) return {};
  std::map<uint32_t, std::string> texts;
  const auto listing = control::ListNftRuleset(control::NftListing::kStateless);
  for (const telemetry::RuleLineView& line :
       telemetry::AnnotateListing(listing.ok() ? *listing : "", {})) {
    if (line.handle == 0) continue;
    const uint32_t rule =
        ruleset.FindRule(TableFamilyOf(line.family), line.table, line.chain, line.handle);
    if (names.contains(rule)) texts[rule] = BareText(line);
  }
  std::vector<std::string> lines;
  for (const auto& [index, name] : names) {
    const tables::RuleInfo& rule = ruleset.rule(index);
    const tables::ChainInfo& chain = ruleset.chain(rule.chain);
    std::string text = texts[index];
    if (text.size() > kLongestText) text = text.substr(0, kLongestText) + " ...";
    lines.push_back(absl::StrCat("nft table ", View(TableFamilyName(chain.table_family)), " ",
                                 chain.table, ", chain ", chain.name, ", rule ", rule.handle, " (",
                                 name, ")", text.empty() ? "" : ": ", text));
  }
  std::sort(lines.begin(), lines.end());
  return lines;
}

std::string RefusalOf(const std::vector<std::string>& rules) {
  return absl::StrCat("the ruleset is not taken (unsupported: refuse): ",
                      absl::StrJoin(rules, "; "));
}

}  // namespace sluice::app
