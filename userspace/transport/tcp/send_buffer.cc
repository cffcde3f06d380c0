#include "transport/tcp/send_buffer.h"

#include <algorithm>
#include <cstring>

namespace sluice::transport {

namespace {

// Data of received frames up to here is copied, if the frame before has room.
constexpr uint32_t kCopyBytes = 512;

}  // namespace

uint32_t SendBuffer::Append(SendPool& pool) {
  const uint32_t index = pool.pieces.Alloc();
  if (index == kNoIndex) return index;
  pool.pieces[index] = SendPiece{};
  (tail_ == kNoIndex ? head_ : pool.pieces[tail_].next) = index;
  tail_ = index;
  ++pieces_;
  if (cursor_ == kNoIndex) {
    cursor_ = index;
    cursor_seq_ = end_;
  }
  return index;
}

// What fits behind the data of the last frame; also a received one is the stack's to its end.
uint32_t SendBuffer::TailRoom(const SendPool& pool) const {
  if (tail_ == kNoIndex) return 0;
  const SendPiece& piece = pool.pieces[tail_];
  if (piece.frame == packet::kNoFrame || piece.ends_record) return 0;
  const packet::FrameArena& arena = pool.frames.arena();
  const uint8_t* const end = arena.Chunk(piece.frame) + arena.chunk_size();
  return static_cast<uint32_t>(end - (piece.buffer.data + piece.buffer.length));
}

// The place for `length` bytes more, of which there is room.
uint8_t* SendBuffer::ExtendTail(SendPool& pool, uint32_t length) {
  SendPiece& piece = pool.pieces[tail_];
  uint8_t* const chunk = pool.frames.arena().Chunk(piece.frame);
  uint8_t* const at = chunk + (piece.buffer.data - chunk) + piece.buffer.length;
  piece.buffer.length += length;
  end_ += length;
  return at;
}

uint32_t SendBuffer::Write(SendPool& pool, std::span<const uint8_t> data) {
  uint32_t taken = 0;
  while (taken < data.size()) {
    uint32_t room = TailRoom(pool);
    if (room == 0) {
      if (pool.frames_left == 0) break;
      const packet::FrameIndex frame = pool.frames.Alloc();
      if (frame == packet::kNoFrame) break;
      const uint32_t index = Append(pool);
      if (index == kNoIndex) {
        pool.frames.Free(frame);
        break;
      }
      --pool.frames_left;
      pool.pieces[index].frame = frame;
      pool.pieces[index].buffer.data = pool.frames.arena().Chunk(frame) + packet::kHeadroom;
      room = TailRoom(pool);
    }
    const uint32_t n = std::min(room, static_cast<uint32_t>(data.size()) - taken);
    std::memcpy(ExtendTail(pool, n), data.data() + taken, n);
    taken += n;
  }
  return taken;
}

bool SendBuffer::Lend(SendPool& pool, const OwnedBuffer& buffer) {
  const uint32_t index = Append(pool);
  if (index == kNoIndex) return false;
  pool.pieces[index].buffer = buffer;
  end_ += buffer.length;
  return true;
}

bool SendBuffer::TakePacket(SendPool& pool, const packet::Packet& p, uint32_t offset,
                            uint32_t length) {
  if (length <= std::min(kCopyBytes, TailRoom(pool))) {
    packet::CopyOut(pool.frames.arena(), p, offset, ExtendTail(pool, length), length);
    packet::FreePacket(pool.frames, p);
    return true;
  }
  if (pool.frames_left < p.segment_count ||
      pool.pieces.capacity() - pool.pieces.used() < p.segment_count) {
    return false;
  }
  packet::FrameIndex frame = p.frame;
  std::span<const uint8_t> bytes(p.data, p.segment_length);
  for (uint8_t i = 0; i < p.segment_count; ++i) {
    const packet::SegmentLink link = packet::LinkOf(pool.frames.arena(), frame);
    const auto skip = std::min<uint32_t>(offset, static_cast<uint32_t>(bytes.size()));
    offset -= skip;
    bytes = bytes.subspan(skip);
    bytes = bytes.first(std::min<size_t>(bytes.size(), length));
    length -= static_cast<uint32_t>(bytes.size());
    const auto size = static_cast<uint32_t>(bytes.size());
    if (size <= std::min(kCopyBytes, TailRoom(pool))) {
      if (size > 0) std::memcpy(ExtendTail(pool, size), bytes.data(), size);
      pool.frames.Free(frame);
    } else {
      SendPiece& piece = pool.pieces[Append(pool)];
      piece.frame = frame;
      piece.buffer = {bytes.data(), size, nullptr, nullptr};
      end_ += size;
      --pool.frames_left;
    }
    if (i + 1 < p.segment_count) {
      frame = link.next;
      bytes = {pool.frames.arena().Chunk(frame) + link.data_offset, link.length};
    }
  }
  return true;
}

void SendBuffer::EndRecord(SendPool& pool) {
  if (tail_ == kNoIndex || pool.pieces[tail_].ends_record) return;
  pool.pieces[tail_].ends_record = true;
  ++records_;
}

SendBuffer::Run SendBuffer::FindRecordEnd(const SendPool& pool, wire::TcpSeq from,
                                          uint32_t length) const {
  // From where the last Read ended, which is seldom far.
  const bool behind = cursor_ != kNoIndex && cursor_seq_.AtOrBefore(from);
  uint32_t i = behind ? cursor_ : head_;
  wire::TcpSeq end = (behind ? cursor_seq_ : begin_ - head_skipped_) + pool.pieces[i].buffer.length;
  while (end.AtOrBefore(from) || (!pool.pieces[i].ends_record && end.Before(from + length))) {
    i = pool.pieces[i].next;
    end += pool.pieces[i].buffer.length;
  }
  if (end.After(from + length)) return {length, false};
  return {end - from, pool.pieces[i].ends_record};
}

void SendBuffer::Read(const SendPool& pool, wire::TcpSeq from, uint8_t* out, uint32_t length) {
  if (length == 0) return;
  if (cursor_ == kNoIndex || from.Before(cursor_seq_)) {
    cursor_ = head_;
    cursor_seq_ = begin_ - head_skipped_;
  }
  while (length > 0) {
    const OwnedBuffer& piece = pool.pieces[cursor_].buffer;
    const uint32_t at = from - cursor_seq_;
    if (at < piece.length) {
      const uint32_t n = std::min(length, piece.length - at);
      std::memcpy(out, piece.data + at, n);
      out += n;
      from += n;
      length -= n;
      if (length == 0) return;
    }
    cursor_seq_ += piece.length;
    cursor_ = pool.pieces[cursor_].next;
  }
}

void SendBuffer::PopFront(SendPool& pool) {
  const uint32_t index = head_;
  const SendPiece piece = pool.pieces[index];
  head_ = piece.next;
  if (head_ == kNoIndex) tail_ = kNoIndex;
  if (cursor_ == index) {
    cursor_ = head_;
    cursor_seq_ += piece.buffer.length;
  }
  pool.pieces.Free(index);
  --pieces_;
  if (piece.ends_record) --records_;
  if (piece.frame != packet::kNoFrame) {
    pool.frames.Free(piece.frame);
    ++pool.frames_left;
  } else if (piece.buffer.release != nullptr) {
    piece.buffer.release(piece.buffer.context);
  }
}

void SendBuffer::Acknowledge(SendPool& pool, wire::TcpSeq seq) {
  uint32_t n = seq - begin_ + head_skipped_;
  begin_ = seq;
  while (head_ != kNoIndex && pool.pieces[head_].buffer.length <= n) {
    n -= pool.pieces[head_].buffer.length;
    PopFront(pool);
  }
  head_skipped_ = n;
}

void SendBuffer::Clear(SendPool& pool) {
  while (head_ != kNoIndex) PopFront(pool);
  begin_ = end_;
  head_skipped_ = 0;
}

}  // namespace sluice::transport
