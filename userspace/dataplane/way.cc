#include "dataplane/way.h"

namespace sluice::dataplane {

Way WayTo(const IpAddress& destination, const stages::RoutingTables& tables,
          const tables::Snapshot& snapshot) {
  Way way;
  const tables::RouteId id = destination.is_v4() ? tables.fib4.Lookup(destination.v4())
                                                 : tables.fib6.Lookup(destination.v6());
  if (!id.valid()) return way;
  const tables::Route& route = tables.routes.Get(id);
  way.route = &route;
  way.id = id;
  if (route.type != tables::RouteType::kUnicast || route.paths.empty()) {
    way.punt = route.type == tables::RouteType::kPunt || route.type == tables::RouteType::kLocal ||
               route.type == tables::RouteType::kBroadcast;  // icmp_send answers a spoofed one
    return way;
  }
  const uint32_t hash = static_cast<uint32_t>(destination.v6().lo * 0x9e3779b97f4a7c15ull >> 32);
  const tables::Path& path = SelectPath(route, hash);
  if (!path.slot.valid() || !snapshot.at(path.slot).up) {
    way.punt = true;
    return way;
  }
  way.path = &path;
  way.next_hop = path.has_gateway ? path.gateway : destination;
  return way;
}

}  // namespace sluice::dataplane
