// What a ruleset leaves to the kernel (FirewallPresence). A pure function.
//
// Packets for this machine are the kernel's to judge wherever a base chain could: one that has a
// rule or a policy other than accept, at ingress, prerouting or input. So Sluice does not answer
// them. Packets in transit are judged by Sluice itself, but for egress chains, which it does not
// run. Families arp and bridge do not concern a router's packets. A dormant table judges nothing.
#ifndef SLUICE_CONTROL_NFT_NFT_PRESENCE_H_
#define SLUICE_CONTROL_NFT_NFT_PRESENCE_H_

#include "control/netfilter/firewall_presence.h"
#include "control/nft/model.h"

namespace sluice::control::nft {

FirewallPresence JudgeRuleset(const Ruleset& ruleset);

}  // namespace sluice::control::nft

#endif  // SLUICE_CONTROL_NFT_NFT_PRESENCE_H_
