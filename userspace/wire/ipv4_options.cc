#include "wire/ipv4_options.h"

#include <algorithm>

namespace sluice::wire {
namespace {

// Each check returns the offset, within the option, of the byte at fault; kFine when there is none.
constexpr int kFine = -1;

struct Seen {
  bool source_route = false;
  bool record_route = false;
  bool timestamp = false;
  bool cipso = false;
};

int CheckSourceRoute(const Ipv4Option& option, Seen& seen, Ipv4OptionsResult& result) {
  if (option.bytes.size() < 3) return 1;
  if (option.bytes[2] < 4) return 2;
  if (seen.source_route) return 0;
  seen.source_route = true;
  result.source_route = true;
  result.strict = option.kind == kIpv4OptionStrictSourceRoute;
  return kFine;
}

int CheckRecordRoute(const Ipv4Option& option, Seen& seen, Ipv4OptionsResult& result) {
  if (seen.record_route) return 0;
  if (option.bytes.size() < 3) return 1;
  const size_t pointer = option.bytes[2];
  if (pointer < 4) return 2;
  if (pointer <= option.bytes.size()) {
    if (pointer + 3 > option.bytes.size()) return 2;
    result.record_route = true;
  }
  seen.record_route = true;
  return kFine;
}

int CheckTimestamp(const Ipv4Option& option, Seen& seen, Ipv4OptionsResult& result) {
  if (seen.timestamp) return 0;
  if (option.bytes.size() < 4) return 1;
  const size_t pointer = option.bytes[2];
  const uint8_t flag = option.bytes[3] & 0xf;
  if (pointer < 5) return 2;
  if (pointer > option.bytes.size()) {
    if (option.bytes[3] >> 4 == 15) return 3;  // the overflow counter is full
    seen.timestamp = true;
    result.timestamp = true;  // the overflow counter goes up
    return kFine;
  }
  if (pointer + 3 > option.bytes.size()) return 2;
  const bool known = flag == 0 || flag == 1 || flag == 3;
  if (!known) return kFine;  // Linux neither acts nor remembers that it saw one
  if (flag != 0 && pointer + 7 > option.bytes.size()) return 2;
  seen.timestamp = true;
  result.timestamp = true;
  return kFine;
}

int CheckOption(const Ipv4Option& option, Seen& seen, Ipv4OptionsResult& result) {
  switch (option.kind) {
    case kIpv4OptionLooseSourceRoute:
    case kIpv4OptionStrictSourceRoute:
      return CheckSourceRoute(option, seen, result);
    case kIpv4OptionRecordRoute:
      result.echoed = true;
      return CheckRecordRoute(option, seen, result);
    case kIpv4OptionTimestamp:
      result.echoed = true;
      return CheckTimestamp(option, seen, result);
    case kIpv4OptionRouterAlert:
      if (option.bytes.size() < 4) return 1;
      if (option.bytes[2] == 0 && option.bytes[3] == 0) result.router_alert = true;
      return kFine;
    case kIpv4OptionCipso:
      if (seen.cipso) return 0;
      seen.cipso = true;
      result.other_action = true;  // its tags are for the kernel's NetLabel to judge
      return kFine;
    default:
      return kFine;
  }
}

}  // namespace

Ipv4OptionsResult CompileIpv4Options(std::span<const uint8_t> options) {
  Ipv4OptionsResult result;
  Seen seen;
  Ipv4OptionIterator it(options);
  const auto refuse = [&result](size_t offset) {
    result.valid = false;
    result.problem_pointer = static_cast<uint8_t>(Ipv4View::kMinSize + offset);
  };
  while (const auto option = it.Next()) {
    const int fault = CheckOption(*option, seen, result);
    if (fault == kFine) continue;
    refuse(option->offset + static_cast<size_t>(fault));
    return result;
  }
  if (it.malformed()) {
    refuse(it.offset());
    return result;
  }
  const auto tail = options.subspan(std::min(it.offset(), options.size()));
  if (std::any_of(tail.begin(), tail.end(), [](uint8_t b) { return b != kIpv4OptionEnd; })) {
    result.other_action = true;
  }
  return result;
}

}  // namespace sluice::wire
