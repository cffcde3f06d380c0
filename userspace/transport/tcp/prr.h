// Proportional rate reduction (RFC 6937): how much may be sent for each ACK during fast recovery, so
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
  // loss, so that the reduction bound may be the one of slow start (section 3, SSRB), else CRB.
  uint32_t OnAck(uint32_t delivered, uint32_t pipe, uint32_t ssthresh, uint32_t mss, bool good) {
    delivered_ += delivered;
    uint64_t count;
    if (pipe > ssthresh) {
      const uint64_t wanted =
          (uint64_t{delivered_} * ssthresh + recover_fs_ - 1) / recover_fs_;
      count = wanted > out_ ? wanted - out_ : 0;
    } else {
      uint64_t limit = delivered_ > out_ ? delivered_ - out_ : 0;
      if (good) limit = std::max<uint64_t>(limit, delivered) + mss;
      count = std::min<uint64_t>(ssthresh - pipe, limit);
    }
    return static_cast<uint32_t>(count);
  }

 private:
  uint32_t recover_fs_ = 1;
  uint32_t delivered_ = 0;  // prr_delivered
  uint32_t out_ = 0;        // prr_out
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_PRR_H_
