// One end (source or destination) of a packet's headers: read and replaced, with all checksums that
// cover it. Internal to the NAT stage; the outer headers and those quoted in ICMP errors alike.
//
// Rules and their order: *_manip_pkt in net/netfilter/nf_nat_proto.c.
#ifndef SLUICE_STAGES_NAT_HEADER_END_H_
#define SLUICE_STAGES_NAT_HEADER_END_H_

#include <cstddef>
#include <cstdint>

#include "base/address.h"
#include "stages/nat/nat.h"
#include "tables/flow.h"
#include "tables/flow_owner.h"

namespace sluice::stages {

// Where headers are. `l4` is null when there is none (a later fragment): addresses only.
struct Headers {
  uint8_t* ip = nullptr;
  Family family = Family::kIpv4;
  uint8_t protocol = 0;
  uint8_t* l4 = nullptr;
  size_t l4_size = 0;             // bytes at l4 that may be touched: those in the first segment
  size_t l4_total = 0;            // ... and those behind it
  bool partial_checksum = false;  // L4's holds the pseudo header's sum only
};

// What an end is to be: an address, and the port or ICMP identifier.
struct End {
  Ipv6 address;
  uint16_t number = 0;
};

// The end that a packet with this tuple has.
inline End EndOf(const tables::FlowTuple& t, NatManip end) {
  if (end == NatManip::kSource) return {t.source, t.source_port};
  return {t.destination, tables::IsIcmp(t.protocol) ? t.source_port : t.destination_port};
}
// ... and that one with the tuple turned round has.
inline End EndOfInverse(const tables::FlowTuple& t, NatManip end) {
  return EndOf(t, end == NatManip::kSource ? NatManip::kDestination : NatManip::kSource);
}

// The end that stands there. The number is that of `like` where the header has none.
End ReadEnd(const Headers& h, NatManip end, const End& like);

// Up to where an L4 header is rewritten, if it is there.
size_t HeaderSize(uint8_t protocol);

// Whether the headers are long enough for WriteEnd: 8 bytes of a known L4, which is what an ICMP
// error quotes at least, and if there is a checksum behind them, that in the first segment too.
bool HasRoom(const Headers& h);

// Replaces one end. Checksums are updated where their field is in reach; SCTP's is left to the
// caller. HasRoom() must hold.
void WriteEnd(const Headers& h, NatManip end, const End& to);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_HEADER_END_H_
