#include "control/ruleset/ruleset_build.h"

#include <algorithm>
#include <numeric>
#include <set>
#include <string_view>
#include <tuple>
#include <utility>

#include "control/ruleset/fuse.h"
#include "control/ruleset/keys.h"
#include "control/ruleset/set_shape.h"
#include "control/ruleset/stateful.h"

namespace sluice::control {

using tables::ChainInfo;
using tables::Classifier;
using tables::DynamicSet;
using tables::ElementSet;
using tables::Op;
using tables::OpCode;

namespace {

constexpr uint32_t kDefaultDynamicSize = 0xffff;  // nft_dynset_init

uint8_t Number(nft::TableFamily family) { return static_cast<uint8_t>(family); }

// Whether the kernel tracks connections because of this expression.
bool NeedsConntrack(const nft::Expr& expr) {
  if (const auto* dynset = std::get_if<std::shared_ptr<const nft::DynsetExpr>>(&expr)) {
    return std::any_of((*dynset)->exprs.begin(), (*dynset)->exprs.end(), NeedsConntrack);
  }
  if (const auto* unsupported = std::get_if<nft::UnsupportedExpr>(&expr)) {
    return unsupported->name == "flow_offload" || unsupported->name == "synproxy";
  }
  if (const auto* object = std::get_if<nft::ObjrefExpr>(&expr)) {
    return object->type == 3 || object->type == 5 || object->type == 7 || object->type == 9;
  }
  return std::holds_alternative<nft::CtExpr>(expr) || std::holds_alternative<nft::NatExpr>(expr) ||
         std::holds_alternative<nft::MasqExpr>(expr) ||
         std::holds_alternative<nft::RedirExpr>(expr) ||
         std::holds_alternative<nft::ConnlimitExpr>(expr);
}

}  // namespace

RulesetBuild::RulesetBuild(RulesetCompiler& compiler, const nft::Ruleset& model, Nanos now)
    : compiler_(compiler), model_(model), now_(now), program_(std::make_shared<tables::Program>()) {
  program_->workers = compiler_.pool_->workers();
  parts_.generation = model.generation;
}

std::shared_ptr<const tables::Ruleset> RulesetBuild::Run() {
  NameChains();
  compiler_.chain_ids_ = chain_ids_;  // verdicts of elements are resolved by it
  for (const nft::Table& table : model_.tables) {
    if (IsServed(table.family)) BuildObjects(table);
  }
  compiler_.objects_ = std::move(objects_);
  for (const nft::Table& table : model_.tables) {
    if (!IsServed(table.family)) continue;
    table_ = &table;
    BuildSets(table);
    for (const nft::Chain& chain : table.chains) BuildChain(table, chain);
    NoteConntrack(table);
  }
  PlaceChains(model_, chain_ids_, *program_);
  compiler_.rules_ = std::move(rules_);
  for (auto& [key, memory] : sets_) parts_.dynamic[memory.index] = memory.dynamic;
  compiler_.sets_ = std::move(sets_);

  auto& order = program_->rule_order;
  order.resize(program_->rules.size());
  std::iota(order.begin(), order.end(), 0u);
  std::sort(order.begin(), order.end(), [this](uint32_t a, uint32_t b) {
    const auto key = [this](uint32_t rule) {
      const tables::RuleInfo& info = program_->rules[rule];
      const ChainInfo& chain = program_->chains[info.chain];
      return std::tuple(info.handle, chain.table_family, std::string_view(chain.table),
                        std::string_view(chain.name));
    };
    return key(a) < key(b);
  });
  parts_.program = program_;
  return std::make_shared<const tables::Ruleset>(std::move(parts_));
}

void RulesetBuild::NameChains() {
  std::set<uint32_t> taken;
  std::vector<RulesetCompiler::ChainKey> fresh;
  for (const nft::Table& table : model_.tables) {
    if (!IsServed(table.family)) continue;
    for (const nft::Chain& chain : table.chains) {
      RulesetCompiler::ChainKey key{Number(table.family), table.name, chain.name};
      const auto before = compiler_.chain_ids_.find(key);
      if (before == compiler_.chain_ids_.end()) {
        fresh.push_back(std::move(key));
        continue;
      }
      taken.insert(before->second);
      chain_ids_.emplace(std::move(key), before->second);
    }
  }
  uint32_t next = 0;
  for (RulesetCompiler::ChainKey& key : fresh) {
    while (taken.contains(next)) ++next;
    chain_ids_.emplace(std::move(key), next++);
  }
  uint32_t count = next;
  if (!taken.empty()) count = std::max(count, *taken.rbegin() + 1);
  program_->chains.resize(count);
}

void RulesetBuild::BuildObjects(const nft::Table& table) {
  for (const nft::Object& object : table.objects) {
    if (!IsStatefulObject(object.type)) continue;
    RulesetCompiler::ObjectKey key{Number(table.family), table.name, object.type, object.name};
    RulesetCompiler::ObjectMemory memory{object.handle, object.value, nullptr};
    const auto before = compiler_.objects_.find(key);
    if (before != compiler_.objects_.end() && before->second.handle == object.handle &&
        nft::SameExpr(before->second.value, object.value)) {
      memory.state = before->second.state;
    } else {
      memory.state = compiler_.MakeState({&object.value, 1}, now_);
    }
    if (memory.state == nullptr) continue;  // of a kind that the mirror could not read
    program_->objects.push_back({Number(table.family), object.type, table.name, object.name,
                                 object.handle, memory.state});
    objects_.emplace(std::move(key), std::move(memory));
  }
}

void RulesetBuild::BuildSets(const nft::Table& table) {
  table_sets_.clear();
  for (const auto& [name, set] : table.sets) {
    RulesetCompiler::SetKey key{Number(table.family), table.name, name};
    SetMemory memory;
    memory.version = set.version;
    memory.handle = set.handle;
    memory.index = static_cast<uint32_t>(parts_.sets.size());
    memory.verdicts = (set.flags & kSetMap) != 0 && set.data_type == kVerdictType;
    memory.objects = (set.flags & kSetObject) != 0;
    memory.object_type = set.object_type;
    const tables::SetShape shape = ShapeOf(set);
    const auto before = compiler_.sets_.find(key);
    const bool same_shape = before != compiler_.sets_.end() &&
                            before->second.handle == set.handle &&
                            before->second.elements->shape() == shape;
    if (same_shape) {
      memory.elements = before->second.elements;
      memory.dynamic = before->second.dynamic;
    }
    // Version 0 is no version; objects may be others than before.
    if (!same_shape || set.version == 0 || before->second.version != set.version ||
        memory.objects) {
      if (!same_shape) memory.elements = ElementSet::Build(shape, {});
      memory.elements =
          ElementSet::Build(shape, compiler_.ConvertAll(key, memory, set, now_));
    }
    parts_.sets.push_back(memory.elements);
    parts_.dynamic.emplace_back();
    constant_.push_back((set.flags & kSetAnonymous) != 0 && (set.flags & kSetConstant) != 0);
    table_sets_.emplace(name, SetInfo{memory.index, &set});
    sets_.emplace(std::move(key), std::move(memory));
  }
}

uint32_t RulesetBuild::ChainId(const std::string& name) const {
  const auto at = chain_ids_.find({Number(table_->family), table_->name, name});
  return at == chain_ids_.end() ? tables::kNoChain : at->second;
}

const RuleScope::SetInfo* RulesetBuild::FindSet(const std::string& name) const {
  const auto at = table_sets_.find(name);
  return at == table_sets_.end() ? nullptr : &at->second;
}

DynamicSet* RulesetBuild::Dynamic(const std::string& name) {
  const SetInfo& info = table_sets_.at(name);
  SetMemory& memory = sets_.at({Number(table_->family), table_->name, name});
  const nft::Set& set = *info.model;
  if (memory.elements->shape().kind != tables::SetKind::kExact) return nullptr;
  tables::Overlay::Shape shape;
  shape.key_length = static_cast<uint8_t>(set.key_length);
  shape.data_length = (set.flags & kSetMap) != 0 ? static_cast<uint8_t>(set.data_length) : 0;
  shape.capacity = std::min(set.size == 0 ? kDefaultDynamicSize : set.size,
                            compiler_.options_.max_dynamic_elements);
  shape.seed = compiler_.options_.seed;
  const Nanos timeout = Millis(static_cast<int64_t>(set.timeout_ms));
  const bool fits = memory.dynamic != nullptr && memory.dynamic->timeout() == timeout &&
                    memory.dynamic->shape().capacity == shape.capacity;
  if (!fits) {
    memory.dynamic = std::make_shared<DynamicSet>(compiler_.next_set_id_++, shape,
                                                  program_->workers, timeout, now_);
  }
  return memory.dynamic.get();
}

std::shared_ptr<const tables::ElementState> RulesetBuild::Object(uint32_t type,
                                                                 const std::string& name) {
  const auto at = compiler_.objects_.find({Number(table_->family), table_->name, type, name});
  return at == compiler_.objects_.end() ? nullptr : at->second.state;
}

tables::StateCell* RulesetBuild::NextState(const nft::Expr& expr,
                                           const tables::StatefulExpr* stateful) {
  const size_t place = next_state_++;
  if (before_ != nullptr && place < before_->states.size()) {
    memory_.states.push_back(before_->states[place]);
  } else {
    memory_.states.push_back(compiler_.pool_->Allocate());
    if (stateful != nullptr) InitState(expr, *stateful, *memory_.states.back(), now_);
  }
  program_->states.push_back(memory_.states.back());
  return memory_.states.back().get();
}

void RulesetBuild::BuildChain(const nft::Table& table, const nft::Chain& chain) {
  const RulesetCompiler::ChainKey key{Number(table.family), table.name, chain.name};
  const uint32_t id = chain_ids_.at(key);
  ChainInfo& info = program_->chains[id];
  info.table_family = Number(table.family);
  info.table = table.name;
  info.name = chain.name;
  info.first_rule = static_cast<uint32_t>(program_->rules.size());
  info.rule_count = static_cast<uint32_t>(chain.rules.size());
  if (chain.base) {
    info.base = true;
    info.policy_drop = chain.base->policy == 0;
    info.priority = chain.base->priority;
    info.type = chain.base->type;
  }
  const auto before = compiler_.rules_.find(key);
  const auto* before_rules = before == compiler_.rules_.end() ? nullptr : &before->second;
  RulesetCompiler::RulesOfChain& now = rules_[key];
  conditions_.clear();
  for (uint32_t place = 0; place < chain.rules.size(); ++place) {
    const nft::Rule& rule = chain.rules[place];
    memory_ = {};
    next_state_ = 0;
    before_ = nullptr;
    if (before_rules != nullptr) {
      const auto at = before_rules->find(rule.handle);
      if (at != before_rules->end() && nft::SameExprs(at->second.exprs, rule.exprs)) {
        before_ = &at->second;
      }
    }
    memory_.owner = before_ != nullptr ? before_->owner : compiler_.next_owner_++ << 8;
    BuildRule(rule, id, place);
    if (memory_.states.empty() && before_ == nullptr) continue;  // nothing to remember
    if (memory_.states.empty()) continue;
    memory_.exprs = rule.exprs;
    now.insert_or_assign(rule.handle, std::move(memory_));
  }
  if (chain.rules.size() > compiler_.options_.index_threshold) {
    info.index = BuildIndex(static_cast<uint32_t>(chain.rules.size()));
  }
}

void RulesetBuild::BuildRule(const nft::Rule& rule, uint32_t chain, uint32_t place) {
  Lowering lowering(*program_, table_->family, *this);
  const std::vector<Op> ops = lowering.Rule(rule);
  const auto index = static_cast<uint32_t>(program_->rules.size());
  if (!lowering.unsupported().empty()) {
    program_->unsupported.push_back({index, lowering.unsupported()});
  }
  program_->rules.push_back({.chain = chain,
                             .handle = rule.handle,
                             .owner = memory_.owner,
                             .counter = lowering.first_counter(),
                             .comment = rule.comment});
  program_->first_ops.push_back(static_cast<uint32_t>(program_->ops.size()));
  CollectConditions(ops, place);
  const std::vector<Op> fused = Fuse(ops, program_->constants);
  program_->ops.insert(program_->ops.end(), fused.begin(), fused.end());
  program_->ops.push_back({.code = OpCode::kEnd});
}

void RulesetBuild::CollectConditions(const std::vector<Op>& ops, uint32_t place) {
  const auto facts = [this](uint32_t set) {
    SetFacts f;
    const ElementSet& elements = *parts_.sets[set];
    // Whether packets add to the set is only known when all rules have been seen; a set that they
    // could add to is one that may have statements or timeouts.
    f.effects = elements.shape().stateful;
    if (constant_[set] && !f.effects) f.constant = &elements;
    return f;
  };
  for (LoadCondition& c : FindConditions(ops, program_->constants, facts)) {
    conditions_[c.load].push_back({place, std::move(c.intervals)});
  }
}

std::shared_ptr<const Classifier> RulesetBuild::BuildIndex(uint32_t rules) {
  // A dimension pays when a good part of the rules has a condition on it.
  constexpr uint32_t kFewestParts = 32;
  constexpr uint32_t kFewest = 4;
  constexpr size_t kDimensions = 8;
  std::vector<Classifier::DimensionInput> dimensions;
  for (auto& [load, conditions] : conditions_) {
    if (conditions.size() < std::max(rules / kFewestParts, kFewest)) continue;
    dimensions.push_back({load, std::move(conditions)});
  }
  std::stable_sort(dimensions.begin(), dimensions.end(), [](const auto& a, const auto& b) {
    return a.conditions.size() > b.conditions.size();
  });
  if (dimensions.size() > kDimensions) dimensions.resize(kDimensions);
  if (dimensions.empty()) return nullptr;
  return Classifier::Build(rules, dimensions, compiler_.options_.index_bytes);
}

void RulesetBuild::NoteConntrack(const nft::Table& table) {
  bool needed = false;
  for (const nft::Chain& chain : table.chains) {
    for (const nft::Rule& rule : chain.rules) {
      for (const nft::Expr& expr : rule.exprs) {
        needed = needed || NeedsConntrack(expr);
        program_->notrack = program_->notrack || std::holds_alternative<nft::NotrackExpr>(expr);
      }
    }
  }
  for (const auto& [name, set] : table.sets) {
    needed = needed || std::any_of(set.exprs.begin(), set.exprs.end(), NeedsConntrack);
  }
  if (!needed) return;
  const bool both = table.family == nft::TableFamily::kInet;
  if (both || table.family == nft::TableFamily::kIp) program_->conntrack[0] = true;
  if (both || table.family == nft::TableFamily::kIp6) program_->conntrack[1] = true;
}

}  // namespace sluice::control
