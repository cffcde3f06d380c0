#include "app/interfaces.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "app/log.h"
#include "io/af_xdp/interface_probe.h"

namespace sluice::app {

using control::InterfaceConfig;
using io::af_xdp::InterfaceAttachment;

namespace {

io::af_xdp::XdpMode ModeOf(control::XdpMode mode) {
  switch (mode) {
    case control::XdpMode::kNative:
      return io::af_xdp::XdpMode::kNative;
    case control::XdpMode::kGeneric:
      return io::af_xdp::XdpMode::kGeneric;
    case control::XdpMode::kAuto:
      break;
  }
  return io::af_xdp::XdpMode::kAuto;
}

io::af_xdp::Choice ChoiceOf(control::Choice choice) {
  switch (choice) {
    case control::Choice::kOn:
      return io::af_xdp::Choice::kOn;
    case control::Choice::kOff:
      return io::af_xdp::Choice::kOff;
    case control::Choice::kAuto:
      break;
  }
  return io::af_xdp::Choice::kAuto;
}

// Later attempts come further apart: 1, 2, 4 ... 32 seconds.
Nanos RetryDelay(uint32_t attempts) { return Seconds(1) * (int64_t{1} << std::min(attempts, 5u)); }

}  // namespace

absl::Status Interfaces::Configure(const std::vector<InterfaceConfig>& wanted) {
  if (wanted.size() > kMaxInterfaces) {
    return absl::InvalidArgumentError(
        absl::StrFormat("%d interfaces are configured, %d can be served", wanted.size(),
                        kMaxInterfaces));
  }
  for (size_t i = 0; i < kMaxInterfaces; ++i) {
    ServedInterface& served = slots_[i];
    if (served.config.name.empty()) continue;
    const auto same = std::find(wanted.begin(), wanted.end(), served.config);
    if (same != wanted.end()) continue;
    if (served.attached()) Detach(IfaceSlot{static_cast<uint8_t>(i)}, "its configuration changed");
    const auto same_name = std::find_if(wanted.begin(), wanted.end(), [&](const auto& w) {
      return w.name == served.config.name;
    });
    served = ServedInterface{};
    if (same_name != wanted.end()) served.config = *same_name;
  }
  for (const InterfaceConfig& config : wanted) {
    const auto known = std::find_if(slots_.begin(), slots_.end(), [&](const ServedInterface& s) {
      return s.config.name == config.name;
    });
    if (known != slots_.end()) continue;
    ServedInterface& slot = SlotFor(config.name);
    slot.config = config;
  }
  return absl::OkStatus();
}

// A slot's counters outlive its interface: the same name goes on counting where it stopped, and
// another one starts at nothing.
ServedInterface& Interfaces::SlotFor(const std::string& name) {
  size_t best = kMaxInterfaces;
  for (size_t i = 0; i < kMaxInterfaces; ++i) {
    if (!slots_[i].config.name.empty()) continue;
    if (last_names_[i] == name) {
      best = i;
      break;
    }
    const bool fresh = last_names_[i].empty();
    if (best == kMaxInterfaces || (fresh && !last_names_[best].empty())) best = i;
  }
  if (last_names_[best] != name && !last_names_[best].empty()) {
    const IfaceSlot slot{static_cast<uint8_t>(best)};
    for (const auto& thread : workers_) {
      thread->Call([&](WorkerThread::Worker& worker) { Reset(worker.counters().of(slot)); });
    }
  }
  last_names_[best] = name;
  return slots_[best];
}

bool Interfaces::MustDetach(const ServedInterface& served, const control::Link* link,
                            std::string& why) const {
  if (link == nullptr) {
    why = "it has vanished";
  } else if (link->ifindex != served.ifindex()) {
    why = "another device has its name now";
  } else if (served.attachment->dead()) {
    why = "its sockets have died";
  } else {
    const auto info = io::af_xdp::ProbeInterface(served.config.name);
    if (!info.ok()) return false;  // it is about to vanish; the kernel will say so
    const size_t wanted = served.config.queues.value_or(info->receive_queues);
    if (info->receive_queues == served.attachment->interface().receive_queues ||
        wanted == served.attachment->queue_count()) {
      return false;
    }
    why = absl::StrFormat("it has %d queues now", info->receive_queues);
  }
  return true;
}

absl::StatusOr<bool> Interfaces::Reconcile(const control::KernelState& kernel, bool strict,
                                           Nanos now) {
  bool changed = false;
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    ServedInterface& served = slots_[i];
    if (served.config.name.empty()) continue;
    const control::Link* const link = kernel.FindLink(served.config.name);
    std::string why;
    if (served.attached() && MustDetach(served, link, why)) {
      Detach(IfaceSlot{i}, why);
      changed = true;
      served.retry_at = now;
      served.attempts = 0;
    }
    if (served.attached()) {
      // As cheap as asking whether they have changed.
      served.attachment->SetOwnMac(link->mac);
      served.attachment->SetMtu(link->mtu);
      continue;
    }
    if (link == nullptr) {
      served.problem = "there is no such interface";
      if (!strict) continue;
      return absl::NotFoundError(absl::StrFormat(
          "%s: there is no such interface in this network namespace; `ip link` lists them",
          served.config.name));
    }
    if (!link->up()) {
      served.problem = "it is down (ip link set " + served.config.name + " up)";
      continue;
    }
    if (now < served.retry_at) continue;
    if (const absl::Status status = Attach(IfaceSlot{i}, *link); !status.ok()) {
      served.problem = std::string(status.message());
      if (strict) return status;
      const Nanos delay = RetryDelay(served.attempts++);
      served.retry_at = now + delay;
      LogError("{}; the kernel forwards its traffic meanwhile; next attempt in {} s",
               served.problem, static_cast<int>(delay.seconds()));
      continue;
    }
    changed = true;
  }
  return changed;
}

absl::Status Interfaces::Attach(IfaceSlot slot, const control::Link& link) {
  if (before_attach_) before_attach_();
  ServedInterface& served = slots_[slot.value];
  InterfaceAttachment::Options options;
  options.name = served.config.name;
  options.slot = slot;
  options.mode = ModeOf(served.config.mode);
  options.zero_copy = ChoiceOf(served.config.zero_copy);
  options.busy_poll = ChoiceOf(served.config.busy_poll);
  options.queues = static_cast<uint16_t>(served.config.queues.value_or(0));
  options.workers = static_cast<uint16_t>(workers_.size());
  options.rings = {.fill = kRingSize,
                   .receive = kRingSize,
                   .transmit = kRingSize,
                   .completion = kRingSize};
  options.fill_target = kFillFrames;
  options.early_limits = early_limits_;
  options.offload = offload_;
  const uint32_t spare_before = spare_.size();
  auto attachment = InterfaceAttachment::Open(options, arena_, spare_);
  if (!attachment.ok()) return attachment.status();
  served.attachment = std::move(*attachment);
  served.borrowed = spare_before - spare_.size();
  served.attachment->SetOwnMac(link.mac);
  GivePorts(slot);
  served.problem.clear();
  served.attempts = 0;
  served.enabled = enabled_;
  served.attachment->SetEnabled(enabled_);

  const io::af_xdp::AttachmentDescription d = served.attachment->Describe();
  if (!d.native_refusal.empty()) served.problem = "generic mode: " + d.native_refusal;
  LogInfo("{}: attached, {} XDP, {}, {} queue(s){}{}", served.config.name, d.mode,
          d.zero_copy ? "zero-copy" : "copy", d.queues,
          d.multi_buffer ? ", multi-buffer" : "",
          d.native_refusal.empty() ? "" : " (native refused: " + d.native_refusal + ")");
  return absl::OkStatus();
}

void Interfaces::GivePorts(IfaceSlot slot) {
  ServedInterface& served = slots_[slot.value];
  const size_t queues = served.attachment->queue_count();
  for (size_t q = 0; q < queues; ++q) {
    served.ports.push_back(std::make_unique<ServedPort>(
        served.attachment->port(QueueId{static_cast<uint16_t>(q)}), WorkerOf(q)));
  }
  for (const auto& thread : workers_) {
    thread->Call([&](WorkerThread::Worker& worker) {
      for (const auto& port : served.ports) {
        if (port->worker() == worker.id()) worker.AddPort(port.get());
      }
      worker.SetOutputOwner(slot, WorkerOf(worker.id().value % queues));
      worker.SetPuntDevice(slot, &served.attachment->punt());
      thread->PortsChanged();
    });
  }
}

void Interfaces::Detach(IfaceSlot slot, const std::string& why) {
  ServedInterface& served = slots_[slot.value];
  served.attachment->SetEnabled(false);
  served.leaving = true;
  if (before_detach_) before_detach_();
  for (const auto& thread : workers_) {
    thread->Call([&](WorkerThread::Worker& worker) {
      for (const auto& port : served.ports) {
        if (port->worker() == worker.id()) worker.RemovePort(port.get());
      }
      worker.ClearOutputOwner(slot);
      worker.ClearPuntDevice(slot);
      worker.ForgetInterface(slot);
      thread->PortsChanged();
    });
  }
  const uint32_t spare_before = spare_.size();
  served.attachment->Close(spare_);
  const uint32_t lost = served.attachment->frames_lost();
  const uint32_t returned = spare_.size() - spare_before;
  EvenOut(served.borrowed - std::min(served.borrowed, lost), returned);
  served.ports.clear();
  served.attachment.reset();
  served.borrowed = 0;
  served.enabled = false;
  served.leaving = false;
  served.problem = why;
  LogInfo("{}: let go: {}; the kernel forwards its traffic", served.config.name, why);
}

void Interfaces::EvenOut(uint32_t borrowed, uint32_t returned) {
  const auto share = [&](uint32_t total) {
    return static_cast<uint32_t>((total + workers_.size() - 1) / workers_.size());
  };
  if (returned > borrowed) {  // packets in flight were among them: back to the workers
    uint32_t left = returned - borrowed;
    const uint32_t each = share(left);
    for (const auto& thread : workers_) {
      const uint32_t n = std::min(each, left);
      thread->Call([&](WorkerThread::Worker& worker) {
        for (uint32_t i = 0; i < n; ++i) worker.pool().Free(spare_.Alloc());
      });
      left -= n;
    }
  } else {  // the workers' pools hold what was borrowed
    uint32_t left = borrowed - returned;
    const uint32_t each = share(left);
    for (const auto& thread : workers_) {
      const uint32_t n = std::min(each, left);
      thread->Call([&](WorkerThread::Worker& worker) {
        for (uint32_t i = 0; i < n; ++i) {
          const packet::FrameIndex frame = worker.pool().Alloc();
          if (frame == packet::kNoFrame) break;
          spare_.Free(frame);
        }
      });
      left -= n;
    }
  }
}

void Interfaces::SetEnabled(bool enabled) {
  enabled_ = enabled;
  for (ServedInterface& served : slots_) {
    if (!served.attached()) continue;
    served.enabled = enabled;
    served.attachment->SetEnabled(enabled);
  }
}

void Interfaces::Shed(WorkerId stalled, bool shed) {
  shed_[stalled.value] = shed;
  const bool any = std::find(shed_.begin(), shed_.end(), true) != shed_.end();
  for (ServedInterface& served : slots_) {
    if (!served.attached()) continue;
    served.enabled = enabled_ && !any;
    served.attachment->SetEnabled(served.enabled);
  }
}

void Interfaces::CloseAll() {
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    if (slots_[i].attached()) Detach(IfaceSlot{i}, "Sluice stops");
  }
}

IfaceSlot Interfaces::SlotOf(IfIndex ifindex) const {
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& served = slots_[i];
    if (served.attached() && !served.leaving && served.ifindex() == ifindex) return IfaceSlot{i};
  }
  return IfaceSlot::None();
}

}  // namespace sluice::app
