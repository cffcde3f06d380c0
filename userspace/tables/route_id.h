// The number a FIB leaf holds: the name of a Route in the RouteTable.
#ifndef SLUICE_TABLES_ROUTE_ID_H_
#define SLUICE_TABLES_ROUTE_ID_H_

#include <compare>
#include <cstdint>

namespace sluice::tables {

// 31 bits; 0 is "no route". The top bit is the FIB's own.
struct RouteId {
  static constexpr uint32_t kMaxValue = 0x7fff'ffff;
  uint32_t value = 0;
  static constexpr RouteId None() { return RouteId{}; }
  constexpr bool valid() const { return value != 0; }
  constexpr auto operator<=>(const RouteId&) const = default;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_ROUTE_ID_H_
