// A queue of indices into a slab, each of which is in it at most once (whoever puts it in knows that);
// so it never is too small, and allocates once. One thread.
#ifndef SLUICE_TRANSPORT_COMMON_INDEX_RING_H_
#define SLUICE_TRANSPORT_COMMON_INDEX_RING_H_

#include <cstdint>
#include <memory>

namespace sluice::transport {

class IndexRing {
 public:
  explicit IndexRing(uint32_t capacity)
      : indices_(std::make_unique<uint32_t[]>(capacity)), capacity_(capacity) {}

  bool empty() const { return count_ == 0; }
  uint32_t count() const { return count_; }
  void Push(uint32_t index) {
    const uint32_t at = first_ + count_++;
    indices_[at < capacity_ ? at : at - capacity_] = index;
  }
  uint32_t Pop() {
    const uint32_t index = indices_[first_];
    if (++first_ == capacity_) first_ = 0;
    --count_;
    return index;
  }

 private:
  const std::unique_ptr<uint32_t[]> indices_;
  const uint32_t capacity_;
  uint32_t first_ = 0;
  uint32_t count_ = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_INDEX_RING_H_
