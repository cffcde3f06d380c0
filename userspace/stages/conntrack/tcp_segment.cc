#include "stages/conntrack/tcp_segment.h"

#include <algorithm>
#include <cstddef>

#include "base/byte_order.h"
#include "tables/flow.h"
#include "wire/tcp.h"

namespace sluice::stages {
namespace {

constexpr uint8_t kMaxScale = 14;  // RFC 7323 section 2.3
constexpr size_t kSackBlock = 8;

SegmentKind KindOf(uint8_t flags) {
  if ((flags & wire::kTcpRst) != 0) return SegmentKind::kRst;
  if ((flags & wire::kTcpSyn) != 0) {
    return (flags & wire::kTcpAck) != 0 ? SegmentKind::kSynAck : SegmentKind::kSyn;
  }
  if ((flags & wire::kTcpFin) != 0) return SegmentKind::kFin;
  return (flags & wire::kTcpAck) != 0 ? SegmentKind::kAck : SegmentKind::kNone;
}

// PSH, ECE and CWR may go with anything. A lone FIN, Christmas trees and null scans are no TCP.
bool FlagsMakeSense(uint8_t flags) {
  switch (flags & ~(wire::kTcpPsh | wire::kTcpEce | wire::kTcpCwr)) {
    case wire::kTcpSyn:
    case wire::kTcpSyn | wire::kTcpUrg:
    case wire::kTcpSyn | wire::kTcpAck:
    case wire::kTcpRst:
    case wire::kTcpRst | wire::kTcpAck:
    case wire::kTcpFin | wire::kTcpAck:
    case wire::kTcpFin | wire::kTcpAck | wire::kTcpUrg:
    case wire::kTcpAck:
    case wire::kTcpAck | wire::kTcpUrg:
      return true;
    default:
      return false;
  }
}

}  // namespace

bool ReadTcpSegment(const packet::Packet& p, TcpSegment& s) {
  const size_t there = p.segment_length - p.l4_offset;
  if (there < wire::TcpView::kMinSize) return false;
  const wire::TcpView tcp(p.l4());
  const size_t header = tcp.header_length();
  if (header < wire::TcpView::kMinSize || header > there) return false;
  if (!FlagsMakeSense(tcp.flags())) return false;
  s.sequence = tcp.sequence();
  s.acknowledgment = tcp.acknowledgment();
  s.window = tcp.window();
  s.flags = tcp.flags();
  s.kind = KindOf(s.flags);
  s.options = tcp.options();
  const auto payload = p.length - p.l4_offset - static_cast<uint32_t>(header);
  s.end = s.sequence + payload + (tcp.syn() ? 1 : 0) + (tcp.fin() ? 1 : 0);
  return true;
}

TcpSynOptions ReadSynOptions(const TcpSegment& segment) {
  TcpSynOptions result;
  wire::TcpOptionIterator options(segment.options);
  while (const auto option = options.Next()) {
    if (option->kind == wire::kTcpOptionSackPermitted && option->bytes.size() == 2) {
      result.flags |= tables::kTcpSackPermitted;
    } else if (option->kind == wire::kTcpOptionWindowScale && option->bytes.size() == 3) {
      result.flags |= tables::kTcpWindowScale;
      result.scale = std::min(option->bytes[2], kMaxScale);
    }
  }
  return result;
}

uint32_t HighestSack(const TcpSegment& segment, uint32_t acknowledgment) {
  // Nearly all segments have none, or two NOPs and a timestamp.
  if (segment.options.empty() ||
      (segment.options.size() == 12 && LoadBe32(segment.options.data()) == 0x0101'080a)) {
    return acknowledgment;
  }
  wire::TcpOptionIterator options(segment.options);
  while (const auto option = options.Next()) {
    const std::span<const uint8_t> blocks = option->bytes.subspan(2);
    if (option->kind != wire::kTcpOptionSack || blocks.empty() || blocks.size() % kSackBlock != 0) {
      continue;
    }
    for (size_t at = 0; at < blocks.size(); at += kSackBlock) {
      const uint32_t edge = LoadBe32(blocks.data() + at + 4);
      if (SequenceAfter(edge, acknowledgment)) acknowledgment = edge;
    }
    break;
  }
  return acknowledgment;
}

}  // namespace sluice::stages
