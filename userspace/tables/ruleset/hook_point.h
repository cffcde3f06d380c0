// Where the data plane runs rules: netfilter's hooks, cut where Sluice's own steps stand between
// priorities (reassembly at -400, conntrack at -200, NAT at -100 and 100).
#ifndef SLUICE_TABLES_RULESET_HOOK_POINT_H_
#define SLUICE_TABLES_RULESET_HOOK_POINT_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::tables {

enum class HookPoint : uint8_t {
  kIngress,          // netdev ingress and inet ingress of the arrival device
  kPreroutingFirst,  // priority < -400: before reassembly
  kPreroutingRaw,    // -400 <= priority < -200: before conntrack
  kPreroutingEarly,  // -200 <= priority <= -100
  kPreroutingNat,    // chains of type nat
  kPreroutingLate,   // priority > -100
  kForward,
  kInput,
  kInputNat,
  kOutputRaw,  // priority < -200
  kOutput,
  kOutputNat,
  kPostroutingEarly,  // priority <= 100
  kPostroutingNat,
  kPostroutingLate,  // priority > 100
  kCount
};
inline constexpr size_t kHookPointCount = static_cast<size_t>(HookPoint::kCount);

constexpr bool IsNat(HookPoint hook) {
  return hook == HookPoint::kPreroutingNat || hook == HookPoint::kInputNat ||
         hook == HookPoint::kOutputNat || hook == HookPoint::kPostroutingNat;
}
constexpr bool IsPrerouting(HookPoint hook) {
  return hook >= HookPoint::kPreroutingFirst && hook <= HookPoint::kPreroutingLate;
}

// The kernel's name of the hook.
constexpr std::string_view HookName(HookPoint hook) {
  constexpr std::array<std::string_view, kHookPointCount> kNames = {
      "ingress",     "prerouting", "prerouting", "prerouting", "prerouting",
      "prerouting",  "forward",    "input",      "input",      "output",
      "output",      "output",     "postrouting", "postrouting", "postrouting"};
  return kNames[static_cast<size_t>(hook)];
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_HOOK_POINT_H_
