// A fixed number of objects, handed out by index: what connections, segments and buffers of the
// transport stack are made of. Everything is allocated by the constructor.
//
// Alloc gives the object that was freed last, since it is warm, or kNoIndex when all are in use;
// what that means is the caller's to decide and to count. Objects are not constructed anew: the
// caller assigns. One thread.
#ifndef SLUICE_TRANSPORT_COMMON_SLAB_H_
#define SLUICE_TRANSPORT_COMMON_SLAB_H_

#include <cassert>
#include <cstdint>
#include <memory>

namespace sluice::transport {

inline constexpr uint32_t kNoIndex = 0xffffffff;

template <class T>
class Slab {
 public:
  explicit Slab(uint32_t capacity)
      : objects_(std::make_unique<T[]>(capacity)),
        free_(std::make_unique<uint32_t[]>(capacity)),
        capacity_(capacity),
        free_count_(capacity) {
    for (uint32_t i = 0; i < capacity; ++i) free_[i] = capacity - 1 - i;
  }

  uint32_t Alloc() { return free_count_ == 0 ? kNoIndex : free_[--free_count_]; }
  void Free(uint32_t index) {
    assert(index < capacity_ && free_count_ < capacity_);
    free_[free_count_++] = index;
  }

  T& operator[](uint32_t index) { return objects_[index]; }
  const T& operator[](uint32_t index) const { return objects_[index]; }
  uint32_t IndexOf(const T& object) const { return static_cast<uint32_t>(&object - objects_.get()); }
  uint32_t capacity() const { return capacity_; }
  uint32_t used() const { return capacity_ - free_count_; }

 private:
  const std::unique_ptr<T[]> objects_;
  const std::unique_ptr<uint32_t[]> free_;
  const uint32_t capacity_;
  uint32_t free_count_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_SLAB_H_
