#include "stages/fragment/fragment_starts.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice::stages {

using packet::Packet;

namespace {

// Every piece but the last a multiple of 8 bytes, none larger than `room`, and more than one.
bool FitAsTheyCame(const packet::FrameArena& arena, const Packet& whole, uint32_t start,
                   uint32_t room) {
  if (packet::FragmentNoteOf(arena, whole.frame).gathered) return false;
  FragmentStarts starts(arena, whole);
  for (uint32_t at = start, pieces = 1;; ++pieces) {
    const uint32_t next = starts.Next();
    if (next <= at || next - at > room) return false;
    if (next == whole.length) return pieces > 1;
    if ((next - at) % 8 != 0) return false;
    at = next;
  }
}

}  // namespace

void SegmentReader::Read(uint8_t* out, uint32_t length) {
  while (length > 0) {
    if (left_ == 0) {
      const packet::SegmentLink& link = packet::LinkOf(arena_, frame_);
      frame_ = link.next;
      data_ = arena_.Chunk(frame_) + link.data_offset;
      left_ = link.length;
      continue;
    }
    const uint32_t n = std::min(length, left_);
    std::memcpy(out, data_, n);
    out += n;
    length -= n;
    data_ += n;
    left_ -= n;
  }
}

FragmentStarts::FragmentStarts(const packet::FrameArena& arena, const Packet& whole)
    : arena_(&arena), whole_(&whole), position_(whole.segment_length), frame_(whole.frame) {
  if (whole.fragment_size != 0) early_ = packet::FragmentNoteOf(arena, whole.frame).early_starts;
}

uint32_t FragmentStarts::Next() {
  if (early_ != 0) {
    const auto unit = static_cast<uint32_t>(std::countr_zero(early_));
    early_ &= static_cast<uint8_t>(early_ - 1);
    return whole_->l4_offset + 8 * unit;
  }
  while (segment_ < whole_->segment_count) {
    const packet::SegmentLink& link = packet::LinkOf(*arena_, frame_);
    const uint32_t begin = position_;
    position_ += link.length;
    frame_ = link.next;
    ++segment_;
    if (link.starts_fragment) return begin;
  }
  return whole_->length;
}

PieceSizes::PieceSizes(const packet::FrameArena& arena, const Packet& whole, uint32_t start,
                       uint32_t room)
    : starts_(arena, whole),
      at_(start),
      end_(whole.length),
      room_(room),
      as_it_came_(whole.fragment_size != 0 && FitAsTheyCame(arena, whole, start, room)) {}

uint32_t PieceSizes::Next() {
  const uint32_t left = end_ - at_;
  uint32_t n = left <= room_ ? left : room_ & ~7u;
  if (as_it_came_) n = starts_.Next() - at_;
  at_ += n;
  return n;
}

}  // namespace sluice::stages
