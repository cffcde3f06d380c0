// What is sent, and when: the sender's half of flow control and of Nagle's algorithm, and how a
// segment is built.
#include <algorithm>

#include "transport/common/datagram.h"
#include "transport/tcp/tcp.h"
#include "wire/tcp_segment.h"

namespace sluice::transport {

namespace {

constexpr uint8_t kEctZero = 2;  // RFC 3168's ECT(0)

// As late as a timer may be: two ticks of the wheel.
constexpr Nanos kPacingCredit = Millis(1);

// What one ACK, and what one turn may set free at once, in segments; the rest goes in the next turns.
constexpr uint32_t kMostPerOutput = 64;
constexpr uint32_t kMostPerTurn = 512;

uint32_t SackBytes(uint32_t blocks) { return blocks == 0 ? 0 : 4 + 8 * blocks; }

}  // namespace

void Tcp::BeginTurn() { turn_left_ = kMostPerTurn; }

// What earlier turns have left: one portion of each, in the order in which they came to wait.
void Tcp::ContinueOutput(Nanos now) {
  for (uint32_t n = unfinished_.count(); n > 0 && turn_left_ > 0; --n) {
    Tcb& t = tcbs_[unfinished_.Pop()];
    t.unfinished = false;
    Output(t, now);
  }
}

inline Sending Tcp::WhatSendingWaitsFor(const Tcb& t) const {
  const uint32_t next = std::min<uint32_t>(t.Unsent(), t.mss);
  if (!t.was_established) return Sending::kIdle;  // no data yet
  if (next == 0) [[likely]] {
    if (t.EverythingAcked()) return Sending::kIdle;
    return t.wants_writable ? Sending::kSendBuffer : Sending::kBusy;
  }
  const bool in_window = (t.snd_nxt + next).AtOrBefore(t.snd_una + t.snd_wnd);
  return in_window || Pipe(t) + next > t.congestion.cwnd() ? Sending::kBusy : Sending::kPeerWindow;
}

// Everything that may go now, as far as the turn allows. `force`: the override timer of section 3.8.6.2.1.
void Tcp::Output(Tcb& t, Nanos now, bool force) {
  const bool more = t.Unsent() > 0 || (t.fin_queued && !t.fin_sent);
  if (!MaySend(t.state) ||
      (!more && t.scoreboard.lost_bytes() == t.scoreboard.retransmitted_bytes())) {
    t.sending.Enter(WhatSendingWaitsFor(t), now);
    return;
  }
  CheckPathMtuAge(t, now);
  // RFC 5681 section 4.1: "before transmission begins", so not while the peer's window is closed.
  if (config_.restart_after_idle && t.EverythingAcked() && now - t.last_sent > t.rtt.rto() &&
      !PlanSegment(t, t.congestion.cwnd(), force, {}).empty()) {
    t.congestion.OnIdle(t.last_sent, now);
  }
  uint32_t most = std::min(kMostPerOutput, turn_left_);
  const uint32_t allowed = most;
  bool cut = Retransmissions(t, most, now);
  // Pipe() has taken off what SACK or duplicate ACKs have told of, so that each of the first signs of a
  // loss lets a new segment go (limited transmit, RFC 3042, RFC 6675 section 5 step 3).
  const uint32_t limit = t.congestion.cwnd();
  const TcpSeq before = t.snd_nxt;
  uint32_t burst = 0;  // known when there is more than one segment
  uint32_t sent = 0;
  Plan plan;
  if (PacingHolds(t, now)) {
    // The timer brings us back.
  } else if (t.path_probe.high == 0 || SendPathProbe(t, now) != ProbeStep::kWait) {
    plan = PlanSegment(t, limit, force, {});
  }
  TcpSeq burst_begin = t.snd_nxt;
  while (!plan.empty()) {
    if (most == 0) {
      cut = true;
      break;
    }
    --most;
    const Plan next = plan.fin ? Plan() : PlanSegment(t, limit, false, plan);
    if (burst == 0 && !next.empty()) burst = BurstSize(t);
    const bool ends = ++sent == burst || next.empty() || most == 0;
    const bool push = ends && sent > 1 && (t.snd_nxt + plan.length).AtOrBefore(t.push_seq);
    if (ends) sent = 0;
    if (!SendNew(t, plan, push || (force && plan.length == t.Unsent()), now)) break;
    plan = next;
    if (!ends) continue;
    PaceBurst(t, t.snd_nxt - burst_begin, now);
    burst_begin = t.snd_nxt;
    if (!plan.empty() && PacingHolds(t, now)) break;
  }
  turn_left_ -= allowed - most;
  if (!cut) {
    NoteUsage(t, plan.cwnd_in_the_way || Pipe(t) + t.mss > limit);
  } else if (!t.unfinished) {
    t.unfinished = true;
    unfinished_.Push(tcbs_.IndexOf(t));
  }
  if (t.snd_nxt != before || !t.EverythingAcked()) {
    KeepRetransmitTimer(t, now);
  } else if (t.retransmit_timer == RetransmitTimer::kNone) {
    // The peer's window, or a want of frames: look again later (section 3.8.6.1).
    RestartRetransmitTimer(t, now);
  }
  t.sending.Enter(WhatSendingWaitsFor(t), now);
  // What has been sent does not wait any more.
  if (t.wants_writable && LowWater(t) != kNoLowWater) [[unlikely]] TellWritable(t);
}

// Bytes per second at which the window is spread over the round trip: twice as fast as it is now in slow
// start, so that the window can grow, else a fifth faster. 0: not known yet.
uint64_t Tcp::PacingRate(const Tcb& t) const {
  if (!t.rtt.has_sample()) return 0;
  const uint64_t percent = t.congestion.in_slow_start() ? 200 : 120;
  const auto micros = std::max<uint64_t>(static_cast<uint64_t>(t.rtt.srtt() / Micros(1)), 1);
  return uint64_t{t.congestion.cwnd()} * percent * 10'000 / micros;
}

// New data goes in bursts of what the pacing rate makes in a millisecond, at most half of the window
// (Linux sizes what its NIC cuts by this rule). The last segment of a burst says so by PSH: a receiver
// that collects segments need not wait for more.
uint32_t Tcp::BurstSize(const Tcb& t) const {
  const uint64_t segments = PacingRate(t) / 1000 / t.mss;
  const uint32_t half = std::max(t.congestion.cwnd() / 2 / t.mss, 1u);
  return static_cast<uint32_t>(
      std::min<uint64_t>(std::max<uint64_t>(segments, config_.least_burst), half));
}

// Whether new data is to wait; the timer is set then.
bool Tcp::PacingHolds(Tcb& t, Nanos now) {
  if (!t.options.pacing || now >= t.pacing_next) return false;
  SetTimer(t, TcpTimer::kPacing, t.pacing_next);
  return true;
}

// After a burst: when the next may go. Over a path so short that half of the window is gone in a
// millisecond, timers are too coarse, and ACKs pace well enough. A timer that was late is made up for.
void Tcp::PaceBurst(Tcb& t, uint32_t bytes, Nanos now) {
  if (!t.options.pacing) return;
  const uint64_t rate = PacingRate(t);
  if (rate / 1000 * 2 >= t.congestion.cwnd() || rate == 0) return;
  const Nanos takes(static_cast<int64_t>(uint64_t{bytes} * 1'000'000'000 / rate));
  t.pacing_next = std::max(t.pacing_next, now - std::min(takes, kPacingCredit)) + takes;
}

// RFC 9438 section 5.8 (RFC 7661): cwnd grows only while it is what limits. A flight of data counts as a
// whole, since by its last ACKs little is out.
void Tcp::NoteUsage(Tcb& t, bool cwnd_limited) {
  if (t.snd_una.AtOrAfter(t.usage_end) || cwnd_limited ||
      (!t.cwnd_limited && t.Flight() > t.most_out)) {
    t.cwnd_limited = cwnd_limited;
    t.most_out = t.Flight();
    t.usage_end = t.snd_nxt;
  }
}

// At most `most`, which is taken off; whether there would be more.
bool Tcp::Retransmissions(Tcb& t, uint32_t& most, Nanos now) {
  for (uint32_t i; (i = t.scoreboard.NextLost(segments_)) != kNoIndex; --most) {
    const uint32_t pipe = Pipe(t);
    const uint32_t length = std::min<uint32_t>(segments_[i].length, t.mss);
    if (pipe > 0 && pipe + length > t.congestion.cwnd()) return false;
    if (most == 0) return true;
    if (!Retransmit(t, i, now)) return false;
  }
  return false;
}

bool Tcp::Retransmit(Tcb& t, uint32_t index, Nanos now) {
  if (frames_.size() == 0) {
    counters_.no_frame.Add();
    return false;
  }
  if (segments_[index].payload() > t.mss) {
    // The path's MTU has become smaller. Without a place for the rest there is nothing to be done.
    if (!t.scoreboard.Split(segments_, index, t.mss)) {
      counters_.no_segment.Add();
      return false;
    }
  }
  const TxSegment x = segments_[index];
  uint8_t flags = wire::kTcpAck;
  if (x.Has(kTxSyn)) {
    flags = wire::kTcpSyn;
    if (t.state != TcpState::kSynSent) flags |= wire::kTcpAck;
  }
  if (x.Has(kTxFin)) flags |= wire::kTcpFin;
  if (x.Has(kTxPush)) flags |= wire::kTcpPsh;
  if (t.undo_possible && !t.undo_ts_valid) {
    t.undo_ts = TsNow(t, now);
    t.undo_ts_valid = true;
  }
  if (t.undo_possible) ++t.undo_retransmits;
  t.scoreboard.MarkRetransmitted(segments_, index, now);
  t.prr.OnSent(x.length);
  counters_.segments_retransmitted.Add();
  ++t.retransmitted;
  return Transmit(t, x.seq, x.payload(), flags, false, now);
}

Tcp::Plan Tcp::PlanSegment(const Tcb& t, uint32_t limit, bool force, Plan before) const {
  const uint32_t ahead = before.length;
  const uint32_t unsent = t.Unsent() - ahead;
  const bool fin = t.fin_queued && !t.fin_sent;
  if (unsent == 0 && !fin) return {};
  uint32_t mss = t.mss;
  if (t.receive.has_gaps()) {
    mss -= std::min(mss / 2, SackBytes(std::min(t.receive.range_count(), 3u)));
  }
  const TcpSeq edge = t.snd_una + t.snd_wnd;
  const TcpSeq from = t.snd_nxt + ahead;
  const uint32_t window = edge.After(from) ? edge - from : 0;
  const uint32_t whole = t.send.WithinRecord(send_pool_, from, std::min(unsent, mss)).length;
  Plan plan;
  plan.length = std::min(whole, window);
  plan.fin = fin && plan.length == unsent && window > plan.length;
  if (plan.empty()) return plan;
  const uint32_t pipe = Pipe(t) + ahead;
  if (pipe > 0 && plan.length > 0 && pipe + plan.length > limit) {
    return {.cwnd_in_the_way = true};
  }
  plan.small = plan.length < mss;
  if (!plan.small || plan.fin || force) return plan;
  if (plan.length < whole) {
    // The window cuts it: wait for a better one, unless half of the largest is there (the sender's
    // part against the silly window, section 3.8.6.2.1).
    if (plan.length < t.max_snd_wnd / 2) return {};
  } else if (plan.length == unsent && !t.fin_queued) {
    // With more behind the end of a record nothing is to be waited for.
    if (t.options.cork || t.more_to_come) return {};
    // Nagle (RFC 896), as of RFC 9293 3.7.4 with one small segment in flight.
    const bool small_out = before.small || t.snd_small_end.After(t.snd_una);
    if (!t.options.no_delay && small_out) return {};
  }
  return plan;
}

// Connections with much in flight leave the last eighth of the places to those with little.
uint32_t Tcp::SegmentLimit() const {
  constexpr uint32_t kFewSegments = 16;
  const bool scarce = segments_.capacity() - segments_.used() < segments_.capacity() / 8;
  return scarce ? kFewSegments : config_.limits.segments_per_connection;
}

// One segment of new data, or a FIN; false when there is no memory for it.
bool Tcp::SendNew(Tcb& t, const Plan& plan, bool push, Nanos now) {
  const uint32_t length = plan.length;
  const bool with_fin = plan.fin;
  if (frames_.size() == 0) {
    counters_.no_frame.Add();
    return false;
  }
  uint8_t marks = plan.probe ? kTxProbe : 0;
  if (with_fin) marks |= kTxFin;
  const bool ends_data = length == t.Unsent() && t.push_seq == t.write_end();
  if (length > 0 && (ends_data || t.send.WithinRecord(send_pool_, t.snd_nxt, length).ends_record)) {
    marks |= kTxPush;
  }
  if (t.scoreboard.count() >= SegmentLimit() ||
      !t.scoreboard.Append(segments_, t.snd_nxt, length + (with_fin ? 1 : 0), marks, now)) {
    counters_.no_segment.Add();
    return false;
  }
  const TcpSeq seq = t.snd_nxt;
  if (t.EverythingAcked()) t.first_unanswered = now;
  t.snd_nxt += length + (with_fin ? 1 : 0);
  if (with_fin) t.fin_sent = true;
  if (plan.small) t.snd_small_end = t.snd_nxt;
  if (t.recovery == Recovery::kRecovery || t.recovery == Recovery::kReduced) t.prr.OnSent(length);
  uint8_t flags = wire::kTcpAck;
  if (with_fin) flags |= wire::kTcpFin;
  if ((marks & kTxPush) != 0 || (push && length > 0)) flags |= wire::kTcpPsh;
  if (t.send_cwr && length > 0) {
    flags |= wire::kTcpCwr;
    t.send_cwr = false;
  }
  // RFC 3168 section 6.1.5: new data only.
  Transmit(t, seq, length, flags, t.ecn_enabled && length > 0, now);
  return true;
}

bool Tcp::Transmit(Tcb& t, TcpSeq seq, uint32_t payload, uint8_t flags, bool ect, Nanos now) {
  const bool syn = (flags & wire::kTcpSyn) != 0;
  const bool ack = (flags & wire::kTcpAck) != 0;
  wire::TcpOptions o;
  if (syn) {
    o = SynOptions(t, now);
    if (t.state == TcpState::kSynSent && EcnOf(t.options) == EcnMode::kActive &&
        t.timeouts_in_a_row < 2) {
      flags |= wire::kTcpEce | wire::kTcpCwr;
    } else if (t.state == TcpState::kSynReceived && t.ecn_enabled) {
      flags |= wire::kTcpEce;
    }
  } else {
    o.has_timestamps = t.ts_enabled;
    o.ts_value = TsNow(t, now);
    o.ts_echo_reply = t.ts_recent;
    if (t.sack_enabled && (t.receive.has_gaps() || t.dsack.left != t.dsack.right)) {
      // As many blocks as the header has room for, and the segment, if it carries data.
      const uint32_t header_room = t.ts_enabled ? 3 : 4;
      const uint32_t spare = payload >= t.mss ? 0 : t.mss - payload;
      const uint32_t most = spare < 12 ? 0 : std::min(header_room, (spare - 4) / 8);
      if (t.dsack.left != t.dsack.right && most > 0) {
        o.sack[o.sack_count++] = t.dsack;
        t.dsack = {};
      }
      t.receive.FillSack(receive_pool_, o, most);
    }
    if (t.ecn_echo) flags |= wire::kTcpEce;
  }
  const auto header = static_cast<uint32_t>(wire::TcpView::kMinSize + wire::TcpOptionsLength(o));
  const uint32_t size = header + payload;
  packet::Packet p;
  if (!BeginDatagram(frames_, t.tuple, wire::kProtocolTcp, size,
                     {.ecn = ect ? kEctZero : uint8_t{0}, .ttl = config_.ttl}, p)) {
    counters_.no_frame.Add();
    return false;
  }
  const uint16_t window = SelectWindow(t, syn);
  wire::EmitTcpHeader({p.l4(), header},
                      {t.tuple.local.port, t.tuple.remote.port, seq,
                       ack ? t.rcv_nxt : TcpSeq(), flags, window},
                      o);
  t.send.Read(send_pool_, syn ? seq + 1 : seq, p.l4() + header, payload);
  wire::FillTcpChecksum({p.l4(), size},
                        PseudoSumOf(t.tuple.local.address, t.tuple.remote.address,
                                    wire::kProtocolTcp, size));
  if (ack) {
    t.last_ack_sent = t.rcv_nxt;
    t.ack_now = t.ack_pending = false;
    ClearTimer(t, TcpTimer::kDelayedAck);
  }
  if (payload > 0 || syn) t.last_sent = now;
  counters_.segments_sent.Add();
  ip_.Output(p, now);
  return true;
}

// After an event: what may go, and the acknowledgment if no data carried it.
void Tcp::Flush(Tcb& t, Nanos now) {
  Output(t, now);
  if (t.ack_now && t.state != TcpState::kSynSent && t.state != TcpState::kClosed) SendAck(t, now);
}

// An old sequence number and no data: whoever is alive must answer (RFC 9293 section 3.8.4).
void Tcp::SendProbe(Tcb& t, Nanos now) {
  Transmit(t, t.snd_una - 1, 0, wire::kTcpAck, false, now);
}

void Tcp::SendReset(const Tuple& tuple, TcpSeq seq, std::optional<TcpSeq> ack,
                    const wire::TcpOptions& options, Nanos now) {
  packet::Packet p;
  const auto size =
      static_cast<uint32_t>(wire::TcpView::kMinSize + wire::TcpOptionsLength(options));
  if (!BeginDatagram(frames_, tuple, wire::kProtocolTcp, size, {.ttl = config_.ttl}, p)) {
    counters_.no_frame.Add();
    return;
  }
  uint8_t flags = wire::kTcpRst;
  if (ack) flags |= wire::kTcpAck;
  wire::EmitTcpHeader({p.l4(), size},
                      {tuple.local.port, tuple.remote.port, seq, ack.value_or(TcpSeq()), flags},
                      options);
  wire::FillTcpChecksum({p.l4(), size}, PseudoSumOf(tuple.local.address, tuple.remote.address,
                                                    wire::kProtocolTcp, size));
  counters_.resets_sent.Add();
  counters_.segments_sent.Add();
  ip_.Output(p, now);
}

// Section 3.10.7.1: the answer to a segment that belongs to nothing.
void Tcp::ResetFor(const Segment& s, Nanos now) {
  if (s.Has(wire::kTcpRst)) return;
  counters_.resets_of_strangers.Add();
  if (s.Has(wire::kTcpAck)) {
    SendReset(s.tuple, s.ack, {}, {}, now);
  } else {
    SendReset(s.tuple, TcpSeq(), s.end(), {}, now);
  }
}

// Section 3.10.5: ABORT tells the peer.
void Tcp::ResetPeer(Tcb& t, Nanos now) {
  if (t.state == TcpState::kClosed || t.state == TcpState::kSynSent ||
      t.state == TcpState::kTimeWait) {
    return;
  }
  // RFC 7323 section 3.2: timestamps in resets as well.
  wire::TcpOptions o;
  o.has_timestamps = t.ts_enabled;
  o.ts_value = TsNow(t, now);
  o.ts_echo_reply = t.ts_recent;
  SendReset(t.tuple, t.snd_nxt, t.rcv_nxt, o, now);
}

}  // namespace sluice::transport
