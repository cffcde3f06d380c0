// Packets for this machine: to its sockets, answered, or the kernel's; and what its sockets send.
#include "dataplane/pipeline.h"
#include "stages/icmp/echo.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Verdict;
using tables::Interface;

// An echo request is answered here unless the kernel's INPUT rules could object; everything else for
// this machine is a socket's or the kernel's.
void Pipeline::Local4(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  if (p.Has(packet::kFlagStray)) return RefuseStray(p, Family::kIpv4, in, snapshot, now);
  if (sockets_.active() && ReachesSocket(p, Family::kIpv4, in, snapshot, now)) [[unlikely]] return;
  const bool answers = !snapshot.input_firewall4 && !firewall_.JudgesAnswers(Family::kIpv4) &&
                       !snapshot.icmp.echo_ignore_all4;
  if (!answers || !stages::IsEchoRequest4(p)) return Punt(p, PuntReason::kLocal, snapshot);
  const Ipv4 requester = wire::Ipv4View(p.l3()).source();
  switch (stages::ValidateSource4(requester, in, IfaceSlot::None(), snapshot, tables_)) {
    case stages::SourceCheck::kMartian:
      return Drop(p, DropReason::kMartianSource);
    case stages::SourceCheck::kReversePath:
      return Drop(p, DropReason::kReversePath);
    case stages::SourceCheck::kKernel:
      return Punt(p, PuntReason::kRouteType, snapshot);
    default:
      break;
  }
  if (!stages::EchoChecksumIsRight4(outbox_.pool().arena(), p)) {
    return Drop(p, DropReason::kChecksum);
  }
  const IfaceSlot arrived = p.in;
  const Reply reply = replies_.Echo4(p, snapshot);
  if (reply.outcome != ReplyOutcome::kSend) return Punt(p, PuntReason::kReplyRoute, snapshot);
  counters_.of(arrived).local_packets.Add();
  tracer_.End(p, TraceOutcome::kLocal);
  Send(reply, Family::kIpv4, nullptr, snapshot, now);
}

void Pipeline::Local6(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  if (p.Has(packet::kFlagStray)) return RefuseStray(p, Family::kIpv6, in, snapshot, now);
  if (sockets_.active() && ReachesSocket(p, Family::kIpv6, in, snapshot, now)) [[unlikely]] return;
  const bool answers = !snapshot.input_firewall6 && !firewall_.JudgesAnswers(Family::kIpv6) &&
                       !snapshot.icmp.echo_ignore_all6;
  if (!answers || !stages::IsEchoRequest6(p)) return Punt(p, PuntReason::kLocal, snapshot);
  if (!stages::EchoChecksumIsRight6(outbox_.pool().arena(), p)) {
    return Drop(p, DropReason::kChecksum);
  }
  const IfaceSlot arrived = p.in;
  const Reply reply = replies_.Echo6(p, snapshot);
  if (reply.outcome != ReplyOutcome::kSend) return Punt(p, PuntReason::kReplyRoute, snapshot);
  counters_.of(arrived).local_packets.Add();
  tracer_.End(p, TraceOutcome::kLocal);
  Send(reply, Family::kIpv6, nullptr, snapshot, now);
}

// What the kernel's INPUT and TCP do with a segment that no socket is there for.
void Pipeline::RefuseStray(Packet& p, Family family, const Interface& in, const Snapshot& snapshot,
                           Nanos now) {
  if (family == Family::kIpv4) {
    const Ipv4 source = wire::Ipv4View(p.l3()).source();
    switch (stages::ValidateSource4(source, in, IfaceSlot::None(), snapshot, tables_)) {
      case stages::SourceCheck::kMartian:
        return Drop(p, DropReason::kMartianSource);
      case stages::SourceCheck::kReversePath:
        return Drop(p, DropReason::kReversePath);
      default:
        break;
    }
  }
  const Judgement judgement = firewall_.Input(p, in, snapshot, now);
  if (!judgement.accepted()) return Carry(p, judgement, family, snapshot, now);
  const Reply reply = replies_.Reset(p, family, snapshot, outbox_, stages::ResetBy::kTcp);
  if (reply.outcome == ReplyOutcome::kSend) Send(reply, family, nullptr, snapshot, now);
  counters_.of(p.in).local_packets.Add();
  tracer_.End(p, TraceOutcome::kLocal);
  packet::FreePacket(outbox_.pool(), p);
}

bool Pipeline::IsLocal(const Packet& p, Family family) const {
  const tables::RouteId id =
      family == Family::kIpv4 ? LookUp<Ipv4>(p) : LookUp<Ipv6>(p);
  return id.valid() && tables_.routes.Get(id).type == tables::RouteType::kLocal;
}

bool Pipeline::ReachesSocket(Packet& p, Family family, const Interface& in,
                             const Snapshot& snapshot, Nanos now) {
  if (!sockets_.MayConcern(p)) return false;
  // With a ruleset that has been done before its rules (Enlist).
  if (!firewall_.active(family)) {
    const WorkerId owner = sockets_.OwnerOf(p);
    if (owner != worker_) {
      HandOver(owner, p);
      return true;
    }
  }
  if (!sockets_.Claims(p)) return false;
  p.flags |= packet::kFlagSocket;
  if (family == Family::kIpv4) {
    const Ipv4 source = wire::Ipv4View(p.l3()).source();
    switch (stages::ValidateSource4(source, in, IfaceSlot::None(), snapshot, tables_)) {
      case stages::SourceCheck::kMartian:
        Drop(p, DropReason::kMartianSource);
        return true;
      case stages::SourceCheck::kReversePath:
        Drop(p, DropReason::kReversePath);
        return true;
      case stages::SourceCheck::kKernel:
        return false;
      default:
        break;
    }
  }
  if (firewall_.active(family)) {
    WatchRules(p, snapshot);
    const Judgement judgement = firewall_.ToSocket(p, in, snapshot, now);
    if (!judgement.accepted()) {
      Carry(p, judgement, family, snapshot, now);
      return true;
    }
  }
  CompleteChecksum(p, snapshot);
  const Packet arrived = p;
  const Verdict verdict = sockets_.Receive(p, now);
  switch (verdict.kind()) {
    case Verdict::Kind::kContinue:
      return false;
    case Verdict::Kind::kDrop:
      Drop(p, verdict.drop_reason());
      return true;
    default:
      counters_.of(arrived.in).local_packets.Add();
      tracer_.End(arrived, TraceOutcome::kLocal);
      return true;
  }
}

void Pipeline::FromSocket(Packet& p, const IpAddress& way, Nanos now) {
  const Snapshot& snapshot = sockets_.snapshot();
  p.generated = static_cast<uint8_t>(GeneratedKind::kSocket);
  counters_.generated[p.generated].Add();
  if (!p.out.valid()) return Drop(p, DropReason::kNoRoute);
  const Family family = p.l3()[0] >> 4 == 4 ? Family::kIpv4 : Family::kIpv6;
  IpAddress next_hop = way;
  if (firewall_.active(family)) {
    const Judgement judgement = firewall_.OfSocket(p, next_hop, snapshot, now);
    // Nobody is told of a rejection; what a rule leaves to the kernel, which knows of no such
    // socket, the rule has dropped.
    if (judgement.kind == Judgement::Kind::kReject) return Drop(p, DropReason::kFirewallReject);
    if (!judgement.accepted()) return Drop(p, judgement.drop);
  }
  Output(p, family, next_hop, snapshot, now);
}

}  // namespace sluice::dataplane
