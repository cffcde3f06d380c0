#include "stages/reject/tcp_reset.h"

#include <cstring>
#include <span>

#include "base/worker_counters.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::stages {

using packet::Packet;

namespace {

uint32_t PseudoSum(const Packet& p, Family family, uint32_t length) {
  if (family == Family::kIpv4) return wire::Ipv4View(p.l3()).PseudoSum();
  return wire::Ipv6View(p.l3()).PseudoSum(wire::kProtocolTcp, length);
}

void EmitHeader(const Packet& segment, Family family, ResetBy by, uint8_t ttl, Packet& reset) {
  constexpr uint8_t kEcnBits = 3;
  const auto tos = [by](uint8_t theirs) {
    return static_cast<uint8_t>(by == ResetBy::kTcp ? theirs & ~kEcnBits : 0);
  };
  constexpr uint16_t kLength = wire::TcpView::kMinSize;
  const std::span<uint8_t> out(reset.l3(), reset.l3_length());
  if (family == Family::kIpv4) {
    const wire::Ipv4View ip(segment.l3());
    wire::EmitIpv4Header(out, {.tos = tos(ip.tos()),
                               .payload_length = kLength,
                               .fragment_field = wire::kIpv4DontFragment,
                               .ttl = ttl,
                               .protocol = wire::kProtocolTcp,
                               .source = ip.destination(),
                               .destination = ip.source()});
  } else {
    const wire::Ipv6View ip(segment.l3());
    wire::EmitIpv6Header(out, {.traffic_class = tos(ip.traffic_class()),
                               .payload_length = kLength,
                               .next_header = wire::kProtocolTcp,
                               .hop_limit = ttl,
                               .source = ip.destination(),
                               .destination = ip.source()});
  }
}

}  // namespace

bool MayBeReset(const packet::FrameArena& arena, const Packet& p, Family family) {
  if (p.l4_protocol != wire::kProtocolTcp || p.l4_offset == 0) return false;
  if (p.Has(packet::kFlagFragment)) return false;
  const auto tcp = wire::TcpView::Parse({p.l4(), static_cast<size_t>(p.segment_length) - p.l4_offset});
  if (!tcp || tcp->rst()) return false;
  const uint32_t length = p.length - p.l4_offset;
  wire::SumChain sum(PseudoSum(p, family, length));
  packet::ForEachSegment(arena, p, p.l4_offset,
                         [&](std::span<uint8_t> piece) { sum.Add(piece); });
  return wire::Checksum(sum.sum()) == 0;
}

bool BuildReset(const Packet& segment, Family family, ResetBy by, uint8_t ttl,
                packet::Outbox& outbox, Packet& reset) {
  const uint32_t header = family == Family::kIpv4 ? uint32_t{wire::Ipv4View::kMinSize}
                                                  : uint32_t{wire::Ipv6View::kSize};
  constexpr uint32_t kTcp = wire::TcpView::kMinSize;
  if (!outbox.NewPacket(wire::kEthernetHeaderSize + header + kTcp, reset)) return false;
  reset.l3_offset = wire::kEthernetHeaderSize;
  reset.l4_offset = static_cast<uint16_t>(wire::kEthernetHeaderSize + header);
  reset.l4_protocol = wire::kProtocolTcp;
  reset.generated = static_cast<uint8_t>(GeneratedKind::kTcpReset);
  EmitHeader(segment, family, by, ttl, reset);

  const wire::TcpView tcp(segment.l4());
  uint8_t* const out = reset.l4();
  std::memset(out, 0, kTcp);
  StoreBe16(out, tcp.destination_port());
  StoreBe16(out + 2, tcp.source_port());
  out[12] = kTcp / 4 << 4;
  out[13] = wire::kTcpRst;
  if (tcp.ack()) {
    StoreBe32(out + 4, tcp.acknowledgment());
  } else {
    const uint32_t payload =
        segment.length - segment.l4_offset - static_cast<uint32_t>(tcp.header_length());
    StoreBe32(out + 8, tcp.sequence() + payload + (tcp.syn() ? 1 : 0) + (tcp.fin() ? 1 : 0));
    out[13] |= wire::kTcpAck;
  }
  const uint64_t sum = uint64_t{PseudoSum(reset, family, kTcp)} + wire::Sum({out, kTcp});
  StoreBe16(out + 16, wire::Checksum(sum));
  return true;
}

}  // namespace sluice::stages
