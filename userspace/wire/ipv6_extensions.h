// IPv6 extension headers (RFC 8200 section 4): a bounded walk to the L4 header, and the check of
// hop-by-hop options that every router makes.
//
// A router needs neither to forward by destination. WalkIpv6Chain is for what looks at L4: ECMP by
// ports, partial checksums, echo replies, ICMP errors. It passes hop-by-hop, routing, fragment,
// destination options and authentication headers, and stops at the first other header, at ESP, at
// No Next Header, at a later fragment, after kMaxExtensionHeaders, or where the bytes end.
//
// CheckHopByHop follows Linux' ip6_parse_tlv with default sysctls (6.1 to 6.18): at most 8 options
// besides padding, at most 7 bytes of padding in a row, PadN of zeros, unknown options by their two
// action bits, Router Alert of length 2, Jumbo Payload (RFC 2675) only with payload length 0.
#ifndef SLUICE_WIRE_IPV6_EXTENSIONS_H_
#define SLUICE_WIRE_IPV6_EXTENSIONS_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "base/byte_order.h"
#include "wire/ipv6.h"

namespace sluice::wire {

inline constexpr size_t kMaxExtensionHeaders = 8;
inline constexpr size_t kMaxHopByHopOptions = 8;

enum class ChainStatus : uint8_t {
  kOk,         // protocol and l4_offset are good
  kFragment,   // a later fragment: protocol is known, but what stands at l4_offset is data
  kTruncated,  // the bytes end within a header
  kTooMany,    // more than kMaxExtensionHeaders
};

struct Ipv6Chain {
  ChainStatus status = ChainStatus::kOk;
  uint8_t protocol = 0;         // the first header that is not walked through
  uint16_t l4_offset = 0;       // from the start of the IPv6 header
  uint16_t next_header_at = 6;  // where `protocol` was named (ICMPv6 unrecognised next header)
  bool has_hop_by_hop = false;  // as the first extension header, the only legal place
  bool has_routing = false;     // with segments left: the destination is not the final one
  bool is_fragment = false;     // a fragment header that says so (atomic ones excepted)
  bool has_fragment_header = false;
  uint16_t fragment_header_at = 0;
  uint16_t fragment_offset = 0;  // bytes
  bool more_fragments = false;
  uint32_t fragment_id = 0;

  bool HasL4() const { return status == ChainStatus::kOk; }
};

// Out of line: the walk behind the first header.
Ipv6Chain WalkExtensionHeaders(std::span<const uint8_t> packet);

constexpr bool IsExtensionHeader(uint8_t protocol) {
  return protocol == kProtocolHopByHop || protocol == kProtocolRouting ||
         protocol == kProtocolFragment || protocol == kProtocolAuthentication ||
         protocol == kProtocolDestinationOptions;
}

// `packet` begins at an IPv6 header that Ipv6View::Parse accepts; only its first piece is read.
inline Ipv6Chain WalkIpv6Chain(std::span<const uint8_t> packet) {
  const uint8_t protocol = packet[6];
  if (!IsExtensionHeader(protocol)) {
    return {.protocol = protocol, .l4_offset = Ipv6View::kSize};
  }
  return WalkExtensionHeaders(packet);
}

enum class HopByHopVerdict : uint8_t {
  kOk,
  kDrop,              // silently
  kParameterProblem,  // drop and send ICMPv6 parameter problem with `code` and `pointer`
};

struct HopByHopResult {
  HopByHopVerdict verdict = HopByHopVerdict::kOk;
  uint8_t code = 0;      // 0: erroneous header field, 2: unrecognised option
  uint16_t pointer = 0;  // from the start of the IPv6 header
  bool router_alert = false;
  uint16_t router_alert_value = 0;
  bool jumbo = false;
  uint32_t jumbo_length = 0;  // what follows the IPv6 header
  bool other_action = false;  // IOAM or CALIPSO, for the kernel to act on
};

// `packet` begins at an IPv6 header whose next header is hop-by-hop; `length` counts all pieces
// from there.
HopByHopResult CheckHopByHop(std::span<const uint8_t> packet, size_t length);

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_IPV6_EXTENSIONS_H_
