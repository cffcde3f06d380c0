// What the engine tells about the firewall and NAT: rules, connections, translations, and what would
// happen to a packet.
#include <string>
#include <utility>

#include "app/clock.h"
#include "app/engine.h"
#include "app/flow_collector.h"
#include "app/live_trace.h"
#include "app/rule_status.h"
#include "app/trace_filter.h"
#include "control/netfilter/nft_listing.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {
namespace {

absl::Status NotYet(const std::string& what) {
  return absl::UnavailableError(what + ": not in this version");
}

}  // namespace

telemetry::FirewallView Engine::FirewallState() const {
  telemetry::FirewallView view;
  if (const tables::Ruleset* const ruleset = firewall_->current()) view = FirewallViewOf(*ruleset);
  view.refused = firewall_->refusal();
  for (const auto& thread : workers_) {
    const tables::FlowTable& flows = thread->worker().pipeline().firewall().flows();
    view.flows += flows.size();
    view.flows_limit += flows.capacity();
  }
  return view;
}

absl::StatusOr<telemetry::RulesView> Engine::Rules() {
  const absl::StatusOr<std::string> listing = control::ListNftRuleset();
  if (!listing.ok()) return listing.status();
  const tables::Ruleset* const ruleset = firewall_->current();
  telemetry::RulesView view;
  view.firewall = FirewallState();
  view.lines = telemetry::AnnotateListing(
      *listing, ruleset == nullptr ? telemetry::RuleStatusSource() : StatusSourceOf(*ruleset));
  return view;
}

// In portions, so that no worker is kept from its ports for long.
void Engine::ForEachFlow(const std::function<void(const tables::Flow&, WorkerId)>& visit) {
  constexpr uint32_t kPortion = 1024;
  for (const auto& thread : workers_) {
    const WorkerId worker = thread->worker().id();
    tables::FlowIndex next = 0;
    while (next != tables::kNoFlow) {
      thread->Call([&](WorkerThread::Worker& w) {
        next = w.pipeline().firewall().flows().Visit(
            next, kPortion, [&](tables::FlowIndex, const tables::Flow& flow) {
              visit(flow, worker);
            });
      });
    }
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

absl::StatusOr<telemetry::ExplainView> Engine::Explain(const telemetry::ExplainRequest&) {
  return NotYet("explain");
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
