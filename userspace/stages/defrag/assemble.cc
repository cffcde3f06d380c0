#include "stages/defrag/assemble.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/byte_order.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"

namespace sluice::stages {

using packet::FrameArena;
using packet::FrameIndex;
using packet::FramePool;
using packet::Packet;

namespace {

constexpr uint32_t kMostBytes = 65535;
constexpr uint32_t kFragmentHeader = 8;
constexpr uint16_t kOfAFragment = packet::kFlagFragment | packet::kFlagLaterFragment |
                                  packet::kFlagFragmentHeader | packet::kFlagRoutingHeader;

FrameIndex LastFrame(const FrameArena& arena, FrameIndex frame, uint32_t count) {
  while (--count > 0) frame = packet::LinkOf(arena, frame).next;
  return frame;
}

// Hangs the data of the fragment in `frame` behind `tail`, which becomes its last frame.
void Append(FramePool& pool, Packet& whole, FrameIndex frame, FrameIndex& tail) {
  const FrameArena& arena = pool.arena();
  const Packet fragment = packet::HeldOf(arena, frame).packet;
  const uint32_t data_at = FragmentOf(arena, frame).data_at;
  uint8_t segments = fragment.segment_count;
  packet::SegmentLink link;
  if (fragment.segment_length > data_at) {
    link.next = frame;
    link.data_offset = static_cast<uint16_t>(fragment.data + data_at - arena.Chunk(frame));
    link.length = static_cast<uint16_t>(fragment.segment_length - data_at);
  } else {  // nothing but headers in its first segment
    link = packet::LinkOf(arena, frame);
    pool.Free(frame);
    --segments;
  }
  link.starts_fragment = true;
  packet::LinkOf(arena, tail) = link;
  tail = LastFrame(arena, link.next, segments);
  whole.segment_count = static_cast<uint8_t>(whole.segment_count + segments);
  whole.length += fragment.length - data_at;
}

// Moves bytes forward until the L4 header is in the first segment.
void GatherL4(FramePool& pool, Packet& whole) {
  const FrameArena& arena = pool.arena();
  if (whole.l4_offset == 0) return;
  const auto begin = static_cast<uint32_t>(whole.data - arena.Chunk(whole.frame));
  const uint32_t want = std::min(
      {whole.l4_offset + kGatheredL4Bytes, whole.length, arena.chunk_size() - begin});
  packet::FragmentNote& note = packet::FragmentNoteOf(arena, whole.frame);
  while (whole.segment_length < want && whole.segment_count > 1) {
    packet::SegmentLink& link = packet::LinkOf(arena, whole.frame);
    const uint32_t n = std::min<uint32_t>(want - whole.segment_length, link.length);
    const uint32_t at = whole.segment_length - whole.l4_offset;
    if (link.starts_fragment && at % 8 == 0 && at > 0 && at < kGatheredL4Bytes) {
      note.early_starts |= static_cast<uint8_t>(1u << at / 8);
    }
    std::memcpy(whole.data + whole.segment_length, arena.Chunk(link.next) + link.data_offset, n);
    whole.segment_length = static_cast<uint16_t>(whole.segment_length + n);
    link.data_offset = static_cast<uint16_t>(link.data_offset + n);
    link.length = static_cast<uint16_t>(link.length - n);
    link.starts_fragment = false;
    if (link.length > 0) continue;
    const FrameIndex empty = link.next;
    if (whole.segment_count > 2) link = packet::LinkOf(arena, empty);
    pool.Free(empty);
    --whole.segment_count;
  }
}

void FinishIpv4(Packet& whole, const Datagram& d) {
  wire::Ipv4Mutable ip(whole.l3());
  ip.set_total_length(static_cast<uint16_t>(whole.l3_length()));
  ip.set_tos(ip.tos() | d.EcnToSet());
  ip.set_fragment_field(d.probes_mtu() ? wire::kIpv4DontFragment : 0);
  ip.FillChecksum();
  if (d.probes_mtu()) whole.flags |= packet::kFlagFragmentPmtu;
}

void FinishIpv6(Packet& whole, const Datagram& d, uint32_t named_at, uint32_t header_at) {
  whole.data[named_at] = whole.data[header_at];
  std::memmove(whole.data + kFragmentHeader, whole.data, header_at);
  whole.data += kFragmentHeader;
  whole.length -= kFragmentHeader;
  whole.segment_length -= kFragmentHeader;

  wire::Ipv6Mutable ip(whole.l3());
  ip.set_payload_length(static_cast<uint16_t>(whole.l3_length() - wire::Ipv6View::kSize));
  ip.set_traffic_class(ip.traffic_class() | d.EcnToSet());
  const wire::Ipv6Chain chain = wire::WalkIpv6Chain(std::span<const uint8_t>(
      whole.l3(), static_cast<size_t>(whole.segment_length - whole.l3_offset)));
  whole.l4_protocol = chain.protocol;
  whole.l4_offset = 0;
  if (chain.HasL4()) whole.l4_offset = static_cast<uint16_t>(whole.l3_offset + chain.l4_offset);
  if (chain.is_fragment) whole.flags |= packet::kFlagFragment;  // there was a second header
  if (chain.status == wire::ChainStatus::kFragment) whole.flags |= packet::kFlagLaterFragment;
  if (chain.has_routing) whole.flags |= packet::kFlagRoutingHeader;
}

}  // namespace

bool MayAssemble(const FrameArena& arena, const Datagram& d) {
  if (!d.EcnIsValid()) return false;
  const Packet& first = packet::HeldOf(arena, d.first()).packet;
  const HeldFragment& note = FragmentOf(arena, d.first());
  if (d.IsIpv4()) return note.data_at - first.l3_offset + d.length() <= kMostBytes;
  const uint32_t headers = note.fragment_header_at - first.l3_offset -
                           static_cast<uint32_t>(wire::Ipv6View::kSize);
  return headers + d.length() <= kMostBytes;
}

Packet Assemble(FramePool& pool, const Datagram& d, IfaceSlot in) {
  const FrameArena& arena = pool.arena();
  const FrameIndex first = d.first();
  Packet whole = packet::HeldOf(arena, first).packet;
  const HeldFragment note = FragmentOf(arena, first);
  whole.in = in;
  whole.flags &= static_cast<uint16_t>(~kOfAFragment);
  whole.fragment_size = static_cast<uint16_t>(std::min(d.largest(), kMostBytes));

  FrameIndex tail = LastFrame(arena, first, whole.segment_count);
  for (FrameIndex frame = packet::HeldOf(arena, first).next; frame != packet::kNoFrame;) {
    const FrameIndex next = packet::HeldOf(arena, frame).next;
    Append(pool, whole, frame, tail);
    frame = next;
  }
  packet::FragmentNoteOf(arena, first) = {.identification = d.key().identification};
  if (d.IsIpv4()) {
    FinishIpv4(whole, d);
  } else {
    FinishIpv6(whole, d, note.next_header_at, note.fragment_header_at);
  }
  GatherL4(pool, whole);
  return whole;
}

}  // namespace sluice::stages
