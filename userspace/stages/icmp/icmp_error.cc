#include "stages/icmp/icmp_error.h"

#include <algorithm>

#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::stages {

using packet::Packet;

namespace {

constexpr uint32_t kMaxError4 = 576;   // RFC 1812: as much as fits without exceeding this
constexpr uint32_t kMaxError6 = 1280;  // RFC 4443: the minimum IPv6 MTU

// icmp_pointers: what counts as an error, and unassigned types as well as unknown ones do.
constexpr bool CountsAsIcmpError(uint8_t type) {
  constexpr uint32_t kUnassigned = 1u << 1 | 1u << 2 | 1u << 6 | 1u << 7 | 1u << 9 | 1u << 10;
  constexpr uint8_t kMaxKnown = 18;  // NR_ICMP_TYPES
  return type > kMaxKnown || (kUnassigned >> type & 1) != 0 || wire::IsIcmpError(type);
}

uint8_t* L4Of(const Packet& message, size_t ip_size) { return message.l3() + ip_size; }

// Space for an IP packet of `ip_length` bytes behind a blank Ethernet header.
bool NewIpPacket(packet::Outbox& outbox, uint32_t ip_length, Packet& message) {
  if (!outbox.NewPacket(wire::kEthernetHeaderSize + ip_length, message)) return false;
  message.l3_offset = wire::kEthernetHeaderSize;
  message.generated = static_cast<uint8_t>(GeneratedKind::kIcmpError);
  return true;
}

}  // namespace

std::optional<IcmpError> ErrorFor4(DropReason reason, uint32_t mtu) {
  switch (reason) {
    case DropReason::kNoRoute:
      return IcmpError{wire::kIcmpUnreachable, wire::kIcmpNetUnreachable};
    case DropReason::kRouteUnreachable:
    case DropReason::kNeighborFailed:
    case DropReason::kNatExhausted:  // the kernel says nothing, users then wait
      return IcmpError{wire::kIcmpUnreachable, wire::kIcmpHostUnreachable};
    case DropReason::kRouteProhibit:
      return IcmpError{wire::kIcmpUnreachable, wire::kIcmpFiltered};
    case DropReason::kTtlExpired:
      return IcmpError{wire::kIcmpTimeExceeded, wire::kIcmpTtlExceeded};
    case DropReason::kFragmentTimeout:
      return IcmpError{wire::kIcmpTimeExceeded, wire::kIcmpReassemblyTimeout};
    case DropReason::kFragmentationNeeded:
      return IcmpError{wire::kIcmpUnreachable, wire::kIcmpFragmentationNeeded,
                       wire::IcmpRestMtu(static_cast<uint16_t>(mtu))};
    default:
      return {};
  }
}

std::optional<IcmpError> ErrorFor6(DropReason reason, uint32_t mtu) {
  switch (reason) {
    case DropReason::kNoRoute:
    case DropReason::kRouteUnreachable:  // ip6_rt_init_dst_reject makes no difference
      return IcmpError{wire::kIcmpv6Unreachable, wire::kIcmpv6NoRoute};
    case DropReason::kRouteProhibit:
      return IcmpError{wire::kIcmpv6Unreachable, wire::kIcmpv6Prohibited};
    case DropReason::kLinkLocal:
      return IcmpError{wire::kIcmpv6Unreachable, wire::kIcmpv6BeyondScope};
    case DropReason::kNeighborFailed:
    case DropReason::kNatExhausted:
      return IcmpError{wire::kIcmpv6Unreachable, wire::kIcmpv6AddressUnreachable};
    case DropReason::kTtlExpired:
      return IcmpError{wire::kIcmpv6TimeExceeded, wire::kIcmpv6HopLimitExceeded};
    case DropReason::kFragmentTimeout:
      return IcmpError{wire::kIcmpv6TimeExceeded, wire::kIcmpv6ReassemblyTimeout};
    case DropReason::kPacketTooBig:
      return IcmpError{wire::kIcmpv6PacketTooBig, 0, mtu};
    default:
      return {};
  }
}

bool MayBeAnswered4(const Packet& p) {
  if (p.Has(packet::kFlagLinkMulticast) || p.Has(packet::kFlagLaterFragment)) return false;
  if (p.l4_protocol != wire::kProtocolIcmp) return true;
  if (p.segment_length < p.l4_offset + 1u) return false;
  return !CountsAsIcmpError(p.l4()[0]);
}

bool MayBeAnswered6(const Packet& p) {
  const wire::Ipv6View ip(p.l3());
  if (ip.source().IsUnspecified() || ip.source().IsMulticast()) return false;
  if (p.Has(packet::kFlagLinkMulticast)) return false;
  if (p.l4_protocol != wire::kProtocolIcmpv6) return true;
  if (p.Has(packet::kFlagLaterFragment)) return true;  // is_ineligible: no ICMPv6 header to see
  if (p.l4_offset == 0 || p.segment_length < p.l4_offset + 1u) return false;
  return !wire::IsIcmpv6Error(p.l4()[0]);
}

bool BuildError4(const Packet& offending, const IcmpError& error, Ipv4 source, uint8_t ttl,
                 uint16_t ip_id, uint32_t mtu, packet::Outbox& outbox, Packet& message) {
  constexpr uint32_t kHeaders = wire::Ipv4View::kMinSize + wire::IcmpView::kSize;
  const uint32_t room = std::min(mtu, kMaxError4);
  if (room <= kHeaders + wire::Ipv4View::kMinSize) return false;  // nothing worth quoting fits
  const uint32_t quote = std::min(offending.l3_length(), room - kHeaders);
  if (!NewIpPacket(outbox, kHeaders + quote, message)) return false;

  const wire::Ipv4View ip(offending.l3());
  constexpr uint8_t kTosMask = 0x1e;                  // IPTOS_TOS_MASK
  constexpr uint8_t kInternetControl = 0xc0;          // IPTOS_PREC_INTERNETCONTROL
  const wire::Ipv4Fields header{
      .tos = static_cast<uint8_t>((ip.tos() & kTosMask) | kInternetControl),
      .payload_length = static_cast<uint16_t>(wire::IcmpView::kSize + quote),
      .id = ip_id,
      .ttl = ttl,
      .protocol = wire::kProtocolIcmp,
      .source = source,
      .destination = ip.source()};
  wire::EmitIpv4Header({message.l3(), message.l3_length()}, header);
  uint8_t* const icmp = L4Of(message, wire::Ipv4View::kMinSize);
  message.l4_offset = static_cast<uint16_t>(message.l3_offset + wire::Ipv4View::kMinSize);
  message.l4_protocol = wire::kProtocolIcmp;
  uint8_t* const body = icmp + wire::IcmpView::kSize;
  packet::CopyOut(outbox.pool().arena(), offending, offending.l3_offset, body, quote);
  wire::EmitIcmp({icmp, wire::IcmpView::kSize + quote}, error.type, error.code, error.rest,
                 {body, quote});
  return true;
}

bool BuildError6(const Packet& offending, const IcmpError& error, const Ipv6& source,
                 uint8_t hop_limit, packet::Outbox& outbox, Packet& message) {
  constexpr uint32_t kHeaders = wire::Ipv6View::kSize + wire::Icmpv6View::kSize;
  const uint32_t quote = std::min(offending.l3_length(), kMaxError6 - kHeaders);
  if (!NewIpPacket(outbox, kHeaders + quote, message)) return false;

  const wire::Ipv6View ip(offending.l3());
  const wire::Ipv6Fields header{
      .payload_length = static_cast<uint16_t>(wire::Icmpv6View::kSize + quote),
      .next_header = wire::kProtocolIcmpv6,
      .hop_limit = hop_limit,
      .source = source,
      .destination = ip.source()};
  wire::EmitIpv6Header({message.l3(), message.l3_length()}, header);
  uint8_t* const icmp = L4Of(message, wire::Ipv6View::kSize);
  message.l4_offset = static_cast<uint16_t>(message.l3_offset + wire::Ipv6View::kSize);
  message.l4_protocol = wire::kProtocolIcmpv6;
  uint8_t* const body = icmp + wire::Icmpv6View::kSize;
  packet::CopyOut(outbox.pool().arena(), offending, offending.l3_offset, body, quote);
  wire::EmitIcmpv6({icmp, wire::Icmpv6View::kSize + quote}, source, ip.source(), error.type,
                   error.code, error.rest, {body, quote});
  return true;
}

}  // namespace sluice::stages
