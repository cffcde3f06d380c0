// A bounded ring between one producing and one consuming thread, wait-free on both sides.
//
// Elements are moved in and out by value. Each side caches the other's index, so that an uncontended
// push or pop touches one shared cache line at most once per lap of what the other side did.
#ifndef SLUICE_BASE_SPSC_RING_H_
#define SLUICE_BASE_SPSC_RING_H_

#include <atomic>
#include <bit>
#include <cstddef>
#include <memory>
#include <utility>

namespace sluice {

template <class T>
class SpscRing {
 public:
  // Holds at least `capacity` elements (rounded up to a power of two). Allocates here and only here.
  explicit SpscRing(size_t capacity)
      : mask_(std::bit_ceil(capacity) - 1), cells_(std::make_unique<T[]>(mask_ + 1)) {}
  SpscRing(const SpscRing&) = delete;
  SpscRing& operator=(const SpscRing&) = delete;

  // Producer. False, and `value` untouched, when the ring is full.
  bool TryPush(T&& value) {
    const size_t head = head_.load(std::memory_order_relaxed);
    if (head - tail_seen_ > mask_) {
      tail_seen_ = tail_.load(std::memory_order_acquire);
      if (head - tail_seen_ > mask_) return false;
    }
    cells_[head & mask_] = std::move(value);
    head_.store(head + 1, std::memory_order_release);
    return true;
  }

  // Consumer. False when the ring is empty.
  bool TryPop(T& value) {
    const size_t tail = tail_.load(std::memory_order_relaxed);
    if (tail == head_seen_) {
      head_seen_ = head_.load(std::memory_order_acquire);
      if (tail == head_seen_) return false;
    }
    value = std::move(cells_[tail & mask_]);
    tail_.store(tail + 1, std::memory_order_release);
    return true;
  }

  // Either side, or an observer: a recent count.
  size_t size() const {
    return head_.load(std::memory_order_acquire) - tail_.load(std::memory_order_acquire);
  }
  bool empty() const { return size() == 0; }

 private:
  const size_t mask_;
  const std::unique_ptr<T[]> cells_;
  alignas(64) std::atomic<size_t> head_{0};  // written by the producer
  size_t tail_seen_ = 0;
  alignas(64) std::atomic<size_t> tail_{0};  // written by the consumer
  size_t head_seen_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_BASE_SPSC_RING_H_
