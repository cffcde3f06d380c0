// The way of a packet that this machine sends: a message of a router's, or a socket's.
//
// Cold next to forwarding: one lookup, and no batch. Thread: the owning worker.
#ifndef SLUICE_DATAPLANE_WAY_H_
#define SLUICE_DATAPLANE_WAY_H_

#include <algorithm>
#include <cstdint>

#include "base/address.h"
#include "stages/route/route.h"
#include "tables/route.h"
#include "tables/snapshot.h"

namespace sluice::dataplane {

struct Way {
  const tables::Route* route = nullptr;
  tables::RouteId id;  // of `route`
  const tables::Path* path = nullptr;  // null: no usable one; then:
  bool punt = false;                   // the kernel may have one
  IpAddress next_hop;
};

Way WayTo(const IpAddress& destination, const stages::RoutingTables& tables,
          const tables::Snapshot& snapshot);

// Of what this machine sends by that route.
inline uint32_t MtuOf(const tables::Route& route, const tables::Interface& out, Family family) {
  const uint32_t mtu = family == Family::kIpv4 ? out.mtu : out.mtu6;
  return route.mtu != 0 ? std::min(mtu, route.mtu) : mtu;
}

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_WAY_H_
