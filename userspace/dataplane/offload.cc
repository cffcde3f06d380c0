#include "dataplane/offload.h"

#include <algorithm>
#include <bit>

#include "dataplane/offload_order.h"
#include "wire/flow_hash.h"

namespace sluice::dataplane {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::FlowTuple;
using tables::OffloadChange;

Offload::Offload(WorkerId worker, const OffloadConfig& config, tables::FlowTable& flows,
                 WorkerCounters& counters)
    : worker_(worker),
      memory_(config.memory),
      first_id_(config.first_id),
      ids_(config.memory.valid() ? config.ids : 0),
      adaptive_(config.adaptive),
      flows_(flows),
      counters_(counters),
      orders_(config.memory.valid() ? kOrders : 1),
      heat_seed_(config.seed * 0x9e3779b97f4a7c15ull | 1) {
  if (!enabled()) return;
  entries_ = std::make_unique<Entry[]>(ids_);
  flow_entry_memory_ = std::make_unique<tables::MappedRegion>(
      size_t{flows.capacity()} * 2 * sizeof(uint32_t), /*huge_pages=*/false);
  flow_entries_ = static_cast<uint32_t*>(flow_entry_memory_->data());
  free_.reserve(ids_);
  live_.reserve(ids_);
  resting_.reserve(ids_);
  for (uint32_t id = ids_; id-- > 0;) free_.push_back(id);
  heat_.resize(std::bit_ceil(std::max<size_t>(size_t{ids_} * 2, kHeatWays)));
  flows_.set_observer(this);
}

Offload::~Offload() {
  if (enabled()) flows_.set_observer(nullptr);
}

void Offload::BeginTick(Nanos now) {
  if (!enabled()) return;
  now_ = now;
  route_changes_ = tables::RouteChanges(memory_);
  const uint32_t world = tables::WorldGeneration(memory_);
  if (world == world_) return;
  if (now - world_since_ < kWorldPause) paused_until_ = now + kWorldPause;
  world_ = world;
  world_since_ = now;
}

void Offload::EndTick(uint64_t neighbor_changes) {
  if (neighbor_changes == neighbor_changes_ || !enabled()) return;
  neighbor_changes_ = neighbor_changes;
  if (live_.empty()) return;
  tables::BumpWorld(memory_);
  counters_.offload.invalidations.Add();
}

bool Offload::IsValid(const Entry& e) const {
  const sluice_offload_action& action = e.order.action();
  return action.world == tables::WorldGeneration(memory_) &&
         action.routes[0] == tables::RouteGeneration(memory_, action.bucket[0]) &&
         action.routes[1] == tables::RouteGeneration(memory_, action.bucket[1]);
}

bool Offload::IsPromoted(FlowIndex flow, FlowDirection direction) const {
  if (!enabled()) return false;
  const uint32_t place = flow_entries_[size_t{flow} * 2 + static_cast<size_t>(direction)];
  return place != 0 && IsValid(entries_[place - 1]);
}

// --- Flows ---

bool Offload::WantsFlow(FlowIndex index, FlowDirection direction, IfaceSlot in) {
  if (!enabled() || !MayPromote()) return false;
  const Flow& flow = flows_.at(index);
  constexpr uint32_t kNeeded =
      tables::kFlowConfirmed | tables::kFlowSeenReply | tables::kFlowAssured;
  if ((flow.status & kNeeded) != kNeeded ||
      flow.Has(tables::kFlowKernel | tables::kFlowDying | tables::kFlowFixedTimeout)) {
    return false;
  }
  if (flow.count(direction).packets < threshold_) return false;
  const uint32_t place = FlowEntry(index, direction);
  if (place == 0 || !IsValid(entries_[place - 1])) return true;
  // What still comes to the worker was on its way already, or is not for XDP; or the order failed,
  // which a scan finds out; or it comes by another interface now, and not by both.
  const Entry& e = entries_[place - 1];
  return e.in != in && now_ > e.used + kScanInterval * 2;
}

void Offload::PromoteFlow(FlowIndex index, FlowDirection direction, const OffloadWay& way,
                          const stages::FlowPath& path) {
  Flow& flow = flows_.at(index);
  const FlowTuple& tuple = flow.tuple(direction);
  uint32_t& place = FlowEntry(index, direction);
  // The interface is part of the key: under the old one nothing may stay behind.
  if (place != 0 && entries_[place - 1].in != way.in) Kill(entries_[place - 1], End::kStale);
  Entry* const e = Prepare(place == 0 ? kNoEntry : place - 1, way, tuple.family);
  if (e == nullptr) return;
  FillKey(e->order, tuple, way.in);
  FillRewrite(e->order, tuple, flow.tuple(tables::Opposite(direction)));
  e->flow = index;
  e->direction = direction;
  e->mark = flow.mark;
  e->heat = kNoEntry;
  e->rule_count = 0;
  for (tables::StateCell* const cell : path.counted()) e->rules[e->rule_count++] = cell;
  if (!Order(*e)) return;
  place = IdOf(*e) + 1;
  flow.status |= tables::kFlowOffload;
}

// --- Routes ---

Offload::HeatPlace Offload::PlaceOf(IfaceSlot in, const IpAddress& source,
                                    const IpAddress& destination) const {
  // Every bit of the addresses counts for the place: of IPv6 they differ where they like.
  uint64_t hash = wire::internal::Mix(heat_seed_ + in.value, destination.bits.lo);
  if (destination.family == Family::kIpv6) {
    hash = wire::internal::Mix(hash, destination.bits.hi);
    hash = wire::internal::Mix(hash, source.bits.hi);
  }
  hash = wire::internal::Mix(hash, source.bits.lo);
  return {.first = (hash & (heat_.size() - 1)) & ~(kHeatWays - 1),
          .tag = static_cast<uint32_t>(hash >> 32) | 1};
}

Offload::Heat* Offload::FindHeat(const HeatPlace& place) {
  for (size_t i = 0; i < kHeatWays; ++i) {
    Heat& h = heat_[place.first + i];
    if (h.tag == place.tag) return &h;
  }
  return nullptr;
}

// In the place that was used last the longest ago; null when XDP carries all of them.
Offload::Heat* Offload::MakeHeat(const HeatPlace& place) {
  const auto second = static_cast<uint16_t>(now_.count() / Seconds(1).count());
  const auto age = [&](const Heat& h) {
    return h.tag == 0 ? uint32_t{0x10000} : uint32_t{static_cast<uint16_t>(second - h.second)};
  };
  Heat* oldest = nullptr;
  for (size_t i = 0; i < kHeatWays; ++i) {
    Heat& h = heat_[place.first + i];
    if (h.entry != kNoEntry) continue;
    if (oldest == nullptr || age(h) > age(*oldest)) oldest = &h;
  }
  if (oldest != nullptr) *oldest = {.tag = place.tag, .second = second};
  return oldest;
}

bool Offload::WantsRoute(IfaceSlot in, const IpAddress& source, const IpAddress& destination) {
  if (!enabled()) return false;
  const HeatPlace place = PlaceOf(in, source, destination);
  Heat* h = FindHeat(place);
  if (h == nullptr) h = MakeHeat(place);
  if (h == nullptr) return false;
  h->second = static_cast<uint16_t>(now_.count() / Seconds(1).count());
  if (h->count < threshold_) {
    ++h->count;
    return false;
  }
  return MayPromote() && (h->entry == kNoEntry || !IsValid(entries_[h->entry]));
}

bool Offload::IsPromoted(IfaceSlot in, const IpAddress& source,
                         const IpAddress& destination) const {
  if (!enabled()) return false;
  const HeatPlace place = PlaceOf(in, source, destination);
  for (size_t i = 0; i < kHeatWays; ++i) {
    const Heat& h = heat_[place.first + i];
    if (h.tag == place.tag) return h.entry != kNoEntry && IsValid(entries_[h.entry]);
  }
  return false;
}

void Offload::PromoteRoute(const IpAddress& source, const IpAddress& destination,
                           const OffloadWay& way) {
  Heat* const h = FindHeat(PlaceOf(way.in, source, destination));
  if (h == nullptr) return;
  Entry* const e = Prepare(h->entry, way, destination.family);
  if (e == nullptr) return;
  FillKey(e->order, source, destination, way.in);
  e->flow = tables::kNoFlow;
  e->heat = static_cast<uint32_t>(h - heat_.data());
  e->rule_count = 0;
  if (Order(*e)) h->entry = IdOf(*e);
}

// --- Entries ---

Offload::Entry* Offload::Prepare(uint32_t reuse, const OffloadWay& way, Family family) {
  Entry* e = nullptr;
  if (reuse != kNoEntry) {
    e = &entries_[reuse];
    Harvest(*e);
  } else if (!free_.empty()) {
    e = &entries_[free_.back()];
  } else {
    counters_.offload.refused_full.Add();
    return nullptr;
  }
  const uint32_t epoch = e->order.action().epoch + 1;
  e->order = OffloadChange{};
  e->order.kind = OffloadChange::Kind::kAdd;
  e->order.family = e->family = family;
  if (family == Family::kIpv6) {
    e->order.key6 = {};
    e->order.entry6 = {};
  }
  sluice_offload_action& action = e->order.action();
  action.id = first_id_ + IdOf(*e);
  action.epoch = epoch == 0 ? 1 : epoch;
  action.world = world_;
  action.bucket[0] = BucketOf(way.routed);
  action.bucket[1] = way.also ? BucketOf(*way.also) : action.bucket[0];
  for (size_t i = 0; i < 2; ++i) {
    action.routes[i] = tables::RouteGeneration(memory_, action.bucket[i]);
  }
  action.mtu = static_cast<uint16_t>(std::min<uint32_t>(way.mtu, 0xffff));
  action.out = way.out.value;
  way.mac.ToWire(action.link);
  way.own_mac.ToWire(action.link + 6);
  e->in = way.in;
  e->out = way.out;
  e->mac = way.mac;
  e->next_hop = way.next_hop;
  return e;
}

// Sends the order, and makes the cell live. False: the entry stays what it was, or is free again.
bool Offload::Order(Entry& e) {
  const bool was_live = e.state == State::kLive;
  // A route has changed since this turn began, so what the packet met may be old.
  bool sent = tables::RouteChanges(memory_) == route_changes_;
  if (sent) {
    OffloadChange copy = e.order;
    sent = orders_.TryPush(std::move(copy));
    if (!sent) counters_.offload.refused_ring.Add();
  }
  const sluice_offload_action& action = e.order.action();
  if (!sent) {
    // The order of a live entry has been overwritten: it must not count as valid.
    if (was_live) e.order.action().world = world_ - 1;
    return false;
  }
  if (!was_live) {
    free_.pop_back();  // Prepare has taken the last
    e.state = State::kLive;
    e.place = static_cast<uint32_t>(live_.size());
    live_.push_back(IdOf(e));
    e.packets = e.bytes = 0;
    e.completed = 0;
    for (uint32_t cpu = 0; cpu < memory_.cpus; ++cpu) {
      const sluice_offload_cell& cell = Cell(cpu, e);
      e.packets += __atomic_load_n(&cell.packets, __ATOMIC_RELAXED);
      e.bytes += __atomic_load_n(&cell.bytes, __ATOMIC_RELAXED);
      e.completed += __atomic_load_n(&cell.completed, __ATOMIC_RELAXED);
    }
    if (live_.size() == 1) next_scan_ = now_ + kScanInterval;
  }
  for (uint32_t cpu = 0; cpu < memory_.cpus; ++cpu) {
    __atomic_store_n(&Cell(cpu, e).epoch, action.epoch, __ATOMIC_RELEASE);
  }
  e.since = e.used = now_;
  e.carried = 0;
  e.removal_sent = false;
  counters_.offload.promoted.Add();
  counters_.offload.entries.Set(live_.size());
  return true;
}

}  // namespace sluice::dataplane
