// One compilation of a whole ruleset. Internal; see compiler.h.
#ifndef SLUICE_CONTROL_RULESET_RULESET_BUILD_H_
#define SLUICE_CONTROL_RULESET_RULESET_BUILD_H_

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "control/ruleset/compiler.h"
#include "control/ruleset/conditions.h"
#include "control/ruleset/lowering.h"

namespace sluice::control {

class RulesetBuild : public RuleScope {
 public:
  RulesetBuild(RulesetCompiler& compiler, const nft::Ruleset& model, Nanos now);

  std::shared_ptr<const tables::Ruleset> Run();

  // RuleScope, for the rule that is being compiled.
  uint32_t ChainId(const std::string& name) const override;
  const SetInfo* FindSet(const std::string& name) const override;
  tables::DynamicSet* Dynamic(const std::string& name) override;
  std::shared_ptr<const tables::ElementState> Object(uint32_t type,
                                                     const std::string& name) override;
  tables::StateCell* NextState(const nft::Expr& expr,
                               const tables::StatefulExpr* stateful) override;
  uint64_t owner() const override { return memory_.owner; }

 private:
  using SetMemory = RulesetCompiler::SetMemory;

  void NameChains();
  void BuildObjects(const nft::Table& table);
  void BuildSets(const nft::Table& table);
  void BuildChain(const nft::Table& table, const nft::Chain& chain);
  void BuildRule(const nft::Rule& rule, uint32_t chain, uint32_t place);
  void CollectConditions(const std::vector<tables::Op>& ops, uint32_t place);
  std::shared_ptr<const tables::Classifier> BuildIndex(uint32_t rules);
  bool SameAsBefore(const nft::Rule& rule, const RulesetCompiler::RulesOfChain* before);
  void NoteConntrack(const nft::Table& table);

  RulesetCompiler& compiler_;
  const nft::Ruleset& model_;
  const Nanos now_;
  std::shared_ptr<tables::Program> program_;
  tables::Ruleset::Parts parts_;

  std::map<RulesetCompiler::ChainKey, RulesetCompiler::RulesOfChain> rules_;
  std::map<RulesetCompiler::ObjectKey, RulesetCompiler::ObjectMemory> objects_;
  std::map<RulesetCompiler::SetKey, SetMemory> sets_;
  std::map<RulesetCompiler::ChainKey, uint32_t> chain_ids_;

  // Of the table, chain and rule at work.
  const nft::Table* table_ = nullptr;
  std::map<std::string, SetInfo> table_sets_;
  std::vector<bool> constant_;  // by set: its elements cannot change
  RulesetCompiler::RuleMemory memory_;
  const RulesetCompiler::RuleMemory* before_ = nullptr;
  size_t next_state_ = 0;
  std::map<tables::Load, std::vector<tables::Classifier::Condition>> conditions_;
};

// Which base chains run where, and in which order.
void PlaceChains(const nft::Ruleset& model,
                 const std::map<std::tuple<uint8_t, std::string, std::string>, uint32_t>& chain_ids,
                 tables::Program& program);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_RULESET_BUILD_H_
