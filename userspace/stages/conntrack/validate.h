// Is the transport header of a packet sound, before any flow is looked at?
//
// Rules of the error functions of net/netfilter/nf_conntrack_proto_*.c in PREROUTING: lengths, and
// with settings.checksum the checksum of TCP, UDP, UDP-Lite, ICMP and ICMPv6. A partial checksum
// (wire/partial_checksum.h) is right; an absent one of UDP is, too. Cost: reads the whole packet
// when checksums are verified, else constant.
#ifndef SLUICE_STAGES_CONNTRACK_VALIDATE_H_
#define SLUICE_STAGES_CONNTRACK_VALIDATE_H_

#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// Of a packet that MakeTuple accepted. TCP's and SCTP's lengths and flags are their trackers'.
bool TransportIsSound(const packet::Packet& p, const packet::FrameArena& arena,
                      bool verify_checksum);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_VALIDATE_H_
