// One kernel route as rtnetlink tells of it, free of netlink itself, so that the RIB can be tested
// with made-up ones.
//
// An IPv6 multipath route is one update with several paths here, although the kernel keeps one
// entry per path (its messages carry them together: net/ipv6/route.c, rt6_fill_node).
#ifndef SLUICE_CONTROL_RIB_ROUTE_UPDATE_H_
#define SLUICE_CONTROL_RIB_ROUTE_UPDATE_H_

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "base/address.h"
#include "base/ids.h"

namespace sluice::control {

// RTN_* of linux/rtnetlink.h, same values.
enum class RouteType : uint8_t {
  kUnspecified = 0,
  kUnicast = 1,
  kLocal = 2,
  kBroadcast = 3,
  kAnycast = 4,
  kMulticast = 5,
  kBlackhole = 6,
  kUnreachable = 7,
  kProhibit = 8,
  kThrow = 9,
  kNat = 10,
  kExternalResolve = 11,
};

// The tables that the default rules consult, in their order.
enum class RouteTableId : uint8_t { kLocal = 0, kMain = 1, kDefault = 2 };
inline constexpr size_t kRouteTableCount = 3;

struct RoutePath {
  IfIndex oif;
  bool has_gateway = false;
  bool onlink = false;
  uint16_t weight = 1;
  IpAddress gateway;  // may be of the other family (RTA_VIA)

  bool operator==(const RoutePath&) const = default;
};

using RoutePaths = absl::InlinedVector<RoutePath, 1>;

// What decides about a packet; what remains (metric, protocol, ...) only tells routes apart.
struct RouteSpec {
  RouteType type = RouteType::kUnicast;
  bool host_scope = false;  // RT_SCOPE_HOST: stays valid while its device is down
  bool encapsulated = false;
  bool mtu_locked = false;
  uint32_t mtu = 0;         // 0: the device's
  uint32_t nexthop_id = 0;  // a nexthop object; paths are then empty
  bool has_prefsrc = false;
  IpAddress prefsrc;
  RoutePaths paths;
};

struct RouteUpdate {
  Family family = Family::kIpv4;
  RouteTableId table = RouteTableId::kMain;
  uint8_t tos = 0;
  uint8_t protocol = 0;
  uint8_t scope = 0;
  uint8_t preference = 0;  // RTA_PREF as sent: 0 medium, 1 high, 3 low
  uint8_t length = 0;      // of the prefix
  Ipv6 destination;        // IPv4 in `lo`, as in IpAddress
  uint32_t metric = 0;
  uint32_t metrics_hash = 0;  // of RTA_METRICS: two routes may differ in nothing else
  bool replace = false;       // NLM_F_REPLACE
  bool append = false;        // NLM_F_APPEND
  RouteSpec spec;
};

// What RTM_NEWNEXTHOP tells.
struct NexthopUpdate {
  struct Member {
    uint32_t id;
    uint16_t weight;
    bool operator==(const Member&) const = default;
  };
  uint32_t id = 0;
  bool blackhole = false;
  bool encapsulated = false;
  bool fdb = false;  // for bridges, of no use to a router
  RoutePath path;    // unless blackhole or group
  absl::InlinedVector<Member, 4> group;

  bool operator==(const NexthopUpdate&) const = default;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RIB_ROUTE_UPDATE_H_
