#include "dataplane/replies.h"

#include "stages/icmp/echo.h"
#include "stages/icmp/redirect.h"
#include "stages/icmp/source_address.h"
#include "stages/reject/unreachable.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Outbox;
using packet::Packet;
using stages::ForwardingMtu4;
using stages::IcmpError;
using tables::Interface;
using tables::Snapshot;

namespace {

Reply None() { return {}; }
Reply Punt() { return {.outcome = ReplyOutcome::kPunt, .message = {}, .next_hop = {}}; }

}  // namespace

Replies::Replies(const stages::RoutingTables& tables, WorkerCounters& counters, uint64_t seed,
                 Nanos start)
    : tables_(tables),
      counters_(counters),
      rng_(seed),
      peers_(kPeers, rng_.Next()),
      global_(start),
      ip_id_(static_cast<uint16_t>(rng_.Next())) {}

bool Replies::PassesGlobalLimit(const Snapshot& snapshot, Nanos now) {
  if (global_.Allow(now, snapshot.icmp.msgs_per_sec, snapshot.icmp.msgs_burst)) return true;
  counters_.icmp_rate_limited.Add();
  return false;
}

bool Replies::WithinLimits4(const IcmpError& error, DropReason reason, Ipv4 offender,
                            const Snapshot& snapshot, Nanos now) {
  // ip_error comes first, for routes that refuse; then what icmp_send does for any error.
  const bool route_refuses = reason == DropReason::kNoRoute ||
                             reason == DropReason::kRouteUnreachable ||
                             reason == DropReason::kRouteProhibit;
  tables::PeerBucket& peer = peers_.Get(offender, now);
  if (route_refuses && !peer.AllowUnreachable(now, {})) {
    counters_.icmp_rate_limited.Add();
    return false;
  }
  const bool limited = error.type < 32 && (snapshot.icmp.ratemask4 >> error.type & 1) != 0 &&
                       !(error.type == wire::kIcmpUnreachable &&
                         error.code == wire::kIcmpFragmentationNeeded);  // icmpv4_mask_allow
  if (!limited) return true;
  if (!PassesGlobalLimit(snapshot, now)) return false;
  if (!peer.AllowError(now, snapshot.icmp.ratelimit4)) {
    counters_.icmp_rate_limited.Add();
    return false;
  }
  global_.Consume(rng_);
  return true;
}

bool Replies::WithinLimits6(const Way& way, const Ipv6& offender, const Snapshot& snapshot,
                            Nanos now) {
  if (!PassesGlobalLimit(snapshot, now)) return false;
  // Linux knows the prefix length of the route back; the FIB gives its result only. A connected
  // route is nearly always a /64, one with a gateway nearly always the default route.
  const uint8_t prefix_length = way.path->has_gateway ? 0 : 64;
  const Nanos interval = tables::Icmpv6Interval(snapshot.icmp.ratelimit6, prefix_length);
  if (!peers_.Get(offender, now).AllowError(now, interval)) {
    counters_.icmp_rate_limited.Add();
    return false;
  }
  global_.Consume(rng_);
  return true;
}

Reply Replies::Build4(const Packet& offending, const IcmpError& error, const Way& way,
                      const Snapshot& snapshot, Outbox& outbox) {
  const Ipv4 offender = wire::Ipv4View(offending.l3()).source();
  auto source = stages::SelectSource4(*way.route, *way.path, snapshot);
  if (snapshot.icmp.errors_use_inbound_address) {
    const auto inbound = stages::InterfaceAddress4(snapshot.at(offending.in), offender,
                                                   stages::kScopeLink);
    if (inbound) source = inbound;
  }
  // icmp_send: what was for this machine is answered from the address that it was for.
  if (offending.Has(packet::kFlagStray | packet::kFlagSocket)) {
    source = wire::Ipv4View(offending.l3()).destination();
  }
  if (!source) return Punt();
  Reply reply;
  if (!stages::BuildError4(offending, error, *source, snapshot.default_ttl, ip_id_++,
                           ForwardingMtu4(*way.route, snapshot.at(way.path->slot)), outbox,
                           reply.message)) {
    return None();
  }
  reply.outcome = ReplyOutcome::kSend;
  reply.message.out = way.path->slot;
  reply.message.route_id = way.id.value;
  reply.next_hop = way.next_hop;
  reply.of_connection = true;
  return reply;
}

Reply Replies::Error4(const Packet& offending, DropReason reason, uint32_t mtu,
                      const Snapshot& snapshot, Nanos now, Outbox& outbox) {
  const auto error = stages::ErrorFor4(reason, mtu);
  return error ? Send4(offending, *error, reason, snapshot, now, outbox) : None();
}

Reply Replies::Send4(const Packet& offending, const IcmpError& error, DropReason reason,
                     const Snapshot& snapshot, Nanos now, Outbox& outbox) {
  if (!stages::MayBeAnswered4(offending)) return None();
  const Ipv4 offender = wire::Ipv4View(offending.l3()).source();
  const Way way = WayTo(offender, snapshot);
  if (way.path == nullptr) return way.punt ? Punt() : None();
  if (!WithinLimits4(error, reason, offender, snapshot, now)) return None();
  return Build4(offending, error, way, snapshot, outbox);
}

Reply Replies::Error6(const Packet& offending, DropReason reason, uint32_t mtu,
                      const Snapshot& snapshot, Nanos now, Outbox& outbox) {
  const auto error = stages::ErrorFor6(reason, mtu);
  return error ? Send6(offending, *error, snapshot, now, outbox) : None();
}

Reply Replies::Send6(const Packet& offending, const IcmpError& error, const Snapshot& snapshot,
                     Nanos now, Outbox& outbox) {
  if (!stages::MayBeAnswered6(offending)) return None();
  const Ipv6 offender = wire::Ipv6View(offending.l3()).source();
  // The way back to a link-local sender is the link it came by, which no table tells.
  Way way;
  if (offender.IsLinkLocal()) {
    if (!offending.in.valid()) return None();
    return Punt();
  }
  way = WayTo(offender, snapshot);
  if (way.path == nullptr) return way.punt ? Punt() : None();
  auto source = stages::SelectSource6(*way.route, offender, offending.in, snapshot);
  if (offending.Has(packet::kFlagStray | packet::kFlagSocket)) {
    source = wire::Ipv6View(offending.l3()).destination();
  }
  if (!source) return Punt();
  const bool limited = error.type != wire::kIcmpv6PacketTooBig;  // icmp6 ratemask's default
  if (limited && !WithinLimits6(way, offender, snapshot, now)) return None();
  Reply reply;
  if (!stages::BuildError6(offending, error, *source, snapshot.at(way.path->slot).hop_limit6,
                           outbox, reply.message)) {
    return None();
  }
  reply.outcome = ReplyOutcome::kSend;
  reply.message.out = way.path->slot;
  reply.message.route_id = way.id.value;
  reply.next_hop = way.next_hop;
  reply.of_connection = true;
  return reply;
}

Reply Replies::RejectError(const Packet& offending, Family family, uint8_t code,
                           const Snapshot& snapshot, Nanos now, Outbox& outbox) {
  if (!stages::MayBeRefused(outbox.pool().arena(), offending, family)) return None();
  if (family == Family::kIpv4) {
    return Send4(offending, {wire::kIcmpUnreachable, code}, DropReason::kFirewallReject, snapshot,
                 now, outbox);
  }
  return Send6(offending, {wire::kIcmpv6Unreachable, code}, snapshot, now, outbox);
}

Reply Replies::Reset(const Packet& segment, Family family, const Snapshot& snapshot,
                     Outbox& outbox, stages::ResetBy by) {
  if (!stages::MayBeReset(outbox.pool().arena(), segment, family)) return None();
  const bool v4 = family == Family::kIpv4;
  const IpAddress sender = v4 ? IpAddress(wire::Ipv4View(segment.l3()).source())
                              : IpAddress(wire::Ipv6View(segment.l3()).source());
  const Way way = WayTo(sender, snapshot);
  if (way.path == nullptr) return way.punt ? Punt() : None();
  const uint8_t ttl = v4 ? snapshot.default_ttl : snapshot.at(way.path->slot).hop_limit6;
  Reply reply;
  if (!stages::BuildReset(segment, family, by, ttl, outbox, reply.message)) return None();
  reply.outcome = ReplyOutcome::kSend;
  reply.message.out = way.path->slot;
  reply.message.route_id = way.id.value;
  reply.next_hop = way.next_hop;
  reply.of_connection = true;
  return reply;
}

Reply Replies::Redirect4(const Packet& p, Ipv4 next_hop, const Snapshot& snapshot, Nanos now,
                         Outbox& outbox) {
  if (!stages::MayBeAnswered4(p)) return None();
  const Ipv4 sender = wire::Ipv4View(p.l3()).source();
  const Way way = WayTo(sender, snapshot);
  if (way.path == nullptr || !peers_.Get(sender, now).AllowRedirect(now, {})) return None();
  Reply reply = Build4(p, {wire::kIcmpRedirect, wire::kIcmpRedirectHost, next_hop.value}, way,
                       snapshot, outbox);
  if (reply.outcome != ReplyOutcome::kSend) return None();  // the packet itself goes on
  reply.message.generated = static_cast<uint8_t>(GeneratedKind::kRedirect);
  return reply;
}

Reply Replies::Redirect6(const Packet& p, const Ipv6& target, const Mac* target_mac,
                         const Snapshot& snapshot, Nanos now, Outbox& outbox) {
  const wire::Ipv6View ip(p.l3());
  const Ipv6 sender = ip.source();
  // ndisc_send_redirect: to a neighbour, about a link-local router or the destination itself.
  if (sender.IsUnspecified() || sender.IsMulticast()) return None();
  if (target != ip.destination() && !target.IsLinkLocal()) return None();
  const Interface& link = snapshot.at(p.in);
  const Ipv6* own = nullptr;
  for (const auto& a : link.addresses6) {
    if (a.address.IsLinkLocal() && !a.tentative) own = &a.address;
  }
  if (own == nullptr) return None();
  if (!sender.IsLinkLocal()) {
    const Way way = WayTo(sender, snapshot);
    if (way.path == nullptr || way.path->has_gateway || way.path->slot != p.in) return None();
  }
  // ip6_forward limits by the packet's destination, ndisc_send_redirect by its sender.
  if (!peers_.Get(ip.destination(), now).AllowError(now, Seconds(1))) return None();
  if (!peers_.Get(sender, now).AllowError(now, Seconds(1))) return None();
  Reply reply;
  const auto mac = target_mac != nullptr ? std::optional<Mac>(*target_mac) : std::nullopt;
  if (!stages::BuildRedirect6(p, *own, target, mac, outbox, reply.message)) return None();
  reply.outcome = ReplyOutcome::kSend;
  reply.message.out = p.in;
  reply.next_hop = sender;
  return reply;
}

Reply Replies::Echo4(Packet& request, const Snapshot& snapshot) {
  const Way way = WayTo(wire::Ipv4View(request.l3()).source(), snapshot);
  if (way.path == nullptr) return Punt();
  if (request.l3_length() > ForwardingMtu4(*way.route, snapshot.at(way.path->slot))) return Punt();
  stages::MakeEchoReply4(request, snapshot.default_ttl, ip_id_++);
  request.out = way.path->slot;
  request.route_id = way.id.value;
  return {.outcome = ReplyOutcome::kSend, .message = request, .next_hop = way.next_hop};
}

Reply Replies::Echo6(Packet& request, const Snapshot& snapshot) {
  const Ipv6 requester = wire::Ipv6View(request.l3()).source();
  if (requester.IsLinkLocal()) return Punt();
  const Way way = WayTo(requester, snapshot);
  if (way.path == nullptr) return Punt();
  // For packets of our own a route's MTU counts, locked or not.
  const uint32_t mtu = way.route->mtu != 0 ? way.route->mtu : snapshot.at(way.path->slot).mtu6;
  if (request.l3_length() > mtu) return Punt();
  stages::MakeEchoReply6(request, snapshot.at(way.path->slot).hop_limit6);
  request.out = way.path->slot;
  request.route_id = way.id.value;
  return {.outcome = ReplyOutcome::kSend, .message = request, .next_hop = way.next_hop};
}

}  // namespace sluice::dataplane
