// One timer wheel for everything that services of a worker wait for.
//
// What has a timer lives in a slab; its kind and its index there name the timer. Whoever owns the item
// is asked when it fires. Thread: the worker's. Nothing is allocated after construction.
#ifndef SLUICE_SERVICES_TIMERS_H_
#define SLUICE_SERVICES_TIMERS_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "tables/timer_wheel.h"

namespace sluice::services {

enum class TimerKind : uint8_t { kService, kRelay, kHttp, kEndpoint, kProbe };
inline constexpr size_t kTimerKindCount = 5;

class Timers {
 public:
  // How many items of each kind there can be.
  Timers(const std::array<uint32_t, kTimerKindCount>& capacity, Nanos now)
      : first_(FirstOf(capacity)),
        // A turn of 33 s, so that idle timeouts of minutes are looked at a few times only.
        wheel_(first_[kTimerKindCount], Millis(4), 8192, now) {}

  void Set(TimerKind kind, uint32_t index, Nanos deadline) {
    wheel_.Schedule(Id(kind, index), deadline);
  }
  void Clear(TimerKind kind, uint32_t index) { wheel_.Cancel(Id(kind, index)); }
  bool IsSet(TimerKind kind, uint32_t index) const { return wheel_.IsSet(Id(kind, index)); }
  size_t size() const { return wheel_.size(); }
  Nanos NextDeadline() const { return wheel_.NextDeadline(); }

  // Calls fire(kind, index), which may set and clear any.
  template <class Fire>
  void Advance(Nanos now, Fire&& fire) {
    wheel_.Advance(now, [&](uint32_t id) {
      size_t kind = kTimerKindCount - 1;
      while (id < first_[kind]) --kind;
      fire(static_cast<TimerKind>(kind), id - first_[kind]);
    });
  }

 private:
  using Firsts = std::array<uint32_t, kTimerKindCount + 1>;
  static Firsts FirstOf(const std::array<uint32_t, kTimerKindCount>& capacity) {
    Firsts first{};
    for (size_t i = 0; i < kTimerKindCount; ++i) first[i + 1] = first[i] + capacity[i];
    return first;
  }
  uint32_t Id(TimerKind kind, uint32_t index) const {
    return first_[static_cast<size_t>(kind)] + index;
  }

  const Firsts first_;
  tables::TimerWheel wheel_;
};

}  // namespace sluice::services

#endif  // SLUICE_SERVICES_TIMERS_H_
