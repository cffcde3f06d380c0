// A tracked connection as `sluice show flows` and `conntrack -L` show it.
//
// Names are those of conntrack-tools; the line is what `conntrack -L` of a kernel with
// nf_conntrack_acct prints, so that scripts which read the one can read the other.
//
// Thread: any; works on a copy of the flow.
#ifndef SLUICE_APP_FLOW_VIEW_H_
#define SLUICE_APP_FLOW_VIEW_H_

#include <optional>
#include <string>
#include <string_view>

#include "base/ids.h"
#include "base/time.h"
#include "tables/flow.h"
#include "telemetry/firewall_views.h"

namespace sluice::app {

telemetry::FlowView ViewOf(const tables::Flow& flow, WorkerId worker, Nanos now);
// tcp      6 431999 ESTABLISHED src=10.0.0.1 ... [ASSURED] mark=0 use=1
std::string ConntrackLine(const tables::Flow& flow, Nanos now);
// For `sluice show nat`: the original packet before and after translation.
telemetry::NatFlowView NatViewOf(const tables::Flow& flow, Nanos now);

// TCP_CONNTRACK_* and its name.
std::string_view TcpStateName(uint8_t state);
std::optional<uint8_t> TcpStateOf(std::string_view name);

}  // namespace sluice::app

#endif  // SLUICE_APP_FLOW_VIEW_H_
