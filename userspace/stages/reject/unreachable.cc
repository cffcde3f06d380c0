#include "stages/reject/unreachable.h"

#include <cstddef>
#include <span>

#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/partial_checksum.h"
#include "wire/protocol.h"

namespace sluice::stages {

namespace {

// Such that have no checksum over all of their payload, or may leave it out.
bool HasNoPlainChecksum(uint8_t protocol) {
  constexpr uint8_t kDccp = 33;  // since 6.16 the kernel does not know it
  return protocol == wire::kProtocolGre || protocol == wire::kProtocolAuthentication ||
         protocol == wire::kProtocolEsp || protocol == wire::kProtocolSctp ||
         protocol == wire::kProtocolUdpLite || protocol == kDccp;
}

// nf_ip_checksum and nf_ip6_checksum: for IPv4 only TCP and UDP have a pseudo header.
uint32_t PseudoSum(const packet::Packet& p, Family family) {
  const uint32_t length = p.length - p.l4_offset;
  if (family == Family::kIpv6) return wire::Ipv6View(p.l3()).PseudoSum(p.l4_protocol, length);
  if (p.l4_protocol != wire::kProtocolTcp && p.l4_protocol != wire::kProtocolUdp) return 0;
  const wire::Ipv4View ip(p.l3());
  return wire::PseudoHeaderSum(ip.source(), ip.destination(), p.l4_protocol, length);
}

}  // namespace

bool MayBeRefused(const packet::FrameArena& arena, const packet::Packet& p, Family family) {
  if (p.Has(packet::kFlagLaterFragment)) return false;
  // ipv6_skip_exthdr finds nothing behind "no next header", nor in an empty packet.
  if (family == Family::kIpv6 && (p.l4_offset == 0 || p.l4_offset >= p.length ||
                                  p.l4_protocol == wire::kProtocolNoNextHeader)) {
    return false;
  }
  if (HasNoPlainChecksum(p.l4_protocol)) return true;
  const uint32_t pseudo_sum = PseudoSum(p, family);
  const std::span<const uint8_t> first(p.l4(), static_cast<size_t>(p.segment_length - p.l4_offset));
  switch (wire::ClassifyL4Checksum(p.l4_protocol, first, pseudo_sum)) {
    case wire::L4Checksum::kAbsent:
    case wire::L4Checksum::kPartial:
      return true;
    case wire::L4Checksum::kNone:
    case wire::L4Checksum::kFilled:
      break;
  }
  // For IPv4 the kernel sums up the header as well, which is 0xffff, and makes a difference for zeros.
  constexpr uint32_t kHeaderSum = 0xffff;
  wire::SumChain sum(pseudo_sum + (family == Family::kIpv4 ? kHeaderSum : 0));
  packet::ForEachSegment(arena, p, p.l4_offset,
                         [&](std::span<uint8_t> piece) { sum.Add(piece); });
  return wire::Fold(sum.sum()) == 0xffff;
}

}  // namespace sluice::stages
