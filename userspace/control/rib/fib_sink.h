// RouteSink onto the data plane's own RouteTable, Fib4 and Fib6. Entries of the flow tier that a
// change may concern end with it.
//
// Threads: the control thread only. All four must outlive this.
#ifndef SLUICE_CONTROL_RIB_FIB_SINK_H_
#define SLUICE_CONTROL_RIB_FIB_SINK_H_

#include "control/rib/route_sink.h"
#include "tables/fib.h"
#include "tables/offload.h"
#include "tables/route_table.h"

namespace sluice::control {

class FibSink final : public RouteSink {
 public:
  FibSink(tables::RouteTable& routes, tables::Fib4& fib4, tables::Fib6& fib6)
      : routes_(routes), fib4_(fib4), fib6_(fib6) {}

  // The flow tier's generations; without there are no entries to end.
  void set_offload(const tables::OffloadMemory& memory) { offload_ = memory; }

  absl::StatusOr<tables::RouteId> Add(const tables::Route& route) override;
  absl::StatusOr<tables::RouteId> Change(tables::RouteId id, const tables::Route& route) override;
  void Remove(tables::RouteId id) override;
  absl::Status Set(const Ipv4Prefix& prefix, tables::RouteId id) override;
  absl::Status Set(const Ipv6Prefix& prefix, tables::RouteId id) override;
  void Clear(const Ipv4Prefix& prefix) override;
  void Clear(const Ipv6Prefix& prefix) override;

 private:
  tables::RouteTable& routes_;
  tables::Fib4& fib4_;
  tables::Fib6& fib6_;
  tables::OffloadMemory offload_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RIB_FIB_SINK_H_
