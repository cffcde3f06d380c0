#include "control/early/early_compiler.h"

#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::control {
namespace {

using nft::TableFamily;
using tables::EarlyProgram;
using tables::EarlyRule;
using tables::EarlyVerdict;

constexpr int32_t kConntrack = -200;    // NF_IP_PRI_CONNTRACK
constexpr int32_t kReassembly = -400;   // NF_IP_PRI_CONNTRACK_DEFRAG
constexpr uint32_t kInetIngress = 5;    // NF_INET_INGRESS
constexpr uint32_t kNetdevIngress = 0;  // NF_NETDEV_INGRESS
constexpr uint8_t kIp = tables::kEarlyIpv4 | tables::kEarlyIpv6;

struct Place {
  const nft::Table* table;
  const nft::Chain* chain;
  bool ingress;
  size_t age;  // its place in the kernel's list
};

// Also with a wildcard at the end ("eth*", kernel 6.17).
bool IsOn(const nft::Chain& chain, const std::string& interface) {
  return std::any_of(chain.base->devices.begin(), chain.base->devices.end(),
                     [&](const std::string& device) {
                       if (device.empty() || device.back() != '*') return device == interface;
                       const size_t length = device.size() - 1;
                       return interface.compare(0, length, device, 0, length) == 0;
                     });
}

uint8_t FamiliesOf(TableFamily family) {
  switch (family) {
    case TableFamily::kNetdev:
      return tables::kEarlyAll;
    case TableFamily::kInet:
      return kIp;
    case TableFamily::kIp:
      return tables::kEarlyIpv4;
    case TableFamily::kIp6:
      return tables::kEarlyIpv6;
    default:
      return 0;
  }
}

// The chains that a packet meets before it is routed, in order.
std::vector<Place> ChainsInOrder(const nft::Ruleset& ruleset, const std::string& interface) {
  std::vector<Place> places;
  size_t age = 0;
  for (const nft::Table& table : ruleset.tables) {
    if (table.dormant) continue;
    for (const nft::Chain& chain : table.chains) {
      ++age;
      if (!chain.base) continue;
      const bool netdev = table.family == TableFamily::kNetdev;
      const bool ingress =
          netdev ? chain.base->hook == kNetdevIngress
                 : table.family == TableFamily::kInet && chain.base->hook == kInetIngress;
      const bool prerouting =
          !netdev && FamiliesOf(table.family) != 0 && chain.base->hook == NF_INET_PRE_ROUTING;
      if (ingress ? IsOn(chain, interface) : prerouting) {
        places.push_back({&table, &chain, ingress, age});
      }
    }
  }
  std::sort(places.begin(), places.end(), [](const Place& a, const Place& b) {
    if (a.ingress != b.ingress) return a.ingress;
    if (a.chain->base->priority != b.chain->base->priority) {
      return a.chain->base->priority < b.chain->base->priority;
    }
    return a.age > b.age;
  });
  return places;
}

// What counts or does anything at all.
bool HasEffect(const nft::Chain& chain) {
  return !chain.rules.empty() || chain.base->policy == NF_DROP;
}

std::string Where(const nft::Table& table, const nft::Chain& chain, uint64_t handle) {
  return absl::StrCat("table ", table.name, ", chain ", chain.name,
                      handle == 0 ? "" : absl::StrCat(", handle ", handle));
}

}  // namespace

void EarlyCompiler::FindUses(const nft::Ruleset& ruleset) {
  uses_.clear();
  for (const nft::Table& table : ruleset.tables) {
    for (const nft::Chain& chain : table.chains) {
      for (const nft::Rule& rule : chain.rules) {
        for (const nft::Expr& expr : rule.exprs) {
          if (const auto* e = std::get_if<nft::LookupExpr>(&expr)) {
            ++uses_[{table.family, table.name, e->set}].lookups;
          } else if (const auto* o = std::get_if<nft::ObjrefExpr>(&expr)) {
            if (!o->set.empty()) ++uses_[{table.family, table.name, o->set}].lookups;
          } else if (const auto* d = std::get_if<std::shared_ptr<const nft::DynsetExpr>>(&expr)) {
            ++uses_[{table.family, table.name, (*d)->set}].updates;
          }
        }
      }
    }
  }
}

EarlyPrograms EarlyCompiler::Compile(const nft::Ruleset& ruleset, const nft::RulesetChange* change,
                                     std::span<const EarlyInterface> interfaces, Nanos now) {
  if (change == nullptr || change->structure) FindUses(ruleset);
  sets_.BeginUpdate(change);
  std::vector<Draft> drafts;
  std::vector<std::vector<std::string>> remarks(interfaces.size());
  Stops stops;
  // What stays behind on one interface stays behind on all. Each round moves a stop forward in the
  // order of rules, or is the last.
  while (true) {
    drafts.clear();
    Stops first = stops;
    for (const EarlyInterface& interface : interfaces) {
      std::vector<std::string>& said = remarks[drafts.size()];
      drafts.push_back(CompileOne(ruleset, interface, stops, now));
      const std::vector<std::string>& more = drafts.back().program.remarks;
      said.insert(said.end(), more.begin(), more.end());
      for (size_t f = 0; f < first.size(); ++f) {
        first[f] = std::min(first[f], drafts.back().stops[f]);
      }
    }
    if (first == stops) break;
    stops = first;
  }
  sets_.EndUpdate();
  EarlyPrograms result;
  for (size_t i = 0; i < drafts.size(); ++i) {
    Draft& draft = drafts[i];
    draft.program.remarks = std::move(remarks[i]);
    result.programs.push_back(std::make_shared<const EarlyProgram>(std::move(draft.program)));
  }
  result.valid_until = sets_.valid_until();
  return result;
}

// The families whose rules from `position` on stay behind.
uint8_t EarlyCompiler::Behind(const Stops& stops, const Position& position) {
  uint8_t families = 0;
  for (size_t f = 0; f < stops.size(); ++f) {
    if (stops[f] <= position) families |= static_cast<uint8_t>(1u << f);
  }
  return families;
}

EarlyCompiler::Draft EarlyCompiler::CompileOne(const nft::Ruleset& ruleset,
                                               const EarlyInterface& interface, const Stops& stops,
                                               Nanos now) {
  Draft draft;
  draft.stops = stops;
  EarlyContext context;
  context.interface = &interface;
  context.now = now;
  context.sets = &sets_;
  for (const Place& place : ChainsInOrder(ruleset, interface.name)) {
    const nft::BaseChain& base = *place.chain->base;
    if (!HasEffect(*place.chain)) continue;
    context.table = place.table;
    context.ingress = place.ingress;
    context.policy = base.policy;
    const auto use = [this, &place](const nft::Set& set) {
      const auto found = uses_.find({place.table->family, place.table->name, set.name});
      return found == uses_.end() ? Use{} : found->second;
    };
    context.is_dynamic = [use](const nft::Set& set) { return use(set).updates != 0; };
    context.is_private_meter = [use](const nft::Set& set) {
      // An element that somebody put there by hand has no bucket, and always matches.
      return use(set).updates == 1 && use(set).lookups == 0 &&
             std::all_of(set.elements.begin(), set.elements.end(),
                         [](const nft::SetElement& e) { return !e.exprs.empty(); });
    };
    const Position position{place.ingress ? 0 : 1, base.priority, -static_cast<int64_t>(place.age),
                            0};
    if (!place.ingress && (base.type != "filter" || base.priority >= kConntrack)) {
      Leave(draft.program.rules.size(), FamiliesOf(place.table->family), position, draft);
      continue;
    }
    CompileChain(*place.table, *place.chain, position, context, draft);
  }
  draft.program.martians = draft.stops[1].stage == Position{}.stage;
  return draft;
}

// These families leave the program at `position`, in the chain that begins at rule `first`. What
// ends the chain for them must not be there, nor what follows it: see the header.
void EarlyCompiler::Leave(size_t first, uint8_t families, const Position& position, Draft& draft) {
  std::vector<EarlyRule>& rules = draft.program.rules;
  for (size_t f = 0; f < draft.stops.size(); ++f) {
    const auto family = static_cast<uint8_t>(1u << f);
    if ((families & family) == 0 || draft.stops[f] < position) continue;
    draft.stops[f] = position;
    size_t cut = first;
    while (cut < rules.size() && (rules[cut].verdict != EarlyVerdict::kEndOfChain ||
                                  (rules[cut].families & family) == 0)) {
      ++cut;
    }
    if (cut == rules.size()) continue;
    draft.stops[f] = draft.positions[cut];
    for (; cut < rules.size(); ++cut) rules[cut].families &= static_cast<uint8_t>(~family);
  }
  for (size_t i = rules.size(); i-- > first;) {
    if (rules[i].families != 0) continue;
    rules.erase(rules.begin() + static_cast<long>(i));
    draft.positions.erase(draft.positions.begin() + static_cast<long>(i));
  }
}

void EarlyCompiler::CompileChain(const nft::Table& table, const nft::Chain& chain,
                                 Position position, const EarlyContext& context, Draft& draft) {
  EarlyProgram& program = draft.program;
  const uint8_t of_chain = FamiliesOf(table.family);
  const size_t first = program.rules.size();
  const auto number = static_cast<uint16_t>(first == 0 ? 0 : program.rules.back().chain + 1);
  const auto leave = [&](uint8_t families, uint64_t handle, const std::string& why) {
    Leave(first, families, position, draft);
    program.remarks.push_back(absl::StrCat(Where(table, chain, handle), ": ", why));
  };
  const auto add = [&](EarlyRule rule, uint64_t handle) {
    if (program.rules.size() == EarlyProgram::kMaxRules) {
      leave(of_chain, handle, "XDP has as many rules as it can");
      return;
    }
    rule.key = {static_cast<uint8_t>(table.family), table.name, chain.name, handle};
    rule.chain = number;
    rule.ingress = context.ingress;
    rule.whole_packets = !context.ingress && chain.base->priority >= kReassembly;
    program.rules.push_back(std::move(rule));
    draft.positions.push_back(position);
  };
  for (const nft::Rule& rule : chain.rules) {
    // Also when another interface has left rules of this chain behind: its end is not in XDP.
    const uint8_t behind = Behind(draft.stops, position) & of_chain;
    if (behind != 0) Leave(first, behind, position, draft);
    const auto families = static_cast<uint8_t>(of_chain & ~behind);
    if (families == 0) return;
    EarlyTranslation translated = TranslateRule(rule, context, families, program);
    if (translated.outcome == EarlyOutcome::kRule) {
      add(std::move(translated.rule), rule.handle);
    } else if (translated.outcome == EarlyOutcome::kNotEarly) {
      leave(translated.families, rule.handle, translated.remark);
    }
    ++position.rule;
  }
  const uint8_t behind = Behind(draft.stops, position) & of_chain;
  if (behind != 0) Leave(first, behind, position, draft);
  if (chain.base->policy == NF_DROP && (of_chain & ~behind) != 0) {
    EarlyRule policy;
    policy.families = static_cast<uint8_t>(of_chain & ~behind);
    policy.verdict = EarlyVerdict::kDrop;
    add(std::move(policy), 0);
  }
}

}  // namespace sluice::control
