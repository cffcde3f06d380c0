#include "transport/tcp/receive_queue.h"

#include <algorithm>

namespace sluice::transport {

namespace {

using packet::FrameIndex;
using packet::HeldOf;
using packet::kNoFrame;
using packet::Packet;
using wire::TcpSeq;

// Payloads up to here are copied to the end of the frame before, if it has room.
constexpr uint32_t kCoalesceBytes = 512;

// Which bytes of a held packet count: in the part of the headroom that a holder may use.
struct RxNote {
  uint32_t offset = 0;
  uint32_t length = 0;
};
static_assert(packet::kHolderNoteOffset + sizeof(RxNote) <= packet::kHeadroom);

RxNote& NoteOf(const packet::FrameArena& arena, FrameIndex frame) {
  return *reinterpret_cast<RxNote*>(arena.Chunk(frame) + packet::kHolderNoteOffset);
}

void Hold(const packet::FrameArena& arena, const Packet& p, uint32_t offset, uint32_t length) {
  HeldOf(arena, p.frame) = {p, kNoFrame};
  NoteOf(arena, p.frame) = {offset, length};
}

}  // namespace

uint32_t ReceiveQueue::FreeList(ReceivePool& pool, FrameIndex first) {
  uint32_t count = 0;
  while (first != kNoFrame) {
    const packet::HeldPacket held = HeldOf(pool.frames.arena(), first);
    packet::FreePacket(pool.frames, held.packet);
    count += held.packet.segment_count;
    first = held.next;
  }
  frames_ -= count;
  pool.frames_left += count;
  return count;
}

void ReceiveQueue::FreeRange(ReceivePool& pool, uint32_t index, uint32_t previous) {
  (previous == kNoIndex ? ranges_ : pool.ranges[previous].next) = pool.ranges[index].next;
  pool.ranges.Free(index);
  --range_count_;
}

void ReceiveQueue::AppendInOrder(ReceivePool& pool, FrameIndex first, FrameIndex last) {
  if (tail_ == kNoFrame) {
    head_ = first;
  } else {
    HeldOf(pool.frames.arena(), tail_).next = first;
  }
  tail_ = last;
}

bool ReceiveQueue::Coalesce(ReceivePool& pool, const Packet& p, uint32_t offset,
                            uint32_t length) {
  if (length > kCoalesceBytes || tail_ == kNoFrame) return false;
  const packet::FrameArena& arena = pool.frames.arena();
  Packet& tail = HeldOf(arena, tail_).packet;
  if (tail.segment_count != 1) return false;
  RxNote& note = NoteOf(arena, tail_);
  uint8_t* const end = tail.data + note.offset + note.length;
  if (end + length > arena.Chunk(tail_) + arena.chunk_size()) return false;
  packet::CopyOut(arena, p, offset, end, length);
  note.length += length;
  tail.length = note.offset + note.length;
  tail.segment_length = static_cast<uint16_t>(tail.length);
  packet::FreePacket(pool.frames, p);
  return true;
}

ReceiveQueue::Result ReceiveQueue::Insert(ReceivePool& pool, const Packet& p, uint32_t offset,
                                          TcpSeq seq, uint32_t length, TcpSeq& rcv_nxt) {
  if (seq != rcv_nxt) return InsertAhead(pool, p, offset, seq, length);
  Result result;
  result.outcome = Outcome::kInOrder;
  TcpSeq end = seq + length;
  // Ranges that it covers as a whole go; the first that reaches beyond it keeps its data.
  while (ranges_ != kNoIndex && pool.ranges[ranges_].begin.Before(end)) {
    const RxRange range = pool.ranges[ranges_];
    if (result.duplicate.left == result.duplicate.right) {
      result.duplicate = {range.begin, Earlier(range.end, end)};
    }
    if (range.end.After(end)) {
      end = range.begin;
      break;
    }
    FreeList(pool, range.head);
    FreeRange(pool, ranges_, kNoIndex);
    result.filled_gap = true;
  }
  length = end - seq;
  const bool joins = ranges_ != kNoIndex && pool.ranges[ranges_].begin == end;
  if (!Coalesce(pool, p, offset, length)) {
    if (pool.frames_left < p.segment_count) return {Outcome::kRefused, {}, false};
    pool.frames_left -= p.segment_count;
    frames_ += p.segment_count;
    Hold(pool.frames.arena(), p, offset, length);
    AppendInOrder(pool, p.frame, p.frame);
  }
  bytes_ += length;
  rcv_nxt = end;
  if (joins) {
    JoinRanges(pool, rcv_nxt);
    result.filled_gap = true;
  }
  return result;
}

void ReceiveQueue::JoinRanges(ReceivePool& pool, TcpSeq& rcv_nxt) {
  while (ranges_ != kNoIndex && pool.ranges[ranges_].begin == rcv_nxt) {
    const RxRange range = pool.ranges[ranges_];
    AppendInOrder(pool, range.head, range.tail);
    bytes_ += range.end - range.begin;
    rcv_nxt = range.end;
    FreeRange(pool, ranges_, kNoIndex);
  }
}

ReceiveQueue::Result ReceiveQueue::InsertAhead(ReceivePool& pool, const Packet& p,
                                               uint32_t offset, TcpSeq seq, uint32_t length) {
  Result result;
  TcpSeq end = seq + length;
  // `before` is the last range that begins at or before it, `after` the first that begins later.
  uint32_t before = kNoIndex;
  uint32_t after = ranges_;
  while (after != kNoIndex && pool.ranges[after].begin.AtOrBefore(seq)) {
    before = after;
    after = pool.ranges[after].next;
  }
  if (before != kNoIndex && pool.ranges[before].end.After(seq)) {
    RxRange& range = pool.ranges[before];
    result.duplicate = {seq, Earlier(range.end, end)};
    range.stamp = ++stamp_;
    if (end.AtOrBefore(range.end)) return result;
    offset += range.end - seq;
    seq = range.end;
  }
  if (after != kNoIndex && pool.ranges[after].begin.Before(end)) {
    if (result.duplicate.left == result.duplicate.right) {
      result.duplicate = {pool.ranges[after].begin, Earlier(pool.ranges[after].end, end)};
    }
    end = pool.ranges[after].begin;
    if (end == seq) {
      pool.ranges[after].stamp = ++stamp_;
      return result;  // between two ranges that touch it: nothing new that is kept
    }
  }
  const bool joins_before = before != kNoIndex && pool.ranges[before].end == seq;
  const bool joins_after = after != kNoIndex && pool.ranges[after].begin == end;
  const auto refused = Result{Outcome::kRefused, result.duplicate, false};
  if (pool.frames_left < p.segment_count) return refused;
  if (!joins_before && !joins_after) {
    if (range_count_ >= pool.ranges_per_connection) return refused;
    const uint32_t index = pool.ranges.Alloc();
    if (index == kNoIndex) return refused;
    pool.ranges[index] = {seq, end, p.frame, p.frame, after, ++stamp_};
    (before == kNoIndex ? ranges_ : pool.ranges[before].next) = index;
    ++range_count_;
    Hold(pool.frames.arena(), p, offset, end - seq);
  } else {
    Hold(pool.frames.arena(), p, offset, end - seq);
    if (joins_before) {
      RxRange& range = pool.ranges[before];
      HeldOf(pool.frames.arena(), range.tail).next = p.frame;
      range.tail = p.frame;
      range.end = end;
      range.stamp = ++stamp_;
      if (joins_after) {
        HeldOf(pool.frames.arena(), range.tail).next = pool.ranges[after].head;
        range.tail = pool.ranges[after].tail;
        range.end = pool.ranges[after].end;
        FreeRange(pool, after, before);
      }
    } else {
      RxRange& range = pool.ranges[after];
      HeldOf(pool.frames.arena(), p.frame).next = range.head;
      range.head = p.frame;
      range.begin = seq;
      range.stamp = ++stamp_;
    }
  }
  pool.frames_left -= p.segment_count;
  frames_ += p.segment_count;
  result.outcome = Outcome::kOutOfOrder;
  return result;
}

void ReceiveQueue::PopFront(ReceivePool& pool) {
  const packet::HeldPacket& held = HeldOf(pool.frames.arena(), head_);
  frames_ -= held.packet.segment_count;
  pool.frames_left += held.packet.segment_count;
  head_ = held.next;
  if (head_ == kNoFrame) tail_ = kNoFrame;
}

uint32_t ReceiveQueue::Read(ReceivePool& pool, std::span<uint8_t> out) {
  const packet::FrameArena& arena = pool.frames.arena();
  uint32_t read = 0;
  while (read < out.size() && head_ != kNoFrame) {
    const Packet p = HeldOf(arena, head_).packet;
    RxNote& note = NoteOf(arena, head_);
    const uint32_t n = std::min(note.length, static_cast<uint32_t>(out.size()) - read);
    packet::CopyOut(arena, p, note.offset, out.data() + read, n);
    read += n;
    note.offset += n;
    note.length -= n;
    if (note.length > 0) break;
    PopFront(pool);
    packet::FreePacket(pool.frames, p);
  }
  bytes_ -= read;
  return read;
}

bool ReceiveQueue::Take(ReceivePool& pool, ReceivedData& out) {
  if (head_ == kNoFrame) return false;
  const packet::FrameArena& arena = pool.frames.arena();
  const RxNote note = NoteOf(arena, head_);
  out = {HeldOf(arena, head_).packet, note.offset, note.length};
  PopFront(pool);
  bytes_ -= note.length;
  return true;
}

bool ReceiveQueue::Prune(ReceivePool& pool) {
  if (ranges_ == kNoIndex) return false;
  uint32_t previous = kNoIndex;
  uint32_t last = ranges_;
  while (pool.ranges[last].next != kNoIndex) {
    previous = last;
    last = pool.ranges[last].next;
  }
  FreeList(pool, pool.ranges[last].head);
  FreeRange(pool, last, previous);
  return true;
}

void ReceiveQueue::Clear(ReceivePool& pool) {
  while (Prune(pool)) {
  }
  FreeList(pool, head_);
  head_ = tail_ = kNoFrame;
  bytes_ = 0;
}

void ReceiveQueue::FillSack(const ReceivePool& pool, wire::TcpOptions& options,
                            size_t most) const {
  uint32_t below = UINT32_MAX;  // stamps already reported are at or above it
  while (options.sack_count < most) {
    uint32_t best = kNoIndex;
    for (uint32_t i = ranges_; i != kNoIndex; i = pool.ranges[i].next) {
      const RxRange& range = pool.ranges[i];
      if (range.stamp >= below) continue;
      if (best == kNoIndex || range.stamp > pool.ranges[best].stamp) best = i;
    }
    if (best == kNoIndex) return;
    below = pool.ranges[best].stamp;
    options.sack[options.sack_count++] = {pool.ranges[best].begin, pool.ranges[best].end};
  }
}

bool ReceiveQueue::Covers(const ReceivePool& pool, const wire::TcpSackBlock& block) const {
  for (uint32_t i = ranges_; i != kNoIndex; i = pool.ranges[i].next) {
    if (pool.ranges[i].begin.AtOrBefore(block.left) && pool.ranges[i].end.AtOrAfter(block.right)) {
      return true;
    }
  }
  return false;
}

}  // namespace sluice::transport
