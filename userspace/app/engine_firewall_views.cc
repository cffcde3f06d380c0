// What the engine tells about the firewall and NAT: rules, connections, translations, and what would
// happen to a packet.
#include <string>
#include <utility>

#include "app/clock.h"
#include "app/engine.h"
#include "app/flow_collector.h"
#include "control/netfilter/nft_listing.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {
namespace {

absl::Status NotYet(const std::string& what) {
  return absl::UnavailableError(what + ": rules are the kernel's in this version");
}

}  // namespace

absl::StatusOr<telemetry::RulesView> Engine::Rules() {
  const absl::StatusOr<std::string> listing = control::ListNftRuleset();
  if (!listing.ok()) return listing.status();
  // Whatever is judged by a rule is left to the kernel (netfilter_watch.h).
  telemetry::RuleStatusSource source;
  source.rule = [](const telemetry::RuleId& id) -> std::optional<telemetry::RuleStatus> {
    if (id.family == "arp" || id.family == "bridge") return {};
    return telemetry::RuleStatus{.where = "kernel"};
  };
  telemetry::RulesView view;
  view.lines = telemetry::AnnotateListing(*listing, source);
  for (const telemetry::RuleLineView& line : view.lines) {
    if (line.handle == 0) continue;
    ++view.firewall.rules;
    if (line.where == "kernel") ++view.firewall.unsupported;
  }
  return view;
}

absl::StatusOr<telemetry::FlowsView> Engine::Flows(const telemetry::FlowQuery& query) {
  absl::StatusOr<FlowCollector> collector = FlowCollector::Create(query, MonotonicNow());
  if (!collector.ok()) return collector.status();
  return collector->Take(0, 0);  // no worker tracks connections yet
}

telemetry::NatView Engine::Nat(const telemetry::NatQuery& query) {
  telemetry::NatView view;
  FlowCollector::ForNat(query, MonotonicNow()).TakeInto(&view);
  return view;
}

absl::StatusOr<telemetry::ExplainView> Engine::Explain(const telemetry::ExplainRequest&) {
  return NotYet("explain");
}

absl::StatusOr<std::unique_ptr<telemetry::TraceStream>> Engine::Trace(
    const telemetry::TraceRequest&) {
  return NotYet("trace");
}

}  // namespace sluice::app
