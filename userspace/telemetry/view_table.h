// Views as text for people: aligned columns, numbers to the right, units in the heading, no
// colours. 80 to 120 columns wide for ordinary names.
//
// Thread: any; no state.
#ifndef SLUICE_TELEMETRY_VIEW_TABLE_H_
#define SLUICE_TELEMETRY_VIEW_TABLE_H_

#include <string>
#include <vector>

#include "telemetry/views.h"

namespace sluice::telemetry {

std::string ToTable(const StatusView& view);
std::string ToTable(const std::vector<InterfaceView>& views);
std::string ToTable(const RoutesView& view);
std::string ToTable(const std::vector<NeighborView>& views);
std::string ToTable(const std::vector<WorkerView>& views);
// Rows at 0 are left out unless `all`.
std::string ToTable(const std::vector<DropView>& views, bool all);
std::string FirewallText(const FirewallView& view);  // the line of `show status`
// nft's listing with a column in front that says where each rule runs.
std::string ToTable(const RulesView& view);
std::string ToTable(const FlowsView& view);
// The lines that `conntrack -L` prints.
std::string ToConntrackLines(const FlowsView& view);
std::string ToTable(const NatView& view);
std::string ToTable(const SocketsView& view);
std::string ToTable(const std::vector<ServiceView>& views);
std::string ToTable(const ExplainView& view);
// One packet of a trace: a line, and lines below it for what else is known.
std::string ToLines(const TraceView& view);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_VIEW_TABLE_H_
