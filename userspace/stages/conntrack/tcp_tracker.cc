#include "stages/conntrack/tcp_tracker.h"

#include <algorithm>

#include "stages/conntrack/tcp_states.h"
#include "stages/conntrack/tcp_window.h"
#include "wire/tcp.h"

namespace sluice::stages {

using tables::ConntrackSettings;
using tables::Flow;
using tables::FlowDirection;
using tables::TcpState;
using tables::TcpTracking;

namespace {

// From RST and FIN outside the window on, a dead connection need not stay for days.
constexpr Nanos kShrinkFrom = Seconds(120);

struct Step {
  Flow& flow;
  TcpTracking& tcp;
  const FlowDirection direction;
  const TcpSegment& segment;
  const ConntrackSettings& settings;
  TcpState before;
  TcpState after;

  size_t from() const { return static_cast<size_t>(direction); }
  size_t to() const { return 1 - from(); }
  SegmentKind last_kind() const { return static_cast<SegmentKind>(tcp.last_kind); }
  bool Established() const {
    return static_cast<TcpState>(tcp.state) == TcpState::kEstablished &&
           flow.Has(tables::kFlowAssured);
  }
};

// How the walk through the rules goes on.
enum class Way : uint8_t { kWindow, kAccept, kPass, kInvalid, kReopen };

bool IsClosing(TcpState s) { return s >= TcpState::kFinWait && s <= TcpState::kClose; }

void Remember(Step& step) {
  TcpTracking& tcp = step.tcp;
  tcp.last_kind = static_cast<uint8_t>(step.segment.kind);
  tcp.last_direction = static_cast<uint8_t>(step.direction);
  tcp.last_sequence = step.segment.sequence;
  tcp.last_end = step.segment.end;
  tcp.last_window = step.segment.window;
}

// The SYN-ACK for a SYN that was ignored: the ends are in step, so begin as after that SYN.
Way FallIn(Step& step) {
  TcpTracking& tcp = step.tcp;
  const size_t other = tcp.last_direction;
  step.before = TcpState::kSynSent;
  step.after = TcpState::kSynReceived;
  tables::TcpPeer& peer = tcp.peers[other];
  peer.end = peer.max_end = tcp.last_end;
  peer.max_window = std::max<uint32_t>(tcp.last_window, 1);
  tcp.scales[other] = tcp.last_window_scale;
  tcp.last_flags &= static_cast<uint8_t>(~tables::kTcpExpectChallengeAck);
  tcp.flags[other] = tcp.last_flags;
  tcp.peers[step.from()] = tables::TcpPeer{};
  tcp.scales[step.from()] = 0;
  tcp.flags[step.from()] &= tables::kTcpBeLiberal;
  return Way::kWindow;
}

Way Ignored(Step& step) {
  TcpTracking& tcp = step.tcp;
  const TcpSegment& s = step.segment;
  if (s.kind == SegmentKind::kSynAck && step.last_kind() == SegmentKind::kSyn &&
      tcp.last_direction != step.from() && s.acknowledgment == tcp.last_end) {
    return FallIn(step);
  }
  Remember(step);
  if (s.kind == SegmentKind::kSyn && step.direction == FlowDirection::kOriginal) {
    const TcpSynOptions options = ReadSynOptions(s);
    tcp.last_flags = options.flags;
    tcp.last_window_scale = options.scale;
    // The answer may be a challenge (RFC 5961 section 4), which is no last ACK.
    if (step.before == TcpState::kLastAck) tcp.last_flags |= tables::kTcpExpectChallengeAck;
  }
  if (step.before == TcpState::kSynSent && s.kind == SegmentKind::kAck &&
      step.direction == FlowDirection::kReply) {
    tcp.last_ack = s.acknowledgment;
  }
  return Way::kPass;
}

Way Synchronise(Step& step) {
  const TcpTracking& tcp = step.tcp;
  if (step.before < TcpState::kTimeWait) return Way::kWindow;
  const bool closed = ((tcp.flags[0] | tcp.flags[1]) & tables::kTcpCloseInit) != 0;
  const bool aborted =
      tcp.last_direction == step.from() && step.last_kind() == SegmentKind::kRst;
  return closed || aborted ? Way::kReopen : Ignored(step);
}

// RST answering a SYN or ACK that was ignored: it acknowledges what was remembered.
bool AnswersIgnored(const Step& step) {
  const bool syn = step.flow.Has(tables::kFlowSeenReply) &&
                   step.last_kind() == SegmentKind::kSyn &&
                   step.tcp.last_direction != step.from();
  const bool ack = !step.flow.Has(tables::kFlowAssured) && step.last_kind() == SegmentKind::kAck;
  return (syn || ack) && step.segment.acknowledgment == step.tcp.last_end;
}

Way Reset(Step& step) {
  TcpTracking& tcp = step.tcp;
  const TcpSegment& s = step.segment;
  // The tuple may be another connection's already; what is known of numbers is old.
  if (IsClosing(static_cast<TcpState>(tcp.state))) return Way::kAccept;
  if ((tcp.flags[step.to()] & tables::kTcpMaxAckSet) != 0 &&
      step.last_kind() != SegmentKind::kSyn) {
    const uint32_t acked = tcp.peers[step.to()].max_ack;
    const bool established = step.Established();
    if (s.sequence == 0 && !established) return Way::kWindow;
    if (SequenceBefore(s.sequence, acked) && !step.settings.tcp_ignore_invalid_rst) {
      return Way::kInvalid;
    }
    if (!established || s.sequence == acked) return Way::kWindow;
    // Right behind data of the same sender that is still on its way.
    if (step.last_kind() == SegmentKind::kAck && tcp.last_direction == step.from() &&
        s.sequence == tcp.last_end) {
      return Way::kWindow;
    }
    // Not exact: the receiver will challenge it (RFC 5961 section 3), so it decides nothing.
    step.after = step.before;
  }
  if (AnswersIgnored(step)) return Way::kAccept;
  if (step.before == TcpState::kSynSent && step.last_kind() == SegmentKind::kAck &&
      tcp.last_direction == static_cast<uint8_t>(FlowDirection::kReply) &&
      s.sequence == tcp.last_ack) {
    return Way::kAccept;  // the answer to a challenge ACK
  }
  return Way::kWindow;
}

Way Advance(Step& step, TcpNext next) {
  TcpTracking& tcp = step.tcp;
  const SegmentKind kind = step.segment.kind;
  switch (next) {
    case TcpNext::kInvalid:
      return Way::kInvalid;
    case TcpNext::kIgnore:
      return Ignored(step);
    case TcpNext::kSynSent:
      return Synchronise(step);
    case TcpNext::kSynSent2:
      tcp.last_flags |= tables::kTcpSimultaneousOpen;
      return Way::kWindow;
    case TcpNext::kSynReceived:
      if (step.direction == FlowDirection::kReply && kind == SegmentKind::kAck &&
          (tcp.last_flags & tables::kTcpSimultaneousOpen) != 0) {
        step.after = TcpState::kEstablished;
      }
      return Way::kWindow;
    case TcpNext::kTimeWait:
      if (step.before == TcpState::kLastAck && kind == SegmentKind::kAck &&
          tcp.last_direction != step.from() && step.last_kind() == SegmentKind::kSyn &&
          (tcp.last_flags & tables::kTcpExpectChallengeAck) != 0) {
        tcp.last_flags &= static_cast<uint8_t>(~tables::kTcpExpectChallengeAck);
        return Way::kPass;
      }
      return Way::kWindow;
    case TcpNext::kClose:
      return kind == SegmentKind::kRst ? Reset(step) : Way::kWindow;
    default:
      return Way::kWindow;
  }
}

// FIN and RST outside the window, of both sides: the connection is probably dead.
void ShrinkIfDead(Step& step, Nanos now) {
  Flow& flow = step.flow;
  const SegmentKind kind = step.segment.kind;
  if (!flow.Has(tables::kFlowAssured) || flow.Has(tables::kFlowFixedTimeout)) return;
  if (kind != SegmentKind::kRst && kind != SegmentKind::kFin) return;
  const SegmentKind last = step.last_kind();
  const bool both = step.tcp.last_direction != step.from() &&
                    (last == SegmentKind::kFin || last == SegmentKind::kRst);
  if (!both) {
    step.tcp.last_kind = static_cast<uint8_t>(kind);
    step.tcp.last_direction = static_cast<uint8_t>(step.direction);
    return;
  }
  const Nanos left = flow.expires - now;
  if (left >= kShrinkFrom && left > step.settings.tcp_unacknowledged) {
    flow.expires = now + step.settings.tcp_unacknowledged;
  }
}

Nanos TimeoutOf(const Step& step) {
  const TcpTracking& tcp = step.tcp;
  const ConntrackSettings& settings = step.settings;
  const Nanos usual = settings.tcp_timeout(step.after);
  const Nanos retransmitting = settings.tcp_max_retrans_timeout;
  if (tcp.retransmissions >= settings.tcp_max_retrans && usual > retransmitting) {
    return retransmitting;
  }
  if (step.segment.kind == SegmentKind::kRst) return settings.tcp_timeout(TcpState::kClose);
  const bool unacknowledged =
      ((tcp.flags[0] | tcp.flags[1]) & tables::kTcpDataUnacknowledged) != 0;
  if (unacknowledged && usual > settings.tcp_unacknowledged) return settings.tcp_unacknowledged;
  if (tcp.last_window == 0 && usual > retransmitting) return retransmitting;
  return usual;
}

TrackResult Accept(Step& step) {
  TcpTracking& tcp = step.tcp;
  Flow& flow = step.flow;
  const SegmentKind kind = step.segment.kind;
  tcp.last_kind = static_cast<uint8_t>(kind);
  tcp.last_direction = static_cast<uint8_t>(step.direction);
  tcp.state = static_cast<uint8_t>(step.after);
  if (step.before != step.after && step.after == TcpState::kFinWait) {
    tcp.flags[step.from()] |= tables::kTcpCloseInit;
  }
  Nanos timeout = TimeoutOf(step);
  if (!flow.Has(tables::kFlowSeenReply)) {
    // Refused: nothing will follow.
    if (kind == SegmentKind::kRst) return TrackResult::End();
    // Repeated SYNs without an answer do not keep a flow alive, nor its translation.
    if (kind == SegmentKind::kSyn && step.before == TcpState::kSynSent) return TrackResult::Pass();
    // Picked up in its middle, and nobody has answered yet.
    if (step.after == TcpState::kEstablished) {
      timeout = std::min(timeout, step.settings.tcp_unacknowledged);
    }
  } else if (!flow.Has(tables::kFlowAssured) && step.after == TcpState::kEstablished &&
             (step.before == TcpState::kSynReceived || step.before == TcpState::kEstablished)) {
    flow.status |= tables::kFlowAssured;
  }
  return TrackResult::Refresh(timeout);
}

}  // namespace

bool TcpMayBegin(const TcpSegment& segment, const ConntrackSettings& settings) {
  const TcpNext next = NextTcpState(FlowDirection::kOriginal, segment.kind, TcpState::kNone);
  return next == TcpNext::kSynSent || (next == TcpNext::kEstablished && settings.tcp_loose);
}

void BeginTcp(Flow& flow, const TcpSegment& segment) { BeginTcpWindow(flow.tcp, segment); }

TrackResult TrackTcp(Flow& flow, FlowDirection direction, const TcpSegment& segment,
                     const ConntrackSettings& settings, Nanos now) {
  const auto before = static_cast<TcpState>(flow.tcp.state);
  const TcpNext next = NextTcpState(direction, segment.kind, before);
  Step step{flow, flow.tcp, direction, segment, settings, before, static_cast<TcpState>(next)};
  switch (Advance(step, next)) {
    case Way::kWindow:
      break;
    case Way::kAccept:
      return Accept(step);
    case Way::kPass:
      return TrackResult::Pass();
    case Way::kInvalid:
      return TrackResult::Invalid();
    case Way::kReopen:
      return TrackResult::Reopen();
  }
  switch (CheckTcpWindow(flow.tcp, direction, segment, settings.tcp_be_liberal)) {
    case WindowCheck::kAccept:
      return Accept(step);
    case WindowCheck::kIgnore:
      return TrackResult::Pass();
    case WindowCheck::kInvalid:
      break;
  }
  ShrinkIfDead(step, now);
  return TrackResult::Invalid();
}

}  // namespace sluice::stages
