// `sluice show WHAT` and `sluice wait-ready`: asks the running sluice and prints.
//
// Thread: main.
#ifndef SLUICE_APP_SHOW_H_
#define SLUICE_APP_SHOW_H_

#include <cstdint>
#include <iosfwd>
#include <optional>
#include <string>

#include "absl/status/status.h"

namespace sluice::app {

struct ShowOptions {
  std::string control_path;
  std::string what;
  bool json = false;
  bool all = false;                        // drops: also those at 0
  std::optional<std::string> destination;  // routes
  std::optional<uint64_t> limit;           // those with a default (LimitHelp)
  std::string filter;                      // flows (flow_filter.h)
  std::optional<std::string> sort;         // flows: bytes, packets, timeout
  bool conntrack = false;                  // flows: lines as conntrack -L has them
};

// For the help: "status, interfaces, ... or services", and what --limit is about.
std::string WhatHelp();
std::string LimitHelp();

// Prints what went wrong; the exit code that goes with it.
int Fail(std::ostream& err, const absl::Status& status);

// These return exit codes (run.h).
int Show(const ShowOptions& options, std::ostream& out, std::ostream& err);

// Until it is ready or `timeout_seconds` have passed; a sluice that has yet to start is waited for.
// 1: it runs but is not ready; 3: it does not run.
int WaitReady(const std::string& control_path, double timeout_seconds, std::ostream& err);

}  // namespace sluice::app

#endif  // SLUICE_APP_SHOW_H_
