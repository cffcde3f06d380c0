#include "app/check.h"

#include <ostream>
#include <vector>

#include "absl/strings/string_view.h"
#include "app/run.h"
#include "app/startup_checks.h"
#include "app/trial_namespace.h"
#include "app/unsupported_rules.h"
#include "control/config.h"
#include "control/nft/nft_file.h"

namespace sluice::app {
namespace {

int Refuse(std::ostream& err, absl::string_view why) {
  err << "sluice: " << why << "\n";
  return kExitUsage;
}

// nft and the kernel are asked whether they would take the rules, which only root may; then it is
// seen which of them Sluice cannot carry out. `notes` is what is to be said after "valid".
int CheckRules(const control::Config& config, std::string& notes, std::ostream& err) {
  const std::string& file = config.linux_setup.nftables;
  if (file.empty()) return kExitOk;
  if (!CheckPrivileges().ok()) {
    const absl::Status readable = control::nft::CheckNftFileReadable(file);
    if (!readable.ok()) return Refuse(err, readable.message());
    notes = file + ": can be read; whether nft takes it is checked as root only\n";
    return kExitOk;
  }
  const absl::Status taken = control::nft::CheckNftFile(file);
  if (!taken.ok()) return Refuse(err, taken.message());
  const auto unsupported = UnsupportedRulesOfFile(file);
  if (!unsupported.ok()) {
    notes = file + ": which of its rules Sluice cannot carry out is seen at the start only: " +
            std::string(unsupported.status().message()) + "\n";
    return kExitOk;
  }
  if (!unsupported->empty() && config.unsupported == control::UnsupportedRules::kRefuse) {
    return Refuse(err, RefusalOf(*unsupported));
  }
  for (const std::string& rule : *unsupported) {
    err << "sluice: warning: connections that meet this rule are left to the kernel: " << rule
        << "\n";
  }
  return kExitOk;
}

}  // namespace

int Check(const std::string& path, std::ostream& out, std::ostream& err) {
  const control::ConfigFileResult loaded = control::LoadConfig(path);
  if (!loaded.unreadable.empty()) return Refuse(err, loaded.unreadable);
  for (const control::ConfigError& error : loaded.result.errors) err << ToString(error) << "\n";
  if (!loaded.result.errors.empty()) return kExitUsage;
  std::string notes;
  const int code = CheckRules(*loaded.result.config, notes, err);
  if (code == kExitOk) out << path << ": the configuration is valid\n" << notes;
  return code;
}

}  // namespace sluice::app
