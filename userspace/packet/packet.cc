#include "packet/packet.h"

#include <algorithm>

namespace sluice::packet {

void CutPacket(FramePool& pool, Packet& p, uint32_t length) {
  p.length = length;
  if (length <= p.segment_length) {
    Packet rest = p;
    p.segment_length = static_cast<uint16_t>(length);
    if (p.segment_count == 1) return;
    rest.frame = LinkOf(pool.arena(), p.frame).next;
    rest.segment_count = static_cast<uint8_t>(p.segment_count - 1);
    p.segment_count = 1;
    FreePacket(pool, rest);
    return;
  }
  uint32_t left = length - p.segment_length;
  FrameIndex frame = p.frame;
  uint8_t kept = 1;
  while (left > 0) {
    SegmentLink& link = LinkOf(pool.arena(), frame);
    link.length = static_cast<uint16_t>(std::min<uint32_t>(link.length, left));
    left -= link.length;
    frame = link.next;
    ++kept;
  }
  if (kept < p.segment_count) {
    Packet rest;
    rest.frame = LinkOf(pool.arena(), frame).next;
    rest.segment_count = static_cast<uint8_t>(p.segment_count - kept);
    FreePacket(pool, rest);
    p.segment_count = kept;
  }
}

void CopyOut(const FrameArena& arena, const Packet& p, uint32_t offset, uint8_t* out,
             uint32_t length) {
  uint32_t position = 0;
  ForEachSegment(arena, p, 0, [&](std::span<uint8_t> piece) {
    const uint32_t end = position + static_cast<uint32_t>(piece.size());
    if (length > 0 && offset < end) {
      const uint32_t from = offset - position;
      const uint32_t n = std::min<uint32_t>(static_cast<uint32_t>(piece.size()) - from, length);
      std::memcpy(out, piece.data() + from, n);
      out += n;
      offset += n;
      length -= n;
    }
    position = end;
  });
}

}  // namespace sluice::packet
