#include "io/af_xdp/kernel_features.h"

#include <sys/utsname.h>

#include <cstdio>

namespace sluice::io::af_xdp {

KernelVersion ParseKernelVersion(const char* release) {
  KernelVersion v;
  if (std::sscanf(release, "%d.%d", &v.major, &v.minor) != 2) return {};
  return v;
}

KernelVersion RunningKernel() {
  utsname name{};
  if (uname(&name) != 0) return {};
  return ParseKernelVersion(name.release);
}

bool ZeroCopyTrusted(const std::string& driver, const KernelVersion& v) {
  struct Entry {
    const char* driver;
    KernelVersion since;
  };
  static constexpr Entry kTrusted[] = {
      {"i40e", {6, 1}}, {"igc", {6, 1}}, {"ixgbe", {6, 1}}, {"mlx5_core", {6, 5}}};
  for (const Entry& entry : kTrusted) {
    if (driver == entry.driver) return v >= entry.since;
  }
  return false;
}

}  // namespace sluice::io::af_xdp
