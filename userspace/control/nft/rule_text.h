// Rules as nft writes them, with handles: to name a rule to people, and for `sluice show rules`.
//
// The text is libnftables' own `nft -a -t list ruleset` (the elements of named sets are left out).
// It costs some 10 ms per thousand rules and blocks for as long: on demand only.
//
// Thread: control, in the namespace whose rules are meant.
#ifndef SLUICE_CONTROL_NFT_RULE_TEXT_H_
#define SLUICE_CONTROL_NFT_RULE_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

struct ListingLine {
  enum class Kind : uint8_t {
    kOther,
    kRule,     // `chain` and `handle`; the last line of a rule that has several ("jump { ... }")
    kCounter,  // the line of a named counter's figures; `name`
  };
  // A part of `text`, [begin, end): "packets N bytes M", which may be replaced.
  struct Range {
    size_t begin = 0;
    size_t end = 0;
    bool operator==(const Range&) const = default;
  };

  std::string text;  // without the line's end
  Kind kind = Kind::kOther;
  TableFamily family = TableFamily::kInet;
  std::string table;  // of every line within a table
  std::string chain;
  uint64_t handle = 0;
  size_t rule_lines = 1;  // how many lines, up to this one, the rule takes
  std::string name;
  // Of each counter, in the order of the rule's counter expressions. A rule of several lines has
  // only those of its last one; rules within it are nft's, without a handle, and have none.
  std::vector<Range> counters;
};

// The whole listing of the kernel's ruleset.
absl::StatusOr<std::vector<ListingLine>> ListRuleset();
// What ListRuleset makes of nft's text.
std::vector<ListingLine> ParseListing(std::string_view text);

// The rule's text without indentation and handle; empty when the listing has no such rule.
std::string RuleText(const std::vector<ListingLine>& listing, TableFamily family,
                     std::string_view table, std::string_view chain, uint64_t handle);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_RULE_TEXT_H_
