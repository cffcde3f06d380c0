// Loads a file of nft commands into the kernel, as `nft -f FILE` does: one transaction, all of it
// or nothing. `include` in the file is looked for where nft looks, and in the file's own directory.
//
// Thread: control; blocks until the kernel has answered. Needs CAP_NET_ADMIN, the check too.
#ifndef SLUICE_CONTROL_NFT_NFT_FILE_H_
#define SLUICE_CONTROL_NFT_NFT_FILE_H_

#include <string>

#include "absl/status/status.h"

namespace sluice::control::nft {

// Whether the file can be read at all; says why not in one line.
absl::Status CheckNftFileReadable(const std::string& path);
// Whether nft and the kernel accept the file now; nothing is changed. An error is one line with the
// file's name and nft's line and message.
absl::Status CheckNftFile(const std::string& path);
absl::Status LoadNftFile(const std::string& path);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_NFT_FILE_H_
