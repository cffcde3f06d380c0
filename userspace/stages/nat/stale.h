// Masqueraded flows end when the address they were given goes away (nf_nat_masquerade.c): their
// answers would go nowhere, and a new flow gets the new address.
//
// Unlike the kernel, an interface that is set down and up again with the same address keeps its
// flows: the snapshot does not tell that from a cable that was pulled, which ends no flow in the
// kernel either.
//
// Thread: the owning worker, some of the table per tick after a snapshot with other addresses.
#ifndef SLUICE_STAGES_NAT_STALE_H_
#define SLUICE_STAGES_NAT_STALE_H_

#include <cstdint>

#include "tables/flow.h"
#include "tables/flow_table.h"
#include "tables/snapshot.h"

namespace sluice::stages {

// Whether a masqueraded flow's interface is gone, or its address from all interfaces. O(addresses).
bool IsStale(const tables::Flow& flow, const tables::Snapshot& snapshot);

// Calls `stale(FlowIndex)` for those among the next `count` places from `from` on; returns where to
// go on, or kNoFlow at the end. `stale` may remove the flow.
template <class F>
tables::FlowIndex VisitStale(const tables::FlowTable& table, const tables::Snapshot& snapshot,
                             tables::FlowIndex from, uint32_t count, F&& stale) {
  return table.Visit(from, count, [&](tables::FlowIndex index, const tables::Flow& flow) {
    if (IsStale(flow, snapshot)) stale(index);
  });
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_STALE_H_
