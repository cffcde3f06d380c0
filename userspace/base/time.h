// Time as the data plane sees it: nanoseconds on a monotonic clock, always passed in, never read.
//
// Only the worker's loop (and the control thread) read a clock; everything below takes `now`. That
// is what lets the same code run under a fake clock (tests/sim) and makes its results repeatable.
#ifndef SLUICE_BASE_TIME_H_
#define SLUICE_BASE_TIME_H_

#include <compare>
#include <cstdint>
#include <limits>

namespace sluice {

// A duration or a point in monotonic time, in nanoseconds. Which of the two follows from the name.
class Nanos {
 public:
  constexpr Nanos() = default;
  constexpr explicit Nanos(int64_t ns) : ns_(ns) {}

  static constexpr Nanos Max() { return Nanos(std::numeric_limits<int64_t>::max()); }

  constexpr int64_t count() const { return ns_; }
  constexpr double seconds() const { return static_cast<double>(ns_) / 1e9; }

  constexpr auto operator<=>(const Nanos&) const = default;
  constexpr Nanos operator+(Nanos o) const { return Nanos(ns_ + o.ns_); }
  constexpr Nanos operator-(Nanos o) const { return Nanos(ns_ - o.ns_); }
  constexpr Nanos operator*(int64_t k) const { return Nanos(ns_ * k); }
  constexpr Nanos operator/(int64_t k) const { return Nanos(ns_ / k); }
  constexpr int64_t operator/(Nanos o) const { return ns_ / o.ns_; }
  constexpr Nanos& operator+=(Nanos o) { return *this = *this + o; }
  constexpr Nanos& operator-=(Nanos o) { return *this = *this - o; }

 private:
  int64_t ns_ = 0;
};

constexpr Nanos Micros(int64_t n) { return Nanos(n * 1'000); }
constexpr Nanos Millis(int64_t n) { return Nanos(n * 1'000'000); }
constexpr Nanos Seconds(int64_t n) { return Nanos(n * 1'000'000'000); }

}  // namespace sluice

#endif  // SLUICE_BASE_TIME_H_
