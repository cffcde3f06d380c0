// What `sluice run` starts.
#ifndef SLUICE_APP_RUN_H_
#define SLUICE_APP_RUN_H_

#include <string>

#include "app/log.h"

namespace sluice::app {

inline constexpr char kDefaultControlPath[] = "/run/sluice/sluice.sock";

// Exit codes of the program (a contract; scripts depend on them).
enum ExitCode : int { kExitOk = 0, kExitFailed = 1, kExitUsage = 2, kExitNotRunning = 3 };

struct RunOptions {
  std::string config_path;
  std::string control_path = kDefaultControlPath;
  LogLevel log_level = LogLevel::kInfo;
};

// Runs in the foreground until SIGTERM or SIGINT; returns the exit code.
int RunDaemon(const RunOptions& options);

}  // namespace sluice::app

#endif  // SLUICE_APP_RUN_H_
