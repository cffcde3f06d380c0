// HyStart++ (RFC 9406): leaves slow start before the queue overflows, when round trips grow longer.
//
// A round is the time in which one window is acknowledged. When the least RTT of this round is
// clearly above that of the round before, slow start goes on at a quarter of its speed ("conservative
// slow start"); if the RTT falls again it was a false alarm, and after five rounds slow start is
// over. Only for the first slow start of a connection (section 4.3).
//
// Pure arithmetic; one per connection.
#ifndef SLUICE_TRANSPORT_CONGESTION_HYSTART_H_
#define SLUICE_TRANSPORT_CONGESTION_HYSTART_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

class HyStart {
 public:
  // The constants of section 4.3.
  static constexpr Nanos kMinRttThresh = Millis(4);
  static constexpr Nanos kMaxRttThresh = Millis(16);
  static constexpr int kMinRttDivisor = 8;
  static constexpr uint32_t kRttSamples = 8;
  static constexpr uint32_t kCssGrowthDivisor = 4;
  static constexpr uint32_t kCssRounds = 5;
  static constexpr uint8_t kNonPacedL = 8;
  static constexpr uint8_t kNoLimit = 0;

  bool in_css() const { return css_rounds_ > 0; }
  // What an ACK of `acked` bytes adds to cwnd in slow start (section 4.2); `limit` is that section's L.
  uint32_t Growth(uint32_t acked, uint32_t mss, uint32_t limit) const {
    const uint32_t most = limit == kNoLimit ? acked : std::min(acked, limit * mss);
    return in_css() ? most / kCssGrowthDivisor : most;
  }

  // For each ACK of new data in slow start; `rtt` zero: no sample. True: slow start is to end.
  bool OnAck(wire::TcpSeq ack, wire::TcpSeq snd_nxt, Nanos rtt) {
    if (!started_) BeginRound(snd_nxt);
    bool end = false;
    if (ack.AtOrAfter(window_end_)) {
      if (in_css() && ++css_rounds_ > kCssRounds) end = true;
      BeginRound(snd_nxt);
    }
    if (rtt > Nanos()) {
      current_min_ = std::min(current_min_, rtt);
      ++samples_;
      if (samples_ >= kRttSamples && current_min_ != Nanos::Max()) Judge();
    }
    return end;
  }

 private:
  void BeginRound(wire::TcpSeq snd_nxt) {
    started_ = true;
    window_end_ = snd_nxt;
    last_min_ = current_min_;
    current_min_ = Nanos::Max();
    samples_ = 0;
  }
  void Judge() {
    if (in_css()) {
      if (current_min_ < css_baseline_) css_rounds_ = 0;  // a false alarm: back to slow start
      return;
    }
    if (last_min_ == Nanos::Max()) return;
    const Nanos thresh = std::clamp(last_min_ / kMinRttDivisor, kMinRttThresh, kMaxRttThresh);
    if (current_min_ >= last_min_ + thresh) {
      css_baseline_ = current_min_;
      css_rounds_ = 1;
    }
  }

  Nanos last_min_ = Nanos::Max();
  Nanos current_min_ = Nanos::Max();
  Nanos css_baseline_ = Nanos::Max();
  wire::TcpSeq window_end_;
  uint32_t samples_ = 0;
  uint8_t css_rounds_ = 0;  // 0: standard slow start
  bool started_ = false;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_CONGESTION_HYSTART_H_
