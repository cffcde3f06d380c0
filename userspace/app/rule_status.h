// What `show rules`, `show nat`, traces and metrics say about a compiled ruleset: names, where
// rules run, and counts. Everything is read out of tables::Ruleset, whose counters workers write,
// and out of what the early filter has counted in XDP.
//
// Thread: control, which keeps the Ruleset alive. Cost: linear in the rules; a look-up by handle is
// logarithmic.
#ifndef SLUICE_APP_RULE_STATUS_H_
#define SLUICE_APP_RULE_STATUS_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "app/live_trace.h"
#include "tables/early_left_out.h"
#include "tables/ruleset/ruleset.h"
#include "telemetry/exporter.h"
#include "telemetry/firewall_views.h"
#include "telemetry/rule_listing.h"

namespace sluice::app {

// What XDP does of a ruleset. Empty: nothing.
struct EarlyCounts {
  std::shared_ptr<const tables::EarlyLeftOut> left_out;
  std::vector<tables::PacketCount> rules;  // what XDP has counted, by rule

  bool in_xdp(uint32_t rule) const { return left_out != nullptr && left_out->rule(rule); }
};

// NFPROTO_* and nft's word for it; 0 and "" for what there is not.
std::string_view TableFamilyName(uint8_t family);
uint8_t TableFamilyOf(std::string_view name);

// "inet filter forward handle 7".
std::string RuleText(const tables::Ruleset& ruleset, uint32_t rule);
RuleNames RuleNamesOf(const tables::Ruleset& ruleset);

// For AnnotateListing. `ruleset` must outlive it.
telemetry::RuleStatusSource StatusSourceOf(const tables::Ruleset& ruleset, EarlyCounts early);

// A listed rule's text without the tabs in front and the handle behind.
std::string BareText(const telemetry::RuleLineView& line);

// How many rules there are, and where they run.
telemetry::FirewallView FirewallViewOf(const tables::Ruleset& ruleset,
                                       const tables::EarlyLeftOut* left_out);

// The rules of an annotated listing that translate.
std::vector<telemetry::NatRuleView> NatRulesOf(const tables::Ruleset& ruleset,
                                               const std::vector<telemetry::RuleLineView>& lines);

// The metrics of the ruleset, without those that others know (refused, compile time, logs).
telemetry::MetricSample::Firewall FirewallSampleOf(const tables::Ruleset& ruleset,
                                                   const EarlyCounts& early);

}  // namespace sluice::app

#endif  // SLUICE_APP_RULE_STATUS_H_
