// A counter that one thread writes and any thread may read.
//
// The writer does a plain load, add and store (no locked instruction); a reader sees some recent
// value, never a torn one. Two writers would lose counts: a counter belongs to one worker.
#ifndef SLUICE_BASE_COUNTER_H_
#define SLUICE_BASE_COUNTER_H_

#include <atomic>
#include <cstdint>

namespace sluice {

class Counter {
 public:
  Counter() = default;
  Counter(const Counter&) = delete;
  Counter& operator=(const Counter&) = delete;

  void Add(uint64_t n = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Sub(uint64_t n = 1) { Add(uint64_t{0} - n); }  // for gauges
  void Set(uint64_t n) { value_.store(n, std::memory_order_relaxed); }
  uint64_t Read() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<uint64_t> value_{0};
};

}  // namespace sluice

#endif  // SLUICE_BASE_COUNTER_H_
