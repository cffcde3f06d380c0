// Which worker has the connection of packets that the owner function (flow_owner.h) sends elsewhere:
// replies of a connection whose ports NAT has changed. The worker that has the connection tells the
// one that will see them, ahead of the packet that makes them come, and again when it has ended.
//
// Thread: values.
#ifndef SLUICE_TABLES_FLOW_ALIAS_H_
#define SLUICE_TABLES_FLOW_ALIAS_H_

#include "tables/flow.h"

namespace sluice::tables {

struct FlowAlias {
  FlowTuple tuple;  // of the replies, as they arrive
  bool ended = false;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_ALIAS_H_
