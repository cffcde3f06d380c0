#include "transport/tcp/send_buffer.h"

#include <algorithm>
#include <cstring>

namespace sluice::transport {

namespace {

// Where the data of a frame that Write fills begins and may end.
uint8_t* FrameData(SendPool& pool, packet::FrameIndex frame) {
  return pool.frames.arena().Chunk(frame) + packet::kHeadroom;
}
uint32_t FrameRoom(const SendPool& pool) {
  return pool.frames.arena().chunk_size() - packet::kHeadroom;
}

}  // namespace

uint32_t SendBuffer::Append(SendPool& pool) {
  const uint32_t index = pool.pieces.Alloc();
  if (index == kNoIndex) return index;
  pool.pieces[index] = SendPiece{};
  (tail_ == kNoIndex ? head_ : pool.pieces[tail_].next) = index;
  tail_ = index;
  if (cursor_ == kNoIndex) {
    cursor_ = index;
    cursor_seq_ = end_;
  }
  return index;
}

uint32_t SendBuffer::Write(SendPool& pool, std::span<const uint8_t> data) {
  uint32_t taken = 0;
  while (taken < data.size()) {
    SendPiece* piece = tail_ == kNoIndex ? nullptr : &pool.pieces[tail_];
    uint8_t* const begin = piece != nullptr && piece->frame != packet::kNoFrame
                               ? FrameData(pool, piece->frame) : nullptr;
    // Frames that were taken over are not added to: what is behind their data is not known.
    uint32_t room = begin != nullptr && piece->buffer.data == begin &&
                            piece->buffer.context == nullptr
                        ? FrameRoom(pool) - piece->buffer.length : 0;
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
      piece = &pool.pieces[index];
      piece->frame = frame;
      piece->buffer.data = FrameData(pool, frame);
      room = FrameRoom(pool);
    }
    const uint32_t n = std::min(room, static_cast<uint32_t>(data.size()) - taken);
    std::memcpy(FrameData(pool, piece->frame) + piece->buffer.length, data.data() + taken, n);
    piece->buffer.length += n;
    taken += n;
    end_ += n;
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
    if (bytes.empty()) {
      pool.frames.Free(frame);
    } else {
      SendPiece& piece = pool.pieces[Append(pool)];
      piece.frame = frame;
      piece.buffer = {bytes.data(), static_cast<uint32_t>(bytes.size()), nullptr, &pool};
      end_ += piece.buffer.length;
      --pool.frames_left;
    }
    if (i + 1 < p.segment_count) {
      frame = link.next;
      bytes = {pool.frames.arena().Chunk(frame) + link.data_offset, link.length};
    }
  }
  return true;
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
