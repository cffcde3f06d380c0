#include "packet/frame_arena.h"

#include <sys/mman.h>

#include <bit>
#include <cassert>

namespace sluice::packet {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

std::unique_ptr<FrameArena> FrameArena::Create(uint32_t frame_count, uint32_t chunk_size) {
  assert(chunk_size == 2048 || chunk_size == 4096);
  const auto shift = static_cast<uint32_t>(std::countr_zero(chunk_size));
  const size_t bytes = size_t{frame_count} << shift;
  // Mapped with room to align to a huge page; the rest is given back.
  void* raw = mmap(nullptr, bytes + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                   -1, 0);
  if (raw == MAP_FAILED) return nullptr;
  auto* const start = static_cast<uint8_t*>(raw);
  const auto address = reinterpret_cast<uintptr_t>(start);
  const size_t skip = (kHugePage - address % kHugePage) % kHugePage;
  uint8_t* const base = start + skip;
  if (skip > 0) munmap(start, skip);
  const size_t tail = kHugePage - skip;
  if (tail > 0) munmap(base + bytes, tail);
  madvise(base, bytes, MADV_HUGEPAGE);  // advice: smaller pages serve as well
  madvise(base, bytes, MADV_DONTDUMP);
  return std::unique_ptr<FrameArena>(new FrameArena(base, frame_count, shift));
}

FrameArena::~FrameArena() { munmap(base_, size_bytes()); }

}  // namespace sluice::packet
