// What the engine tells about the firewall and NAT: rules, connections, translations, and what would
// happen to a packet.
#include <algorithm>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "app/clock.h"
#include "app/engine.h"
#include "app/explain_walk.h"
#include "app/flow_collector.h"
#include "app/flow_sync.h"
#include "app/live_trace.h"
#include "app/trace_filter.h"
#include "control/netfilter/nft_listing.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {
namespace {

std::optional<uint8_t> FamilyNumber(std::string_view name) {
  constexpr std::pair<std::string_view, uint8_t> kFamilies[] = {
      {"inet", 1}, {"ip", 2}, {"arp", 3}, {"netdev", 5}, {"bridge", 7}, {"ip6", 10}};
  for (const auto& [text, number] : kFamilies) {
    if (text == name) return number;
  }
  return {};
}

// What Sluice knows about the rules that nft lists.
telemetry::RuleStatusSource StatusOf(const tables::Ruleset* ruleset) {
  telemetry::RuleStatusSource source;
  source.rule = [=](const telemetry::RuleId& id) -> std::optional<telemetry::RuleStatus> {
    const auto family = FamilyNumber(id.family);
    if (ruleset == nullptr || !family) return {};
    const uint32_t rule = ruleset->FindRule(*family, id.table, id.chain, id.handle);
    if (rule == tables::kNoRule) return {};
    telemetry::RuleStatus status{.where = "worker"};
    for (const tables::UnsupportedExpression& u : ruleset->unsupported()) {
      if (u.rule != rule) continue;
      status.where = "kernel";
      status.reason = u.name;
    }
    if (ruleset->rule(rule).counter != nullptr) {
      const tables::PacketCount count = ruleset->RuleCount(rule);
      status.counts = true;
      status.packets = count.packets;
      status.bytes = count.bytes;
    }
    return status;
  };
  source.counter = [=](std::string_view family_name, std::string_view table,
                       std::string_view name) -> std::optional<telemetry::RuleStatus> {
    const auto family = FamilyNumber(family_name);
    constexpr uint32_t kCounter = 1;  // NFT_OBJECT_COUNTER
    if (ruleset == nullptr || !family) return {};
    for (size_t i = 0; i < ruleset->objects().size(); ++i) {
      const tables::NamedObject& object = ruleset->objects()[i];
      if (object.table_family != *family || object.table != table || object.name != name ||
          object.type != kCounter) {
        continue;
      }
      telemetry::RuleStatus status{.where = "worker", .reason = "", .counts = true};
      for (uint32_t worker = 0; worker < ruleset->workers(); ++worker) {
        const tables::PacketCount count = ruleset->ObjectCount(i, worker);
        status.packets += count.packets;
        status.bytes += count.bytes;
      }
      return status;
    }
    return {};
  };
  return source;
}

}  // namespace

telemetry::FirewallView Engine::FirewallSummary() const {
  telemetry::FirewallView view;
  view.generation = firewall_->kernel_ruleset().generation;
  view.refused = firewall_->refusal();
  for (const auto& thread : workers_) {
    const tables::FlowTable& flows = thread->worker().pipeline().firewall().flows();
    view.flows += flows.size();
    view.flows_limit += flows.capacity();
  }
  const tables::Ruleset* const ruleset = firewall_->current();
  if (ruleset == nullptr) return view;
  view.generation = ruleset->generation();
  view.rules = ruleset->rule_count();
  std::set<uint32_t> unsupported;
  for (const tables::UnsupportedExpression& u : ruleset->unsupported()) unsupported.insert(u.rule);
  view.unsupported = unsupported.size();
  view.in_workers = view.rules - view.unsupported;
  view.tracking4 = ruleset->needs_conntrack(Family::kIpv4);
  view.tracking6 = ruleset->needs_conntrack(Family::kIpv6);
  return view;
}

absl::StatusOr<telemetry::RulesView> Engine::Rules() {
  const absl::StatusOr<std::string> listing = control::ListNftRuleset();
  if (!listing.ok()) return listing.status();
  telemetry::RulesView view;
  view.lines = telemetry::AnnotateListing(*listing, StatusOf(firewall_->current()));
  view.firewall = FirewallSummary();
  return view;
}

absl::StatusOr<telemetry::FlowsView> Engine::Flows(const telemetry::FlowQuery& query) {
  absl::StatusOr<FlowCollector> collector = FlowCollector::Create(query, MonotonicNow());
  if (!collector.ok()) return collector.status();
  for (const auto& thread : workers_) {
    VisitFlows(*thread, [&](const tables::Flow& flow) {
      collector->Add(flow, thread->worker().id());
    });
  }
  const telemetry::FirewallView summary = FirewallSummary();
  return collector->Take(summary.flows, summary.flows_limit);
}

telemetry::NatView Engine::Nat(const telemetry::NatQuery& query) {
  telemetry::NatView view;
  FlowCollector collector = FlowCollector::ForNat(query, MonotonicNow());
  for (const auto& thread : workers_) {
    VisitFlows(*thread, [&](const tables::Flow& flow) {
      if (!flow.Has(tables::kFlowNatMask)) return;
      ++view.mappings;
      collector.Add(flow, thread->worker().id());
    });
    view.exhausted += thread->worker().pipeline().firewall().nat().counters().exhausted.Read();
  }
  collector.TakeInto(&view);
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
  return ExplainWalk(request, *walk, {.interface = name, .ruleset = firewall_->current()});
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
