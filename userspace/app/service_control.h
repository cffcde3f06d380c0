// Services on the workers: made when the first is configured, changed by reload, drained at the end,
// and what they and the sockets below them tell.
//
// Each worker has a transport stack and a ServiceSet of its own, which are made here and installed by
// a command. A worker that needs the page of /metrics puts its request into a ring; the control thread
// renders one page for all that wait and takes it to them; at most one in PageCache::kLifetime.
//
// Memory: by limits.connections and limits.udp_sessions, of each worker, from the first service on;
// frames with data are the worker's: a quarter of them may wait to be sent, a quarter to be read, and
// an eighth for UDP.
//
// Thread: control.
#ifndef SLUICE_APP_SERVICE_CONTROL_H_
#define SLUICE_APP_SERVICE_CONTROL_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "app/page_cache.h"
#include "app/worker_thread.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "control/config.h"
#include "control/reserved_ports.h"
#include "services/service_set.h"
#include "tables/service_config.h"
#include "telemetry/exporter.h"
#include "telemetry/service_views.h"
#include "telemetry/views.h"

namespace sluice::app {

class ServiceControl {
 public:
  using Workers = std::span<const std::unique_ptr<WorkerThread>>;

  // `frames`: of a worker.
  ServiceControl(const control::LimitsConfig& limits, Workers workers, uint32_t frames);
  ~ServiceControl();

  // In force on all workers when it returns.
  void Apply(const tables::ServicesConfig& config);
  bool active() const { return !sets_.empty(); }

  // Readable when a worker waits for a page; AnswerPages then.
  int fd() const { return fd_; }
  void AnswerPages(const std::function<std::string()>& render);

  // Takes all services away. Drained: their connections have ended.
  void Drain() { Apply({}); }
  bool Drained();

  // Frames of a worker's that hold data of sockets.
  uint64_t Frames(WorkerId worker) const;
  // For views and metrics.
  telemetry::SocketsView Sockets(uint64_t limit) const;
  std::vector<telemetry::ServiceView> Services() const;
  void Sample(telemetry::MetricSample& sample) const;
  std::vector<telemetry::TableUse> TableUses() const;

 private:
  class Program;
  struct Of {  // one worker's
    WorkerThread* thread = nullptr;
    const transport::Transport* stack = nullptr;  // the pipeline's
    Program* program = nullptr;                   // likewise
  };

  void Install();
  void ReservePorts(const tables::ServicesConfig& config);
  void WarnOfListens() const;

  const control::LimitsConfig limits_;
  const Workers workers_;
  const uint32_t frames_;
  const int fd_;
  control::ReservedPorts reserved_;
  tables::ServiceSlots slots_;
  std::vector<Of> sets_;  // by worker; empty: none installed
  PageCache pages_;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_SERVICE_CONTROL_H_
