// Timers. Each connection has one place in the worker's wheel, set to the earliest of its own; those
// that are cleared or moved later cost a needless visit, which is cheaper than moving the place.
#include <algorithm>

#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// RFC 8985 section 7.2: what a peer may delay the acknowledgment of a single segment by.
constexpr Nanos kMaxAckDelay = Millis(200);
constexpr Nanos kLeastProbeTimeout = Millis(2);
// So often a peer's closed window is probed for a connection that no program has any more.
constexpr uint8_t kOrphanProbes = 8;

}  // namespace

void Tcp::SetTimer(Tcb& t, TcpTimer timer, Nanos deadline) {
  t.deadlines[static_cast<size_t>(timer)] = deadline;
  if (deadline < t.wheel_deadline) {
    t.wheel_deadline = deadline;
    timers_.Schedule(tcbs_.IndexOf(t), deadline);
  }
}

void Tcp::ClearTimers(Tcb& t) {
  t.deadlines.fill(Nanos::Max());
  t.retransmit_timer = RetransmitTimer::kNone;
  t.wheel_deadline = Nanos::Max();
  timers_.Cancel(tcbs_.IndexOf(t));
}

void Tcp::OnTimer(Nanos now) {
  latest_ = now;
  BeginTurn();
  ContinueOutput(now);
  timers_.Advance(now, [&](uint32_t index) { Fire(tcbs_[index], now); });
  if (now >= memory_retry_) RetryMemory(now);
  Dispatch(now);
}

void Tcp::Fire(Tcb& t, Nanos now) {
  t.wheel_deadline = Nanos::Max();
  const uint32_t generation = t.generation;
  for (size_t i = 0; i < kTcpTimerCount; ++i) {
    if (t.deadlines[i] > now) continue;
    t.deadlines[i] = Nanos::Max();
    switch (static_cast<TcpTimer>(i)) {
      case TcpTimer::kRetransmit:
        OnRetransmitTimer(t, now);
        break;
      case TcpTimer::kReorder:
        // RFC 8985 section 6.3.
        if (DetectLosses(t, now) && t.recovery != Recovery::kRecovery &&
            t.recovery != Recovery::kLoss) {
          EnterRecovery(t, now);
          // PRR: the first retransmission goes for what the ACK has told of that set the timer.
          const uint32_t pipe = Pipe(t);
          t.congestion.set_cwnd(
              pipe + t.prr.OnAck(t.mss, pipe, t.congestion.ssthresh(), t.mss, false));
        }
        Output(t, now);
        break;
      case TcpTimer::kDelayedAck:
        if (t.ack_pending) SendAck(t, now);
        break;
      case TcpTimer::kKeepalive:
        OnKeepalive(t, now);
        break;
      case TcpTimer::kState:
        OnStateTimer(t, now);
        break;
      case TcpTimer::kPacing:
        Output(t, now);
        break;
    }
    if (t.generation != generation || t.state == TcpState::kClosed) return;
  }
  const Nanos next = *std::min_element(t.deadlines.begin(), t.deadlines.end());
  if (next < t.wheel_deadline) {
    t.wheel_deadline = next;
    timers_.Schedule(tcbs_.IndexOf(t), next);
  }
}

void Tcp::OnRetransmitTimer(Tcb& t, Nanos now) {
  const RetransmitTimer kind = t.retransmit_timer;
  t.retransmit_timer = RetransmitTimer::kNone;
  switch (kind) {
    case RetransmitTimer::kRto:
      return OnRto(t, now);
    case RetransmitTimer::kProbe:
      return SendTailLossProbe(t, now);
    case RetransmitTimer::kPersist:
      return OnPersist(t, now);
    case RetransmitTimer::kNone:
      return;
  }
}

bool Tcp::GivesUp(const Tcb& t, Nanos now) const {
  if (t.first_unanswered == Nanos::Max()) return false;
  Nanos limit = config_.times.data_give_up;
  if (t.state == TcpState::kSynSent) limit = config_.times.syn_give_up;
  if (t.state == TcpState::kSynReceived) limit = config_.times.syn_ack_give_up;
  if (t.options.user_timeout > Nanos()) limit = t.options.user_timeout;
  return now - t.first_unanswered >= limit;
}

// From now: a tail loss probe where one may help (RFC 8985 section 7.2), else the RTO; with nothing in
// flight but something to send, the window probe (RFC 9293 section 3.8.6.1).
void Tcp::RestartRetransmitTimer(Tcb& t, Nanos now) {
  t.retransmit_timer = RetransmitTimer::kNone;
  ClearTimer(t, TcpTimer::kRetransmit);
  Nanos wait;
  if (t.scoreboard.empty()) {
    const bool waiting = MaySend(t.state) && (t.Unsent() > 0 || (t.fin_queued && !t.fin_sent));
    if (!waiting) return;
    t.retransmit_timer = RetransmitTimer::kPersist;
    wait = std::min(t.rtt.rto() * (int64_t{1} << std::min<uint8_t>(t.persist_backoff, 16)),
                    config_.times.max_rto);
  } else {
    wait = t.rtt.rto();
    t.retransmit_timer = RetransmitTimer::kRto;
    if (config_.tail_loss_probes && t.was_established && t.sack_enabled &&
        t.recovery == Recovery::kOpen && !t.tlp_in_flight && t.scoreboard.sacked_bytes() == 0 &&
        t.scoreboard.lost_bytes() == 0) {
      // RFC 8985 section 7.2, TLP_calc_PTO: at the latest when the RTO would be.
      Nanos probe = Seconds(1);
      if (t.rtt.has_sample()) {
        probe = t.rtt.srtt() * 2 +
                (t.scoreboard.count() == 1 ? kMaxAckDelay : kLeastProbeTimeout);
      }
      wait = std::min(wait, probe);
      t.retransmit_timer = RetransmitTimer::kProbe;
    }
  }
  Nanos deadline = now + wait;
  // The user timeout (RFC 5482) holds to the point.
  if (t.options.user_timeout > Nanos() && t.first_unanswered != Nanos::Max()) {
    deadline = std::max(std::min(deadline, t.first_unanswered + t.options.user_timeout), now);
  }
  SetTimer(t, TcpTimer::kRetransmit, deadline);
}

// After sending: a running RTO stays (RFC 6298 section 5.1), a probe begins anew.
void Tcp::KeepRetransmitTimer(Tcb& t, Nanos now) {
  if (t.retransmit_timer == RetransmitTimer::kRto && !t.scoreboard.empty()) return;
  RestartRetransmitTimer(t, now);
}

void Tcp::OnPersist(Tcb& t, Nanos now) {
  if (GivesUp(t, now)) return Fail(t, SocketError::kTimedOut);
  if (t.orphan && t.persist_backoff >= kOrphanProbes) {
    ResetPeer(t, now);
    return Fail(t, SocketError::kTimedOut);
  }
  const TcpSeq before = t.snd_nxt;
  Output(t, now, /*force=*/true);
  if (t.snd_nxt != before) return;
  // The turn had nothing left, and what waits for the next does so without force: again later.
  if (t.unfinished && turn_left_ == 0) return RestartRetransmitTimer(t, now);
  if (t.first_unanswered == Nanos::Max()) t.first_unanswered = now;
  counters_.zero_window_probes.Add();
  SendProbe(t, now);
  t.persist_backoff = static_cast<uint8_t>(std::min(t.persist_backoff + 1, 32));
  RestartRetransmitTimer(t, now);
}

void Tcp::StartKeepalive(Tcb& t, Nanos now) {
  if (t.options.keepalive) {
    SetTimer(t, TcpTimer::kKeepalive, now + t.options.keepalive_idle);
  } else {
    ClearTimer(t, TcpTimer::kKeepalive);
  }
}

void Tcp::OnKeepalive(Tcb& t, Nanos now) {
  if (!t.options.keepalive || !IsSynchronized(t.state)) return;
  const Nanos due = t.last_received + t.options.keepalive_idle;
  if (t.keepalives_unanswered == 0 && due > now) return SetTimer(t, TcpTimer::kKeepalive, due);
  if (t.EverythingAcked()) {  // otherwise the retransmission timer asks
    if (t.keepalives_unanswered >= t.options.keepalive_probes) {
      ResetPeer(t, now);
      return Fail(t, SocketError::kTimedOut);
    }
    ++t.keepalives_unanswered;
    counters_.keepalive_probes.Add();
    SendProbe(t, now);
  }
  SetTimer(t, TcpTimer::kKeepalive, now + t.options.keepalive_interval);
}

void Tcp::OnStateTimer(Tcb& t, Nanos now) {
  if (t.state == TcpState::kTimeWait || t.state == TcpState::kFinWait2) return Finish(t);
  if (!t.orphan) return;
  counters_.orphans_timed_out.Add();
  ResetPeer(t, now);
  Fail(t, SocketError::kTimedOut);
}

}  // namespace sluice::transport
