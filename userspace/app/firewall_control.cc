#include "app/firewall_control.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "app/clock.h"
#include "app/log.h"
#include "app/unsupported_rules.h"

namespace sluice::app {
namespace {

// What packets add to sets is gathered for so long, and so many go at once: 5,000 a second, which costs
// the control thread about a hundredth of its time.
constexpr Nanos kWriteInterval = Millis(100);
constexpr size_t kWriteAtOnce = 512;
constexpr size_t kMaxUnwritten = 16384;
constexpr Nanos kComplaintInterval = Seconds(60);

struct Found {
  const control::nft::Table* table = nullptr;
  const control::nft::Set* set = nullptr;
};
Found Find(const control::nft::Ruleset& ruleset, const control::nft::ElementChange& change) {
  for (const control::nft::Table& table : ruleset.tables) {
    if (table.family != change.family || table.name != change.table) continue;
    const auto set = table.sets.find(change.set);
    if (set != table.sets.end()) return {&table, &set->second};
  }
  return {};
}

// The statements that rules give to new elements of a set, if the set itself does not say.
std::vector<control::nft::Expr> StatementsOf(const control::nft::Table& table,
                                             const std::string& set) {
  for (const control::nft::Chain& chain : table.chains) {
    for (const control::nft::Rule& rule : chain.rules) {
      for (const control::nft::Expr& expr : rule.exprs) {
        const auto* const dynset =
            std::get_if<std::shared_ptr<const control::nft::DynsetExpr>>(&expr);
        if (dynset != nullptr && (*dynset)->set == set && !(*dynset)->exprs.empty()) {
          return (*dynset)->exprs;
        }
      }
    }
  }
  return {};
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
  if (auto writer = control::nft::SetWriter::Open(); writer.ok()) {
    firewall->writer_ = *std::move(writer);
  } else {
    LogWarning("what packets add to sets stays here: {}", std::string(writer.status().message()));
  }
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
  kernel_rules_changed_ = change->has_value() && mirror_->consistent();
  if (kernel_rules_changed_) {
    const std::string refused_before = refusal_;
    changed = Compile(**change, now);
    if (!refusal_.empty() && refusal_ != refused_before) LogError("{}", refusal_);
    const bool first = model_change_.known && !model_change_.change.structure &&
                       model_change_.change.sets.empty();
    model_change_.known = first;
    model_change_.change = first ? *std::move(*change) : control::nft::RulesetChange();
  } else if (change->has_value()) {
    model_change_.known = false;
  }
  if (!events_.empty()) {
    // Without a ruleset in force they are of one that has gone, and must not bring it back. The
    // compiler's last one may be refused: they must not bring that into force.
    const bool in_force = current_ != nullptr && refusal_.empty();
    auto with = in_force ? compiler_.ApplyEvents(events_, now) : nullptr;
    NoteUnwritten();
    events_.clear();
    if (with != nullptr) changed |= Install(std::move(with));
  }
  if (!unwritten_.empty() && now >= next_write_) WriteElements(now);
  return changed;
}

void FirewallControl::NoteUnwritten() {
  if (!writer_ || current_ == nullptr) return;
  for (const tables::SetEvent& event : events_) {
    const auto name = compiler_.NameOf(event);
    if (!name) continue;
    if (unwritten_.size() >= kMaxUnwritten) {
      ++not_written_;
      continue;
    }
    Unwritten unwritten;
    control::nft::ElementChange& change = unwritten.change;
    change.family = static_cast<control::nft::TableFamily>(name->family);
    change.table = name->table;
    change.set = name->set;
    change.removed = event.kind == tables::SetEvent::Kind::kDelete;
    change.key.assign(event.key.begin(), event.key.begin() + event.key_length);
    change.data.assign(event.data.begin(), event.data.begin() + event.data_length);
    change.timeout_ms = static_cast<uint64_t>(event.timeout.count() / 1'000'000);
    const auto [table, set] = Find(mirror_->ruleset(), change);
    if (set == nullptr) continue;
    unwritten.table = table->handle;
    unwritten.set = set->handle;
    if (event.has_statements) change.exprs = StatementsOf(*table, change.set);
    unwritten_.push_back(std::move(unwritten));
  }
}

void FirewallControl::WriteElements(Nanos now) {
  next_write_ = now + kWriteInterval;
  if (!mirror_->consistent()) return;
  const size_t count = std::min(unwritten_.size(), kWriteAtOnce);
  std::vector<control::nft::ElementChange> changes;
  for (size_t i = 0; i < count; ++i) {
    const Unwritten& unwritten = unwritten_[i];
    const auto [table, set] = Find(mirror_->ruleset(), unwritten.change);
    if (set == nullptr || table->handle != unwritten.table || set->handle != unwritten.set) continue;
    changes.push_back(unwritten.change);
  }
  const auto result = writer_->Write(changes, mirror_->ruleset().generation);
  if (result.ok() && result->stale) return;  // once the mirror has caught up
  unwritten_.erase(unwritten_.begin(), unwritten_.begin() + static_cast<std::ptrdiff_t>(count));
  not_written_ += result.ok() ? result->refused : changes.size();
  if (not_written_ == 0 || now < next_complaint_) return;
  LogWarning("{} elements that packets have added to sets are not in the kernel's sets: {}",
             not_written_,
             result.ok() ? "too many at once, or the sets are full"
                         : std::string(result.status().message()));
  not_written_ = 0;
  next_complaint_ = now + kComplaintInterval;
}

bool FirewallControl::Compile(const control::nft::RulesetChange& change, Nanos now) {
  // Elements are no remedy for a rule that was refused, and the ruleset in force, if there is one, is
  // another than the one that they are of.
  if (!change.structure && !refusal_.empty()) return false;
  const Nanos started = MonotonicNow();
  const control::nft::Ruleset& model = mirror_->ruleset();
  std::shared_ptr<const tables::Ruleset> next;
  if (!change.structure && current_ != nullptr) {
    next = compiler_.ApplyElements(model, change.sets, now);
  }
  const bool whole = next == nullptr;
  if (whole && HasRules(model)) next = compiler_.Compile(model, now);
  last_compile_seconds_ = (MonotonicNow() - started).seconds();
  if (next == nullptr) {  // the last table has gone
    refusal_.clear();
    announced_.clear();
    WarnServices();
    return current_ != nullptr && Install(nullptr);
  }
  if (whole && !Accept(*next)) return false;
  return Install(std::move(next));
}

void FirewallControl::UseServices(bool there) {
  services_ = there;
  WarnServices();
}

// What to do about packets of services, once: the kernel does not have their sockets.
void FirewallControl::WarnServices() {
  if (!services_ || announced_.empty()) {
    announced_to_services_.clear();
    return;
  }
  if (announced_ == announced_to_services_) return;
  announced_to_services_ = announced_;
  LogWarning("what is to or from services, and meets one of these rules, is lost to them, since the "
             "kernel has no such sockets: at input, output and postrouting it is refused (reason "
             "unsupported_rule), before them the kernel answers: {}",
             absl::StrJoin(announced_, "; "));
}

// Says what Sluice leaves to the kernel, or notes why it does not take the ruleset.
bool FirewallControl::Accept(const tables::Ruleset& ruleset) {
  const std::vector<std::string> unsupported = UnsupportedRules(ruleset);
  if (!unsupported.empty() && refuse_) {
    refusal_ = RefusalOf(unsupported);
    return false;
  }
  refusal_.clear();
  for (const std::string& line : unsupported) {
    if (std::find(announced_.begin(), announced_.end(), line) != announced_.end()) continue;
    LogWarning("connections that meet this rule are left to the kernel: {}", line);
  }
  announced_ = unsupported;
  WarnServices();
  if (ruleset.has_nat(Family::kIpv4) || ruleset.has_nat(Family::kIpv6)) {
    if (const absl::Status reserved = reserved_.Reserve({nat_ports_}); !reserved.ok()) {
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
