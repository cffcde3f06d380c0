// NAT: ICMP errors about translated flows, outside and inside
// (nf_nat_icmp_reply_translation, nf_nat_icmpv6_reply_translation).
#include <optional>
#include <span>

#include "base/reason.h"
#include "stages/nat/outer_headers.h"
#include "stages/nat/translate.h"
#include "tables/flow_owner.h"
#include "wire/checksum.h"
#include "wire/ipv4.h"
#include "wire/ipv6_extensions.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::Packet;
using packet::Verdict;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;

namespace {

constexpr size_t kIcmpHeader = 8;
constexpr uint32_t kBothDone = tables::kFlowSourceNatDone | tables::kFlowDestinationNatDone;

// The sum over the ICMP message, with ICMPv6's pseudo header.
uint64_t MessageSum(const FrameArena& arena, const Packet& p, const Headers& outer) {
  const uint32_t at = p.l4_offset;
  wire::SumChain chain;
  packet::ForEachSegment(arena, p, at, [&](std::span<uint8_t> piece) { chain.Add(piece); });
  uint64_t sum = chain.sum();
  if (outer.family == Family::kIpv6) {
    sum += wire::PseudoHeaderSum(Ipv6::FromWire(outer.ip + 8), Ipv6::FromWire(outer.ip + 24),
                                 wire::kProtocolIcmpv6, p.length - at);
  }
  return sum;
}

void FillChecksum(const FrameArena& arena, const Packet& p, const Headers& outer) {
  StoreBe16(outer.l4 + 2, 0);
  StoreBe16(outer.l4 + 2, wire::Checksum(MessageSum(arena, p, outer)));
}

// The headers of the quoted packet, as far as they are there. Empty when not even the IP header is.
std::optional<Headers> QuotedHeaders(const Headers& outer, uint8_t protocol) {
  const std::span<uint8_t> quote(outer.l4 + kIcmpHeader, outer.l4_size - kIcmpHeader);
  Headers h;
  h.ip = quote.data();
  h.family = outer.family;
  h.protocol = protocol;
  size_t l4_at = 0;
  if (outer.family == Family::kIpv4) {
    if (quote.size() < 20) return {};
    l4_at = size_t{quote[0] & 0xfu} * 4;
    if (l4_at < 20) return {};
    if ((LoadBe16(quote.data() + 6) & 0x1fff) != 0) return h;  // a later fragment
  } else {
    if (quote.size() < 40) return {};
    const wire::Ipv6Chain chain = wire::WalkIpv6Chain(quote);
    if (!chain.HasL4()) return h;
    l4_at = chain.l4_offset;
  }
  if (l4_at > quote.size()) return {};
  h.l4 = quote.data() + l4_at;
  h.l4_size = quote.size() - l4_at;
  h.l4_total = outer.l4_total - kIcmpHeader - l4_at;
  return h;
}

bool IsRedirect(const Headers& outer) {
  return outer.l4[0] ==
         (outer.family == Family::kIpv4 ? wire::kIcmpRedirect : wire::kIcmpv6Redirect);
}

bool SameEnd(const End& a, const End& b) { return a.address == b.address && a.number == b.number; }

}  // namespace

Verdict TranslateIcmpError(const FrameArena& arena, Packet& p, const Flow& flow,
                           FlowDirection direction, NatManip manip) {
  const Headers outer = OuterHeaders(p);
  const Verdict drop = Verdict::Drop(DropReason::kNatUntranslatable);
  if (outer.l4 == nullptr || outer.l4_size < kIcmpHeader) return drop;
  if (wire::Fold(MessageSum(arena, p, outer)) != 0xffff) return drop;
  // It names a gateway for an address that its receiver does not talk to.
  if (IsRedirect(outer) &&
      ((flow.status & kBothDone) != kBothDone || flow.Has(tables::kFlowNatMask))) {
    return drop;
  }
  if (!NeedsTranslation(flow, direction, manip)) return Verdict::Continue();
  const FlowTuple& other = flow.tuple(Opposite(direction));
  const auto quoted = QuotedHeaders(outer, other.protocol);
  if (!quoted || !HasRoom(*quoted)) return drop;

  // The quoted packet went the other way: its other end is the one to change.
  const NatManip quoted_end =
      manip == NatManip::kSource ? NatManip::kDestination : NatManip::kSource;
  WriteEnd(*quoted, quoted_end, EndOf(other, quoted_end));
  FinishSctp(arena, p, *quoted);
  FillChecksum(arena, p, outer);
  WriteEnd(outer, manip, EndOfInverse(other, manip));
  return Verdict::Continue();
}

bool RestoreIcmpError(const FrameArena& arena, Packet& p, const Flow& flow,
                      FlowDirection direction) {
  const Headers outer = OuterHeaders(p);
  const FlowTuple& tuple = flow.tuple(direction);
  const auto quoted = QuotedHeaders(outer, tuple.protocol);
  if (!quoted || !HasRoom(*quoted)) return true;  // nothing was written either
  // It arrived quoting an answer to this direction's packets, and addressed to that one's sender.
  const End quoted_source = EndOfInverse(tuple, NatManip::kSource);
  const End quoted_destination = EndOfInverse(tuple, NatManip::kDestination);
  End destination_now = ReadEnd(*quoted, NatManip::kDestination, quoted_destination);
  // An ICMP identifier belongs to both ends and tells nothing.
  if (tables::IsIcmp(tuple.protocol)) destination_now.number = quoted_destination.number;
  if (!SameEnd(destination_now, quoted_destination)) {
    // Past POSTROUTING: the router that sent the error is no longer named in it.
    return false;
  }
  const End source_now = ReadEnd(*quoted, NatManip::kSource, quoted_source);
  if (SameEnd(source_now, quoted_source)) return true;
  WriteEnd(*quoted, NatManip::kSource, quoted_source);
  FinishSctp(arena, p, *quoted);
  WriteEnd(outer, NatManip::kDestination, {tuple.destination, 0});
  FillChecksum(arena, p, outer);
  return true;
}

}  // namespace sluice::stages
