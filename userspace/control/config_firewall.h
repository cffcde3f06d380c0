// The keys of the configuration that concern the firewall and NAT: `timeouts`, and values of other
// sections that have a form of their own (durations, port ranges).
//
// Only for config_parse.cc. Thread: any; no state.
#ifndef SLUICE_CONTROL_CONFIG_FIREWALL_H_
#define SLUICE_CONTROL_CONFIG_FIREWALL_H_

#include <optional>
#include <string_view>

#include "base/time.h"
#include "control/config.h"
#include "control/config_reader.h"

namespace sluice::control {

// `30s`, `5m`, `2h`, `5d`, or a bare number of seconds; from 1 second to kMaxTimeout. None for
// anything else.
std::optional<Nanos> ParseDuration(std::string_view text);
inline constexpr Nanos kMaxTimeout = Seconds(int64_t{365} * 86'400);

// `49152-65535`, the first not above the last, neither 0. None for anything else.
std::optional<PortRange> ParsePortRange(std::string_view text);

void ReadTimeouts(ConfigReader& reader, const ConfigValue& value, TimeoutsConfig* out);
// The smallest range is kMinNatPorts, so that every worker gets some.
// `example` is for the message.
void ReadPortRange(ConfigReader& reader, const ConfigValue& value, const char* example,
                   PortRange* out);
inline constexpr uint32_t kMinNatPorts = 1024;

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_CONFIG_FIREWALL_H_
