#include "control/nft/ruleset_editor.h"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <utility>
#include <variant>

namespace sluice::control::nft {
namespace {

// Beyond these, moving the rules behind each change costs more than reading all of them.
constexpr size_t kMaxRuleChanges = 64;

template <class List>
auto FindHandle(List& list, uint64_t handle) {
  return std::find_if(list.begin(), list.end(),
                      [&](const auto& item) { return item.handle == handle; });
}

bool JumpsToChainOfItsOwn(const Table& table, const Rule& rule) {
  return std::any_of(rule.exprs.begin(), rule.exprs.end(), [&](const Expr& expr) {
    const auto* immediate = std::get_if<ImmediateExpr>(&expr);
    if (immediate == nullptr || immediate->verdict.chain.empty()) return false;
    const Chain* chain = FindChain(table, immediate->verdict.chain);
    return chain == nullptr || chain->anonymous;
  });
}

}  // namespace

void RulesetEditor::MakeStale() {
  stale_ = true;
  structure_ = true;
}

void RulesetEditor::OnRead() {
  stale_ = false;
  structure_ = true;
  touched_.clear();
}

void RulesetEditor::EndTransaction() {
  first_deleted_.clear();
  last_deleted_.clear();
  rule_changes_ = 0;
}

void RulesetEditor::Apply(Ruleset& ruleset, const nlmsghdr& message, Nanos now) {
  const int kind = MessageKind(message);
  if (kind == NFT_MSG_NEWSETELEM || kind == NFT_MSG_DELSETELEM) {
    ApplyElements(ruleset, message, kind == NFT_MSG_NEWSETELEM, now);
    return;
  }
  if (kind == NFT_MSG_NEWFLOWTABLE || kind == NFT_MSG_DELFLOWTABLE) return;  // not modelled
  structure_ = true;
  if (stale_) return;
  switch (kind) {
    case NFT_MSG_NEWTABLE:
    case NFT_MSG_DELTABLE:
      return ApplyTable(ruleset, message, kind == NFT_MSG_NEWTABLE);
    case NFT_MSG_NEWCHAIN:
    case NFT_MSG_DELCHAIN:
      return ApplyChain(ruleset, message, kind == NFT_MSG_NEWCHAIN);
    case NFT_MSG_NEWRULE:
    case NFT_MSG_DELRULE:
      return ApplyRule(ruleset, message, kind == NFT_MSG_NEWRULE);
    case NFT_MSG_NEWSET:
    case NFT_MSG_DELSET:
      return ApplySet(ruleset, message, kind == NFT_MSG_NEWSET);
    case NFT_MSG_NEWOBJ:
    case NFT_MSG_DELOBJ:
      return ApplyObject(ruleset, message, kind == NFT_MSG_NEWOBJ);
    default:
      MakeStale();
  }
}

void RulesetEditor::ApplyTable(Ruleset& ruleset, const nlmsghdr& message, bool added) {
  std::optional<Table> table = ParseTable(message);
  if (!table) return MakeStale();
  const auto found = FindHandle(ruleset.tables, table->handle);
  if (!added) {
    if (found == ruleset.tables.end()) return MakeStale();
    ruleset.tables.erase(found);
  } else if (found == ruleset.tables.end()) {
    ruleset.tables.push_back(*std::move(table));
  } else {
    found->dormant = table->dormant;
  }
}

void RulesetEditor::ApplyChain(Ruleset& ruleset, const nlmsghdr& message, bool added) {
  std::optional<ChainMessage> m = ParseChain(message);
  Table* table = m ? FindTable(ruleset, m->family, m->table) : nullptr;
  if (table == nullptr) return MakeStale();
  const auto found = FindHandle(table->chains, m->chain.handle);
  if (found == table->chains.end()) {
    if (!added) return MakeStale();
    table->chains.push_back(std::move(m->chain));
    return;
  }
  const bool devices = (m->chain.base && !m->chain.base->devices.empty()) ||
                       (found->base && !found->base->devices.empty());
  if (added) {
    if (devices) return MakeStale();
    m->chain.rules = std::move(found->rules);
    *found = std::move(m->chain);
  } else {
    // With a hook it may be the devices alone that go.
    if (m->chain.base && devices) return MakeStale();
    table->chains.erase(found);
  }
}

void RulesetEditor::ApplyRule(Ruleset& ruleset, const nlmsghdr& message, bool added) {
  std::optional<RuleMessage> m = ParseRule(message);
  Table* table = m ? FindTable(ruleset, m->family, m->table) : nullptr;
  Chain* chain = table != nullptr ? FindChain(*table, m->chain) : nullptr;
  if (chain == nullptr || ++rule_changes_ > kMaxRuleChanges) return MakeStale();
  if (added) return InsertRule(*table, *chain, *std::move(m));
  const auto found = FindHandle(chain->rules, m->rule.handle);
  if (found == chain->rules.end() || JumpsToChainOfItsOwn(*table, *found)) return MakeStale();
  if (found == chain->rules.begin()) first_deleted_.emplace(table->handle, chain->handle);
  if (found + 1 == chain->rules.end()) last_deleted_.emplace(table->handle, chain->handle);
  chain->rules.erase(found);
}

void RulesetEditor::InsertRule(const Table& table, Chain& chain, RuleMessage&& m) {
  std::vector<Rule>& rules = chain.rules;
  if (FindHandle(rules, m.rule.handle) != rules.end()) return MakeStale();
  if (m.after) {
    // Most often the last one.
    const auto before = std::find_if(rules.rbegin(), rules.rend(),
                                     [&](const Rule& rule) { return rule.handle == *m.after; });
    if (before == rules.rend()) return MakeStale();
    rules.insert(before.base(), std::move(m.rule));
  } else {
    const auto& deleted = m.append ? first_deleted_ : last_deleted_;
    if (!rules.empty() && deleted.contains({table.handle, chain.handle})) return MakeStale();
    rules.insert(m.append ? rules.end() : rules.begin(), std::move(m.rule));
  }
}

void RulesetEditor::ApplySet(Ruleset& ruleset, const nlmsghdr& message, bool added) {
  std::optional<SetMessage> m = ParseSet(message);
  Table* table = m ? FindTable(ruleset, m->family, m->table) : nullptr;
  if (table == nullptr) return MakeStale();
  const auto found = table->sets.find(m->set.name);
  if (!added) {
    if (found == table->sets.end()) return MakeStale();
    table->sets.erase(found);
    return;
  }
  if (found != table->sets.end()) {
    if (found->second.handle != m->set.handle) return MakeStale();
    m->set.elements = std::move(found->second.elements);
  }
  m->set.version = NextVersion();
  std::string name = m->set.name;
  table->sets.insert_or_assign(std::move(name), std::move(m->set));
}

void RulesetEditor::ApplyElements(Ruleset& ruleset, const nlmsghdr& message, bool added,
                                  Nanos now) {
  const std::optional<ElementsMessage> m = ParseElementsOf(message);
  Table* table = m ? FindTable(ruleset, m->family, m->table) : nullptr;
  const auto found = table != nullptr ? table->sets.find(m->set) : decltype(table->sets.end()){};
  if (table == nullptr || found == table->sets.end()) return MakeStale();
  Set& set = found->second;
  Touched* touched = structure_ ? nullptr : &touched_[{m->family, m->table, m->set}];
  ForEachElement(message, now, [&](SetElement&& element) {
    const auto old = set.elements.find(element);
    const bool existed = old != set.elements.end();
    if (touched != nullptr) touched->emplace(existed ? *old : element, existed);
    element.order = existed ? old->order : ++order_;
    if (existed) set.elements.erase(old);
    if (added) set.elements.insert(std::move(element));
  });
  set.version = NextVersion();
}

void RulesetEditor::ApplyObject(Ruleset& ruleset, const nlmsghdr& message, bool added) {
  std::optional<ObjectMessage> m = ParseObject(message);
  Table* table = m ? FindTable(ruleset, m->family, m->table) : nullptr;
  if (table == nullptr) return MakeStale();
  const auto found = FindHandle(table->objects, m->object.handle);
  if (found == table->objects.end()) {
    if (!added) return MakeStale();
    table->objects.push_back(std::move(m->object));
  } else if (added) {
    *found = std::move(m->object);
  } else {
    table->objects.erase(found);
  }
}

RulesetChange RulesetEditor::TakeChange(const Ruleset& ruleset) {
  RulesetChange change;
  change.structure = std::exchange(structure_, false);
  std::map<SetId, Touched> touched = std::exchange(touched_, {});
  if (change.structure) return change;
  for (auto& [id, elements] : touched) {
    const auto& [family, table_name, set_name] = id;
    const Set& set = FindTable(ruleset, family, table_name)->sets.at(set_name);
    SetDelta delta{family, table_name, set_name, {}, {}};
    while (!elements.empty()) {
      auto node = elements.extract(elements.begin());
      const auto now = set.elements.find(node.key());
      if (now != set.elements.end()) delta.added.push_back(*now);
      // One that nobody knew: it may be one that a rule has added since.
      if (node.mapped() || now == set.elements.end()) {
        delta.removed.push_back(std::move(node.key()));
      }
    }
    change.sets.push_back(std::move(delta));
  }
  return change;
}

}  // namespace sluice::control::nft
