#include "app/flow_collector.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "app/flow_view.h"

namespace sluice::app {
namespace {

using tables::Flow;
using tables::FlowDirection;
using telemetry::FlowSort;

uint64_t SortKey(const Flow& flow, FlowSort sort) {
  const auto& original = flow.count(FlowDirection::kOriginal);
  const auto& reply = flow.count(FlowDirection::kReply);
  switch (sort) {
    case FlowSort::kNone:
      return 0;
    case FlowSort::kBytes:
      return original.bytes + reply.bytes;
    case FlowSort::kPackets:
      return original.packets + reply.packets;
    case FlowSort::kTimeout:
      return static_cast<uint64_t>(std::max<int64_t>(flow.expires.count(), 0));
  }
  return 0;
}

}  // namespace

absl::StatusOr<FlowCollector> FlowCollector::Create(const telemetry::FlowQuery& query, Nanos now) {
  absl::StatusOr<FlowFilter> filter = FlowFilter::Parse(query.filter);
  if (!filter.ok()) return filter.status();
  return FlowCollector(*std::move(filter), query.sort,
                       std::clamp<uint64_t>(query.limit, 1, telemetry::kMaxFlowLimit), now);
}

FlowCollector FlowCollector::ForNat(const telemetry::NatQuery& query, Nanos now) {
  return FlowCollector(*FlowFilter::Parse("status nat"), FlowSort::kNone,
                       std::clamp<uint64_t>(query.limit, 1, telemetry::kMaxFlowLimit), now);
}

bool FlowCollector::Before(const Kept& a, const Kept& b) const {
  return SortKey(a.flow, sort_) > SortKey(b.flow, sort_);
}

void FlowCollector::Add(const Flow& flow, WorkerId worker) {
  if (!filter_.Matches(flow, worker)) return;
  ++matched_;
  if (sort_ == FlowSort::kNone && kept_.size() >= limit_) return;
  kept_.push_back({flow, worker});
  if (kept_.size() >= 2 * limit_) KeepTheBest();
}

void FlowCollector::KeepTheBest() {
  if (kept_.size() <= limit_) return;
  const auto end = kept_.begin() + static_cast<ptrdiff_t>(limit_);
  std::nth_element(kept_.begin(), end, kept_.end(),
                   [this](const Kept& a, const Kept& b) { return Before(a, b); });
  kept_.erase(end, kept_.end());
}

telemetry::FlowsView FlowCollector::Take(uint64_t total, uint64_t limit) {
  KeepTheBest();
  if (sort_ != FlowSort::kNone) {
    std::stable_sort(kept_.begin(), kept_.end(),
                     [this](const Kept& a, const Kept& b) { return Before(a, b); });
  }
  telemetry::FlowsView view{.total = total, .matched = matched_, .limit = limit};
  for (const Kept& kept : kept_) view.flows.push_back(ViewOf(kept.flow, kept.worker, now_));
  return view;
}

void FlowCollector::TakeInto(telemetry::NatView* view) {
  view->mappings = matched_;
  view->truncated = matched_ > kept_.size();
  for (const Kept& kept : kept_) view->flows.push_back(NatViewOf(kept.flow, now_));
}

void NatAddresses::Add(const Flow& flow, WorkerId worker) {
  if (!flow.Has(tables::kFlowSourceNat)) return;
  const tables::FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  IpAddress address;
  address.family = reply.family;
  address.bits = reply.destination;
  const auto place = counts_.find(address);
  if (place == counts_.end() && counts_.size() >= telemetry::kMaxNatAddresses) return;
  std::vector<uint64_t>& counts = counts_[address];
  counts.resize(workers_);
  if (worker.value < workers_) ++counts[worker.value];
}

void NatAddresses::TakeInto(telemetry::NatView* view) {
  for (auto& [address, counts] : counts_) {
    const uint64_t sum = std::accumulate(counts.begin(), counts.end(), uint64_t{0});
    view->addresses.push_back({ToString(address), sum, std::move(counts)});
  }
  std::stable_sort(view->addresses.begin(), view->addresses.end(),
                   [](const auto& a, const auto& b) { return a.mappings > b.mappings; });
}

}  // namespace sluice::app
