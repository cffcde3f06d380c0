// Packets for this machine: to its sockets, answered, or the kernel's; and what its sockets send.
#include <algorithm>

#include "dataplane/pipeline.h"
#include "dataplane/way.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment6.h"
#include "stages/fragment/refragment.h"
#include "stages/icmp/echo.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Verdict;
using tables::Interface;

Verdict Pipeline::CheckSource4(const Packet& p, const Interface& in,
                               const Snapshot& snapshot) const {
  return stages::ToVerdict(stages::ValidateSource4(wire::Ipv4View(p.l3()).source(), in,
                                                   IfaceSlot::None(), snapshot, tables_));
}

// An echo request is answered here unless the kernel's INPUT rules could object; everything else for
// this machine is a socket's or the kernel's.
void Pipeline::Local4(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  if (p.Has(packet::kFlagStray)) return RefuseStray(p, Family::kIpv4, in, snapshot, now);
  if (sockets_.active() && ReachesSocket(p, Family::kIpv4, in, snapshot, now)) [[unlikely]] return;
  const bool answers = !snapshot.input_firewall4 && !firewall_.JudgesAnswers(Family::kIpv4) &&
                       !snapshot.icmp.echo_ignore_all4;
  if (!answers || !stages::IsEchoRequest4(p)) {
    if (p.flow != packet::kNoFlowIndex) firewall_.LeaveTranslatedToKernel(p, now);
    return Punt(p, PuntReason::kLocal, snapshot);
  }
  const Verdict source = CheckSource4(p, in, snapshot);
  if (source.kind() == Verdict::Kind::kDrop) return Drop(p, source.drop_reason());
  if (source.kind() == Verdict::Kind::kPunt) return Punt(p, source.punt_reason(), snapshot);
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
  if (!answers || !stages::IsEchoRequest6(p)) {
    if (p.flow != packet::kNoFlowIndex) firewall_.LeaveTranslatedToKernel(p, now);
    return Punt(p, PuntReason::kLocal, snapshot);
  }
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
    const Verdict source = CheckSource4(p, in, snapshot);
    if (source.kind() == Verdict::Kind::kDrop) return Drop(p, source.drop_reason());
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
  // Its source is translated behind the rules of INPUT: what a rule of OUTPUT has led elsewhere.
  const tables::FlowTuple* const answers = firewall_.TranslatedAnswers(p);
  if (!(answers != nullptr ? sockets_.Claims(*answers) : sockets_.Claims(p))) return false;
  p.flags |= packet::kFlagSocket;
  if (family == Family::kIpv4) {
    const Verdict source = CheckSource4(p, in, snapshot);
    if (source.kind() == Verdict::Kind::kPunt) return false;
    if (source.kind() == Verdict::Kind::kDrop) {
      Drop(p, source.drop_reason());
      return true;
    }
  }
  CompleteChecksum(p, snapshot);  // before rules: a reset answers only what is right
  if (firewall_.active(family)) {
    WatchRules(p, snapshot);
    const Judgement judgement = firewall_.ToSocket(p, in, snapshot, now);
    if (!judgement.accepted()) {
      Carry(p, judgement, family, snapshot, now);
      return true;
    }
  }
  const Packet arrived = p;
  received_ = &arrived;
  const Verdict verdict = sockets_.Receive(p, now);
  received_ = nullptr;
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

// For the kernel as well. False: it has nothing of it. (Of a datagram in pieces the last may be missing
// for want of room: that is lost to the kernel, as on a full link.)
bool Pipeline::PuntCopy(const Packet& p, PuntReason reason, const Snapshot& snapshot) {
  if (p.fragment_size != 0) {
    bool any = false;
    static_cast<void>(stages::Refragment(p, outbox_, [&](Packet& piece, bool) {
      any |= PuntPiece(piece, reason, /*copy=*/true, snapshot);
    }));
    return any;
  }
  Packet copy;
  return Copy(p, copy) && PuntPiece(copy, reason, /*copy=*/true, snapshot);
}

// Into as many frames as it takes. False: there are not so many.
bool Pipeline::Copy(const Packet& p, Packet& copy) {
  packet::FramePool& pool = outbox_.pool();
  const packet::FrameArena& arena = pool.arena();
  const uint32_t room = arena.chunk_size() - packet::kHeadroom;
  if (pool.size() < (p.length + room - 1) / room) return false;
  if (!outbox_.NewPacket(std::min(p.length, room), copy)) return false;
  packet::CopyOut(arena, p, 0, copy.data, copy.segment_length);
  packet::FrameIndex last = copy.frame;
  for (uint32_t at = copy.segment_length; at < p.length; ++copy.segment_count) {
    const packet::FrameIndex next = pool.Alloc();
    const auto n = static_cast<uint16_t>(std::min(p.length - at, room));
    packet::CopyOut(arena, p, at, arena.Chunk(next) + packet::kHeadroom, n);
    packet::LinkOf(arena, last) = {.next = next, .data_offset = packet::kHeadroom, .length = n};
    last = next;
    at += n;
  }
  copy.length = p.length;
  copy.in = p.in;
  return true;
}

// A datagram for a group: to the sockets that have joined it and, in any case, to the kernel. If one of
// them only can have it, that is the kernel.
void Pipeline::ToGroup(Packet& p, Family family, const Interface& in, const Snapshot& snapshot,
                       Nanos now) {
  if (sockets_.MayBeMembers(p)) {
    const WorkerId owner = sockets_.OwnerOf(p);
    if (owner != worker_) return HandOver(owner, p);
    if (sockets_.Claims(p)) {
      CompleteChecksum(p, snapshot);
      if (!PuntCopy(p, PuntReason::kMulticast, snapshot)) {
        return Punt(p, PuntReason::kMulticast, snapshot);
      }
      if (firewall_.active(family)) {
        Firewall::Key key;
        firewall_.Prepare(p, family, key);
        const Judgement judgement = firewall_.BeforeRouting(p, key, in, snapshot, now);
        if (judgement.kind == Judgement::Kind::kPunt) {
          return Drop(p, DropReason::kUnsupportedRule);  // the kernel has its copy
        }
        if (!judgement.accepted()) return Carry(p, judgement, family, snapshot, now);
      }
      // DNAT may have made another destination of it.
      if (!ReachesSocket(p, family, in, snapshot, now)) Drop(p, DropReason::kMartianDestination);
      return;
    }
  }
  Punt(p, PuntReason::kMulticast, snapshot);
}

void Pipeline::FromSocket(Packet& p, const IpAddress& way, const transport::Relayed* relayed,
                          Nanos now) {
  const Snapshot& snapshot = sockets_.snapshot();
  p.generated = static_cast<uint8_t>(GeneratedKind::kSocket);
  counters_.generated[p.generated].Add();
  if (!p.out.valid()) return Drop(p, DropReason::kNoRoute);
  const Family family = p.l3()[0] >> 4 == 4 ? Family::kIpv4 : Family::kIpv6;
  IpAddress next_hop = way;
  if (firewall_.active(family)) {
    const Judgement judgement = firewall_.OfSocket(p, next_hop, snapshot, now);
    if (!judgement.accepted()) [[unlikely]] return RefuseOfSocket(p, family, judgement);
  }
  if (p.fragment_size == 0) {
    if (relayed != nullptr) {
      // Its sender does not know this way.
      const tables::Route& route = tables_.routes.Get(tables::RouteId{p.route_id});
      if (p.l3_length() > MtuOf(route, snapshot.at(p.out), family)) [[unlikely]] {
        return RefuseOfSocket(p, family,
                              Judgement::Drop(family == Family::kIpv4
                                                  ? DropReason::kFragmentationNeeded
                                                  : DropReason::kPacketTooBig));
      }
      if (offload_.enabled()) OfferRelay(p, family, next_hop, *relayed, snapshot);
    }
    return Output(p, family, next_hop, snapshot, now);
  }
  if (family == Family::kIpv4) {
    return Fragment<stages::Ipv4Fragmenter>(p, family, next_hop, p.fragment_size, snapshot, now);
  }
  Fragment<stages::Ipv6Fragmenter>(p, family, next_hop, p.fragment_size, snapshot, now);
}

// Who is rejected by rules of OUTPUT is told by an ICMP error or a reset, in Linux: here by what such
// an error would say. So is who does not know that the way is narrower where rules have led it.
void Pipeline::RefuseOfSocket(Packet& p, Family family, const Judgement& judgement) {
  const bool too_big = judgement.drop == DropReason::kFragmentationNeeded ||
                       judgement.drop == DropReason::kPacketTooBig;
  if (judgement.kind == Judgement::Kind::kReject) counters_.sockets_refused.Add();
  if (judgement.kind == Judgement::Kind::kReject || too_big) {
    firewall_.RestoreOriginal(p);
    sockets_.Refuse(p, too_big ? MtuOf(tables_.routes.Get(tables::RouteId{p.route_id}),
                                       sockets_.snapshot().at(p.out), family)
                               : 0);
  }
  Drop(p, judgement.drop);
}

}  // namespace sluice::dataplane
