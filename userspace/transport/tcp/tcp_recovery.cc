// Losses: how they are found (RFC 8985, RFC 6675, RFC 6582), and what follows for the window
// (RFC 5681, RFC 6937, RFC 3168), the timeout (RFC 6298 section 5), and how a false alarm is taken
// back (RFC 3522, RFC 3708).
#include <algorithm>

#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// How many segments are looked at for losses at once; the rest goes on with the next news, or soon.
constexpr uint32_t kRackSteps = 1024;
constexpr Nanos kRackPause = Millis(1);

}  // namespace

// Without SACK each duplicate ACK tells of a segment that has left the network (RFC 5681 section
// 3.2, step 4).
uint32_t Tcp::Pipe(const Tcb& t) const {
  const uint32_t pipe = t.scoreboard.Pipe();
  if (t.sack_enabled || t.dup_acks == 0) return pipe;
  return pipe - std::min(pipe, t.dup_acks * uint32_t{t.mss});
}

void Tcp::AfterAck(Tcb& t, const Segment& s, const AckNews& news, Nanos now) {
  t.rack.OnAck(t.snd_una);
  uint32_t delivered = news.delivered;
  if (!t.sack_enabled) {
    if (news.duplicate) {
      ++t.dup_acks;
      delivered = t.mss;
    } else if (news.acked > 0) {
      // Of what is acknowledged now, duplicate ACKs have told before; one segment is new.
      const uint32_t told = t.dup_acks * uint32_t{t.mss};
      delivered = std::max<uint32_t>(news.acked - std::min(news.acked, told), 1);
      const uint32_t gone = news.acked / std::max<uint32_t>(t.mss, 1);
      t.dup_acks = t.snd_una.Before(t.recovery_point) && t.recovery == Recovery::kRecovery
                       ? t.dup_acks - std::min(t.dup_acks, gone > 0 ? gone - 1 : 0) : 0;
    }
  }
  if (t.tlp_in_flight) OnTailLossAck(t, s, news, now);
  if (t.undo_possible && TryUndo(t, s, news)) return;
  if (t.ecn_enabled && s.Has(wire::kTcpEce)) OnEcnEcho(t, now);

  if (t.recovery != Recovery::kOpen && t.snd_una.AtOrAfter(t.recovery_point)) EndRecovery(t);
  // Who tells nothing new makes no work; what only time shows is the reordering timer's.
  bool new_loss = (!t.sack_enabled || t.rack.news) && DetectLosses(t, now);
  if (t.recovery == Recovery::kRecovery && !t.sack_enabled && news.acked > 0 &&
      !t.scoreboard.empty() && !segments_[t.scoreboard.head()].Has(kTxRetransmitted)) {
    // A partial acknowledgment: the next hole begins here (RFC 6582 section 3.2, step 3).
    t.scoreboard.MarkLost(segments_, t.scoreboard.head());
    new_loss = true;
  }
  switch (t.recovery) {
    case Recovery::kOpen:
    case Recovery::kReduced:
      if (new_loss && t.recovery != Recovery::kRecovery) {
        EnterRecovery(t, now);
        delivered = std::max(delivered, 1u);
      }
      break;
    default:
      break;
  }
  if (t.recovery == Recovery::kRecovery || t.recovery == Recovery::kReduced) {
    const uint32_t pipe = Pipe(t);
    const uint32_t count = t.prr.OnAck(delivered, pipe, t.congestion.ssthresh(), t.mss,
                                       news.acked > 0 && !new_loss);
    t.congestion.set_cwnd(pipe + count);
    return;
  }
  const bool in_use =
      t.cwnd_limited ||
      (t.congestion.in_slow_start() && uint64_t{t.most_out} * 2 > t.congestion.cwnd()) ||
      t.recovery == Recovery::kLoss;
  if (news.acked > 0 && in_use && t.was_established) {
    // What SACK or duplicate ACKs have told of before has let new data go by then (RFC 3042).
    t.congestion.OnAck({std::min(news.acked, delivered), t.snd_una, t.snd_nxt, news.rtt_last, t.rtt.srtt(), now});
  }
}

bool Tcp::DetectLosses(Tcb& t, Nanos now) {
  if (t.scoreboard.empty() || !t.was_established) return false;
  if (t.sack_enabled) return DetectLossesByRack(t, now);
  if (t.dup_acks < Rack::kDupThresh || t.recovery == Recovery::kRecovery ||
      t.recovery == Recovery::kLoss) {
    return false;
  }
  t.scoreboard.MarkLost(segments_, t.scoreboard.head());
  return true;
}

// RFC 8985 section 6.2, step 5. Behind the first segment that was sent once and after RACK's, all
// others were sent later still. A walk that was cut goes on where it was; if there has been news since it
// began, another follows.
bool Tcp::DetectLossesByRack(Tcb& t, Nanos now) {
  Rack& rack = t.rack;
  if (!rack.valid) return false;
  if (!t.scoreboard.walking()) {
    rack.news = false;
    rack.due = Nanos();
  }
  const bool recovering = t.recovery == Recovery::kRecovery || t.recovery == Recovery::kLoss;
  const Nanos window = rack.ReorderingWindow(t.rtt.min_rtt(), t.rtt.srtt(), recovering,
                                             t.scoreboard.sacked_segments());
  bool lost = false;
  uint32_t steps = kRackSteps;
  uint32_t i = t.scoreboard.walk();
  for (; i != kNoIndex && steps > 0; i = segments_[i].next, --steps) {
    const TxSegment& x = segments_[i];
    if (!Rack::SentAfter(rack.xmit_time, rack.end_seq, x.sent, x.end())) {
      if (x.Has(kTxEverRetransmitted)) continue;
      i = kNoIndex;
      break;
    }
    if (x.Has(kTxSacked) || (x.Has(kTxLost) && !x.Has(kTxRetransmitted))) continue;
    const Nanos due = x.sent + rack.rtt + window;
    if (due <= now) {
      // The loss of a probe is no sign of congestion (RFC 4821 section 7.6.2).
      if (x.Has(kTxProbe)) {
        OnPathProbeLost(t);
      } else {
        lost = true;
      }
      t.scoreboard.MarkLost(segments_, i);
    } else {
      rack.due = std::max(rack.due, due);
    }
  }
  t.scoreboard.set_walk(i);
  if (i != kNoIndex || rack.news) {
    SetTimer(t, TcpTimer::kReorder, now + kRackPause);
  } else if (rack.due > Nanos()) {
    SetTimer(t, TcpTimer::kReorder, std::max(rack.due, now));
  } else {
    ClearTimer(t, TcpTimer::kReorder);
  }
  return lost;
}

void Tcp::Reduce(Tcb& t, Recovery why, Nanos now) {
  t.congestion.OnCongestion(t.Flight(), now);
  t.prr.Start(t.Flight());
  t.recovery = why;
  t.recovery_point = t.snd_nxt;
  t.undo_possible = why != Recovery::kReduced;
  t.undo_ts_valid = false;
  t.undo_retransmits = 0;
}

void Tcp::EnterRecovery(Tcb& t, Nanos now) {
  counters_.fast_recoveries.Add();
  if (t.recovery == Recovery::kReduced) {
    // cwnd is coming down already (RFC 3168 section 6.1.2: once per window).
    t.recovery = Recovery::kRecovery;
    t.recovery_point = t.snd_nxt;
  } else {
    Reduce(t, Recovery::kRecovery, now);
  }
  RestartRetransmitTimer(t, now);
}

void Tcp::EndRecovery(Tcb& t) {
  if (t.recovery != Recovery::kLoss) {
    // RFC 6937: cwnd is ssthresh now.
    t.congestion.set_cwnd(t.congestion.ssthresh());
  }
  if (t.recovery == Recovery::kRecovery) t.rack.OnRecoveryEnd();
  t.recovery = Recovery::kOpen;
  t.undo_possible = false;
  t.dup_acks = 0;
}

// Eifel (RFC 3522): the ACK of what was retransmitted echoes a timestamp from before. Or: D-SACK has
// told of each retransmission that it came twice (RFC 3708).
bool Tcp::TryUndo(Tcb& t, const Segment& s, const AckNews& news) {
  if (t.undo_retransmits == 0) return false;
  bool needless = false;
  if (news.acked > 0 && t.undo_ts_valid && t.ts_enabled && s.options.has_timestamps &&
      s.options.ts_echo_reply != 0) {
    needless = static_cast<int32_t>(s.options.ts_echo_reply - t.undo_ts) < 0;
  }
  if (!needless && news.dsack) needless = --t.undo_retransmits == 0;
  if (!needless) return false;
  counters_.undone.Add();
  t.congestion.Undo();
  t.scoreboard.ForgetLosses(segments_);
  t.recovery = Recovery::kOpen;
  t.undo_possible = false;
  t.dup_acks = 0;
  t.rack.reordering_seen = true;  // or the next ACK would find the same losses
  return true;
}

// RFC 3168 section 6.1.2: as for a loss, once per window, and the peer is told.
void Tcp::OnEcnEcho(Tcb& t, Nanos now) {
  if (t.recovery != Recovery::kOpen || t.EverythingAcked()) return;
  counters_.ecn_reductions.Add();
  t.send_cwr = true;
  Reduce(t, Recovery::kReduced, now);
}

// RFC 8985 section 7.4.2.
void Tcp::OnTailLossAck(Tcb& t, const Segment& s, const AckNews& news, Nanos now) {
  if (t.snd_una.Before(t.tlp_end_seq)) return;
  if (!t.tlp_is_retransmission || news.dsack) {
    t.tlp_in_flight = false;
  } else if (t.snd_una.After(t.tlp_end_seq)) {
    // The probe has repaired a loss: the congestion counts all the same.
    t.tlp_in_flight = false;
    if (t.recovery == Recovery::kOpen) {
      t.congestion.OnCongestion(news.prior_flight, now);
      t.congestion.set_cwnd(t.congestion.ssthresh());
    }
  } else if (news.duplicate && s.options.sack_count == 0) {
    t.tlp_in_flight = false;
  }
}

// RFC 8985 section 7.3: new data if there is some, else the last segment again.
void Tcp::SendTailLossProbe(Tcb& t, Nanos now) {
  counters_.tail_loss_probes.Add();
  t.tlp_is_retransmission = false;
  const TcpSeq before = t.snd_nxt;
  const Plan plan = PlanSegment(t, CongestionControl::kInfinite, false, {});
  if (!plan.empty()) SendNew(t, plan, false, now);
  if (t.snd_nxt == before) {
    if (t.scoreboard.empty()) return;
    t.tlp_is_retransmission = true;
    Retransmit(t, t.scoreboard.tail(), now);
  }
  t.tlp_in_flight = true;
  t.tlp_end_seq = t.snd_nxt;
  t.retransmit_timer = RetransmitTimer::kRto;
  SetTimer(t, TcpTimer::kRetransmit, now + t.rtt.rto());
}

// RFC 6298 sections 5.4 to 5.6, RFC 5681 section 3.1.
void Tcp::OnRto(Tcb& t, Nanos now) {
  if (t.scoreboard.empty()) return;
  if (GivesUp(t, now)) return Fail(t, SocketError::kTimedOut);
  counters_.timeouts.Add();
  t.timeouts_in_a_row = static_cast<uint8_t>(std::min(t.timeouts_in_a_row + 1, 255));
  t.tlp_in_flight = false;
  ClearTimer(t, TcpTimer::kReorder);
  if (!t.was_established) {
    t.rtt.BackOff();
    // RFC 3168 section 6.1.1.1: a SYN that asks for ECN may be what is dropped.
    if (t.timeouts_in_a_row >= 2) t.ecn_enabled = false;
    Retransmit(t, t.scoreboard.head(), now);
    return RestartRetransmitTimer(t, now);
  }
  OnPathProbeLost(t);
  OnBlackHole(t, now);
  const bool again = t.timeouts_in_a_row > 1;
  t.scoreboard.MarkAllLost(segments_);
  t.congestion.OnTimeout(t.Flight(), again, now);
  t.recovery = Recovery::kLoss;
  t.recovery_point = t.snd_nxt;
  t.dup_acks = 0;
  if (!again) {
    t.undo_possible = true;
    t.undo_ts_valid = false;
    t.undo_retransmits = 0;
  }
  t.rtt.BackOff();
  Output(t, now);
  RestartRetransmitTimer(t, now);
}

}  // namespace sluice::transport
