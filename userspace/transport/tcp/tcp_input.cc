// A segment arrives (RFC 9293 section 3.10.7), in the order of that section.
#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"

namespace sluice::transport {

using packet::Verdict;

bool Tcp::TakeApart(packet::Packet& p, Segment& s) const {
  const auto view = wire::TcpView::Parse(FirstPieceOf(p));
  if (!view) return false;
  s.seq = TcpSeq(view->sequence());
  s.ack = TcpSeq(view->acknowledgment());
  s.flags = view->flags();
  s.window = view->window();
  s.payload_offset = static_cast<uint32_t>(p.l4_offset + view->header_length());
  s.payload = p.length - s.payload_offset;
  s.options = wire::ParseTcpOptions(view->options(), s.Has(wire::kTcpSyn));
  s.packet = &p;
  return !s.options.malformed;
}

Verdict Tcp::Receive(packet::Packet& p, Nanos now) {
  latest_ = now;
  if (!in_burst_) BeginTurn();
  const auto ports = wire::L4PortsView::Parse(FirstPieceOf(p));
  if (!ports) return Verdict::Continue();
  const IpEnds ends = EndsOf(p);
  Segment s;
  s.tuple = {{ends.destination, ports->destination_port()}, {ends.source, ports->source_port()}};
  s.ecn = ends.ecn;
  const uint32_t index = FindConnection(s.tuple);
  if (index != kNoIndex && tcbs_[index].spliced) return PassOn(tcbs_[index], p, now);
  const uint32_t listener = index == kNoIndex ? FindListener(s.tuple.local) : kNoIndex;
  if (index == kNoIndex && listener == kNoIndex) return Verdict::Continue();
  if (!TakeApart(p, s)) return Verdict::Drop(DropReason::kTcpHeader);
  if (!L4ChecksumOf(frames_.arena(), p, ends)) return Verdict::Drop(DropReason::kChecksum);
  counters_.segments_received.Add();

  Tcb* t = index == kNoIndex ? nullptr : &tcbs_[index];
  if (t != nullptr && t->partner != kNoIndex && MaySplice(*t, s, now)) {
    BeginSplice(*t, s, now);
    return PassOn(*t, p, now);
  }
  const Disposition disposition =
      t != nullptr ? OnSegment(*t, s, now) : OnListenerSegment(listener, s, now, t);
  if (in_burst_ && t != nullptr && !disposition && MayWait(*t, s)) {
    if (!t->waits_for_end) waiting_for_end_.push_back(tcbs_.IndexOf(*t));
    t->waits_for_end = true;
  } else {
    // Programs first, so that an answer of theirs carries the acknowledgment.
    const TcpSocket id = t != nullptr ? IdOf(*t) : TcpSocket{};
    Dispatch(now);
    if (t != nullptr && IdOf(*t) == id && t->state != TcpState::kClosed) Flush(*t, now);
  }
  if (s.taken) return Verdict::Local();
  if (disposition) return Verdict::Drop(*disposition);
  packet::FreePacket(frames_, p);
  return Verdict::Local();
}

// Whether what a segment asks for can be done at the burst's end. Not where a peer waits for a sign of
// each segment (duplicate ACKs), and not for more than so many: a window grows by its ACKs.
bool Tcp::MayWait(const Tcb& t, const Segment& s) const {
  constexpr uint32_t kMostSegments = 16;
  constexpr uint8_t kOdd = wire::kTcpSyn | wire::kTcpFin | wire::kTcpRst | wire::kTcpUrg;
  return t.state == TcpState::kEstablished && t.owned && (s.flags & kOdd) == 0 &&
         t.recovery == Recovery::kOpen && t.dup_acks == 0 && s.options.sack_count == 0 &&
         !t.receive.has_gaps() && !t.ecn_echo && t.dsack.left == t.dsack.right &&
         t.rcv_nxt - t.last_ack_sent < kMostSegments * t.rcv_mss;
}

void Tcp::EndBurst(Nanos now) {
  in_burst_ = false;
  Dispatch(now);
  for (const uint32_t index : waiting_for_end_) {
    Tcb& t = tcbs_[index];
    t.waits_for_end = false;
    if (t.state != TcpState::kClosed) Flush(t, now);
  }
  waiting_for_end_.clear();
}

Tcp::Disposition Tcp::OnSegment(Tcb& t, Segment& s, Nanos now) {
  if (t.state == TcpState::kSynSent) return OnSynSent(t, s, now);
  if (t.state == TcpState::kTimeWait) return OnTimeWait(t, s, now);
  return OnSynchronized(t, s, now);
}

// RFC 7323 section 5.3, R1 to R3; a TS.Recent of more than 24 days ago says nothing (section 5.5).
bool Tcp::PawsRejects(const Tcb& t, const Segment& s, Nanos now) const {
  constexpr Nanos kTooOld = Seconds(24 * 24 * 3600);
  if (!t.ts_enabled || !s.options.has_timestamps || s.Has(wire::kTcpRst)) return false;
  if (static_cast<int32_t>(s.options.ts_value - t.ts_recent) >= 0) return false;
  return now - t.ts_recent_time <= kTooOld;
}

// Section 3.10.7.4, "first, check sequence number". As Linux does, a segment that begins at the right
// edge or ends at RCV.NXT goes on: its ACK counts, its data is cut to the window later. That is the
// allowance that RFC 9293 makes for a window of zero.
bool Tcp::Acceptable(const Tcb& t, const Segment& s) const {
  return s.end().AtOrAfter(t.rcv_nxt) && s.seq.AtOrBefore(t.rcv_nxt + t.OfferedWindow());
}

Tcp::Disposition Tcp::OnUnacceptable(Tcb& t, Segment& s, Nanos now) {
  if (s.Has(wire::kTcpRst)) return DropReason::kTcpBadReset;
  const bool old = s.seq.Before(t.rcv_nxt);
  if (s.payload > 0) {
    if (old && t.sack_enabled) t.dsack = {s.seq, Earlier(s.seq + s.payload, t.rcv_nxt)};
    SendAck(t, now);
  } else {
    InvalidAck(t, now);
  }
  return old && s.length() > 0 ? DropReason::kTcpDuplicate : DropReason::kTcpOutsideWindow;
}

// Acknowledgments that a peer's nonsense makes us send are limited per connection, or two stacks that
// disagree would answer each other for ever.
void Tcp::InvalidAck(Tcb& t, Nanos now) {
  if (now - t.last_invalid_ack < config_.times.invalid_ack_interval) return;
  t.last_invalid_ack = now;
  SendAck(t, now);
}

// RFC 5961 sections 3.2, 4.2, 5.2 and the limit of section 7.
void Tcp::ChallengeAck(Tcb& t, Nanos now) {
  if (now - t.last_invalid_ack < config_.times.invalid_ack_interval) {
    counters_.challenge_acks_limited.Add();
    return;
  }
  const int64_t second = now / Seconds(1);
  if (second != challenge_second_) {
    challenge_second_ = second;
    const uint32_t limit = config_.limits.challenge_acks_per_second;
    challenges_left_ = limit / 2 + static_cast<uint32_t>(rng_.Below(limit / 2 + 1));
  }
  if (challenges_left_ == 0) {
    counters_.challenge_acks_limited.Add();
    return;
  }
  --challenges_left_;
  counters_.challenge_acks.Add();
  t.last_invalid_ack = now;
  SendAck(t, now);
}

// RFC 5961 section 3.2: only a reset that names RCV.NXT exactly counts at once.
Tcp::Disposition Tcp::OnReset(Tcb& t, const Segment& s, Nanos now) {
  if (s.seq != t.rcv_nxt) {
    ChallengeAck(t, now);
    return DropReason::kTcpBadReset;
  }
  counters_.resets_received.Add();
  Fail(t, t.state == TcpState::kSynReceived ? SocketError::kRefused : SocketError::kReset);
  return {};
}

Tcp::Disposition Tcp::OnSynchronized(Tcb& t, Segment& s, Nanos now) {
  if (PawsRejects(t, s, now)) {
    if (s.payload > 0) {
      if (t.sack_enabled && s.seq.Before(t.rcv_nxt)) {
        t.dsack = {s.seq, Earlier(s.seq + s.payload, t.rcv_nxt)};
      }
      SendAck(t, now);
    } else {
      InvalidAck(t, now);
    }
    return DropReason::kTcpPaws;
  }
  if (t.state == TcpState::kSynReceived && s.Has(wire::kTcpSyn) && s.Has(wire::kTcpAck) &&
      s.seq + 1 == t.rcv_nxt && s.ack == t.snd_nxt) {
    // Simultaneous open: the peer's SYN again, with the acknowledgment that we wait for.
    s.seq += 1;
    s.flags &= static_cast<uint8_t>(~wire::kTcpSyn);
  }
  if (t.state == TcpState::kSynReceived && s.Has(wire::kTcpSyn) && !s.Has(wire::kTcpAck) &&
      s.seq == t.irs) {
    // The SYN again: our answer was lost.
    if (!t.scoreboard.empty()) Retransmit(t, t.scoreboard.head(), now);
    return DropReason::kTcpDuplicate;
  }
  if (!Acceptable(t, s)) return OnUnacceptable(t, s, now);
  if (s.Has(wire::kTcpRst)) return OnReset(t, s, now);
  if (s.Has(wire::kTcpSyn)) {
    ChallengeAck(t, now);  // RFC 5961 section 4.2
    return DropReason::kTcpUnexpectedSyn;
  }
  if (!s.Has(wire::kTcpAck)) return DropReason::kTcpNoAck;
  t.last_received = now;
  t.keepalives_unanswered = 0;

  if (t.state == TcpState::kSynReceived) {
    if (s.ack.AtOrBefore(t.snd_una) || s.ack.After(t.snd_nxt)) {
      ResetFor(s, now);
      return DropReason::kTcpBadAck;
    }
  } else if (s.ack.After(t.snd_nxt) || s.ack.Before(t.snd_una - t.max_snd_wnd)) {
    ChallengeAck(t, now);  // RFC 5961 section 5.2
    return DropReason::kTcpBadAck;
  }
  // RFC 7323 section 4.3.
  if (t.ts_enabled && s.options.has_timestamps && s.seq.AtOrBefore(t.last_ack_sent) &&
      static_cast<int32_t>(s.options.ts_value - t.ts_recent) >= 0) {
    t.ts_recent = s.options.ts_value;
    t.ts_recent_time = now;
  }
  if (const Disposition bad = OnAck(t, s, now)) return bad;
  if (t.state == TcpState::kClosed) return {};  // LAST-ACK is over

  if (t.state == TcpState::kTimeWait) return {};
  Disposition result;
  if (s.payload > 0) {
    if (!MayReceive(t.state)) {
      // After its FIN the peer has no more to say.
      result = s.end().After(t.rcv_nxt) ? DropReason::kTcpOutsideWindow : DropReason::kTcpDuplicate;
      InvalidAck(t, now);
    } else if (!t.owned && t.listener == kNoIndex && s.end().After(t.rcv_nxt)) {
      // Nobody will read it (RFC 9293 section 3.6.1): the peer is to know. What it acknowledges is the
      // number that it believes at once (RFC 5961 section 3.2), which SND.NXT need not be.
      ResetFor(s, now);
      Fail(t, SocketError::kReset);
      return DropReason::kTcpAfterClose;
    } else {
      result = TakeData(t, s, now);
    }
  }
  if (s.Has(wire::kTcpFin) && MayReceive(t.state) && !t.fin_known) {
    t.fin_known = true;
    t.fin_seq = s.end() - 1;
  }
  if (t.fin_known && !t.fin_received && t.rcv_nxt == t.fin_seq) {
    TakeFin(t, now);
  } else if (s.Has(wire::kTcpFin)) {
    t.ack_now = true;
  }
  return result;
}

void Tcp::TakeFin(Tcb& t, Nanos now) {
  t.rcv_nxt += 1;
  if (t.rcv_adv.Before(t.rcv_nxt)) t.rcv_adv = t.rcv_nxt;
  t.fin_received = true;
  Raise(t, kEventReadable);
  if (t.state == TcpState::kEstablished) {
    SetState(t, TcpState::kCloseWait);
    // A program that is done, too, sends a FIN of its own.
    if (t.options.answers) return DelayAck(t, now + config_.times.answer_wait);
  }
  t.ack_now = true;
  switch (t.state) {
    case TcpState::kFinWait1:
      // Had our FIN been acknowledged, this would be FIN-WAIT-2.
      SetState(t, TcpState::kClosing);
      break;
    case TcpState::kFinWait2:
      SendAck(t, now);
      EnterTimeWait(t, now);
      break;
    default:
      break;
  }
}

void Tcp::OnFinAcked(Tcb& t, Nanos now) {
  switch (t.state) {
    case TcpState::kFinWait1:
      SetState(t, TcpState::kFinWait2);
      if (!t.owned) SetTimer(t, TcpTimer::kState, now + config_.times.fin_wait_2);
      break;
    case TcpState::kClosing:
      EnterTimeWait(t, now);
      break;
    case TcpState::kLastAck:
      Finish(t);
      break;
    default:
      break;
  }
}

// RFC 9293 section 3.10.7.4 for TIME-WAIT, with RFC 6191 for a new SYN and RFC 1337 for resets, which
// are ignored.
Tcp::Disposition Tcp::OnTimeWait(Tcb& t, Segment& s, Nanos now) {
  if (s.Has(wire::kTcpRst)) return DropReason::kTcpBadReset;
  if (s.Has(wire::kTcpSyn) && !s.Has(wire::kTcpAck)) {
    const bool later = s.seq.After(t.rcv_nxt) ||
                       (t.ts_enabled && s.options.has_timestamps &&
                        static_cast<int32_t>(s.options.ts_value - t.ts_recent) > 0);
    const uint32_t listener = FindListener(s.tuple.local);
    if (later && listener != kNoIndex) {
      // Beyond all that the old connection can have sent.
      const TcpSeq iss = Later(secrets_.InitialSequence(s.tuple, now), t.snd_nxt + 65537);
      counters_.time_wait_reused.Add();
      if (t.owned) {
        Finish(t);
      } else {
        ReleaseTcb(t);
      }
      return OnSyn(listener, s, iss, now);
    }
  }
  if (PawsRejects(t, s, now)) {
    InvalidAck(t, now);
    return DropReason::kTcpPaws;
  }
  if (s.Has(wire::kTcpFin) && s.end() == t.rcv_nxt) {
    // Our last ACK was lost.
    SetTimer(t, TcpTimer::kState, now + config_.times.time_wait);
    SendAck(t, now);
    return DropReason::kTcpDuplicate;
  }
  if (s.length() > 0 || !Acceptable(t, s)) {
    InvalidAck(t, now);
    return DropReason::kTcpOutsideWindow;
  }
  return {};
}

}  // namespace sluice::transport
