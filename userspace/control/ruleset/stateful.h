// Stateful expressions of the model as the evaluator wants them.
#ifndef SLUICE_CONTROL_RULESET_STATEFUL_H_
#define SLUICE_CONTROL_RULESET_STATEFUL_H_

#include <optional>

#include "control/nft/model.h"
#include "tables/ruleset/stateful.h"

namespace sluice::control {

// Nothing for expressions without state of their own. No cell yet.
std::optional<tables::StatefulExpr> ToStateful(const nft::Expr& expr);

// The state that such an expression begins with.
void InitState(const nft::Expr& expr, const tables::StatefulExpr& stateful,
               tables::StateCell& cell, Nanos now);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_STATEFUL_H_
