#include "stages/defrag/fragment_info.h"

#include <optional>

#include "base/byte_order.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"
#include "wire/protocol.h"

namespace sluice::stages {

using packet::Packet;

namespace {

constexpr uint32_t kFragmentHeader = 8;

uint32_t ExtensionSize(uint8_t protocol, const uint8_t* header) {
  if (protocol == wire::kProtocolFragment) return kFragmentHeader;
  if (protocol == wire::kProtocolAuthentication) return (header[1] + 2u) * 4;
  return (header[1] + 1u) * 8;
}

// From the packet's data to its first fragment header (find_prev_fhdr). False: there is none.
bool FindFragmentHeader(const Packet& p, Fragment& f) {
  uint32_t named_at = p.l3_offset + 6u;
  uint32_t at = p.l3_offset + static_cast<uint32_t>(wire::Ipv6View::kSize);
  while (p.data[named_at] != wire::kProtocolFragment) {
    const uint8_t protocol = p.data[named_at];
    if (!wire::IsExtensionHeader(protocol) || at + 2 > p.segment_length) return false;
    named_at = at;
    at += ExtensionSize(protocol, p.data + at);
  }
  if (at + kFragmentHeader > p.segment_length) return false;
  f.next_header_at = static_cast<uint16_t>(named_at);
  f.fragment_header_at = static_cast<uint16_t>(at);
  return true;
}

// Does a first fragment end before its L4 header does (ipv6frag_thdr_truncated)? What cannot be
// followed to an L4 header is not said to.
bool EndsWithinHeaders(const Packet& p, uint32_t fragment_header_at) {
  uint32_t at = fragment_header_at;
  uint8_t protocol = wire::kProtocolFragment;
  while (wire::IsExtensionHeader(protocol)) {
    if (at + 4 > p.segment_length) return false;
    const uint8_t* const header = p.data + at;
    if (protocol == wire::kProtocolFragment && (LoadBe16(header + 2) & ~7) != 0) return false;
    at += ExtensionSize(protocol, header);
    protocol = header[0];
  }
  switch (protocol) {
    case wire::kProtocolNoNextHeader:
      return false;
    case wire::kProtocolTcp:
      return at + 20 > p.length;
    case wire::kProtocolUdp:
    case wire::kProtocolIcmpv6:
      return at + 8 > p.length;
    default:
      return at + 1 > p.length;
  }
}

}  // namespace

bool ReadFragment4(const Packet& p, Fragment& f) {
  const wire::Ipv4View ip(p.l3());
  if (!ip.IsFragment()) return false;
  f.key.version = 4;
  f.key.source.lo = ip.source().value;
  f.key.destination.lo = ip.destination().value;
  f.key.identification = ip.id();
  f.key.protocol = ip.protocol();
  f.begin = ip.fragment_offset();
  f.end = f.begin + ip.payload_length();
  f.more = ip.more_fragments();
  f.dont_fragment = ip.dont_fragment();
  f.ecn = ip.ecn();
  f.data_at = p.l3_offset + uint32_t{ip.header_length()};
  if (f.more) f.end &= ~7u;
  f.size = ip.header_length() + (f.end - f.begin);
  return true;
}

bool ReadFragment6(const Packet& p, Fragment& f) {
  const wire::Ipv6View ip(p.l3());
  if (ip.payload_length() == 0 || !FindFragmentHeader(p, f)) return false;
  if (EndsWithinHeaders(p, f.fragment_header_at)) return false;
  const uint8_t* const header = p.data + f.fragment_header_at;
  const uint16_t field = LoadBe16(header + 2);
  f.key.version = 6;
  f.key.source = ip.source();
  f.key.destination = ip.destination();
  if (f.key.destination.IsLinkLocal() || f.key.destination.IsMulticast()) f.key.link = p.in;
  f.key.identification = LoadBe32(header + 4);
  f.begin = field & 0xfff8u;
  f.more = (field & 1) != 0;
  f.data_at = f.fragment_header_at + kFragmentHeader;
  f.end = f.begin + (p.length - f.data_at);  // Parse has trimmed it to its payload length
  f.ecn = ip.ecn();
  f.size = p.l3_length();
  return true;
}

}  // namespace sluice::stages
