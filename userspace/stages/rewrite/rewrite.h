// Last stage: what changes in a packet on its way through.
//
// The order matters where a checksum is partial: complete it before anything else is rewritten,
// since incremental updates (RFC 1624) of a field that holds only the pseudo header's sum are wrong.
#ifndef SLUICE_STAGES_REWRITE_REWRITE_H_
#define SLUICE_STAGES_REWRITE_REWRITE_H_

#include "base/address.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// For frames of virtual interfaces: when the TCP or UDP checksum is only the pseudo header's
// (CHECKSUM_PARTIAL), computes the rest, over all segments. True when it did. The test reads the
// headers only.
bool CompletePartialChecksum4(const packet::FrameArena& arena, packet::Packet& p);
bool CompletePartialChecksum6(const packet::FrameArena& arena, packet::Packet& p);

// The Ethernet header for the next link. `p.l3_offset` must be that of an untagged frame.
inline void WriteLinkHeader(packet::Packet& p, const Mac& destination, const Mac& source,
                            uint16_t ether_type) {
  destination.ToWire(p.data);
  source.ToWire(p.data + 6);
  StoreBe16(p.data + 12, ether_type);
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_REWRITE_REWRITE_H_
