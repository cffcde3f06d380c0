// Gathers the connections for `sluice show flows` and `show nat` out of the workers' tables.
//
// The tables are walked in slices, on the workers' threads; what passes the filter is copied, and of
// a sorted list only the best are kept, so that memory is bounded by the limit and not by the tables.
// Connections that come or go during the walk may or may not be in it.
//
//   FlowCollector collector(query, now);                // or what Parse said was wrong
//   for each worker: flows.Visit(from, 256, [&](FlowIndex, const Flow& f) { collector.Add(f, id); });
//   return collector.Take();
//
// Thread: one at a time.
#ifndef SLUICE_APP_FLOW_COLLECTOR_H_
#define SLUICE_APP_FLOW_COLLECTOR_H_

#include <cstdint>
#include <map>
#include <vector>

#include "absl/status/statusor.h"
#include "app/flow_filter.h"
#include "base/address.h"
#include "base/ids.h"
#include "base/time.h"
#include "tables/flow.h"
#include "telemetry/firewall_views.h"

namespace sluice::app {

class FlowCollector {
 public:
  static absl::StatusOr<FlowCollector> Create(const telemetry::FlowQuery& query, Nanos now);
  // Only translated connections.
  static FlowCollector ForNat(const telemetry::NatQuery& query, Nanos now);

  void Add(const tables::Flow& flow, WorkerId worker);

  // In order; `total` and `limit` are those of the tables.
  telemetry::FlowsView Take(uint64_t total, uint64_t limit);
  // The flows of a NatView, how many there are, and whether some were left out.
  void TakeInto(telemetry::NatView* view);

 private:
  struct Kept {
    tables::Flow flow;
    WorkerId worker;
  };

  FlowCollector(FlowFilter filter, telemetry::FlowSort sort, uint64_t limit, Nanos now)
      : filter_(std::move(filter)), sort_(sort), limit_(limit), now_(now) {}
  bool Before(const Kept& a, const Kept& b) const;
  void KeepTheBest();

  FlowFilter filter_;
  telemetry::FlowSort sort_;
  uint64_t limit_;
  Nanos now_;
  uint64_t matched_ = 0;
  std::vector<Kept> kept_;  // at most twice the limit
};

// The addresses that sources are translated to, with their connections. Bounded: of more than
// kMaxNatAddresses those seen first are kept.
class NatAddresses {
 public:
  explicit NatAddresses(size_t workers) : workers_(workers) {}
  void Add(const tables::Flow& flow, WorkerId worker);
  void TakeInto(telemetry::NatView* view);

 private:
  const size_t workers_;
  std::map<IpAddress, std::vector<uint64_t>> counts_;  // by worker
};

}  // namespace sluice::app

#endif  // SLUICE_APP_FLOW_COLLECTOR_H_
