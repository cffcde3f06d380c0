// The second half of the pipeline: packets whose route is known.
#include <algorithm>

#include "dataplane/pipeline.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment6.h"
#include "stages/icmp/echo.h"
#include "wire/ethernet.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Verdict;
using tables::Interface;

void Pipeline::GiveBackHop(Packet& p) {
  if (p.l3()[0] >> 4 == 4) {
    wire::Ipv4Mutable ip(p.l3());
    ip.set_ttl(static_cast<uint8_t>(ip.ttl() + 1));
    ip.FillChecksum();
  } else {
    wire::Ipv6Mutable ip(p.l3());
    ip.set_hop_limit(static_cast<uint8_t>(ip.hop_limit() + 1));
  }
}

// A packet whose neighbour did not answer has been through the forwarding already. Before the kernel
// forwards it once more, and answers, the hop counted here is given back. False for a piece of a
// packet that has been fragmented here: the kernel cannot have the whole of it.
bool Pipeline::RestoreHops(Packet& p, DropReason reason) {
  if (reason != DropReason::kNeighborFailed) return true;
  if (p.Has(packet::kFlagFragment)) return false;
  GiveBackHop(p);
  return true;
}

// ip_forward and ip_finish_output.
void Pipeline::Forward4(Packet& p, const stages::RouteDecision& d, const Snapshot& snapshot,
                        Nanos now) {
  wire::Ipv4Mutable ip(p.l3());
  if (ip.ttl() <= 1) return Refuse4(p, DropReason::kTtlExpired, snapshot, now);
  const uint32_t mtu = stages::ForwardingMtu4(*d.route, snapshot.at(p.out));
  const stages::MtuDecision fits = stages::DecideMtu4(p, mtu);
  if (fits == stages::MtuDecision::kTooBig) {
    return Refuse4(p, DropReason::kFragmentationNeeded, snapshot, now, mtu);
  }
  CompleteChecksum(p, snapshot);
  ip.DecrementTtl();
  if (d.redirect) {
    // A redirect names an IPv4 address; for an IPv6 gateway that is the destination (rt_nexthop).
    const Ipv4 target = d.next_hop.is_v4() ? d.next_hop.v4() : ip.destination();
    const Reply redirect = replies_.Redirect4(p, target, snapshot, now, outbox_);
    if (redirect.outcome == ReplyOutcome::kSend) {
      Send(redirect, Family::kIpv4, &p, snapshot, now);
    }
  }
  if (firewall_.active(Family::kIpv4) && !PassesForward(p, Family::kIpv4, d.next_hop, snapshot, now)) {
    return;
  }
  if (fits == stages::MtuDecision::kFragment) {
    return Fragment<stages::Ipv4Fragmenter>(p, Family::kIpv4, d.next_hop, mtu, snapshot, now);
  }
  if (offload_.enabled()) Offer(p, Family::kIpv4, d, mtu, snapshot);
  Output(p, Family::kIpv4, d.next_hop, snapshot, now);
}

template <class Fragmenter>
void Pipeline::Fragment(Packet& p, Family family, const IpAddress& next_hop, uint32_t mtu,
                        const Snapshot& snapshot, Nanos now) {
  Fragmenter fragmenter(p, mtu, outbox_);
  for (bool first = true; !fragmenter.done(); first = false) {
    Packet piece;
    if (!fragmenter.Next(piece)) {
      // The first piece carries the packet's fate; without it the packet is dropped as a whole.
      if (first) return Drop(p, DropReason::kNoFrames);
      // The rest counts as one piece, made and dropped.
      counters_.generated[static_cast<size_t>(GeneratedKind::kFragment)].Add();
      counters_.generated_dropped.Add();
      break;
    }
    if (!first) {
      counters_.generated[piece.generated].Add();
    } else {
      piece.generated = p.generated;
    }
    Output(piece, family, next_hop, snapshot, now);
  }
  tracer_.End(p, TraceOutcome::kForwarded);
  packet::FreePacket(outbox_.pool(), p);
}

template void Pipeline::Fragment<stages::Ipv4Fragmenter>(Packet&, Family, const IpAddress&, uint32_t,
                                                         const Snapshot&, Nanos);
template void Pipeline::Fragment<stages::Ipv6Fragmenter>(Packet&, Family, const IpAddress&, uint32_t,
                                                         const Snapshot&, Nanos);

// ip6_forward and ip6_finish_output. Routers fragment no IPv6 packet but those that came in
// fragments and were put together for the rules.
void Pipeline::Forward6(Packet& p, const stages::RouteDecision& d, const Snapshot& snapshot,
                        Nanos now) {
  wire::Ipv6Mutable ip(p.l3());
  if (ip.hop_limit() <= 1) return Refuse6(p, DropReason::kTtlExpired, snapshot, now);
  if (d.redirect) {
    const Ipv6 target = d.next_hop.v6();
    const Mac* const mac = neighbors_.Resolve(p.out, d.next_hop, now);
    const Reply redirect = replies_.Redirect6(p, target, mac, snapshot, now, outbox_);
    if (redirect.outcome == ReplyOutcome::kSend) {
      Send(redirect, Family::kIpv6, &p, snapshot, now);
    }
  } else {
    const Ipv6 source = ip.source();
    if (source.IsUnspecified()) return Drop(p, DropReason::kMartianSource);
    if (source.IsLinkLocal()) return Refuse6(p, DropReason::kLinkLocal, snapshot, now);
  }
  const uint32_t mtu = stages::ForwardingMtu6(*d.route, snapshot.at(p.out));
  const stages::MtuDecision fits = stages::DecideMtu6(p, mtu);
  if (fits == stages::MtuDecision::kTooBig) return Refuse6(p, DropReason::kPacketTooBig, snapshot, now, mtu);
  CompleteChecksum(p, snapshot);
  ip.DecrementHopLimit();
  if (firewall_.active(Family::kIpv6) && !PassesForward(p, Family::kIpv6, d.next_hop, snapshot, now)) {
    return;
  }
  // An MTU of the route that is not locked counts in ip6_finish_output only, and so late that the
  // error quotes the new hop limit.
  const uint32_t size = p.fragment_size != 0 ? p.fragment_size : p.l3_length();
  if (d.route->mtu != 0 && size > d.route->mtu) {
    return Refuse6(p, DropReason::kPacketTooBig, snapshot, now, d.route->mtu);
  }
  if (fits == stages::MtuDecision::kFragment) {
    return Fragment<stages::Ipv6Fragmenter>(p, Family::kIpv6, d.next_hop, mtu, snapshot, now);
  }
  if (offload_.enabled()) {
    Offer(p, Family::kIpv6, d, d.route->mtu != 0 ? std::min(mtu, d.route->mtu) : mtu, snapshot);
  }
  Output(p, Family::kIpv6, d.next_hop, snapshot, now);
}

void Pipeline::Refuse4(Packet& p, DropReason reason, const Snapshot& snapshot, Nanos now,
                       uint32_t mtu) {
  const Reply reply = replies_.Error4(p, reason, mtu, snapshot, now, outbox_);
  if (reply.outcome == ReplyOutcome::kPunt && RestoreHops(p, reason)) {
    return Punt(p, PuntReason::kReplyRoute, snapshot);
  }
  if (reply.outcome == ReplyOutcome::kSend) Send(reply, Family::kIpv4, &p, snapshot, now);
  Drop(p, reason);
}

void Pipeline::Refuse6(Packet& p, DropReason reason, const Snapshot& snapshot, Nanos now,
                       uint32_t mtu) {
  const Reply reply = replies_.Error6(p, reason, mtu, snapshot, now, outbox_);
  if (reply.outcome == ReplyOutcome::kPunt && RestoreHops(p, reason)) {
    return Punt(p, PuntReason::kReplyRoute, snapshot);
  }
  if (reply.outcome == ReplyOutcome::kSend) Send(reply, Family::kIpv6, &p, snapshot, now);
  Drop(p, reason);
}

}  // namespace sluice::dataplane
