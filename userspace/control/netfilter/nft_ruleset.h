// What a ruleset as `nft -j list ruleset` prints it means for FirewallPresence. A pure function.
//
// A base chain counts when it could judge: it has a rule of its own, or a policy other than accept.
// Chains by hook: forward, postrouting and egress see packets in transit, input those for this
// machine, prerouting and ingress both. Families ip, ip6, inet and netdev (both); arp and bridge do
// not concern a router's packets.
#ifndef SLUICE_CONTROL_NETFILTER_NFT_RULESET_H_
#define SLUICE_CONTROL_NETFILTER_NFT_RULESET_H_

#include <string_view>

#include "absl/status/status.h"
#include "control/netfilter/firewall_presence.h"

namespace sluice::control {

// Adds to `presence`. An error when the text is not what nft prints.
absl::Status JudgeNftRuleset(std::string_view json, FirewallPresence& presence);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETFILTER_NFT_RULESET_H_
