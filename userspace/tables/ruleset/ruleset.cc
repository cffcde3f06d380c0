#include "tables/ruleset/ruleset.h"

#include <algorithm>
#include <tuple>

namespace sluice::tables {
namespace {

PacketCount CountOf(const StateCell* cell, uint32_t worker) {
  if (cell == nullptr) return {};
  const StateCell& own = cell[worker * kCellsPerSlab];
  return {own.a.load(std::memory_order_relaxed), own.b.load(std::memory_order_relaxed)};
}

}  // namespace

Ruleset::Ruleset(Parts parts) : parts_(std::move(parts)), program_(parts_.program.get()) {
  const Program& p = *program_;
  memory_bytes_ = sizeof p + p.ops.size() * sizeof(Op) + p.rules.size() * sizeof(RuleInfo) +
                  p.chains.size() * sizeof(ChainInfo) +
                  p.constants.size() * sizeof p.constants[0] +
                  p.stateful.size() * sizeof(StatefulExpr) +
                  p.states.size() * (sizeof(StateHandle) + p.workers * sizeof(StateCell)) +
                  p.rule_order.size() * sizeof p.rule_order[0];
  for (const ChainInfo& chain : p.chains) {
    if (chain.index != nullptr) memory_bytes_ += chain.index->memory_bytes();
  }
  for (const auto& set : parts_.sets) memory_bytes_ += set->memory_bytes();
}

Ruleset::~Ruleset() = default;

uint32_t Ruleset::FindRule(uint8_t table_family, std::string_view table, std::string_view chain,
                           uint64_t handle) const {
  const auto key = [this](uint32_t rule) {
    const RuleInfo& info = program_->rules[rule];
    const ChainInfo& in = program_->chains[info.chain];
    return std::tuple(info.handle, in.table_family, std::string_view(in.table),
                      std::string_view(in.name));
  };
  const std::tuple wanted(handle, table_family, table, chain);
  const auto at =
      std::lower_bound(program_->rule_order.begin(), program_->rule_order.end(), wanted,
                       [&](uint32_t rule, const auto& value) { return key(rule) < value; });
  return at != program_->rule_order.end() && key(*at) == wanted ? *at : kNoRule;
}

PacketCount Ruleset::RuleCount(uint32_t rule, uint32_t worker) const {
  return CountOf(program_->rules[rule].counter, worker);
}

PacketCount Ruleset::RuleCount(uint32_t rule) const {
  PacketCount sum;
  for (uint32_t worker = 0; worker < program_->workers; ++worker) {
    const PacketCount count = RuleCount(rule, worker);
    sum.packets += count.packets;
    sum.bytes += count.bytes;
  }
  return sum;
}

PacketCount Ruleset::ObjectCount(size_t object, uint32_t worker) const {
  return CountOf(program_->objects[object].state->exprs.front().cell, worker);
}

}  // namespace sluice::tables
