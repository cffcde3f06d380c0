// What must be true before anything is touched: privileges and the kernel's age. Each failure is
// one sentence that says what to do.
#ifndef SLUICE_APP_STARTUP_CHECKS_H_
#define SLUICE_APP_STARTUP_CHECKS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"

namespace sluice::app {

// PermissionDenied names the missing capabilities.
absl::Status CheckPrivileges();
// `effective` as in the CapEff line of /proc/self/status; for tests.
absl::Status CheckCapabilities(uint64_t effective);

// FailedPrecondition for kernels before 6.1. `release` as uname -r prints it.
absl::Status CheckKernel(const std::string& release);
std::string KernelRelease();

}  // namespace sluice::app

#endif  // SLUICE_APP_STARTUP_CHECKS_H_
