#include "app/offload_control.h"

#include <algorithm>
#include <utility>

#include "app/log.h"
#include "tables/ruleset/ruleset.h"

namespace sluice::app {

using io::af_xdp::RedirectTarget;

namespace {

constexpr Nanos kShortestDrain = Millis(2);
constexpr Nanos kLongestDrain = Millis(200);
constexpr size_t kBatch = 256;
constexpr size_t kBatchesPerTurn = 16;  // then the control thread has other things to do

bool HasAnyRule(const tables::Ruleset& ruleset, Family family) {
  for (size_t hook = 0; hook < tables::kHookPointCount; ++hook) {
    if (ruleset.Has(static_cast<tables::HookPoint>(hook), family)) return true;
  }
  return false;
}

bool IsByRoutes(uint8_t mode) {
  return mode == SLUICE_OFFLOAD_DESTINATION || mode == SLUICE_OFFLOAD_PAIR;
}

}  // namespace

absl::StatusOr<std::unique_ptr<OffloadControl>> OffloadControl::Create(control::Choice choice,
                                                                       uint32_t entries,
                                                                       uint32_t workers) {
  std::unique_ptr<OffloadControl> control(new OffloadControl(choice, entries, workers));
  auto maps = io::af_xdp::OffloadMaps::Create(entries);
  if (!maps.ok()) return maps.status();
  control->maps_ = *std::move(maps);
  control->batch_.reserve(kBatch);
  auto loss = io::af_xdp::RedirectLoss::Attach(control->maps_->fds());
  if (loss.ok()) {
    control->loss_ = *std::move(loss);
  } else {
    LogWarning("{}", std::string(loss.status().message()));
  }
  return control;
}

dataplane::OffloadConfig OffloadControl::ForWorker(WorkerId worker, uint64_t seed) const {
  const uint32_t each = entries_ / workers_;
  return {.memory = memory(),
          .first_id = each * worker.value,
          .ids = each,
          .adaptive = choice_ == control::Choice::kAuto,
          .seed = seed};
}

void OffloadControl::Leaves(const ServedInterface& served) {
  Invalidate();
  const IfaceSlot slot = served.attachment->slot();
  if (const absl::Status status = maps_->ClearDevice(slot); !status.ok()) {
    LogWarning("{}: {}", served.config.name, std::string(status.message()));
  }
  if (loss_ != nullptr) loss_->Remove(devices_[slot.value].ifindex);
  // Not the next interface's affair, should it get this place.
  tables::ReopenOutputs(memory(), uint64_t{1} << slot.value);
  closed_ &= ~(uint64_t{1} << slot.value);
  devices_[slot.value] = {};
}

bool OffloadControl::CanOutput(const Device& device) const {
  return device.target == RedirectTarget::kYes ||
         (device.target == RedirectTarget::kUnknown && choice_ == control::Choice::kOn);
}

bool OffloadControl::Probe(Served served, Nanos now) {
  const bool due = now >= next_probe_;
  if (due) {
    next_probe_ = now + kProbeInterval;
    tables::ReopenOutputs(memory(), std::exchange(closed_, 0));
  }
  bool changed = SeeClosed(served, now);
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& interface = served[i];
    if (!interface.attached() || interface.leaving) continue;
    const bool fresh = devices_[i].ifindex != interface.ifindex();
    if (fresh) {
      devices_[i] = {.ifindex = interface.ifindex()};
      if (loss_ != nullptr) {
        const absl::Status status = loss_->Add(IfaceSlot{i}, interface.ifindex());
        if (!status.ok()) LogWarning("{}", std::string(status.message()));
      }
    }
    if (due || fresh) changed |= ProbeOne(IfaceSlot{i}, interface.config.name) || fresh;
    // It may just be coming up.
    if (devices_[i].target == RedirectTarget::kUnknown) {
      next_probe_ = std::min(next_probe_, now + kUnknownInterval);
    }
  }
  return changed;
}

// Workers have stopped to use these outputs by themselves. True: the answer is another one.
bool OffloadControl::SeeClosed(Served served, Nanos now) {
  const uint64_t fresh = tables::ClosedOutputs(memory()) & ~closed_;
  if (fresh == 0) return false;
  closed_ |= fresh;
  next_probe_ = now + kProbeInterval;
  bool changed = false;
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    if ((fresh >> i & 1) == 0 || !served[i].attached() || served[i].leaving) continue;
    LogInfo("{}: the device does not take what XDP sends, {} frames so far; workers send there",
            served[i].config.name, lost_frames(IfaceSlot{i}));
    changed |= ProbeOne(IfaceSlot{i}, served[i].config.name);
  }
  return changed;
}

// True: the answer is another one.
bool OffloadControl::ProbeOne(IfaceSlot slot, const std::string& name) {
  Device& device = devices_[slot.value];
  const bool could = CanOutput(device);
  const auto info = io::af_xdp::ProbeInterface(name);
  if (!info.ok()) return false;  // it is about to vanish
  io::af_xdp::RedirectAnswer answer = io::af_xdp::ProbeRedirect(*info);
  device.target = answer.target;
  device.advice = std::move(answer.advice);
  if (CanOutput(device) && !device.in_map) {
    const absl::Status status = maps_->SetDevice(slot, device.ifindex);
    device.in_map = status.ok();
    if (!status.ok()) {
      device.target = RedirectTarget::kUnsupported;
      device.advice = std::string(status.message());
    }
  }
  const bool cannot = device.target == RedirectTarget::kNoPeerNapi ||
                      device.target == RedirectTarget::kUnsupported;
  if (cannot && !device.announced) {
    LogInfo("{}; workers send there", device.advice);
  } else if (CanOutput(device) && device.announced) {
    LogInfo("{}: XDP can send here now", name);
  }
  device.announced = cannot;
  return CanOutput(device) != could;
}

std::string OffloadControl::InputProblem(const ServedInterface& served) const {
  if (!served.attached()) return "interface " + served.config.name + ": not attached";
  if (served.attachment->Describe().mode == "native") return "";
  return "interface " + served.config.name + ": XDP runs in generic mode";
}

std::string OffloadControl::OutputProblem(IfaceSlot slot) const {
  const Device& device = devices_[slot.value];
  return CanOutput(device) ? "" : device.advice;
}

tables::OffloadModes OffloadControl::ModesOf(const ServedInterface& served,
                                             const tables::Interface& interface,
                                             const tables::Snapshot& snapshot) const {
  if (!interface.up || !InputProblem(served).empty()) return {};
  const auto mode = [&](Family family, bool kernel, bool pair) -> uint8_t {
    if (kernel) return SLUICE_OFFLOAD_OFF;
    const tables::Ruleset* const ruleset = snapshot.ruleset;
    if (ruleset != nullptr && ruleset->needs_conntrack(family)) return SLUICE_OFFLOAD_FLOW;
    if (ruleset != nullptr && HasAnyRule(*ruleset, family)) return SLUICE_OFFLOAD_OFF;
    return pair ? SLUICE_OFFLOAD_PAIR : SLUICE_OFFLOAD_DESTINATION;
  };
  return {.ipv4 = mode(Family::kIpv4, snapshot.firewall4 || snapshot.policy_routing4,
                       interface.rp_filter != 0),
          .ipv6 = mode(Family::kIpv6, snapshot.firewall6 || snapshot.policy_routing6, false)};
}

void OffloadControl::Describe(Served served, tables::Snapshot& snapshot) {
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& interface = served[i];
    if (!interface.attached()) continue;
    tables::Interface& shown = snapshot.interfaces[i];
    if (!shown.slot.valid()) {  // leaving, or not known yet
      interface.attachment->SetOffload(0);
      continue;
    }
    shown.offload = ModesOf(interface, shown, snapshot);
    shown.offload_output = shown.up && CanOutput(devices_[i]);
    const bool relays = relays_ && (IsByRoutes(shown.offload.ipv4) || IsByRoutes(shown.offload.ipv6));
    interface.attachment->SetOffload(
        SLUICE_OFFLOAD_WORD(shown.offload.ipv4, shown.offload.ipv6, i,
                            shown.checksum == tables::ChecksumMode::kComplete ? 1 : 0) |
        (relays ? SLUICE_OFFLOAD_RELAYS : 0));
  }
  SetOwnAddresses(snapshot);
}

void OffloadControl::SetOwnAddresses(const tables::Snapshot& snapshot) {
  std::array<uint64_t, SLUICE_OFFLOAD_OWN_BITS / 64> bits{};
  for (const Ipv4 address : snapshot.own4.all()) {
    const uint32_t bit = SLUICE_OFFLOAD_OWN_BIT(address.value);
    bits[bit / 64] |= uint64_t{1} << (bit % 64);
  }
  for (size_t i = 0; i < bits.size(); ++i) {
    __atomic_store_n(&memory().state->own4[i], bits[i], __ATOMIC_RELEASE);
  }
}

void OffloadControl::Drain(Workers workers, Nanos now) {
  if (now < next_drain_) return;
  bool any = false;
  for (const auto& thread : workers) {
    SpscRing<tables::OffloadChange>& orders = thread->worker().pipeline().offload().orders();
    for (size_t batch = 0; batch < kBatchesPerTurn; ++batch) {
      batch_.clear();
      tables::OffloadChange order;
      while (batch_.size() < kBatch && orders.TryPop(order)) batch_.push_back(order);
      if (batch_.empty()) break;
      any = true;
      if (const absl::Status status = maps_->Apply(batch_); !status.ok() && !failed_) {
        LogError("{}; workers carry what XDP could", std::string(status.message()));
        failed_ = true;  // once is enough
      }
    }
  }
  drain_interval_ = any ? kShortestDrain : std::min(drain_interval_ * 2, kLongestDrain);
  next_drain_ = now + std::max(drain_interval_, kShortestDrain);
}

}  // namespace sluice::app
