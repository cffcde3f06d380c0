// First stage: what is this frame, and is its network header sound?
//
// Checks and their order follow Linux' ip_rcv_core and ip6_rcv_core; a frame longer than its IP
// length is trimmed, as Linux does. Fills in the Packet's offsets, protocol and flags. Reads the
// Ethernet and network headers (and for IPv6 the extension headers) only.
//
// All headers it vouches for lie in the packet's first segment. VLAN-tagged frames never get here:
// XDP passes them to the kernel; one that does is kUnknownProtocol.
#ifndef SLUICE_STAGES_PARSE_PARSE_H_
#define SLUICE_STAGES_PARSE_PARSE_H_

#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "tables/snapshot.h"

namespace sluice::stages {

enum class Protocol : uint8_t { kIpv4, kIpv6, kArp, kNone };

struct ParseResult {
  packet::Verdict verdict = packet::Verdict::Continue();
  Protocol protocol = Protocol::kNone;  // when the verdict is Continue
};

ParseResult Parse(packet::Packet& p, const tables::Interface& in, packet::FramePool& pool);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_PARSE_PARSE_H_
