// Which connection a packet belongs to: its tuple, and the tuple of answers to it.
//
// Rules of the kernel's nf_ct_get_tuple and nf_ct_invert_tuple (net/netfilter/nf_conntrack_core.c)
// and the pkt_to_tuple functions of net/netfilter/nf_conntrack_proto_*.c:
//   TCP, UDP, UDP-Lite, SCTP   ports
//   ICMP, ICMPv6               identifier, type and code
//   GRE                        nothing; version 1 (PPTP): the call ID
//   others                     nothing but addresses (DCCP too, as the kernel does since 6.17)
//
// Constant cost; reads at most eight bytes of the transport header, all in the first segment.
#ifndef SLUICE_STAGES_CONNTRACK_TUPLE_H_
#define SLUICE_STAGES_CONNTRACK_TUPLE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "packet/packet.h"
#include "tables/flow.h"

namespace sluice::stages {

// Of a whole packet that Parse has accepted. False when it has none: a fragment, no transport
// header (or a cut one), GRE version 1 that is not PPTP. ICMP errors have one here, which no flow
// has.
bool MakeTuple(const packet::Packet& p, tables::FlowTuple& tuple);

// The packet that an ICMP error quotes.
struct QuotedPacket {
  tables::FlowTuple tuple;
  size_t l4_offset = 0;  // from the quoted IP header
};
// `quote` begins at the quoted IP header. False as above.
bool ParseQuote(std::span<const uint8_t> quote, Family family, QuotedPacket& out);

// The tuple of the other direction. False for what has no answers (ICMP types without a reply).
bool InvertTuple(const tables::FlowTuple& tuple, tables::FlowTuple& inverse);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_TUPLE_H_
