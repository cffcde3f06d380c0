// The running Sluice: everything the control thread owns, and its loop.
//
//   kernel mirror --> FIBs, routes (in place)          interfaces --> sockets, XDP programs
//             \--> snapshot (published whole) --> workers <--/
//
// Start order: checks, listening sockets, the kernel's state, workers, interfaces, and only then is
// XDP told to hand over frames. Stop is the reverse: XDP passes everything to the kernel first. When
// the process dies instead, its bpf_links vanish with it, which comes to the same.
//
// Thread: control; the HTTP servers come in through the task queue.
#ifndef SLUICE_APP_ENGINE_H_
#define SLUICE_APP_ENGINE_H_

#include <array>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "app/control_server.h"
#include "app/early_control.h"
#include "app/firewall_control.h"
#include "app/group_control.h"
#include "app/interfaces.h"
#include "app/live_trace.h"
#include "app/offload_control.h"
#include "app/run.h"
#include "app/service_control.h"
#include "app/task_queue.h"
#include "app/worker_thread.h"
#include "control/config.h"
#include "control/mirror/kernel_mirror.h"
#include "control/mirror/sysctl.h"
#include "control/neighbor_writer.h"
#include "control/netfilter/netfilter_watch.h"
#include "control/nft/nft_mirror.h"
#include "control/rib/fib_sink.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "stages/neighbor/neighbor_state.h"
#include "tables/epoch.h"
#include "tables/fib.h"
#include "tables/route_table.h"
#include "tables/snapshot.h"
#include "telemetry/exporter.h"
#include "telemetry/views.h"

namespace sluice::app {

class Engine final : public telemetry::ViewSource, public telemetry::MetricSource {
 public:
  Engine(RunOptions options, control::Config config);
  ~Engine() override;

  // Everything up to forwarding. On an error nothing stays attached.
  absl::Status Start();
  // Until SIGTERM or SIGINT; SIGHUP reloads.
  absl::Status Run();
  void Stop();

  // telemetry::ViewSource, on the control thread.
  telemetry::ReadyView Ready() override;
  telemetry::StatusView Status() override;
  std::vector<telemetry::InterfaceView> Interfaces() override;
  telemetry::RoutesView Routes(const telemetry::RouteFilter& filter) override;
  std::vector<telemetry::NeighborView> Neighbors() override;
  std::vector<telemetry::WorkerView> Workers() override;
  std::vector<telemetry::DropView> Drops() override;
  telemetry::SocketsView Sockets(uint64_t limit) override;
  std::vector<telemetry::ServiceView> Services() override;
  absl::StatusOr<telemetry::RulesView> Rules() override;
  absl::StatusOr<telemetry::FlowsView> Flows(const telemetry::FlowQuery& query) override;
  absl::StatusOr<telemetry::NatView> Nat(const telemetry::NatQuery& query) override;
  absl::StatusOr<telemetry::ExplainView> Explain(const telemetry::ExplainRequest& request) override;
  absl::StatusOr<std::unique_ptr<telemetry::TraceStream>> Trace(
      const telemetry::TraceRequest& request) override;
  // telemetry::MetricSource: called on the HTTP thread, answered by the control thread.
  telemetry::MetricSample Sample() override;

 private:
  // --- Start (engine_start.cc) ---
  absl::Status StartServers();
  absl::Status StartMirror();
  absl::Status CreateTables();
  absl::Status CreateFrames();  // and the workers that own them
  absl::Status StartForwarding();
  void CreateWorkers();
  void TakeOverConnections();
  void DrainServices();
  uint32_t WorkerCount() const;
  std::vector<uint32_t> WorkerCpus(uint32_t count) const;

  // --- The loop ---
  absl::Status Turn();
  bool TakeSignals();  // false: asked to stop
  void Housekeeping(Nanos now);
  void WatchWorkers();
  void WatchNat();
  void Reload();
  void ReconcileInterfaces();
  void ApplyServices();
  absl::Status FollowKernel();
  absl::StatusOr<bool> FollowFirewall();  // true when there are other rules
  void JudgeFirewall();
  bool ReadSysctls();  // true when any has changed
  // `entries_stay`: what the flow tier's entries were made of is as it was.
  void PublishSnapshot(bool entries_stay = false);
  void MeetSnapshot();  // returns when every worker uses the one in force
  // --- The early filter (engine_early.cc) ---
  absl::Status CreateEarlyFilter();
  bool PrepareEarly(bool rules_changed);  // true: InstallEarly is to follow
  void InstallEarly();
  Nanos EarlyDeadline(Nanos now) const;
  void SettleEarly();
  void SuspendEarly();
  // --- The flow tier (engine_offload.cc) ---
  absl::Status CreateOffload(uint32_t workers);
  void FollowOffload();

  void AdoptRules();
  void DrainRules();

  // --- Neighbours (engine_neighbors.cc) ---
  void SendNeighbors();
  void FillNeighborsFromKernel(IfaceSlot slot);
  void ForEachNeighbor(
      const std::function<void(const stages::NeighborInfo&, WorkerId, Nanos)>& visit);
  void ExportNeighbors(Nanos now);

  // --- Views (engine_views.cc, engine_firewall_views.cc) ---
  void EndTrace();  // before the workers end
  telemetry::FirewallView FirewallState() const;
  EarlyCounts CountsInXdp() const;
  void ForEachFlow(const std::function<void(const tables::Flow&, WorkerId)>& visit);
  telemetry::MetricSample SampleHere();
  telemetry::PacketTotals Totals() const;
  std::vector<telemetry::TableUse> TableUses() const;
  uint64_t OffloadEntries() const;
  telemetry::TiersView Tiers() const;
  std::vector<telemetry::LabeledCount> FramesOf(const WorkerThread& thread) const;
  uint64_t Sum(IfaceSlot slot, Counter InterfaceCounters::*counter) const;
  std::string NotReadyReason() const;
  std::vector<std::string> KernelDecides() const;

  struct WorkerWatch {
    uint64_t loops = 0;
    uint32_t idle_checks = 0;  // housekeepings without a turn
    bool stalled = false;
    uint64_t busy_ns = 0;
    double busy_ratio = 0;
  };

  const RunOptions options_;
  control::Config config_;
  const Nanos started_;
  const uint64_t seed_;
  int signal_fd_ = -1;

  tables::EpochDomain epochs_;
  std::unique_ptr<tables::RouteTable> routes_;
  std::unique_ptr<tables::Fib4> fib4_;
  std::unique_ptr<tables::Fib6> fib6_;
  std::unique_ptr<control::FibSink> sink_;
  std::unique_ptr<control::KernelMirror> mirror_;
  std::unique_ptr<control::NetfilterWatch> netfilter_;
  std::unique_ptr<FirewallControl> firewall_;
  Nanos next_drain_;  // of what rules log and add to sets; Max: they do neither
  bool presence_changed_ = false;
  control::FirewallPresence presence_;  // what the kernel must decide: all causes together
  control::SysctlReader sysctl_reader_;
  control::Sysctls sysctls_;
  Nanos next_sysctls_;

  std::unique_ptr<packet::FrameArena> arena_;
  std::unique_ptr<packet::FramePool> spare_;
  std::vector<std::unique_ptr<dataplane::Mailbox>> mailboxes_;
  std::vector<std::unique_ptr<WorkerThread>> workers_;
  std::unique_ptr<ServiceControl> services_;
  bool service_frames_ = false;  // the frames are as many as services want, or as was said
  std::array<WorkerWatch, kMaxWorkers> watches_;
  std::unique_ptr<EarlyControl> early_;  // null: it is off
  std::unique_ptr<OffloadControl> offload_;  // null: it is off
  std::unique_ptr<app::Interfaces> interfaces_;
  GroupControl groups_;

  std::atomic<const tables::Snapshot*> snapshot_{nullptr};
  uint64_t generation_ = 0;
  uint64_t offload_generation_ = 0;
  std::vector<control::NeighborEvent> neighbor_events_;
  std::unique_ptr<control::NeighborWriter> neighbor_writer_;  // null: none was needed yet
  uint64_t exported_found_ = 0;  // neighbours by all workers, when the kernel was told last
  Nanos next_export_;
  uint64_t neighbors_not_exported_ = 0;  // then
  bool export_failed_ = false;

  LiveTrace* live_trace_ = nullptr;           // the server has it
  std::map<std::string, uint64_t> log_counts_;  // packets by the prefix they were logged with

  TaskQueue tasks_;
  ControlServer control_server_;
  telemetry::Exporter exporter_;
  bool exporter_running_ = false;
  bool forwarding_ = false;
  uint64_t nat_exhausted_ = 0;  // as the last housekeeping saw it
  Nanos next_housekeeping_;
  Nanos last_housekeeping_;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_ENGINE_H_
