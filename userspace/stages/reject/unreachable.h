// Which packets `reject` answers with an ICMP error.
//
// Rules: nf_send_unreach, nf_send_unreach6 and nf_reject_verify_csum of Linux (6.1 to 6.18): none for
// a later fragment, and none for a packet whose transport checksum is wrong. Of a protocol that the
// kernel does not know, it takes the whole payload for something with a checksum.
//
// No state; the hot path never gets here.
#ifndef SLUICE_STAGES_REJECT_UNREACHABLE_H_
#define SLUICE_STAGES_REJECT_UNREACHABLE_H_

#include "base/address.h"
#include "packet/packet.h"

namespace sluice::stages {

// Reads all of the packet for its checksum. A partial one is taken for right.
bool MayBeRefused(const packet::FrameArena& arena, const packet::Packet& p, Family family);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_REJECT_UNREACHABLE_H_
