#include "stages/icmp/redirect.h"

#include <algorithm>
#include <cstring>

#include "base/worker_counters.h"
#include "wire/ethernet.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"
#include "wire/ndp.h"

namespace sluice::stages {

bool BuildRedirect6(const packet::Packet& offending, const Ipv6& source, const Ipv6& target,
                    const std::optional<Mac>& target_mac, packet::Outbox& outbox,
                    packet::Packet& message) {
  constexpr uint32_t kMaxPacket = 1280;
  constexpr uint32_t kFixed = 40;            // type to destination address
  constexpr uint32_t kQuoteOptionHeader = 8;  // type, length, six reserved bytes
  const uint32_t mac_option = target_mac ? wire::kNdLinkLayerOptionSize : 0;
  const uint32_t before_quote =
      wire::Ipv6View::kSize + kFixed + mac_option + kQuoteOptionHeader;
  const uint32_t quote = std::min(offending.l3_length(), kMaxPacket - before_quote) & ~7u;
  const uint32_t icmp_length = before_quote - wire::Ipv6View::kSize + quote;
  if (!outbox.NewPacket(wire::kEthernetHeaderSize + wire::Ipv6View::kSize + icmp_length, message)) {
    return false;
  }
  message.l3_offset = wire::kEthernetHeaderSize;
  message.l4_offset = wire::kEthernetHeaderSize + wire::Ipv6View::kSize;
  message.l4_protocol = wire::kProtocolIcmpv6;
  message.generated = static_cast<uint8_t>(GeneratedKind::kRedirect);

  const wire::Ipv6View ip(offending.l3());
  wire::EmitIpv6Header({message.l3(), message.l3_length()},
                       {.payload_length = static_cast<uint16_t>(icmp_length),
                        .next_header = wire::kProtocolIcmpv6,
                        .hop_limit = 255,
                        .source = source,
                        .destination = ip.source()});
  uint8_t* p = message.l4();
  std::memset(p, 0, icmp_length - quote);
  p[0] = wire::kIcmpv6Redirect;
  target.ToWire(p + 8);
  ip.destination().ToWire(p + 24);
  p += kFixed;
  if (target_mac) {
    p[0] = wire::kNdTargetLinkLayer;
    p[1] = 1;
    target_mac->ToWire(p + 2);
    p += wire::kNdLinkLayerOptionSize;
  }
  p[0] = wire::kNdRedirectedHeader;
  p[1] = static_cast<uint8_t>((kQuoteOptionHeader + quote) / 8);
  packet::CopyOut(outbox.pool().arena(), offending, offending.l3_offset, p + kQuoteOptionHeader,
                  quote);
  wire::FillIcmpv6Checksum(source, ip.source(), {message.l4(), icmp_length});
  return true;
}

}  // namespace sluice::stages
