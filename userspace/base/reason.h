// Why a packet was dropped or returned to the kernel. See drop_reasons.inc and punt_reasons.inc.
#ifndef SLUICE_BASE_REASON_H_
#define SLUICE_BASE_REASON_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice {

enum class DropReason : uint8_t {
#define SLUICE_DROP(name, label, text) name,
#include "base/drop_reasons.inc"
#undef SLUICE_DROP
};

enum class PuntReason : uint8_t {
#define SLUICE_PUNT(name, label, text) name,
#include "base/punt_reasons.inc"
#undef SLUICE_PUNT
};

struct ReasonText {
  std::string_view label;  // the metric's label
  std::string_view text;   // for people
};

inline constexpr ReasonText kDropReasons[] = {
#define SLUICE_DROP(name, label, text) {label, text},
#include "base/drop_reasons.inc"
#undef SLUICE_DROP
};

inline constexpr ReasonText kPuntReasons[] = {
#define SLUICE_PUNT(name, label, text) {label, text},
#include "base/punt_reasons.inc"
#undef SLUICE_PUNT
};

inline constexpr size_t kDropReasonCount = sizeof kDropReasons / sizeof kDropReasons[0];
inline constexpr size_t kPuntReasonCount = sizeof kPuntReasons / sizeof kPuntReasons[0];

constexpr std::string_view Label(DropReason r) { return kDropReasons[static_cast<size_t>(r)].label; }
constexpr std::string_view Label(PuntReason r) { return kPuntReasons[static_cast<size_t>(r)].label; }

}  // namespace sluice

#endif  // SLUICE_BASE_REASON_H_
