// Received neighbour discovery (RFC 4861): answers solicitations for our addresses, learns from
// solicitations and advertisements, leaves router discovery and redirects to the kernel.
//
// Rules of Linux' ndisc_recv_ns and ndisc_recv_na (net/ipv6/ndisc.c, 6.1 to 6.18):
//  - messages that fail wire::CheckNd are dropped (kNdInvalid), fragmented ones too (RFC 6980);
//  - an NS for an address of the arrival interface is answered: to a group with the Override flag
//    and our link-layer address, by unicast without either; to :: (duplicate address detection) by
//    an advertisement to all nodes. The Router flag says whether IPv6 forwarding is on. Its sender
//    is learned (created STALE, RFC 4861 section 7.2.3). The answer goes through the neighbour
//    entry, so a stale sender is probed some time later, as with the kernel;
//  - an NA updates an entry that exists, by the table of RFC 4861 section 7.2.5; it creates none
//  and
//    does not wake one that failed. The kernel gets a copy of each.
// Left to the kernel: NS and NA for a tentative address (its duplicate address detection), NA for
// an address of ours, NS that it may answer as a proxy or for an anycast address (kProxy), NS from
// a sender whose MAC address must be asked for first, and all RS, RA and redirects. Of others' NS
// nothing is learned (kNdIgnored).
#ifndef SLUICE_STAGES_NEIGHBOR_NDP_INPUT_H_
#define SLUICE_STAGES_NEIGHBOR_NDP_INPUT_H_

#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/neighbor/input.h"

namespace sluice::stages {

// p.in, p.l3_offset and p.l4_offset are set, the IPv6 header has been checked, and the packet is
// for this machine or a group. See input.h for what becomes of the frame.
packet::Verdict HandleNdp(packet::Packet& p, InputContext& context);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_NDP_INPUT_H_
