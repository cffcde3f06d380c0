// RACK (RFC 8985): what was sent before something that has arrived, by more than the reordering
// window, is lost. The state of one connection, and the steps that do not touch segments.
#ifndef SLUICE_TRANSPORT_TCP_RACK_H_
#define SLUICE_TRANSPORT_TCP_RACK_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

struct Rack {
  static constexpr uint32_t kDupThresh = 3;
  static constexpr uint8_t kReoWndPersist = 16;  // section 6.2, step 4

  Nanos xmit_time;       // RACK.xmit_ts: of the segment sent last of those that arrived
  Nanos rtt;             // RACK.rtt
  wire::TcpSeq end_seq;  // RACK.end_seq: the end of that segment
  wire::TcpSeq fack;     // RACK.fack: the highest that is known to have arrived
  wire::TcpSeq prior_fack;
  wire::TcpSeq dsack_round;
  Nanos due;               // when what the last walk for losses has found not yet to be lost will be
  bool news = false;       // something has arrived since that walk began
  bool valid = false;
  bool reordering_seen = false;
  uint8_t reo_wnd_mult = 1;
  uint8_t reo_wnd_persist = kReoWndPersist;
  bool dsack_round_valid = false;

  // RACK_sent_after: by time, and by sequence among those sent at once.
  static bool SentAfter(Nanos t1, wire::TcpSeq seq1, Nanos t2, wire::TcpSeq seq2) {
    return t1 > t2 || (t1 == t2 && seq1.After(seq2));
  }

  void Start(wire::TcpSeq iss) { fack = prior_fack = iss; }

  // Step 2, for a segment that has been (S)ACKed. `ambiguous`: it was retransmitted, and the ACK may
  // be for the original (by timestamp, or because it came sooner than any RTT before).
  void OnDelivered(Nanos sent, wire::TcpSeq end, bool retransmitted, bool ambiguous, Nanos now) {
    news = true;
    if (retransmitted && ambiguous) return;
    if (!valid || SentAfter(sent, end, xmit_time, end_seq)) {
      xmit_time = sent;
      end_seq = end;
      rtt = now - sent;
      valid = true;
    }
  }

  // Step 3: a segment that was sent once arrives after one that was sent later; of those that one ACK
  // tells of together the order is not known, so it is compared with what was known before.
  void BeginAck() { prior_fack = fack; }
  void DetectReordering(wire::TcpSeq end, bool ever_retransmitted) {
    if (end.Before(prior_fack) && !ever_retransmitted) reordering_seen = true;
    fack = Later(fack, end);
  }

  // Step 4, on a D-SACK, and at the end of recovery.
  void OnDsack(wire::TcpSeq snd_nxt) {
    if (dsack_round_valid) return;
    dsack_round_valid = true;
    dsack_round = snd_nxt;
    reo_wnd_mult = static_cast<uint8_t>(std::min(reo_wnd_mult + 1, 20));
    reo_wnd_persist = kReoWndPersist;
  }
  void OnAck(wire::TcpSeq snd_una) {
    if (dsack_round_valid && snd_una.AtOrAfter(dsack_round)) dsack_round_valid = false;
  }
  void OnRecoveryEnd() {
    if (reo_wnd_persist > 0 && --reo_wnd_persist == 0) {
      reo_wnd_mult = 1;
      reo_wnd_persist = kReoWndPersist;
    }
  }

  Nanos ReorderingWindow(Nanos min_rtt, Nanos srtt, bool in_recovery,
                         uint32_t sacked_segments) const {
    if (!reordering_seen && (in_recovery || sacked_segments >= kDupThresh)) return Nanos();
    if (min_rtt == Nanos::Max()) return Nanos();
    return std::min(min_rtt / 4 * reo_wnd_mult, srtt);
  }
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_RACK_H_
