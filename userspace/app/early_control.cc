#include "app/early_control.h"

#include <algorithm>
#include <utility>

#include "app/clock.h"
#include "app/log.h"
#include "dataplane/mailbox.h"

namespace sluice::app {
namespace {

using io::af_xdp::EarlyFilter;
using io::af_xdp::EarlyRuleCount;
using tables::EarlyLeftOut;
using tables::EarlyProgram;
using tables::EarlyRuleKey;
using tables::PacketCount;
using tables::Ruleset;

constexpr Nanos kSettleInterval = Millis(1);

EarlyFilter* FilterOf(const ServedInterface& served) {
  return served.attached() && !served.leaving ? served.attachment->early_filter() : nullptr;
}

void Add(PacketCount& sum, uint64_t packets, uint64_t bytes) {
  sum.packets += packets;
  sum.bytes += bytes;
}

uint32_t FindRule(const Ruleset& ruleset, const EarlyRuleKey& key) {
  return ruleset.FindRule(key.family, key.table, key.chain, key.handle);
}

uint64_t OwnerOf(const Ruleset* ruleset, const EarlyRuleKey& key) {
  const uint32_t rule = ruleset == nullptr ? tables::kNoRule : FindRule(*ruleset, key);
  return rule == tables::kNoRule ? 0 : ruleset->rule(rule).owner;
}

bool Same(const EarlyProgram& a, const EarlyProgram& b) {
  return a.rules == b.rules && a.sets4 == b.sets4 && a.sets6 == b.sets6 &&
         a.port_sets == b.port_sets && a.martians == b.martians;
}

}  // namespace

absl::StatusOr<std::unique_ptr<EarlyControl>> EarlyControl::Create() {
  auto limits = io::af_xdp::EarlyLimits::Create();
  if (!limits.ok()) return limits.status();
  std::unique_ptr<EarlyControl> early(new EarlyControl());
  early->limits_ = *std::move(limits);
  return early;
}

bool EarlyControl::Prepare(const control::nft::Ruleset& kernel,
                           const control::nft::RulesetChange* change, const Ruleset* compiled,
                           Served served, Nanos now) {
  std::vector<control::EarlyInterface> interfaces;
  slots_.clear();
  for (uint8_t slot = 0; slot < kMaxInterfaces; ++slot) {
    if (FilterOf(served[slot]) == nullptr) continue;
    slots_.push_back(slot);
    interfaces.push_back({served[slot].config.name, served[slot].ifindex().value});
  }
  const control::nft::Ruleset nothing;
  control::EarlyPrograms result =
      compiler_.Compile(compiled != nullptr ? kernel : nothing,
                        compiled != nullptr ? change : nullptr, interfaces, now);
  programs_ = std::move(result.programs);
  valid_until_ = result.valid_until;
  dirty_ = false;
  FollowOwners(compiled, served);
  if (state_ != State::kWorkers && Runs(served)) return false;
  state_ = State::kWorkers;
  return true;
}

bool EarlyControl::Runs(Served served) const {
  for (size_t i = 0; i < slots_.size(); ++i) {
    if (!Same(FilterOf(served[slots_[i]])->program(), *programs_[i])) return false;
  }
  return true;
}

void EarlyControl::Install(Served served, const control::Sysctls& sysctls) {
  const Nanos started = MonotonicNow();
  absl::Status status = InstallAll(served);
  if (!status.ok()) {
    const std::string why(status.message());
    if (why != failure_) LogError("XDP runs no rules, the workers run them all: {}", why);
    failure_ = why;
    for (auto& program : programs_) program = std::make_shared<const EarlyProgram>();
    // A rule that stayed in XDP would only drop what the workers' rules do not.
    if (const absl::Status empty = InstallAll(served); !empty.ok()) {
      LogError("XDP still runs rules that it should not: {}", std::string(empty.message()));
    }
  } else {
    failure_.clear();
  }
  SetChecks(served, sysctls);
  targets_.clear();
  size_t rules = 0;
  for (size_t i = 0; i < slots_.size(); ++i) {
    rules += programs_[i]->rules.size();
    for (const auto& port : served[slots_[i]].ports) {
      targets_[port.get()] = port->af_xdp().received();
    }
  }
  state_ = State::kSettling;
  LogDebug("early filter: {} rules on {} interfaces, written in {:.1f} ms", rules, slots_.size(),
           (MonotonicNow() - started).seconds() * 1e3);
}

absl::Status EarlyControl::InstallAll(Served served) {
  absl::Status status;
  EarlyFilter* last = nullptr;
  for (size_t i = 0; i < slots_.size(); ++i) {
    EarlyFilter* const filter = FilterOf(served[slots_[i]]);
    if (Same(filter->program(), *programs_[i])) continue;
    const auto retired = filter->Install(*programs_[i]);
    if (!retired.ok()) {
      status.Update(retired.status());
      continue;
    }
    Retire(*retired);
    last = filter;
  }
  if (last != nullptr) status.Update(last->Quiesce());
  return status;
}

bool EarlyControl::Settle(Served served, Interfaces::Workers workers) {
  if (state_ != State::kSettling) return false;
  for (const ServedInterface& interface : served) {
    if (!interface.attached()) continue;
    for (const auto& port : interface.ports) {
      const auto target = targets_.find(port.get());
      if (target == targets_.end() || port->af_xdp().dead()) continue;
      if (static_cast<int32_t>(port->af_xdp().taken() - target->second) < 0) return false;
    }
  }
  // What was taken is judged once the worker begins its next turn, or was handed to another worker
  // by then, which takes a burst of each peer's in a turn.
  constexpr size_t kBurst = WorkerThread::Worker::kBurst;
  const size_t turns = workers.size() == 1 ? 1 : 2 + dataplane::Mailbox::kHandoffs / kBurst;
  for (size_t turn = 0; turn < turns; ++turn) {
    for (const auto& thread : workers) thread->Call([](WorkerThread::Worker&) {});
  }
  state_ = State::kInForce;
  targets_.clear();
  return true;
}

void EarlyControl::Suspend() {
  state_ = State::kWorkers;
  dirty_ = true;
}

void EarlyControl::Leaves(const ServedInterface& served) {
  EarlyFilter* const filter = served.attached() ? served.attachment->early_filter() : nullptr;
  if (filter == nullptr) return;
  if (const auto counts = filter->ReadCounts(); counts.ok()) Retire(*counts);
  dirty_ = true;
}

void EarlyControl::SetChecks(Served served, const control::Sysctls& sysctls) {
  for (const ServedInterface& interface : served) {
    EarlyFilter* const filter = FilterOf(interface);
    if (filter == nullptr) continue;
    const auto found = sysctls.interfaces.find(interface.config.name);
    const bool known = found != sysctls.interfaces.end();
    filter->SetChecks(
        {.headers = true, .martians = true, .loopback = known && !found->second.route_localnet});
  }
}

Nanos EarlyControl::NextDeadline(Nanos now) const {
  if (dirty_) return now;
  return std::min(valid_until_, state_ == State::kSettling ? now + kSettleInterval : Nanos::Max());
}

std::shared_ptr<const EarlyLeftOut> EarlyControl::LeftOut(const Ruleset& compiled) const {
  if (state_ != State::kInForce) return nullptr;
  auto out = std::make_shared<EarlyLeftOut>();
  out->rules.resize(compiled.rule_count());
  out->policies.resize(compiled.chain_count());
  bool any = false;
  for (const auto& program : programs_) {
    for (const tables::EarlyRule& rule : program->rules) {
      const auto bits = static_cast<uint8_t>(
          rule.families | (rule.whole_packets ? EarlyLeftOut::kWholePackets : 0));
      any = true;
      if (rule.key.handle != 0) {
        const uint32_t index = FindRule(compiled, rule.key);
        if (index != tables::kNoRule) out->rules[index] |= bits;
        continue;
      }
      for (uint32_t i = 0; i < compiled.chain_count(); ++i) {
        const tables::ChainInfo& chain = compiled.chain(i);
        if (chain.table_family == rule.key.family && chain.table == rule.key.table &&
            chain.name == rule.key.chain) {
          out->policies[i] |= bits;
        }
      }
    }
  }
  if (!any) return nullptr;
  return out;
}

void EarlyControl::Retire(const std::vector<EarlyRuleCount>& counts) {
  for (const EarlyRuleCount& count : counts) {
    Add(past_[count.key].count, count.packets, count.bytes);
  }
}

EarlyControl::Totals EarlyControl::Read(Served served) const {
  Totals totals;
  for (const ServedInterface& interface : served) {
    const EarlyFilter* const filter = FilterOf(interface);
    if (filter == nullptr) continue;
    const auto counts = filter->ReadCounts();
    if (!counts.ok()) {
      LogError("{}", std::string(counts.status().message()));
      continue;
    }
    for (const EarlyRuleCount& count : *counts) Add(totals[count.key], count.packets, count.bytes);
  }
  return totals;
}

// Forgets rules that have gone; a rule with the name of one begins at nothing.
void EarlyControl::FollowOwners(const Ruleset* compiled, Served served) {
  Totals now;
  bool read = false;
  for (const auto& program : programs_) {
    for (const tables::EarlyRule& rule : program->rules) past_.try_emplace(rule.key);
  }
  for (auto at = past_.begin(); at != past_.end();) {
    auto& [key, past] = *at;
    const uint64_t owner = OwnerOf(compiled, key);
    if (owner == past.owner) {
      at = owner == 0 ? past_.erase(at) : std::next(at);
      continue;
    }
    if (!std::exchange(read, true)) now = Read(served);
    const auto found = now.find(key);
    const PacketCount counted = found == now.end() ? PacketCount{} : found->second;
    past = {owner, {0 - counted.packets, 0 - counted.bytes}};
    at = owner == 0 ? past_.erase(at) : std::next(at);
  }
}

EarlyCounts EarlyControl::Counts(const Ruleset* compiled, Served served) const {
  EarlyCounts counts;
  if (compiled == nullptr) return counts;
  counts.left_out = LeftOut(*compiled);
  counts.rules.resize(compiled->rule_count());
  Totals totals = Read(served);
  for (const auto& [key, past] : past_) {
    Add(totals[key], past.count.packets, past.count.bytes);
  }
  for (const auto& [key, count] : totals) {
    const uint32_t rule = FindRule(*compiled, key);
    if (rule != tables::kNoRule) counts.rules[rule] = count;
  }
  return counts;
}

}  // namespace sluice::app
