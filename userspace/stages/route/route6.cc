#include <algorithm>

#include "base/byte_order.h"
#include "stages/route/route.h"
#include "wire/flow_hash.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"

namespace sluice::stages {

using packet::Packet;
using packet::Verdict;
using tables::Interface;
using tables::Path;
using tables::Route;
using tables::RouteId;
using tables::RouteType;
using tables::Snapshot;

namespace {

uint32_t FlowHash6(const Packet& p, uint8_t policy, uint64_t seed) {
  wire::Ipv6View flow(p.l3());
  uint8_t protocol = p.l4_protocol;
  // An ICMPv6 error follows the flow it is about, so it is hashed as the packet it quotes.
  const uint32_t quoted = p.l4_offset + uint32_t{wire::Icmpv6View::kSize};
  if (p.l4_offset != 0 && protocol == wire::kProtocolIcmpv6 &&
      p.segment_length >= quoted + wire::Ipv6View::kSize && wire::IsIcmpv6Error(p.l4()[0])) {
    flow = wire::Ipv6View(p.data + quoted);
    protocol = flow.next_header();
  }
  if (policy != 1) {
    return wire::FlowHashL3(flow.source(), flow.destination(), flow.flow_label(), protocol, seed);
  }
  uint32_t ports = 0;
  const bool has_ports = p.l4_protocol == wire::kProtocolTcp ||
                         p.l4_protocol == wire::kProtocolUdp ||
                         p.l4_protocol == wire::kProtocolSctp;
  if (has_ports && p.l4_offset != 0 && !p.Has(packet::kFlagFragment) &&
      p.segment_length >= p.l4_offset + 4u) {
    ports = LoadBe32(p.l4());
  }
  return wire::FlowHashL4(flow.source(), flow.destination(), protocol, ports, seed);
}

// Linux answers all of these by ICMPv6, except the blackhole; ip6_rt_init_dst_reject.
Verdict NotForwardable(RouteType type) {
  switch (type) {
    case RouteType::kBlackhole:
      return Verdict::Drop(DropReason::kRouteBlackhole);
    case RouteType::kUnreachable:
      return Verdict::Drop(DropReason::kRouteUnreachable);
    case RouteType::kProhibit:
      return Verdict::Drop(DropReason::kRouteProhibit);
    default:
      return Verdict::Drop(DropReason::kMartianDestination);
  }
}

}  // namespace

Verdict CheckBeforeLookup6(const Packet& p, const Interface&, const Snapshot& snapshot) {
  if (snapshot.firewall6) return Verdict::Punt(PuntReason::kFirewall);
  if (snapshot.policy_routing6) return Verdict::Punt(PuntReason::kPolicyRouting);
  const Ipv6 destination = wire::Ipv6View(p.l3()).destination();
  if (destination.IsMulticast()) return Verdict::Punt(PuntReason::kMulticast);
  // Ours or not, such a packet stays on its link, and the kernel knows which address is on which.
  if (destination.IsLinkLocal()) return Verdict::Punt(PuntReason::kLocal);
  if (p.Has(packet::kFlagOptionsForKernel)) return Verdict::Punt(PuntReason::kIpOptions);
  return Verdict::Continue();
}

namespace {

Verdict Decide(Packet& p, RouteId id, const Interface& in, const Snapshot& snapshot,
               const RoutingTables& tables, uint64_t hash_seed, RouteDecision& d) {
  const wire::Ipv6View ip(p.l3());
  if (!id.valid()) return Verdict::Drop(DropReason::kNoRoute);
  const Route& route = tables.routes.Get(id);
  d.route = &route;
  switch (route.type) {
    case RouteType::kUnicast:
      break;
    case RouteType::kLocal:
      return Verdict::Local();
    case RouteType::kAnycast:  // whose answers come from another address
      return Verdict::Punt(PuntReason::kLocal);
    case RouteType::kMulticast:
    case RouteType::kBroadcast:
      return Verdict::Punt(PuntReason::kMulticast);
    case RouteType::kPunt:
      return Verdict::Punt(route.punt_reason);
    default:
      return NotForwardable(route.type);
  }
  if (!in.forwarding6) return Verdict::Drop(DropReason::kForwardingOff);
  if (in.proxy_ndp) return Verdict::Punt(PuntReason::kProxy);

  const Path& path =
      route.paths.size() == 1
          ? route.paths[0]
          : SelectPath(route, FlowHash6(p, snapshot.multipath_hash_policy6, hash_seed));
  if (!path.slot.valid() || !snapshot.at(path.slot).up) {
    return Verdict::Punt(PuntReason::kUnservedOutput);
  }
  if (p.Has(packet::kFlagLinkMulticast)) return Verdict::Drop(DropReason::kL2Multicast);

  d.path = &path;
  d.next_hop = path.has_gateway ? path.gateway : IpAddress(ip.destination());
  p.out = path.slot;
  p.route_id = id.value;
  d.redirect = path.slot == in.slot && !p.Has(packet::kFlagRoutingHeader);
  return Verdict::Continue();
}

}  // namespace

RouteDecision DecideIpv6(Packet& p, RouteId id, const Interface& in, const Snapshot& snapshot,
                         const RoutingTables& tables, uint64_t hash_seed) {
  RouteDecision d;
  d.verdict = Decide(p, id, in, snapshot, tables, hash_seed, d);
  return d;
}

uint32_t ForwardingMtu6(const Route& route, const Interface& out) {
  constexpr uint32_t kMinMtu = 1280;  // IPV6_MIN_MTU
  return std::max(route.mtu_locked && route.mtu != 0 ? route.mtu : out.mtu6, kMinMtu);
}

}  // namespace sluice::stages
