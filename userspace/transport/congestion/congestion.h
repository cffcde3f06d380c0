// How much a connection may have in flight: CUBIC (RFC 9438) or NewReno (RFC 5681, 6582), both with
// HyStart++ (RFC 9406) in the first slow start.
//
// It owns cwnd and ssthresh, in bytes; when losses are found and what is retransmitted is decided by
// transport/tcp. During fast recovery cwnd is set from outside (PRR, RFC 6937). Pure arithmetic: no
// time but what is passed in, nothing allocated; one per connection, about 150 bytes.
#ifndef SLUICE_TRANSPORT_CONGESTION_CONGESTION_H_
#define SLUICE_TRANSPORT_CONGESTION_CONGESTION_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"
#include "transport/congestion/hystart.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

enum class CongestionAlgorithm : uint8_t { kCubic, kNewReno };

class CongestionControl {
 public:
  static constexpr uint32_t kInitialWindowSegments = 10;  // RFC 6928
  static constexpr uint32_t kInfinite = 0x7fff'ffff;
  static constexpr uint32_t kMaxWindow = 1u << 30;  // what windows can express (RFC 7323)

  // One ACK of new data.
  struct Ack {
    uint32_t bytes = 0;   // newly acknowledged
    wire::TcpSeq ack;
    wire::TcpSeq snd_nxt;
    Nanos rtt;            // of this ACK; zero: no sample
    Nanos srtt;
    Nanos now;
  };

  // `growth_limit`: RFC 9406's L, in segments.
  void Start(CongestionAlgorithm algorithm, uint32_t mss,
             uint8_t growth_limit = HyStart::kNonPacedL) {
    *this = CongestionControl();
    growth_limit_ = growth_limit;
    algorithm_ = algorithm;
    mss_ = mss;
    cwnd_ = InitialWindow(mss);
  }
  // RFC 6928 section 2: min(10 MSS, max(2 MSS, 14600)).
  static uint32_t InitialWindow(uint32_t mss) {
    return std::min(kInitialWindowSegments * mss, std::max(2 * mss, uint32_t{14600}));
  }

  uint32_t cwnd() const { return cwnd_; }
  uint32_t ssthresh() const { return ssthresh_; }
  bool in_slow_start() const { return cwnd_ < ssthresh_; }
  bool in_css() const { return hystart_.in_css(); }
  CongestionAlgorithm algorithm() const { return algorithm_; }
  void set_mss(uint32_t mss) { mss_ = mss; }
  // By PRR, and after recovery.
  void set_cwnd(uint32_t cwnd) { cwnd_ = std::clamp(cwnd, mss_, kMaxWindow); }

  // Outside of recovery, when the window was in use (RFC 7661's concern: no growth otherwise).
  void OnAck(const Ack& ack);
  // A loss was found, or ECN told of congestion: sets ssthresh; cwnd is the caller's to bring down.
  // `flight` is what was in flight when it was found.
  void OnCongestion(uint32_t flight, Nanos now);
  // The retransmission timer: additionally cwnd falls to one segment (RFC 5681 section 3.1).
  // `again`: the same segment's second timeout; ssthresh stays (RFC 5681, equation 4's condition).
  void OnTimeout(uint32_t flight, bool again, Nanos now);
  // The loss was none (RFC 4015, RFC 9438 section 4.9): back to how it was before.
  void Undo();
  // Nothing was sent for longer than the RTO: restart window (RFC 5681 section 4.1).
  void OnIdle(Nanos idle_since, Nanos now);

 private:
  static constexpr double kC = 0.4;          // RFC 9438 section 5
  static constexpr double kBetaCubic = 0.7;

  void GrowCubic(const Ack& ack);
  void StartEpoch(const Ack& ack);
  void Remember();

  uint32_t cwnd_ = 0;
  uint32_t ssthresh_ = kInfinite;
  uint32_t mss_ = 0;
  CongestionAlgorithm algorithm_ = CongestionAlgorithm::kCubic;
  uint8_t growth_limit_ = HyStart::kNonPacedL;
  bool first_slow_start_ = true;
  bool in_epoch_ = false;
  uint32_t acked_in_avoidance_ = 0;  // NewReno: bytes since cwnd last grew (RFC 3465)
  // CUBIC, windows in segments.
  double w_max_ = 0;
  double k_ = 0;  // seconds
  double w_est_ = 0;
  double cwnd_prior_ = 0;
  double fraction_ = 0;  // growth below one byte
  Nanos epoch_start_;
  HyStart hystart_;
  // For Undo.
  uint32_t prior_cwnd_ = 0;
  uint32_t prior_ssthresh_ = 0;
  double prior_w_max_ = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_CONGESTION_CONGESTION_H_
