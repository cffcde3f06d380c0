#include "app/trace.h"

#include <ostream>

#include "app/client.h"
#include "app/show.h"
#include "app/trace_filter.h"
#include "telemetry/view_json.h"
#include "telemetry/view_table.h"

namespace sluice::app {

int Trace(const TraceOptions& options, std::ostream& out, std::ostream& err) {
  const auto program = CompileTraceFilter(options.filter);
  if (!program.ok()) return Fail(err, program.status());
  uint64_t left = options.limit.value_or(0);
  absl::Status problem;
  const absl::Status status = ControlStream(
      options.control_path, "/v1/trace", telemetry::ToJson(telemetry::TraceRequest{*program}),
      [&](const std::string& line) {
        if (const auto lost = telemetry::LostFromJson(line)) {
          err << "sluice: " << *lost << " packets were not shown: more than can be printed\n";
          return true;
        }
        if (options.json) {
          out << line << "\n";
        } else {
          const auto view = telemetry::FromJson<telemetry::TraceView>(line);
          if (!view.ok()) {
            problem = absl::InternalError(view.status().message());
            return false;
          }
          out << telemetry::ToLines(*view);
        }
        out.flush();
        return out.good() && (!options.limit || --left > 0);
      });
  if (!status.ok()) return Fail(err, status);
  return problem.ok() ? 0 : Fail(err, problem);
}

}  // namespace sluice::app
