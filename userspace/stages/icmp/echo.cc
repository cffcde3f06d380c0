#include "stages/icmp/echo.h"

#include <algorithm>

#include "base/worker_counters.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::stages {

using packet::Packet;

namespace {

uint64_t SumFromL4(const packet::FrameArena& arena, const Packet& p, uint32_t initial) {
  wire::SumChain chain(initial);
  packet::ForEachSegment(arena, p, p.l4_offset, [&](std::span<uint8_t> piece) {
    chain.Add(piece);
  });
  return chain.sum();
}

// The packet is Sluice's own from here on.
void BecomeReply(Packet& p) {
  p.in = IfaceSlot::None();
  p.flags = 0;
  p.generated = static_cast<uint8_t>(GeneratedKind::kEchoReply);
}

}  // namespace

bool IsEchoRequest4(const Packet& p) {
  return p.l4_protocol == wire::kProtocolIcmp && !p.Has(packet::kFlagFragment) &&
         !p.Has(packet::kFlagOptions) && !p.Has(packet::kFlagLinkMulticast) &&
         p.fragment_size == 0 && p.segment_length >= p.l4_offset + wire::IcmpView::kSize &&
         p.l4()[0] == wire::kIcmpEchoRequest;
}

bool IsEchoRequest6(const Packet& p) {
  return p.l4_protocol == wire::kProtocolIcmpv6 && !p.Has(packet::kFlagLinkMulticast) &&
         p.fragment_size == 0 && p.l4_offset == p.l3_offset + wire::Ipv6View::kSize &&
         p.segment_length >= p.l4_offset + wire::Icmpv6View::kSize &&
         p.l4()[0] == wire::kIcmpv6EchoRequest;
}

bool EchoChecksumIsRight4(const packet::FrameArena& arena, const Packet& p) {
  return wire::Fold(SumFromL4(arena, p, 0)) == 0xffff;
}

bool EchoChecksumIsRight6(const packet::FrameArena& arena, const Packet& p) {
  const wire::Ipv6View ip(p.l3());
  const uint32_t pseudo = ip.PseudoSum(wire::kProtocolIcmpv6, p.length - p.l4_offset);
  return wire::Fold(SumFromL4(arena, p, pseudo)) == 0xffff;
}

void MakeEchoReply4(Packet& p, uint8_t ttl, uint16_t ip_id) {
  wire::Ipv4Mutable ip(p.l3());
  const Ipv4 requester = ip.source();
  ip.set_source(ip.destination());
  ip.set_destination(requester);
  ip.set_ttl(ttl);
  ip.set_id(ip_id);
  ip.set_fragment_field(0);
  ip.FillChecksum();
  wire::TurnIntoEchoReply(p.l4());
  BecomeReply(p);
}

void MakeEchoReply6(Packet& p, uint8_t hop_limit) {
  wire::Ipv6Mutable ip(p.l3());
  const Ipv6 requester = ip.source();
  ip.set_source(ip.destination());
  ip.set_destination(requester);
  ip.set_hop_limit(hop_limit);
  ip.set_flow_label(0);
  wire::TurnIntoEchoReplyV6(p.l4());
  BecomeReply(p);
}

}  // namespace sluice::stages
