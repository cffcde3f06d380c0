#include "control/nft/nft_listing.h"

#include <nftables/libnftables.h>

#include <memory>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

struct FreeContext {
  void operator()(nft_ctx* context) const { nft_ctx_free(context); }
};

}  // namespace

absl::StatusOr<std::string> ListNftRuleset(NftListing listing) {
  const std::unique_ptr<nft_ctx, FreeContext> nft(nft_ctx_new(NFT_CTX_DEFAULT));
  if (nft == nullptr) return absl::ResourceExhaustedError("no memory for libnftables");
  const unsigned state = listing == NftListing::kStateless ? NFT_CTX_OUTPUT_STATELESS : 0;
  nft_ctx_output_set_flags(nft.get(), NFT_CTX_OUTPUT_HANDLE | NFT_CTX_OUTPUT_TERSE | state);
  nft_ctx_buffer_output(nft.get());
  nft_ctx_buffer_error(nft.get());
  if (nft_run_cmd_from_buffer(nft.get(), "list ruleset") != 0) {
    const std::string error = nft_ctx_get_error_buffer(nft.get());
    if (error.find("not supported") != std::string::npos) return std::string();
    return absl::InternalError(absl::StrCat("the nftables ruleset cannot be read: ", error));
  }
  return std::string(nft_ctx_get_output_buffer(nft.get()));
}

}  // namespace sluice::control
