// The data of one connection that is not acknowledged yet, sent or not: a list of pieces that stay
// where they are until they are, since any of it may have to be sent again.
//
// A piece is memory of the program (released by a call back), or a frame: filled by Write, or taken
// over whole (a received packet passed on). Of a packet's small pieces the data is copied to the end of
// the frame before, or a peer that sends byte by byte would fill memory with nearly empty frames. Each
// transmission copies from here into a frame of its own, since AF_XDP wants the frame until the NIC is
// done with it, and the data must outlive that.
//
// A record ends with a piece: nothing is copied behind it.
//
// Pieces come from the worker's pool; at its limit, or that of frames, nothing is taken. One thread.
#ifndef SLUICE_TRANSPORT_TCP_SEND_BUFFER_H_
#define SLUICE_TRANSPORT_TCP_SEND_BUFFER_H_

#include <cstdint>
#include <span>

#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "transport/common/slab.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

// Memory that a program lends: it must stay as it is until `release` is called, on the same thread,
// once, from within some call into the stack (which it must not call itself).
struct OwnedBuffer {
  const uint8_t* data = nullptr;
  uint32_t length = 0;
  void (*release)(void* context) = nullptr;  // may be null
  void* context = nullptr;
};

struct SendPiece {
  OwnedBuffer buffer;
  packet::FrameIndex frame = packet::kNoFrame;  // of the stack's own pieces
  uint32_t next = kNoIndex;
  bool ends_record = false;
};

// What all connections of a worker share.
struct SendPool {
  SendPool(uint32_t pieces_count, uint32_t frame_limit, packet::FramePool& pool)
      : pieces(pieces_count), frames_left(frame_limit), frames(pool) {}
  Slab<SendPiece> pieces;
  uint32_t frames_left;
  packet::FramePool& frames;
};

class SendBuffer {
 public:
  void Start(wire::TcpSeq first) {
    *this = SendBuffer();
    begin_ = end_ = cursor_seq_ = first;
  }

  wire::TcpSeq end() const { return end_; }  // one after the last byte written
  uint32_t size() const { return end_ - begin_; }
  uint32_t pieces() const { return pieces_; }

  // Copies as much as there is room for; returns the bytes taken.
  uint32_t Write(SendPool& pool, std::span<const uint8_t> data);
  // All of it or nothing.
  bool Lend(SendPool& pool, const OwnedBuffer& buffer);
  // Takes over the frames of `p`, of which `length` bytes from `offset` are sent; all or nothing.
  bool TakePacket(SendPool& pool, const packet::Packet& p, uint32_t offset, uint32_t length);

  // What is in here so far ends a record, unless all of it has been acknowledged.
  void EndRecord(SendPool& pool);
  // How much of `length` bytes from `from` on, which are in here, belongs to one record, and whether the
  // record ends there.
  struct Run {
    uint32_t length = 0;
    bool ends_record = false;
  };
  Run WithinRecord(const SendPool& pool, wire::TcpSeq from, uint32_t length) const {
    if (records_ == 0 || length == 0) [[likely]] return {length, false};
    return FindRecordEnd(pool, from, length);
  }

  // Copies data that is in here.
  void Read(const SendPool& pool, wire::TcpSeq from, uint8_t* out, uint32_t length);
  // Everything before `seq` has been acknowledged.
  void Acknowledge(SendPool& pool, wire::TcpSeq seq);
  void Clear(SendPool& pool);

 private:
  uint32_t Append(SendPool& pool);
  uint32_t TailRoom(const SendPool& pool) const;
  uint8_t* ExtendTail(SendPool& pool, uint32_t length);
  void PopFront(SendPool& pool);
  Run FindRecordEnd(const SendPool& pool, wire::TcpSeq from, uint32_t length) const;

  uint32_t head_ = kNoIndex;
  uint32_t tail_ = kNoIndex;
  uint32_t pieces_ = 0;
  uint32_t records_ = 0;     // that end in here
  wire::TcpSeq begin_;       // the first byte that is kept
  wire::TcpSeq end_;
  uint32_t head_skipped_ = 0;  // bytes of the head that are acknowledged
  // Where the last Read ended: data is mostly sent in order.
  uint32_t cursor_ = kNoIndex;
  wire::TcpSeq cursor_seq_;  // the first byte of the cursor's piece
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SEND_BUFFER_H_
