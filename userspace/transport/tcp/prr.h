// Proportional rate reduction (RFC 6937, as RFC 9937 has it): how much may be sent for each ACK during fast recovery, so
// that cwnd arrives at ssthresh when recovery ends, without a pause before or a burst after.
#ifndef SLUICE_TRANSPORT_TCP_PRR_H_
#define SLUICE_TRANSPORT_TCP_PRR_H_

#include <algorithm>
#include <cstdint>

namespace sluice::transport {

class Prr {
 public:
  // `flight` is RecoverFS: snd_nxt - snd_una when recovery begins.
  void Start(uint32_t flight) {
    recover_fs_ = std::max(flight, 1u);
    delivered_ = 0;
    out_ = 0;
  }
  void OnSent(uint32_t bytes) { out_ += bytes; }

  // sndcnt for an ACK that told of `delivered` bytes. `good`: it advanced SND.UNA and showed no new
  // loss (SafeACK), so that the reduction bound may be the one of slow start (SSRB), else CRB.
  uint32_t OnAck(uint32_t delivered, uint32_t pipe, uint32_t ssthresh, uint32_t mss, bool good) {
    delivered_ += delivered;
    uint64_t count;
    if (pipe > ssthresh) {
      const uint64_t wanted =
          (uint64_t{delivered_} * ssthresh + recover_fs_ - 1) / recover_fs_;
      count = wanted > out_ ? wanted - out_ : 0;
    } else {
      uint64_t limit = std::max(delivered_ > out_ ? delivered_ - out_ : 0, delivered);
      if (good) limit += mss;
      count = std::min<uint64_t>(ssthresh - pipe, limit);
    }
    // The first retransmission does not wait for the window (RFC 6675 section 5, step 4.3).
    if (out_ == 0 && count == 0) count = mss;
    return static_cast<uint32_t>(count);
  }

 private:
  uint32_t recover_fs_ = 1;
  uint32_t delivered_ = 0;  // prr_delivered
  uint32_t out_ = 0;        // prr_out
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_PRR_H_
