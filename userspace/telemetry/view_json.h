// Views as JSON and back. The server writes, the client reads (a field that is missing, as from
// another version, keeps its default; one of a wrong type is an error).
//
// Thread: any; no state.
#ifndef SLUICE_TELEMETRY_VIEW_JSON_H_
#define SLUICE_TELEMETRY_VIEW_JSON_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "telemetry/views.h"

namespace sluice::telemetry {

std::string ToJson(const ReadyView& view);
std::string ToJson(const StatusView& view);
std::string ToJson(const std::vector<InterfaceView>& views);
std::string ToJson(const RoutesView& view);
std::string ToJson(const std::vector<NeighborView>& views);
std::string ToJson(const std::vector<WorkerView>& views);
std::string ToJson(const std::vector<DropView>& views);

// Instantiated for each type that ToJson takes.
template <class View>
absl::StatusOr<View> FromJson(const std::string& text);

// {"error": message}, and the way back (the text itself when it is not of that form).
std::string ErrorJson(const std::string& message);
std::string ErrorFromJson(const std::string& text);

// Indented JSON for a terminal, a newline at the end; text that is not JSON comes back as it is.
std::string PrettyJson(const std::string& text);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_VIEW_JSON_H_
