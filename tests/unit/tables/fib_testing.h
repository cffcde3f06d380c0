// What the FIB's tests share: both families as numbers, random prefixes that nest, a naive model.
#ifndef SLUICE_TESTS_UNIT_TABLES_FIB_TESTING_H_
#define SLUICE_TESTS_UNIT_TABLES_FIB_TESTING_H_

#include <cstdint>
#include <map>
#include <vector>

#include "base/address.h"
#include "base/rng.h"
#include "tables/fib.h"

namespace sluice::tables {

using Bits = unsigned __int128;

struct V4 {
  using Table = Fib4;
  using Address = Ipv4;
  using Prefix = Ipv4Prefix;
  static constexpr int kBits = 32;
  static Address FromBits(Bits b) { return Ipv4(static_cast<uint32_t>(b)); }
  static Bits ToBits(Address a) { return a.value; }
};

struct V6 {
  using Table = Fib6;
  using Address = Ipv6;
  using Prefix = Ipv6Prefix;
  static constexpr int kBits = 128;
  static Address FromBits(Bits b) {
    return Ipv6(static_cast<uint64_t>(b >> 64), static_cast<uint64_t>(b));
  }
  static Bits ToBits(const Address& a) { return Bits{a.hi} << 64 | a.lo; }
};

template <class F>
Bits LastOffset(int length) {  // the size of a prefix, less one
  return length == 0 ? (F::kBits == 128 ? ~Bits{0} : (Bits{1} << 32) - 1)
                     : (Bits{1} << (F::kBits - length)) - 1;
}

template <class F>
typename F::Prefix MakePrefix(Bits bits, int length) {
  return typename F::Prefix{F::FromBits(bits), static_cast<uint8_t>(length)}.Canonical();
}

// Prefixes around a few places, so that they nest, touch and share nodes.
template <class F>
class ClusteredPrefixes {
 public:
  explicit ClusteredPrefixes(Rng& rng) : rng_(rng) {
    for (Bits& center : centers_) center = RandomBits();
  }
  Bits RandomBits() { return (Bits{rng_.Next()} << 64 | rng_.Next()) & LastOffset<F>(0); }

  typename F::Prefix Next() {
    const int length = static_cast<int>(rng_.Below(F::kBits + 1));
    return MakePrefix<F>(NearCenter(), length);
  }
  // A center with a few bits changed.
  Bits NearCenter() {
    Bits bits = centers_[rng_.Below(kCenters)];
    for (uint64_t flips = rng_.Below(4); flips > 0; --flips) {
      bits ^= Bits{1} << rng_.Below(F::kBits);
    }
    return bits;
  }

 private:
  static constexpr size_t kCenters = 4;
  Rng& rng_;
  Bits centers_[kCenters];
};

// Longest match by trying each length in turn.
template <class F>
class NaiveFib {
 public:
  void Insert(const typename F::Prefix& p, RouteId route) { routes_[p] = route; }
  bool Erase(const typename F::Prefix& p) { return routes_.erase(p) != 0; }
  RouteId Lookup(Bits address) const {
    for (int length = F::kBits; length >= 0; --length) {
      const auto it = routes_.find(MakePrefix<F>(address, length));
      if (it != routes_.end()) return it->second;
    }
    return RouteId::None();
  }
  const std::map<typename F::Prefix, RouteId>& routes() const { return routes_; }
  // The first and last address of each prefix, and those just outside.
  std::vector<Bits> Boundaries() const {
    std::vector<Bits> all;
    for (const auto& [prefix, route] : routes_) {
      const Bits first = F::ToBits(prefix.address);
      const Bits last = first + LastOffset<F>(prefix.length);
      for (const Bits b : {first, last, first - 1, last + 1}) {
        all.push_back(b & LastOffset<F>(0));
      }
    }
    return all;
  }

 private:
  std::map<typename F::Prefix, RouteId> routes_;
};

}  // namespace sluice::tables

#endif  // SLUICE_TESTS_UNIT_TABLES_FIB_TESTING_H_
