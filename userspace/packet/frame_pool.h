// The frames a worker owns and has no use for at the moment.
//
// Last in, first out, so that the frames in use stay few and warm in the cache. The capacity is the
// arena's frame count: a pool can hold every frame there is, so Free() never fails, also when
// frames migrate from worker to worker. Builds with assertions keep a bit per frame and abort on a
// double free.
//
// Thread: the owning worker only; `size` may be read by anyone.
#ifndef SLUICE_PACKET_FRAME_POOL_H_
#define SLUICE_PACKET_FRAME_POOL_H_

#include <cassert>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/counter.h"
#include "packet/frame_arena.h"

namespace sluice::packet {

class FramePool {
 public:
  explicit FramePool(const FrameArena& arena)
      : arena_(arena), frames_(std::make_unique<FrameIndex[]>(arena.frame_count())) {
#ifndef NDEBUG
    free_.resize(arena.frame_count());
#endif
  }
  FramePool(const FramePool&) = delete;
  FramePool& operator=(const FramePool&) = delete;

  const FrameArena& arena() const { return arena_; }
  uint32_t size() const { return static_cast<uint32_t>(count_.Read()); }

  // kNoFrame when the pool is empty.
  FrameIndex Alloc() {
    const uint32_t n = size();
    if (n == 0) return kNoFrame;
    count_.Set(n - 1);
    const FrameIndex frame = frames_[n - 1];
    MarkFree(frame, false);
    return frame;
  }

  void Free(FrameIndex frame) {
    const uint32_t n = size();
    assert(n < arena_.frame_count());
    MarkFree(frame, true);
    frames_[n] = frame;
    count_.Set(n + 1);
  }

 private:
  void MarkFree([[maybe_unused]] FrameIndex frame, [[maybe_unused]] bool is_free) {
#ifndef NDEBUG
    assert(frame < arena_.frame_count());
    assert(free_[frame] != is_free && "frame freed twice, or handed out twice");
    free_[frame] = is_free;
#endif
  }

  const FrameArena& arena_;
  const std::unique_ptr<FrameIndex[]> frames_;
  Counter count_;
#ifndef NDEBUG
  std::vector<bool> free_;
#endif
};

}  // namespace sluice::packet

#endif  // SLUICE_PACKET_FRAME_POOL_H_
