// A RouteSink that keeps everything in maps and complains about misuse: what the RIB installs, as
// tests want to see it.
#ifndef SLUICE_TESTS_SUPPORT_MAP_SINK_H_
#define SLUICE_TESTS_SUPPORT_MAP_SINK_H_

#include <gtest/gtest.h>

#include <map>
#include <optional>

#include "control/rib/route_sink.h"

namespace sluice::test {

class MapSink final : public control::RouteSink {
 public:
  absl::StatusOr<tables::RouteId> Add(const tables::Route& route) override {
    const tables::RouteId id{++last_id_};
    routes_[id.value] = route;
    return id;
  }
  absl::StatusOr<tables::RouteId> Change(tables::RouteId id, const tables::Route& route) override {
    EXPECT_TRUE(routes_.contains(id.value));
    ++changes_;
    if (!move_ids_) {
      routes_[id.value] = route;
      return id;
    }
    // As a shared id behaves: the caller gets another one, the old one stays for the others.
    return Add(route);
  }
  void Remove(tables::RouteId id) override { EXPECT_EQ(routes_.erase(id.value), 1u); }

  absl::Status Set(const Ipv4Prefix& prefix, tables::RouteId id) override {
    return SetIn(fib4_, prefix, id);
  }
  absl::Status Set(const Ipv6Prefix& prefix, tables::RouteId id) override {
    return SetIn(fib6_, prefix, id);
  }
  void Clear(const Ipv4Prefix& prefix) override { ClearIn(fib4_, prefix); }
  void Clear(const Ipv6Prefix& prefix) override { ClearIn(fib6_, prefix); }

  // Longest match, by trying every length.
  const tables::Route* Find(Ipv4 address) const { return FindIn<32>(fib4_, address); }
  const tables::Route* Find(const Ipv6& address) const { return FindIn<128>(fib6_, address); }
  const tables::Route* FindAny(const IpAddress& a) const {
    return a.is_v4() ? Find(a.v4()) : Find(a.v6());
  }

  void set_capacity(size_t prefixes) { capacity_ = prefixes; }
  void set_move_ids(bool move) { move_ids_ = move; }
  uint64_t sets() const { return sets_; }
  uint64_t clears() const { return clears_; }
  uint64_t changes() const { return changes_; }
  size_t routes() const { return routes_.size(); }
  const std::map<Ipv4Prefix, uint32_t>& fib4() const { return fib4_; }
  const std::map<Ipv6Prefix, uint32_t>& fib6() const { return fib6_; }

 private:
  template <class Fib, class Prefix>
  absl::Status SetIn(Fib& fib, const Prefix& prefix, tables::RouteId id) {
    EXPECT_TRUE(routes_.contains(id.value)) << ToString(prefix);
    EXPECT_EQ(prefix, prefix.Canonical());
    ++sets_;
    if (!fib.contains(prefix) && fib4_.size() + fib6_.size() >= capacity_) {
      return absl::ResourceExhaustedError("full");
    }
    fib[prefix] = id.value;
    return absl::OkStatus();
  }
  template <class Fib, class Prefix>
  void ClearIn(Fib& fib, const Prefix& prefix) {
    ++clears_;
    EXPECT_EQ(fib.erase(prefix), 1u) << ToString(prefix);
  }
  template <int kBits, class Fib, class Address>
  const tables::Route* FindIn(const Fib& fib, const Address& address) const {
    using Prefix = typename Fib::key_type;
    for (int length = kBits; length >= 0; --length) {
      const auto found = fib.find(Prefix{address, static_cast<uint8_t>(length)}.Canonical());
      if (found == fib.end()) continue;
      const auto route = routes_.find(found->second);
      EXPECT_NE(route, routes_.end()) << "a FIB entry names a route that was removed";
      return route == routes_.end() ? nullptr : &route->second;
    }
    return nullptr;
  }

  std::map<uint32_t, tables::Route> routes_;
  std::map<Ipv4Prefix, uint32_t> fib4_;
  std::map<Ipv6Prefix, uint32_t> fib6_;
  uint32_t last_id_ = 0;
  size_t capacity_ = SIZE_MAX;
  bool move_ids_ = false;
  uint64_t sets_ = 0;
  uint64_t clears_ = 0;
  uint64_t changes_ = 0;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_MAP_SINK_H_
