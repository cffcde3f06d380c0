#include "app/firewall_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "app/clock.h"
#include "app/log.h"

namespace sluice::app {
namespace {

// Each only once, however many rules use it.
std::vector<std::string> UnsupportedRules(const tables::Ruleset& ruleset) {
  std::vector<std::string> lines;
  for (const tables::UnsupportedExpression& u : ruleset.unsupported()) {
    const tables::RuleInfo& rule = ruleset.rule(u.rule);
    const tables::ChainInfo& chain = ruleset.chain(rule.chain);
    lines.push_back(absl::StrCat("nft table ", chain.table, ", chain ", chain.name, ", rule ",
                                 rule.handle, ": ", u.name));
  }
  std::sort(lines.begin(), lines.end());
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  return lines;
}

bool HasRules(const control::nft::Ruleset& ruleset) {
  return std::any_of(ruleset.tables.begin(), ruleset.tables.end(),
                     [](const control::nft::Table& table) { return !table.chains.empty(); });
}

}  // namespace

absl::StatusOr<std::unique_ptr<FirewallControl>> FirewallControl::Open(
    const control::Config& config, uint32_t workers, uint64_t seed, Nanos now) {
  std::unique_ptr<FirewallControl> firewall(new FirewallControl(config, workers, seed));
  auto mirror = control::nft::NftMirror::Open(now);
  if (!mirror.ok()) return mirror.status();
  firewall->mirror_ = *std::move(mirror);
  firewall->Compile({.structure = true, .sets = {}}, now);
  if (firewall->current_ == nullptr && !firewall->refusal_.empty()) {
    return absl::FailedPreconditionError(firewall->refusal_);
  }
  return firewall;
}

absl::StatusOr<bool> FirewallControl::Run(Nanos now) {
  auto change = mirror_->Run(now);
  if (!change.ok()) return change.status();
  bool changed = false;
  only_packets_elements_ = !change->has_value();
  if (change->has_value() && mirror_->consistent()) {
    changed = Compile(**change, now);
    const bool first = model_change_.known && !model_change_.change.structure &&
                       model_change_.change.sets.empty();
    model_change_.known = first;
    model_change_.change = first ? *std::move(*change) : control::nft::RulesetChange();
  } else if (change->has_value()) {
    model_change_.known = false;
  }
  if (!events_.empty()) {
    // Without a ruleset in force they are of one that has gone, and must not bring it back.
    auto with = current_ != nullptr ? compiler_.ApplyEvents(events_, now) : nullptr;
    events_.clear();
    if (with != nullptr) changed |= Install(std::move(with));
  }
  return changed;
}

bool FirewallControl::Compile(const control::nft::RulesetChange& change, Nanos now) {
  const Nanos started = MonotonicNow();
  const control::nft::Ruleset& model = mirror_->ruleset();
  std::shared_ptr<const tables::Ruleset> next;
  if (!change.structure && current_ != nullptr) {
    next = compiler_.ApplyElements(model, change.sets, now);
  }
  if (next == nullptr && HasRules(model)) next = compiler_.Compile(model, now);
  last_compile_seconds_ = (MonotonicNow() - started).seconds();
  if (next == nullptr) {  // the last table has gone
    refusal_.clear();
    return current_ != nullptr && Install(nullptr);
  }
  if (change.structure && !Accept(*next)) return false;
  return Install(std::move(next));
}

// Says what Sluice leaves to the kernel, or why it does not take the ruleset.
bool FirewallControl::Accept(const tables::Ruleset& ruleset) {
  const std::vector<std::string> unsupported = UnsupportedRules(ruleset);
  if (!unsupported.empty() && refuse_) {
    refusal_ = absl::StrCat("the ruleset is not taken (unsupported: refuse): ",
                            absl::StrJoin(unsupported, "; "));
    LogError("{}", refusal_);
    return false;
  }
  refusal_.clear();
  for (const std::string& line : unsupported) {
    if (std::find(announced_.begin(), announced_.end(), line) != announced_.end()) continue;
    LogWarning("{}: connections that meet it are left to the kernel", line);
  }
  announced_ = unsupported;
  if (ruleset.has_nat(Family::kIpv4) || ruleset.has_nat(Family::kIpv6)) {
    if (const absl::Status reserved = reserved_.Reserve(nat_ports_); !reserved.ok()) {
      LogWarning("the ports of NAT cannot be reserved, so the kernel's own connections may use "
                 "the same: {}",
                 std::string(reserved.message()));
    }
  }
  LogInfo("firewall: generation {}, {} rules, compiled in {:.1f} ms", ruleset.generation(),
          ruleset.rule_count(), last_compile_seconds_ * 1e3);
  return true;
}

bool FirewallControl::Install(std::shared_ptr<const tables::Ruleset> next) {
  if (current_ != nullptr) retired_.push_back(std::move(current_));
  current_ = std::move(next);
  return true;
}

std::string FirewallControl::LogPrefix(const stages::LogRecord& record) const {
  const auto prefix_in = [&](const tables::Ruleset& ruleset) -> std::string {
    const tables::Program& program = ruleset.program();
    for (size_t op = program.first_ops[record.rule]; op < program.ops.size(); ++op) {
      if (program.ops[op].code == tables::OpCode::kLog) return program.logs[program.ops[op].a].prefix;
      if (program.ops[op].code == tables::OpCode::kEnd) break;
    }
    return {};
  };
  if (current_ != nullptr && current_->generation() == record.generation) {
    return prefix_in(*current_);
  }
  for (const auto& old : retired_) {
    if (old->generation() == record.generation) return prefix_in(*old);
  }
  return {};
}

void FirewallControl::Drain(stages::Filter& filter) {
  filter.DrainSetEvents([&](const tables::SetEvent& event) { events_.push_back(event); });
  filter.DrainLog([&](const stages::LogRecord& record) { logged_.push_back(record); });
}

}  // namespace sluice::app
