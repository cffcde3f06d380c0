// Last stage: what changes in a packet on its way through.
//
// The order matters where a checksum is partial: complete it before anything else is rewritten,
// since incremental updates (RFC 1624) of a field that holds only the pseudo header's sum are wrong.
#ifndef SLUICE_STAGES_REWRITE_REWRITE_H_
#define SLUICE_STAGES_REWRITE_REWRITE_H_

#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// For frames of virtual interfaces: when the TCP or UDP checksum is only the pseudo header's
// (CHECKSUM_PARTIAL), computes the rest, over all segments. True when it did. The test reads the
// headers only.
bool CompletePartialChecksum4(const packet::FrameArena& arena, packet::Packet& p);
bool CompletePartialChecksum6(const packet::FrameArena& arena, packet::Packet& p);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_REWRITE_REWRITE_H_
