#include "io/af_xdp/early_trie6.h"

#include <algorithm>
#include <utility>

namespace sluice::io::af_xdp {
namespace {

using tables::EarlyRange;
using tables::EarlyRanges;
using tables::EarlySet6;

Ipv6 LastOf(const Ipv6Prefix& prefix) {
  const Ipv6 mask = prefix.mask();
  return Ipv6(prefix.address.hi | ~mask.hi, prefix.address.lo | ~mask.lo);
}

bool Holds(const EarlyRanges<Ipv6>& ranges, const Ipv6Prefix& prefix) {
  const auto at =
      std::partition_point(ranges.begin(), ranges.end(),
                           [&](const EarlyRange<Ipv6>& r) { return r.last < prefix.address; });
  return at != ranges.end() && at->first <= prefix.address && LastOf(prefix) <= at->last;
}

}  // namespace

void CutIntoPrefixes(const EarlyRange<Ipv6>& range, std::vector<Ipv6Prefix>& out) {
  Ipv6 from = range.first;
  while (true) {
    // The widest prefix that begins here and ends within the range.
    Ipv6Prefix prefix{from, 128};
    while (prefix.length > 0) {
      const Ipv6Prefix wider{from, static_cast<uint8_t>(prefix.length - 1)};
      if (wider.Canonical().address != from || LastOf(wider) > range.last) break;
      prefix = wider;
    }
    out.push_back(prefix);
    const Ipv6 last = LastOf(prefix);
    if (last == range.last) return;
    from = Ipv6(last.hi + (last.lo == UINT64_MAX ? 1 : 0), last.lo + 1);
  }
}

absl::StatusOr<std::vector<EarlyTrie6::Entry>> EarlyTrie6::Entries(
    const std::vector<EarlySet6>& sets) {
  std::vector<Ipv6Prefix> prefixes;
  for (const EarlySet6& set : sets) {
    if (set == nullptr) continue;
    for (const EarlyRange<Ipv6>& range : *set) CutIntoPrefixes(range, prefixes);
  }
  std::sort(prefixes.begin(), prefixes.end());
  prefixes.erase(std::unique(prefixes.begin(), prefixes.end()), prefixes.end());
  std::vector<Entry> entries;
  entries.reserve(prefixes.size());
  for (const Ipv6Prefix& prefix : prefixes) {
    uint64_t mask = 0;
    for (size_t i = 0; i < sets.size(); ++i) {
      if (sets[i] != nullptr && Holds(*sets[i], prefix)) mask |= uint64_t{1} << i;
    }
    absl::StatusOr<uint8_t> number = classes_.Get(mask);
    if (!number.ok()) return number.status();
    entries.push_back({prefix, *number});
  }
  return entries;
}

absl::Status EarlyTrie6::Change(const std::vector<EarlySet6>& sets, const Put& put,
                                const Remove& remove) {
  absl::StatusOr<std::vector<Entry>> wanted = Entries(sets);
  if (!wanted.ok()) return wanted.status();
  // First what is new or different, then what is no longer wanted: its addresses have other
  // prefixes by then.
  std::vector<Ipv6Prefix> leftovers;
  auto old = entries_.begin();
  for (const Entry& entry : *wanted) {
    while (old != entries_.end() && old->prefix < entry.prefix) {
      leftovers.push_back((old++)->prefix);
    }
    const bool known = old != entries_.end() && old->prefix == entry.prefix;
    const bool same = known && old->number == entry.number;
    if (known) ++old;
    if (same) continue;
    if (absl::Status s = put(entry.prefix, entry.number); !s.ok()) return s;
  }
  for (; old != entries_.end(); ++old) leftovers.push_back(old->prefix);
  for (const Ipv6Prefix& prefix : leftovers) {
    if (absl::Status s = remove(prefix); !s.ok()) return s;
  }
  entries_ = *std::move(wanted);
  return absl::OkStatus();
}

}  // namespace sluice::io::af_xdp
