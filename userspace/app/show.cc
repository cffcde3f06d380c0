#include "app/show.h"

#include <algorithm>
#include <array>
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

struct What {
  std::string_view name;
  absl::StatusOr<std::string> (*table)(const std::string& json, const ShowOptions& options);
};
constexpr What kWhats[] = {
    {"status", Table<telemetry::StatusView>},
    {"interfaces", Table<std::vector<telemetry::InterfaceView>>},
    {"routes", Table<telemetry::RoutesView>},
    {"neighbors", Table<std::vector<telemetry::NeighborView>>},
    {"workers", Table<std::vector<telemetry::WorkerView>>},
    {"drops", DropTable},
};

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

int BadUsage(std::ostream& err, const std::string& message) {
  err << "sluice: " << message << "\n";
  return kExitUsage;
}

int UnknownWhat(std::ostream& err, const std::string& what) {
  static constexpr std::array<std::string_view, 4> kLater = {"flows", "nat", "rules", "sockets"};
  if (std::find(kLater.begin(), kLater.end(), what) != kLater.end()) {
    return BadUsage(err, "show " + what + ": not in this version");
  }
  std::string known;
  for (const What& w : kWhats) known += " " + std::string(w.name);
  return BadUsage(err, "show: unknown \"" + what + "\"; there are:" + known);
}

}  // namespace

int Show(const ShowOptions& options, std::ostream& out, std::ostream& err) {
  const auto* what = std::find_if(std::begin(kWhats), std::end(kWhats),
                                  [&](const What& w) { return w.name == options.what; });
  if (what == std::end(kWhats)) return UnknownWhat(err, options.what);
  if ((options.destination || options.limit) && what->name != "routes") {
    return BadUsage(err, "--destination and --limit belong to: show routes");
  }
  if (options.all && what->name != "drops") return BadUsage(err, "--all belongs to: show drops");

  std::string path = "/v1/" + options.what;
  char separator = '?';
  if (options.destination) {
    const auto address = ParseIpAddress(*options.destination);
    if (!address) {
      return BadUsage(err, "--destination: \"" + *options.destination + "\" is not an address");
    }
    path += separator + std::string("destination=") + ToString(*address);
    separator = '&';
  }
  if (options.limit) path += separator + std::string("limit=") + std::to_string(*options.limit);

  const auto json = ControlGet(options.control_path, path);
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
