// Views as JSON and back. The server writes, the client reads (a field that is missing, as from
// another version, keeps its default; one of a wrong type is an error).
//
// Thread: any; no state.
#ifndef SLUICE_TELEMETRY_VIEW_JSON_H_
#define SLUICE_TELEMETRY_VIEW_JSON_H_

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
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
std::string ToJson(const RulesView& view);
std::string ToJson(const FlowsView& view);
std::string ToJson(const NatView& view);
std::string ToJson(const SocketsView& view);
std::string ToJson(const std::vector<ServiceView>& views);
std::string ToJson(const ExplainView& view);
std::string ToJson(const TraceView& view);

// Instantiated for each type that ToJson takes.
template <class View>
absl::StatusOr<View> FromJson(const std::string& text);

// The bodies of requests. A frame is text of hexadecimal digits.
std::string ToJson(const ExplainRequest& request);
std::string ToJson(const TraceRequest& request);
absl::StatusOr<ExplainRequest> ExplainRequestFromJson(const std::string& text);
absl::StatusOr<TraceRequest> TraceRequestFromJson(const std::string& text);

// What a trace's lines say besides packets: how many were not shown so far.
std::string LostJson(uint64_t packets);
std::optional<uint64_t> LostFromJson(const std::string& line);

// Two digits for each byte; white space, ':' and a leading 0x are skipped when read.
std::string ToHex(std::span<const uint8_t> bytes);
std::optional<std::vector<uint8_t>> FromHex(std::string_view text);

// {"error": message}, and the way back (the text itself when it is not of that form).
std::string ErrorJson(const std::string& message);
std::string ErrorFromJson(const std::string& text);

// Indented JSON for a terminal, a newline at the end; text that is not JSON comes back as it is.
std::string PrettyJson(const std::string& text);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_VIEW_JSON_H_
