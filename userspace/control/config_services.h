// The section `services` of the configuration.
//
// Only for config_parse.cc. Thread: any; no state.
#ifndef SLUICE_CONTROL_CONFIG_SERVICES_H_
#define SLUICE_CONTROL_CONFIG_SERVICES_H_

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/time.h"
#include "control/config.h"
#include "control/config_reader.h"

namespace sluice::control {

// `192.0.2.1:80`, `[2001:db8::1]:80`, with a port from 1. None for anything else.
std::optional<ListenAddress> ParseListen(const std::string& text);

// As ParseDuration, and milliseconds besides: `500ms`.
std::optional<Nanos> ParseShortDuration(std::string_view text);

// An interface that a service names, and where.
struct NamedInterface {
  std::string name;
  YAML::Mark mark;
};

// Returns those interfaces, which must be among those that are served.
std::vector<NamedInterface> ReadServices(ConfigReader& reader, const ConfigValue& value,
                                         tables::ServicesConfig* out);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONFIG_SERVICES_H_
