// Tables of the old iptables (not the nft-based one, whose tables nft shows): their kernel
// interface is two getsockopt calls. A table counts when it has more than the entries it is born
// with (one per hook and a last one), or a policy other than ACCEPT. Only tables that exist are
// asked for (/proc/net/ip_tables_names), since asking for others would create them.
#ifndef SLUICE_CONTROL_NETFILTER_LEGACY_TABLES_H_
#define SLUICE_CONTROL_NETFILTER_LEGACY_TABLES_H_

#include "base/address.h"
#include "control/netfilter/firewall_presence.h"

namespace sluice::control {

// Adds to `presence`. A table that cannot be read counts. Of the calling thread's namespace.
void JudgeLegacyTables(Family family, FirewallPresence& presence);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETFILTER_LEGACY_TABLES_H_
