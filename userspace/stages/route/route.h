// Second stage: where does this packet go, and may it?
//
// Follows Linux' ip_route_input_slow, fib_validate_source, ip_forward (the address part) and
// ip6_route_input, ip6_forward, in their order. The FIB lookup itself has been made by the caller,
// for a whole burst at once. Reads headers, changes nothing but Packet::out and flags.
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

namespace sluice::stages {

// What routing reads. One per worker; the tables are shared and read wait-free.
struct RoutingTables {
  const tables::Fib4& fib4;
  const tables::Fib6& fib6;
  const tables::RouteTable& routes;
};

// Continue means forward: Packet::out, `path` and `next_hop` are set. Local means for this machine.
struct RouteDecision {
  packet::Verdict verdict = packet::Verdict::Continue();
  const tables::Route* route = nullptr;
  const tables::Path* path = nullptr;
  IpAddress next_hop;
  bool redirect = false;  // leaves as it came: the sender could reach the next hop itself
};

// Before the lookup: addresses that no table can decide about, and what is the kernel's anyway.
packet::Verdict CheckBeforeLookup4(const packet::Packet& p, const tables::Interface& in,
                                   const tables::Snapshot& snapshot);
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
enum class SourceCheck : uint8_t { kOk, kOnLink /* and its sender is a neighbour */, kMartian, kReversePath };
SourceCheck ValidateSource4(Ipv4 source, const tables::Interface& in, IfaceSlot out,
                            const tables::Snapshot& snapshot, const RoutingTables& tables);

// The MTU that forwarding goes by: the route's, else the output interface's. (Path MTUs learned
// for the machine's own connections are not used for forwarding, as ip_forward_use_pmtu=0 says.)
uint32_t ForwardingMtu4(const tables::Route& route, const tables::Interface& out);
uint32_t ForwardingMtu6(const tables::Route& route, const tables::Interface& out);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ROUTE_ROUTE_H_
