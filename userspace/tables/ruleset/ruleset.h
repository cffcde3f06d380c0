// The kernel's nftables ruleset, compiled: what workers evaluate and what `show rules` counts.
//
// A Ruleset is immutable. The control thread builds a new one for every change (the compiler shares
// what has not changed: code, elements of sets, indexes), workers adopt it by one pointer, so a
// packet is judged by one generation of rules and elements and never by a mixture. What packets
// change (counters, limits, quotas, dynamic elements) is not in it but in objects that successive
// Rulesets share (state_pool.h, dynamic_set.h): an unchanged rule keeps its state without anybody
// copying it.
//
// Threads: built and destroyed by the control thread (the last one only when every worker has
// passed a quiescent point); const functions for everybody. See stages/filter/filter.h for the
// evaluation.
#ifndef SLUICE_TABLES_RULESET_RULESET_H_
#define SLUICE_TABLES_RULESET_RULESET_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"
#include "tables/ruleset/dynamic_set.h"
#include "tables/ruleset/hook_point.h"
#include "tables/ruleset/program.h"
#include "tables/ruleset/state_pool.h"

namespace sluice::tables {

struct PacketCount {
  uint64_t packets = 0;
  uint64_t bytes = 0;
};

class Ruleset {
 public:
  // What the compiler fills in.
  struct Parts {
    std::shared_ptr<const Program> program;
    std::vector<std::shared_ptr<const ElementSet>> sets;  // by Op::set
    std::vector<std::shared_ptr<DynamicSet>> dynamic;     // by Op::set; null: not changed by packets
    uint64_t generation = 0;
  };
  explicit Ruleset(Parts parts);
  ~Ruleset();
  Ruleset(const Ruleset&) = delete;
  Ruleset& operator=(const Ruleset&) = delete;

  // --- What the data plane asks ---
  // Whether a base chain there could do anything: it has rules, or its policy is drop.
  bool Has(HookPoint hook, Family family) const {
    return program_->has[static_cast<size_t>(hook)][FamilySlot(family)];
  }
  bool HasIngressOther() const { return program_->ingress_other; }  // for frames that are not IP
  // As nf_ct_netns_get would have it active.
  bool needs_conntrack(Family family) const { return program_->conntrack[FamilySlot(family)]; }
  // Whether a rule keeps packets from it.
  bool has_notrack() const { return program_->notrack; }
  bool has_nat(Family family) const { return program_->nat[FamilySlot(family)]; }
  uint64_t generation() const { return parts_.generation; }

  // --- Rules, for show and explain; `rule` is the index that verdicts and traces name ---
  size_t rule_count() const { return program_->rules.size(); }
  const RuleInfo& rule(uint32_t index) const { return program_->rules[index]; }
  const ChainInfo& chain(uint32_t index) const { return program_->chains[index]; }
  size_t chain_count() const { return program_->chains.size(); }
  // The rule with this identity; kNoRule when there is none. O(log n).
  uint32_t FindRule(uint8_t table_family, std::string_view table, std::string_view chain,
                    uint64_t handle) const;
  // Counts of the rule's `counter` statement (the first one); zero without one.
  PacketCount RuleCount(uint32_t rule, uint32_t worker) const;
  PacketCount RuleCount(uint32_t rule) const;  // all workers
  // Expressions that only the kernel can evaluate: reaching one yields Kind::kKernel.
  const std::vector<UnsupportedExpression>& unsupported() const { return program_->unsupported; }
  // Base chains at hooks that Sluice has not (arp, bridge, egress), by name.
  const std::vector<std::string>& ignored_chains() const { return program_->ignored_chains; }
  const std::vector<NamedObject>& objects() const { return program_->objects; }
  PacketCount ObjectCount(size_t object, uint32_t worker) const;
  uint32_t workers() const { return program_->workers; }
  size_t memory_bytes() const { return memory_bytes_; }

  // --- For the evaluator ---
  const Program& program() const { return *program_; }
  const ElementSet& set(uint32_t index) const { return *parts_.sets[index]; }
  DynamicSet* dynamic(uint32_t index) const { return parts_.dynamic[index].get(); }
  size_t set_count() const { return parts_.sets.size(); }
  // Whether packets add elements to sets, or rules log: then somebody must look after it.
  bool has_dynamic_sets() const {
    for (const auto& dynamic : parts_.dynamic) {
      if (dynamic != nullptr) return true;
    }
    return false;
  }
  bool logs() const { return !program_->logs.empty(); }
  const Parts& parts() const { return parts_; }

 private:
  Parts parts_;
  const Program* program_;
  size_t memory_bytes_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_RULESET_H_
