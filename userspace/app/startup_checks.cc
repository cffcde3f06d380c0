#include "app/startup_checks.h"

#include <linux/capability.h>
#include <sys/utsname.h>

#include <cstdio>
#include <fstream>
#include <string>

#include "absl/strings/str_format.h"

namespace sluice::app {
namespace {

constexpr int kOldestMajor = 6;
constexpr int kOldestMinor = 1;

bool Has(uint64_t effective, int capability) { return (effective >> capability & 1) != 0; }

}  // namespace

absl::Status CheckCapabilities(uint64_t effective) {
  const bool all = Has(effective, CAP_SYS_ADMIN);  // stands for CAP_BPF and CAP_PERFMON
  std::string missing;
  const auto need = [&](int capability, const char* name, bool covered) {
    if (covered || Has(effective, capability)) return;
    missing += missing.empty() ? "" : ", ";
    missing += name;
  };
  need(CAP_NET_ADMIN, "CAP_NET_ADMIN", false);
  need(CAP_NET_RAW, "CAP_NET_RAW", false);
  need(CAP_BPF, "CAP_BPF", all);
  need(CAP_PERFMON, "CAP_PERFMON", all);  // the verifier refuses the XDP program without it
  if (missing.empty()) return absl::OkStatus();
  return absl::PermissionDeniedError(absl::StrFormat(
      "not enough privileges: %s missing; run as root or through the systemd unit", missing));
}

absl::Status CheckPrivileges() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    unsigned long long effective = 0;
    if (std::sscanf(line.c_str(), "CapEff: %llx", &effective) == 1) {
      return CheckCapabilities(effective);
    }
  }
  return absl::InternalError("/proc/self/status does not tell the process's capabilities");
}

absl::Status CheckKernel(const std::string& release) {
  int major = 0;
  int minor = 0;
  if (std::sscanf(release.c_str(), "%d.%d", &major, &minor) != 2) {
    return absl::InternalError("cannot read the kernel release '" + release + "'");
  }
  if (major > kOldestMajor || (major == kOldestMajor && minor >= kOldestMinor)) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      absl::StrFormat("kernel %s is too old: Sluice needs %d.%d or newer", release, kOldestMajor,
                      kOldestMinor));
}

std::string KernelRelease() {
  utsname name;
  return uname(&name) == 0 ? name.release : "unknown";
}

}  // namespace sluice::app
