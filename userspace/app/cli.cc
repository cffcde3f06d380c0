#include "app/cli.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <ostream>
#include <utility>

#include "app/show.h"
#include "app/startup_checks.h"
#include "app/version.h"
#include "control/config.h"
#include "control/nft/nft_file.h"

namespace sluice::app {
namespace {

// nft and the kernel are asked whether they would take the rules, which only root may.
absl::Status CheckRules(const std::string& file) {
  if (file.empty()) return absl::OkStatus();
  return CheckPrivileges().ok() ? control::nft::CheckNftFile(file)
                                : control::nft::CheckNftFileReadable(file);
}

int Check(const std::string& path, std::ostream& out, std::ostream& err) {
  const control::ConfigFileResult loaded = control::LoadConfig(path);
  if (!loaded.unreadable.empty()) {
    err << "sluice: " << loaded.unreadable << "\n";
    return kExitUsage;
  }
  for (const control::ConfigError& error : loaded.result.errors) err << ToString(error) << "\n";
  if (!loaded.result.errors.empty()) return kExitUsage;
  if (const absl::Status rules = CheckRules(loaded.result.config->linux_setup.nftables);
      !rules.ok()) {
    err << "sluice: " << rules.message() << "\n";
    return kExitUsage;
  }
  out << path << ": the configuration is valid\n";
  if (!loaded.result.config->linux_setup.nftables.empty() && !CheckPrivileges().ok()) {
    out << loaded.result.config->linux_setup.nftables
        << ": can be read; whether nft takes it is checked as root only\n";
  }
  return kExitOk;
}

// Everything that the command line can say.
struct Arguments {
  RunOptions run;
  std::string log_level = "info";
  std::string check_path;
  ShowOptions show;
  double timeout_seconds = 30;
};

void Describe(CLI::App& app, Arguments& a) {
  app.set_version_flag("--version", std::string("sluice ") + kVersion);
  app.add_option("--control", a.run.control_path, "Unix socket of the control API")
      ->type_name("PATH")
      ->capture_default_str();
  app.require_subcommand(1);
  app.fallthrough();  // --control may also follow the subcommand

  CLI::App* run = app.add_subcommand("run", "Route packets, in the foreground, until SIGTERM");
  run->add_option("--config", a.run.config_path, "configuration file")
      ->type_name("FILE")
      ->required();
  run->add_option("--log-level", a.log_level, "debug, info, warning, error or off")
      ->type_name("LEVEL")
      ->check(CLI::IsMember({"debug", "info", "warning", "error", "off"}))
      ->capture_default_str();

  CLI::App* check = app.add_subcommand("check", "Validate a configuration, touching nothing");
  check->add_option("--config", a.check_path, "configuration file")->type_name("FILE")->required();

  CLI::App* wait = app.add_subcommand("wait-ready", "Wait until packets are being forwarded");
  wait->add_option("--timeout", a.timeout_seconds, "how long")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();

  CLI::App* show = app.add_subcommand("show", "Show what the running sluice knows");
  show->add_option("what", a.show.what, "status, interfaces, routes, neighbors, workers or drops")
      ->type_name("WHAT")
      ->required();
  show->add_flag("--json", a.show.json, "JSON, for programs");
  show->add_flag("--all", a.show.all, "drops: also reasons that never occurred");
  show->add_option("--destination", a.show.destination, "routes: the one that ADDRESS would take")
      ->type_name("ADDRESS");
  show->add_option("--limit", a.show.limit, "routes: at most N (default 1000)")->type_name("N");
}

int Dispatch(const CLI::App& app, Arguments& a, std::ostream& out, std::ostream& err,
             const std::function<int(const RunOptions&)>& run) {
  if (app.got_subcommand("run")) {
    a.run.log_level = ParseLogLevel(a.log_level).value_or(LogLevel::kInfo);
    return run(a.run);
  }
  if (app.got_subcommand("check")) return Check(a.check_path, out, err);
  if (app.got_subcommand("wait-ready")) {
    return WaitReady(a.run.control_path, a.timeout_seconds, err);
  }
  a.show.control_path = a.run.control_path;
  return Show(a.show, out, err);
}

}  // namespace

int RunCli(std::vector<std::string> arguments, std::ostream& out, std::ostream& err,
           const std::function<int(const RunOptions&)>& run) {
  CLI::App app("Sluice: an XDP router for Linux that Linux configures", "sluice");
  Arguments a;
  Describe(app, a);
  try {
    std::reverse(arguments.begin(), arguments.end());  // as CLI11 wants them
    app.parse(std::move(arguments));
  } catch (const CLI::ParseError& e) {  // also how CLI11 asks for help to be printed
    return app.exit(e, out, err) == 0 ? kExitOk : kExitUsage;
  }
  const int code = Dispatch(app, a, out, err, run);
  out.flush();
  if (!out.good() && code == kExitOk) {
    err << "sluice: cannot write the output\n";
    return kExitFailed;
  }
  return code;
}

}  // namespace sluice::app
