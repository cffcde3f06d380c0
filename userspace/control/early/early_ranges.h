// Sets of addresses and ports as sorted, disjoint ranges: what the compiler of early rules computes
// with. Any thread; linear in the ranges unless said otherwise.
#ifndef SLUICE_CONTROL_EARLY_EARLY_RANGES_H_
#define SLUICE_CONTROL_EARLY_EARLY_RANGES_H_

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "base/address.h"
#include "tables/early_program.h"

namespace sluice::control {

// The neighbours of a value; nothing beyond the ends.
inline std::optional<uint8_t> Next(uint8_t v) {
  return v == UINT8_MAX ? std::nullopt : std::optional<uint8_t>(static_cast<uint8_t>(v + 1));
}
inline std::optional<uint8_t> Previous(uint8_t v) {
  return v == 0 ? std::nullopt : std::optional<uint8_t>(static_cast<uint8_t>(v - 1));
}
inline std::optional<uint16_t> Next(uint16_t v) {
  return v == UINT16_MAX ? std::nullopt : std::optional<uint16_t>(static_cast<uint16_t>(v + 1));
}
inline std::optional<Ipv4> Next(Ipv4 v) {
  return v.value == UINT32_MAX ? std::nullopt : std::optional<Ipv4>(Ipv4(v.value + 1));
}
inline std::optional<Ipv6> Next(const Ipv6& v) {
  if (v.lo != UINT64_MAX) return Ipv6(v.hi, v.lo + 1);
  return v.hi == UINT64_MAX ? std::nullopt : std::optional<Ipv6>(Ipv6(v.hi + 1, 0));
}
inline std::optional<uint16_t> Previous(uint16_t v) {
  return v == 0 ? std::nullopt : std::optional<uint16_t>(static_cast<uint16_t>(v - 1));
}
inline std::optional<Ipv4> Previous(Ipv4 v) {
  return v.value == 0 ? std::nullopt : std::optional<Ipv4>(Ipv4(v.value - 1));
}
inline std::optional<Ipv6> Previous(const Ipv6& v) {
  if (v.lo != 0) return Ipv6(v.hi, v.lo - 1);
  return v.hi == 0 ? std::nullopt : std::optional<Ipv6>(Ipv6(v.hi - 1, UINT64_MAX));
}

// Sorts, and joins what overlaps or touches. n log n.
template <typename T>
void Normalise(tables::EarlyRanges<T>& ranges) {
  if (!std::is_sorted(ranges.begin(), ranges.end())) std::sort(ranges.begin(), ranges.end());
  size_t kept = 0;
  for (const tables::EarlyRange<T>& range : ranges) {
    if (kept > 0) {
      tables::EarlyRange<T>& before = ranges[kept - 1];
      const std::optional<T> behind = Next(before.last);
      if (!behind || range.first <= *behind) {
        before.last = std::max(before.last, range.last);
        continue;
      }
    }
    ranges[kept++] = range;
  }
  ranges.resize(kept);
}

// What is in `a` and not in `b`; both normal.
template <typename T>
tables::EarlyRanges<T> Without(const tables::EarlyRanges<T>& a, const tables::EarlyRanges<T>& b) {
  tables::EarlyRanges<T> out;
  auto cut = b.begin();
  for (tables::EarlyRange<T> rest : a) {
    bool gone = false;
    while (cut != b.end() && cut->last < rest.first) ++cut;
    for (auto c = cut; c != b.end() && c->first <= rest.last; ++c) {
      if (rest.first < c->first) out.push_back({rest.first, *Previous(c->first)});
      const std::optional<T> behind = Next(c->last);
      gone = !behind || *behind > rest.last;
      if (gone) break;
      rest.first = *behind;
    }
    if (!gone) out.push_back(rest);
  }
  return out;
}

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_RANGES_H_
