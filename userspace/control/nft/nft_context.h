// A libnftables context whose output and errors go to memory. Internal to control/nft.
//
// Thread: control. libnftables opens its own netlink sockets in the namespace of the calling
// thread, per command, and blocks until the kernel has answered.
#ifndef SLUICE_CONTROL_NFT_NFT_CONTEXT_H_
#define SLUICE_CONTROL_NFT_NFT_CONTEXT_H_

#include <nftables/libnftables.h>

#include <memory>
#include <string>

namespace sluice::control::nft {

struct FreeNftContext {
  void operator()(nft_ctx* context) const { nft_ctx_free(context); }
};
using NftContext = std::unique_ptr<nft_ctx, FreeNftContext>;

// Null when there is no memory.
inline NftContext MakeNftContext() {
  NftContext context(nft_ctx_new(NFT_CTX_DEFAULT));
  if (context == nullptr || nft_ctx_buffer_output(context.get()) != 0 ||
      nft_ctx_buffer_error(context.get()) != 0) {
    return nullptr;
  }
  return context;
}

// What nft had to complain of: its first line, which names the place; the lines after it quote the
// text.
inline std::string NftError(nft_ctx* context) {
  const std::string all = nft_ctx_get_error_buffer(context);
  const std::string line = all.substr(0, all.find('\n'));
  return line.empty() ? "nft failed without saying why" : line;
}

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_NFT_CONTEXT_H_
