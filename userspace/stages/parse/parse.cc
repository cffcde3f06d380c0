#include "stages/parse/parse.h"

#include <span>

#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv4_options.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"

namespace sluice::stages {

using packet::Packet;
using packet::Verdict;

namespace {

std::span<const uint8_t> FirstPieceFromL3(const Packet& p) {
  return {p.data + p.l3_offset, static_cast<size_t>(p.segment_length - p.l3_offset)};
}

Verdict ParseIpv4(Packet& p, packet::FramePool& pool) {
  if (const auto bad = wire::CheckIpv4(FirstPieceFromL3(p), p.l3_length())) {
    return Verdict::Drop(*bad);
  }
  const wire::Ipv4View ip(p.l3());
  p.l4_offset = static_cast<uint16_t>(p.l3_offset + ip.header_length());
  p.l4_protocol = ip.protocol();
  if (ip.IsFragment()) p.flags |= packet::kFlagFragment;
  if (ip.IsLaterFragment()) p.flags |= packet::kFlagLaterFragment;
  if (ip.has_options()) {
    p.flags |= packet::kFlagOptions;
    const wire::Ipv4OptionsResult options = wire::CompileIpv4Options(ip);
    // Malformed ones too: the kernel routes first and then answers with a parameter problem.
    if (!options.valid || options.NeedsAction() || options.echoed) {
      p.flags |= packet::kFlagOptionsForKernel;
    }
  }
  packet::TrimPacket(pool, p, p.l3_offset + ip.total_length());
  return Verdict::Continue();
}

Verdict ParseIpv6(Packet& p, packet::FramePool& pool) {
  if (const auto bad = wire::CheckIpv6(FirstPieceFromL3(p), p.l3_length())) {
    return Verdict::Drop(*bad);
  }
  const wire::Ipv6View ip(p.l3());
  const bool maybe_jumbogram =
      ip.payload_length() == 0 && ip.next_header() == wire::kProtocolHopByHop;
  if (!maybe_jumbogram) {
    packet::TrimPacket(pool, p, static_cast<uint32_t>(p.l3_offset + ip.packet_length()));
  }
  if (ip.next_header() == wire::kProtocolHopByHop) {
    p.flags |= packet::kFlagOptions;
    const wire::HopByHopResult options = wire::CheckHopByHop(FirstPieceFromL3(p), p.l3_length());
    if (options.verdict == wire::HopByHopVerdict::kDrop) {
      return Verdict::Drop(DropReason::kIpv6Extension);
    }
    // Parameter problems, router alerts and jumbograms: rare, and the kernel knows what to do.
    if (options.verdict != wire::HopByHopVerdict::kOk || options.router_alert || options.jumbo ||
        options.other_action) {
      p.flags |= packet::kFlagOptionsForKernel;
    }
  }
  const wire::Ipv6Chain chain = wire::WalkIpv6Chain(FirstPieceFromL3(p));
  p.l4_protocol = chain.protocol;
  if (chain.HasL4()) p.l4_offset = static_cast<uint16_t>(p.l3_offset + chain.l4_offset);
  if (chain.is_fragment) p.flags |= packet::kFlagFragment;
  if (chain.has_fragment_header) p.flags |= packet::kFlagFragmentHeader;
  if (chain.status == wire::ChainStatus::kFragment) p.flags |= packet::kFlagLaterFragment;
  if (chain.has_routing) p.flags |= packet::kFlagRoutingHeader;
  return Verdict::Continue();
}

}  // namespace

ParseResult Parse(Packet& p, const tables::Interface& in, packet::FramePool& pool) {
  if (p.segment_length < wire::kEthernetHeaderSize) {
    return {Verdict::Drop(DropReason::kFrameTruncated)};
  }
  const wire::EthernetView ethernet(p.data);
  if (ethernet.IsMulticast()) {
    p.flags |= packet::kFlagLinkMulticast;
  } else if (ethernet.destination() != in.mac) {
    return {Verdict::Drop(DropReason::kNotForUs)};
  }
  p.l3_offset = wire::kEthernetHeaderSize;
  switch (ethernet.ether_type()) {
    case wire::kEtherTypeIpv4:
      return {ParseIpv4(p, pool), Protocol::kIpv4};
    case wire::kEtherTypeIpv6:
      if (!in.ipv6_enabled) return {Verdict::Drop(DropReason::kIpv6Disabled)};
      return {ParseIpv6(p, pool), Protocol::kIpv6};
    case wire::kEtherTypeArp:
      return {Verdict::Continue(), Protocol::kArp};
    default:
      return {Verdict::Drop(DropReason::kUnknownProtocol)};
  }
}

}  // namespace sluice::stages
