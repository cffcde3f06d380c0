// Filters of `sluice trace`: compiled from pcap's syntax by the client, where names may be looked up
// and mistakes are shown at once; sent as hexadecimal digits; checked again by the server.
//
// Thread: any; no state.
#ifndef SLUICE_APP_TRACE_FILTER_H_
#define SLUICE_APP_TRACE_FILTER_H_

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "dataplane/packet_filter.h"

namespace sluice::app {

// Of a filter such as `host 10.0.0.5 and tcp port 443`; empty for an empty one.
absl::StatusOr<std::string> CompileTraceFilter(const std::string& text);

// What CompileTraceFilter has made; an empty one matches everything.
absl::StatusOr<dataplane::PacketFilter> ReadTraceFilter(std::string_view program);

}  // namespace sluice::app

#endif  // SLUICE_APP_TRACE_FILTER_H_
