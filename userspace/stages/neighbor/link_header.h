// Puts the Ethernet header before an IP packet that leaves: destination, source, type by version.
// A packet that Parse has accepted has its IP header at offset 14, so nothing moves.
#ifndef SLUICE_STAGES_NEIGHBOR_LINK_HEADER_H_
#define SLUICE_STAGES_NEIGHBOR_LINK_HEADER_H_

#include "base/address.h"
#include "packet/packet.h"
#include "wire/ethernet.h"

namespace sluice::stages {

inline void WriteLinkHeader(const packet::Packet& p, const Mac& destination, const Mac& source) {
  const bool is_v6 = p.l3()[0] >> 4 == 6;
  wire::WriteEthernet(p.data, destination, source,
                      is_v6 ? wire::kEtherTypeIpv6 : wire::kEtherTypeIpv4);
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NEIGHBOR_LINK_HEADER_H_
