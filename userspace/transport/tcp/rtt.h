// The retransmission timeout (RFC 6298), and the least round trip of late (RFC 8985 section 6.1).
//
// As Linux does it, the floor of 200 ms holds for the variance's term, so that the RTO is never less
// than the smoothed RTT plus that: a peer's delayed ACK does not look like a loss.
#ifndef SLUICE_TRANSPORT_TCP_RTT_H_
#define SLUICE_TRANSPORT_TCP_RTT_H_

#include <algorithm>
#include <cstdint>

#include "base/time.h"

namespace sluice::transport {

class RttEstimator {
 public:
  static constexpr Nanos kMinRttWindow = Seconds(300);
  static constexpr uint8_t kMaxBackoff = 20;

  void Start(Nanos initial_rto, Nanos min_rto, Nanos max_rto) {
    *this = RttEstimator();
    rto_ = initial_rto;
    min_rto_ = min_rto;
    max_rto_ = max_rto;
  }

  // RFC 6298 sections 2.2 and 2.3. Karn's rule (section 3) is the caller's: no sample of a
  // segment that was sent twice, unless a timestamp tells the two apart.
  void Sample(Nanos r, Nanos now) {
    r = std::max(r, Nanos(1));
    if (srtt_ == Nanos()) {
      srtt_ = r;
      rttvar_ = r / 2;
    } else {
      const Nanos error = srtt_ > r ? srtt_ - r : r - srtt_;
      rttvar_ = (rttvar_ * 3 + error) / 4;
      srtt_ = (srtt_ * 7 + r) / 8;
    }
    rto_ = std::min(srtt_ + std::max(rttvar_ * 4, min_rto_), max_rto_);
    backoff_ = 0;
    if (r <= min_rtt_ || now - min_rtt_time_ > kMinRttWindow) {
      min_rtt_ = r;
      min_rtt_time_ = now;
    }
  }

  bool has_sample() const { return srtt_ != Nanos(); }
  Nanos srtt() const { return srtt_; }
  Nanos rttvar() const { return rttvar_; }
  Nanos min_rtt() const { return min_rtt_; }  // Nanos::Max() without a sample
  // With the backoff of section 5.5.
  Nanos rto() const { return std::min(rto_ * (int64_t{1} << backoff_), max_rto_); }
  void BackOff() { backoff_ = std::min<uint8_t>(backoff_ + 1, kMaxBackoff); }
  void EndBackoff() { backoff_ = 0; }
  uint8_t backoff() const { return backoff_; }
  // Section 5.7: the SYN was lost, so the first data is sent with 3 s.
  void SynWasLost() {
    if (!has_sample()) rto_ = std::max(rto_, Seconds(3));
    backoff_ = 0;
  }

 private:
  Nanos srtt_;
  Nanos rttvar_;
  Nanos rto_;
  Nanos min_rtt_ = Nanos::Max();
  Nanos min_rtt_time_;
  Nanos min_rto_;
  Nanos max_rto_;
  uint8_t backoff_ = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_RTT_H_
