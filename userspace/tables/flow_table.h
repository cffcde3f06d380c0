// A worker's connections: a pool of Flows, a hash of their tuples, and their timers.
//
// Both tuples of a confirmed flow are in the hash; an unconfirmed one (its first packet is still on
// its way) is only allocated. Lookups can be spread over a burst: Hash, PrefetchBucket, PrefetchFlow,
// Find. Nothing is allocated after construction.
//
// Limit: `capacity` flows. At the limit Allocate takes the entry of a flow that is half open or
// unassured (the kernel's early_drop) out of a bounded number of candidates, else it refuses.
//
// Thread: the owning worker; size() may be read by anyone.
#ifndef SLUICE_TABLES_FLOW_TABLE_H_
#define SLUICE_TABLES_FLOW_TABLE_H_

#include <cstddef>
#include <cstdint>
#include <memory>

#include "base/counter.h"
#include "base/time.h"
#include "tables/flow.h"
#include "tables/timer_wheel.h"

namespace sluice::tables {

class FlowTable {
 public:
  struct Options {
    uint32_t capacity = 65536;
    uint32_t per_source = 0;  // flows that one original source may have; 0: no limit
    uint64_t hash_seed = 0;
    Nanos start;
  };
  struct Found {
    FlowIndex flow = kNoFlow;
    FlowDirection direction = FlowDirection::kOriginal;
    bool found() const { return flow != kNoFlow; }
  };

  explicit FlowTable(const Options& options);

  // Never 0.
  uint64_t Hash(const FlowTuple& tuple) const;
  void PrefetchBucket(uint64_t hash) const;
  void PrefetchFlow(uint64_t hash) const;  // of the first candidate; after PrefetchBucket has arrived
  Found Find(const FlowTuple& tuple, uint64_t hash) const;

  // An unconfirmed flow with nothing set. kNoFlow at the limit. `early_dropped` is called with a flow
  // that had to go for it, before it is removed.
  template <class F>
  FlowIndex Allocate(Nanos now, F&& early_dropped);
  // Of an unconfirmed flow.
  void Free(FlowIndex flow);
  // Confirms: both tuples into the hash. False, and nothing changed, when one of them is taken.
  bool Insert(FlowIndex flow);
  // Takes a confirmed flow out, and frees it.
  void Remove(FlowIndex flow);

  Flow& at(FlowIndex flow) { return flows_[flow]; }
  const Flow& at(FlowIndex flow) const { return flows_[flow]; }

  // The flow's `expires` field counts; timers are lazy: a flow whose deadline has moved on is put
  // back when its timer fires, so that packets only write the field.
  template <class F>
  bool Expire(Nanos now, F&& expired, size_t max_visits = 64);
  Nanos NextDeadline() const;

  uint32_t size() const { return static_cast<uint32_t>(size_.Read()); }
  uint32_t capacity() const { return capacity_; }

  // Visits confirmed flows from place `from` on, at most `count` places; returns where to go on, or
  // kNoFlow at the end.
  template <class F>
  FlowIndex Visit(FlowIndex from, uint32_t count, F&& visit) const;

 private:
  uint32_t capacity_ = 0;
  Counter size_;
  std::unique_ptr<Flow[]> flows_;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_TABLE_H_
