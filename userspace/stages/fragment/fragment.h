// IPv4 fragmentation on the way out (RFC 791 section 3.2), as Linux' ip_do_fragment does it for a
// forwarded packet: every piece but the last carries a multiple of 8 bytes, a packet that was a
// fragment itself keeps its offset and its more-fragments flag, the identification stays.
//
// A datagram that stages/defrag has put together (fragment_size is set) always goes out in
// fragments again, none larger than the largest that arrived, and in the very pieces that arrived
// if they fit (without don't-fragment then, else with that of the largest). It may have any number
// of segments. (IPv6: fragment6.h. For the kernel: refragment.h.)
//
// Options that ask for action never get here, the kernel has those packets; the rest (padding,
// unknown ones) go into every piece if their copied bit says so, else into the first. Each piece is
// a new packet with room for the Ethernet header; the first stands for the original in the
// counters, the others count as generated. A piece larger than a frame's chunk (jumbo MTUs) is cut
// smaller.
#ifndef SLUICE_STAGES_FRAGMENT_FRAGMENT_H_
#define SLUICE_STAGES_FRAGMENT_FRAGMENT_H_

#include <cstdint>

#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/fragment/fragment_starts.h"

namespace sluice::stages {

enum class MtuDecision : uint8_t {
  kSend,      // as it is
  kFragment,  // by the fragmenter of its family
  kTooBig,    // drop, with the ICMP error that names `mtu`
};

// ip_exceeds_mtu, and ip_fragment's choice: don't-fragment binds a reassembled datagram only if one
// of its fragments was larger than `mtu`.
MtuDecision DecideMtu4(const packet::Packet& p, uint32_t mtu);

// Makes the pieces of `whole` one after the other:
//   Ipv4Fragmenter f(whole, mtu, outbox);
//   while (!f.done()) { Packet piece; if (!f.Next(piece)) { no free frame; break; } ... }
// `whole` stays the caller's, to be freed when the pieces are made.
class Ipv4Fragmenter {
 public:
  Ipv4Fragmenter(const packet::Packet& whole, uint32_t mtu, packet::Outbox& outbox);

  bool done() const { return sizes_.done(); }
  bool Next(packet::Packet& piece);

 private:
  const packet::Packet& whole_;
  packet::Outbox& outbox_;
  const uint32_t header_;  // bytes of the IPv4 header
  PieceSizes sizes_;
  SegmentReader reader_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FRAGMENT_FRAGMENT_H_
