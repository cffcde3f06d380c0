// The TCP reset that `reject with tcp reset` answers with, and TCP itself where no socket is.
//
// Rules: nf_reject_ipv4.c and nf_reject_ipv6.c of Linux, tcp_v4_send_reset, RFC 9293 section 3.5.2: none for a reset,
// for a fragment, for a segment whose checksum is wrong; with an acknowledgment the reset takes its
// sequence number from it, else it acknowledges what the segment occupied.
//
// No state; the hot path never gets here.
#ifndef SLUICE_STAGES_REJECT_TCP_RESET_H_
#define SLUICE_STAGES_REJECT_TCP_RESET_H_

#include <cstdint>

#include "base/address.h"
#include "packet/outbox.h"
#include "packet/packet.h"

namespace sluice::stages {

// Whether the segment gets a reset at all. Reads all of it for its checksum; a partial one
// (kFlagPartialChecksum) has been completed before.
bool MayBeReset(const packet::FrameArena& arena, const packet::Packet& segment, Family family);

// They differ in the type of service: a rule's has none, TCP's has the segment's.
enum class ResetBy : uint8_t { kRule, kTcp };

// Builds the reset, from its IP header on, in a new packet (l3_offset set, Ethernet header blank).
// `segment` is one that MayBeReset. False when no frame is free.
bool BuildReset(const packet::Packet& segment, Family family, ResetBy by, uint8_t ttl,
                packet::Outbox& outbox, packet::Packet& reset);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_REJECT_TCP_RESET_H_
