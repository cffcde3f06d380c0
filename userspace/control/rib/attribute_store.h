// What routes have in common, each distinct combination once: a million prefixes usually share a
// few dozen. The RIB keeps 4 bytes per route and looks the rest up here.
//
// Two levels. An attribute is all that tells two routes of one prefix apart for the kernel (table,
// metric, protocol, ...); a spec is the part that decides about packets (type, paths or nexthop
// object, MTU, source). Each spec in use by the FIB owns one RouteId of the sink.
//
// A spec is *usable* unless all its paths are dead. The kernel marks paths dead when their device
// goes down (fib_sync_down_dev in net/ipv4/fib_semantics.c, fib6_ifdown in net/ipv6/route.c),
// mostly without telling; the same follows here from the state of the links:
//  - a device that is down or gone: dead, except for routes of host scope and IPv6 local ones;
//  - no carrier: dead where ignore_routes_with_linkdown is set, and for nexthop objects, which the
//    kernel deletes then (nh_netdev_event in net/ipv4/nexthop.c);
//  - a nexthop object that does not exist: dead;
//  - the IPv4 paths that were there when a device lost its last IPv4 address, until it gets another
//    or is set up again (fib_inetaddr_event, fib_netdev_event);
//  - the paths that an IPv6 multipath route had when the device was set down: until it is up *with
//    carrier* (addrconf_notify calls rt6_sync_up only for a link that is ready).
//
// Threads: the control thread only. Cost: Intern is one hash lookup of about 60 bytes; Refresh is
// proportional to the number of specs, not of routes.
// Not followed: the kernel forgets to mark a nexthop as without carrier when it is added then and
// is IPv4 by an IPv6 gateway (fib_check_nh_v6_gw); the kernel's avoidance of nexthops whose
// neighbour has failed (groups of nexthop objects always, fib_multipath_use_neigh otherwise) and
// the bucket table of resilient groups.
#ifndef SLUICE_CONTROL_RIB_ATTRIBUTE_STORE_H_
#define SLUICE_CONTROL_RIB_ATTRIBUTE_STORE_H_

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "control/rib/route_sink.h"
#include "control/rib/route_update.h"

namespace sluice::control {

using AttributeId = uint32_t;
using SpecId = uint32_t;
inline constexpr SpecId kNoSpec = 0;

struct Attribute {
  RouteTableId table = RouteTableId::kMain;
  RouteType type = RouteType::kUnicast;
  uint8_t tos = 0;
  uint8_t preference = 2;  // 1 low, 2 medium, 3 high, as the kernel scores it
  uint8_t protocol = 0;
  uint8_t scope = 0;
  bool ecmp = false;            // IPv6: joins others of its metric in one multipath route
  bool single_gateway = false;  // one path, by a gateway
  uint32_t metric = 0;
  uint32_t metrics_hash = 0;
  SpecId spec = kNoSpec;
  uint32_t uses = 0;
  std::string key;
};

// The state of a device as far as routes depend on it.
struct LinkStatus {
  bool up = false;  // exists, and IFF_UP
  bool carrier = false;
  bool ignore_linkdown4 = false;  // sysctl ignore_routes_with_linkdown
  bool ignore_linkdown6 = false;
  uint64_t unready_since = 0;   // a stamp: set down then, and without carrier since
  uint64_t unready4_since = 0;  // a stamp: without an IPv4 address since then
  IfaceSlot slot;               // none: not served
};

class AttributeStore {
 public:
  using LinkLookup = std::function<LinkStatus(IfIndex)>;

  AttributeStore(RouteSink& sink, LinkLookup links);
  AttributeStore(const AttributeStore&) = delete;
  AttributeStore& operator=(const AttributeStore&) = delete;
  ~AttributeStore();

  // One use; the update's destination and flags play no part.
  AttributeId Intern(const RouteUpdate& update);
  // One use of the attributes `id` with other paths.
  AttributeId InternWithPaths(AttributeId id, Family family, const RoutePaths& paths);
  void AddUse(AttributeId id) { ++attributes_[id].uses; }
  void Release(AttributeId id);
  const Attribute& at(AttributeId id) const { return attributes_[id]; }
  const RouteSpec& spec_of(AttributeId id) const { return specs_[attributes_[id].spec].spec; }
  // A spec that hands packets to the kernel, for what cannot be decided by destination alone.
  SpecId punt_spec() const { return punt_spec_; }

  bool usable(SpecId spec) const { return specs_[spec].usable; }
  bool flipped(SpecId spec) const { return specs_[spec].flipped; }
  bool moved(SpecId spec) const { return specs_[spec].moved; }
  const tables::Route& route(SpecId spec) const { return specs_[spec].route; }

  // The FIB's use of a spec.
  absl::StatusOr<tables::RouteId> AcquireRoute(SpecId spec);
  void ReleaseRoute(SpecId spec);
  tables::RouteId route_id(SpecId spec) const { return specs_[spec].id; }

  // Nexthop objects. After them, and after any change of links or slots, call Refresh.
  void SetNexthop(const NexthopUpdate& nexthop);
  bool RemoveNexthop(uint32_t id);  // false when unknown
  const absl::flat_hash_map<uint32_t, NexthopUpdate>& nexthops() const { return nexthops_; }

  // Resolves every spec anew and changes the sink's routes. True when a spec's usability changed
  // (flipped) or its RouteId did (moved): then the RIBs must rescan, and ClearMarks ends it.
  bool Refresh();
  void ClearMarks();

  // Tells what came before from what comes after.
  uint64_t NextStamp() { return ++stamp_; }

  size_t attributes() const { return keys_.size(); }
  size_t specs() const { return spec_keys_.size(); }
  size_t memory_bytes() const;
  uint64_t sink_errors() const { return sink_errors_; }
  const std::string& last_error() const { return last_error_; }

 private:
  struct Spec {
    Family family = Family::kIpv4;
    RouteSpec spec;
    tables::Route route;
    std::string key;
    tables::RouteId id;
    uint64_t born = 0;        // stamp
    uint32_t attributes = 0;  // that refer to it
    uint32_t prefixes = 0;    // in the FIB with it
    bool usable = false;
    bool flipped = false;
    bool moved = false;
  };

  SpecId InternSpec(Family family, const RouteSpec& spec);
  void ReleaseSpec(SpecId id);
  // Sets route and usable.
  void Resolve(Spec& spec) const;
  bool AppendPath(const Spec& spec, const RoutePath& path, uint32_t weight, bool object,
                  tables::Route& route) const;
  void ResolveNexthop(const Spec& spec, tables::Route& route, bool& usable) const;

  RouteSink& sink_;
  LinkLookup links_;
  std::deque<Attribute> attributes_;  // addresses are stable: keys_ views into them
  std::vector<AttributeId> free_attributes_;
  absl::flat_hash_map<absl::string_view, AttributeId> keys_;
  std::deque<Spec> specs_;
  std::vector<SpecId> free_specs_;
  absl::flat_hash_map<absl::string_view, SpecId> spec_keys_;
  absl::flat_hash_map<uint32_t, NexthopUpdate> nexthops_;
  SpecId punt_spec_ = kNoSpec;
  std::string scratch_;
  AttributeId last_ = 0;  // the one interned last: a dump repeats itself
  uint64_t stamp_ = 0;
  uint64_t sink_errors_ = 0;
  std::string last_error_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RIB_ATTRIBUTE_STORE_H_
