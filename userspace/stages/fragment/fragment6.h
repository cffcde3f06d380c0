// IPv6 fragmentation on the way out, of datagrams that were reassembled on the way in (a router
// fragments nothing else: RFC 8200 section 5), as Linux' ip6_fragment does it: never larger than
// they arrived, in the pieces they arrived in if those fit.
//
// The fragment header goes behind what ip6_find_1stfragopt counts as unfragmentable: hop-by-hop
// options, routing headers, and destination options unless a routing header came before (the home
// address option makes no difference here). The identification is the one it arrived with; the
// kernel takes a new one.
#ifndef SLUICE_STAGES_FRAGMENT_FRAGMENT6_H_
#define SLUICE_STAGES_FRAGMENT_FRAGMENT6_H_

#include <cstdint>

#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment_starts.h"

namespace sluice::stages {

// ip6_pkt_too_big and ip6_finish_output.
MtuDecision DecideMtu6(const packet::Packet& p, uint32_t mtu);

// Used like Ipv4Fragmenter. `mtu` is at least 1280; `whole` has a fragment_size.
class Ipv6Fragmenter {
 public:
  Ipv6Fragmenter(const packet::Packet& whole, uint32_t mtu, packet::Outbox& outbox);

  bool done() const { return sizes_.done(); }
  bool Next(packet::Packet& piece);

 private:
  struct Unfragmentable {
    uint32_t length;          // from the IPv6 header
    uint32_t next_header_at;  // of its last header
  };
  static Unfragmentable Measure(const packet::Packet& whole);

  const packet::Packet& whole_;
  packet::Outbox& outbox_;
  const Unfragmentable headers_;
  const uint32_t identification_;
  PieceSizes sizes_;
  SegmentReader reader_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FRAGMENT_FRAGMENT6_H_
