// What Translate and its ICMP half share: a packet's own headers, and SCTP's checksum. Internal to
// the NAT stage.
#ifndef SLUICE_STAGES_NAT_OUTER_HEADERS_H_
#define SLUICE_STAGES_NAT_OUTER_HEADERS_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_order.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "stages/nat/header_end.h"
#include "tables/flow.h"
#include "wire/crc32c.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/protocol.h"

namespace sluice::stages {

inline Headers OuterHeaders(const packet::Packet& p) {
  Headers h;
  h.ip = p.l3();
  h.family = (h.ip[0] >> 4) == 4 ? Family::kIpv4 : Family::kIpv6;
  h.protocol = p.l4_protocol;
  if (p.l4_offset != 0 && p.l4_offset <= p.segment_length && !p.Has(packet::kFlagLaterFragment)) {
    h.l4 = p.l4();
    h.l4_size = p.segment_length - size_t{p.l4_offset};
    h.l4_total = p.length - size_t{p.l4_offset};
  }
  h.partial_checksum = p.Has(packet::kFlagPartialChecksum);
  return h;
}

inline bool IsIcmpErrorHeader(const Headers& h) {
  if (h.l4 == nullptr || h.l4_size < 8) return false;
  if (h.protocol == wire::kProtocolIcmp) return wire::IsIcmpError(h.l4[0]);
  return h.protocol == wire::kProtocolIcmpv6 &&
         (wire::IsIcmpv6Error(h.l4[0]) || h.l4[0] == wire::kIcmpv6Redirect);
}

// Computes SCTP's checksum anew, when its field is there: over everything from `h.l4` on.
inline void FinishSctp(const packet::FrameArena& arena, const packet::Packet& p, const Headers& h) {
  if (h.protocol != wire::kProtocolSctp || h.l4 == nullptr || h.l4_size < 12) return;
  uint8_t* const field = h.l4 + 8;
  std::fill_n(field, 4, uint8_t{0});
  wire::Crc32c crc;
  packet::ForEachSegment(arena, p, static_cast<uint32_t>(h.l4 - p.data),
                         [&](std::span<uint8_t> piece) { crc.Add(piece); });
  StoreBe32(field, __builtin_bswap32(crc.value()));  // least significant byte first
}

// RestoreOriginal for an ICMP error.
bool RestoreIcmpError(const packet::FrameArena& arena, packet::Packet& p, const tables::Flow& flow,
                      tables::FlowDirection direction);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_OUTER_HEADERS_H_
