#include "stages/neighbor/ndp_input.h"

#include <optional>
#include <span>

#include "stages/neighbor/generated.h"
#include "wire/icmpv6.h"
#include "wire/ipv6.h"
#include "wire/ndp.h"

namespace sluice::stages {
namespace {

using packet::Verdict;
using tables::Interface;

constexpr Ipv6 kAllNodes(0xff02'0000'0000'0000ull, 1);

const tables::Ipv6InterfaceAddress* FindOwn(const Interface& interface, const Ipv6& address) {
  for (const auto& own : interface.addresses6) {
    if (own.address == address) return &own;
  }
  return nullptr;
}

// The subnet-router anycast address of one of our subnets (RFC 4291 section 2.6.1), which routers
// answer for; the kernel has them for prefixes shorter than 127 bits.
bool IsSubnetAnycast(const Interface& interface, const Ipv6& address) {
  if (!interface.forwarding6) return false;
  for (const auto& own : interface.addresses6) {
    if (own.prefix_length >= 127) continue;
    const Ipv6 subnet = Ipv6Prefix{own.address, own.prefix_length}.Canonical().address;
    if (subnet == address && !address.IsUnspecified()) return true;
  }
  return false;
}

Verdict Answer(const Mac& mac, const Interface& interface,
               const wire::NeighborAdvertisementFields& fields, InputContext& c) {
  const auto failed =
      SendGenerated(c.outbox, c.counters, interface.slot, GeneratedKind::kNeighborAdvertisement,
                    wire::kMaxNdFrameSize, [&](std::span<uint8_t> out) {
                      return wire::EmitNeighborAdvertisementFrame(out, mac, interface.mac, fields);
                    });
  return failed ? Verdict::Drop(*failed) : Verdict::Local();
}

Verdict HandleSolicitation(const wire::Ipv6View& ip, const wire::NdView& nd,
                           const Interface& interface, InputContext& c) {
  const Ipv6 target = nd.target();
  const tables::Ipv6InterfaceAddress* own = FindOwn(interface, target);
  if (own == nullptr) {
    const bool proxied = interface.forwarding6 && interface.proxy_ndp;
    if (proxied || IsSubnetAnycast(interface, target)) return Verdict::Punt(PuntReason::kProxy);
    return Verdict::Drop(DropReason::kNdIgnored);
  }
  if (own->tentative) return Verdict::Punt(PuntReason::kNeighborDiscovery);

  const Ipv6 source = ip.source();
  wire::NeighborAdvertisementFields fields;
  fields.source = fields.target = target;
  fields.router = interface.forwarding6;
  if (source.IsUnspecified()) {
    fields.destination = kAllNodes;
    fields.link_layer = interface.mac;
    fields.override_flag = true;
    return Answer(wire::MulticastMac(kAllNodes), interface, fields, c);
  }

  const bool to_group = ip.destination().IsMulticast();
  const std::optional<Mac> sender_mac = nd.source_link_layer();
  if (sender_mac) {
    c.Learn({.address = source,
             .mac = *sender_mac,
             .slot = interface.slot,
             .flags = kEventHasMac | kEventWeakOverride | kEventOverride | kEventCreate});
  }
  const Mac* known = c.machine.Resolve(interface.slot, source, c.now);
  if (known == nullptr && !sender_mac) return Verdict::Punt(PuntReason::kNeighborDiscovery);
  fields.destination = source;
  fields.solicited = true;
  fields.override_flag = to_group;
  if (to_group) fields.link_layer = interface.mac;
  return Answer(known != nullptr ? *known : *sender_mac, interface, fields, c);
}

Verdict HandleAdvertisement(packet::Packet& p, const wire::NdView& nd, const Interface& interface,
                            InputContext& c) {
  if (FindOwn(interface, nd.target()) != nullptr) {
    return Verdict::Punt(PuntReason::kNeighborDiscovery);
  }
  uint16_t flags = kEventWeakOverride | kEventSetRouter | kEventNotFailed;
  if (nd.solicited()) flags |= kEventReachable;
  if (nd.override_flag()) flags |= kEventOverride;
  if (nd.from_router()) flags |= kEventRouter;
  const std::optional<Mac> mac = nd.target_link_layer();
  if (mac) flags |= kEventHasMac;
  c.Learn(
      {.address = nd.target(), .mac = mac.value_or(Mac{}), .slot = interface.slot, .flags = flags});
  return LocalWithCopy(p, c.outbox);
}

}  // namespace

Verdict HandleNdp(packet::Packet& p, InputContext& c) {
  if (p.l4_offset == 0 || p.l4_offset >= p.segment_length || p.Has(packet::kFlagLaterFragment) ||
      !wire::IsNeighborDiscovery(p.l4()[0])) {
    return Verdict::Continue();
  }
  if (p.Has(packet::kFlagFragment) || p.fragment_size != 0) return Verdict::Drop(DropReason::kNdInvalid);
  const wire::Ipv6View ip(p.l3());
  const size_t end = p.l3_offset + ip.packet_length();
  if (end > p.segment_length || end <= p.l4_offset) return Verdict::Drop(DropReason::kNdInvalid);

  const std::span<const uint8_t> message(p.l4(), end - p.l4_offset);
  if (wire::CheckNd(ip.source(), ip.destination(), ip.hop_limit(), message) !=
      wire::NdError::kNone) {
    return Verdict::Drop(DropReason::kNdInvalid);
  }
  const auto nd = wire::NdView::Parse(message);
  if (!nd) return Verdict::Drop(DropReason::kNdInvalid);
  const Interface& interface = c.snapshot.at(p.in);
  switch (nd->type()) {
    case wire::kIcmpv6NeighborSolicitation:
      return HandleSolicitation(ip, *nd, interface, c);
    case wire::kIcmpv6NeighborAdvertisement:
      return HandleAdvertisement(p, *nd, interface, c);
    default:
      return Verdict::Punt(PuntReason::kNeighborDiscovery);
  }
}

}  // namespace sluice::stages
