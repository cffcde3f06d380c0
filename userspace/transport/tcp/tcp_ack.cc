// What an acknowledgment says: about our segments, the round trip, and the peer's window.
#include <algorithm>

#include "transport/tcp/tcp.h"

namespace sluice::transport {

namespace {

// How many segments one ACK may have looked at that it tells nothing new of. Who sends in order comes
// from one block to the next in a few steps; the rest is told again with the next ACK.
constexpr uint32_t kSackSteps = 1024;

}  // namespace

Tcp::Disposition Tcp::OnAck(Tcb& t, const Segment& s, Nanos now) {
  AckNews news;
  news.prior_pipe = Pipe(t);
  news.prior_flight = t.Flight();
  t.rack.BeginAck();
  if (t.state == TcpState::kSynReceived) {
    t.snd_wl1 = s.seq - 1;  // so that this segment's window counts
    t.snd_wl2 = s.ack;
  }
  const bool window_changed = UpdateSendWindow(t, s);
  if (s.ack.After(t.snd_una)) {
    TakeCumulativeAck(t, s, news, now);
  } else if (s.ack.Before(t.snd_una)) {
    // Overtaken by a later one. What it has SACKed has arrived all the same; its data may be new.
    if (!t.sack_enabled || s.options.sack_count == 0) return {};
    TakeSack(t, s, news, now);
    news.dsack = false;
    if (!news.sacked_new) return {};
    if (news.rtt > Nanos()) t.rtt.Sample(news.rtt, now);
    AfterAck(t, s, news, now);
    KeepRetransmitTimer(t, now);
    return {};
  }
  if (t.sack_enabled && s.options.sack_count > 0) TakeSack(t, s, news, now);
  // RFC 5681 section 2's five conditions.
  news.duplicate = news.acked == 0 && news.prior_flight > 0 && s.payload == 0 &&
                   !s.Has(wire::kTcpFin) && !window_changed;
  if (news.rtt > Nanos()) {
    t.rtt.Sample(news.rtt, now);
    const auto bucket =
        std::lower_bound(kRoundTripBounds.begin(), kRoundTripBounds.end(), news.rtt);
    counters_.round_trips[static_cast<size_t>(bucket - kRoundTripBounds.begin())].Add();
    counters_.round_trip_ns.Add(static_cast<uint64_t>(news.rtt.count()));
  }
  if (news.acked > 0 || t.EverythingAcked()) {
    t.first_unanswered = t.EverythingAcked() ? Nanos::Max() : now;
  }
  if (news.acked > 0) {
    const bool repeated = t.timeouts_in_a_row > 0;
    t.timeouts_in_a_row = 0;
    t.rtt.EndBackoff();
    if (t.state == TcpState::kSynReceived) Establish(t, repeated, now);
  }
  AfterAck(t, s, news, now);
  if (news.acked > 0) {
    if (t.orphan) NoteOrphanProgress(t, news.acked, now);
    RestartRetransmitTimer(t, now);
    TellWritable(t);
    if (t.fin_sent && t.EverythingAcked()) OnFinAcked(t, now);
  } else if (news.sacked_new || window_changed) {
    KeepRetransmitTimer(t, now);
  }
  return {};
}

// Section 3.10.7.4: only from a segment that is newer than the one before.
bool Tcp::UpdateSendWindow(Tcb& t, const Segment& s) {
  if (!(t.snd_wl1.Before(s.seq) || (t.snd_wl1 == s.seq && t.snd_wl2.AtOrBefore(s.ack)))) {
    return false;
  }
  const uint32_t window = uint32_t{s.window} << t.snd_wnd_shift;
  const bool changed = window != t.snd_wnd;
  t.snd_wnd = window;
  t.max_snd_wnd = std::max(t.max_snd_wnd, window);
  t.snd_wl1 = s.seq;
  t.snd_wl2 = s.ack;
  if (window > 0) t.persist_backoff = 0;
  return changed;
}

// A segment has arrived at the peer: RFC 8985 steps 1 to 3, and the round trip (RFC 6298; Karn's
// rule).
void Tcp::Delivered(Tcb& t, const TxSegment& x, const Segment& s, AckNews& news, Nanos now) {
  const bool again = x.Has(kTxEverRetransmitted);
  const Nanos elapsed = now - x.sent;
  bool ambiguous = again && elapsed < t.rtt.min_rtt();
  if (again && t.ts_enabled && s.options.has_timestamps) {
    ambiguous |= static_cast<int32_t>(s.options.ts_echo_reply - TsNow(t, x.sent)) < 0;
  }
  t.rack.OnDelivered(x.sent, x.end(), again, ambiguous, now);
  t.rack.DetectReordering(x.end(), again);
  if (again) return;
  if (x.Has(kTxProbe)) OnPathProbeArrived(t);
  if (news.rtt == Nanos()) news.rtt = std::max(elapsed, Nanos(1));
  news.rtt_last = std::max(elapsed, Nanos(1));
}

void Tcp::TakeCumulativeAck(Tcb& t, const Segment& s, AckNews& news, Nanos now) {
  news.acked = s.ack - t.snd_una;
  while (!t.scoreboard.empty()) {
    const TxSegment x = segments_[t.scoreboard.head()];
    if (x.end().After(s.ack)) {
      if (x.seq.Before(s.ack)) {
        if (!x.Has(kTxSacked)) news.delivered += s.ack - x.seq;
        t.scoreboard.TrimFront(segments_, s.ack - x.seq);
      }
      break;
    }
    if (!x.Has(kTxSacked)) {
      news.delivered += x.length;
      Delivered(t, x, s, news, now);
    }
    t.scoreboard.PopFront(segments_);
  }
  t.snd_una = s.ack;
  t.send.Acknowledge(send_pool_, Earlier(s.ack, t.write_end()));
  if (t.snd_small_end.Before(t.snd_una)) t.snd_small_end = t.snd_una;
  // With timestamps a retransmission gives a sample as well (RFC 7323 section 4).
  if (news.rtt == Nanos() && t.ts_enabled && s.options.has_timestamps &&
      s.options.ts_echo_reply != 0) {
    const uint32_t ms = TsNow(t, now) - s.options.ts_echo_reply;
    if (ms < 120'000) news.rtt = std::max(Millis(ms), Micros(500));
  }
}

// RFC 2883 section 4: a first block below the acknowledgment, or within the second block.
bool Tcp::HasDsack(const Segment& s) {
  if (s.options.sack_count == 0) return false;
  const wire::TcpSackBlock& first = s.options.sack[0];
  if (first.right.AtOrBefore(s.ack)) return true;
  if (s.options.sack_count < 2) return false;
  const wire::TcpSackBlock& second = s.options.sack[1];
  return second.left.AtOrBefore(first.left) && second.right.AtOrAfter(first.right);
}

// RFC 6675 section 4's Update, for what is new in the blocks.
void Tcp::TakeSack(Tcb& t, const Segment& s, AckNews& news, Nanos now) {
  news.dsack = HasDsack(s);
  if (news.dsack) t.rack.OnDsack(t.snd_nxt);
  if (t.scoreboard.sacked_segments() == 0) t.sack_told = {};
  decltype(t.sack_told) told{};
  uint32_t budget = kSackSteps;
  for (uint8_t b = news.dsack ? 1 : 0; b < s.options.sack_count; ++b) {
    const wire::TcpSackBlock& block = s.options.sack[b];
    if (!block.left.Before(block.right) || block.left.Before(t.snd_una) ||
        block.right.After(t.snd_nxt)) {
      continue;  // not about what is in flight
    }
    told[b] = TakeSackBlock(t, block, s, news, budget, now);
  }
  t.sack_told = told;
}

// Returns what is known by now to have arrived of the block, from the beginning of a segment to the end
// of one.
wire::TcpSackBlock Tcp::TakeSackBlock(Tcb& t, wire::TcpSackBlock block, const Segment& s,
                                      AckNews& news, uint32_t& budget, Nanos now) {
  // What the last ACK has told of its beginning and of its end need not be looked at.
  wire::TcpSackBlock known = block;
  bool begins = false;
  bool ends = false;
  for (const wire::TcpSackBlock& old : t.sack_told) {
    if (old.left == old.right || old.left.AtOrAfter(block.right) ||
        old.right.AtOrBefore(block.left)) {
      continue;
    }
    if (old.left.AtOrBefore(block.left) && old.right.AtOrAfter(block.right)) return old;
    if (old.left.AtOrBefore(block.left)) {
      begins = true;
      known.left = old.left;
      block.left = old.right;
    } else if (old.right.AtOrAfter(block.right)) {
      ends = true;
      known.right = old.right;
      block.right = old.left;
    }
  }
  TcpSeq arrived = block.left;  // so far, from block.left on
  for (uint32_t i = t.scoreboard.Find(segments_, block.left, budget); i != kNoIndex;
       i = segments_[i].next) {
    const TxSegment x = segments_[i];
    if (x.seq.AtOrAfter(block.right)) break;
    if (x.seq.Before(block.left)) continue;  // a part of it
    if (!begins) known.left = arrived = x.seq;
    begins = true;
    if (x.end().After(block.right)) {
      // Some receivers do not count a FIN. Any other part of a segment says nothing.
      const bool but_fin = x.Has(kTxFin) && x.length > 1 && x.end() == block.right + 1;
      if (!but_fin || x.Has(kTxSacked) || !t.scoreboard.Split(segments_, i, x.length - 1)) break;
    }
    arrived = segments_[i].end();
    if (x.Has(kTxSacked)) {
      if (budget == 0) break;
      --budget;
      continue;
    }
    news.delivered += segments_[i].length;
    news.sacked_new = true;
    Delivered(t, segments_[i], s, news, now);
    t.scoreboard.MarkSacked(segments_, i);
  }
  if (!begins) return {};
  if (!ends || arrived != block.right) known.right = arrived;
  return known;
}

// Not for every byte: when a quarter of the buffer is free again, and half of what may wait unsent.
void Tcp::TellWritable(Tcb& t) {
  if (!t.wants_writable || t.fin_queued) return;
  const uint32_t room = BufferRoom(t);
  if (room < (room + t.send.size()) / 4) return;
  if (LowWater(t) != kNoLowWater && !IsBelowLowWater(t)) return;
  if (IsShortOfMemory(t)) return WaitForRoom(t);
  t.wants_writable = false;
  Raise(t, kEventWritable);
}

}  // namespace sluice::transport
