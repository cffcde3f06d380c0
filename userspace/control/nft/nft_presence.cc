#include "control/nft/nft_presence.h"

#include <linux/netfilter.h>

#include "absl/strings/str_cat.h"

namespace sluice::control::nft {
namespace {

// Whether the hook sees what is for this machine.
bool SeesInput(TableFamily family, uint32_t hook) {
  if (family == TableFamily::kNetdev) return hook == NF_NETDEV_INGRESS;
  return hook == NF_INET_PRE_ROUTING || hook == NF_INET_LOCAL_IN || hook == NF_INET_INGRESS;
}

void JudgeChain(const Table& table, const Chain& chain, FirewallPresence& presence) {
  const bool both = table.family == TableFamily::kInet || table.family == TableFamily::kNetdev;
  const bool v4 = both || table.family == TableFamily::kIp;
  const bool v6 = both || table.family == TableFamily::kIp6;
  if (!v4 && !v6) return;
  const bool accepts = chain.base->policy == NF_ACCEPT;
  if (chain.rules.empty() && accepts) return;
  if (table.family == TableFamily::kNetdev && chain.base->hook == NF_NETDEV_EGRESS) {
    presence.forward4 = presence.forward6 = true;
    presence.reasons.push_back(absl::StrCat("nft table ", FamilyName(table.family), " ", table.name,
                                            ", chain ", chain.name, ": Sluice has no egress hook"));
  } else if (SeesInput(table.family, chain.base->hook)) {
    presence.input4 |= v4;
    presence.input6 |= v6;
  }
}

}  // namespace

FirewallPresence JudgeRuleset(const Ruleset& ruleset) {
  FirewallPresence presence;
  for (const Table& table : ruleset.tables) {
    if (table.dormant) continue;
    for (const Chain& chain : table.chains) {
      if (chain.base) JudgeChain(table, chain, presence);
    }
  }
  return presence;
}

}  // namespace sluice::control::nft
