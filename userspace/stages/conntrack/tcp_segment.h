// What connection tracking reads of a TCP segment.
//
// Options as the kernel reads them (tcp_options and tcp_sack of
// net/netfilter/nf_conntrack_proto_tcp.c): up to the first malformed one. Constant cost; the header
// lies in the packet's first segment.
#ifndef SLUICE_STAGES_CONNTRACK_TCP_SEGMENT_H_
#define SLUICE_STAGES_CONNTRACK_TCP_SEGMENT_H_

#include <cstdint>
#include <span>

#include "packet/packet.h"

namespace sluice::stages {

// Rows of the transition table; RST hides SYN, that hides FIN, that hides ACK. TcpTracking's
// last_kind.
enum class SegmentKind : uint8_t { kSyn, kSynAck, kFin, kAck, kRst, kNone };

struct TcpSegment {
  uint32_t sequence = 0;
  uint32_t acknowledgment = 0;
  uint32_t end = 0;  // sequence + length, SYN and FIN counted
  uint16_t window = 0;
  uint8_t flags = 0;
  SegmentKind kind = SegmentKind::kNone;
  std::span<const uint8_t> options;

  bool Has(uint8_t flag) const { return (flags & flag) != 0; }
};

// False when the header is cut or malformed, or the combination of flags is one that no TCP sends.
bool ReadTcpSegment(const packet::Packet& p, TcpSegment& segment);

// Window scale and SACK permission, of a SYN or SYN-ACK.
struct TcpSynOptions {
  uint8_t scale = 0;
  uint8_t flags = 0;  // kTcpWindowScale, kTcpSackPermitted
};
TcpSynOptions ReadSynOptions(const TcpSegment& segment);

// The highest right edge of the SACK blocks, or `acknowledgment` when that is further.
uint32_t HighestSack(const TcpSegment& segment, uint32_t acknowledgment);

// Sequence numbers compare on a circle (RFC 9293 section 3.4).
constexpr bool SequenceBefore(uint32_t a, uint32_t b) { return static_cast<int32_t>(a - b) < 0; }
constexpr bool SequenceAfter(uint32_t a, uint32_t b) { return SequenceBefore(b, a); }

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TCP_SEGMENT_H_
