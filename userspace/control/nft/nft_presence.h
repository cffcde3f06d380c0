// What a ruleset means for FirewallPresence: could nftables judge packets, by family, in transit or
// for this machine. A pure function.
//
// A base chain counts when it could judge: it has a rule of its own, or a policy other than accept.
// Chains by hook: forward, postrouting and egress see packets in transit, input those for this
// machine, prerouting and ingress both. Families ip, ip6, inet and netdev (both); arp and bridge do
// not concern a router's packets. A dormant table judges nothing.
#ifndef SLUICE_CONTROL_NFT_NFT_PRESENCE_H_
#define SLUICE_CONTROL_NFT_NFT_PRESENCE_H_

#include "control/netfilter/firewall_presence.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

FirewallPresence JudgeRuleset(const Ruleset& ruleset);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_NFT_PRESENCE_H_
