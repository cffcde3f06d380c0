// `sluice explain`: the pipeline's order once more, with a packet that leaves no trace. What it says
// at each step comes from the same stages that carry real packets.
#include <utility>

#include "dataplane/firewall_pass.h"
#include "dataplane/offer.h"
#include "dataplane/pipeline.h"
#include "stages/fragment/fragment6.h"
#include "stages/nat/translate.h"
#include "stages/parse/parse.h"
#include "stages/conntrack/tuple.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Packet;
using packet::Verdict;
using stages::NatManip;
using tables::CtState;
using tables::FlowDirection;
using tables::HookPoint;
using tables::Interface;
using tables::Snapshot;

Judgement Firewall::Rehearse(HookPoint hook, Pass& pass, Rehearsal& r) {
  if (ruleset_ == nullptr || !ruleset_->Has(hook, pass.family)) return Judgement::Accept();
  WalkStep& step = r.walk.Add(WalkStep::Kind::kHook);
  pass.trace = &r.walk;
  pass.wants_nat = false;
  stages::FlowPath* const of_real_packets = std::exchange(recorder_, r.path);
  const Judgement judgement = Run(hook, pass);
  recorder_ = of_real_packets;
  step.hook = hook;
  step.rule = judgement.rule;
  step.chain = judgement.chain;
  step.rule_count = r.walk.rule_count() - step.first_rule;
  step.reset = judgement.reset;
  step.reject_code = judgement.reject_code;
  switch (judgement.kind) {
    case Judgement::Kind::kAccept:
      step.outcome = pass.wants_nat ? WalkStep::Outcome::kNat : WalkStep::Outcome::kAccept;
      break;
    case Judgement::Kind::kDrop:
      step.outcome = WalkStep::Outcome::kDrop;
      break;
    case Judgement::Kind::kReject:
      step.outcome = WalkStep::Outcome::kReject;
      break;
    case Judgement::Kind::kPunt:
      step.outcome = WalkStep::Outcome::kKernel;
      break;
  }
  return judgement;
}

Judgement Firewall::RehearseTranslation(HookPoint hook, NatManip manip, Pass& pass, Rehearsal& r) {
  if (!r.tracked || !nats_[pass.family == Family::kIpv6]) return Judgement::Accept();
  if (!r.scratch.Has(tables::kFlowConfirmed) && !stages::Nat::IsSetUp(r.scratch, manip)) {
    const Judgement judgement = Rehearse(hook, pass, r);
    if (!judgement.accepted()) return judgement;
    const stages::Nat::Result result =
        pass.wants_nat && stages::Nat::ManipOf(pass.wanted.kind) == manip
            ? nat_.Setup(r.scratch, pass.wanted,
                         {.snapshot = pass.snapshot,
                          .in = pass.in->slot,
                          .out = pass.out != nullptr ? pass.out->slot : IfaceSlot::None(),
                          .next_hop = pass.next_hop})
            : nat_.SetupNull(r.scratch, manip);
    if (result.verdict.kind() == Verdict::Kind::kDrop) return ToJudgement(result.verdict);
  }
  const auto direction = static_cast<FlowDirection>(pass.p.ct_direction);
  if (!stages::NeedsTranslation(r.scratch, direction, manip)) return Judgement::Accept();
  const Judgement judgement =
      ToJudgement(stages::Translate(arena_, pass.p, r.scratch, direction, manip));
  WalkStep& step = r.walk.Add(WalkStep::Kind::kTranslation);
  step.hook = hook;
  step.nat = manip == NatManip::kSource ? tables::NatKind::kSource : tables::NatKind::kDestination;
  static_cast<void>(stages::MakeTuple(pass.p, step.tuple));
  return judgement;
}

Judgement Firewall::RehearseBeforeRouting(Packet& p, const Key& key, const Interface& in,
                                          const Snapshot& snapshot, Nanos now, Rehearsal& r) {
  const Family family = p.l3()[0] >> 4 == 4 ? Family::kIpv4 : Family::kIpv6;
  Pass pass{.p = p, .family = family, .snapshot = snapshot, .in = &in, .now = now, .dry = true};
  Judgement judgement = Rehearse(HookPoint::kIngress, pass, r);
  if (judgement.accepted()) judgement = Rehearse(HookPoint::kPreroutingFirst, pass, r);
  if (judgement.accepted()) judgement = Rehearse(HookPoint::kPreroutingRaw, pass, r);
  if (!judgement.accepted()) return judgement;
  if (tracks(family)) {
    WalkStep& step = r.walk.Add(WalkStep::Kind::kConnection);
    const tables::FlowTable::Found found =
        key.hash != 0 ? flows_.Find(key.tuple, key.hash) : tables::FlowTable::Found{};
    CtState state = CtState::kInvalid;
    if (found.found()) {
      r.scratch = flows_.at(found.flow);
      r.tracked = true;
      p.ct_direction = static_cast<uint8_t>(found.direction);
      const bool answered = r.scratch.Has(tables::kFlowSeenReply) ||
                            found.direction == FlowDirection::kReply;
      state = key.error ? CtState::kRelated : answered ? CtState::kEstablished : CtState::kNew;
    } else if (key.hash != 0 && !key.error) {
      r.scratch = tables::Flow{};
      r.scratch.tuple(FlowDirection::kOriginal) = key.tuple;
      r.tracked = stages::InvertTuple(key.tuple, r.scratch.tuple(FlowDirection::kReply));
      state = r.tracked ? CtState::kNew : CtState::kInvalid;
    }
    p.ct_state = static_cast<uint8_t>(state);
    step.state = state;
    step.direction = static_cast<FlowDirection>(p.ct_direction);
    step.tuple = key.tuple;
    pass.scratch = r.tracked ? &r.scratch : nullptr;
    if (r.tracked && r.scratch.Has(tables::kFlowKernel)) {
      return Judgement::Punt(PuntReason::kUnsupportedRule);
    }
  }
  judgement = Rehearse(HookPoint::kPreroutingEarly, pass, r);
  if (judgement.accepted()) {
    judgement = RehearseTranslation(HookPoint::kPreroutingNat, NatManip::kDestination, pass, r);
  }
  if (judgement.accepted()) judgement = Rehearse(HookPoint::kPreroutingLate, pass, r);
  return judgement;
}

Judgement Firewall::RehearseAfterRouting(Packet& p, const Interface& in, const Interface& out,
                                         const IpAddress& next_hop, const Snapshot& snapshot,
                                         Nanos now, Rehearsal& r) {
  const Family family = p.l3()[0] >> 4 == 4 ? Family::kIpv4 : Family::kIpv6;
  Pass pass{.p = p,
            .family = family,
            .snapshot = snapshot,
            .in = &in,
            .out = &out,
            .next_hop = next_hop,
            .now = now,
            .dry = true,
            .scratch = r.tracked ? &r.scratch : nullptr};
  Judgement judgement = Rehearse(HookPoint::kForward, pass, r);
  if (judgement.accepted()) judgement = Rehearse(HookPoint::kPostroutingEarly, pass, r);
  if (judgement.accepted()) {
    judgement = RehearseTranslation(HookPoint::kPostroutingNat, NatManip::kSource, pass, r);
  }
  if (judgement.accepted()) judgement = Rehearse(HookPoint::kPostroutingLate, pass, r);
  return judgement;
}

Judgement Firewall::RehearseInput(Packet& p, const Interface& in, const Snapshot& snapshot,
                                  Nanos now, Rehearsal& r) {
  Pass pass{.p = p,
            .family = FamilyOf(p),
            .snapshot = snapshot,
            .in = &in,
            .now = now,
            .dry = true,
            .scratch = r.tracked ? &r.scratch : nullptr,
            .of_socket = true};
  return Rehearse(HookPoint::kInput, pass, r);
}

namespace {

Verdict ToVerdict(const Judgement& judgement) {
  switch (judgement.kind) {
    case Judgement::Kind::kPunt:
      return Verdict::Punt(judgement.punt);
    case Judgement::Kind::kReject:
    case Judgement::Kind::kDrop:
      return Verdict::Drop(judgement.drop);
    default:
      return Verdict::Continue();
  }
}

}  // namespace

void Pipeline::Explain(Packet& p, const Snapshot& snapshot, Nanos now, Walk& walk) {
  SeeSnapshot(snapshot, now);
  const Verdict verdict = Rehearse(p, snapshot, now, walk);
  WalkStep& end = walk.Add(WalkStep::Kind::kEnd);
  end.verdict = verdict;
  end.slot = p.out;
  packet::FreePacket(outbox_.pool(), p);
}

Verdict Pipeline::Rehearse(Packet& p, const Snapshot& snapshot, Nanos now, Walk& walk) {
  const Interface& in = snapshot.at(p.in);
  const stages::ParseResult parsed = stages::Parse(p, in, outbox_.pool());
  walk.Add(WalkStep::Kind::kParse).verdict = parsed.verdict;
  if (!parsed.verdict.is_continue()) return parsed.verdict;
  if (parsed.protocol != stages::Protocol::kIpv4 && parsed.protocol != stages::Protocol::kIpv6) {
    return Verdict::Local();  // ARP: a neighbour's message
  }
  return parsed.protocol == stages::Protocol::kIpv4 ? RehearseIp<Ipv4>(p, in, snapshot, now, walk)
                                                    : RehearseIp<Ipv6>(p, in, snapshot, now, walk);
}

template <class Address>
Verdict Pipeline::RehearseIp(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now,
                             Walk& walk) {
  constexpr bool kV4 = std::is_same_v<Address, Ipv4>;
  constexpr Family kFamily = kV4 ? Family::kIpv4 : Family::kIpv6;
  stages::FlowPath path;
  path.Begin(p);
  Firewall::Rehearsal rehearsal{.walk = walk, .scratch = {}, .path = &path};
  const auto check = [&] {
    const Verdict v = kV4 ? stages::CheckBeforeLookup4(p, in, snapshot)
                          : stages::CheckBeforeLookup6(p, in, snapshot);
    if (!v.is_continue()) walk.Add(WalkStep::Kind::kAddresses).verdict = v;
    return v;
  };
  Firewall::Key key;
  Verdict verdict = check();
  if (verdict.kind() == Verdict::Kind::kPunt) {
    const bool to_member = verdict.punt_reason() == PuntReason::kMulticast &&
                           sockets_.active() && sockets_.MayBeMembers(p) && sockets_.Claims(p);
    return to_member ? RehearseToGroup(p, kFamily, in, snapshot, now, rehearsal) : verdict;
  }
  if (firewall_.active(kFamily)) {
    if (p.Has(packet::kFlagFragment) && firewall_.tracks(kFamily)) return Verdict::Held();
    firewall_.Prepare(p, kFamily, key);
    const Judgement judgement =
        firewall_.RehearseBeforeRouting(p, key, in, snapshot, now, rehearsal);
    if (!judgement.accepted()) return ToVerdict(judgement);
    verdict = check();
  }
  if (!verdict.is_continue()) return verdict;

  const stages::RouteDecision d = Decide<Address>(p, LookUp<Address>(p), in, snapshot);
  WalkStep& route = walk.Add(WalkStep::Kind::kRoute);
  route.verdict = d.verdict;
  route.slot = p.out;
  route.next_hop = d.next_hop;
  if (d.route != nullptr) route.route = d.route->type;
  if (d.verdict.kind() == Verdict::Kind::kLocal) {
    if (!sockets_.IsClaimed(p)) return Verdict::Punt(PuntReason::kLocal);
    walk.Add(WalkStep::Kind::kSocket);
    if (!firewall_.active(kFamily)) return Verdict::Local();
    const Judgement judgement = firewall_.RehearseInput(p, in, snapshot, now, rehearsal);
    return judgement.accepted() ? Verdict::Local() : ToVerdict(judgement);
  }
  if (!d.verdict.is_continue()) return d.verdict;

  const Interface& out = snapshot.at(p.out);
  WalkStep& forwarding = walk.Add(WalkStep::Kind::kForwarding);
  forwarding.verdict = RehearseForwarding(p, kFamily, d, out, forwarding.mtu);
  if (!forwarding.verdict.is_continue()) return forwarding.verdict;
  if (firewall_.active(kFamily)) {
    const Judgement judgement =
        firewall_.RehearseAfterRouting(p, in, out, d.next_hop, snapshot, now, rehearsal);
    if (!judgement.accepted()) return ToVerdict(judgement);
  }
  WalkStep& neighbor = walk.Add(WalkStep::Kind::kNeighbor);
  neighbor.slot = p.out;
  neighbor.next_hop = d.next_hop;
  if (const Mac* const mac = neighbors_.Peek(p.out, d.next_hop)) {
    neighbor.resolved = true;
    neighbor.mac = *mac;
  }
  if (offload_.enabled()) RehearseTier(p, key, kFamily, d, path, snapshot, walk);
  return Verdict::Forward();
}

// Members' own; the kernel judges its copy by itself.
Verdict Pipeline::RehearseToGroup(Packet& p, Family family, const Interface& in,
                                  const Snapshot& snapshot, Nanos now,
                                  Firewall::Rehearsal& rehearsal) {
  rehearsal.walk.Add(WalkStep::Kind::kSocket).verdict = Verdict::Punt(PuntReason::kMulticast);
  if (!firewall_.active(family)) return Verdict::Local();
  Firewall::Key key;
  firewall_.Prepare(p, family, key);
  Judgement judgement = firewall_.RehearseBeforeRouting(p, key, in, snapshot, now, rehearsal);
  if (judgement.accepted()) judgement = firewall_.RehearseInput(p, in, snapshot, now, rehearsal);
  return judgement.accepted() ? Verdict::Local() : ToVerdict(judgement);
}

// Who would carry the packet: what Offer (offer.cc) asks of real ones.
void Pipeline::RehearseTier(const Packet& p, const Firewall::Key& key, Family family,
                            const stages::RouteDecision& d, const stages::FlowPath& path,
                            const Snapshot& snapshot, Walk& walk) const {
  using Tier = WalkStep::Tier;
  WalkStep& step = walk.Add(WalkStep::Kind::kTier);
  const auto mode = static_cast<sluice_offload_mode>(snapshot.at(p.in).offload.of(family));
  if (mode == SLUICE_OFFLOAD_OFF) {
    step.tier = Tier::kOff;
  } else if (!snapshot.at(p.out).offload_output || offload_.IsClosed(p.out)) {
    step.tier = Tier::kOutput;
  } else if (d.redirect || (mode != SLUICE_OFFLOAD_FLOW && d.route->paths.size() != 1)) {
    step.tier = Tier::kPaths;
  } else if (mode != SLUICE_OFFLOAD_FLOW) {
    const bool promoted =
        offload_.IsPromoted(p.in, SourceInKey(p, family, mode), DestinationOf(p, family));
    step.tier = !HasPlainForm(p) ? Tier::kForm : promoted ? Tier::kXdp : Tier::kSoonXdp;
  } else {
    const tables::FlowTable::Found found =
        key.hash != 0 ? firewall_.flows().Find(key.tuple, key.hash) : tables::FlowTable::Found{};
    if (path.variance == stages::Variance::kForm) {
      step.tier = Tier::kForm;
    } else if (found.found() && offload_.IsPromoted(found.flow, found.direction)) {
      step.tier = Tier::kXdp;
    } else if (path.variance == stages::Variance::kConnectionState) {
      step.tier = Tier::kNotYet;
    } else {
      step.tier = path.varies() ? Tier::kDiffers : Tier::kSoonXdp;
      step.variance = path.variance;
      step.rule = path.rule;
    }
  }
}

// TTL and MTU, and what they leave of the TTL.
Verdict Pipeline::RehearseForwarding(Packet& p, Family family, const stages::RouteDecision& d,
                                     const Interface& out, uint32_t& mtu) {
  if (family == Family::kIpv4) {
    wire::Ipv4Mutable ip(p.l3());
    mtu = stages::ForwardingMtu4(*d.route, out);
    if (ip.ttl() <= 1) return Verdict::Drop(DropReason::kTtlExpired);
    if (stages::DecideMtu4(p, mtu) == stages::MtuDecision::kTooBig) {
      return Verdict::Drop(DropReason::kFragmentationNeeded);
    }
    ip.DecrementTtl();
    return Verdict::Continue();
  }
  wire::Ipv6Mutable ip(p.l3());
  mtu = stages::ForwardingMtu6(*d.route, out);
  if (ip.hop_limit() <= 1) return Verdict::Drop(DropReason::kTtlExpired);
  if (stages::DecideMtu6(p, mtu) == stages::MtuDecision::kTooBig) {
    return Verdict::Drop(DropReason::kPacketTooBig);
  }
  ip.DecrementHopLimit();
  return Verdict::Continue();
}

}  // namespace sluice::dataplane
