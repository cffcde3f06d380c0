// Echo requests for our own addresses, answered in place: the request becomes the reply.
//
// As Linux' icmp_echo and icmpv6_echo_reply: the same data, addresses swapped, fresh TTL, the
// request's TOS or traffic class. Only packets that arrived whole, without options, come here; the
// rest is the kernel's (its answer to a reassembled one is a fragmented one).
#ifndef SLUICE_STAGES_ICMP_ECHO_H_
#define SLUICE_STAGES_ICMP_ECHO_H_

#include <cstdint>

#include "packet/frame_arena.h"
#include "packet/packet.h"

namespace sluice::stages {

// Is it an echo request that Sluice may answer? Looks at the header only.
bool IsEchoRequest4(const packet::Packet& p);
bool IsEchoRequest6(const packet::Packet& p);

// Is its checksum right? Reads all of it.
bool EchoChecksumIsRight4(const packet::FrameArena& arena, const packet::Packet& p);
bool EchoChecksumIsRight6(const packet::FrameArena& arena, const packet::Packet& p);

// Turns the request into its reply, from the IP header on; the Ethernet header is stale.
void MakeEchoReply4(packet::Packet& p, uint8_t ttl, uint16_t ip_id);
void MakeEchoReply6(packet::Packet& p, uint8_t hop_limit);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ICMP_ECHO_H_
