#include "control/early/early_sets.h"

#include <algorithm>
#include <utility>

#include "base/byte_order.h"
#include "control/early/early_ranges.h"

namespace sluice::control {

using nft::SetElement;
using tables::EarlyRange;
using tables::EarlyRanges;

namespace {

constexpr uint32_t kSetInterval = 0x4;
constexpr uint32_t kSetConcatenation = 0x80;

template <typename T>
struct KeyOf;
template <>
struct KeyOf<Ipv4> {
  static constexpr size_t kBytes = 4;
  static Ipv4 Read(const nft::Bytes& key) { return Ipv4::FromWire(key.data()); }
  static Ipv4 Last() { return Ipv4(UINT32_MAX); }
};
template <>
struct KeyOf<Ipv6> {
  static constexpr size_t kBytes = 16;
  static Ipv6 Read(const nft::Bytes& key) { return Ipv6::FromWire(key.data()); }
  static Ipv6 Last() { return Ipv6(UINT64_MAX, UINT64_MAX); }
};
template <>
struct KeyOf<uint8_t> {
  static constexpr size_t kBytes = 1;
  static uint8_t Read(const nft::Bytes& key) { return key[0]; }
  static uint8_t Last() { return UINT8_MAX; }
};
template <>
struct KeyOf<uint16_t> {
  static constexpr size_t kBytes = 2;
  static uint16_t Read(const nft::Bytes& key) { return LoadBe16(key.data()); }
  static uint16_t Last() { return UINT16_MAX; }
};

// Of elements in the order of their keys. An interval is a start and the end that follows it; the
// last one may have no end.
template <typename T, typename Elements>
std::optional<EarlyRanges<T>> Decode(const Elements& elements, bool intervals, Nanos now,
                                     Nanos& valid_until) {
  EarlyRanges<T> ranges;
  bool is_open = false;  // (not an optional: g++ 12 takes it for uninitialised)
  T open{};
  for (const SetElement& element : elements) {
    if (element.catchall || element.key.size() != KeyOf<T>::kBytes || element.key_end) return {};
    const T key = KeyOf<T>::Read(element.key);
    if (is_open) {
      const std::optional<T> last = Previous(key);
      if (last && *last >= open) ranges.push_back({open, *last});
      is_open = false;
    }
    if (element.interval_end) continue;
    if (element.expires_at <= now) continue;
    valid_until = std::min(valid_until, element.expires_at);
    if (intervals) {
      open = key;
      is_open = true;
    } else {
      ranges.push_back({key, key});
    }
  }
  if (is_open) ranges.push_back({open, KeyOf<T>::Last()});
  Normalise(ranges);
  return ranges;
}

template <typename T>
std::optional<EarlyRanges<T>> DecodeDelta(const std::vector<SetElement>& elements, bool intervals,
                                          Nanos now, Nanos& valid_until) {
  std::vector<SetElement> ordered = elements;
  std::sort(ordered.begin(), ordered.end(), nft::ElementLess());
  return Decode<T>(ordered, intervals, now, valid_until);
}

}  // namespace

template <typename T>
std::optional<EarlyRanges<T>> DecodeElements(const nft::Set& set, Nanos now, Nanos& valid_until) {
  if (set.key_length != KeyOf<T>::kBytes || (set.flags & kSetConcatenation) != 0) return {};
  return Decode<T>(set.elements, (set.flags & kSetInterval) != 0, now, valid_until);
}
template std::optional<EarlyRanges<Ipv4>> DecodeElements(const nft::Set&, Nanos, Nanos&);
template std::optional<EarlyRanges<Ipv6>> DecodeElements(const nft::Set&, Nanos, Nanos&);
template std::optional<EarlyRanges<uint8_t>> DecodeElements(const nft::Set&, Nanos, Nanos&);
template std::optional<EarlyRanges<uint16_t>> DecodeElements(const nft::Set&, Nanos, Nanos&);

void EarlySetCache::BeginUpdate(const nft::RulesetChange* change) {
  deltas_.clear();
  valid_until_ = Nanos::Max();
  for (auto& [name, entry] : entries_) entry.used = false;
  if (change == nullptr || change->structure) return;
  for (const nft::SetDelta& delta : change->sets) {
    deltas_[{delta.family, delta.table, delta.set}] = &delta;
  }
}

void EarlySetCache::EndUpdate() {
  deltas_.clear();
  for (auto at = entries_.begin(); at != entries_.end();) {
    at = at->second.used ? std::next(at) : entries_.erase(at);
  }
}

template <typename T>
std::shared_ptr<const EarlyRanges<T>> EarlySetCache::Get(
    const nft::Table& table, const nft::Set& set, Nanos now,
    std::shared_ptr<const EarlyRanges<T>> Entry::*member) {
  const Name name{table.family, table.name, set.name};
  Entry& entry = entries_[name];
  auto& ranges = entry.*member;
  const bool first_time = !std::exchange(entry.used, true);
  if (ranges != nullptr && now < entry.valid_until && entry.version != set.version && first_time) {
    const auto found = deltas_.find(name);
    const bool intervals = (set.flags & kSetInterval) != 0;
    if (found != deltas_.end()) {
      Nanos ignored = Nanos::Max();
      const auto removed = DecodeDelta<T>(found->second->removed, intervals, Nanos(), ignored);
      const auto added = DecodeDelta<T>(found->second->added, intervals, now, entry.valid_until);
      if (removed && added) {
        EarlyRanges<T> changed = removed->empty() ? *ranges : Without(*ranges, *removed);
        for (const EarlyRange<T>& range : *added) {
          changed.insert(std::upper_bound(changed.begin(), changed.end(), range), range);
        }
        Normalise(changed);
        ranges = std::make_shared<const EarlyRanges<T>>(std::move(changed));
        entry.version = set.version;
      }
    }
  }
  if (ranges == nullptr || entry.version != set.version || now >= entry.valid_until) {
    entry.valid_until = Nanos::Max();
    std::optional<EarlyRanges<T>> decoded = DecodeElements<T>(set, now, entry.valid_until);
    if (!decoded) {
      ranges = nullptr;
      return nullptr;
    }
    ranges = std::make_shared<const EarlyRanges<T>>(*std::move(decoded));
    entry.version = set.version;
  }
  valid_until_ = std::min(valid_until_, entry.valid_until);
  return ranges;
}

std::optional<EarlySmallSet> EarlySetCache::Small(const nft::Set& set, Nanos now) {
  EarlySmallSet values(set.key_length == 1 ? 256 : 65536);
  const auto add = [&](const auto& ranges) {
    if (!ranges) return false;
    for (const auto& range : *ranges) {
      std::fill(values.begin() + range.first, values.begin() + range.last + 1, true);
    }
    return true;
  };
  const bool decoded = set.key_length == 1 ? add(DecodeElements<uint8_t>(set, now, valid_until_))
                                           : add(DecodeElements<uint16_t>(set, now, valid_until_));
  return decoded ? std::optional<EarlySmallSet>(std::move(values)) : std::nullopt;
}

tables::EarlySet4 EarlySetCache::Get4(const nft::Table& table, const nft::Set& set, Nanos now) {
  return Get<Ipv4>(table, set, now, &Entry::ranges4);
}
tables::EarlySet6 EarlySetCache::Get6(const nft::Table& table, const nft::Set& set, Nanos now) {
  return Get<Ipv6>(table, set, now, &Entry::ranges6);
}

}  // namespace sluice::control
