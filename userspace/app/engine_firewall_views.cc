// What the engine tells about the firewall and NAT: rules, connections, translations, and what would
// happen to a packet.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "app/clock.h"
#include "app/engine.h"
#include "app/explain_walk.h"
#include "app/flow_collector.h"
#include "app/flow_sync.h"
#include "app/live_trace.h"
#include "app/rule_status.h"
#include "app/trace_filter.h"
#include "control/nft/nft_listing.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {

telemetry::FirewallView Engine::FirewallState() const {
  telemetry::FirewallView view;
  if (const tables::Ruleset* const ruleset = firewall_->current()) {
    const auto left_out = early_ == nullptr ? nullptr : early_->LeftOut(*ruleset);
    view = FirewallViewOf(*ruleset, left_out.get());
  } else {
    view.generation = firewall_->kernel_ruleset().generation;
  }
  view.refused = firewall_->refusal();
  view.in_change = early_ != nullptr && !early_->settled();
  for (const auto& thread : workers_) {
    const tables::FlowTable& flows = thread->worker().pipeline().firewall().flows();
    view.flows += flows.size();
    view.flows_limit += flows.capacity();
  }
  return view;
}

EarlyCounts Engine::CountsInXdp() const {
  if (early_ == nullptr) return {};
  return early_->Counts(firewall_->current(), interfaces_->all());
}

absl::StatusOr<telemetry::RulesView> Engine::Rules() {
  const absl::StatusOr<std::string> listing = control::ListNftRuleset();
  if (!listing.ok()) return listing.status();
  const tables::Ruleset* const ruleset = firewall_->current();
  telemetry::RulesView view;
  view.firewall = FirewallState();
  view.lines = telemetry::AnnotateListing(*listing, ruleset == nullptr
                                                        ? telemetry::RuleStatusSource()
                                                        : StatusSourceOf(*ruleset, CountsInXdp()));
  return view;
}

// In portions, so that no worker is kept from its ports for long.
void Engine::ForEachFlow(const std::function<void(const tables::Flow&, WorkerId)>& visit) {
  for (const auto& thread : workers_) {
    const WorkerId worker = thread->worker().id();
    VisitFlows(*thread, [&](const tables::Flow& flow) { visit(flow, worker); });
  }
}

absl::StatusOr<telemetry::FlowsView> Engine::Flows(const telemetry::FlowQuery& query) {
  absl::StatusOr<FlowCollector> collector = FlowCollector::Create(query, MonotonicNow());
  if (!collector.ok()) return collector.status();
  const telemetry::FirewallView state = FirewallState();
  ForEachFlow([&](const tables::Flow& flow, WorkerId worker) { collector->Add(flow, worker); });
  return collector->Take(state.flows, state.flows_limit);
}

absl::StatusOr<telemetry::NatView> Engine::Nat(const telemetry::NatQuery& query) {
  telemetry::NatView view;
  view.ports_first = config_.limits.nat_ports.first;
  view.ports_last = config_.limits.nat_ports.last;
  for (const auto& thread : workers_) {
    view.exhausted += thread->worker().pipeline().firewall().nat().counters().exhausted.Read();
  }
  if (const tables::Ruleset* const ruleset = firewall_->current()) {
    const absl::StatusOr<telemetry::RulesView> rules = Rules();
    if (!rules.ok()) return rules.status();
    view.rules = NatRulesOf(*ruleset, rules->lines);
  }
  FlowCollector collector = FlowCollector::ForNat(query, MonotonicNow());
  NatAddresses addresses(workers_.size());
  ForEachFlow([&](const tables::Flow& flow, WorkerId worker) {
    collector.Add(flow, worker);
    addresses.Add(flow, worker);
  });
  collector.TakeInto(&view);
  addresses.TakeInto(&view);
  return view;
}

absl::StatusOr<telemetry::ExplainView> Engine::Explain(const telemetry::ExplainRequest& request) {
  const auto& served = interfaces_->all();
  const auto found = std::find_if(served.begin(), served.end(), [&](const ServedInterface& s) {
    return s.attached() && s.config.name == request.interface;
  });
  if (found == served.end()) {
    return absl::NotFoundError("no interface of that name is served: " + request.interface);
  }
  const IfaceSlot slot{static_cast<uint8_t>(found - served.begin())};
  if (request.frame.size() > arena_->chunk_size() - packet::kHeadroom) {
    return absl::InvalidArgumentError("the packet is larger than a frame of Sluice's");
  }
  auto walk = std::make_unique<dataplane::Walk>();
  bool done = false;
  // On the worker that would receive it: of the interface's first queue.
  workers_.front()->Call([&](WorkerThread::Worker& worker) {
    packet::Packet p;
    const auto length = static_cast<uint32_t>(request.frame.size());
    if (!worker.pipeline().outbox().NewPacket(length, p)) return;
    std::copy(request.frame.begin(), request.frame.end(), p.data);
    p.in = slot;
    // A description names no MAC addresses: it comes to the interface then.
    if (Mac::FromWire(p.data).IsZero()) worker.snapshot().at(slot).mac.ToWire(p.data);
    worker.pipeline().Explain(p, worker.snapshot(), worker.now(), *walk);
    done = true;
  });
  if (!done) return absl::ResourceExhaustedError("no frame is free; try again");
  const auto name = [&](IfaceSlot of) {
    return of.valid() ? served[of.value].config.name : std::string();
  };
  const tables::Ruleset* const ruleset = firewall_->current();
  const auto left_out =
      early_ == nullptr || ruleset == nullptr ? nullptr : early_->LeftOut(*ruleset);
  return ExplainWalk(
      request, *walk,
      {.interface = name, .ruleset = firewall_->current(), .left_out = left_out.get()});
}

absl::StatusOr<std::unique_ptr<telemetry::TraceStream>> Engine::Trace(
    const telemetry::TraceRequest& request) {
  if (live_trace_ != nullptr) {
    return absl::ResourceExhaustedError("another trace is running; there can be one at a time");
  }
  const absl::StatusOr<dataplane::PacketFilter> filter = ReadTraceFilter(request.program);
  if (!filter.ok()) return filter.status();
  LiveTrace::InterfaceNames names;
  for (size_t i = 0; i < kMaxInterfaces; ++i) names[i] = interfaces_->all()[i].config.name;
  const auto stop_workers = [this] {
    for (const auto& thread : workers_) {
      thread->Call([](WorkerThread::Worker& worker) { worker.pipeline().Trace(nullptr); });
    }
    live_trace_ = nullptr;
  };
  auto trace = std::make_unique<LiveTrace>(*filter, workers_.size(), std::move(names),
                                           MonotonicNow(), stop_workers);
  live_trace_ = trace.get();
  if (const tables::Ruleset* const ruleset = firewall_->current()) {
    trace->UseRules(RuleNamesOf(*ruleset));
  }
  for (const auto& thread : workers_) {
    dataplane::TraceSession* const session = trace->session(thread->worker().id().value);
    thread->Call([=](WorkerThread::Worker& worker) { worker.pipeline().Trace(session); });
  }
  // What XDP carries is not seen; packets of the trace's are kept from it from now on.
  if (offload_ != nullptr) offload_->Invalidate();
  return trace;
}

void Engine::EndTrace() {
  if (live_trace_ == nullptr) return;
  for (const auto& thread : workers_) {
    thread->Call([](WorkerThread::Worker& worker) { worker.pipeline().Trace(nullptr); });
  }
  live_trace_->Close();
  live_trace_ = nullptr;
}

}  // namespace sluice::app
