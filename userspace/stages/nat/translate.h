// NAT: rewriting packets of translated flows, in both directions (net/netfilter/nf_nat_proto.c).
//
// PREROUTING translates destinations, POSTROUTING sources; in the reply direction each undoes what
// the other one did in the original direction. What a packet is made into follows from the flow's
// two tuples, never from what a rule says, so an established flow costs one test of its status.
//
// Checksums are updated incrementally (RFC 1624, equation 3): a wrong one stays wrong. IPv4 header;
// TCP, UDP (an absent one stays absent, zero is sent as 0xffff), UDP-Lite with their pseudo
// headers; ICMP and ICMPv6 identifiers; ICMPv6 with its pseudo header; SCTP's CRC32c over all
// segments, computed anew as the kernel does. A partial checksum (kFlagPartialChecksum: the field
// is the pseudo header's sum) only has its addresses replaced. GRE and all others: addresses only,
// as the kernel (DCCP, whose checksum covers them, is among those since Linux 6.17).
//
// Expects: Parse has filled in the offsets, fragments are reassembled; the transport header is in
// the first segment. What is cut short is dropped as kNatUntranslatable. Time: constant but for
// SCTP. Thread: the owner of the packet.
#ifndef SLUICE_STAGES_NAT_TRANSLATE_H_
#define SLUICE_STAGES_NAT_TRANSLATE_H_

#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/nat/nat.h"
#include "tables/flow.h"

namespace sluice::stages {

// Whether a packet of this direction is rewritten at this point at all.
inline bool NeedsTranslation(const tables::Flow& flow, tables::FlowDirection direction,
                             NatManip manip) {
  const bool source =
      (manip == NatManip::kSource) == (direction == tables::FlowDirection::kOriginal);
  return flow.Has(source ? tables::kFlowSourceNat : tables::kFlowDestinationNat);
}

// nf_nat_packet. Continue, or Drop(kNatUntranslatable) with the packet untouched.
packet::Verdict Translate(const packet::FrameArena& arena, packet::Packet& p,
                          const tables::Flow& flow, tables::FlowDirection direction,
                          NatManip manip);

// The same for an ICMP or ICMPv6 error about the flow (ct state related; `direction` is
// conntrack's: the one whose tuple the quoted packet answers): nf_nat_icmp_reply_translation.
// Rewrites the quoted headers as far as they are quoted, with their checksums, then the outer
// header; the ICMP checksum is verified and made anew. Redirects about translated flows are
// dropped.
packet::Verdict TranslateIcmpError(const packet::FrameArena& arena, packet::Packet& p,
                                   const tables::Flow& flow, tables::FlowDirection direction,
                                   NatManip manip);

// Makes the packet what it was when it arrived, at whichever point of its way: for the kernel,
// which translates it itself. False, and nothing changed, when that is not possible: an ICMP error
// that has passed POSTROUTING with its outer source replaced.
bool RestoreOriginal(const packet::FrameArena& arena, packet::Packet& p, const tables::Flow& flow,
                     tables::FlowDirection direction);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_TRANSLATE_H_
