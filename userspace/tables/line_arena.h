// Blocks of 64-byte cache lines in one fixed mapping, addressed by line number.
//
// The store behind the FIB: blocks have 1 to kMaxBlockLines lines, never move, and are freed in any
// order. Free neighbours are merged at once (boundary tags kept inside the free blocks), and an
// allocation takes the best fitting free block before fresh memory, so that a table whose nodes
// grow one line at a time in random order does not strew its memory with holes.
//
// Control thread only; readers merely follow line numbers that it has published. Allocation and
// free are O(1) but for a walk over free blocks larger than any node when nothing smaller fits.
// Never more than the capacity given at the start: Allocate returns 0 (a line that is never handed
// out) when it is used up.
#ifndef SLUICE_TABLES_LINE_ARENA_H_
#define SLUICE_TABLES_LINE_ARENA_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tables/mapped_region.h"

namespace sluice::tables {

class LineArena {
 public:
  static constexpr size_t kLineBytes = 64;
  static constexpr size_t kLineWords = kLineBytes / sizeof(uint32_t);
  static constexpr uint32_t kMaxBlockLines = 65;

  // The first `reserved_lines` (at least 1) are the owner's, zeroed, and not handed out.
  LineArena(size_t bytes, uint32_t reserved_lines, bool huge_pages);

  uint32_t* words() const { return static_cast<uint32_t*>(region_.data()); }
  uint32_t* At(uint32_t line) const { return words() + size_t{line} * kLineWords; }

  uint32_t Allocate(uint32_t lines);  // contents are arbitrary; 0 when full
  void Free(uint32_t line, uint32_t lines);
  // True when blocks of together `lines` lines, each at most kMaxBlockLines, can surely be had.
  bool CanAllocate(uint32_t lines) const;

  size_t used_lines() const { return used_; }    // handed out now
  size_t reached_lines() const { return end_; }  // the arena's present extent, holes included
  size_t capacity_lines() const { return capacity_; }

 private:
  static constexpr uint32_t kNone = 0;
  static constexpr size_t kBins = kMaxBlockLines + 2;  // exact sizes, and one of all larger ones

  static size_t BinOf(uint32_t lines) { return lines <= kMaxBlockLines ? lines : kBins - 1; }
  bool IsFree(uint32_t line) const { return (free_bits_[line / 64] >> (line % 64) & 1) != 0; }
  void SetFree(uint32_t line, bool free);
  void Link(uint32_t line, uint32_t lines);  // into its bin, with boundary tags
  void Unlink(uint32_t line, uint32_t lines);

  MappedRegion region_;
  uint32_t capacity_;
  uint32_t reserved_;
  uint32_t end_;  // first line never handed out, or given back at the end
  size_t used_ = 0;
  std::array<uint32_t, kBins> bins_{};
  std::vector<uint64_t> free_bits_;  // set for the first and last line of each free block
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_LINE_ARENA_H_
