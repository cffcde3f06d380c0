#include "tables/line_arena.h"

namespace sluice::tables {
namespace {

// Words of a free block: in its first line the size and the links of its bin, in the last word of
// its last line the size once more, for the neighbour above.
constexpr size_t kSize = 0;
constexpr size_t kNext = 1;
constexpr size_t kPrevious = 2;
constexpr size_t kSizeAtEnd = LineArena::kLineWords - 1;

}  // namespace

LineArena::LineArena(size_t bytes, uint32_t reserved_lines, bool huge_pages)
    : region_(bytes, huge_pages),
      capacity_(static_cast<uint32_t>(bytes / kLineBytes)),
      reserved_(reserved_lines),
      end_(reserved_lines),
      free_bits_(capacity_ / 64 + 1) {}

void LineArena::SetFree(uint32_t line, bool free) {
  const uint64_t bit = uint64_t{1} << (line % 64);
  uint64_t& word = free_bits_[line / 64];
  word = free ? word | bit : word & ~bit;
}

void LineArena::Link(uint32_t line, uint32_t lines) {
  uint32_t& head = bins_[BinOf(lines)];
  At(line)[kSize] = lines;
  At(line)[kNext] = head;
  At(line)[kPrevious] = kNone;
  At(line + lines - 1)[kSizeAtEnd] = lines;
  if (head != kNone) At(head)[kPrevious] = line;
  head = line;
  SetFree(line, true);
  SetFree(line + lines - 1, true);
}

void LineArena::Unlink(uint32_t line, uint32_t lines) {
  const uint32_t next = At(line)[kNext];
  const uint32_t previous = At(line)[kPrevious];
  if (next != kNone) At(next)[kPrevious] = previous;
  if (previous != kNone) {
    At(previous)[kNext] = next;
  } else {
    bins_[BinOf(lines)] = next;
  }
  SetFree(line, false);
  SetFree(line + lines - 1, false);
}

uint32_t LineArena::Allocate(uint32_t lines) {
  uint32_t found = kNone;
  for (size_t bin = lines; bin < kBins && found == kNone; ++bin) found = bins_[bin];
  if (found != kNone) {
    const uint32_t size = At(found)[kSize];
    Unlink(found, size);
    if (size > lines) Link(found + lines, size - lines);
  } else {
    if (capacity_ - end_ < lines) return kNone;
    found = end_;
    end_ += lines;
  }
  used_ += lines;
  return found;
}

void LineArena::Free(uint32_t line, uint32_t lines) {
  used_ -= lines;
  if (line > reserved_ && IsFree(line - 1)) {
    const uint32_t below = At(line - 1)[kSizeAtEnd];
    Unlink(line - below, below);
    line -= below;
    lines += below;
  }
  if (line + lines < end_ && IsFree(line + lines)) {
    const uint32_t above = At(line + lines)[kSize];
    Unlink(line + lines, above);
    lines += above;
  }
  if (line + lines == end_) {
    end_ = line;
  } else {
    Link(line, lines);
  }
}

bool LineArena::CanAllocate(uint32_t lines) const {
  if (capacity_ - end_ >= lines) return true;
  for (uint32_t line = bins_[kBins - 1]; line != kNone; line = At(line)[kNext]) {
    if (At(line)[kSize] >= lines) return true;
  }
  return false;
}

}  // namespace sluice::tables
