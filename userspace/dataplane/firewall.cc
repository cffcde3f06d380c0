#include "dataplane/firewall.h"

#include <algorithm>

#include "dataplane/firewall_pass.h"
#include "stages/conntrack/tuple.h"
#include "stages/nat/stale.h"
#include "stages/nat/translate.h"
#include "tables/flow_owner.h"
#include "tables/ruleset/connection_count.h"
#include "wire/ethernet.h"
#include "wire/flow_hash.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

using packet::Packet;
using packet::Verdict;
using stages::FilterVerdict;
using stages::NatManip;
using tables::CtState;
using tables::Flow;
using tables::FlowDirection;
using tables::HookPoint;
using tables::Interface;
using tables::Snapshot;

namespace {

// How often elements that rules have added to sets are looked through for those whose time is over.
constexpr Nanos kElementTick = Millis(100);

bool IsIcmpError(const Packet& p, Family family) {
  if (!tables::IsIcmp(p.l4_protocol) || p.l4_offset == 0) return false;
  return family == Family::kIpv4
             ? p.l4_protocol == wire::kProtocolIcmp && wire::IsIcmpError(p.l4()[0])
             : p.l4_protocol == wire::kProtocolIcmpv6 && wire::IsIcmpv6Error(p.l4()[0]);
}

// The tuple of answers to the packet that an ICMP error quotes.
bool TupleOfQuoted(const Packet& error, Family family, tables::FlowTuple& tuple) {
  constexpr size_t kIcmpHeader = 8;
  const size_t at = error.l4_offset + kIcmpHeader;
  if (error.segment_length <= at) return false;
  stages::QuotedPacket quoted;
  return stages::ParseQuote({error.data + at, error.segment_length - at}, family, quoted) &&
         stages::InvertTuple(quoted.tuple, tuple);
}

}  // namespace

Firewall::Firewall(WorkerId worker, const FirewallConfig& config,
                   const stages::RoutingTables& tables, const packet::FrameArena& arena,
                   WorkerCounters& counters)
    : worker_(worker),
      worker_count_(config.worker_count),
      tables_(tables),
      filter_tables_{tables.fib4, tables.fib6, tables.routes},
      arena_(arena),
      flows_({.capacity = config.flows,
              .per_source = config.flows_per_source,
              .hash_seed = config.seed,
              .start = config.start}),
      filter_({.worker = worker.value, .seed = config.seed}),
      conntrack_(flows_, counters.conntrack),
      nat_({.worker = worker,
            .worker_count = config.worker_count,
            .ports = config.nat_ports,
            .seed = config.seed + worker.value},
           flows_),
      aliases_(std::make_unique<AliasFor[]>(kAliases)) {
  conntrack_.set_foreign_sink(this);
}

void Firewall::UseSnapshot(const Snapshot& snapshot, Nanos now) {
  // Addresses may have changed: masqueraded connections are looked through in portions.
  if (flows_.size() > 0) next_stale_ = 0;
  own_settings_ = snapshot.conntrack;
  own_settings_.checksum = false;
  own_settings_.limits_sources = false;
  const uint32_t max = snapshot.conntrack.max;
  flows_.SetLimit(max == 0 ? flows_.capacity() : std::max(max / worker_count_, 1u));
  if (snapshot.ruleset == ruleset_) return;
  filter_.UseRuleset(snapshot.ruleset, now);
  ruleset_ = snapshot.ruleset;
  const bool elements = ruleset_ != nullptr && ruleset_->has_dynamic_sets();
  next_element_tick_ = elements ? now + kElementTick : Nanos::Max();
  for (const Family family : {Family::kIpv4, Family::kIpv6}) {
    const size_t i = family == Family::kIpv6;
    tracks_[i] = nats_[i] = active_[i] = answers_[i] = begins_[i] = raw_[i] = false;
    if (ruleset_ == nullptr) continue;
    tracks_[i] = ruleset_->needs_conntrack(family);
    nats_[i] = ruleset_->has_nat(family);
    bool any = false;
    for (size_t hook = 0; hook < tables::kHookPointCount; ++hook) {
      const bool here = ruleset_->Has(static_cast<HookPoint>(hook), family);
      any |= here;
      if (here && static_cast<HookPoint>(hook) != HookPoint::kForward) answers_[i] = true;
    }
    active_[i] = tracks_[i] || any;
    begins_[i] = ruleset_->Has(HookPoint::kIngress, family) ||
                 ruleset_->Has(HookPoint::kPreroutingFirst, family);
    raw_[i] = begins_[i] || ruleset_->Has(HookPoint::kPreroutingRaw, family);
  }
}

void Firewall::OnTimer(const Snapshot& snapshot, Nanos now) {
  constexpr uint32_t kPortion = 256;
  static_cast<void>(conntrack_.Expire(now, kPortion));
  if (now >= next_element_tick_) {
    filter_.Tick(now);
    next_element_tick_ = now + kElementTick;
  }
  if (next_stale_ == tables::kNoFlow) return;
  next_stale_ = stages::VisitStale(flows_, snapshot, next_stale_, kPortion,
                                   [&](tables::FlowIndex flow) { conntrack_.Remove(flow); });
}

// As nf_conncount counts: a connection that is closing counts no more.
bool Firewall::IsAlive(tables::FlowIndex index, uint64_t fingerprint) const {
  if (index >= flows_.capacity()) return false;
  const Flow& flow = flows_.at(index);
  if (!flow.Has(tables::kFlowConfirmed) || flow.Has(tables::kFlowDying)) return false;
  const tables::FlowTuple& tuple = flow.tuple(FlowDirection::kOriginal);
  if (tables::TupleFingerprint(tuple) != fingerprint) return false;
  const auto state = static_cast<tables::TcpState>(flow.tcp.state);
  return tuple.protocol != wire::kProtocolTcp ||
         (state != tables::TcpState::kTimeWait && state != tables::TcpState::kClose);
}

void Firewall::Prepare(const Packet& p, Family family, Key& key) {
  key.hash = 0;
  key.error = false;
  if (!tracks(family) || !stages::MakeTuple(p, key.tuple)) return;
  if (IsIcmpError(p, family)) [[unlikely]] {
    key.error = true;
    if (!TupleOfQuoted(p, family, key.tuple)) return;
  }
  key.hash = flows_.Hash(key.tuple);
  flows_.PrefetchBucket(key.hash);
}

// --- One hook ---

// What notes the packet's way, if anything does: not that of our own, nor one tried beforehand. A
// connection's first one shows XDP no way, so that more than this need not be known of it; `explain` wants
// to know all the same.
[[gnu::noinline, gnu::cold]] stages::FlowPath* Firewall::PathAt(HookPoint hook, const Pass& pass) {
  if (pass.in == nullptr || (pass.dry && pass.trace == nullptr)) return nullptr;
  const bool first = !pass.dry && IsState(pass.p, CtState::kNew);
  // Only a connection's first packet comes to the rules of NAT.
  if (first || tables::IsNat(hook)) {
    recorder_->Vary(stages::Variance::kConnectionState, stages::kNoRule);
  }
  return first ? nullptr : recorder_;
}

stages::FilterContext Firewall::ContextOf(Pass& pass) {
  return {.p = pass.p,
          .arena = arena_,
          .snapshot = pass.snapshot,
          .in = pass.in,
          .out = pass.out,
          .flow = pass.scratch != nullptr ? pass.scratch : FlowOf(pass.p),
          .tables = filter_tables_,
          .now = pass.now,
          .dry_run = pass.dry,
          .trace = pass.dry ? pass.trace : watcher_,
          .connections = this,
          .wall_offset = pass.snapshot.wall_offset};
}

Judgement Firewall::Run(HookPoint hook, Pass& pass) {
  if (ruleset_ == nullptr || !ruleset_->Has(hook, pass.family)) return Judgement::Accept();
  stages::FilterContext context = ContextOf(pass);
  if (recorder_ != nullptr) [[unlikely]] context.path = PathAt(hook, pass);
  const FilterVerdict verdict = filter_.Run(hook, pass.family, context);
  Judgement judgement;
  judgement.rule = verdict.rule;
  judgement.chain = verdict.chain;
  switch (verdict.kind) {
    case FilterVerdict::Kind::kAccept:
      break;
    case FilterVerdict::Kind::kDrop:
      judgement.kind = Judgement::Kind::kDrop;
      break;
    case FilterVerdict::Kind::kReject:
      judgement.kind = Judgement::Kind::kReject;
      judgement.drop = DropReason::kFirewallReject;
      judgement.reset = verdict.reject == stages::RejectKind::kTcpReset;
      judgement.reject_code = verdict.reject_code;
      break;
    case FilterVerdict::Kind::kKernel:
      if (pass.of_socket) [[unlikely]] {
        judgement.kind = Judgement::Kind::kReject;
        judgement.drop = DropReason::kUnsupportedRule;
        judgement.reset = pass.p.l4_protocol == wire::kProtocolTcp;
        judgement.reject_code =
            pass.family == Family::kIpv4 ? wire::kIcmpFiltered : wire::kIcmpv6Prohibited;
        break;
      }
      if (!pass.dry) LeaveToKernel(pass.p, pass.now);
      judgement.kind = Judgement::Kind::kPunt;
      break;
    case FilterVerdict::Kind::kNat:
      pass.wanted = verdict.nat;
      pass.wants_nat = true;
      break;
  }
  return judgement;
}

// The first packet of a connection asks the rules; all others do as was decided then.
Judgement Firewall::SetUp(HookPoint hook, NatManip manip, Pass& pass, Flow& flow) {
  pass.wants_nat = false;
  const Judgement judgement = Run(hook, pass);
  if (!judgement.accepted()) return judgement;
  const stages::Nat::Result result =
      pass.wants_nat && stages::Nat::ManipOf(pass.wanted.kind) == manip
          ? nat_.Setup(flow, pass.wanted,
                       {.snapshot = pass.snapshot,
                        .in = pass.in != nullptr ? pass.in->slot : IfaceSlot::None(),
                        .out = pass.out != nullptr ? pass.out->slot : IfaceSlot::None(),
                        .next_hop = pass.next_hop})
          : nat_.SetupNull(flow, manip);
  if (result.evict != tables::kNoFlow) conntrack_.Remove(result.evict);
  if (result.foreign_reply && worker_count_ > 1) flow.status |= tables::kFlowForeignReply;
  return ToJudgement(result.verdict);
}

Judgement Firewall::Translate(HookPoint hook, NatManip manip, Pass& pass) {
  Flow* const flow = FlowOf(pass.p);
  if (flow == nullptr || !nats_[pass.family == Family::kIpv6]) return Judgement::Accept();
  const FlowDirection direction = DirectionOf(pass.p);
  if (IsState(pass.p, CtState::kRelated) && tables::IsIcmp(pass.p.l4_protocol)) {
    return ToJudgement(stages::TranslateIcmpError(arena_, pass.p, *flow, direction, manip));
  }
  if (!flow->Has(tables::kFlowConfirmed) && !stages::Nat::IsSetUp(*flow, manip)) {
    const Judgement judgement = SetUp(hook, manip, pass, *flow);
    if (!judgement.accepted()) return judgement;
  }
  if (!stages::NeedsTranslation(*flow, direction, manip)) return Judgement::Accept();
  return ToJudgement(stages::Translate(arena_, pass.p, *flow, direction, manip));
}

// --- Before routing ---

// The rules before reassembly, unless the fragments that the packet is made of have met them.
Judgement Firewall::Begin(Pass& pass) {
  if (!begins_[pass.family == Family::kIpv6] || pass.p.Has(packet::kFlagBegun)) {
    return Judgement::Accept();
  }
  const Judgement judgement = Run(HookPoint::kIngress, pass);
  return judgement.accepted() ? Run(HookPoint::kPreroutingFirst, pass) : judgement;
}

Judgement Firewall::BeforeReassembly(Packet& p, const Interface& in, const Snapshot& snapshot,
                                     Nanos now) {
  const Family family = FamilyOf(p);
  if (!begins_[family == Family::kIpv6]) return Judgement::Accept();
  Pass pass{.p = p, .family = family, .snapshot = snapshot, .in = &in, .now = now};
  PuntReason reason;
  if (IsOwnSource(pass) || IsKernels(DestinationOf(p, family), snapshot, reason)) {
    return Judgement::Accept();
  }
  const Judgement judgement = Begin(pass);
  p.flags |= packet::kFlagBegun;
  return judgement;
}

bool Firewall::AdmitsOther(Packet& p, const Interface& in, const Snapshot& snapshot, Nanos now) {
  if (ruleset_ == nullptr || !ruleset_->HasIngressOther()) return true;
  Pass pass{.p = p, .family = Family::kIpv4, .snapshot = snapshot, .in = &in, .now = now};
  stages::FilterContext context = ContextOf(pass);
  return filter_.RunIngressOther(context).kind == FilterVerdict::Kind::kAccept;
}

void Firewall::TakeBackCounts(Packet& p, const Snapshot& snapshot, Nanos now) {
  if (ruleset_ == nullptr || !p.in.valid()) return;
  const uint8_t version = p.l3()[0] >> 4;
  const uint16_t type = wire::EthernetView(p.data).ether_type();
  Pass pass{.p = p,
            .family = version == 4 ? Family::kIpv4 : Family::kIpv6,
            .snapshot = snapshot,
            .in = &snapshot.at(p.in),
            .now = now};
  stages::FilterContext context = ContextOf(pass);
  context.take_back = true;
  context.trace = nullptr;
  if (type != wire::kEtherTypeIpv4 && type != wire::kEtherTypeIpv6) {
    static_cast<void>(filter_.RunIngressOther(context));
  } else if (snapshot.left_out != nullptr) {
    for (const HookPoint hook :
         {HookPoint::kIngress, HookPoint::kPreroutingFirst, HookPoint::kPreroutingRaw}) {
      static_cast<void>(filter_.Run(hook, pass.family, context));
    }
  }
}

Judgement Firewall::BeforeRouting(Packet& p, const Key& key, const Interface& in,
                                  const Snapshot& snapshot, Nanos now) {
  const Family family = FamilyOf(p);
  Pass pass{.p = p, .family = family, .snapshot = snapshot, .in = &in, .now = now};
  const tables::FlowTable::Found found =
      key.hash != 0 ? flows_.Find(key.tuple, key.hash) : tables::FlowTable::Found{};
  PuntReason reason;
  if (!found.found() || flows_.at(found.flow).expires <= now) {
    if (IsKernelsWithoutFlow(pass, key, reason)) return Judgement::Punt(reason);
  } else if (flows_.at(found.flow).Has(tables::kFlowKernel)) [[unlikely]] {
    if (found.direction == FlowDirection::kOriginal && IsSocketsByNow(pass, key)) {
      conntrack_.Remove(found.flow);
      return BeforeRouting(p, key, in, snapshot, now);  // as the first of another connection
    }
    if (!key.error) Claim(pass, key);
    if (IsKernels(DestinationOf(p, family), snapshot, reason)) return Judgement::Punt(reason);
    return Judgement::Punt(PuntReason::kUnsupportedRule);
  } else if (stages::NeedsTranslation(flows_.at(found.flow), found.direction,
                                      NatManip::kDestination)) {
    if (raw_[family == Family::kIpv6] && IsKernels(DestinationOf(p, family), snapshot, reason) &&
        (StaysUntracked(pass) || (!IsSegment(p, key) && !FollowsFlow(pass, key, found))) &&
        PassesWithoutFlow(pass)) {
      return Judgement::Punt(reason);  // it will not be translated
    }
    return BeforeRoutingForReal(pass, key, true);
  }
  return BeforeRoutingForReal(pass, key, false);
}

// `of_translated`: of a connection whose packets in this direction get another destination.
Judgement Firewall::BeforeRoutingForReal(Pass& pass, const Key& key, bool of_translated) {
  Judgement judgement = Begin(pass);
  if (judgement.accepted()) judgement = Run(HookPoint::kPreroutingRaw, pass);
  if (!judgement.accepted()) return judgement;
  if (tracks(pass.family)) {
    // For an error conntrack makes the tuple of what is quoted itself.
    tables::FlowTuple of_error;
    if (key.error) [[unlikely]] static_cast<void>(stages::MakeTuple(pass.p, of_error));
    judgement = ToJudgement(conntrack_.Track(pass.p, key.error ? of_error : key.tuple, key.hash,
                                             pass.snapshot.conntrack, arena_, pass.now));
    if (!judgement.accepted()) return judgement;
    PuntReason reason;
    if (IsState(pass.p, CtState::kInvalid) &&
        IsKernels(DestinationOf(pass.p, pass.family), pass.snapshot, reason) &&
        !IsSockets(pass.p)) {
      // The kernel, which does not know the connection, would take a segment for the first of another
      // one. No socket has the address and port that it is for.
      if (of_translated && reason == PuntReason::kLocal && IsSegment(pass.p, key)) {
        pass.p.flags |= packet::kFlagStray;
      } else if (!raw_[pass.family == Family::kIpv6] && PassesWithoutFlow(pass)) {
        return Judgement::Punt(reason);
      }
    }
  }
  judgement = Run(HookPoint::kPreroutingEarly, pass);
  if (judgement.accepted()) {
    judgement = Translate(HookPoint::kPreroutingNat, NatManip::kDestination, pass);
  }
  if (judgement.accepted()) judgement = Run(HookPoint::kPreroutingLate, pass);
  return judgement;
}

// --- After it ---

Judgement Firewall::Forwarding(Packet& p, const Interface& in, const Interface& out,
                               const Snapshot& snapshot, Nanos now) {
  Pass pass{
      .p = p, .family = FamilyOf(p), .snapshot = snapshot, .in = &in, .out = &out, .now = now};
  return Run(HookPoint::kForward, pass);
}

// The hooks of POSTROUTING.
Judgement Firewall::ToTheWire(Pass& pass) {
  Judgement judgement = Run(HookPoint::kPostroutingEarly, pass);
  if (judgement.accepted()) {
    judgement = Translate(HookPoint::kPostroutingNat, NatManip::kSource, pass);
  }
  if (judgement.accepted()) judgement = Run(HookPoint::kPostroutingLate, pass);
  return judgement;
}

// A connection's first packet has come to the end of its way through the hooks.
Judgement Firewall::Confirm(Pass& pass) {
  const Flow* const flow = FlowOf(pass.p);
  if (flow == nullptr || flow->Has(tables::kFlowConfirmed)) return Judgement::Accept();
  const Judgement judgement = ToJudgement(conntrack_.Confirm(pass.p, pass.now));
  if (!judgement.accepted()) return judgement;
  // Sent ahead of the packet, and taken before any answer is judged (Worker::Tick).
  if (flow->Has(tables::kFlowForeignReply) && !Announce(*flow, false)) {
    conntrack_.Remove(pass.p.flow);
    pass.p.flow = packet::kNoFlowIndex;
    return Judgement::Drop(DropReason::kHandoffFull);
  }
  nat_.Remember(pass.p.flow);
  return judgement;
}

Judgement Firewall::AfterRouting(Packet& p, const Interface& in, const Interface& out,
                                 const IpAddress& next_hop, const Snapshot& snapshot, Nanos now) {
  Pass pass{.p = p,
            .family = FamilyOf(p),
            .snapshot = snapshot,
            .in = &in,
            .out = &out,
            .next_hop = next_hop,
            .now = now};
  Judgement judgement = ToTheWire(pass);
  const Flow* const flow = FlowOf(p);
  if (!judgement.accepted() || flow == nullptr) return judgement;
  judgement = ToJudgement(stages::Nat::CheckOut(*flow, DirectionOf(p), out.slot));
  if (!judgement.accepted()) {
    if (flow->Has(tables::kFlowConfirmed)) conntrack_.Remove(p.flow);
    return judgement;
  }
  judgement = Confirm(pass);
  if (!judgement.accepted()) return judgement;
  // From here on the packet may wait for its neighbour for longer than its connection lives.
  p.flow = packet::kNoFlowIndex;
  return judgement;
}

// --- Giving back ---

void Firewall::RestoreOriginal(Packet& p) {
  const Flow* const flow = FlowOf(p);
  if (flow == nullptr || !flow->Has(tables::kFlowNatMask)) return;
  static_cast<void>(stages::RestoreOriginal(arena_, p, *flow, DirectionOf(p)));
}

void Firewall::LeaveTranslatedToKernel(Packet& p, Nanos now) {
  const Flow* const flow = FlowOf(p);
  if (flow == nullptr || flow->Has(tables::kFlowConfirmed)) return;
  if (flow->Has(tables::kFlowDestinationNat)) LeaveToKernel(p, now);
}

void Firewall::LeaveToKernel(Packet& p, Nanos now) {
  Flow* const flow = FlowOf(p);
  if (flow == nullptr) return;
  RestoreOriginal(p);
  flow->status |= tables::kFlowKernel;
  if (flow->Has(tables::kFlowConfirmed)) return;
  flow->status &= ~uint32_t{tables::kFlowNatMask};
  static_cast<void>(stages::InvertTuple(flow->tuple(FlowDirection::kOriginal),
                                        flow->tuple(FlowDirection::kReply)));
  static_cast<void>(conntrack_.Confirm(p, now));
}

}  // namespace sluice::dataplane
