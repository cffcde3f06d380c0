// The routes that FIB leaves name by RouteId: each distinct content once, counted by its users.
//
// Threads: Get is for workers between two quiescent points (one load from a table that never
// moves); everything else is the control thread's. A Route is immutable once it is in: Replace
// swaps in a new one under the same id (a nexthop object or an interface slot has changed: one
// store serves all prefixes), and what was replaced or released is deleted, and its id used again,
// only when every online worker has passed a quiescent point.
//
// Limits: `limit` ids, those still waiting for workers included; Intern beyond that returns
// ResourceExhausted. Intern and Release cost one hash of the content.
#ifndef SLUICE_TABLES_ROUTE_TABLE_H_
#define SLUICE_TABLES_ROUTE_TABLE_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <unordered_map>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "tables/epoch.h"
#include "tables/mapped_region.h"
#include "tables/route.h"

namespace sluice::tables {

class RouteTable {
 public:
  static constexpr size_t kDefaultLimit = size_t{1} << 20;

  // The domain must outlive the table.
  explicit RouteTable(EpochDomain& domain, size_t limit = kDefaultLimit);
  ~RouteTable();  // no worker may use it any longer
  RouteTable(const RouteTable&) = delete;
  RouteTable& operator=(const RouteTable&) = delete;

  // Workers. `id` must come from a FIB (or Intern) since the last quiescent point; None gives a
  // route of type kUnreachable without paths.
  const Route& Get(RouteId id) const { return *slots_[id.value].load(std::memory_order_acquire); }

  // Control thread. Each successful Intern is one use, given back by one Release.
  // InvalidArgument: a unicast route without a path, or more than Route::kMaxPaths.
  absl::StatusOr<RouteId> Intern(Route route);
  void AddUse(RouteId id);
  void Release(RouteId id);
  // New content for every user of `id`. Other ids keep theirs, also where the contents now agree.
  absl::Status Replace(RouteId id, Route route);
  void ForEach(const std::function<void(RouteId, const Route&)>& visit) const;

  uint32_t uses(RouteId id) const { return uses_[id.value]; }
  size_t used() const { return used_; }  // ids with a user
  size_t limit() const { return limit_; }

 private:
  using Slot = std::atomic<const Route*>;

  static absl::Status Check(const Route& route);
  void Forget(RouteId id);  // from the index by content
  void Reuse(uint32_t id);  // after the workers have passed

  EpochDomain& domain_;
  const size_t limit_;
  MappedRegion region_;
  Slot* const slots_;
  std::vector<uint32_t> uses_;
  std::vector<uint32_t> free_ids_;
  std::unordered_multimap<size_t, RouteId> by_content_;  // by hash
  size_t used_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_ROUTE_TABLE_H_
