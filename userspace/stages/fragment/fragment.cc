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

// Options without the copied bit are in the first piece only (ip_options_fragment).
void BlankUncopiedOptions(uint8_t* ipv4_header) {
  wire::Ipv4OptionIterator options(wire::Ipv4View(ipv4_header).options());
  while (const auto option = options.Next()) {
    if ((option->kind & wire::kIpv4OptionCopiedBit) != 0) continue;
    uint8_t* const start = ipv4_header + wire::Ipv4View::kMinSize + option->offset;
    std::fill(start, start + option->bytes.size(), wire::kIpv4OptionNop);
  }
}

}  // namespace

Ipv4Fragmenter::Ipv4Fragmenter(const Packet& whole, uint32_t mtu, packet::Outbox& outbox)
    : whole_(whole),
      outbox_(outbox),
      header_(wire::Ipv4View(whole.l3()).header_length()),
      payload_(whole.l3_length() - header_),
      // 68 bytes is the least MTU IPv4 knows; a frame's chunk is the other bound (jumbo MTUs).
      room_(std::min(std::max<uint32_t>(mtu, 68),
                     outbox.pool().arena().chunk_size() - packet::kHeadroom -
                         static_cast<uint32_t>(wire::kEthernetHeaderSize)) -
            header_) {}

bool Ipv4Fragmenter::Next(Packet& piece) {
  const uint32_t left = payload_ - at_;
  const uint32_t n = left <= room_ ? left : room_ & ~7u;
  if (!outbox_.NewPacket(wire::kEthernetHeaderSize + header_ + n, piece)) return false;

  piece.l3_offset = wire::kEthernetHeaderSize;
  piece.l4_offset = static_cast<uint16_t>(piece.l3_offset + header_);
  piece.l4_protocol = whole_.l4_protocol;
  piece.out = whole_.out;
  piece.route_id = whole_.route_id;
  piece.flags = packet::kFlagFragment;
  if (at_ == 0) {
    piece.in = whole_.in;
  } else {
    piece.flags |= packet::kFlagLaterFragment;
    piece.generated = static_cast<uint8_t>(GeneratedKind::kFragment);
  }

  std::memcpy(piece.l3(), whole_.l3(), header_);
  packet::CopyOut(outbox_.pool().arena(), whole_, whole_.l3_offset + header_ + at_, piece.l4(), n);

  const wire::Ipv4View original(whole_.l3());
  const bool last = left == n;
  // Of a packet that ends beyond 65535 the offset runs over into the flags, as in ip_frag_next.
  const auto offset = static_cast<uint16_t>((original.fragment_offset() + at_) / 8);
  const bool more = !last || original.more_fragments();
  wire::Ipv4Mutable ip(piece.l3());
  ip.set_total_length(static_cast<uint16_t>(header_ + n));
  ip.set_fragment_field(static_cast<uint16_t>(offset | (more ? wire::kIpv4MoreFragments : 0)));
  // A packet that is a later piece itself has been through this already.
  if (at_ != 0 && original.fragment_offset() == 0 && whole_.Has(packet::kFlagOptions)) {
    BlankUncopiedOptions(piece.l3());
  }
  ip.FillChecksum();
  at_ += n;
  return true;
}

}  // namespace sluice::stages
