// The memory that all frames live in: one anonymous mapping, cut into chunks of equal size.
//
// Every AF_XDP socket registers this whole mapping as its UMEM, so a chunk received on one NIC can
// be sent on any other, and by any worker, without a copy (notes on overlapping registration: the
// kernel only checks that an address lies inside; ownership is entirely ours).
//
// A frame is named by its index; its chunk begins at index * chunk_size. The kernel leaves the first
// kHeadroom bytes of a chunk free (XDP_PACKET_HEADROOM); the packet's own notes live there while it
// is in user space (packet.h).
//
// Thread: created by the control thread; the mapping itself is shared, each frame has one owner.
#ifndef SLUICE_PACKET_FRAME_ARENA_H_
#define SLUICE_PACKET_FRAME_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <memory>

namespace sluice::packet {

using FrameIndex = uint32_t;
inline constexpr FrameIndex kNoFrame = 0xffffffff;
inline constexpr uint32_t kHeadroom = 256;  // XDP_PACKET_HEADROOM

class FrameArena {
 public:
  // `chunk_size` is 2048 or 4096 (AF_XDP's aligned mode). Null, with errno set, when the memory
  // cannot be had. Huge pages are asked for, and done without.
  static std::unique_ptr<FrameArena> Create(uint32_t frame_count, uint32_t chunk_size);
  ~FrameArena();
  FrameArena(const FrameArena&) = delete;
  FrameArena& operator=(const FrameArena&) = delete;

  uint8_t* base() const { return base_; }
  size_t size_bytes() const { return size_t{frame_count_} << shift_; }
  uint32_t frame_count() const { return frame_count_; }
  uint32_t chunk_size() const { return 1u << shift_; }

  uint8_t* Chunk(FrameIndex frame) const { return base_ + (size_t{frame} << shift_); }
  // The frame that an offset into the arena (an AF_XDP descriptor's address) belongs to.
  FrameIndex FrameAt(uint64_t offset) const { return static_cast<FrameIndex>(offset >> shift_); }
  uint64_t OffsetOf(const uint8_t* p) const { return static_cast<uint64_t>(p - base_); }

 private:
  FrameArena(uint8_t* base, uint32_t frame_count, uint32_t shift)
      : base_(base), frame_count_(frame_count), shift_(shift) {}

  uint8_t* const base_;
  const uint32_t frame_count_;
  const uint32_t shift_;
};

}  // namespace sluice::packet

#endif  // SLUICE_PACKET_FRAME_ARENA_H_
