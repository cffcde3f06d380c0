#include "app/control_reply.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

int HttpStatusOf(absl::StatusCode code) {
  switch (code) {
    case absl::StatusCode::kInvalidArgument:
      return 400;
    case absl::StatusCode::kNotFound:
      return 404;
    case absl::StatusCode::kResourceExhausted:
      return 429;
    case absl::StatusCode::kUnavailable:
      return 503;
    default:
      return 500;
  }
}

}  // namespace

telemetry::HttpReply JsonReply(const absl::StatusOr<std::string>& answer) {
  if (answer.ok()) return {200, "application/json", *answer};
  return {HttpStatusOf(answer.status().code()), "application/json",
          telemetry::ErrorJson(std::string(answer.status().message()))};
}

absl::Status ReadLimit(const std::string& value, uint64_t most, uint64_t* limit) {
  const char* const end = value.data() + value.size();
  uint64_t number = 0;
  const auto [stop, error] = std::from_chars(value.data(), end, number);
  if (error != std::errc() || stop != end || number < 1 || number > most) {
    return absl::InvalidArgumentError(absl::StrCat("limit must be a number from 1 to ", most));
  }
  *limit = number;
  return absl::OkStatus();
}

absl::Status UnknownParameter(const std::string& key) {
  return absl::InvalidArgumentError(absl::StrCat("unknown parameter \"", key, "\""));
}

}  // namespace sluice::app
