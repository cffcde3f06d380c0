// Which of our addresses a packet of our own is sent from.
//
// IPv4: the route's preferred source, else as Linux' inet_select_addr: the primary address of the
// output interface in the next hop's subnet, else its first primary one. IPv6: the preferred source,
// else RFC 6724 as far as a router's ICMPv6 errors need it: not tentative, an address on the given
// interface before others, scope at least the destination's, not deprecated, longest common prefix.
//
// Empty when no served interface has a fitting address; the kernel may know one (on lo, on a
// tunnel), so the caller punts. Cold path; O(addresses).
#ifndef SLUICE_STAGES_ICMP_SOURCE_ADDRESS_H_
#define SLUICE_STAGES_ICMP_SOURCE_ADDRESS_H_

#include <optional>

#include "base/address.h"
#include "tables/route.h"
#include "tables/snapshot.h"

namespace sluice::stages {

std::optional<Ipv4> SelectSource4(const tables::Route& route, const tables::Path& path,
                                  Ipv4 destination, const tables::Snapshot& snapshot);

// `near` is the interface whose addresses are preferred: the arrival interface for ICMPv6 errors.
std::optional<Ipv6> SelectSource6(const tables::Route& route, const Ipv6& destination,
                                  IfaceSlot near, const tables::Snapshot& snapshot);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ICMP_SOURCE_ADDRESS_H_
