// A reassembled datagram in the pieces it arrived in: for the kernel, which is given packets as
// they came (it then reassembles them itself, for its own rules).
//
// Each piece is a new packet with the link header of the whole and its `in`. One of them stands for
// the whole in the counters, the others have been counted as merged when they became part of it:
//
//   Refragment(p, outbox, [&](Packet& piece, bool first) {
//     if (outbox.Punt(piece, reason, /*copy=*/!first)) return;
//     first ? Drop(piece, kPuntFailed) : FreePacket(pool, piece);
//   });
//   FreePacket(pool, p);
#ifndef SLUICE_STAGES_FRAGMENT_REFRAGMENT_H_
#define SLUICE_STAGES_FRAGMENT_REFRAGMENT_H_

#include <cstdint>
#include <cstring>

#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment6.h"
#include "wire/ethernet.h"
#include "wire/ipv4.h"

namespace sluice::stages {

inline void SetDontFragment(packet::Packet& piece) {
  wire::Ipv4Mutable ip(piece.l3());
  ip.set_fragment_field(ip.fragment_field() | wire::kIpv4DontFragment);
  ip.FillChecksum();
}

// `whole` (its fragment_size is set) stays the caller's. The visitor owns each piece. Returns false
// when a piece found no free frame: the rest is missing then, and if none was made the caller has
// nothing to punt.
template <class Visitor>
bool Refragment(const packet::Packet& whole, packet::Outbox& outbox, Visitor&& visit) {
  const auto cut = [&](auto&& fragmenter) {
    for (bool first = true; !fragmenter.done(); first = false) {
      packet::Packet piece;
      if (!fragmenter.Next(piece)) return false;
      std::memcpy(piece.data, whole.data, wire::kEthernetHeaderSize);
      piece.in = whole.in;
      piece.generated = 0;
      piece.flags |= whole.flags & packet::kFlagLinkMulticast;
      if (whole.Has(packet::kFlagFragmentPmtu)) SetDontFragment(piece);
      visit(piece, first);
    }
    return true;
  };
  if (whole.l3()[0] >> 4 == 4) return cut(Ipv4Fragmenter(whole, whole.fragment_size, outbox));
  return cut(Ipv6Fragmenter(whole, whole.fragment_size, outbox));
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FRAGMENT_REFRAGMENT_H_
