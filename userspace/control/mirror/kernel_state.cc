#include "control/mirror/kernel_state.h"

#include <linux/if.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>

#include <algorithm>

namespace sluice::control {

bool Link::up() const { return (flags & IFF_UP) != 0; }

bool Neighbor::valid() const {
  constexpr int kValid =
      NUD_PERMANENT | NUD_NOARP | NUD_REACHABLE | NUD_PROBE | NUD_STALE | NUD_DELAY;
  return (state & kValid) != 0;
}
bool Neighbor::permanent() const { return (state & NUD_PERMANENT) != 0; }
bool Neighbor::noarp() const { return (state & NUD_NOARP) != 0; }
bool Neighbor::router() const { return (flags & NTF_ROUTER) != 0; }
bool Neighbor::externally_learned() const { return (flags & NTF_EXT_LEARNED) != 0; }

const Link* KernelState::FindLink(std::string_view name) const {
  for (const auto& [index, link] : links) {
    if (link.name == name) return &link;
  }
  return nullptr;
}

const Link* KernelState::FindLink(IfIndex ifindex) const {
  const auto found = links.find(ifindex.value);
  return found == links.end() ? nullptr : &found->second;
}

bool KernelState::policy_routing(Family family) const {
  const std::vector<RuleMessage>& rules = family == Family::kIpv4 ? rules4 : rules6;
  static constexpr uint32_t kOrder[] = {RT_TABLE_LOCAL, RT_TABLE_MAIN, RT_TABLE_DEFAULT};
  const size_t expected = family == Family::kIpv4 ? 3 : 2;
  if (rules.size() != expected) return true;
  for (size_t i = 0; i < expected; ++i) {
    if (!rules[i].plain || rules[i].table != kOrder[i]) return true;
  }
  return false;
}

}  // namespace sluice::control
