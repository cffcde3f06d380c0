#include "tables/route_table.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "absl/hash/hash.h"
#include "absl/strings/str_cat.h"

namespace sluice::tables {
namespace {

template <class H>
H Combine(H h, const IpAddress& a) {
  return H::combine(std::move(h), static_cast<uint8_t>(a.family), a.bits.hi, a.bits.lo);
}

// Route for the hash framework, without teaching it about the base types.
struct Content {
  const Route& route;

  template <class H>
  friend H AbslHashValue(H h, const Content& c) {
    const Route& r = c.route;
    h = H::combine(std::move(h), static_cast<uint8_t>(r.type), static_cast<uint8_t>(r.punt_reason),
                   r.mtu_locked, r.has_prefsrc, r.mtu, r.paths.size());
    h = Combine(std::move(h), r.prefsrc);
    for (const Path& p : r.paths) {
      h = H::combine(std::move(h), p.oif.value, p.slot.value, p.has_gateway, p.onlink, p.weight);
      h = Combine(std::move(h), p.gateway);
    }
    return h;
  }
};

size_t HashOf(const Route& route) { return absl::Hash<Content>()(Content{route}); }

const Route& NoRoute() {
  static const Route none = [] {
    Route route;
    route.type = RouteType::kUnreachable;
    return route;
  }();
  return none;
}

}  // namespace

void Rebalance(Route& route) {
  uint64_t total = 0;
  for (const Path& path : route.paths) total += path.weight;
  uint64_t sum = 0;
  for (Path& path : route.paths) {
    if (path.weight == 0) {
      path.upper_bound = -1;
      continue;
    }
    sum += path.weight;
    path.upper_bound = static_cast<int32_t>(((sum << 31) + total / 2) / total - 1);
  }
}

RouteTable::RouteTable(EpochDomain& domain, size_t limit)
    : domain_(domain),
      limit_(std::min<size_t>(limit, RouteId::kMaxValue)),
      region_((limit_ + 1) * sizeof(Slot), false),
      // Zeroed memory is what a null atomic pointer looks like on this platform.
      slots_(static_cast<Slot*>(region_.data())),
      uses_(1) {
  slots_[0].store(&NoRoute(), std::memory_order_relaxed);
}

RouteTable::~RouteTable() {
  // What waits for workers waits no longer: they are gone.
  domain_.Cancel(this);
  for (uint32_t id = 1; id < uses_.size(); ++id) {
    delete slots_[id].load(std::memory_order_relaxed);
  }
}

absl::Status RouteTable::Check(const Route& route) {
  if (route.type == RouteType::kUnicast && route.paths.empty()) {
    return absl::InvalidArgumentError("a unicast route needs a path");
  }
  if (route.paths.size() > Route::kMaxPaths) {
    return absl::InvalidArgumentError(
        absl::StrCat("a route has ", route.paths.size(), " paths, more than ", Route::kMaxPaths));
  }
  return absl::OkStatus();
}

absl::StatusOr<RouteId> RouteTable::Intern(Route route) {
  if (absl::Status status = Check(route); !status.ok()) return status;
  Rebalance(route);
  const size_t hash = HashOf(route);
  const auto [first, last] = by_content_.equal_range(hash);
  for (auto it = first; it != last; ++it) {
    if (Get(it->second) != route) continue;
    ++uses_[it->second.value];
    return it->second;
  }
  if (free_ids_.empty() && uses_.size() > limit_) domain_.Reclaim();
  RouteId id;
  if (!free_ids_.empty()) {
    id.value = free_ids_.back();
    free_ids_.pop_back();
  } else if (uses_.size() <= limit_) {
    id.value = static_cast<uint32_t>(uses_.size());
    uses_.push_back(0);
  } else {
    return absl::ResourceExhaustedError(
        absl::StrCat("all ", limit_, " distinct routes are in use"));
  }
  uses_[id.value] = 1;
  slots_[id.value].store(new Route(std::move(route)), std::memory_order_release);
  by_content_.emplace(hash, id);
  ++used_;
  return id;
}

void RouteTable::AddUse(RouteId id) { ++uses_[id.value]; }

void RouteTable::Release(RouteId id) {
  if (--uses_[id.value] != 0) return;
  Forget(id);
  --used_;
  // A worker may have read the id from the FIB just before; it still finds the route there.
  domain_.Retire(
      [](void* table, uint64_t value) {
        static_cast<RouteTable*>(table)->Reuse(static_cast<uint32_t>(value));
      },
      this, id.value);
}

void RouteTable::Reuse(uint32_t id) {
  delete slots_[id].exchange(nullptr, std::memory_order_relaxed);
  free_ids_.push_back(id);
}

absl::Status RouteTable::Replace(RouteId id, Route route) {
  if (absl::Status status = Check(route); !status.ok()) return status;
  Rebalance(route);
  Forget(id);
  by_content_.emplace(HashOf(route), id);
  const Route* old =
      slots_[id.value].exchange(new Route(std::move(route)), std::memory_order_acq_rel);
  domain_.RetireObject(std::unique_ptr<const Route>(old));
  return absl::OkStatus();
}

void RouteTable::Forget(RouteId id) {
  const auto [first, last] = by_content_.equal_range(HashOf(Get(id)));
  by_content_.erase(std::find_if(first, last, [id](const auto& e) { return e.second == id; }));
}

void RouteTable::ForEach(const std::function<void(RouteId, const Route&)>& visit) const {
  for (uint32_t value = 1; value < uses_.size(); ++value) {
    if (uses_[value] != 0) visit(RouteId{value}, Get(RouteId{value}));
  }
}

}  // namespace sluice::tables
