// The ruleset as `nft -a -t list ruleset` prints it: with handles, without the elements of named sets
// (of which there may be a hundred thousand).
//
// Thread: control, in the namespace whose rules are listed. Blocks for some 10 ms per thousand rules.
#ifndef SLUICE_CONTROL_NFT_NFT_LISTING_H_
#define SLUICE_CONTROL_NFT_NFT_LISTING_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice::control {

// Empty when there are no rules, or no nf_tables in this kernel.
absl::StatusOr<std::string> ListNftRuleset();

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NFT_NFT_LISTING_H_
