#include "transport/congestion/congestion.h"

#include <cmath>

namespace sluice::transport {

void CongestionControl::OnAck(const Ack& ack) {
  if (in_slow_start()) {
    const bool end = first_slow_start_ && hystart_.OnAck(ack.ack, ack.snd_nxt, ack.rtt);
    // After the first slow start L is 2 (RFC 5681 section 3.1 with RFC 3465).
    const uint32_t growth = first_slow_start_ ? hystart_.Growth(ack.bytes, mss_, growth_limit_)
                                              : std::min(ack.bytes, 2 * mss_);
    set_cwnd(cwnd_ + growth);
    if (end) {
      ssthresh_ = cwnd_;
      first_slow_start_ = false;
    }
    return;
  }
  if (algorithm_ == CongestionAlgorithm::kCubic) return GrowCubic(ack);
  // RFC 5681 section 3.1: one segment per window of data acknowledged.
  acked_in_avoidance_ += ack.bytes;
  if (acked_in_avoidance_ >= cwnd_) {
    acked_in_avoidance_ -= cwnd_;
    set_cwnd(cwnd_ + mss_);
  }
}

void CongestionControl::StartEpoch(const Ack& ack) {
  const double cwnd = static_cast<double>(cwnd_) / mss_;
  in_epoch_ = true;
  epoch_start_ = ack.now;
  w_est_ = cwnd;
  // RFC 9438 section 4.2, figure 2. Without a loss before (HyStart++ ended slow start), or above the
  // last maximum, the curve begins at its plateau.
  if (w_max_ > cwnd) {
    k_ = std::cbrt((w_max_ - cwnd) / kC);
  } else {
    w_max_ = cwnd;
    k_ = 0;
  }
  if (cwnd_prior_ == 0) cwnd_prior_ = cwnd;
}

void CongestionControl::GrowCubic(const Ack& ack) {
  if (!in_epoch_) StartEpoch(ack);
  const double cwnd = static_cast<double>(cwnd_) / mss_;
  const double acked = static_cast<double>(ack.bytes) / mss_;
  const double t = (ack.now - epoch_start_).seconds();
  const auto w_cubic = [&](double time) {
    const double d = time - k_;
    return kC * d * d * d + w_max_;
  };
  // Section 4.3: what Reno with the same decrease would have, and its own slope above cwnd_prior.
  constexpr double kAlpha = 3 * (1 - kBetaCubic) / (1 + kBetaCubic);
  w_est_ += (w_est_ >= cwnd_prior_ ? 1.0 : kAlpha) * acked / cwnd;
  double next;
  if (w_cubic(t) < w_est_) {
    next = std::max(w_est_, cwnd);
  } else {
    // Sections 4.4 and 4.5, with the target of section 4.2.
    const double target = std::clamp(w_cubic(t + ack.srtt.seconds()), cwnd, 1.5 * cwnd);
    next = cwnd + (target - cwnd) / cwnd * acked;
  }
  const double grown = (next - cwnd) * mss_ + fraction_;
  const double whole = std::floor(grown);
  fraction_ = grown - whole;
  set_cwnd(cwnd_ + static_cast<uint32_t>(std::min(whole, 1e9)));
}

void CongestionControl::Remember() {
  prior_cwnd_ = cwnd_;
  prior_ssthresh_ = ssthresh_;
  prior_w_max_ = w_max_;
}

void CongestionControl::OnCongestion(uint32_t flight, Nanos) {
  Remember();
  first_slow_start_ = false;
  acked_in_avoidance_ = 0;
  if (algorithm_ == CongestionAlgorithm::kNewReno) {
    ssthresh_ = std::max(flight / 2, 2 * mss_);  // RFC 5681, equation 4
    return;
  }
  const double cwnd = static_cast<double>(cwnd_) / mss_;
  // Section 4.7, fast convergence: room for others when the maximum falls.
  w_max_ = cwnd < w_max_ ? cwnd * (1 + kBetaCubic) / 2 : cwnd;
  cwnd_prior_ = cwnd;
  // Section 4.6. Of cwnd and not of what is in flight, as that section allows to who does not let cwnd
  // grow while it is not what limits (and after an idle time it is cut, OnIdle).
  ssthresh_ = std::max(static_cast<uint32_t>(cwnd_ * kBetaCubic), 2 * mss_);
  in_epoch_ = false;
  fraction_ = 0;
}

void CongestionControl::OnTimeout(uint32_t flight, bool again, Nanos now) {
  if (!again) OnCongestion(flight, now);
  in_epoch_ = false;
  first_slow_start_ = false;
  cwnd_ = mss_;
}

void CongestionControl::Undo() {
  cwnd_ = std::max(cwnd_, prior_cwnd_);
  ssthresh_ = prior_ssthresh_;
  w_max_ = prior_w_max_;
  in_epoch_ = false;
}

void CongestionControl::OnIdle(Nanos idle_since, Nanos now) {
  cwnd_ = std::min(cwnd_, InitialWindow(mss_));
  // RFC 9438 section 4.2: time in which nothing was sent does not count.
  if (in_epoch_) epoch_start_ += now - idle_since;
}

}  // namespace sluice::transport
