// Received ARP: answers requests for our addresses, learns, and shows the kernel what concerns it.
//
// Rules of Linux' arp_rcv and arp_process (net/ipv4/arp.c, 6.1 to 6.18):
//  - dropped: frames to another host, malformed ones, operations but request and reply, targets
//  that
//    are multicast or loopback (unless route_localnet), gratuitous ones under drop_gratuitous_arp;
//  - a request for any address of this machine is answered, within arp_ignore, and its sender
//    learned (created STALE); so is a probe from 0.0.0.0, without learning;
//  - all else only updates an entry that exists; arp_accept makes gratuitous ones and replies
//    create one. Only a reply sent to us alone confirms; a MAC address younger than a second is
//    replaced by gratuitous ARP only.
// The kernel gets a copy of replies to us, of gratuitous ARP, of anything that changed an entry,
// and of ARP that claims one of our addresses. It is not shown requests: Sluice answers them. Left
// to the kernel: requests that proxy ARP may answer (kProxy), and requests for us from senders off
// the link when rp_filter is on (kNeighborDiscovery), since that needs a route lookup. Not
// followed: arp_filter, arptables. Answered even when the table is full (the kernel would not).
#ifndef SLUICE_STAGES_NEIGHBOR_ARP_INPUT_H_
#define SLUICE_STAGES_NEIGHBOR_ARP_INPUT_H_

#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/neighbor/input.h"

namespace sluice::stages {

// p.in and p.l3_offset are set. See input.h for what becomes of the frame.
packet::Verdict HandleArp(packet::Packet& p, InputContext& context);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_ARP_INPUT_H_
