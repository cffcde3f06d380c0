// What is in flight, segment by segment: the retransmission queue and the scoreboard of SACK
// (RFC 6675 section 3) in one, with the transmission times that RACK needs (RFC 8985 section 5.2).
//
// The segments of one connection are a list in sequence order, from SND.UNA to SND.NXT without a
// gap; a SYN and a FIN are in it. Their places come from the worker's pool. Pipe() is the estimate
// of what is in the network (RFC 6675's pipe, kept up to date by marks instead of counted anew).
//
// A segment is what was sent as one: a SACK of a part of it counts for nothing, so that a peer cannot
// make many of one. What an ACK may cost is a budget of steps (Find, walk). One thread.
#ifndef SLUICE_TRANSPORT_TCP_SCOREBOARD_H_
#define SLUICE_TRANSPORT_TCP_SCOREBOARD_H_

#include <cstdint>

#include "base/time.h"
#include "transport/common/slab.h"
#include "wire/tcp_sequence.h"

namespace sluice::transport {

enum TxFlag : uint8_t {
  kTxSyn = 1,
  kTxFin = 2,
  kTxPush = 4,
  kTxSacked = 8,
  kTxLost = 16,             // believed lost; with kTxRetransmitted, and sent again since
  kTxRetransmitted = 32,    // a retransmission is in flight
  kTxEverRetransmitted = 64,
  kTxProbe = 128,           // larger than the path's MTU is known to be; until it is sent again
};

struct TxSegment {
  wire::TcpSeq seq;
  uint32_t length = 0;  // in sequence numbers: SYN and FIN count
  Nanos sent;           // the latest transmission
  uint32_t next = kNoIndex;
  uint32_t previous = kNoIndex;
  uint8_t flags = 0;

  wire::TcpSeq end() const { return seq + length; }
  bool Has(uint8_t flag) const { return (flags & flag) != 0; }
  // What of it is data.
  uint32_t payload() const { return length - (Has(kTxSyn) ? 1 : 0) - (Has(kTxFin) ? 1 : 0); }
};
using TxSegments = Slab<TxSegment>;

class Scoreboard {
 public:
  uint32_t head() const { return head_; }
  uint32_t tail() const { return tail_; }
  bool empty() const { return head_ == kNoIndex; }
  uint32_t sacked_bytes() const { return sacked_bytes_; }
  uint32_t sacked_segments() const { return sacked_segments_; }
  uint32_t lost_bytes() const { return lost_bytes_; }
  uint32_t retransmitted_bytes() const { return retransmitted_bytes_; }
  uint32_t count() const { return count_; }
  uint32_t Pipe() const { return bytes_ - sacked_bytes_ - lost_bytes_ + retransmitted_bytes_; }

  // False when the worker's pool is used up.
  bool Append(TxSegments& pool, wire::TcpSeq seq, uint32_t length, uint8_t flags, Nanos now);
  // Removes the first segment.
  void PopFront(TxSegments& pool);
  // Takes the first `n` sequence numbers off the first segment, which has more.
  void TrimFront(TxSegments& pool, uint32_t n);
  // Cuts a segment in two, `at` bytes into it; false without a place for the second.
  bool Split(TxSegments& pool, uint32_t index, uint32_t at);
  void Clear(TxSegments& pool);

  void MarkSacked(TxSegments& pool, uint32_t index);
  // Also when it has been retransmitted: then that is what was lost.
  void MarkLost(TxSegments& pool, uint32_t index);
  void MarkRetransmitted(TxSegments& pool, uint32_t index, Nanos now);
  // The retransmission timer has expired (RFC 6675 section 5.1): what is not SACKed counts as lost.
  // If the first segment is SACKed, the receiver has let go of it: no SACK counts any more (RFC 2018
  // section 8).
  void MarkAllLost(TxSegments& pool);
  // The losses were none: nothing is lost that was not retransmitted.
  void ForgetLosses(TxSegments& pool);

  // The segment that holds `seq`, looked for from the nearest of head, tail and where the last search
  // ended; each step is taken off `budget`. kNoIndex: there is none, or the budget is used up (the next
  // search goes on there).
  uint32_t Find(const TxSegments& pool, wire::TcpSeq seq, uint32_t& budget);

  // Where a walk for losses that was cut goes on; the head when none was.
  uint32_t walk() const { return walk_ == kNoIndex ? head_ : walk_; }
  bool walking() const { return walk_ != kNoIndex; }
  void set_walk(uint32_t index) { walk_ = index; }

  // The first that is lost and has not been sent again; kNoIndex when there is none.
  uint32_t NextLost(const TxSegments& pool);

 private:
  void Link(TxSegments& pool, uint32_t index, uint32_t after);
  void ClearMarks(TxSegment& s);

  uint32_t head_ = kNoIndex;
  uint32_t tail_ = kNoIndex;
  uint32_t hint_ = kNoIndex;  // no segment before it is to be retransmitted; none: from the head
  uint32_t found_ = kNoIndex;  // where the last search ended; none: at the head
  uint32_t walk_ = kNoIndex;   // none: no walk was cut
  uint32_t count_ = 0;
  uint32_t bytes_ = 0;
  uint32_t sacked_bytes_ = 0;
  uint32_t sacked_segments_ = 0;
  uint32_t lost_bytes_ = 0;
  uint32_t retransmitted_bytes_ = 0;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_TCP_SCOREBOARD_H_
