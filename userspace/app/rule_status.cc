#include "app/rule_status.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice::app {
namespace {

using tables::NatKind;
using tables::NatOp;
using tables::OpCode;
using tables::PacketCount;
using tables::Ruleset;
using telemetry::RuleStatus;

constexpr uint32_t kObjectCounter = 1;  // NFT_OBJECT_COUNTER

struct FamilyName {
  uint8_t number;  // NFPROTO_*
  std::string_view name;
};
constexpr FamilyName kFamilies[] = {{1, "inet"}, {2, "ip"},     {3, "arp"},
                                    {5, "netdev"}, {7, "bridge"}, {10, "ip6"}};

// Why the rule is the kernel's; empty: it is not.
std::string UnsupportedReason(const Ruleset& ruleset, uint32_t rule) {
  std::string reason;
  for (const tables::UnsupportedExpression& u : ruleset.unsupported()) {
    if (u.rule == rule) absl::StrAppend(&reason, reason.empty() ? "" : ", ", u.name);
  }
  return reason;
}

// Of workers and XDP.
PacketCount CountOf(const Ruleset& ruleset, uint32_t rule, const EarlyCounts& early) {
  PacketCount count = ruleset.RuleCount(rule);
  if (rule < early.rules.size()) {
    count.packets += early.rules[rule].packets;
    count.bytes += early.rules[rule].bytes;
  }
  return count;
}

// Input chains: what is for this machine is the kernel's (dataplane/firewall.h), but for segments that
// nobody there would know. Chains that they jump to count as the workers', which may run them elsewhere.
bool IsForThisMachine(const Ruleset& ruleset, uint32_t rule) {
  const tables::ChainInfo& chain = ruleset.chain(ruleset.rule(rule).chain);
  return chain.base && (chain.hook == tables::HookPoint::kInput ||
                        chain.hook == tables::HookPoint::kInputNat);
}

PacketCount ObjectCount(const Ruleset& ruleset, size_t object) {
  PacketCount sum;
  for (uint32_t worker = 0; worker < ruleset.workers(); ++worker) {
    const PacketCount count = ruleset.ObjectCount(object, worker);
    sum.packets += count.packets;
    sum.bytes += count.bytes;
  }
  return sum;
}

const NatOp* NatOf(const Ruleset& ruleset, uint32_t rule) {
  const tables::Program& program = ruleset.program();
  for (size_t op = program.first_ops[rule]; op < program.ops.size(); ++op) {
    if (program.ops[op].code == OpCode::kNat) return &program.nats[program.ops[op].a];
    if (program.ops[op].code == OpCode::kEnd) break;
  }
  return nullptr;
}

std::string KindText(const NatOp& nat) {
  switch (static_cast<NatKind>(nat.kind)) {
    case NatKind::kSource:
      return "snat";
    case NatKind::kDestination:
      return "dnat";
    case NatKind::kMasquerade:
      return "masquerade";
    case NatKind::kRedirect:
      return "redirect";
  }
  return "nat";
}

}  // namespace

std::string BareText(const telemetry::RuleLineView& line) {
  const size_t begin = std::min(line.text.find_first_not_of('\t'), line.text.size());
  const size_t end = line.text.rfind(" # handle ");
  return line.text.substr(begin, end == std::string::npos ? end : end - begin);
}

std::string_view TableFamilyName(uint8_t family) {
  for (const FamilyName& f : kFamilies) {
    if (f.number == family) return f.name;
  }
  return {};
}

uint8_t TableFamilyOf(std::string_view name) {
  for (const FamilyName& f : kFamilies) {
    if (f.name == name) return f.number;
  }
  return 0;
}

std::string RuleText(const Ruleset& ruleset, uint32_t rule) {
  const tables::RuleInfo& info = ruleset.rule(rule);
  const tables::ChainInfo& chain = ruleset.chain(info.chain);
  const std::string_view family = TableFamilyName(chain.table_family);
  return absl::StrCat(absl::string_view(family.data(), family.size()), " ", chain.table, " ",
                      chain.name, " handle ", info.handle);
}

RuleNames RuleNamesOf(const Ruleset& ruleset) {
  RuleNames names;
  names.generation = ruleset.generation();
  for (uint32_t i = 0; i < ruleset.rule_count(); ++i) names.names.push_back(RuleText(ruleset, i));
  for (uint32_t i = 0; i < ruleset.chain_count(); ++i) {
    const tables::ChainInfo& chain = ruleset.chain(i);
    const std::string_view family = TableFamilyName(chain.table_family);
    names.chains.push_back(absl::StrCat(absl::string_view(family.data(), family.size()), " ",
                                        chain.table, " ", chain.name, " policy drop"));
  }
  return names;
}

telemetry::RuleStatusSource StatusSourceOf(const Ruleset& ruleset, EarlyCounts early) {
  telemetry::RuleStatusSource source;
  source.rule = [&ruleset, early = std::move(early)](
                    const telemetry::RuleId& id) -> std::optional<RuleStatus> {
    const uint32_t rule =
        ruleset.FindRule(TableFamilyOf(id.family), id.table, id.chain, id.handle);
    if (rule == tables::kNoRule) return {};
    RuleStatus status;
    status.reason = UnsupportedReason(ruleset, rule);
    const bool local = IsForThisMachine(ruleset, rule);
    status.where = early.in_xdp(rule)                    ? "xdp"
                   : status.reason.empty() && !local ? "worker"
                                                     : "kernel";
    if (ruleset.rule(rule).counter != nullptr) {
      const PacketCount count = CountOf(ruleset, rule, early);
      status.counts = true;
      status.adds = local;
      status.packets = count.packets;
      status.bytes = count.bytes;
    }
    return status;
  };
  source.counter = [&ruleset](std::string_view family, std::string_view table,
                              std::string_view name) -> std::optional<RuleStatus> {
    const uint8_t number = TableFamilyOf(family);
    for (size_t i = 0; i < ruleset.objects().size(); ++i) {
      const tables::NamedObject& object = ruleset.objects()[i];
      if (object.type != kObjectCounter || object.table_family != number ||
          object.table != table || object.name != name) {
        continue;
      }
      const PacketCount count = ObjectCount(ruleset, i);
      return RuleStatus{.counts = true, .packets = count.packets, .bytes = count.bytes};
    }
    return {};
  };
  return source;
}

telemetry::FirewallView FirewallViewOf(const Ruleset& ruleset,
                                       const tables::EarlyLeftOut* left_out) {
  telemetry::FirewallView view;
  view.generation = ruleset.generation();
  view.rules = ruleset.rule_count();
  std::vector<uint32_t> unsupported;
  for (const tables::UnsupportedExpression& u : ruleset.unsupported()) {
    unsupported.push_back(u.rule);
  }
  std::sort(unsupported.begin(), unsupported.end());
  unsupported.erase(std::unique(unsupported.begin(), unsupported.end()), unsupported.end());
  view.unsupported = unsupported.size();
  if (left_out != nullptr) {
    view.in_xdp = static_cast<uint64_t>(std::count_if(
        left_out->rules.begin(), left_out->rules.end(), [](uint8_t b) { return b != 0; }));
  }
  for (uint32_t rule = 0; rule < ruleset.rule_count(); ++rule) {
    if (!IsForThisMachine(ruleset, rule)) continue;
    if (!std::binary_search(unsupported.begin(), unsupported.end(), rule)) ++view.for_this_machine;
  }
  view.in_workers = view.rules - view.unsupported - view.for_this_machine - view.in_xdp;
  view.tracking4 = ruleset.needs_conntrack(Family::kIpv4);
  view.tracking6 = ruleset.needs_conntrack(Family::kIpv6);
  return view;
}

std::vector<telemetry::NatRuleView> NatRulesOf(
    const Ruleset& ruleset, const std::vector<telemetry::RuleLineView>& lines) {
  std::vector<telemetry::NatRuleView> rules;
  for (const telemetry::RuleLineView& line : lines) {
    if (line.handle == 0) continue;
    const uint32_t rule =
        ruleset.FindRule(TableFamilyOf(line.family), line.table, line.chain, line.handle);
    const NatOp* const nat = rule == tables::kNoRule ? nullptr : NatOf(ruleset, rule);
    if (nat == nullptr) continue;
    rules.push_back({.family = line.family,
                     .table = line.table,
                     .chain = line.chain,
                     .handle = line.handle,
                     .text = BareText(line),
                     .kind = KindText(*nat),
                     .where = line.where,
                     .connections = ruleset.rule(rule).counter != nullptr
                                        ? std::optional<uint64_t>(line.packets)
                                        : std::nullopt});
  }
  return rules;
}

telemetry::MetricSample::Firewall FirewallSampleOf(const Ruleset& ruleset,
                                                   const EarlyCounts& early) {
  telemetry::MetricSample::Firewall sample;
  const telemetry::FirewallView view = FirewallViewOf(ruleset, early.left_out.get());
  sample.generation = view.generation;
  sample.rules = {{"xdp", view.in_xdp}, {"worker", view.in_workers}, {"kernel", view.unsupported},
                  {"local", view.for_this_machine}};
  for (uint32_t i = 0; i < ruleset.rule_count(); ++i) {
    const tables::RuleInfo& rule = ruleset.rule(i);
    if (rule.counter == nullptr) continue;
    const tables::ChainInfo& chain = ruleset.chain(rule.chain);
    const PacketCount count = CountOf(ruleset, i, early);
    sample.rule_counts.push_back(
        {.family = std::string(TableFamilyName(chain.table_family)),
         .table = chain.table,
         .chain = chain.name,
         .name = rule.comment.empty() ? std::to_string(rule.handle) : rule.comment,
         .has_comment = !rule.comment.empty(),
         .packets = count.packets,
         .bytes = count.bytes});
  }
  for (size_t i = 0; i < ruleset.objects().size(); ++i) {
    const tables::NamedObject& object = ruleset.objects()[i];
    if (object.type != kObjectCounter) continue;
    const PacketCount count = ObjectCount(ruleset, i);
    sample.named_counters.push_back({.family = std::string(TableFamilyName(object.table_family)),
                                     .table = object.table,
                                     .chain = "",
                                     .name = object.name,
                                     .has_comment = false,
                                     .packets = count.packets,
                                     .bytes = count.bytes});
  }
  return sample;
}

}  // namespace sluice::app
