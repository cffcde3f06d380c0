// The engine's way from nothing to forwarding, and back.
#include <sched.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <random>
#include <set>

#include "absl/strings/str_format.h"
#include "app/clock.h"
#include "app/engine.h"
#include "app/flow_sync.h"
#include "app/log.h"
#include "app/notify.h"
#include "app/startup_checks.h"
#include "control/linux_setup.h"
#include "control/nft/nft_file.h"
#include "io/af_xdp/interface_probe.h"
#include "io/af_xdp/kernel_features.h"

namespace sluice::app {
namespace {

constexpr Nanos kLoadTimeout = Seconds(60);
// With 2048-byte chunks a frame has 1792 bytes behind the headroom.
constexpr uint32_t kLargestMtuOfSmallFrames = 1750;
// More frames for each worker where there are services: data waits in them.
constexpr uint32_t kServiceFrames = 8192;
// How long connections of services have at the end.
constexpr Nanos kDrainLimit = Seconds(5);

uint64_t RandomSeed() {
  std::random_device device;
  return uint64_t{device()} << 32 | device();
}

// Signals are taken from a descriptor by the control thread; every thread inherits the mask.
int BlockSignals() {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  pthread_sigmask(SIG_BLOCK, &set, nullptr);
  std::signal(SIGPIPE, SIG_IGN);
  return signalfd(-1, &set, SFD_NONBLOCK | SFD_CLOEXEC);
}

}  // namespace

Engine::Engine(RunOptions options, control::Config config)
    : options_(std::move(options)),
      config_(std::move(config)),
      started_(MonotonicNow()),
      seed_(RandomSeed()),
      control_server_([this](const std::function<void()>& task) { return tasks_.Run(task); }),
      exporter_(*this) {}

Engine::~Engine() {
  Stop();
  if (signal_fd_ >= 0) close(signal_fd_);
}

absl::Status Engine::Start() {
  signal_fd_ = BlockSignals();
  if (signal_fd_ < 0) return absl::ErrnoToStatus(errno, "signalfd");
  absl::Status status = CheckKernel(KernelRelease());
  if (status.ok()) status = CheckPrivileges();
  if (status.ok()) status = StartServers();
  if (status.ok()) status = CreateTables();
  if (status.ok()) status = control::InstallLinuxConfig(config_.linux_setup);
  if (status.ok() && !config_.linux_setup.nftables.empty()) {
    status = control::nft::LoadNftFile(config_.linux_setup.nftables);
  }
  if (status.ok()) status = StartMirror();
  if (status.ok()) status = CreateFrames();
  if (status.ok()) status = CreateEarlyFilter();
  if (status.ok()) status = StartForwarding();
  return status;
}

absl::Status Engine::StartServers() {
  control_server_.HandleViews(*this);
  if (const absl::Status status = control_server_.Start(options_.control_path); !status.ok()) {
    return status;
  }
  if (!config_.metrics.listen) return absl::OkStatus();
  const control::ListenAddress& listen = *config_.metrics.listen;
  if (const absl::Status status = exporter_.Start(ToString(listen.address), listen.port);
      !status.ok()) {
    return status;
  }
  exporter_running_ = true;
  return absl::OkStatus();
}

uint32_t Engine::WorkerCount() const {
  if (config_.workers.count) return *config_.workers.count;
  if (!config_.workers.cpus.empty()) return static_cast<uint32_t>(config_.workers.cpus.size());
  uint32_t queues = 1;
  for (const control::InterfaceConfig& config : config_.interfaces) {
    const auto info = io::af_xdp::ProbeInterface(config.name);
    if (!info.ok()) continue;  // missing: Reconcile says so in a moment
    queues = std::max<uint32_t>(queues, config.queues.value_or(info->receive_queues));
  }
  const auto cpus = static_cast<uint32_t>(WorkerCpus(1).size());
  return std::min({queues, cpus, static_cast<uint32_t>(kMaxWorkers)});
}

std::vector<uint32_t> Engine::WorkerCpus(uint32_t) const {
  if (!config_.workers.cpus.empty()) return config_.workers.cpus;
  std::vector<uint32_t> cpus;
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof set, &set) != 0) return {0};
  for (uint32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

absl::Status Engine::CreateFrames() {
  const uint32_t workers = WorkerCount();
  uint32_t frames = workers * 2048;
  service_frames_ = !config_.services.services.empty() || config_.limits.frames.has_value();
  if (!config_.services.services.empty()) frames += workers * kServiceFrames;
  const bool multi_buffer = HasMultiBuffer(io::af_xdp::RunningKernel());
  uint32_t chunk = multi_buffer ? 2048 : 4096;
  for (const control::InterfaceConfig& config : config_.interfaces) {
    const auto info = io::af_xdp::ProbeInterface(config.name);
    const uint32_t queues =
        config.queues.value_or(info.ok() ? std::max<uint32_t>(info->receive_queues, 1) : workers);
    frames += queues * app::Interfaces::kFramesPerQueue;
    if (info.ok() && info->mtu > kLargestMtuOfSmallFrames) chunk = 4096;
  }
  frames = config_.limits.frames.value_or(frames);
  chunk = config_.limits.frame_size.value_or(chunk);
  arena_ = packet::FrameArena::Create(frames, chunk);
  if (!arena_) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "no memory for %d frames of %d bytes; set limits.frames lower", frames, chunk));
  }
  spare_ = std::make_unique<packet::FramePool>(*arena_);
  for (packet::FrameIndex frame = frames; frame-- > 0;) spare_->Free(frame);
  LogInfo("{} frames of {} bytes, {} worker(s)", frames, chunk, workers);

  if (const absl::Status status = CreateOffload(workers); !status.ok()) return status;
  CreateWorkers();
  interfaces_ = std::make_unique<app::Interfaces>(*arena_, *spare_, workers_);
  if (offload_ != nullptr) interfaces_->set_offload(&offload_->maps());
  if (const absl::Status status = interfaces_->Configure(config_.interfaces); !status.ok()) {
    return status;
  }
  // The workers' share: all but what the interfaces borrow to fill their rings.
  uint32_t queues = 0;
  for (const control::InterfaceConfig& config : config_.interfaces) {
    const auto info = io::af_xdp::ProbeInterface(config.name);
    queues += config.queues.value_or(info.ok() ? std::max<uint32_t>(info->receive_queues, 1)
                                               : workers);
  }
  const uint32_t fill = std::min(frames / 2, queues * app::Interfaces::kFillFrames);
  const uint32_t each = (frames - fill) / workers;
  for (const auto& thread : workers_) {
    for (uint32_t i = 0; i < each; ++i) thread->pool().Free(spare_->Alloc());
  }
  services_ = std::make_unique<ServiceControl>(config_.limits, workers_, each);
  return absl::OkStatus();
}

absl::Status Engine::StartForwarding() {
  const auto attached = interfaces_->Reconcile(mirror_->state(), /*strict=*/true, MonotonicNow());
  if (!attached.ok()) return attached.status();
  mirror_->OnSlotsChanged();
  PublishSnapshot();
  // Before the first frame comes, so that none is judged otherwise than those after it.
  if (PrepareEarly(/*rules_changed=*/true)) InstallEarly();
  SettleEarly();
  interfaces_->set_before_attach([this] { SuspendEarly(); });
  interfaces_->set_before_detach([this] {
    for (const ServedInterface& served : interfaces_->all()) {
      if (!served.leaving) continue;
      if (early_ != nullptr) early_->Leaves(served);
      if (offload_ != nullptr) offload_->Leaves(served);
    }
    mirror_->OnSlotsChanged();
    PublishSnapshot();
  });
  TakeOverConnections();
  for (const auto& thread : workers_) thread->Start();
  for (uint8_t slot = 0; slot < kMaxInterfaces; ++slot) FillNeighborsFromKernel(IfaceSlot{slot});
  interfaces_->SetEnabled(true);
  // Not before frames come: a service that asked for a neighbour would miss the answer, and nobody asks
  // again for a second.
  ApplyServices();
  forwarding_ = true;
  TakeOverConnections();  // those that began in the kernel until now
  NotifyReady();
  for (const std::string& line : KernelDecides()) LogWarning("{}", line);
  const std::string not_ready = NotReadyReason();
  LogInfo("forwarding{}", not_ready.empty() ? "" : "; not ready yet: " + not_ready);
  return absl::OkStatus();
}

void Engine::CreateWorkers() {
  const uint32_t count = WorkerCount();
  const std::vector<uint32_t> cpus = WorkerCpus(count);
  for (uint32_t i = 0; i < count; ++i) {
    mailboxes_.push_back(std::make_unique<dataplane::Mailbox>(count));
  }
  const dataplane::Shared shared{snapshot_, epochs_, mailboxes_};
  const control::LimitsConfig& limits = config_.limits;
  const uint32_t flows = limits.flows ? std::max(*limits.flows / count, 1u)
                                      : control::kFlowsPerWorker;
  dataplane::PipelineConfig pipeline{
      .tables = {*fib4_, *fib6_, *routes_},
      .neighbor_limit = limits.neighbors,
      .seed = seed_,
      .start = MonotonicNow(),
      .firewall = {.flows = flows,
                   .flows_per_source = limits.flows_per_source,
                   .worker_count = count,
                   .nat_ports = {limits.nat_ports.first, limits.nat_ports.last},
                   .seed = seed_,
                   .start = MonotonicNow()},
      // Fragments may hold an eighth of a worker's frames, and leave a quarter to others.
      .fragments = {.datagrams = limits.fragments,
                    .frames = arena_->frame_count() / count / 8,
                    .keep_free = arena_->frame_count() / count / 4}};
  for (uint8_t i = 0; i < count; ++i) {
    if (offload_ != nullptr) pipeline.offload = offload_->ForWorker(WorkerId{i}, seed_);
    workers_.push_back(std::make_unique<WorkerThread>(WorkerId{i}, cpus[i % cpus.size()], *arena_,
                                                      shared, pipeline));
  }
}

absl::Status Engine::CreateTables() {
  tables::FibLimits limits4 = tables::Fib4::kDefaultLimits;
  tables::FibLimits limits6 = tables::Fib6::kDefaultLimits;
  limits4.routes = config_.limits.routes4;
  limits6.routes = config_.limits.routes6;
  routes_ = std::make_unique<tables::RouteTable>(epochs_, config_.limits.route_results);
  fib4_ = std::make_unique<tables::Fib4>(epochs_, limits4);
  fib6_ = std::make_unique<tables::Fib6>(epochs_, limits6);
  sink_ = std::make_unique<control::FibSink>(*routes_, *fib4_, *fib6_);
  return absl::OkStatus();
}

absl::Status Engine::StartMirror() {
  auto mirror = control::KernelMirror::Open(
      {}, *sink_,
      [this](IfIndex ifindex) {
        return interfaces_ ? interfaces_->SlotOf(ifindex) : IfaceSlot::None();
      },
      MonotonicNow());
  if (!mirror.ok()) return mirror.status();
  mirror_ = std::move(*mirror);
  mirror_->set_neighbor_observer(
      [this](const control::NeighborEvent& event) { neighbor_events_.push_back(event); });
  if (const absl::Status status =
          mirror_->LoadAll(MonotonicNow, MonotonicNow() + kLoadTimeout);
      !status.ok()) {
    return status;
  }
  neighbor_events_.clear();  // the workers take them from the state when they start
  netfilter_ = control::NetfilterWatch::Open(MonotonicNow());
  auto firewall = FirewallControl::Open(config_, WorkerCount(), seed_, MonotonicNow());
  if (!firewall.ok()) return firewall.status();
  firewall_ = std::move(*firewall);
  JudgeFirewall();
  const control::MirrorStats stats = mirror_->stats();
  LogInfo("kernel state loaded: {} IPv4 and {} IPv6 prefixes", stats.rib4.prefixes,
          stats.rib6.prefixes);
  return absl::OkStatus();
}

// Connections that are alive go on, translated ones too.
void Engine::TakeOverConnections() {
  const tables::Ruleset* const rules = firewall_->current();
  if (rules == nullptr ||
      (!rules->needs_conntrack(Family::kIpv4) && !rules->needs_conntrack(Family::kIpv6))) {
    return;
  }
  std::set<IpAddress> own;
  const control::KernelState& state = mirror_->state();
  for (const auto* const addresses : {&state.addresses4, &state.addresses6}) {
    for (const auto& [ifindex, list] : *addresses) {
      for (const control::AddressMessage& a : list) own.insert(a.address);
    }
  }
  const auto result =
      ImportFlows(workers_, [&](const IpAddress& address) { return own.contains(address); });
  if (!result.ok()) {
    LogWarning("the kernel's connections cannot be read, those that are alive may break: {}",
               std::string(result.status().message()));
  } else if (result->taken > 0) {
    LogInfo("connections taken over from the kernel: {} of {}", result->taken, result->in_kernel);
  }
}

// New clients find the kernel; those that are here may finish.
void Engine::DrainServices() {
  if (services_ == nullptr || !services_->active()) return;
  services_->Drain();
  groups_.Follow({}, interfaces_->all(), mirror_->state());
  const Nanos deadline = MonotonicNow() + kDrainLimit;
  while (!services_->Drained() && MonotonicNow() < deadline && TakeSignals()) {
    tasks_.RunAll();
    usleep(10'000);
  }
  if (!services_->Drained()) LogInfo("connections of services are cut off");
}

void Engine::Stop() {
  if (forwarding_) {
    NotifyStopping();
    DrainServices();
    FlowExporter exporter;
    exporter.Export(workers_);  // before the kernel sees a packet of them
    interfaces_->SetEnabled(false);  // from here on the kernel forwards
    exporter.Export(workers_);
    // What is already in the rings still goes out: a few turns, then the rest is dropped.
    for (int turn = 0; turn < 4; ++turn) {
      for (const auto& thread : workers_) thread->Call([](WorkerThread::Worker&) {});
      usleep(5000);
    }
    forwarding_ = false;
  }
  EndTrace();
  // Nobody asks any more, and nobody who asked waits for ever.
  tasks_.Close();
  control_server_.Stop();
  if (exporter_running_) exporter_.Stop();
  exporter_running_ = false;
  if (interfaces_) interfaces_->CloseAll();
  for (const auto& thread : workers_) thread->Stop();
  interfaces_.reset();
  early_.reset();
  services_.reset();
  workers_.clear();
  mailboxes_.clear();
  mirror_.reset();
  sink_.reset();
  offload_.reset();
  delete snapshot_.exchange(nullptr);
  firewall_.reset();
  fib4_.reset();
  fib6_.reset();
  routes_.reset();
  spare_.reset();
  arena_.reset();
}

int RunDaemon(const RunOptions& options) {
  InitLogging(options.log_level);
  control::ConfigFileResult file = control::LoadConfig(options.config_path);
  if (!file.unreadable.empty()) {
    LogError("{}", file.unreadable);
    return kExitUsage;
  }
  if (!file.result.config) {
    for (const control::ConfigError& error : file.result.errors) LogError("{}", ToString(error));
    return kExitUsage;
  }
  Engine engine(options, std::move(*file.result.config));
  absl::Status status = engine.Start();
  if (status.ok()) status = engine.Run();
  engine.Stop();
  if (status.ok()) return kExitOk;
  LogError("{}", std::string(status.message()));
  return kExitFailed;
}

}  // namespace sluice::app
