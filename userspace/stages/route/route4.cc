#include <algorithm>
#include <optional>

#include "base/byte_order.h"
#include "stages/route/route.h"
#include "wire/flow_hash.h"
#include "wire/icmp.h"
#include "wire/ipv4.h"

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

// For an ICMP error, the packet it quotes: errors travel with the flow they are about.
wire::Ipv4View FlowHeader(const Packet& p) {
  const wire::Ipv4View ip(p.l3());
  if (p.l4_protocol != wire::kProtocolIcmp || p.Has(packet::kFlagFragment)) return ip;
  const uint32_t need = p.l4_offset + uint32_t{wire::IcmpView::kSize} + wire::Ipv4View::kMinSize;
  if (p.segment_length < need || !wire::IsIcmpError(p.l4()[0])) return ip;
  return wire::Ipv4View(p.l4() + wire::IcmpView::kSize);
}

uint32_t FlowHash4(const Packet& p, uint8_t policy, uint64_t seed) {
  const wire::Ipv4View flow = FlowHeader(p);
  if (policy != 1) return wire::FlowHashL3(flow.source(), flow.destination(), seed);
  uint32_t ports = 0;
  const bool has_ports = p.l4_protocol == wire::kProtocolTcp ||
                         p.l4_protocol == wire::kProtocolUdp ||
                         p.l4_protocol == wire::kProtocolSctp;
  if (has_ports && !p.Has(packet::kFlagFragment) && p.segment_length >= p.l4_offset + 4u) {
    ports = LoadBe32(p.l4());
  }
  return wire::FlowHashL4(flow.source(), flow.destination(), p.l4_protocol, ports, seed);
}

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

// To the client behind the interface's own MAC address: not what a relay or a router in between has to
// pass on to others. XDP asks the same before early rules (bpf/include/dhcp.h).
bool IsDhcpReply(const Packet& p, const Interface& in) {
  if (!MayBeDhcpReply(p) || p.Has(packet::kFlagFragment | packet::kFlagOptions)) return false;
  if (wire::UdpView(p.l4()).source_port() != wire::kBootpServerPort) return false;
  const size_t offset = p.l4_offset + wire::UdpView::kSize;
  const auto bootp = wire::BootpView::Parse({p.data + offset, p.segment_length - offset});
  return bootp && bootp->IsReplyTo(in.mac);
}

// inet_addr_onlink: do both lie in one subnet of the interface? Without a `gateway`: does the
// sender?
bool OnSameSubnet(const Interface& interface, Ipv4 sender, std::optional<Ipv4> gateway) {
  return std::any_of(interface.addresses4.begin(), interface.addresses4.end(),
                     [&](const auto& own) {
                       const Ipv4Prefix subnet{own.address, own.prefix_length};
                       return subnet.Contains(sender) && (!gateway || subnet.Contains(*gateway));
                     });
}

bool HasAddress(const Interface& interface, Ipv4 address) {
  return std::any_of(interface.addresses4.begin(), interface.addresses4.end(),
                     [&](const auto& own) { return own.address == address; });
}

}  // namespace

Verdict ToVerdict(SourceCheck check) {
  switch (check) {
    case SourceCheck::kMartian:
      return Verdict::Drop(DropReason::kMartianSource);
    case SourceCheck::kReversePath:
      return Verdict::Drop(DropReason::kReversePath);
    case SourceCheck::kKernel:
      return Verdict::Punt(PuntReason::kRouteType);
    default:
      return Verdict::Continue();
  }
}

Verdict CheckUnusual4(const Packet& p, const Interface& in, const Snapshot& snapshot) {
  if (IsDhcpReply(p, in)) return Verdict::Punt(PuntReason::kDhcp);
  if (snapshot.firewall4) return Verdict::Punt(PuntReason::kFirewall);
  if (snapshot.policy_routing4) return Verdict::Punt(PuntReason::kPolicyRouting);
  const wire::Ipv4View ip(p.l3());
  const Ipv4 source = ip.source();
  const Ipv4 destination = ip.destination();
  if (destination.IsMulticast()) return Verdict::Punt(PuntReason::kMulticast);
  if (source.IsMulticast() || source.IsLimitedBroadcast()) {
    return Verdict::Drop(DropReason::kMartianSource);
  }
  if (destination.IsLimitedBroadcast() || (source.IsUnspecified() && destination.IsUnspecified())) {
    return Verdict::Punt(PuntReason::kBroadcast);
  }
  if (source.IsUnspecified()) return Verdict::Drop(DropReason::kMartianSource);
  if (destination.IsUnspecified()) return Verdict::Drop(DropReason::kMartianDestination);
  if (destination.IsLoopback() && !in.route_localnet) {
    return Verdict::Drop(DropReason::kMartianDestination);
  }
  if (source.IsLoopback() && !in.route_localnet) {
    return Verdict::Drop(DropReason::kMartianSource);
  }
  if (p.Has(packet::kFlagOptionsForKernel)) return Verdict::Punt(PuntReason::kIpOptions);
  return Verdict::Continue();
}

SourceCheck ValidateSourceByRoute4(Ipv4 source, const Interface& in, const RoutingTables& tables) {
  const SourceCheck last_resort = in.rp_filter != 0 ? SourceCheck::kReversePath : SourceCheck::kOk;
  const RouteId id = tables.fib4.Lookup(source);
  if (!id.valid()) return last_resort;
  const Route& route = tables.routes.Get(id);
  switch (route.type) {
    case RouteType::kUnicast:
      break;
    case RouteType::kLocal:
      if (in.accept_local) break;
      return SourceCheck::kMartian;
    case RouteType::kPunt:
      return SourceCheck::kKernel;
    case RouteType::kBlackhole:
    case RouteType::kUnreachable:
    case RouteType::kProhibit:
      return last_resort;  // the kernel's lookup fails for these
    default:
      return SourceCheck::kMartian;
  }
  const bool arrives_right = std::any_of(route.paths.begin(), route.paths.end(),
                                         [&](const Path& path) { return path.oif == in.ifindex; });
  // Local routes come without paths; theirs is the interface that has the address.
  if (route.type == RouteType::kLocal && HasAddress(in, source)) return SourceCheck::kOnLink;
  if (arrives_right) {
    return route.paths[0].has_gateway ? SourceCheck::kOk : SourceCheck::kOnLink;
  }
  if (in.addresses4.empty()) return last_resort;
  return in.rp_filter == 1 ? SourceCheck::kReversePath : SourceCheck::kOk;
}

namespace {

Verdict Decide(Packet& p, RouteId id, const Interface& in, const Snapshot& snapshot,
               const RoutingTables& tables, uint64_t hash_seed, RouteDecision& d) {
  const wire::Ipv4View ip(p.l3());
  if (!id.valid()) {
    return Verdict::Drop(in.forwarding4 ? DropReason::kNoRoute : DropReason::kForwardingOff);
  }
  const Route& route = tables.routes.Get(id);
  d.route = &route;
  switch (route.type) {
    case RouteType::kUnicast:
      break;
    case RouteType::kLocal:
      return Verdict::Local();
    case RouteType::kBroadcast:
      return Verdict::Punt(PuntReason::kBroadcast);
    case RouteType::kPunt:
      return Verdict::Punt(route.punt_reason);
    default:
      return in.forwarding4 ? NotForwardable(route.type)
                            : Verdict::Drop(DropReason::kForwardingOff);
  }
  if (!in.forwarding4) return Verdict::Drop(DropReason::kForwardingOff);

  const Path& path =
      route.paths.size() == 1
          ? route.paths[0]
          : SelectPath(route, FlowHash4(p, snapshot.multipath_hash_policy4, hash_seed));
  if (!path.slot.valid() || !snapshot.at(path.slot).up) {
    return Verdict::Punt(PuntReason::kUnservedOutput);
  }
  const SourceCheck source = ValidateSource4(ip.source(), in, path.slot, snapshot, tables);
  const Verdict source_verdict = ToVerdict(source);
  if (!source_verdict.is_continue()) return source_verdict;
  if (p.Has(packet::kFlagLinkMulticast)) return Verdict::Drop(DropReason::kL2Multicast);

  d.path = &path;
  d.next_hop = path.has_gateway ? path.gateway : IpAddress(ip.destination());
  p.out = path.slot;
  p.route_id = id.value;
  if (path.slot == in.slot && source == SourceCheck::kOnLink && in.send_redirects) {
    std::optional<Ipv4> gateway;
    if (path.has_gateway && path.gateway.is_v4()) gateway = path.gateway.v4();
    d.redirect = in.shared_media || OnSameSubnet(in, ip.source(), gateway);
  }
  return Verdict::Continue();
}

}  // namespace

RouteDecision DecideIpv4(Packet& p, RouteId id, const Interface& in, const Snapshot& snapshot,
                         const RoutingTables& tables, uint64_t hash_seed) {
  RouteDecision d;
  d.verdict = Decide(p, id, in, snapshot, tables, hash_seed, d);
  return d;
}

uint32_t ForwardingMtu4(const Route& route, const Interface& out) {
  constexpr uint32_t kMaxMtu = 0xfff0;  // IP_MAX_MTU
  return std::min(route.mtu != 0 ? route.mtu : out.mtu, kMaxMtu);
}

}  // namespace sluice::stages
