// The command line: what each subcommand takes, and what is done for all of them but `run`.
//
// Exit codes: 0 fine, 1 failed, 2 bad usage or configuration, 3 not running.
//
// Thread: main.
#ifndef SLUICE_APP_CLI_H_
#define SLUICE_APP_CLI_H_

#include <functional>
#include <iosfwd>
#include <string>
#include <vector>

#include "app/run.h"

namespace sluice::app {

// `arguments` without the program's name. `run` is called for `sluice run`.
int RunCli(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
           const std::function<int(const RunOptions&)>& run);

}  // namespace sluice::app

#endif  // SLUICE_APP_CLI_H_
