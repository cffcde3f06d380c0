// TCP sequence numbers (RFC 9293 section 3.4): positions on a circle of 2^32.
//
// "Before" means less than half the circle behind. That is no ordering (it is not transitive), so
// there is no operator<, and nothing can be sorted by it by accident. Differences of positions that
// belong to one window are meaningful; the caller knows that they do.
#ifndef SLUICE_WIRE_TCP_SEQUENCE_H_
#define SLUICE_WIRE_TCP_SEQUENCE_H_

#include <cstdint>

namespace sluice::wire {

class TcpSeq {
 public:
  constexpr TcpSeq() = default;
  constexpr explicit TcpSeq(uint32_t v) : value_(v) {}

  constexpr uint32_t value() const { return value_; }

  constexpr bool operator==(const TcpSeq&) const = default;
  constexpr TcpSeq operator+(uint32_t n) const { return TcpSeq(value_ + n); }
  constexpr TcpSeq operator-(uint32_t n) const { return TcpSeq(value_ - n); }
  constexpr TcpSeq& operator+=(uint32_t n) { return *this = *this + n; }
  // How far this is after `o`; only where it is.
  constexpr uint32_t operator-(TcpSeq o) const { return value_ - o.value_; }

  constexpr bool Before(TcpSeq o) const { return static_cast<int32_t>(value_ - o.value_) < 0; }
  constexpr bool After(TcpSeq o) const { return o.Before(*this); }
  constexpr bool AtOrBefore(TcpSeq o) const { return !After(o); }
  constexpr bool AtOrAfter(TcpSeq o) const { return !Before(o); }

 private:
  uint32_t value_ = 0;
};

constexpr TcpSeq Earlier(TcpSeq a, TcpSeq b) { return a.Before(b) ? a : b; }
constexpr TcpSeq Later(TcpSeq a, TcpSeq b) { return a.Before(b) ? b : a; }

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_TCP_SEQUENCE_H_
