// Netfilter's hooks for what is this machine's: packets for sockets go through the input chains; errors,
// resets and what sockets send through the output and postrouting chains.
#include <algorithm>

#include "dataplane/firewall_pass.h"
#include "dataplane/way.h"
#include "stages/conntrack/tuple.h"
#include "stages/nat/translate.h"

namespace sluice::dataplane {

using packet::Packet;
using stages::NatManip;
using tables::CtState;
using tables::Flow;
using tables::FlowDirection;
using tables::HookPoint;
using tables::Interface;
using tables::Snapshot;

// A message whose cause has no connection. An error may still quote a packet of one, and the reset of a
// segment that is invalid for its connection still goes the connection's way.
void Firewall::TrackOwn(Packet& message, Family family, const Snapshot& snapshot, Nanos now) {
  message.ct_state = static_cast<uint8_t>(CtState::kInvalid);
  Key key;
  Prepare(message, family, key);
  if (key.hash == 0) return;
  const tables::FlowTable::Found found = flows_.Find(key.tuple, key.hash);
  if (!found.found()) return;
  if (!key.error) {
    if (!IsSegment(message, key) || flows_.at(found.flow).Has(tables::kFlowKernel)) return;
    static_cast<void>(conntrack_.Track(message, key.tuple, key.hash, snapshot.conntrack, arena_, now));
    return;
  }
  message.flow = found.flow;
  message.ct_state = static_cast<uint8_t>(CtState::kRelated);
  message.ct_direction = static_cast<uint8_t>(found.direction);
}

// ip_route_me_harder. False: not by an interface of ours.
bool Firewall::Reroute(Pass& pass) const {
  const Way way = WayTo(DestinationOf(pass.p, pass.family), tables_, pass.snapshot);
  if (way.path == nullptr) return false;
  pass.out = &pass.snapshot.at(way.path->slot);
  pass.p.out = way.path->slot;
  pass.p.route_id = way.id.value;
  pass.next_hop = way.next_hop;
  return true;
}

// To the MTU of the way that the packet leaves by, which its socket may not know.
Judgement Firewall::Fit(Packet& p, Family family, const Snapshot& snapshot) const {
  const uint32_t mtu =
      MtuOf(tables_.routes.Get(tables::RouteId{p.route_id}), snapshot.at(p.out), family);
  if (p.fragment_size != 0) {
    p.fragment_size = static_cast<uint16_t>(std::min<uint32_t>(p.fragment_size, mtu));
  } else if (p.l3_length() > mtu) {
    return Judgement::Drop(family == Family::kIpv4 ? DropReason::kFragmentationNeeded
                                                   : DropReason::kPacketTooBig);
  }
  return Judgement::Accept();
}

Judgement Firewall::OfOurOwn(Packet& message, const Packet* connection_of, IpAddress& next_hop,
                             const Snapshot& snapshot, Nanos now) {
  const Family family = FamilyOf(message);
  Pass pass{.p = message,
            .family = family,
            .snapshot = snapshot,
            .in = nullptr,
            .out = &snapshot.at(message.out),
            .next_hop = next_hop,
            .now = now,
            .of_socket = connection_of != nullptr && connection_of->Has(packet::kFlagSocket)};
  if (connection_of != nullptr && connection_of->flow != packet::kNoFlowIndex) {
    // nf_ct_attach: it goes the other way of the same connection, which may not be confirmed yet.
    message.flow = connection_of->flow;
    message.ct_state = static_cast<uint8_t>(CtState::kRelated);
    message.ct_direction = static_cast<uint8_t>(tables::Opposite(DirectionOf(*connection_of)));
  }
  Judgement judgement = Run(HookPoint::kOutputRaw, pass);
  if (!judgement.accepted()) return judgement;
  if (tracks(family) && IsState(message, CtState::kNone)) {
    TrackOwn(message, family, snapshot, now);
  }
  judgement = Output(pass);
  next_hop = pass.next_hop;
  message.flow = packet::kNoFlowIndex;  // it neither confirms nor abandons the connection
  return judgement;
}

// The hooks of OUTPUT behind conntrack, and those of POSTROUTING.
Judgement Firewall::Output(Pass& pass) {
  Judgement judgement = Run(HookPoint::kOutput, pass);
  const IpAddress destination = DestinationOf(pass.p, pass.family);
  if (judgement.accepted()) {
    judgement = Translate(HookPoint::kOutputNat, NatManip::kDestination, pass);
  }
  if (judgement.accepted() && DestinationOf(pass.p, pass.family) != destination &&
      !Reroute(pass)) {
    judgement = Judgement::Drop(DropReason::kNoRoute);
  }
  return judgement.accepted() ? ToTheWire(pass) : judgement;
}

Judgement Firewall::Input(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  Pass pass{.p = p, .family = FamilyOf(p), .snapshot = snapshot, .in = &in, .now = now};
  return Run(HookPoint::kInput, pass);
}

const tables::FlowTuple* Firewall::TranslatedAnswers(const Packet& p) const {
  if (p.flow == packet::kNoFlowIndex) return nullptr;
  const Flow& flow = flows_.at(p.flow);
  const FlowDirection direction = DirectionOf(p);
  if (!stages::NeedsTranslation(flow, direction, NatManip::kSource)) return nullptr;
  return &flow.tuple(tables::Opposite(direction));
}

Judgement Firewall::ToSocket(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  Pass pass{.p = p,
            .family = FamilyOf(p),
            .snapshot = snapshot,
            .in = &in,
            .now = now,
            .of_socket = true};
  Judgement judgement = Run(HookPoint::kInput, pass);
  if (judgement.accepted()) {
    judgement = Translate(HookPoint::kInputNat, NatManip::kSource, pass);
  }
  // Answers to what has come here begin at this worker's socket, so nobody else will see them. (A
  // confirmed one may be a socket's own, whose answers another worker has been told of.)
  if (Flow* const flow = FlowOf(p); flow != nullptr && !flow->Has(tables::kFlowConfirmed)) {
    flow->status &= ~uint32_t{tables::kFlowForeignReply};
  }
  if (judgement.accepted()) judgement = Confirm(pass);
  if (judgement.accepted()) p.flow = packet::kNoFlowIndex;
  return judgement;
}

void Firewall::Sever(const Packet& segment, LocalSockets& sockets, Nanos now) const {
  if (segment.l4_protocol != wire::kProtocolTcp || !sockets.MayConcern(segment)) return;
  // What its answers are when the socket sends them: wherever on its way the segment is, and however
  // translated.
  tables::FlowTuple tuple, answers;
  if (segment.flow != packet::kNoFlowIndex) {
    answers = flows_.at(segment.flow).tuple(tables::Opposite(DirectionOf(segment)));
  } else if (!stages::MakeTuple(segment, tuple) || !stages::InvertTuple(tuple, answers)) {
    return;
  } else if (const auto found = flows_.Find(tuple); found.found()) {
    answers = flows_.at(found.flow).tuple(tables::Opposite(found.direction));
  }
  sockets.Sever(segment, answers, now);
}

Judgement Firewall::OfSocket(Packet& p, IpAddress& next_hop, const Snapshot& snapshot, Nanos now) {
  const Family family = FamilyOf(p);
  Pass pass{.p = p,
            .family = family,
            .snapshot = snapshot,
            .in = nullptr,
            .out = &snapshot.at(p.out),
            .next_hop = next_hop,
            .now = now,
            .of_socket = true};
  Judgement judgement = Run(HookPoint::kOutputRaw, pass);
  if (!judgement.accepted()) return judgement;
  if (tracks(family)) {
    Key key;
    Prepare(p, family, key);
    judgement =
        ToJudgement(conntrack_.Track(p, key.tuple, key.hash, own_settings_, arena_, now));
    if (!judgement.accepted()) return judgement;
  }
  const IfaceSlot foreseen = p.out;
  judgement = Output(pass);
  next_hop = pass.next_hop;
  if (judgement.accepted() && p.out != foreseen) judgement = Fit(p, family, snapshot);
  if (const tables::Flow* const flow = FlowOf(p); judgement.accepted() && flow != nullptr) {
    judgement = ToJudgement(stages::Nat::CheckOut(*flow, DirectionOf(p), p.out));
    if (!judgement.accepted() && flow->Has(tables::kFlowConfirmed)) {
      conntrack_.Remove(p.flow);
      p.flow = packet::kNoFlowIndex;
    }
  }
  if (judgement.accepted()) judgement = Confirm(pass);
  if (judgement.accepted()) p.flow = packet::kNoFlowIndex;
  return judgement;
}

}  // namespace sluice::dataplane
