// Sluice's knowledge put into nft's own listing of the ruleset (`nft -a list ruleset`): where each
// rule runs, and Sluice's counts in place of the kernel's.
//
// nft's text is what administrators know, so it is annotated and not made anew. Rules are found by
// their handles, which nft prints at the end of a line ("# handle 7"), and by the indentation, which
// is nft's: tables at the margin, chains and named objects below by one tab, rules by two.
//
// Thread: any; no state. Cost: linear in the text.
#ifndef SLUICE_TELEMETRY_RULE_LISTING_H_
#define SLUICE_TELEMETRY_RULE_LISTING_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "telemetry/firewall_views.h"

namespace sluice::telemetry {

// A rule, or a named counter (kind "counter", its name in `chain`, no handle needed).
struct RuleId {
  std::string_view family, table, chain;
  uint64_t handle = 0;
};

struct RuleStatus {
  std::string where = "-";  // xdp, worker, kernel, -
  std::string reason;       // kernel: why
  bool counts = false;      // the two below replace what nft printed,
  bool adds = false;        // or come on top: the kernel counts as well
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

struct RuleStatusSource {
  // Of a rule; none: Sluice does not know it (yet), which shows as "-".
  std::function<std::optional<RuleStatus>(const RuleId&)> rule;
  // Of a named counter: `name` in `table`.
  std::function<std::optional<RuleStatus>(std::string_view family, std::string_view table,
                                          std::string_view name)>
      counter;
};

std::vector<RuleLineView> AnnotateListing(std::string_view listing, const RuleStatusSource& source);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_RULE_LISTING_H_
