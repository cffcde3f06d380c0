// Which address a rule's words come to: ranges, netmap, masquerade, redirect.
//
// Linux: find_best_ips_proto (nf_nat_core.c), nft_nat_setup_netmap (nft_nat.c), inet_select_addr
// (devinet.c), ipv6_dev_get_saddr (addrconf.c), nf_nat_redirect.c. Only addresses on interfaces
// that Sluice serves are known here; the kernel also looks at others when `out` has none.
//
// Cold path: once per new flow. O(addresses).
#ifndef SLUICE_STAGES_NAT_NAT_ADDRESS_H_
#define SLUICE_STAGES_NAT_NAT_ADDRESS_H_

#include <optional>

#include "base/address.h"
#include "base/ids.h"
#include "tables/nat_request.h"
#include "tables/snapshot.h"

namespace sluice::stages {

// One address of [min, max], by the kernel's hash over source and destination (kNatPersistent:
// source only), so that both choose alike. `replaces_destination`: the choice is for a destination,
// which the kernel's IPv6 hash then takes in word by word.
IpAddress PickFromRange(const IpAddress& source, const IpAddress& destination, const IpAddress& min,
                        const IpAddress& max, bool persistent, bool replaces_destination);

// The bits in which min and max agree, with the others from `address`.
IpAddress Netmap(const IpAddress& address, const IpAddress& min, const IpAddress& max);

// The source address for packets that leave by `out`: IPv4 by the next hop (the primary address of
// global scope in its subnet, else the first one), IPv6 by the destination (RFC 6724 rules 1, 2, 3,
// 5, 6, 8; temporary addresses are not told apart).
std::optional<IpAddress> MasqueradeAddress(const tables::Snapshot& snapshot, IfaceSlot out,
                                           const IpAddress& next_hop, const IpAddress& destination);

// The address of the arrival interface: IPv4 the first; IPv6 the first usable one, link-local if
// the destination was.
std::optional<IpAddress> RedirectAddress(const tables::Snapshot& snapshot, IfaceSlot in,
                                         const IpAddress& destination);

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_NAT_ADDRESS_H_
