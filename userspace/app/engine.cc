#include "app/engine.h"

#include <poll.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <ctime>

#include "app/clock.h"
#include "app/log.h"
#include "app/notify.h"
#include "app/packet_log.h"
#include "app/rule_status.h"
#include "control/mirror/snapshot_builder.h"
#include "control/nft/nft_presence.h"
#include "io/af_xdp/interface_probe.h"

namespace sluice::app {
namespace {

constexpr Nanos kHousekeeping = Seconds(1);
// How often what rules have logged and added to sets is looked for.
constexpr Nanos kDrainInterval = Millis(20);
constexpr size_t kMaxLogPrefixes = 1000;
// The kernel tells of few of them by netlink; the rest is found by reading them again.
constexpr Nanos kSysctlInterval = Seconds(5);
// Checks without a turn of its loop until a worker counts as stuck. It turns twice a second when idle.
constexpr uint32_t kStalledChecks = 3;

// Local time, as the kernel's `meta hour` has it, minus the monotonic clock.
Nanos WallOffset() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return Seconds(t.tv_sec) + Nanos(t.tv_nsec) - MonotonicNow();
}

// What the configuration says instead of the sysctls.
void ApplyTimeouts(const control::TimeoutsConfig& timeouts, tables::ConntrackSettings& settings) {
  constexpr std::string_view kPrefix = "netfilter/nf_conntrack_";
  tables::ForEachTimeout(settings, [&](std::string_view name, Nanos& timeout) {
    for (size_t i = 0; i < control::kTimeoutCount; ++i) {
      const std::string_view sysctl = control::kTimeouts[i].sysctl;
      if (timeouts.values[i] && sysctl.substr(kPrefix.size()) == name) {
        timeout = *timeouts.values[i];
      }
    }
  });
}

bool HasProxies(const tables::ServicesConfig& config) {
  return std::any_of(config.services.begin(), config.services.end(), [](const auto& service) {
    return service.kind == tables::ServiceKind::kTcpProxy ||
           service.kind == tables::ServiceKind::kUdpProxy;
  });
}

}  // namespace

absl::Status Engine::Run() {
  next_housekeeping_ = last_housekeeping_ = MonotonicNow();
  while (true) {
    if (const absl::Status status = Turn(); !status.ok()) {
      return status.code() == absl::StatusCode::kCancelled ? absl::OkStatus() : status;
    }
  }
}

absl::Status Engine::Turn() {
  Nanos now = MonotonicNow();
  const auto [events, requests] = mirror_->fds();
  pollfd fds[] = {{signal_fd_, POLLIN, 0},
                  {tasks_.fd(), POLLIN, 0},
                  {events, POLLIN, 0},
                  {requests, POLLIN, 0},
                  {firewall_->fd(), POLLIN, 0},
                  {services_->fd(), POLLIN, 0}};
  const Nanos deadline =
      std::min({next_housekeeping_, mirror_->NextDeadline(), netfilter_->NextDeadline(),
                firewall_->NextDeadline(), next_drain_, EarlyDeadline(now),
                offload_ == nullptr ? Nanos::Max() : offload_->NextDeadline()});
  const Nanos wait = std::max(deadline - now, Nanos(0));
  const timespec timeout{.tv_sec = wait.count() / Seconds(1).count(),
                         .tv_nsec = wait.count() % Seconds(1).count()};
  ppoll(fds, std::size(fds), &timeout, nullptr);

  if (!TakeSignals()) return absl::CancelledError("asked to stop");
  now = MonotonicNow();
  if (const absl::Status status = mirror_->Run(now); !status.ok()) return status;
  if (const absl::Status status = FollowKernel(); !status.ok()) return status;
  FollowOffload();
  tasks_.RunAll();
  services_->AnswerPages([this] { return telemetry::RenderMetrics(SampleHere()); });
  if (now >= next_housekeeping_) Housekeeping(now);
  epochs_.Reclaim();
  return absl::OkStatus();
}

bool Engine::TakeSignals() {
  signalfd_siginfo info;
  bool go_on = true;
  while (read(signal_fd_, &info, sizeof info) == static_cast<ssize_t>(sizeof info)) {
    if (info.ssi_signo == SIGHUP) {
      Reload();
    } else {
      LogInfo("{}: stopping", info.ssi_signo == SIGINT ? "SIGINT" : "SIGTERM");
      go_on = false;
    }
  }
  return go_on;
}

absl::Status Engine::FollowKernel() {
  const uint32_t changes = mirror_->TakeChanges();
  bool publish = (changes & control::mirror_change::kSnapshot) != 0;
  if ((changes & control::mirror_change::kLinks) != 0) {
    ReconcileInterfaces();
    publish = true;
    // IPv6 keeps its MTU in a sysctl, which follows the link's a moment after the message about it:
    // now, and once more at the next housekeeping.
    ReadSysctls();
    next_sysctls_ = MonotonicNow();
  }
  if ((changes & control::mirror_change::kSysctls) != 0) publish |= ReadSysctls();
  const bool kernel_decided = firewall_->LeavesAllToKernel();
  const auto rules_changed = FollowFirewall();
  if (!rules_changed.ok()) return rules_changed.status();
  const bool install = PrepareEarly(*rules_changed);
  const bool other = publish || presence_changed_ || install;
  if (other || *rules_changed) {
    PublishSnapshot(/*entries_stay=*/!other && firewall_->only_packets_elements());
  }
  presence_changed_ = false;
  if (*rules_changed) {
    AdoptRules();
    if (kernel_decided) TakeOverConnections();  // those that began meanwhile
  } else if (install) {
    MeetSnapshot();
  }
  if (install) InstallEarly();
  SettleEarly();
  if (!neighbor_events_.empty()) SendNeighbors();
  return absl::OkStatus();
}

absl::StatusOr<bool> Engine::FollowFirewall() {
  const Nanos now = MonotonicNow();
  if (now >= next_drain_) {
    DrainRules();
    const tables::Ruleset* const rules = firewall_->current();
    const bool busy = rules != nullptr && (rules->has_dynamic_sets() || rules->logs());
    next_drain_ = busy ? now + kDrainInterval : Nanos::Max();
  }
  const auto changed = firewall_->Run(now);
  if (!changed.ok()) return changed.status();
  const bool others = netfilter_->Run(now);
  if (firewall_->kernel_rules_changed() || others) JudgeFirewall();
  return *changed;
}

// What the kernel is left to decide on account of netfilter.
void Engine::JudgeFirewall() {
  control::FirewallPresence presence = control::nft::JudgeRuleset(firewall_->kernel_ruleset());
  Merge(netfilter_->presence(), presence);
  if (firewall_->LeavesAllToKernel()) {
    Merge({.forward4 = true,
           .forward6 = true,
           .input4 = true,
           .input6 = true,
           .reasons = {"the nftables ruleset is refused (unsupported: refuse), and there is none "
                       "before it"}},
          presence);
  }
  if (presence == presence_) return;
  const bool announce = presence.reasons != presence_.reasons && forwarding_;
  presence_ = std::move(presence);
  presence_changed_ = true;
  if (!announce) return;
  const std::vector<std::string> lines = KernelDecides();
  for (const std::string& line : lines) LogWarning("{}", line);
  if (lines.empty()) LogInfo("no netfilter rules or ip rules in the way any more");
}

bool Engine::ReadSysctls() {
  std::vector<std::string> names;
  for (const ServedInterface& served : interfaces_->all()) {
    if (served.attached()) names.push_back(served.config.name);
  }
  control::Sysctls sysctls = sysctl_reader_.Read(names);
  next_sysctls_ = MonotonicNow() + kSysctlInterval;
  if (sysctls == sysctls_) return false;
  sysctls_ = std::move(sysctls);
  return true;
}

void Engine::ReconcileInterfaces() {
  std::array<bool, kMaxInterfaces> before{};
  for (size_t i = 0; i < kMaxInterfaces; ++i) before[i] = interfaces_->all()[i].attached();
  const auto changed =
      interfaces_->Reconcile(mirror_->state(), /*strict=*/false, MonotonicNow());
  groups_.Follow(config_.services, interfaces_->all(), mirror_->state());
  if (!changed.ok() || !*changed) return;
  mirror_->OnSlotsChanged();
  PublishSnapshot();
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    if (!before[i] && interfaces_->all()[i].attached()) FillNeighborsFromKernel(IfaceSlot{i});
  }
}

void Engine::ApplyServices() {
  tables::ServicesConfig services = config_.services;
  GroupControl::Place(services, interfaces_->all());
  services_->Apply(services);
  firewall_->UseServices(!services.services.empty());
  groups_.Follow(services, interfaces_->all(), mirror_->state());
}

void Engine::PublishSnapshot(bool entries_stay) {
  std::vector<control::ServedInterface> served;
  for (uint8_t i = 0; i < kMaxInterfaces; ++i) {
    const ServedInterface& interface = interfaces_->all()[i];
    if (!interface.attached() || interface.leaving) continue;
    const control::Choice checksum = interface.config.checksum;
    const bool complete = checksum == control::Choice::kOn ||
                          (checksum == control::Choice::kAuto &&
                           interface.attachment->interface().is_virtual);
    served.push_back({.slot = IfaceSlot{i},
                      .name = interface.config.name,
                      .checksum = complete ? tables::ChecksumMode::kComplete
                                           : tables::ChecksumMode::kTrust});
    if (!sysctls_.interfaces.contains(interface.config.name)) ReadSysctls();
  }
  auto snapshot = std::make_unique<tables::Snapshot>(control::BuildSnapshot(
      mirror_->state(), sysctls_, served, presence_, ++generation_));
  snapshot->ruleset = firewall_->current();
  if (early_ != nullptr) {
    if (snapshot->ruleset != nullptr) snapshot->left_out = early_->LeftOut(*snapshot->ruleset);
    early_->SetChecks(interfaces_->all(), sysctls_);
  }
  snapshot->wall_offset = WallOffset();
  ApplyTimeouts(config_.timeouts, snapshot->conntrack);
  if (config_.limits.flows) snapshot->conntrack.max = 0;  // the table's size is the limit
  if (config_.limits.neighbor_queue) {
    for (tables::Interface& interface : snapshot->interfaces) {
      interface.neighbor4.unres_qlen_packets = *config_.limits.neighbor_queue;
      interface.neighbor6.unres_qlen_packets = *config_.limits.neighbor_queue;
    }
  }
  if (!entries_stay) ++offload_generation_;
  snapshot->offload_generation = offload_generation_;
  if (offload_ != nullptr) {
    if (!entries_stay) offload_->Invalidate();
    if (HasProxies(config_.services)) offload_->ExpectRelays();
    offload_->Describe(interfaces_->all(), *snapshot);
  }
  const tables::Snapshot* const old =
      snapshot_.exchange(snapshot.release(), std::memory_order_acq_rel);
  if (offload_ != nullptr && !entries_stay) offload_->Invalidate();
  if (old != nullptr) {
    epochs_.RetireObject(std::unique_ptr<tables::Snapshot>(const_cast<tables::Snapshot*>(old)));
  }
}

void Engine::MeetSnapshot() {
  for (const auto& thread : workers_) {
    thread->Call([](WorkerThread::Worker& worker) {
      worker.pipeline().SeeSnapshot(worker.snapshot(), worker.now());
    });
  }
}

// Until every worker has seen the new rules the old ones stay.
void Engine::AdoptRules() {
  if (live_trace_ != nullptr && firewall_->current() != nullptr) {
    live_trace_->UseRules(RuleNamesOf(*firewall_->current()));
  }
  MeetSnapshot();
  DrainRules();  // while what was logged can still be named
  firewall_->Retire();
  next_drain_ = Nanos();
}

void Engine::DrainRules() {
  for (const auto& thread : workers_) {
    firewall_->Drain(thread->worker().pipeline().firewall().filter());
  }
  const auto name = [&](IfaceSlot slot) {
    return slot.valid() ? interfaces_->all()[slot.value].config.name : std::string();
  };
  for (const stages::LogRecord& record : firewall_->TakeLogged()) {
    const std::string prefix = firewall_->LogPrefix(record);
    LogInfo("{}", FormatLoggedPacket(record, prefix, name(record.in), name(record.out)));
    // Prefixes that came and went with their rules must not fill memory.
    if (log_counts_.size() < kMaxLogPrefixes || log_counts_.contains(prefix)) ++log_counts_[prefix];
  }
}

// New connections that found no port, since the last look.
void Engine::WatchNat() {
  uint64_t exhausted = 0;
  for (const auto& thread : workers_) {
    exhausted += thread->worker().pipeline().firewall().nat().counters().exhausted.Read();
  }
  if (exhausted > nat_exhausted_) {
    LogWarning("NAT has no free port (limits.nat_ports, or the rule's range): {} new connections "
               "refused", exhausted - nat_exhausted_);
  }
  nat_exhausted_ = exhausted;
}

void Engine::Housekeeping(Nanos now) {
  WatchWorkers();
  WatchNat();
  ReconcileInterfaces();
  ExportNeighbors(now);
  if (now >= next_sysctls_ && ReadSysctls()) PublishSnapshot();
  NotifyWatchdog();
  last_housekeeping_ = now;
  next_housekeeping_ = now + kHousekeeping;
}

void Engine::WatchWorkers() {
  const Nanos now = MonotonicNow();
  const double elapsed = std::max((now - last_housekeeping_).seconds(), 1e-3);
  for (const auto& thread : workers_) {
    WorkerWatch& watch = watches_[thread->worker().id().value];
    const uint64_t loops = thread->worker().counters().loops.Read();
    const uint64_t busy = thread->worker().counters().busy_ns.Read();
    watch.busy_ratio = static_cast<double>(busy - watch.busy_ns) / 1e9 / elapsed;
    watch.busy_ns = busy;
    const bool turns = loops != watch.loops;
    watch.loops = loops;
    watch.idle_checks = turns ? 0 : watch.idle_checks + 1;
    const bool stalled = watch.idle_checks >= kStalledChecks;
    if (stalled == watch.stalled) continue;
    watch.stalled = stalled;
    interfaces_->Shed(thread->worker().id(), stalled);
    if (stalled) {
      LogError("worker {} does not turn; the kernel forwards until it does",
               thread->worker().id().value);
    } else {
      LogInfo("worker {} turns again", thread->worker().id().value);
    }
  }
}

void Engine::Reload() {
  NotifyReloading();
  control::ConfigFileResult file = control::LoadConfig(options_.config_path);
  if (!file.unreadable.empty() || !file.result.config) {
    LogError("reload: {}; the running configuration stays",
             file.unreadable.empty() ? "the configuration has errors" : file.unreadable);
    for (const control::ConfigError& error : file.result.errors) LogError("{}", ToString(error));
    NotifyReady();
    return;
  }
  control::Config config = std::move(*file.result.config);
  if (config.workers != config_.workers || config.limits != config_.limits ||
      config.metrics != config_.metrics || config.early_filter != config_.early_filter ||
      config.flow_offload != config_.flow_offload || config.unsupported != config_.unsupported) {
    LogWarning("reload: workers, limits, metrics, unsupported, early_filter and flow_offload change "
               "at the next start only");
    config.workers = config_.workers;
    config.limits = config_.limits;
    config.metrics = config_.metrics;
    config.unsupported = config_.unsupported;
    config.early_filter = config_.early_filter;
    config.flow_offload = config_.flow_offload;
  }
  // By the limits that hold, which need not be the file's.
  const std::string problem = control::ServiceLimitsProblem(config);
  const absl::Status status = problem.empty() ? interfaces_->Configure(config.interfaces)
                                              : absl::FailedPreconditionError(problem);
  if (!status.ok()) {
    LogError("reload: {}; the running configuration stays", std::string(status.message()));
  } else {
    config_ = std::move(config);
    mirror_->OnSlotsChanged();
    PublishSnapshot();
    ReconcileInterfaces();
    if (!services_->active() && !config_.services.services.empty() && !service_frames_) {
      LogWarning("reload: the frames for data of services come at the next start only; until then "
                 "they have a part of those for forwarding");
    }
    ApplyServices();
    LogInfo("reloaded {}", options_.config_path);
  }
  NotifyReady();
}

}  // namespace sluice::app
