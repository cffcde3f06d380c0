#include "control/ruleset/compiler.h"

#include <algorithm>
#include <utility>

#include "control/ruleset/keys.h"
#include "control/ruleset/ruleset_build.h"
#include "control/ruleset/set_shape.h"
#include "control/ruleset/stateful.h"

namespace sluice::control {

using tables::Element;
using tables::ElementSet;
using tables::ElementState;
using tables::Ruleset;
using tables::SetKind;

RulesetCompiler::RulesetCompiler(const CompilerOptions& options)
    : options_(options), pool_(tables::StatePool::Create(std::max<uint32_t>(options.workers, 1))) {}

RulesetCompiler::~RulesetCompiler() = default;

std::shared_ptr<const Ruleset> RulesetCompiler::Compile(const nft::Ruleset& model, Nanos now) {
  ForgetTables(model);
  last_ = RulesetBuild(*this, model, now).Run();
  return last_;
}

void RulesetCompiler::ForgetTables(const nft::Ruleset& model) {
  std::map<TableKey, uint64_t> tables;
  for (const nft::Table& table : model.tables) {
    tables.emplace(TableKey(static_cast<uint8_t>(table.family), table.name), table.handle);
  }
  for (const auto& known : tables_) {
    const TableKey& table = known.first;
    const auto now = tables.find(table);
    if (now != tables.end() && now->second == known.second) continue;
    const auto of_table = [&](const auto& entry) {
      return std::get<0>(entry.first) == table.first && std::get<1>(entry.first) == table.second;
    };
    std::erase_if(rules_, of_table);
    std::erase_if(objects_, of_table);
    std::erase_if(sets_, of_table);
  }
  tables_ = std::move(tables);
}

std::shared_ptr<const ElementState> RulesetCompiler::MakeState(std::span<const nft::Expr> exprs,
                                                               Nanos now) {
  auto state = std::make_shared<ElementState>();
  for (const nft::Expr& expr : exprs) {
    auto stateful = ToStateful(expr);
    if (!stateful) continue;
    state->handles.push_back(pool_->Allocate());
    stateful->cell = state->handles.back().get();
    stateful->owner = next_owner_++ << 8;
    InitState(expr, *stateful, *stateful->cell, now);
    state->exprs.push_back(*stateful);
  }
  return state->exprs.empty() ? nullptr : state;
}

Element RulesetCompiler::Convert(const SetKey& key, const SetMemory& memory,
                                 const nft::SetElement& element, const nft::SetElement* end,
                                 Nanos now) {
  Element out;
  const tables::SetShape& shape = memory.elements->shape();
  out.key = element.key;
  out.key.resize(shape.key_length);
  out.catchall = element.catchall;
  out.order = element.order;
  if (element.expires_at != Nanos::Max()) out.expires = element.expires_at;
  if (shape.kind == SetKind::kBoxes) {
    out.end = element.key_end.value_or(element.key);
  } else if (shape.kind == SetKind::kInterval) {
    // The kernel names the first key behind the interval; without one it goes on to the last key.
    out.end.assign(shape.key_length, 0xff);
    if (end != nullptr) {
      out.end = end->key;
      out.end.resize(shape.key_length);
      for (size_t i = out.end.size(); i-- > 0 && out.end[i]-- == 0;) {
      }
    } else if (element.key_end) {
      out.end = *element.key_end;
    }
  }
  if (memory.verdicts) {
    tables::SetVerdict verdict{element.verdict.code, tables::kNoChain};
    const auto chain =
        chain_ids_.find({std::get<0>(key), std::get<1>(key), element.verdict.chain});
    if (chain != chain_ids_.end()) verdict.chain = chain->second;
    out.data.resize(sizeof verdict);
    std::memcpy(out.data.data(), &verdict, sizeof verdict);
  } else if (memory.objects) {
    const auto object = objects_.find(
        {std::get<0>(key), std::get<1>(key), memory.object_type, element.object});
    if (object != objects_.end()) out.state = object->second.state;
    return out;
  } else {
    out.data = element.data;
  }
  if (!element.exprs.empty()) {
    // An element that was there before keeps its state.
    std::vector<uint8_t> padded = out.key;
    padded.resize(ElementSet::kMaxKey);
    out.state = memory.elements->SharedState(padded.data());
    if (out.state == nullptr) out.state = MakeState(element.exprs, now);
  }
  return out;
}

std::vector<Element> RulesetCompiler::ConvertAll(const SetKey& key, const SetMemory& memory,
                                                 const nft::Set& set, Nanos now) {
  std::vector<Element> out;
  out.reserve(set.elements.size());
  const bool intervals = memory.elements->shape().kind == SetKind::kInterval;
  for (auto at = set.elements.begin(); at != set.elements.end(); ++at) {
    if (at->interval_end) continue;
    const nft::SetElement* end = nullptr;
    if (intervals && !at->catchall) {
      const auto next = std::next(at);
      // Without an end of its own it ends where the next one begins.
      if (next != set.elements.end() && !next->catchall) end = &*next;
    }
    out.push_back(Convert(key, memory, *at, end, now));
  }
  return out;
}

void RulesetCompiler::ApplyDelta(const SetKey& key, SetMemory& memory, const nft::Set& set,
                                 const nft::SetDelta& delta, Nanos now) {
  std::vector<Element> removed;
  std::vector<Element> added;
  const bool intervals = memory.elements->shape().kind == SetKind::kInterval;
  for (const nft::SetElement& e : delta.removed) {
    if (e.interval_end) continue;
    removed.push_back(Convert(key, memory, e, nullptr, now));
    if (memory.dynamic != nullptr && !e.catchall) memory.dynamic->RequestRemoval(e.key);
  }
  if (!intervals) {
    for (const nft::SetElement& e : delta.added) {
      added.push_back(Convert(key, memory, e, nullptr, now));
    }
    memory.elements = memory.elements->With(removed, added);
    return;
  }
  // A changed boundary changes the interval that it belongs to, of which the other boundary may be
  // the old one: take the intervals around each from the model.
  const auto around = [&](const nft::SetElement& e) {
    if (e.catchall) {
      if (&e >= delta.added.data() && &e < delta.added.data() + delta.added.size()) {
        added.push_back(Convert(key, memory, e, nullptr, now));
      }
      return;
    }
    nft::SetElement probe;
    probe.key = e.key;
    auto at = set.elements.upper_bound(probe);
    for (int looked = 0; looked < 3 && at != set.elements.begin(); ++looked) {
      --at;
      if (at->interval_end || at->catchall) continue;
      const auto next = std::next(at);
      const bool has_end = next != set.elements.end() && !next->catchall;
      added.push_back(Convert(key, memory, *at, has_end ? &*next : nullptr, now));
    }
  };
  for (const nft::SetElement& e : delta.removed) around(e);
  for (const nft::SetElement& e : delta.added) around(e);
  memory.elements = memory.elements->With(removed, added);
}

std::shared_ptr<const Ruleset> RulesetCompiler::WithSets(
    const std::vector<std::pair<uint32_t, std::shared_ptr<const ElementSet>>>& sets,
    uint64_t generation) {
  Ruleset::Parts parts = last_->parts();
  for (const auto& [index, elements] : sets) parts.sets[index] = elements;
  parts.generation = generation;
  last_ = std::make_shared<const Ruleset>(std::move(parts));
  return last_;
}

std::shared_ptr<const Ruleset> RulesetCompiler::ApplyElements(
    const nft::Ruleset& model, std::span<const nft::SetDelta> changes, Nanos now) {
  if (last_ == nullptr) return nullptr;
  std::vector<std::pair<uint32_t, std::shared_ptr<const ElementSet>>> sets;
  for (const nft::SetDelta& delta : changes) {
    if (!IsServed(delta.family)) continue;
    const SetKey key{static_cast<uint8_t>(delta.family), delta.table, delta.set};
    const auto memory = sets_.find(key);
    const nft::Table* table = FindTable(model, delta.family, delta.table);
    if (memory == sets_.end() || table == nullptr) return nullptr;
    const auto set = table->sets.find(delta.set);
    // A shape that has room for less than the elements have now is another program's.
    if (set == table->sets.end() ||
        ShapeOf(set->second) != memory->second.elements->shape()) {
      return nullptr;
    }
    ApplyDelta(key, memory->second, set->second, delta, now);
    memory->second.version = set->second.version;
    sets.emplace_back(memory->second.index, memory->second.elements);
  }
  return WithSets(sets, model.generation);
}

std::shared_ptr<const Ruleset> RulesetCompiler::ApplyEvents(
    std::span<const tables::SetEvent> events, Nanos now) {
  if (last_ == nullptr || events.empty()) return nullptr;
  std::vector<std::pair<uint32_t, std::shared_ptr<const ElementSet>>> sets;
  for (auto& [key, memory] : sets_) {
    if (memory.dynamic == nullptr) continue;
    std::shared_ptr<const ElementSet> elements = memory.elements;
    for (const tables::SetEvent& event : events) {
      if (event.set != memory.dynamic->id() || event.has_statements) continue;
      Element element;
      element.key.assign(event.key.begin(), event.key.begin() + event.key_length);
      element.data.assign(event.data.begin(), event.data.begin() + event.data_length);
      if (event.timeout != Nanos()) element.expires = now + event.timeout;
      if (event.kind == tables::SetEvent::Kind::kDelete) {
        elements = elements->With({&element, 1}, {});
      } else {
        elements = elements->With({}, {&element, 1});
      }
    }
    if (elements == memory.elements) continue;
    memory.elements = elements;
    sets.emplace_back(memory.index, elements);
  }
  return sets.empty() ? nullptr : WithSets(sets, last_->generation());
}

std::optional<RulesetCompiler::SetName> RulesetCompiler::NameOf(
    const tables::SetEvent& event) const {
  for (const auto& [key, memory] : sets_) {
    if (memory.dynamic == nullptr || memory.dynamic->id() != event.set) continue;
    return SetName{std::get<0>(key), std::get<1>(key), std::get<2>(key)};
  }
  return {};
}

}  // namespace sluice::control
