// Where the fragments of a reassembled datagram began, so that it can be cut at the same places.
//
// ip_do_fragment and ip6_fragment send a reassembled datagram in the very pieces it arrived in if
// those fit (they have kept them as a list), and cut it anew only if not.
#ifndef SLUICE_STAGES_FRAGMENT_FRAGMENT_STARTS_H_
#define SLUICE_STAGES_FRAGMENT_FRAGMENT_STARTS_H_

#include <cstdint>

#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// Copies a packet out from front to back; a walk from the first segment for every piece would cost
// the square of their number.
class SegmentReader {
 public:
  // `start` lies in the first segment, or at its end.
  SegmentReader(const packet::FrameArena& arena, const packet::Packet& p, uint32_t start)
      : arena_(arena), data_(p.data + start), left_(p.segment_length - start), frame_(p.frame) {}

  // The next `length` bytes, which must be there.
  void Read(uint8_t* out, uint32_t length);

 private:
  const packet::FrameArena& arena_;
  const uint8_t* data_;
  uint32_t left_;  // in the segment of `frame_`
  packet::FrameIndex frame_;
};

class FragmentStarts {
 public:
  FragmentStarts(const packet::FrameArena& arena, const packet::Packet& whole);

  // The next position, from the packet's data, at which a fragment began (the first one's
  // excepted); the packet's length when there are no more.
  uint32_t Next();

 private:
  const packet::FrameArena* arena_;
  const packet::Packet* whole_;
  uint8_t early_ = 0;           // bits of FragmentNote::early_starts still to come
  uint32_t position_;           // of the end of `frame_`'s piece
  packet::FrameIndex frame_;
  uint8_t segment_ = 1;         // which piece comes next
};

// How the bytes behind the headers are distributed over pieces: as they came, or as they fit.
class PieceSizes {
 public:
  // `start` is where the bytes to distribute begin in the packet, `room` how many a piece may have.
  PieceSizes(const packet::FrameArena& arena, const packet::Packet& whole, uint32_t start,
             uint32_t room);

  bool done() const { return at_ == end_; }
  // Bytes of the next piece; moves on.
  uint32_t Next();
  // Where the next piece begins in the packet.
  uint32_t position() const { return at_; }
  bool as_it_came() const { return as_it_came_; }

 private:
  FragmentStarts starts_;
  uint32_t at_;
  uint32_t end_;
  uint32_t room_;
  bool as_it_came_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FRAGMENT_FRAGMENT_STARTS_H_
