// Second stage: where does this packet go, and may it?
//
// Follows Linux' ip_route_input_slow, fib_validate_source, ip_forward (the address part) and
// ip6_route_input, ip6_forward, in their order. The FIB lookup itself has been made by the caller,
// for a whole burst at once. Reads headers, changes nothing but Packet::out, route_id and flags.
//
// What the kernel must decide (policy routing, netfilter, options that ask for action, devices that
// Sluice does not serve) is punted before anything is judged here.
#ifndef SLUICE_STAGES_ROUTE_ROUTE_H_
#define SLUICE_STAGES_ROUTE_ROUTE_H_

#include "base/address.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "tables/fib.h"
#include "tables/route.h"
#include "tables/route_table.h"
#include "tables/snapshot.h"
#include "wire/bootp.h"
#include "wire/ipv4.h"
#include "wire/protocol.h"
#include "wire/udp.h"

namespace sluice::stages {

// What routing reads. One per worker; the tables are shared and read wait-free.
struct RoutingTables {
  const tables::Fib4& fib4;
  const tables::Fib6& fib6;
  const tables::RouteTable& routes;
};

// Continue means forward: Packet::out and route_id, `path` and `next_hop` are set. Local means for this machine.
struct RouteDecision {
  packet::Verdict verdict = packet::Verdict::Continue();
  const tables::Route* route = nullptr;
  const tables::Path* path = nullptr;
  IpAddress next_hop;
  bool redirect = false;  // leaves as it came: the sender could reach the next hop itself
};

// What only a closer look can tell from a reply to this machine's own DHCP client (IsDhcpReply).
inline bool MayBeDhcpReply(const packet::Packet& p) {
  return p.l4_protocol == wire::kProtocolUdp &&
         p.segment_length >= p.l4_offset + wire::UdpView::kSize &&
         wire::UdpView(p.l4()).destination_port() == wire::kBootpClientPort;
}

// Before the lookup, and before any rule: addresses that no table can decide about, and what is the
// kernel's anyway. Among it what a DHCP server sends to a client on this machine, to an address that
// is not this machine's yet (RFC 2131 section 4.1): a packet socket gets it, which sees packets before
// netfilter and routing do.
packet::Verdict CheckUnusual4(const packet::Packet& p, const tables::Interface& in,
                              const tables::Snapshot& snapshot);
inline packet::Verdict CheckBeforeLookup4(const packet::Packet& p, const tables::Interface& in,
                                          const tables::Snapshot& snapshot) {
  // Neither 0/8, 127/8 nor anything from 224/4 on: nothing to object to.
  const auto ordinary = [](Ipv4 a) {
    const uint32_t top = a.value >> 24;
    return top - 1 < 223 && top != 127;
  };
  const wire::Ipv4View ip(p.l3());
  if (ordinary(ip.source()) && ordinary(ip.destination()) && !snapshot.firewall4 &&
      !snapshot.policy_routing4 && !p.Has(packet::kFlagOptionsForKernel) && !MayBeDhcpReply(p))
      [[likely]] {
    return packet::Verdict::Continue();
  }
  return CheckUnusual4(p, in, snapshot);
}
packet::Verdict CheckBeforeLookup6(const packet::Packet& p, const tables::Interface& in,
                                   const tables::Snapshot& snapshot);

// After it, with the destination's route (None: no route).
RouteDecision DecideIpv4(packet::Packet& p, tables::RouteId id, const tables::Interface& in,
                         const tables::Snapshot& snapshot, const RoutingTables& tables,
                         uint64_t hash_seed);
RouteDecision DecideIpv6(packet::Packet& p, tables::RouteId id, const tables::Interface& in,
                         const tables::Snapshot& snapshot, const RoutingTables& tables,
                         uint64_t hash_seed);

// fib_validate_source: may a packet from `source` come in by `in`? `out` is where it will leave,
// none for a packet for this machine.
enum class SourceCheck : uint8_t {
  kOk,
  kOnLink,  // and its sender is a neighbour
  kMartian,
  kReversePath,
  kKernel,  // the way back is of a kind that only the kernel can judge
};
packet::Verdict ToVerdict(SourceCheck check);
SourceCheck ValidateSourceByRoute4(Ipv4 source, const tables::Interface& in,
                                   const RoutingTables& tables);
inline SourceCheck ValidateSource4(Ipv4 source, const tables::Interface& in, IfaceSlot out,
                                   const tables::Snapshot& snapshot, const RoutingTables& tables) {
  if (in.rp_filter == 0 && (out != in.slot || !in.send_redirects)) [[likely]] {
    if (in.accept_local || !snapshot.own4.Contains(source)) return SourceCheck::kOk;
    return SourceCheck::kMartian;
  }
  return ValidateSourceByRoute4(source, in, tables);
}

// The MTU that forwarding goes by: the route's, else the output interface's. (Path MTUs learned
// for the machine's own connections are not used for forwarding, as ip_forward_use_pmtu=0 says.)
// IPv6 forwarding heeds a route's MTU only when it is locked (ip6_dst_mtu_maybe_forward).
uint32_t ForwardingMtu4(const tables::Route& route, const tables::Interface& out);
uint32_t ForwardingMtu6(const tables::Route& route, const tables::Interface& out);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ROUTE_ROUTE_H_
