#include "control/nft/nft_presence.h"

#include <linux/netfilter.h>

#include "absl/strings/str_cat.h"

namespace sluice::control::nft {
namespace {

struct HookUse {
  const char* name;
  bool forward;
  bool input;
};

HookUse UseOf(TableFamily family, uint32_t hook) {
  constexpr HookUse kIngress{"ingress", true, true};
  if (family == TableFamily::kNetdev) {
    return hook == NF_NETDEV_INGRESS ? kIngress : HookUse{"egress", true, false};
  }
  switch (hook) {
    case NF_INET_PRE_ROUTING:
      return {"prerouting", true, true};
    case NF_INET_LOCAL_IN:
      return {"input", false, true};
    case NF_INET_FORWARD:
      return {"forward", true, false};
    case NF_INET_LOCAL_OUT:
      return {"output", false, false};
    case NF_INET_POST_ROUTING:
      return {"postrouting", true, false};
    default:
      return kIngress;  // NF_INET_INGRESS
  }
}

void JudgeChain(const Table& table, const Chain& chain, FirewallPresence& presence) {
  const bool both = table.family == TableFamily::kInet || table.family == TableFamily::kNetdev;
  const bool v4 = both || table.family == TableFamily::kIp;
  const bool v6 = both || table.family == TableFamily::kIp6;
  const HookUse use = UseOf(table.family, chain.base->hook);
  if ((!v4 && !v6) || (!use.forward && !use.input)) return;
  const bool accepts = chain.base->policy == NF_ACCEPT;
  if (chain.rules.empty() && accepts) return;
  presence.forward4 |= use.forward && v4;
  presence.forward6 |= use.forward && v6;
  presence.input4 |= use.input && v4;
  presence.input6 |= use.input && v6;
  presence.reasons.push_back(absl::StrCat(
      "nft table ", FamilyName(table.family), " ", table.name, ", chain ", chain.name, " (",
      use.name, "): ", chain.rules.size(), chain.rules.size() == 1 ? " rule" : " rules",
      accepts ? "" : ", policy drop"));
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
