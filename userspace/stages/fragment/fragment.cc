#include "stages/fragment/fragment.h"

#include <algorithm>
#include <cstring>

#include "base/worker_counters.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"
#include "wire/ipv4_options.h"

namespace sluice::stages {

using packet::Packet;

namespace {

constexpr uint32_t kLeastMtu = 68;  // that IPv4 knows

// Options without the copied bit are in the first piece only (ip_options_fragment).
void BlankUncopiedOptions(uint8_t* ipv4_header) {
  wire::Ipv4OptionIterator options(wire::Ipv4View(ipv4_header).options());
  while (const auto option = options.Next()) {
    if ((option->kind & wire::kIpv4OptionCopiedBit) != 0) continue;
    uint8_t* const start = ipv4_header + wire::Ipv4View::kMinSize + option->offset;
    std::fill(start, start + option->bytes.size(), wire::kIpv4OptionNop);
  }
}

// Bytes of payload that a piece may have.
uint32_t Room(const Packet& whole, uint32_t header, uint32_t mtu, const packet::FrameArena& arena) {
  uint32_t most = std::max(mtu, kLeastMtu);
  if (whole.fragment_size != 0) most = std::min<uint32_t>(most, whole.fragment_size);
  most = std::min(most, arena.chunk_size() - packet::kHeadroom -
                            static_cast<uint32_t>(wire::kEthernetHeaderSize));
  return std::max(most, header + 8) - header;  // fragments may have had fewer options
}

}  // namespace

MtuDecision DecideMtu4(const Packet& p, uint32_t mtu) {
  const bool reassembled = p.fragment_size != 0;
  if (!reassembled && p.l3_length() <= mtu) return MtuDecision::kSend;
  const uint32_t largest = reassembled ? p.fragment_size : p.l3_length();
  if (wire::Ipv4View(p.l3()).dont_fragment() && largest > mtu) return MtuDecision::kTooBig;
  return MtuDecision::kFragment;
}

Ipv4Fragmenter::Ipv4Fragmenter(const Packet& whole, uint32_t mtu, packet::Outbox& outbox)
    : whole_(whole),
      outbox_(outbox),
      header_(wire::Ipv4View(whole.l3()).header_length()),
      sizes_(outbox.pool().arena(), whole, whole.l3_offset + header_,
             Room(whole, header_, mtu, outbox.pool().arena())),
      reader_(outbox.pool().arena(), whole, whole.l3_offset + header_) {}

bool Ipv4Fragmenter::Next(Packet& piece) {
  PieceSizes sizes = sizes_;
  const uint32_t at = sizes.position() - whole_.l3_offset - header_;
  const uint32_t n = sizes.Next();
  if (!outbox_.NewPacket(wire::kEthernetHeaderSize + header_ + n, piece)) return false;
  sizes_ = sizes;

  piece.l3_offset = wire::kEthernetHeaderSize;
  piece.l4_offset = static_cast<uint16_t>(piece.l3_offset + header_);
  piece.l4_protocol = whole_.l4_protocol;
  piece.out = whole_.out;
  piece.route_id = whole_.route_id;
  piece.mark = whole_.mark;
  piece.flags = packet::kFlagFragment;
  if (at == 0) {
    piece.in = whole_.in;
  } else {
    piece.flags |= packet::kFlagLaterFragment;
    piece.generated = static_cast<uint8_t>(GeneratedKind::kFragment);
  }

  std::memcpy(piece.l3(), whole_.l3(), header_);
  reader_.Read(piece.l4(), n);

  const wire::Ipv4View original(whole_.l3());
  // Of a packet that ends beyond 65535 the offset runs over into the flags, as in ip_frag_next.
  auto field = static_cast<uint16_t>((original.fragment_offset() + at) / 8);
  if (!sizes_.done() || original.more_fragments()) field |= wire::kIpv4MoreFragments;
  // Pieces as they came lose it, in Linux (ip_fraglist_prepare).
  if (whole_.Has(packet::kFlagFragmentPmtu) && !sizes.as_it_came()) {
    field |= wire::kIpv4DontFragment;
  }
  wire::Ipv4Mutable ip(piece.l3());
  ip.set_total_length(static_cast<uint16_t>(header_ + n));
  ip.set_fragment_field(field);
  // A packet that is a later piece itself has been through this already.
  if (at != 0 && original.fragment_offset() == 0 && whole_.Has(packet::kFlagOptions)) {
    BlankUncopiedOptions(piece.l3());
  }
  ip.FillChecksum();
  return true;
}

}  // namespace sluice::stages
