// IPv4 fragmentation on the way out (RFC 791 section 3.2), as Linux' ip_do_fragment does it for a
// forwarded packet: every piece but the last carries a multiple of 8 bytes, a packet that was a
// fragment itself keeps its offset and its more-fragments flag, the identification stays.
//
// Options that ask for action never get here, the kernel has those packets; the rest (padding,
// unknown ones) go into every piece if their copied bit says so, else into the first. Each piece is
// a new packet with room for the Ethernet header; the first stands for the original in the counters,
// the others count as generated.
#ifndef SLUICE_STAGES_FRAGMENT_FRAGMENT_H_
#define SLUICE_STAGES_FRAGMENT_FRAGMENT_H_

#include <cstdint>

#include "packet/outbox.h"
#include "packet/packet.h"

namespace sluice::stages {

// Makes the pieces of `whole` one after the other:
//   Ipv4Fragmenter f(whole, mtu, outbox);
//   while (!f.done()) { Packet piece; if (!f.Next(piece)) { no free frame; break; } ... }
// `whole` stays the caller's, to be freed when the pieces are made.
class Ipv4Fragmenter {
 public:
  Ipv4Fragmenter(const packet::Packet& whole, uint32_t mtu, packet::Outbox& outbox);

  bool done() const { return at_ == payload_; }
  bool Next(packet::Packet& piece);

 private:
  const packet::Packet& whole_;
  packet::Outbox& outbox_;
  const uint32_t header_;    // bytes of the IPv4 header
  const uint32_t payload_;   // bytes to distribute
  const uint32_t room_;      // bytes of payload that fit a piece
  uint32_t at_ = 0;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FRAGMENT_FRAGMENT_H_
