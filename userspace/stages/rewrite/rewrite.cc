#include "stages/rewrite/rewrite.h"

#include <array>

#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/partial_checksum.h"

namespace sluice::stages {

using packet::Packet;

namespace {

// A reassembled datagram is never partial: its sender has completed it before cutting it up.
bool HasChecksum(const Packet& p) {
  return p.l4_offset != 0 && !p.Has(packet::kFlagFragment) && p.fragment_size == 0 &&
         wire::L4ChecksumOffset(p.l4_protocol) != 0;
}

bool Complete(const packet::FrameArena& arena, Packet& p, uint32_t pseudo_sum) {
  const std::span<uint8_t> first(p.l4(), p.segment_length - p.l4_offset);
  if (wire::ClassifyL4Checksum(p.l4_protocol, first, pseudo_sum) != wire::L4Checksum::kPartial) {
    return false;
  }
  std::array<std::span<const uint8_t>, packet::kMaxSegments> rest;
  size_t pieces = 0;
  packet::ForEachSegment(arena, p, p.l4_offset, [&](std::span<uint8_t> piece) {
    if (pieces > 0) rest[pieces - 1] = piece;
    ++pieces;
  });
  wire::CompleteL4Checksum(p.l4_protocol, first, {rest.data(), pieces - 1});
  return true;
}

}  // namespace

bool CompletePartialChecksum4(const packet::FrameArena& arena, Packet& p) {
  if (!HasChecksum(p)) return false;
  return Complete(arena, p, wire::Ipv4View(p.l3()).PseudoSum());
}

bool CompletePartialChecksum6(const packet::FrameArena& arena, Packet& p) {
  if (!HasChecksum(p) || p.Has(packet::kFlagRoutingHeader)) return false;
  const uint32_t l4_length = p.length - p.l4_offset;
  return Complete(arena, p, wire::Ipv6View(p.l3()).PseudoSum(p.l4_protocol, l4_length));
}

}  // namespace sluice::stages
