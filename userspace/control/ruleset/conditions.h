// What a rule's leading matches say about single loads: the input of the classifier.
//
// Only matches that a packet must pass before the rule does anything count: the analysis stops at
// the first expression with an effect. A condition may be weaker than the rule's (the classifier
// only finds candidates), never stronger.
#ifndef SLUICE_CONTROL_RULESET_CONDITIONS_H_
#define SLUICE_CONTROL_RULESET_CONDITIONS_H_

#include <functional>
#include <memory>
#include <vector>

#include "control/nft/model.h"
#include "tables/ruleset/program.h"

namespace sluice::control {

struct LoadCondition {
  tables::Load load;
  std::vector<tables::ValueInterval> intervals;  // sorted, apart; empty: it never matches
};

struct SetFacts {
  const tables::ElementSet* constant = nullptr;  // the elements, when they cannot change
  bool effects = false;                          // a lookup may do more than match
};
using FactsOfSet = std::function<SetFacts(uint32_t index)>;

// `ops` are a rule's, not fused. At most one condition per load.
std::vector<LoadCondition> FindConditions(const std::vector<tables::Op>& ops,
                                          const std::vector<std::array<uint8_t, 16>>& constants,
                                          const FactsOfSet& facts_of_set);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_CONDITIONS_H_
