#include "stages/conntrack/conntrack.h"

#include <span>

#include "stages/conntrack/icmp_kinds.h"
#include "stages/conntrack/sctp_tracker.h"
#include "stages/conntrack/tcp_tracker.h"
#include "stages/conntrack/tcp_window.h"
#include "stages/conntrack/validate.h"
#include "wire/icmp.h"
#include "wire/protocol.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::Packet;
using packet::Verdict;
using tables::ConntrackSettings;
using tables::CtState;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::FlowTuple;

struct Conntrack::Context {
  const Packet& p;
  const FlowTuple& tuple;
  const ConntrackSettings& settings;
  const FrameArena& arena;
  const Nanos now;
  TcpSegment tcp;  // of TCP
};

namespace {

// A stream of UDP packets that lasts this long is one (nf_conntrack_udp_packet).
constexpr Nanos kUdpStreamAfter = Seconds(2);

void SetState(Packet& p, CtState state) { p.ct_state = static_cast<uint8_t>(state); }

CtState StateOf(const Flow& flow, FlowDirection direction) {
  if (direction == FlowDirection::kReply || flow.Has(tables::kFlowSeenReply)) {
    return CtState::kEstablished;
  }
  return flow.Has(tables::kFlowExpected) ? CtState::kRelated : CtState::kNew;
}

TrackResult TrackUdp(Flow& flow, const ConntrackSettings& settings, Nanos now) {
  if (!flow.Has(tables::kFlowSeenReply) || now <= flow.stream_from) {
    return TrackResult::Refresh(settings.udp);
  }
  flow.status |= tables::kFlowAssured;
  return TrackResult::Refresh(settings.udp_stream);
}

TrackResult TrackGre(Flow& flow, const ConntrackSettings& settings) {
  if (!flow.Has(tables::kFlowSeenReply)) return TrackResult::Refresh(settings.gre);
  flow.status |= tables::kFlowAssured;
  return TrackResult::Refresh(settings.gre_stream);
}

// The protocol's own state, which timeouts depend on.
uint8_t ProtocolState(const Flow& flow) {
  switch (flow.tuples[0].protocol) {
    case wire::kProtocolTcp: return flow.tcp.state;
    case wire::kProtocolSctp: return flow.sctp.state;
    default: return 0;
  }
}

}  // namespace

Verdict Conntrack::Invalid(Packet& p) {
  p.flow = packet::kNoFlowIndex;
  SetState(p, CtState::kInvalid);
  counters_.invalid.Add();
  return Verdict::Continue();
}

Verdict Conntrack::Track(Packet& p, const FlowTuple& tuple, uint64_t hash,
                         const ConntrackSettings& settings, const FrameArena& arena, Nanos now) {
  if (p.ct_state == static_cast<uint8_t>(CtState::kUntracked)) return Verdict::Continue();
  p.ct_direction = static_cast<uint8_t>(FlowDirection::kOriginal);
  if (hash == 0 || !TransportIsSound(p, arena, settings.checksum)) return Invalid(p);
  switch (IcmpKindOf(tuple)) {
    case IcmpKind::kNone:
    case IcmpKind::kQuery:
      break;
    case IcmpKind::kError:
      return TrackIcmpError(p, tuple, now);
    case IcmpKind::kUntracked:
      Untrack(p);
      return Verdict::Continue();
    case IcmpKind::kInvalid:
      return Invalid(p);
  }
  Context c{p, tuple, settings, arena, now, {}};
  if (tuple.protocol == wire::kProtocolTcp && !ReadTcpSegment(p, c.tcp)) return Invalid(p);
  for (;;) {
    tables::FlowTable::Found found = FindLive(tuple, hash, now);
    const bool fresh = !found.found();
    if (fresh) {
      Verdict verdict = Verdict::Continue();
      found.flow = Begin(c, p, verdict);
      if (!found.found()) return verdict;
    }
    bool again = false;
    const Verdict verdict = Apply(c, p, found, fresh, again);
    if (!again) return verdict;
  }
}

tables::FlowTable::Found Conntrack::FindLive(const FlowTuple& tuple, uint64_t hash, Nanos now) {
  const tables::FlowTable::Found found = table_.Find(tuple, hash);
  if (!found.found() || table_.at(found.flow).expires > now) return found;
  counters_.expired.Add();
  End(found.flow);
  return {};
}

Verdict Conntrack::TrackIcmpError(Packet& p, const FlowTuple& tuple, Nanos now) {
  QuotedPacket quoted;
  FlowTuple wanted;
  const std::span<const uint8_t> quote(
      p.l4() + wire::IcmpView::kSize,
      static_cast<size_t>(p.segment_length - p.l4_offset) - wire::IcmpView::kSize);
  if (!ParseQuote(quote, tuple.family, quoted) || !InvertTuple(quoted.tuple, wanted)) {
    return Invalid(p);
  }
  // The error goes where the answers to the quoted packet go: to its sender, and nobody else.
  const auto found = FindLive(wanted, table_.Hash(wanted), now);
  if (!found.found() || wanted.destination != tuple.destination) return Invalid(p);
  table_.Touch(found.flow, now);
  p.flow = found.flow;
  p.ct_direction = static_cast<uint8_t>(found.direction);
  SetState(p, CtState::kRelated);
  return Verdict::Continue();
}

bool Conntrack::MayBegin(const Context& c, FlowTuple& inverse, tables::SctpTracking& sctp) {
  if (!InvertTuple(c.tuple, inverse)) return false;
  switch (c.tuple.protocol) {
    case wire::kProtocolTcp:
      return TcpMayBegin(c.tcp, c.settings);
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      return IcmpMayBegin(c.tuple);
    case wire::kProtocolSctp:
      return BeginSctp(c.p, c.arena, sctp);
    default:
      return true;
  }
}

bool Conntrack::WouldTrack(const Packet& p, const FlowTuple& tuple,
                           const tables::FlowTable::Found& found,
                           const ConntrackSettings& settings, const FrameArena& arena,
                           Nanos now) const {
  const IcmpKind kind = IcmpKindOf(tuple);
  if (kind != IcmpKind::kNone && kind != IcmpKind::kQuery) return false;
  if (!TransportIsSound(p, arena, settings.checksum)) return false;
  Context c{p, tuple, settings, arena, now, {}};
  const bool tcp = tuple.protocol == wire::kProtocolTcp;
  if (tcp && !ReadTcpSegment(p, c.tcp)) return false;
  if (!found.found()) {
    FlowTuple inverse;
    tables::SctpTracking sctp;
    return MayBegin(c, inverse, sctp);
  }
  if (!tcp && tuple.protocol != wire::kProtocolSctp) return true;
  Flow flow = table_.at(found.flow);
  if (tcp && flow.Has(tables::kFlowOffload)) ForgetTcpWindows(flow.tcp);
  const TrackResult result = tcp ? TrackTcp(flow, found.direction, c.tcp, settings, now)
                                 : TrackSctp(flow, found.direction, p, arena, settings);
  return result.kind != TrackResult::Kind::kInvalid;
}

FlowIndex Conntrack::Begin(const Context& c, Packet& p, Verdict& verdict) {
  FlowTuple inverse;
  tables::SctpTracking sctp;
  if (!MayBegin(c, inverse, sctp)) {
    verdict = Invalid(p);
    return tables::kNoFlow;
  }
  if (c.settings.limits_sources && !table_.SourceHasRoom(c.tuple)) {
    counters_.per_source.Add();
    verdict = Verdict::Drop(DropReason::kConntrackPerSource);
    return tables::kNoFlow;
  }
  const FlowIndex index =
      table_.Allocate(c.now, [this](FlowIndex gone) {
        counters_.early_dropped.Add();
        TellForeign(table_.at(gone));
      });
  if (index == tables::kNoFlow) {
    counters_.full.Add();
    verdict = Verdict::Drop(DropReason::kConntrackFull);
    return tables::kNoFlow;
  }
  Flow& flow = table_.at(index);
  flow.tuples = {c.tuple, inverse};
  if (!c.settings.limits_sources) flow.status |= tables::kFlowUncounted;
  switch (c.tuple.protocol) {
    case wire::kProtocolTcp: BeginTcp(flow, c.tcp); break;
    case wire::kProtocolSctp: flow.sctp = sctp; break;
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite: flow.stream_from = c.now + kUdpStreamAfter; break;
    default: break;
  }
  CountFlows();
  return index;
}

Verdict Conntrack::Apply(const Context& c, Packet& p, tables::FlowTable::Found found, bool fresh,
                         bool& again) {
  Flow& flow = table_.at(found.flow);
  table_.Touch(found.flow, c.now);
  const CtState state = StateOf(flow, found.direction);
  const uint8_t protocol_state = ProtocolState(flow);
  TrackResult result;
  switch (c.tuple.protocol) {
    case wire::kProtocolTcp:
      // Packets that were not seen here have gone by.
      if (flow.Has(tables::kFlowOffload)) [[unlikely]] ForgetTcpWindows(flow.tcp);
      result = TrackTcp(flow, found.direction, c.tcp, c.settings, c.now);
      break;
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite:
      result = TrackUdp(flow, c.settings, c.now);
      break;
    case wire::kProtocolIcmp:
      result = TrackResult::Refresh(c.settings.icmp);
      break;
    case wire::kProtocolIcmpv6:
      result = TrackResult::Refresh(c.settings.icmpv6);
      break;
    case wire::kProtocolSctp:
      result = TrackSctp(flow, found.direction, c.p, c.arena, c.settings);
      break;
    case wire::kProtocolGre:
      result = TrackGre(flow, c.settings);
      break;
    default:
      result = TrackResult::Refresh(c.settings.generic);
      break;
  }
  if (result.kind == TrackResult::Kind::kInvalid) {
    if (fresh) {
      table_.Free(found.flow);
      CountFlows();
    }
    return Invalid(p);
  }
  if (flow.Has(tables::kFlowOffload) && c.tuple.protocol == wire::kProtocolTcp &&
      flow.tcp.state != static_cast<uint8_t>(tables::TcpState::kEstablished)) [[unlikely]] {
    table_.NoteChanged(found.flow);
  }
  if (result.kind == TrackResult::Kind::kReopen) {
    End(found.flow);
    again = true;
    return Verdict::Continue();
  }
  if (result.kind != TrackResult::Kind::kPass) {
    tables::FlowCount& count = flow.count(found.direction);
    ++count.packets;
    count.bytes += c.p.l3_length();
  }
  if (result.kind == TrackResult::Kind::kRefresh && !flow.Has(tables::kFlowFixedTimeout)) {
    const Nanos expires = c.now + result.timeout;
    const bool sooner = expires < flow.expires && protocol_state != ProtocolState(flow);
    flow.expires = expires;
    if (sooner) table_.Hasten(found.flow);
  }
  if (found.direction == FlowDirection::kReply) flow.status |= tables::kFlowSeenReply;
  p.flow = found.flow;
  p.ct_direction = static_cast<uint8_t>(found.direction);
  SetState(p, state);
  if (result.kind == TrackResult::Kind::kEnd) End(found.flow);
  return Verdict::Continue();
}

void Conntrack::SetClosing(const Packet& p, const ConntrackSettings& settings, Nanos now) {
  if (p.flow == packet::kNoFlowIndex) return;
  Flow& flow = table_.at(p.flow);
  constexpr auto kClose = static_cast<uint8_t>(tables::TcpState::kClose);
  if (flow.tuples[0].protocol != wire::kProtocolTcp || flow.tcp.state == kClose) return;
  flow.tcp.state = kClose;
  if (flow.Has(tables::kFlowFixedTimeout)) return;
  flow.expires = now + settings.tcp_timeout(tables::TcpState::kClose);
  if (flow.Has(tables::kFlowConfirmed)) table_.Hasten(p.flow);
}

void Conntrack::End(FlowIndex flow) {
  TellForeign(table_.at(flow));
  table_.Remove(flow);
  CountFlows();
}

Verdict Conntrack::Confirm(Packet& p, Nanos now) {
  if (p.flow == packet::kNoFlowIndex) return Verdict::Continue();
  const Flow& flow = table_.at(p.flow);
  if (flow.Has(tables::kFlowConfirmed)) return Verdict::Continue();
  for (const FlowTuple& tuple : flow.tuples) FindLive(tuple, table_.Hash(tuple), now);
  if (table_.Insert(p.flow)) {
    counters_.created.Add();
    return Verdict::Continue();
  }
  // Another packet of this tick has been quicker. If it is the same connection, it is the flow of
  // both (nf_ct_resolve_clash).
  counters_.clashed.Add();
  const auto found = table_.Find(flow.tuples[0]);
  if (found.found()) {
    Flow& other = table_.at(found.flow);
    const bool same_way = found.direction == FlowDirection::kOriginal;
    const bool tcp = flow.tuples[0].protocol == wire::kProtocolTcp;
    if (other.tuple(Opposite(found.direction)) == flow.tuples[1] && (same_way || !tcp)) {
      other.count(found.direction).packets += flow.counts[0].packets;
      other.count(found.direction).bytes += flow.counts[0].bytes;
      if (!same_way) other.status |= tables::kFlowSeenReply;
      Abandon(p);
      p.flow = found.flow;
      p.ct_direction = static_cast<uint8_t>(found.direction);
      return Verdict::Continue();
    }
  }
  Abandon(p);
  return Verdict::Drop(DropReason::kConntrackClash);
}

void Conntrack::Abandon(Packet& p) {
  if (p.flow == packet::kNoFlowIndex) return;
  if (!table_.at(p.flow).Has(tables::kFlowConfirmed)) {
    table_.Free(p.flow);
    CountFlows();
  }
  p.flow = packet::kNoFlowIndex;
}

void Conntrack::Untrack(Packet& p) {
  Abandon(p);
  SetState(p, CtState::kUntracked);
}

bool Conntrack::Expire(Nanos now, size_t max_visits) {
  const auto expired = [this](FlowIndex flow) {
    counters_.expired.Add();
    TellForeign(table_.at(flow));
  };
  const bool done = table_.Expire(now, expired, max_visits);
  CountFlows();
  return done;
}

}  // namespace sluice::stages
