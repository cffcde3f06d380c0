#include "stages/fragment/fragment6.h"

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "base/worker_counters.h"
#include "wire/ethernet.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"

namespace sluice::stages {

using packet::Packet;

namespace {

constexpr uint32_t kFragmentHeader = 8;
constexpr uint32_t kLeastMtu = 1280;

// Bytes behind the fragment header that a piece may have.
uint32_t Room(const Packet& whole, uint32_t headers, uint32_t mtu,
              const packet::FrameArena& arena) {
  uint32_t most = std::max(std::min<uint32_t>(mtu, whole.fragment_size), kLeastMtu);
  most = std::min(most, arena.chunk_size() - packet::kHeadroom -
                            static_cast<uint32_t>(wire::kEthernetHeaderSize));
  return std::max(most, headers + kFragmentHeader + 8) - headers - kFragmentHeader;
}

}  // namespace

MtuDecision DecideMtu6(const Packet& p, uint32_t mtu) {
  const uint32_t length = p.l3_length();
  const uint32_t largest = p.fragment_size;
  if (length > mtu && (largest == 0 || largest > mtu)) return MtuDecision::kTooBig;
  if (largest == 0 || (length <= mtu && length <= largest)) return MtuDecision::kSend;
  return largest > mtu ? MtuDecision::kTooBig : MtuDecision::kFragment;
}

Ipv6Fragmenter::Unfragmentable Ipv6Fragmenter::Measure(const Packet& whole) {
  const uint8_t* const ip = whole.l3();
  const uint32_t there = whole.segment_length - whole.l3_offset;
  Unfragmentable u{.length = wire::Ipv6View::kSize, .next_header_at = 6};
  bool routing = false;
  for (;;) {
    const uint8_t next = ip[u.next_header_at];
    const bool belongs = next == wire::kProtocolHopByHop || next == wire::kProtocolRouting ||
                         (next == wire::kProtocolDestinationOptions && !routing);
    if (!belongs || u.length + 8 > there) return u;
    const uint32_t size = (ip[u.length + 1] + 1u) * 8;
    if (u.length + size > there) return u;
    routing = routing || next == wire::kProtocolRouting;
    u.next_header_at = u.length;
    u.length += size;
  }
}

Ipv6Fragmenter::Ipv6Fragmenter(const Packet& whole, uint32_t mtu, packet::Outbox& outbox)
    : whole_(whole),
      outbox_(outbox),
      headers_(Measure(whole)),
      identification_(
          packet::FragmentNoteOf(outbox.pool().arena(), whole.frame).identification),
      sizes_(outbox.pool().arena(), whole, whole.l3_offset + headers_.length,
             Room(whole, headers_.length, mtu, outbox.pool().arena())),
      reader_(outbox.pool().arena(), whole, whole.l3_offset + headers_.length) {}

bool Ipv6Fragmenter::Next(Packet& piece) {
  PieceSizes sizes = sizes_;
  const uint32_t at = sizes.position() - whole_.l3_offset - headers_.length;
  const uint32_t n = sizes.Next();
  const uint32_t length = headers_.length + kFragmentHeader + n;
  if (!outbox_.NewPacket(wire::kEthernetHeaderSize + length, piece)) return false;
  sizes_ = sizes;

  piece.l3_offset = wire::kEthernetHeaderSize;
  piece.l4_protocol = whole_.l4_protocol;
  piece.out = whole_.out;
  piece.route_id = whole_.route_id;
  piece.mark = whole_.mark;
  piece.flags = packet::kFlagFragment;
  if (at == 0) {
    piece.in = whole_.in;
    if (whole_.l4_offset != 0) {
      const uint32_t l4 = whole_.l4_offset - whole_.l3_offset + kFragmentHeader;
      piece.l4_offset = static_cast<uint16_t>(piece.l3_offset + l4);
    }
  } else {
    piece.flags |= packet::kFlagLaterFragment;
    piece.generated = static_cast<uint8_t>(GeneratedKind::kFragment);
  }

  uint8_t* const ip = piece.l3();
  std::memcpy(ip, whole_.l3(), headers_.length);
  uint8_t* const header = ip + headers_.length;
  header[0] = ip[headers_.next_header_at];
  header[1] = 0;
  StoreBe16(header + 2, static_cast<uint16_t>((at & ~7u) | (sizes_.done() ? 0 : 1)));
  StoreBe32(header + 4, identification_);
  ip[headers_.next_header_at] = wire::kProtocolFragment;
  wire::Ipv6Mutable(ip).set_payload_length(
      static_cast<uint16_t>(length - wire::Ipv6View::kSize));
  reader_.Read(header + kFragmentHeader, n);
  return true;
}

}  // namespace sluice::stages
