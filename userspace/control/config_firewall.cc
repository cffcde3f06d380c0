#include "control/config_firewall.h"

#include <charconv>
#include <string>
#include <vector>

namespace sluice::control {
namespace {

// All of `text` as a number.
std::optional<uint64_t> Digits(std::string_view text) {
  uint64_t number = 0;
  const char* const end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data(), end, number);
  if (text.empty() || error != std::errc() || stop != end) return {};
  return number;
}

uint64_t SecondsOf(char unit) {
  switch (unit) {
    case 's':
      return 1;
    case 'm':
      return 60;
    case 'h':
      return 3600;
    case 'd':
      return 86'400;
    default:
      return 0;
  }
}

}  // namespace

std::optional<Nanos> TimeoutsConfig::of(std::string_view key) const {
  for (size_t i = 0; i < kTimeoutCount; ++i) {
    if (kTimeouts[i].key == key) return values[i];
  }
  return {};
}

std::optional<Nanos> ParseDuration(std::string_view text) {
  if (text.empty()) return {};
  uint64_t unit = SecondsOf(text.back());
  if (unit == 0) {
    unit = 1;
  } else {
    text.remove_suffix(1);
  }
  const auto number = Digits(text);
  const auto most = static_cast<uint64_t>(kMaxTimeout / Seconds(1));
  if (!number || *number < 1 || *number > most || *number * unit > most) return {};
  return Seconds(static_cast<int64_t>(*number * unit));
}

std::optional<PortRange> ParsePortRange(std::string_view text) {
  const size_t dash = text.find('-');
  if (dash == std::string_view::npos) return {};
  const auto first = Digits(text.substr(0, dash));
  const auto last = Digits(text.substr(dash + 1));
  if (!first || !last || *first < 1 || *first > *last || *last > 65'535) return {};
  return PortRange{static_cast<uint16_t>(*first), static_cast<uint16_t>(*last)};
}

void ReadTimeouts(ConfigReader& reader, const ConfigValue& value, TimeoutsConfig* out) {
  std::vector<ConfigReader::Field> fields;
  for (size_t i = 0; i < kTimeoutCount; ++i) {
    fields.emplace_back(kTimeouts[i].key, [&reader, out, i](const ConfigValue& v) {
      static constexpr char kExpected[] = "a time such as 30s, 5m, 2h or 5d (at most 365d), or kernel";
      const auto text = reader.Text(v, kExpected);
      if (!text) return;
      if (*text == "kernel") {
        out->values[i].reset();
      } else if (const auto duration = ParseDuration(*text)) {
        out->values[i] = duration;
      } else {
        reader.Error(v.mark,
                     "\"" + v.key + "\" must be " + kExpected + ", not \"" + *text + "\"");
      }
    });
  }
  reader.Map(value, fields);
}

void ReadPortRange(ConfigReader& reader, const ConfigValue& value, const char* example,
                   PortRange* out) {
  const std::string expected = "a range of at least " + std::to_string(kMinNatPorts) +
                               " ports, such as " + example;
  const auto text = reader.Text(value, expected);
  if (!text) return;
  const auto range = ParsePortRange(*text);
  if (range && uint32_t{range->last} - range->first + 1 >= kMinNatPorts) {
    *out = *range;
  } else {
    reader.Error(value.mark,
                 "\"" + value.key + "\" must be " + expected + ", not \"" + *text + "\"");
  }
}

}  // namespace sluice::control
