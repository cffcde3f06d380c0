// The data of one connection that its program has not read: in order, and behind gaps.
//
// Frames are kept as they came; a note in each one's headroom says which bytes of it count. Behind
// gaps they hang in ranges, each a run of sequence numbers without a gap, which are at the same time
// what SACK blocks report (RFC 2018). Only small payloads are copied, to the end of the frame before,
// so that a peer who sends byte by byte does not fill memory with nearly empty frames.
//
// What is there stays, and of a segment that overlaps it the new part is taken: a peer cannot change
// data that it has sent before. Of a segment that spans a whole range the rest behind the range is
// let go (it is not acknowledged, so it comes again).
//
// Limits: frames and ranges of the worker (ReceivePool), ranges per connection. Insert says
// kRefused at one, and takes nothing. Cost: a walk over the ranges, of which there are as many as
// holes. One thread.
#ifndef SLUICE_TRANSPORT_TCP_RECEIVE_QUEUE_H_
#define SLUICE_TRANSPORT_TCP_RECEIVE_QUEUE_H_

#include <cstdint>
#include <span>

#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "transport/common/received_data.h"
#include "transport/common/slab.h"
#include "wire/tcp_options.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

struct RxRange {
  wire::TcpSeq begin;
  wire::TcpSeq end;
  packet::FrameIndex head = packet::kNoFrame;
  packet::FrameIndex tail = packet::kNoFrame;
  uint32_t next = kNoIndex;
  uint32_t stamp = 0;  // the higher, the later it grew
};

// What all connections of a worker share.
struct ReceivePool {
  ReceivePool(uint32_t range_count, uint32_t range_limit, uint32_t frame_limit,
              packet::FramePool& pool)
      : ranges(range_count), ranges_per_connection(range_limit), frames_left(frame_limit),
        frames(pool) {}
  Slab<RxRange> ranges;
  const uint32_t ranges_per_connection;
  uint32_t frames_left;
  packet::FramePool& frames;
};

class ReceiveQueue {
 public:
  enum class Outcome : uint8_t {
    kInOrder,     // RCV.NXT advanced, maybe over what had come before
    kOutOfOrder,  // kept behind a gap
    kDuplicate,   // nothing new in it; the packet is still the caller's
    kRefused,     // no frame or range left; likewise
  };
  struct Result {
    Outcome outcome = Outcome::kDuplicate;
    wire::TcpSackBlock duplicate;  // what of it had come before (RFC 2883); empty: nothing
    bool filled_gap = false;       // a range joined what is in order
  };

  // Segment data that begins at `seq` >= rcv_nxt, `length` > 0 bytes from `offset` in the packet.
  // Takes the packet's frames unless it says otherwise. `rcv_nxt` is moved on.
  Result Insert(ReceivePool& pool, const packet::Packet& p, uint32_t offset, wire::TcpSeq seq,
                uint32_t length, wire::TcpSeq& rcv_nxt);

  uint32_t bytes() const { return bytes_; }            // in order, not read
  uint32_t frames() const { return frames_; }          // in both
  bool has_gaps() const { return ranges_ != kNoIndex; }
  uint32_t range_count() const { return range_count_; }

  // Copies data out, and frees frames that are read; returns the bytes.
  uint32_t Read(ReceivePool& pool, std::span<uint8_t> out);
  // Hands out the first packet; false when nothing is there.
  bool Take(ReceivePool& pool, ReceivedData& out);

  // Lets the range go that is farthest ahead; the peer still has it. False: there is none.
  bool Prune(ReceivePool& pool);
  void Clear(ReceivePool& pool);

  // The ranges, the one that grew last first, as SACK blocks behind those that are there.
  void FillSack(const ReceivePool& pool, wire::TcpOptions& options, size_t most) const;
  // The range that holds all of [left, right): the second block of RFC 2883 section 4.2.
  bool Covers(const ReceivePool& pool, const wire::TcpSackBlock& block) const;

 private:
  void AppendInOrder(ReceivePool& pool, packet::FrameIndex first, packet::FrameIndex last);
  bool Coalesce(ReceivePool& pool, const packet::Packet& p, uint32_t offset, uint32_t length);
  void JoinRanges(ReceivePool& pool, wire::TcpSeq& rcv_nxt);
  void PopFront(ReceivePool& pool);
  uint32_t FreeList(ReceivePool& pool, packet::FrameIndex first);
  void FreeRange(ReceivePool& pool, uint32_t index, uint32_t previous);
  Result InsertAhead(ReceivePool& pool, const packet::Packet& p, uint32_t offset,
                     wire::TcpSeq seq, uint32_t length);

  packet::FrameIndex head_ = packet::kNoFrame;
  packet::FrameIndex tail_ = packet::kNoFrame;
  uint32_t bytes_ = 0;
  uint32_t frames_ = 0;
  uint32_t ranges_ = kNoIndex;  // in sequence order
  uint32_t range_count_ = 0;
  uint32_t stamp_ = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_RECEIVE_QUEUE_H_
