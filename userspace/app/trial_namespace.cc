#include "app/trial_namespace.h"

#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"
#include "app/clock.h"
#include "app/unsupported_rules.h"
#include "control/nft/nft_file.h"
#include "control/nft/nft_mirror.h"
#include "control/ruleset/compiler.h"

namespace sluice::app {
namespace {

absl::StatusOr<std::vector<std::string>> InterfaceNames() {
  struct if_nameindex* const all = if_nameindex();
  if (all == nullptr) return absl::ErrnoToStatus(errno, "the interfaces cannot be listed");
  std::vector<std::string> names;
  for (const struct if_nameindex* at = all; at->if_index != 0; ++at) {
    names.emplace_back(at->if_name);
  }
  if_freenameindex(all);
  return names;
}

// A TAP device that stays until its namespace goes: unregistering them all at once is quicker.
absl::Status MakeInterface(const std::string& name) {
  if (if_nametoindex(name.c_str()) != 0) return absl::OkStatus();  // lo, and what modules bring along
  const int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) return absl::ErrnoToStatus(errno, "/dev/net/tun cannot be opened");
  ifreq request{};
  std::memcpy(request.ifr_name, name.data(), std::min(name.size(), sizeof request.ifr_name - 1));
  request.ifr_flags = IFF_TAP | IFF_NO_PI;
  const bool made = ioctl(fd, TUNSETIFF, &request) == 0 && ioctl(fd, TUNSETPERSIST, 1) == 0;
  const int error = errno;
  close(fd);
  if (made) return absl::OkStatus();
  return absl::ErrnoToStatus(error, absl::StrCat("an interface ", name, " to try them with"));
}

absl::StatusOr<std::vector<std::string>> Try(const std::string& file,
                                             const std::vector<std::string>& interfaces) {
  if (unshare(CLONE_NEWNET) != 0) {
    return absl::ErrnoToStatus(errno, "a network namespace to try them in");
  }
  for (const std::string& name : interfaces) {
    if (absl::Status made = MakeInterface(name); !made.ok()) return made;
  }
  if (absl::Status loaded = control::nft::LoadNftFile(file); !loaded.ok()) return loaded;
  const Nanos now = MonotonicNow();
  const auto mirror = control::nft::NftMirror::Open(now);
  if (!mirror.ok()) return mirror.status();
  control::RulesetCompiler compiler(control::CompilerOptions{});
  return UnsupportedRules(*compiler.Compile((*mirror)->ruleset(), now));
}

}  // namespace

absl::StatusOr<std::vector<std::string>> UnsupportedRulesOfFile(const std::string& file) {
  const auto interfaces = InterfaceNames();
  if (!interfaces.ok()) return interfaces.status();
  absl::StatusOr<std::vector<std::string>> result = absl::InternalError("not tried");
  std::thread([&] { result = Try(file, *interfaces); }).join();
  return result;
}

}  // namespace sluice::app
