// How long a connection has been sending, and what it was held up by: who looks for the reason of a slow
// transfer learns whether it is the peer, the program, or the path.
//
// The times are those of Linux' tcp_info (busy_time, rwnd_limited, sndbuf_limited), but for kBusy, which is
// here without the two others. One per connection, 40 bytes.
#ifndef SLUICE_TRANSPORT_TCP_SENDING_TIMES_H_
#define SLUICE_TRANSPORT_TCP_SENDING_TIMES_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "base/time.h"

namespace sluice::transport {

enum class Sending : uint8_t {
  kIdle,        // everything that was written is acknowledged
  kBusy,        // none of the following: the path is what limits, or the program writes little
  kPeerWindow,  // the peer's window has no room for the next segment
  kSendBuffer,  // all is sent, and the program waits for room to write more
};

class SendingTimes {
 public:
  void Enter(Sending what, Nanos now) {
    if (what == what_) [[likely]] return;
    if (what_ != Sending::kIdle) times_[Index(what_)] += std::max(now - since_, Nanos());
    what_ = what;
    since_ = now;
  }
  // Of what is not kIdle, up to `now`.
  Nanos Time(Sending what, Nanos now) const {
    return times_[Index(what)] + (what == what_ ? now - since_ : Nanos());
  }
  // All that is not idle.
  Nanos Busy(Nanos now) const {
    return Time(Sending::kBusy, now) + Time(Sending::kPeerWindow, now) +
           Time(Sending::kSendBuffer, now);
  }

 private:
  static size_t Index(Sending what) { return static_cast<size_t>(what) - 1; }

  std::array<Nanos, 3> times_{};
  Nanos since_;
  Sending what_ = Sending::kIdle;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SENDING_TIMES_H_
