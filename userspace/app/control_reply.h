// What the control API's handlers share: errors as HTTP, numbers of a query.
//
// Thread: any; no state.
#ifndef SLUICE_APP_CONTROL_REPLY_H_
#define SLUICE_APP_CONTROL_REPLY_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "telemetry/http_server.h"

namespace sluice::app {

// JSON, or {"error": ...} with the status's HTTP code.
telemetry::HttpReply JsonReply(const absl::StatusOr<std::string>& answer);

// `limit=`: a number from 1 to `most`.
absl::Status ReadLimit(const std::string& value, uint64_t most, uint64_t* limit);

absl::Status UnknownParameter(const std::string& key);

}  // namespace sluice::app

#endif  // SLUICE_APP_CONTROL_REPLY_H_
