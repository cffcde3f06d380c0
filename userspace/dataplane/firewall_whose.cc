// Whose a packet is that netfilter's hooks see before its route: the kernel's, a socket's of ours, or to be
// forwarded. See firewall.h, "Who decides".
#include "dataplane/firewall_pass.h"
#include "stages/conntrack/tuple.h"

namespace sluice::dataplane {

using packet::Packet;
using stages::NatManip;
using tables::CtState;
using tables::Flow;
using tables::FlowDirection;
using tables::HookPoint;
using tables::RouteType;
using tables::Snapshot;

bool Firewall::IsKernels(const IpAddress& destination, const Snapshot& snapshot,
                         PuntReason& reason) const {
  // Whatever unicast route its address happens to match.
  if (destination.is_v4() ? destination.v4().IsMulticast() : destination.v6().IsMulticast()) {
    reason = PuntReason::kMulticast;
    return true;
  }
  const tables::RouteId id = destination.is_v4() ? tables_.fib4.Lookup(destination.v4())
                                                 : tables_.fib6.Lookup(destination.v6());
  if (!id.valid()) return false;
  const tables::Route& route = tables_.routes.Get(id);
  switch (route.type) {
    case RouteType::kLocal:
    case RouteType::kAnycast:
      reason = PuntReason::kLocal;
      return true;
    case RouteType::kBroadcast:
      reason = PuntReason::kBroadcast;
      return true;
    case RouteType::kMulticast:
      reason = PuntReason::kMulticast;
      return true;
    case RouteType::kPunt:
      reason = route.punt_reason;
      return true;
    case RouteType::kUnicast:
      break;
    default:
      return false;
  }
  for (const tables::Path& path : route.paths) {
    if (path.slot.valid() && snapshot.at(path.slot).up) return false;
  }
  reason = PuntReason::kUnservedOutput;
  return true;
}

// Of a dry run: whether the rules before conntrack neither end the packet nor keep it untracked.
bool Firewall::ReachesConntrack(Pass& dry) {
  return Begin(dry).accepted() &&
         Run(HookPoint::kPreroutingRaw, dry).accepted() && !IsState(dry.p, CtState::kUntracked);
}

// Whether the rules, which have no effect this time, would send the first packet of a connection
// elsewhere, and where. Of what the rules write to the packet they see the marks only.
bool Firewall::ForeseesDestination(Pass& pass, const Key& key,
                                   stages::Nat::Destination& destination) {
  if (!ruleset_->Has(HookPoint::kPreroutingNat, pass.family) || key.hash == 0 || key.error) {
    return false;
  }
  Packet p = pass.p;
  Flow flow{};
  Pass dry = pass.DryRun(p);
  if (!ReachesConntrack(dry)) return false;
  flow.tuple(FlowDirection::kOriginal) = key.tuple;
  if (!stages::InvertTuple(key.tuple, flow.tuple(FlowDirection::kReply))) return false;
  flow.count(FlowDirection::kOriginal) = {1, p.l3_length()};
  p.ct_state = static_cast<uint8_t>(CtState::kNew);
  dry.scratch = &flow;
  if (!Run(HookPoint::kPreroutingEarly, dry).accepted() ||
      !Run(HookPoint::kPreroutingNat, dry).accepted() || !dry.wants_nat ||
      stages::Nat::ManipOf(dry.wanted.kind) != NatManip::kDestination ||
      !conntrack_.WouldTrack(pass.p, key.tuple, {}, pass.snapshot.conntrack, arena_, pass.now)) {
    return false;
  }
  const auto foreseen = nat_.Foresee(
      flow, dry.wanted, {.snapshot = pass.snapshot, .in = pass.in->slot, .out = {}, .next_hop = {}});
  if (foreseen) destination = *foreseen;
  return foreseen.has_value();
}

// Whether it claims to be sent by this machine: then it may be of a connection that only the kernel
// knows.
bool Firewall::IsOwnSource(const Pass& pass) const {
  if (pass.family == Family::kIpv4) {
    return pass.snapshot.own4.Contains(wire::Ipv4View(pass.p.l3()).source()) &&
           !pass.in->accept_local;
  }
  const tables::RouteId id = tables_.fib6.Lookup(wire::Ipv6View(pass.p.l3()).source());
  return id.valid() && tables_.routes.Get(id).type == RouteType::kLocal;
}

// Whether a rule will keep a packet with an entry in the table from conntrack.
bool Firewall::StaysUntracked(const Pass& pass) {
  if (!ruleset_->has_notrack()) return false;
  Packet p = pass.p;
  Pass dry = pass.DryRun(p);
  return !ReachesConntrack(dry) && IsState(p, CtState::kUntracked);
}

// Whether a packet with an entry in the table will be of its connection, once conntrack has seen it.
bool Firewall::FollowsFlow(const Pass& pass, const Key& key,
                           const tables::FlowTable::Found& found) {
  if (!key.error) {
    return conntrack_.WouldTrack(pass.p, key.tuple, found, pass.snapshot.conntrack, arena_,
                                 pass.now);
  }
  return DestinationOf(pass.p, pass.family).bits == key.tuple.destination;
}

// Whether no rule before routing ends it, as one that is invalid. (The kernel, which does not know
// the connection, may take it for the first packet of another.)
bool Firewall::PassesWithoutFlow(const Pass& pass) {
  Packet p = pass.p;
  Pass dry = pass.DryRun(p);
  const bool reaches = ReachesConntrack(dry);
  if (!reaches && !IsState(p, CtState::kUntracked)) return false;
  if (reaches) p.ct_state = static_cast<uint8_t>(CtState::kInvalid);
  return Run(HookPoint::kPreroutingEarly, dry).accepted() &&
         Run(HookPoint::kPreroutingLate, dry).accepted();
}

// A packet without a connection here.
bool Firewall::IsKernelsWithoutFlow(Pass& pass, const Key& key, PuntReason& reason) {
  if (key.hash != 0 && !key.error && IsOwnSource(pass)) {
    reason = PuntReason::kLocal;
    return true;
  }
  const bool kernels = IsKernels(DestinationOf(pass.p, pass.family), pass.snapshot, reason);
  stages::Nat::Destination translated;
  if (!ForeseesDestination(pass, key, translated)) {
    if (kernels && (reason == PuntReason::kLocal || reason == PuntReason::kMulticast) &&
        IsSockets(pass.p)) [[unlikely]] {
      return false;
    }
    // Its later packets are not asked again, whatever the rules would say to them.
    if (kernels && ruleset_->Has(HookPoint::kPreroutingNat, pass.family) && BeginsFlow(pass, key)) {
      Claim(pass, key);
    }
    return kernels;
  }
  if (!IsKernels(translated.address, pass.snapshot, reason)) return false;
  if (reason == PuntReason::kLocal && IsSockets(pass.p, translated)) [[unlikely]] return false;
  Claim(pass, key);
  return true;
}

// Of the kernel's connection: whether a socket of ours has come since that its datagrams are for. (A
// segment's connection is known to the kernel's TCP.)
bool Firewall::IsSocketsByNow(Pass& pass, const Key& key) {
  if (sockets_ == nullptr || !sockets_->active() || key.error ||
      pass.p.l4_protocol != wire::kProtocolUdp || IsOwnSource(pass)) {
    return false;
  }
  PuntReason reason;
  stages::Nat::Destination translated;
  if (ForeseesDestination(pass, key, translated)) {
    return !translated.guessed && IsKernels(translated.address, pass.snapshot, reason) &&
           reason == PuntReason::kLocal && IsSockets(pass.p, translated);
  }
  return IsKernels(DestinationOf(pass.p, pass.family), pass.snapshot, reason) &&
         (reason == PuntReason::kLocal || reason == PuntReason::kMulticast) && IsSockets(pass.p);
}

// Whether conntrack would take it for the first packet of a connection.
bool Firewall::BeginsFlow(const Pass& pass, const Key& key) const {
  return key.hash != 0 && !key.error &&
         conntrack_.WouldTrack(pass.p, key.tuple, {}, pass.snapshot.conntrack, arena_, pass.now);
}

// For the kernel: whatever rules say to its later packets, this connection is the kernel's.
void Firewall::Claim(Pass& pass, const Key& key) {
  static_cast<void>(conntrack_.Track(pass.p, key.tuple, key.hash, pass.snapshot.conntrack, arena_,
                                     pass.now));
  LeaveToKernel(pass.p, pass.now);
}

}  // namespace sluice::dataplane
