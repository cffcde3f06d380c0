// Which of our addresses a packet of our own is sent from.
//
// IPv4: the route's preferred source, else as Linux' fib_result_prefsrc. By a gateway: the primary
// address of global scope in the gateway's subnet, else the first such one. To a neighbour: the
// first primary one, link scope included (routes are taken to have their usual scope).
// IPv6: the preferred source, else RFC 6724 as far as a router's ICMPv6 errors need it: not
// tentative, an address on the given interface before others, scope at least the destination's, not
// deprecated, longest common prefix.
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

inline constexpr uint8_t kScopeUniverse = 0;  // RT_SCOPE_*
inline constexpr uint8_t kScopeLink = 253;

// inet_select_addr for one interface: the first primary address of at most `scope` that is in one
// subnet with `near`, else the first one.
std::optional<Ipv4> InterfaceAddress4(const tables::Interface& interface, std::optional<Ipv4> near,
                                      uint8_t scope);

std::optional<Ipv4> SelectSource4(const tables::Route& route, const tables::Path& path,
                                  const tables::Snapshot& snapshot);

// `near` is the interface whose addresses are preferred: the arrival interface for ICMPv6 errors.
std::optional<Ipv6> SelectSource6(const tables::Route& route, const Ipv6& destination,
                                  IfaceSlot near, const tables::Snapshot& snapshot);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_ICMP_SOURCE_ADDRESS_H_
