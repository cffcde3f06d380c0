// What view_json.cc and view_json_firewall.cc share. Not for others: it includes nlohmann's header,
// which is slow to compile.
//
// Thread: any; no state.
#ifndef SLUICE_TELEMETRY_JSON_HELPERS_H_
#define SLUICE_TELEMETRY_JSON_HELPERS_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "telemetry/firewall_views.h"

namespace nlohmann {

template <class T>
struct adl_serializer<std::optional<T>> {
  static void to_json(json& j, const std::optional<T>& value) {
    if (value) {
      j = *value;
    } else {
      j = nullptr;
    }
  }
  static void from_json(const json& j, std::optional<T>& value) {
    if (j.is_null()) {
      value.reset();
    } else {
      value = j.get<T>();
    }
  }
};

}  // namespace nlohmann

namespace sluice::telemetry {

using nlohmann::json;
using nlohmann::ordered_json;

// In `show status` and `show rules`.
NLOHMANN_DEFINE_TYPE_NON_INTRUSIVE_WITH_DEFAULT(FirewallView, generation, rules, in_xdp, in_workers,
                                                unsupported, for_this_machine, refused, in_change,
                                                tracking4, tracking6, flows, flows_limit)

// Names of interfaces are bytes to the kernel; what is not UTF-8 is replaced, not an exception.
inline std::string Dump(const json& j, int indent = -1) {
  return j.dump(indent, ' ', false, json::error_handler_t::replace);
}

template <class View>
absl::StatusOr<View> FromJson(const std::string& text) {
  try {
    return json::parse(text).get<View>();
  } catch (const json::exception& e) {  // the library's way to say that the text does not fit
    return absl::InvalidArgumentError(absl::StrCat("unexpected JSON: ", e.what()));
  }
}

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_JSON_HELPERS_H_
