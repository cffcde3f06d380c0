// From the steps of a rehearsed packet (dataplane/walk.h) to what `sluice explain` shows.
//
// Thread: control.
#ifndef SLUICE_APP_EXPLAIN_WALK_H_
#define SLUICE_APP_EXPLAIN_WALK_H_

#include <functional>
#include <string>

#include "base/ids.h"
#include "dataplane/walk.h"
#include "tables/early_left_out.h"
#include "tables/ruleset/ruleset.h"
#include "telemetry/firewall_views.h"

namespace sluice::app {

struct WalkNames {
  std::function<std::string(IfaceSlot)> interface;
  const tables::Ruleset* ruleset = nullptr;  // that the steps name rules of; may be null
  const tables::EarlyLeftOut* left_out = nullptr;  // what of it XDP carries out; may be null
};

telemetry::ExplainView ExplainWalk(const telemetry::ExplainRequest& request,
                                   const dataplane::Walk& walk, const WalkNames& names);

}  // namespace sluice::app

#endif  // SLUICE_APP_EXPLAIN_WALK_H_
