#include "control/nft/nft_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"
#include "control/nft/nft_context.h"

namespace sluice::control::nft {
namespace {

enum class Mode { kCheck, kLoad };

absl::Status Run(const std::string& path, Mode mode) {
  if (absl::Status readable = CheckNftFileReadable(path); !readable.ok()) return readable;
  const NftContext context = MakeNftContext();
  if (context == nullptr) return absl::ResourceExhaustedError("no memory for libnftables");
  nft_ctx_set_dry_run(context.get(), mode == Mode::kCheck);
  const size_t slash = path.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path.substr(0, slash + 1);
  if (nft_ctx_add_include_path(context.get(), directory.c_str()) != 0) {
    return absl::ResourceExhaustedError("no memory for libnftables");
  }
  if (nft_run_cmd_from_filename(context.get(), path.c_str()) == 0) return absl::OkStatus();
  std::string error = NftError(context.get());
  // nft names the file in most of its messages, but not when it cannot talk to the kernel.
  if (error.find(path) == std::string::npos) error = absl::StrCat(path, ": ", error);
  return absl::FailedPreconditionError(absl::StrCat("nftables rules refused: ", error));
}

}  // namespace

absl::Status CheckNftFileReadable(const std::string& path) {
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot read ", path));
  struct stat status {};
  const bool is_file = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  close(fd);
  return is_file ? absl::OkStatus()
                 : absl::InvalidArgumentError(absl::StrCat("cannot read ", path, ": not a file"));
}

absl::Status CheckNftFile(const std::string& path) { return Run(path, Mode::kCheck); }
absl::Status LoadNftFile(const std::string& path) { return Run(path, Mode::kLoad); }

}  // namespace sluice::control::nft
