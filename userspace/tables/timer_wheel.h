// Timers for the entries of a fixed table: timer i belongs to entry i, and is set or not.
//
// A hashed wheel (G. Varghese, A. Lauck, "Hashed and hierarchical timing wheels", 1987, scheme 6):
// a timer hangs in the slot of its tick modulo the number of slots; those of later turns stay when
// the wheel passes. Time is cut into ticks of `granularity`; a timer fires in the first Advance
// with `now` at or past its deadline rounded up to a tick: never early, less than one tick late
// plus what the caller is late.
//
// One thread. Schedule and Cancel are O(1). Advance visits at most `max_visits` timers per call (it
// says whether it is done, and goes on where it stopped) and skips empty slots by a bitmap. Nothing
// is allocated after construction: 16 bytes per timer, 4 per slot. Choose slots * granularity
// longer than the usual timeout, so that few timers are visited before their turn.
#ifndef SLUICE_TABLES_TIMER_WHEEL_H_
#define SLUICE_TABLES_TIMER_WHEEL_H_

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/time.h"

namespace sluice::tables {

class TimerWheel {
 public:
  // `capacity` timers, 0 to capacity - 1 (fewer than 2^32 - 1). `slots` is rounded up to a power of
  // two of at least 64. `start` is the present time; later times must not be before it.
  TimerWheel(size_t capacity, Nanos granularity, size_t slots, Nanos start)
      : granularity_(granularity),
        mask_(std::bit_ceil(std::max<size_t>(slots, 64)) - 1),
        done_(start / granularity),
        target_(done_),
        timers_(capacity),
        heads_(mask_ + 1, kNone),
        occupied_((mask_ + 1) / 64) {}

  // Sets the timer, or moves it when it is set. A deadline that has passed fires in the next tick.
  void Schedule(uint32_t timer, Nanos deadline) {
    Cancel(timer);
    const int64_t tick = (deadline.count() + granularity_.count() - 1) / granularity_.count();
    Link(timer, std::max(tick, target_ + 1));
  }

  void Cancel(uint32_t timer) {
    Timer& t = timers_[timer];
    if (t.tick == kUnset) return;
    if (cursor_ == timer) cursor_ = t.next;
    const size_t slot = SlotOf(t.tick);
    if (t.next != kNone) timers_[t.next].previous = t.previous;
    if (t.previous != kNone) {
      timers_[t.previous].next = t.next;
    } else {
      heads_[slot] = t.next;
      if (t.next == kNone) occupied_[slot / 64] &= ~(uint64_t{1} << (slot % 64));
    }
    t.tick = kUnset;
    --size_;
  }

  bool IsSet(uint32_t timer) const { return timers_[timer].tick != kUnset; }
  size_t size() const { return size_; }

  // Calls fire(timer) for each timer that is due, which is no longer set then; `fire` may schedule
  // and cancel any timer. Returns false when it stopped at max_visits with more to look at.
  template <class Fire>
  bool Advance(Nanos now, Fire&& fire, size_t max_visits = SIZE_MAX) {
    target_ = std::max(target_, now / granularity_);
    for (;;) {
      if (!in_slot_) {
        // After a pause of more than a turn, one turn sees every slot.
        done_ = std::max(done_, target_ - static_cast<int64_t>(mask_) - 1);
        if (size_ == 0) done_ = target_;
        if (done_ >= target_) return true;
        const int64_t next = NextOccupied(done_ + 1, target_);
        done_ = next - 1;
        if (next > target_) return true;
        cursor_ = heads_[SlotOf(next)];
        in_slot_ = true;
      }
      while (cursor_ != kNone) {
        if (max_visits-- == 0) return false;
        const uint32_t timer = cursor_;
        cursor_ = timers_[timer].next;
        if (timers_[timer].tick > target_) continue;  // a later turn's
        Cancel(timer);
        fire(timer);
      }
      in_slot_ = false;
      ++done_;
    }
  }

  // A time before which Advance has nothing to do; Nanos::Max() when no timer is set. It is exact
  // unless a timer of a later turn hangs in an earlier slot, which costs one idle call per turn.
  Nanos NextDeadline() const {
    if (size_ == 0) return Nanos::Max();
    if (in_slot_) return granularity_ * done_;  // unfinished: at once
    return granularity_ * NextOccupied(done_ + 1, done_ + 1 + static_cast<int64_t>(mask_));
  }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;
  static constexpr int64_t kUnset = INT64_MIN;

  struct Timer {
    int64_t tick = kUnset;
    uint32_t next = kNone;
    uint32_t previous = kNone;
  };

  size_t SlotOf(int64_t tick) const { return static_cast<size_t>(tick) & mask_; }

  void Link(uint32_t timer, int64_t tick) {
    const size_t slot = SlotOf(tick);
    Timer& t = timers_[timer];
    t = {tick, heads_[slot], kNone};
    if (t.next != kNone) timers_[t.next].previous = timer;
    heads_[slot] = timer;
    occupied_[slot / 64] |= uint64_t{1} << (slot % 64);
    ++size_;
  }

  // The first tick from `from` to `to` (less than a turn later) whose slot holds a timer; to + 1
  // when there is none.
  int64_t NextOccupied(int64_t from, int64_t to) const {
    for (int64_t tick = from; tick <= to;) {
      const size_t slot = SlotOf(tick);
      const uint64_t bits = occupied_[slot / 64] >> (slot % 64);
      if (bits != 0) return std::min(tick + std::countr_zero(bits), to + 1);
      tick += static_cast<int64_t>(64 - slot % 64);
    }
    return to + 1;
  }

  const Nanos granularity_;
  const size_t mask_;
  int64_t done_;          // all slots up to this tick have been visited
  int64_t target_;        // the latest tick that Advance was asked for
  bool in_slot_ = false;  // stopped within the slot of tick done_ + 1, at cursor_
  uint32_t cursor_ = kNone;
  size_t size_ = 0;
  std::vector<Timer> timers_;
  std::vector<uint32_t> heads_;
  std::vector<uint64_t> occupied_;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_TIMER_WHEEL_H_
