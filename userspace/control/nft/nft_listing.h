// The ruleset as `nft -a -t list ruleset` prints it: with handles, without the elements of named sets
// (of which there may be a hundred thousand); with kStateless as `nft -a -t -s` does, so that what was
// counted does not make the text of a rule another one.
//
// Thread: control, in the namespace whose rules are listed. Blocks for some 10 ms per thousand rules.
#ifndef SLUICE_CONTROL_NFT_NFT_LISTING_H_
#define SLUICE_CONTROL_NFT_NFT_LISTING_H_

#include <string>

#include "absl/status/statusor.h"

namespace sluice::control {

enum class NftListing { kWithState, kStateless };

// Empty when there are no rules, or no nf_tables in this kernel.
absl::StatusOr<std::string> ListNftRuleset(NftListing listing = NftListing::kWithState);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NFT_NFT_LISTING_H_
