// How the engine keeps the flow tier in step; see offload_control.h.
#include "app/clock.h"
#include "app/engine.h"
#include "app/log.h"

namespace sluice::app {

// Before the workers, who write into its memory.
absl::Status Engine::CreateOffload(uint32_t workers) {
  if (config_.flow_offload == control::Choice::kOff) return absl::OkStatus();
  auto offload = OffloadControl::Create(config_.flow_offload, config_.limits.offloads, workers);
  if (!offload.ok()) {
    if (config_.flow_offload == control::Choice::kOn) return offload.status();
    LogError("XDP carries no connections, the workers carry them all: {}",
             std::string(offload.status().message()));
    return absl::OkStatus();
  }
  offload_ = *std::move(offload);
  sink_->set_offload(offload_->memory());
  return absl::OkStatus();
}

void Engine::FollowOffload() {
  if (offload_ == nullptr) return;
  const Nanos now = MonotonicNow();
  if (offload_->Probe(interfaces_->all(), now)) PublishSnapshot();
  offload_->Drain(workers_, now);
}

}  // namespace sluice::app
