#include "app/show.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <chrono>
#include <ostream>
#include <string_view>
#include <thread>

#include "app/client.h"
#include "app/run.h"
#include "base/address.h"
#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::app {
namespace {

using telemetry::FromJson;
using telemetry::ToTable;

template <class View>
absl::StatusOr<std::string> Table(const std::string& json, const ShowOptions&) {
  const auto view = FromJson<View>(json);
  if (!view.ok()) return view.status();
  return ToTable(*view);
}

absl::StatusOr<std::string> DropTable(const std::string& json, const ShowOptions& options) {
  const auto view = FromJson<std::vector<telemetry::DropView>>(json);
  if (!view.ok()) return view.status();
  return ToTable(*view, options.all);
}

absl::StatusOr<std::string> FlowTable(const std::string& json, const ShowOptions& options) {
  const auto view = FromJson<telemetry::FlowsView>(json);
  if (!view.ok()) return view.status();
  return options.conntrack ? ToConntrackLines(*view) : ToTable(*view);
}

struct What {
  std::string_view name;
  absl::StatusOr<std::string> (*table)(const std::string& json, const ShowOptions& options);
  uint64_t limit = 0;  // what the running sluice takes without --limit; 0: it shows everything
};
constexpr What kWhats[] = {
    {"status", Table<telemetry::StatusView>},
    {"interfaces", Table<std::vector<telemetry::InterfaceView>>},
    {"routes", Table<telemetry::RoutesView>, telemetry::kRouteLimit},
    {"neighbors", Table<std::vector<telemetry::NeighborView>>},
    {"workers", Table<std::vector<telemetry::WorkerView>>},
    {"drops", DropTable},
    {"rules", Table<telemetry::RulesView>},
    {"flows", FlowTable, telemetry::kFlowLimit},
    {"nat", Table<telemetry::NatView>, telemetry::kNatLimit},
    {"sockets", Table<telemetry::SocketsView>, telemetry::kSocketLimit},
    {"services", Table<std::vector<telemetry::ServiceView>>},
};

int BadUsage(std::ostream& err, const std::string& message) {
  err << "sluice: " << message << "\n";
  return kExitUsage;
}

int UnknownWhat(std::ostream& err, const std::string& what) {
  std::string known;
  for (const What& w : kWhats) known += " " + std::string(w.name);
  return BadUsage(err, "show: unknown \"" + what + "\"; there are:" + known);
}

std::string LimitedWhats() {
  std::string names;
  for (const What& w : kWhats) {
    if (w.limit != 0) names += (names.empty() ? "" : ", ") + std::string(w.name);
  }
  return names;
}

// %-escapes what a query may not hold.
std::string Escaped(const std::string& text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '.' || c == '-' || c == '_') {
      out += c;
    } else {
      out += {'%', kDigits[byte >> 4], kDigits[byte & 0xf]};
    }
  }
  return out;
}

// The options that belong to some views only.
std::string MisplacedOption(const ShowOptions& options, const What& view) {
  const std::string_view what = view.name;
  if (options.destination && what != "routes") return "--destination belongs to: show routes";
  if (options.limit && view.limit == 0) return "--limit belongs to: show " + LimitedWhats();
  if (options.all && what != "drops") return "--all belongs to: show drops";
  if (options.sort && what != "flows") return "--sort belongs to: show flows";
  if (options.conntrack && what != "flows") return "--conntrack belongs to: show flows";
  if (!options.filter.empty() && what != "flows") {
    return "\"" + options.filter + "\": only show flows takes a filter";
  }
  if (options.conntrack && options.json) return "--conntrack and --json do not go together";
  return {};
}

// The path and query of the control API; or what is wrong with an option.
absl::StatusOr<std::string> PathOf(const ShowOptions& options) {
  std::string path = "/v1/" + options.what;
  char separator = '?';
  const auto add = [&](const std::string& key, const std::string& value) {
    path += separator + key + "=" + Escaped(value);
    separator = '&';
  };
  if (options.destination) {
    const auto address = ParseIpAddress(*options.destination);
    if (!address) {
      return absl::InvalidArgumentError("--destination: \"" + *options.destination +
                                        "\" is not an address");
    }
    add("destination", ToString(*address));
  }
  if (!options.filter.empty()) add("filter", options.filter);
  if (options.sort) add("sort", *options.sort);
  if (options.limit) add("limit", std::to_string(*options.limit));
  return path;
}

}  // namespace

std::string WhatHelp() {
  std::string text;
  for (const What& w : kWhats) {
    if (&w != std::begin(kWhats)) text += &w == std::end(kWhats) - 1 ? " or " : ", ";
    text += w.name;
  }
  return text;
}

std::string LimitHelp() {
  std::string limits;
  for (const What& w : kWhats) {
    if (w.limit != 0) limits += (limits.empty() ? "" : ", ") + std::to_string(w.limit);
  }
  return LimitedWhats() + ": at most N (" + limits + ")";
}

int Fail(std::ostream& err, const absl::Status& status) {
  err << "sluice: " << std::string(status.message()) << "\n";
  switch (status.code()) {
    case absl::StatusCode::kUnavailable:
      return kExitNotRunning;
    case absl::StatusCode::kInvalidArgument:
      return kExitUsage;
    default:
      return kExitFailed;
  }
}

int Show(const ShowOptions& options, std::ostream& out, std::ostream& err) {
  const auto* what = std::find_if(std::begin(kWhats), std::end(kWhats),
                                  [&](const What& w) { return w.name == options.what; });
  if (what == std::end(kWhats)) return UnknownWhat(err, options.what);
  if (const std::string problem = MisplacedOption(options, *what); !problem.empty()) {
    return BadUsage(err, problem);
  }
  const auto path = PathOf(options);
  if (!path.ok()) return Fail(err, path.status());

  const auto json = ControlGet(options.control_path, *path);
  if (!json.ok()) return Fail(err, json.status());
  if (options.json) {
    out << telemetry::PrettyJson(*json);
    return kExitOk;
  }
  const auto table = what->table(*json, options);
  if (!table.ok()) return Fail(err, absl::InternalError(table.status().message()));
  out << *table;
  return kExitOk;
}

int WaitReady(const std::string& control_path, double timeout_seconds, std::ostream& err) {
  using Clock = std::chrono::steady_clock;
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(
                                           std::chrono::duration<double>(timeout_seconds));
  for (;;) {
    absl::Status problem;
    const auto json = ControlGet(control_path, "/v1/ready");
    if (json.ok()) {
      const auto ready = FromJson<telemetry::ReadyView>(*json);
      if (!ready.ok()) return Fail(err, absl::InternalError(ready.status().message()));
      if (ready->ready) return kExitOk;
      problem = absl::DeadlineExceededError(
          "not ready" + (ready->reason.empty() ? std::string() : ": " + ready->reason));
    } else {
      problem = json.status();
      const bool may_change = absl::IsUnavailable(problem) || absl::IsDeadlineExceeded(problem) ||
                              absl::IsInternal(problem);
      if (!may_change) return Fail(err, problem);
    }
    if (Clock::now() >= deadline) return Fail(err, problem);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

}  // namespace sluice::app
