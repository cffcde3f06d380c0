// How the engine keeps XDP's rules in step with the workers'; see early_control.h for the order.
#include "app/clock.h"
#include "app/engine.h"
#include "app/log.h"

namespace sluice::app {

absl::Status Engine::CreateEarlyFilter() {
  if (config_.early_filter == control::Choice::kOff) return absl::OkStatus();
  auto early = EarlyControl::Create();
  if (!early.ok()) {
    if (config_.early_filter == control::Choice::kOn) return early.status();
    LogError("XDP runs no rules, the workers run them all: {}",
             std::string(early.status().message()));
    return absl::OkStatus();
  }
  early_ = *std::move(early);
  interfaces_->set_early_limits(&early_->limits());
  return absl::OkStatus();
}

bool Engine::PrepareEarly(bool rules_changed) {
  const Nanos now = MonotonicNow();
  if (early_ == nullptr || (!rules_changed && !early_->IsDue(now))) return false;
  // XDP goes on with what the workers go on with.
  if (!firewall_->refusal().empty()) return false;
  const FirewallControl::ModelChange change = firewall_->TakeModelChange();
  return early_->Prepare(firewall_->kernel_ruleset(), change.known ? &change.change : nullptr,
                         firewall_->current(), interfaces_->all(), now);
}

// A ruleset that is not taken leaves XDP as it is, until there is another.
Nanos Engine::EarlyDeadline(Nanos now) const {
  if (early_ == nullptr || !firewall_->refusal().empty()) return Nanos::Max();
  return early_->NextDeadline(now);
}

void Engine::InstallEarly() { early_->Install(interfaces_->all(), sysctls_); }

void Engine::SettleEarly() {
  if (early_ != nullptr && early_->Settle(interfaces_->all(), workers_)) PublishSnapshot();
}

void Engine::SuspendEarly() {
  if (early_ == nullptr) return;
  early_->Suspend();
  PublishSnapshot();
  MeetSnapshot();
}

}  // namespace sluice::app
