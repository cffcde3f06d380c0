// Received data: where it goes, when it is acknowledged, and how much more may come.
#include <algorithm>

#include "transport/tcp/tcp.h"
#include "wire/ipv4.h"

namespace sluice::transport {

namespace {

// A window is not opened for every byte that was read (RFC 9293 section 3.8.6.2.2).
uint32_t LeastGrowth(const Tcb& t) {
  return std::min<uint32_t>(t.rcv_buffer / 2, t.advertised_mss);
}

// Frames may carry a quarter of a chunk on average; a peer that sends less per frame is not given
// more memory for it. (Small payloads share frames: receive_queue.h.) The last eighth of the worker's
// frames is for those that have few, so that programs which do not read cannot take all.
constexpr uint32_t kFewFrames = 16;
bool IsScarce(const ReceivePool& pool, const TcpConfig& config) {
  return pool.frames_left < config.limits.receive_frames / 8;
}
uint32_t FrameLimit(const Tcb& t, uint32_t chunk_size, bool scarce) {
  return scarce ? kFewFrames : std::max(kFewFrames, t.rcv_buffer / (chunk_size / 4));
}

}  // namespace

Tcp::Disposition Tcp::TakeData(Tcb& t, Segment& s, Nanos now) {
  TcpSeq seq = s.seq;
  uint32_t length = s.payload;
  uint32_t offset = s.payload_offset;
  if (seq.Before(t.rcv_nxt)) {
    const uint32_t skip = std::min(t.rcv_nxt - seq, length);
    if (t.sack_enabled) t.dsack = {seq, seq + skip};
    t.ack_now = true;
    seq += skip;
    offset += skip;
    length -= skip;
    if (length == 0) return DropReason::kTcpDuplicate;
  }
  const TcpSeq right_edge = t.rcv_nxt + t.OfferedWindow();
  if ((seq + length).After(right_edge)) {
    t.ack_now = true;  // says how large the window is (a window probe wants to know)
    s.flags &= static_cast<uint8_t>(~wire::kTcpFin);
    length = right_edge.After(seq) ? right_edge - seq : 0;
    if (length == 0) {
      counters_.receive_refused.Add();
      return DropReason::kTcpOutsideWindow;
    }
  }
  t.rcv_mss = static_cast<uint16_t>(
      std::max<uint32_t>(t.rcv_mss, std::min<uint32_t>(s.payload, t.advertised_mss)));

  const bool in_order = seq == t.rcv_nxt;
  const bool over = t.receive.frames() >= FrameLimit(t, frames_.arena().chunk_size(),
                                                     IsScarce(receive_pool_, config_));
  if (over && in_order && t.receive.has_gaps()) {
    // What is in order counts more than what is ahead of a gap.
    t.receive.Prune(receive_pool_);
    counters_.receive_pruned.Add();
  } else if (over) {
    counters_.receive_refused.Add();
    t.ack_now = true;
    s.flags &= static_cast<uint8_t>(~wire::kTcpFin);
    return DropReason::kTcpMemory;
  }
  auto result = t.receive.Insert(receive_pool_, *s.packet, offset, seq, length, t.rcv_nxt);
  if (result.outcome == ReceiveQueue::Outcome::kRefused && in_order &&
      t.receive.Prune(receive_pool_)) {
    counters_.receive_pruned.Add();
    result = t.receive.Insert(receive_pool_, *s.packet, offset, seq, length, t.rcv_nxt);
  }
  if (t.sack_enabled && result.duplicate.left != result.duplicate.right &&
      t.dsack.left == t.dsack.right) {
    t.dsack = result.duplicate;  // RFC 2883
  }
  switch (result.outcome) {
    case ReceiveQueue::Outcome::kRefused:
      counters_.receive_refused.Add();
      t.ack_now = true;
      s.flags &= static_cast<uint8_t>(~wire::kTcpFin);
      return DropReason::kTcpMemory;
    case ReceiveQueue::Outcome::kDuplicate:
      t.ack_now = true;
      return DropReason::kTcpDuplicate;
    case ReceiveQueue::Outcome::kOutOfOrder:
    case ReceiveQueue::Outcome::kInOrder:
      break;
  }
  s.taken = true;
  t.last_data_received = now;
  if (t.rcv_adv.Before(t.rcv_nxt)) t.rcv_adv = t.rcv_nxt;
  if (t.ecn_enabled) {
    // RFC 3168 section 6.1.3.
    if (s.Has(wire::kTcpCwr)) t.ecn_echo = false;
    if (s.ecn == wire::kEcnCongestionExperienced) {
      t.ecn_echo = true;
      t.ack_now = true;
    }
  }
  DecideAck(t, s, result, now);
  if (result.outcome == ReceiveQueue::Outcome::kInOrder) {
    MeasureRoundTrip(t, s, now);
    Raise(t, kEventReadable);
  }
  return {};
}

// A receiver that sends no data learns of round trips by the timestamps that come back (RFC 7323
// section 4), or by how long it takes until the window that it has offered is filled.
void Tcp::MeasureRoundTrip(Tcb& t, const Segment& s, Nanos now) {
  if (t.ts_enabled && s.options.has_timestamps) {
    if (s.options.ts_echo_reply == t.rcv_rtt_echo) return;
    t.rcv_rtt_echo = s.options.ts_echo_reply;
    const uint32_t ms = TsNow(t, now) - s.options.ts_echo_reply;
    if (ms > 60'000) return;
    t.rcv_rtt = t.rcv_rtt == Nanos() ? Millis(ms) : (t.rcv_rtt * 7 + Millis(ms)) / 8;
    return;
  }
  if (t.rcv_rtt_begin == Nanos()) {
    t.rcv_rtt_begin = now;
    t.rcv_rtt_edge = t.rcv_adv;
  } else if (t.rcv_nxt.AtOrAfter(t.rcv_rtt_edge)) {
    const Nanos took = now - t.rcv_rtt_begin;
    t.rcv_rtt = t.rcv_rtt == Nanos() ? took : std::min(t.rcv_rtt, took);
    t.rcv_rtt_begin = now;
    t.rcv_rtt_edge = t.rcv_adv;
  }
}

// RFC 5681 section 4.2, RFC 9293 section 3.8.6.3: what is out of order or fills a gap is
// acknowledged at once, otherwise every second full segment, the rest with a delay. A young
// connection's segments are not delayed, since its sender's window is small; but for the end of a
// message, whose sender waits for an answer rather than for the ACK.
void Tcp::DecideAck(Tcb& t, const Segment& s, const ReceiveQueue::Result& result, Nanos now) {
  if (result.outcome == ReceiveQueue::Outcome::kOutOfOrder || result.filled_gap ||
      t.receive.has_gaps() || t.rcv_nxt - t.last_ack_sent > t.rcv_mss) {
    t.ack_now = true;
  } else if (t.quick_acks > 0) {
    --t.quick_acks;
    const bool message = s.Has(wire::kTcpPsh) && s.payload < t.rcv_mss;
    if (t.options.answers && message) {
      DelayAck(t, now + config_.times.answer_wait);
    } else {
      t.ack_now = true;
    }
  }
  if (!t.ack_now) DelayAck(t, now + config_.times.delayed_ack);
}

void Tcp::DelayAck(Tcb& t, Nanos until) {
  if (t.ack_pending) return;
  t.ack_pending = true;
  SetTimer(t, TcpTimer::kDelayedAck, until);
}

uint32_t Tcp::FreeReceiveSpace(const Tcb& t) const {
  const uint32_t used = t.receive.bytes();
  uint32_t space = t.rcv_buffer > used ? t.rcv_buffer - used : 0;
  space = std::min(space, 65535u << t.rcv_wnd_shift);  // what can be said
  const bool scarce = IsScarce(receive_pool_, config_);
  if (t.receive.frames() >= FrameLimit(t, frames_.arena().chunk_size(), scarce)) return 0;
  // The worker runs short of frames: everybody gets by with little.
  if (scarce) {
    space = std::min<uint32_t>(space, 4u * t.advertised_mss);
  }
  return space;
}

// The window to be offered with the next segment. The right edge never moves back (RFC 9293 section
// 3.8.6), and forward only by steps that are worth it.
uint16_t Tcp::SelectWindow(Tcb& t, bool syn) {
  const uint32_t space = FreeReceiveSpace(t);
  if (syn) {
    const uint32_t first = std::min(space, FirstWindow(t.options));
    t.rcv_adv = t.rcv_nxt + first;
    return static_cast<uint16_t>(first);
  }
  const uint32_t offered = t.OfferedWindow();
  uint32_t window = offered;
  if (space > offered && space - offered >= LeastGrowth(t)) window = space;
  const uint32_t unit = 1u << t.rcv_wnd_shift;
  // What is kept is rounded up, so that the edge stays; what is new, down.
  uint32_t field = window > offered ? window / unit : (window + unit - 1) / unit;
  field = std::min<uint32_t>(field, 65535);
  t.rcv_adv = Later(t.rcv_adv, t.rcv_nxt + field * unit);
  return static_cast<uint16_t>(field);
}

// The program has read; the window may grow, and with it the buffer: if in one round trip more was
// read than half of it, the sender may well be held back by the window (dynamic right-sizing).
void Tcp::AfterRead(Tcb& t, uint32_t bytes, Nanos now) {
  t.copied += bytes;
  if (t.rtt.has_sample() && now - t.copied_since >= std::max(t.rtt.srtt(), t.rcv_rtt)) {
    const uint32_t wanted = 2 * t.copied + 16u * t.advertised_mss;
    if (t.copied > 0 && wanted > t.rcv_buffer) {
      t.rcv_buffer = std::min(wanted, t.rcv_buffer_max);
    }
    t.copied = 0;
    t.copied_since = now;
  }
  if (!MayReceive(t.state)) return;
  const uint32_t space = FreeReceiveSpace(t);
  const uint32_t offered = t.OfferedWindow();
  const bool running_out = offered < t.rcv_buffer / 2;
  if (running_out && space > offered &&
      space - offered >= std::min<uint32_t>(t.rcv_buffer / 2, 2u * t.advertised_mss)) {
    SendAck(t, now);
  }
}

}  // namespace sluice::transport
