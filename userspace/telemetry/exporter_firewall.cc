// Metrics of the firewall, connection tracking and NAT.
#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "telemetry/metric_families.h"

namespace sluice::telemetry {
namespace {

using RuleCount = MetricSample::RuleCount;

// Series must differ in their labels: what has the same name is one.
std::vector<RuleCount> AddedUp(std::vector<RuleCount> counts) {
  std::stable_sort(counts.begin(), counts.end(), [](const RuleCount& a, const RuleCount& b) {
    return a.has_comment && !b.has_comment;
  });
  std::map<std::tuple<std::string, std::string, std::string, std::string>, size_t> places;
  std::vector<RuleCount> out;
  for (RuleCount& count : counts) {
    const auto [place, is_new] =
        places.emplace(std::tuple(count.family, count.table, count.chain, count.name), out.size());
    if (!is_new) {
      out[place->second].packets += count.packets;
      out[place->second].bytes += count.bytes;
    } else if (out.size() < kMaxRuleSeries) {
      out.push_back(std::move(count));
    } else {
      places.erase(place);
    }
  }
  return out;
}

}  // namespace

void AddConntrack(const std::string& worker, const MetricSample::Worker& w, Families& out) {
  const ConntrackCounters& c = w.counters->conntrack;
  out.Add(Metric::kConntrackFlows, {worker}, c.current);
  const std::pair<std::string_view, const Counter&> events[] = {
      {"new", c.created},     {"expired", c.expired},       {"early_drop", c.early_dropped},
      {"invalid", c.invalid}, {"full", c.full},             {"per_source", c.per_source},
      {"clash", c.clashed},
  };
  for (const auto& [event, count] : events) {
    out.Add(Metric::kConntrackEvents, {worker, event}, count);
  }
  out.Add(Metric::kNatTranslations, {worker}, w.nat_translations);
  out.Add(Metric::kNatPortChanges, {worker}, w.nat_port_changes);
  out.Add(Metric::kNatExhausted, {worker}, w.nat_exhausted);
  out.Add(Metric::kLogLost, {worker}, w.log_lost);
}

void AddOffload(const std::string& worker, const OffloadCounters& c, Families& out) {
  out.Add(Metric::kOffloadPromotions, {worker}, c.promoted);
  out.Add(Metric::kOffloadInvalidations, {worker}, c.invalidations);
  out.Add(Metric::kOffloadEnds, {worker, "idle"}, c.ended_idle);
  out.Add(Metric::kOffloadEnds, {worker, "flow"}, c.ended_flow);
  out.Add(Metric::kOffloadEnds, {worker, "stale"}, c.ended_stale);
  out.Add(Metric::kOffloadRefusals, {worker, "full"}, c.refused_full);
  out.Add(Metric::kOffloadRefusals, {worker, "ring_full"}, c.refused_ring);
  out.Add(Metric::kOffloadRefusals, {worker, "rules"}, c.refused_rules);
}

void AddFirewall(const MetricSample::Firewall& f, Families& out) {
  out.Add(Metric::kRulesetGeneration, {}, f.generation);
  for (const LabeledCount& n : f.rules) out.Add(Metric::kRulesetRules, {n.label}, n.count);
  out.Add(Metric::kRulesetCompileSeconds, {}, f.compile_seconds);
  out.Add(Metric::kRulesetRefused, {}, uint64_t{f.refused});
  for (const RuleCount& r : AddedUp(f.rule_counts)) {
    out.Add(Metric::kRulePackets, {r.family, r.table, r.chain, r.name}, r.packets);
    out.Add(Metric::kRuleBytes, {r.family, r.table, r.chain, r.name}, r.bytes);
  }
  for (const RuleCount& r : AddedUp(f.named_counters)) {
    out.Add(Metric::kCounterPackets, {r.family, r.table, r.name}, r.packets);
    out.Add(Metric::kCounterBytes, {r.family, r.table, r.name}, r.bytes);
  }
  for (const LabeledCount& n : f.logged) out.Add(Metric::kLogPackets, {n.label}, n.count);
}

}  // namespace sluice::telemetry
