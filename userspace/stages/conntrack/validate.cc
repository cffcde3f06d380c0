#include "stages/conntrack/validate.h"

#include <cstddef>
#include <span>

#include "base/byte_order.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/partial_checksum.h"
#include "wire/protocol.h"
#include "wire/udp.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::Packet;

namespace {

uint32_t PseudoSum(const Packet& p, uint8_t protocol) {
  const uint32_t length = p.length - p.l4_offset;
  if (p.l3()[0] >> 4 == 4) {
    const wire::Ipv4View ip(p.l3());
    return wire::PseudoHeaderSum(ip.source(), ip.destination(), protocol, length);
  }
  return wire::Ipv6View(p.l3()).PseudoSum(protocol, length);
}

// Over the first `length` bytes of the transport part.
bool SumIsRight(const Packet& p, const FrameArena& arena, uint32_t pseudo_sum, uint32_t length) {
  wire::SumChain chain(pseudo_sum);
  packet::ForEachSegment(arena, p, p.l4_offset, [&](std::span<uint8_t> piece) {
    if (piece.size() > length) piece = piece.first(length);
    length -= static_cast<uint32_t>(piece.size());
    chain.Add(piece);
  });
  return wire::Fold(chain.sum()) == 0xffff;
}

bool ChecksumIsRight(const Packet& p, const FrameArena& arena) {
  const uint32_t length = p.length - p.l4_offset;
  if (p.l4_protocol == wire::kProtocolIcmp) return SumIsRight(p, arena, 0, length);
  const uint32_t pseudo_sum = PseudoSum(p, p.l4_protocol);
  const std::span<const uint8_t> first(p.l4(), static_cast<size_t>(p.segment_length - p.l4_offset));
  switch (wire::ClassifyL4Checksum(p.l4_protocol, first, pseudo_sum)) {
    case wire::L4Checksum::kAbsent:
    case wire::L4Checksum::kPartial:
      return true;
    case wire::L4Checksum::kNone:
    case wire::L4Checksum::kFilled:
      break;
  }
  return SumIsRight(p, arena, pseudo_sum, length);
}

// RFC 3828: the length field says how much the checksum covers, 0 is all; it is never absent.
bool UdpLiteIsSound(const Packet& p, const FrameArena& arena, bool verify_checksum) {
  const uint32_t length = p.length - p.l4_offset;
  const wire::UdpView udp(p.l4());
  const uint32_t covered = udp.length() == 0 ? length : udp.length();
  if (covered < wire::UdpView::kSize || covered > length || !udp.has_checksum()) return false;
  return !verify_checksum || SumIsRight(p, arena, PseudoSum(p, p.l4_protocol), covered);
}

}  // namespace

bool TransportIsSound(const Packet& p, const FrameArena& arena, bool verify_checksum) {
  const size_t in_first = p.segment_length - p.l4_offset;
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
      if (in_first < 20) return false;
      break;
    case wire::kProtocolUdp:
      if (in_first < wire::UdpView::kSize) return false;
      if (!wire::UdpView(p.l4()).LengthFits(p.length - p.l4_offset)) return false;
      break;
    case wire::kProtocolUdpLite:
      if (in_first < wire::UdpView::kSize) return false;
      return UdpLiteIsSound(p, arena, verify_checksum);
    case wire::kProtocolSctp:
      // Not verified here, but the kernel does (sctp_error), and gathers the header for it.
      if (verify_checksum) packet::GatherL4(arena, p, 12);
      return true;
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      break;
    default:
      return true;
  }
  return !verify_checksum || ChecksumIsRight(p, arena);
}

}  // namespace sluice::stages
