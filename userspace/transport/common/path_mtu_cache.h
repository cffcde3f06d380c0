// What routers have told about the way to destinations (RFC 1191, RFC 8201), for the connections and
// datagrams that come after the one that they told it about; as Linux' route exceptions.
//
// Of one worker: ICMP errors go to the worker whose socket they are about. At most `capacity` places, four
// for each value of a keyed hash, so that nobody can choose whose he displaces; when the four are taken, the
// one that would end first goes (`evicted`). An entry ends after `life` without a further word
// (mtu_expires: ten minutes).
//
// Who calls Learn has checked that the error is about something in flight (TCP, by sequence numbers: RFC
// 5927). UDP has nothing to check it by: anybody may have said what it tells by LearnUnproven. That counts
// for datagrams alone, is kept apart, and takes no place of what is proven. Thread: the worker's; the
// counters may be read by others. Memory: 48 bytes per place.
#ifndef SLUICE_TRANSPORT_COMMON_PATH_MTU_CACHE_H_
#define SLUICE_TRANSPORT_COMMON_PATH_MTU_CACHE_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "base/address.h"
#include "base/counter.h"
#include "base/time.h"
#include "transport/common/siphash.h"

namespace sluice::transport {

// Below this nothing is believed: RFC 8201 section 4 for IPv6; for IPv4 what Linux takes (min_pmtu).
constexpr uint32_t LeastPathMtu(bool v4) { return v4 ? 552 : 1280; }

struct PathMtuCounters {
  Counter entries;  // a gauge; those whose time is over count until somebody asks for them
  Counter learned;
  Counter evicted;
  Counter refused;  // unproven, and all four places have something proven
};

class PathMtuCache {
 public:
  struct Entry {
    IpAddress destination;
    uint32_t mtu = 0;  // 0: no entry
    Nanos expires;
    bool proven = false;
  };

  // `capacity` is rounded up to a power of two, at least 4.
  PathMtuCache(uint32_t capacity, Nanos life, const HashKey& key)
      : life_(life), key_(key), places_(std::bit_ceil(std::max(capacity, kWays))) {}

  // What is proven; null when nothing is known that is in force.
  const Entry* Find(const IpAddress& destination, Nanos now) {
    return used_ == 0 ? nullptr : FindOne(destination, true, now);
  }
  // For datagrams: the least that anybody has told. UINT32_MAX when nothing is in force.
  uint32_t LeastTold(const IpAddress& destination, Nanos now) {
    if (used_ == 0) [[likely]] return UINT32_MAX;
    uint32_t least = UINT32_MAX;
    for (const bool proven : {true, false}) {
      const Entry* const e = FindOne(destination, proven, now);
      if (e != nullptr) least = std::min(least, e->mtu);
    }
    return least;
  }

  // A larger one than is known does not count until that has ended.
  void Learn(const IpAddress& destination, uint32_t mtu, Nanos now) {
    LearnOne({destination, mtu, now + life_, true}, now);
  }
  void LearnUnproven(const IpAddress& destination, uint32_t mtu, Nanos now) {
    LearnOne({destination, mtu, now + life_, false}, now);
  }

  uint32_t capacity() const { return static_cast<uint32_t>(places_.size()); }
  const PathMtuCounters& counters() const { return counters_; }

 private:
  static constexpr uint32_t kWays = 4;

  std::span<Entry> Bucket(const IpAddress& a) {
    const uint64_t hash = TableHash(key_, {a.bits.hi, a.bits.lo, uint64_t{a.is_v4()}});
    return {&places_[hash % (places_.size() / kWays) * kWays], kWays};
  }
  Entry* Place(const IpAddress& a, bool proven) {
    for (Entry& e : Bucket(a)) {
      if (e.mtu != 0 && e.destination == a && e.proven == proven) return &e;
    }
    return nullptr;
  }
  const Entry* FindOne(const IpAddress& a, bool proven, Nanos now) {
    Entry* const e = Place(a, proven);
    if (e == nullptr) return nullptr;
    if (e->expires > now) return e;
    Forget(*e);
    return nullptr;
  }
  void LearnOne(const Entry& told, Nanos now) {
    if (told.mtu < LeastPathMtu(told.destination.is_v4())) return;
    Entry* e = Place(told.destination, told.proven);
    if (e != nullptr && e->expires > now && e->mtu < told.mtu) return;
    if (e == nullptr) e = FreePlace(told, now);
    if (e == nullptr) return counters_.refused.Add();
    counters_.learned.Add();
    *e = told;
  }
  // What is unproven goes first, and does not displace what is not.
  Entry* FreePlace(const Entry& told, Nanos now) {
    Entry* first = nullptr;
    for (Entry& e : Bucket(told.destination)) {
      if (e.mtu != 0 && e.expires <= now) Forget(e);
      if (e.mtu == 0) {
        counters_.entries.Set(++used_);
        return &e;
      }
      const auto order = [](const Entry& x) { return std::pair(x.proven, x.expires); };
      if (first == nullptr || order(e) < order(*first)) first = &e;
    }
    if (first->proven && !told.proven) return nullptr;
    counters_.evicted.Add();
    return first;
  }
  void Forget(Entry& e) {
    e.mtu = 0;
    counters_.entries.Set(--used_);
  }

  const Nanos life_;
  const HashKey key_;
  std::vector<Entry> places_;
  uint32_t used_ = 0;
  PathMtuCounters counters_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_PATH_MTU_CACHE_H_
