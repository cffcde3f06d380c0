// What a FIB leaf means: the result of a route, with its paths.
//
// A Route is built by the control thread, given to the RouteTable, and never changes afterwards;
// workers only read it. The first cache line holds what forwarding over a single path needs.
//
// Multipath follows the kernel: fib_rebalance and fib_select_multipath in net/ipv4/fib_semantics.c,
// rt6_upper_bound_set in net/ipv6/route.c and the hash-threshold groups of net/ipv4/nexthop.c all
// give path i the upper bound round(2^31 * (w_0 + ... + w_i) / sum) - 1, and choose the first path
// whose bound is not below the flow's 31-bit hash.
#ifndef SLUICE_TABLES_ROUTE_H_
#define SLUICE_TABLES_ROUTE_H_

#include <cstddef>
#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "base/address.h"
#include "base/ids.h"
#include "base/reason.h"
#include "tables/route_id.h"

namespace sluice::tables {

enum class RouteType : uint8_t {
  kUnicast,
  kLocal,
  kBroadcast,
  kMulticast,
  kAnycast,
  kBlackhole,
  kUnreachable,
  kProhibit,
  kPunt,  // the kernel decides; `punt_reason` says why
};

struct Path {
  IfIndex oif;
  IfaceSlot slot;  // none: the device is not served by Sluice
  bool has_gateway = false;
  bool onlink = false;
  uint32_t weight = 1;       // as the kernel's: rtnh_hops + 1. 0: dead, never selected
  int32_t upper_bound = -1;  // set by Rebalance; -1 is below every hash
  IpAddress gateway;         // an IPv4 route may have an IPv6 one (RTA_VIA)

  bool operator==(const Path&) const = default;
};

struct alignas(64) Route {
  static constexpr size_t kMaxPaths = 256;

  RouteType type = RouteType::kUnicast;
  PuntReason punt_reason = PuntReason::kRouteType;  // meaningful with kPunt only
  bool mtu_locked = false;
  bool has_prefsrc = false;
  uint32_t mtu = 0;  // RTAX_MTU; 0 when the route sets none
  // Empty for the types that do not forward. One path needs no memory of its own.
  absl::InlinedVector<Path, 1> paths;
  IpAddress prefsrc;  // RTA_PREFSRC, when has_prefsrc

  bool operator==(const Route&) const = default;
};

// Sets the upper bounds from the weights. The RouteTable does it for each route it takes in.
void Rebalance(Route& route);

// The path for a flow's hash, of which the low 31 bits count. The route must have a path. With all
// paths dead it is the first, as in the kernel.
inline const Path& SelectPath(const Route& route, uint32_t hash) {
  const Path* const paths = route.paths.data();
  const size_t count = route.paths.size();
  if (count == 1) return paths[0];
  const int32_t h = static_cast<int32_t>(hash & 0x7fff'ffff);
  for (size_t i = 0; i < count; ++i) {
    if (h <= paths[i].upper_bound) return paths[i];
  }
  return paths[0];
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_ROUTE_H_
