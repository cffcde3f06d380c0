// A complete datagram becomes one packet: the fragments' frames, chained, with the headers of the
// first in front. Rules: ip_frag_reasm, nf_ct_frag6_reasm.
//
// IPv4: total length, ECN and don't-fragment are set, the checksum follows. IPv6: the fragment
// header is taken out, by moving what is before it 8 bytes up; payload length and ECN are set. TTL,
// options and the link header are the first fragment's; `in` is where the last to arrive came in.
#ifndef SLUICE_STAGES_DEFRAG_ASSEMBLE_H_
#define SLUICE_STAGES_DEFRAG_ASSEMBLE_H_

#include <cstdint>

#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "stages/defrag/datagram.h"

namespace sluice::stages {

// Bytes of L4 header that are in the first segment afterwards, as far as the packet has them and
// the first frame has room.
inline constexpr uint32_t kGatheredL4Bytes = 64;

// False when it must not be: its ECN marks contradict each other, or it is longer than an IP packet
// may be. Then nothing has been changed.
bool MayAssemble(const packet::FrameArena& arena, const Datagram& d);

// Of a complete datagram that may be. Takes all of its frames.
packet::Packet Assemble(packet::FramePool& pool, const Datagram& d, IfaceSlot in);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_DEFRAG_ASSEMBLE_H_
