// A worker's connections: a pool of Flows, a hash of their tuples, and their timers.
//
// Both tuples of a confirmed flow are in the hash; an unconfirmed one (its first packet is still on
// its way) is only allocated. Nothing is allocated after construction; memory is reserved at the
// limit, most of it comes into being when first used.
//
// The hash: buckets of one cache line with 12 places, each a byte of tag and a reference (flow,
// direction, five more bits of tag); a full bucket sends entries to the next ones and counts them,
// so that lookups know when to stop and removals leave nothing behind (the scheme of Facebook's
// F14, N. Bronson, X. Shi, 2019). At the limit buckets are 3/4 full. A lookup costs one line of the
// hash (at the limit: for 4 % of entries more than one) and the flow. It is keyed; remote hosts
// cannot aim at buckets.
//
// Lookups of a burst overlap: Hash and PrefetchBucket for all, PrefetchFlow for all, then Find.
//
// Timers: `expires` in the flow counts, and packets only write that. A flow's timer fires at the
// latest kMaxTimerDelay after it was set, looks, and is set anew: so a deadline that moves back is
// noticed that much late (at once with Hasten). Whoever finds a flow past its time treats it as
// gone.
//
// Limit: `capacity` flows (or SetLimit), unconfirmed ones included. At the limit Allocate takes the
// entry of one that is not assured, or else of a TCP or SCTP connection that is closing, among
// kEvictionCandidates in memory order from where it stopped last (the kernel: early_drop and
// gc_worker_can_early_drop in net/netfilter/nf_conntrack_core.c); else it refuses. `per_source`
// bounds the confirmed flows of an original source address (IPv6: of its /64) without
// kFlowUncounted. They are counted in a sketch of fixed size (count-min, G. Cormode,
// S. Muthukrishnan, 2005): never too few; too many only where both counters of a source are shared
// with busy ones.
//
// A tick is the time between two values of `now` that Allocate, Touch and Expire are given. An
// entry that a packet of this tick uses (Touch) is not evicted, and one that was removed in this
// tick is not given to another flow before the next, so that packets of one burst may hold indices.
//
// Thread: the owning worker; size() may be read by anyone.
#ifndef SLUICE_TABLES_FLOW_TABLE_H_
#define SLUICE_TABLES_FLOW_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/counter.h"
#include "base/time.h"
#include "tables/flow.h"
#include "tables/mapped_region.h"
#include "tables/timer_wheel.h"

namespace sluice::tables {

class FlowTable {
 public:
  struct Options {
    uint32_t capacity = 65536;  // 1 to kMaxCapacity; what is beyond is cut
    uint32_t per_source = 0;    // flows that one original source may have; 0: no limit
    uint64_t hash_seed = 0;
    Nanos start;
  };
  struct Found {
    FlowIndex flow = kNoFlow;
    FlowDirection direction = FlowDirection::kOriginal;
    bool found() const { return flow != kNoFlow; }
  };

  static constexpr uint32_t kMaxCapacity = uint32_t{1} << 26;
  static constexpr uint32_t kEvictionCandidates = 64;
  static constexpr Nanos kMaxTimerDelay = Seconds(60);
  static constexpr Nanos kTimerGranularity = Millis(125);

  // Told of flows with kFlowOffload; must not touch the table.
  class Observer {
   public:
    virtual ~Observer() = default;
    virtual void Removed(FlowIndex flow) = 0;  // its entry can still be read
    virtual void Changed(FlowIndex flow) = 0;  // it is no longer what it was when it was offloaded
  };

  explicit FlowTable(const Options& options);
  FlowTable(const FlowTable&) = delete;
  FlowTable& operator=(const FlowTable&) = delete;

  // Never 0.
  uint64_t Hash(const FlowTuple& tuple) const;
  void PrefetchBucket(uint64_t hash) const { __builtin_prefetch(&BucketOf(hash)); }
  void PrefetchFlow(uint64_t hash) const;  // the first candidate; when the bucket has arrived
  Found Find(const FlowTuple& tuple, uint64_t hash) const;
  Found Find(const FlowTuple& tuple) const { return Find(tuple, Hash(tuple)); }

  // An unconfirmed flow with nothing set. kNoFlow at the limit. `early_dropped` is called with a
  // flow that had to go for it, before it is removed.
  template <class F>
  FlowIndex Allocate(Nanos now, F&& early_dropped);
  // Of an unconfirmed flow.
  void Free(FlowIndex flow);
  // Confirms: both tuples into the hash (they must not change from now on), kFlowConfirmed set, the
  // timer set to `expires`. False, and nothing changed, when one of the tuples is taken.
  bool Insert(FlowIndex flow);
  // Takes a confirmed flow out: kFlowDying set; its entry can be read until the tick ends.
  void Remove(FlowIndex flow);

  void set_observer(Observer* observer) { observer_ = observer; }
  void NoteChanged(FlowIndex flow) {
    if (observer_ != nullptr) observer_->Changed(flow);
  }

  Flow& at(FlowIndex flow) { return flows_[flow]; }
  const Flow& at(FlowIndex flow) const { return flows_[flow]; }

  // A packet of this tick uses the flow.
  void Touch(FlowIndex flow, Nanos now) {
    SetTick(now);
    flows_[flow].used_at = stamp_;
  }
  // After `expires` of a confirmed flow has been set to an earlier time, when that matters.
  void Hasten(FlowIndex flow);
  // Whether the source may have one more flow.
  bool SourceHasRoom(const FlowTuple& original) const;

  // Removes flows whose time is up, after calling `expired(FlowIndex)`. False: stopped at
  // max_visits with more to do.
  template <class F>
  bool Expire(Nanos now, F&& expired, size_t max_visits = 64);
  Nanos NextDeadline() const { return timers_.NextDeadline(); }

  uint32_t size() const { return static_cast<uint32_t>(size_.Read()); }
  uint32_t capacity() const { return capacity_; }
  // Below the capacity: nf_conntrack_max has been lowered. Flows beyond it stay until they end.
  void SetLimit(uint32_t flows) { limit_ = flows < capacity_ ? flows : capacity_; }

  // Visits confirmed flows, `visit(FlowIndex, const Flow&)`, from place `from` on, at most `count`
  // places; returns where to go on, or kNoFlow at the end.
  template <class F>
  FlowIndex Visit(FlowIndex from, uint32_t count, F&& visit) const;

 private:
  static constexpr uint32_t kPlaces = 12;

  // A reference: bit 0 direction, bits 1 to 26 flow, bits 27 to 31 tag. Tag 0: a free place.
  struct alignas(64) Bucket {
    std::array<uint8_t, kPlaces> tags = {};
    uint32_t passed = 0;  // entries that belong here or before, and are behind
    std::array<uint32_t, kPlaces> references = {};
  };
  static_assert(sizeof(Bucket) == 64);
  static constexpr size_t kBytesPerFlow = sizeof(Flow) + 2 * sizeof(Bucket) * 4 / (kPlaces * 3) +
                                          1 + 16 /* timer */ + sizeof(FlowIndex) /* free list */;
  static_assert(kBytesPerFlow <= 256);

  // Rows of the sketch of sources.
  static constexpr size_t kSourceRows = 2;
  static constexpr size_t kSourceColumns = 32'768;

  Bucket& BucketOf(uint64_t hash) const { return buckets_[IndexOf(hash)]; }
  uint32_t IndexOf(uint64_t hash) const {
    return static_cast<uint32_t>(((hash >> 32) * bucket_count_) >> 32);
  }
  uint32_t Next(uint32_t bucket) const { return bucket + 1 == bucket_count_ ? 0 : bucket + 1; }
  static uint8_t TagOf(uint64_t hash) {
    const auto tag = static_cast<uint8_t>(hash);
    return tag == 0 ? 1 : tag;
  }
  static uint32_t HighTagOf(uint64_t hash) { return static_cast<uint32_t>(hash >> 8) << 27; }
  static uint32_t Matches(const Bucket& bucket, uint8_t tag);

  void SetTick(Nanos now) {
    if (now.count() != tick_.count()) StartTick(now);
  }
  void StartTick(Nanos now);
  FlowIndex TakeFree();
  FlowIndex ChooseVictim();
  void AddEntry(uint64_t hash, uint32_t reference);
  void RemoveEntry(uint64_t hash, uint32_t reference);
  void SetTimer(FlowIndex flow);
  void CountSource(const FlowTuple& original, uint32_t change);
  std::array<size_t, kSourceRows> SourceCounters(const FlowTuple& original) const;

  const uint32_t capacity_;
  const uint32_t bucket_count_;
  const uint32_t per_source_;
  uint32_t limit_;
  std::array<uint64_t, 6> secrets_;
  Counter size_;
  MappedRegion flow_memory_;
  MappedRegion bucket_memory_;
  MappedRegion link_memory_;
  Flow* const flows_;
  Bucket* const buckets_;
  FlowIndex* const links_;  // of free entries: the next one
  FlowIndex fresh_ = 0;     // entries from here on have never been used
  FlowIndex free_ = kNoFlow;
  FlowIndex removed_ = kNoFlow;  // in this tick: free in the next
  FlowIndex removed_last_ = kNoFlow;
  FlowIndex hand_ = 0;      // where ChooseVictim goes on
  Nanos tick_;
  uint16_t stamp_ = 1;      // of this tick
  TimerWheel timers_;
  std::vector<uint32_t> sources_;
  Observer* observer_ = nullptr;
};

template <class F>
FlowIndex FlowTable::Allocate(Nanos now, F&& early_dropped) {
  SetTick(now);
  FlowIndex flow = size() < limit_ ? TakeFree() : kNoFlow;
  if (flow == kNoFlow) {
    const FlowIndex victim = ChooseVictim();
    if (victim == kNoFlow) return kNoFlow;
    early_dropped(victim);
    // No packet of this tick uses it: at once.
    Remove(victim);
    removed_ = links_[victim];
    if (removed_ == kNoFlow) removed_last_ = kNoFlow;
    flow = victim;
  }
  flows_[flow] = Flow{};
  flows_[flow].used_at = stamp_;
  size_.Add();
  return flow;
}

template <class F>
bool FlowTable::Expire(Nanos now, F&& expired, size_t max_visits) {
  SetTick(now);
  return timers_.Advance(
      now,
      [&](FlowIndex flow) {
        if (flows_[flow].expires > now) {
          SetTimer(flow);
          return;
        }
        expired(flow);
        Remove(flow);
      },
      max_visits);
}

template <class F>
FlowIndex FlowTable::Visit(FlowIndex from, uint32_t count, F&& visit) const {
  for (; count > 0 && from < fresh_; --count, ++from) {
    const Flow& flow = flows_[from];
    if (flow.Has(kFlowConfirmed) && !flow.Has(kFlowDying)) visit(from, flow);
  }
  return from < fresh_ ? from : kNoFlow;
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_TABLE_H_
