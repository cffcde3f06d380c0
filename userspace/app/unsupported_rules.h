// Rules that Sluice cannot carry out, in words: for the log, `sluice show status` and `sluice check`.
//
// Thread: control, or another one in the namespace that the rules are of. Where there are any, nft is
// asked for their text, which takes some 10 ms per thousand rules of the whole ruleset.
#ifndef SLUICE_APP_UNSUPPORTED_RULES_H_
#define SLUICE_APP_UNSUPPORTED_RULES_H_

#include <string>
#include <vector>

#include "tables/ruleset/ruleset.h"

namespace sluice::app {

// A line for each such rule, sorted: where it is, what of it cannot be carried out, and its text as nft
// prints it, without counts: "nft table inet t, chain c, rule 2 (meta iifgroup): iifgroup 7 drop".
// No text: the rule has gone meanwhile. A long one is cut.
std::vector<std::string> UnsupportedRules(const tables::Ruleset& ruleset);

// Why `unsupported: refuse` does not take the ruleset that these rules are of.
std::string RefusalOf(const std::vector<std::string>& rules);

}  // namespace sluice::app

#endif  // SLUICE_APP_UNSUPPORTED_RULES_H_
