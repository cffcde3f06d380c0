#include "wire/ndp.h"

#include <algorithm>

#include "wire/ethernet.h"
#include "wire/ipv6.h"

namespace sluice::wire {
namespace {

constexpr size_t kNeighborMessageSize = 24;

bool IsSolicitedNode(const Ipv6& address) { return address == address.SolicitedNode(); }

// Whether all options are well formed, and those with link-layer addresses of Ethernet's length
// where this kind of message has use for them.
bool OptionsAreValid(const NdView& nd) {
  NdOptionIterator it(nd.options());
  while (const auto option = it.Next()) {
    const bool in_use =
        option->type == kNdSourceLinkLayer
            ? nd.type() == kIcmpv6NeighborSolicitation || nd.type() == kIcmpv6RouterSolicitation ||
                  nd.type() == kIcmpv6RouterAdvertisement
            : option->type == kNdTargetLinkLayer &&
                  (nd.type() == kIcmpv6NeighborAdvertisement || nd.type() == kIcmpv6Redirect);
    if (in_use && option->bytes.size() != kNdLinkLayerOptionSize) return false;
  }
  return !it.malformed();
}

NdError CheckSolicitation(const NdView& nd, const Ipv6& source, const Ipv6& destination) {
  if (nd.target().IsMulticast()) return NdError::kTarget;
  if (!source.IsUnspecified()) return NdError::kNone;
  if (!IsSolicitedNode(destination)) return NdError::kDestination;
  return nd.source_link_layer() ? NdError::kLinkLayerFromUnspecified : NdError::kNone;
}

NdError CheckRedirect(const NdView& nd, const Ipv6& source) {
  if (!source.IsLinkLocal()) return NdError::kSource;
  if (nd.redirect_destination().IsMulticast()) return NdError::kDestination;
  // The target is a router (link-local) or the destination itself.
  const bool target_ok = nd.target() == nd.redirect_destination() || nd.target().IsLinkLocal();
  return target_ok ? NdError::kNone : NdError::kTarget;
}

// The part that NS and NA share. Returns the message without its checksum, empty without room.
std::span<uint8_t> WriteNeighborMessage(std::span<uint8_t> out, uint8_t type, const Ipv6& target,
                                        const std::optional<Mac>& link_layer, uint8_t option_type) {
  const size_t size = kNeighborMessageSize + (link_layer ? kNdLinkLayerOptionSize : 0);
  if (out.size() < size) return {};
  uint8_t* p = out.data();
  std::fill(p, p + 8, uint8_t{0});
  p[0] = type;
  target.ToWire(p + 8);
  if (link_layer) {
    p[24] = option_type;
    p[25] = 1;
    link_layer->ToWire(p + 26);
  }
  return out.first(size);
}

// Ethernet and IPv6 before a message that `emit` writes.
template <class Fields>
size_t EmitFrame(std::span<uint8_t> out, const Mac& destination_mac, const Mac& source_mac,
                 const Fields& f, size_t (*emit)(std::span<uint8_t>, const Fields&)) {
  constexpr size_t kHeaders = kEthernetHeaderSize + Ipv6View::kSize;
  if (out.size() < kHeaders) return 0;
  const size_t size = emit(out.subspan(kHeaders), f);
  if (size == 0) return 0;
  EmitEthernet(out, destination_mac, source_mac, kEtherTypeIpv6);
  EmitIpv6Header(out.subspan(kEthernetHeaderSize), {.payload_length = static_cast<uint16_t>(size),
                                                    .next_header = kProtocolIcmpv6,
                                                    .hop_limit = 255,
                                                    .source = f.source,
                                                    .destination = f.destination});
  return kHeaders + size;
}

}  // namespace

NdError CheckNd(const Ipv6& source, const Ipv6& destination, uint8_t hop_limit,
                std::span<const uint8_t> message) {
  if (message.empty()) return NdError::kTooShort;
  if (!IsNeighborDiscovery(message[0])) return NdError::kNotNd;
  const auto nd = NdView::Parse(message);
  if (!nd) return NdError::kTooShort;
  if (!Icmpv6ChecksumIsRight(source, destination, message)) return NdError::kChecksum;
  if (hop_limit != 255) return NdError::kHopLimit;
  if (nd->code() != 0) return NdError::kCode;
  if (!OptionsAreValid(*nd)) return NdError::kOptions;
  switch (nd->type()) {
    case kIcmpv6NeighborSolicitation:
      return CheckSolicitation(*nd, source, destination);
    case kIcmpv6NeighborAdvertisement:
      if (nd->target().IsMulticast()) return NdError::kTarget;
      return destination.IsMulticast() && nd->solicited() ? NdError::kDestination : NdError::kNone;
    case kIcmpv6RouterSolicitation:
      return source.IsUnspecified() && nd->source_link_layer() ? NdError::kLinkLayerFromUnspecified
                                                               : NdError::kNone;
    case kIcmpv6RouterAdvertisement:
      return source.IsLinkLocal() ? NdError::kNone : NdError::kSource;
    default:
      return CheckRedirect(*nd, source);
  }
}

size_t EmitNeighborSolicitation(std::span<uint8_t> out, const NeighborSolicitationFields& f) {
  const auto message = WriteNeighborMessage(out, kIcmpv6NeighborSolicitation, f.target,
                                            f.link_layer, kNdSourceLinkLayer);
  if (message.empty()) return 0;
  FillIcmpv6Checksum(f.source, f.destination, message);
  return message.size();
}

size_t EmitNeighborAdvertisement(std::span<uint8_t> out, const NeighborAdvertisementFields& f) {
  const auto message = WriteNeighborMessage(out, kIcmpv6NeighborAdvertisement, f.target,
                                            f.link_layer, kNdTargetLinkLayer);
  if (message.empty()) return 0;
  message[4] = static_cast<uint8_t>((f.router ? 0x80 : 0) | (f.solicited ? 0x40 : 0) |
                                    (f.override_flag ? 0x20 : 0));
  FillIcmpv6Checksum(f.source, f.destination, message);
  return message.size();
}

size_t EmitNeighborSolicitationFrame(std::span<uint8_t> out, const Mac& destination_mac,
                                     const Mac& source_mac, const NeighborSolicitationFields& f) {
  return EmitFrame(out, destination_mac, source_mac, f, &EmitNeighborSolicitation);
}

size_t EmitNeighborAdvertisementFrame(std::span<uint8_t> out, const Mac& destination_mac,
                                      const Mac& source_mac, const NeighborAdvertisementFields& f) {
  return EmitFrame(out, destination_mac, source_mac, f, &EmitNeighborAdvertisement);
}

}  // namespace sluice::wire
