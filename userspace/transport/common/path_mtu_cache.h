// What routers have told about the way to destinations (RFC 1191, RFC 8201), for the connections and
// datagrams that come after the one that they told it about; as Linux' route exceptions.
//
// Of one worker: ICMP errors go to the worker whose socket they are about. At most `capacity` places, four
// for each value of a keyed hash, so that nobody can choose whose he displaces; when the four are taken, the
// one that would end first goes (`evicted`). An entry ends after `life` without a further word
// (mtu_expires: ten minutes).
//
// Who calls Learn has checked that the error is about something in flight. Thread: the worker's; the
// counters may be read by others. Memory: 48 bytes per place.
#ifndef SLUICE_TRANSPORT_COMMON_PATH_MTU_CACHE_H_
#define SLUICE_TRANSPORT_COMMON_PATH_MTU_CACHE_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <span>
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
};

class PathMtuCache {
 public:
  struct Entry {
    IpAddress destination;
    uint32_t mtu = 0;  // 0: no entry
    Nanos expires;
  };

  // `capacity` is rounded up to a power of two, at least 4.
  PathMtuCache(uint32_t capacity, Nanos life, const HashKey& key)
      : life_(life), key_(key), places_(std::bit_ceil(std::max(capacity, kWays))) {}

  // Null when nothing is known that is in force.
  const Entry* Find(const IpAddress& destination, Nanos now) {
    if (used_ == 0) [[likely]] return nullptr;
    Entry* const e = Place(destination);
    if (e == nullptr) return nullptr;
    if (e->expires > now) return e;
    Forget(*e);
    return nullptr;
  }

  // A larger one than is known does not count until that has ended.
  void Learn(const IpAddress& destination, uint32_t mtu, Nanos now) {
    if (mtu < LeastPathMtu(destination.is_v4())) return;
    Entry* e = Place(destination);
    if (e != nullptr && e->expires > now && e->mtu < mtu) return;
    if (e == nullptr) e = &FreePlace(destination, now);
    counters_.learned.Add();
    *e = {destination, mtu, now + life_};
  }

  uint32_t capacity() const { return static_cast<uint32_t>(places_.size()); }
  const PathMtuCounters& counters() const { return counters_; }

 private:
  static constexpr uint32_t kWays = 4;

  std::span<Entry> Bucket(const IpAddress& a) {
    const uint64_t hash = TableHash(key_, {a.bits.hi, a.bits.lo, uint64_t{a.is_v4()}});
    return {&places_[hash % (places_.size() / kWays) * kWays], kWays};
  }
  Entry* Place(const IpAddress& a) {
    for (Entry& e : Bucket(a)) {
      if (e.mtu != 0 && e.destination == a) return &e;
    }
    return nullptr;
  }
  Entry& FreePlace(const IpAddress& a, Nanos now) {
    Entry* first = nullptr;
    for (Entry& e : Bucket(a)) {
      if (e.mtu != 0 && e.expires <= now) Forget(e);
      if (e.mtu == 0) {
        counters_.entries.Set(++used_);
        return e;
      }
      if (first == nullptr || e.expires < first->expires) first = &e;
    }
    counters_.evicted.Add();
    return *first;
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
