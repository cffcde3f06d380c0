// Asks for a neighbour's MAC address: an ARP request or a neighbour solicitation.
//
// Source addresses are chosen as Linux does with arp_announce 0 (arp_solicit in net/ipv4/arp.c,
// inet_select_addr in net/ipv4/devinet.c) and in ndisc_solicit (net/ipv6/ndisc.c): the address the
// waiting packet comes from when it is ours, else
//  - IPv4: the first primary address of the interface in the target's subnet, else its first
//    primary address, else one of another interface, else 0.0.0.0;
//  - IPv6: the interface's link-local address; without one nothing is sent.
// A probe goes by unicast to the known MAC address, a first question to all (ARP) or to the
// target's solicited-node group (RFC 4861 section 7.2.2).
//
// A question that cannot be sent (no frame, queue full) is lost like one on the wire.
#ifndef SLUICE_STAGES_NEIGHBOR_SOLICIT_H_
#define SLUICE_STAGES_NEIGHBOR_SOLICIT_H_

#include "base/address.h"
#include "base/worker_counters.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "tables/snapshot.h"

namespace sluice::stages {

struct SolicitTarget {
  IpAddress address;
  IfaceSlot slot;
  const Mac* known_mac = nullptr;           // probe by unicast; null: ask everybody
  const packet::Packet* waiting = nullptr;  // the newest packet that waits, if any
};

void Solicit(const SolicitTarget& target, const tables::Snapshot& snapshot, packet::Outbox& outbox,
             WorkerCounters& counters);

// Exposed for the tests.
Ipv4 ChooseArpSource(const tables::Snapshot& snapshot, const tables::Interface& interface,
                     Ipv4 target);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_SOLICIT_H_
