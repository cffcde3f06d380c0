// What a file of rules would be to Sluice: it is loaded into a network namespace of its own, where
// nothing depends on it, and compiled. The namespace has interfaces of the same names as the caller's,
// since rules may name them, and goes when the answer is there.
//
// The file is alone there: one that builds on rules which the kernel has already cannot be tried.
//
// Thread: any; makes one of its own and waits for it. Needs CAP_SYS_ADMIN and CAP_NET_ADMIN. Takes some
// milliseconds, and some more for each interface.
#ifndef SLUICE_APP_TRIAL_NAMESPACE_H_
#define SLUICE_APP_TRIAL_NAMESPACE_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::app {

// As unsupported_rules.h has them. An error: why it cannot be said.
absl::StatusOr<std::vector<std::string>> UnsupportedRulesOfFile(const std::string& file);

}  // namespace sluice::app

#endif  // SLUICE_APP_TRIAL_NAMESPACE_H_
