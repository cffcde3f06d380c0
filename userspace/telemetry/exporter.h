// Prometheus: reads the counters when scraped and serves them as text on /metrics.
//
// Nothing is kept between scrapes; the workers' counters are read where they are (single writer,
// any reader), everything else comes from MetricSource at that moment. A scrape of I interfaces and
// W workers makes about I * W * 90 series, and rules with counters two each.
//
// Thread: the constructor, Start and Stop by the control thread; a scrape runs on the server's
// thread and calls MetricSource::Sample there, so that the source synchronises with its own
// writers.
#ifndef SLUICE_TELEMETRY_EXPORTER_H_
#define SLUICE_TELEMETRY_EXPORTER_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "base/ids.h"
#include "base/worker_counters.h"
#include "telemetry/http_server.h"
#include "telemetry/views.h"

namespace sluice::telemetry {

// What one scrape needs.
struct MetricSample {
  struct Histogram {
    std::vector<double> bounds;    // seconds, upper ends
    std::vector<uint64_t> counts;  // of each bucket by itself; one more than bounds
    double sum = 0;                // seconds
  };
  struct XdpCount {
    std::string action;  // redirect, pass, drop
    std::string reason;
    uint64_t packets = 0;
  };
  struct Interface {
    IfaceSlot slot;
    std::string name;
    bool up = false;
    std::string driver;
    std::string mode;  // native, generic, none
    bool zero_copy = false;
    uint32_t queues = 0;
    std::vector<XdpCount> xdp;
    uint64_t ring_full = 0;
    uint64_t offload_lost = 0;
  };
  struct Worker {
    WorkerId id;
    const WorkerCounters* counters = nullptr;  // must live until Stop has returned
    bool stalled = false;
    std::vector<LabeledCount> neighbors;  // by state
    std::vector<LabeledCount> frames;     // free, fill, tx, held, ...
    uint64_t nat_translations = 0;
    uint64_t nat_port_changes = 0;
    uint64_t nat_exhausted = 0;
    uint64_t log_lost = 0;
    // Of the transport stack; nothing where there is none.
    bool has_sockets = false;
    std::vector<LabeledCount> tcp_connections;  // by state
    uint64_t tcp_accepted = 0;
    uint64_t tcp_opened = 0;
    uint64_t tcp_failed = 0;
    uint64_t tcp_retransmits = 0;
    std::vector<LabeledCount> tcp_segments;  // by direction
    std::vector<LabeledCount> tcp_resets;    // by reason
    std::vector<LabeledCount> tcp_events;
    Histogram tcp_round_trips;
    std::vector<LabeledCount> udp_datagrams;  // by direction
  };
  struct Backend {
    std::string address;
    bool up = false;  // on any worker
    uint64_t active = 0;
    uint64_t connections = 0;
    uint64_t failures = 0;
    uint64_t checks_passed = 0;
    uint64_t checks_failed = 0;
    uint64_t checks_skipped = 0;
  };
  struct Service : ServiceCounts {
    std::vector<LabeledCount> failures;  // by reason
    Histogram connect_time;
    std::vector<Backend> backends;
  };
  // Of a rule (its comment, else its handle) or a named counter. Those of the same name are added
  // up. The first kMaxRuleSeries are shown, those with a comment before others.
  struct RuleCount {
    std::string family, table, chain;  // chain: not of a named counter
    std::string name;
    bool has_comment = false;
    uint64_t packets = 0;
    uint64_t bytes = 0;
  };
  struct Firewall {
    uint64_t generation = 0;
    std::vector<LabeledCount> rules;  // by where they run: xdp, worker, kernel
    double compile_seconds = 0;
    bool refused = false;
    std::vector<RuleCount> rule_counts;
    std::vector<RuleCount> named_counters;
    std::vector<LabeledCount> logged;  // packets by prefix
  };

  std::string version;
  std::string kernel;
  bool ready = false;
  std::vector<Interface> interfaces;  // all that are configured, also while one is away
  std::vector<Worker> workers;
  std::vector<TableUse> tables;  // routes4 routes6 ... flows fragments
  uint64_t frames_limit = 0;
  uint64_t offload_failed_orders = 0;
  uint64_t neighbors_not_exported = 0;
  uint64_t groups_not_joined = 0;
  uint64_t mirror_divergence = 0;
  uint64_t mirror_resyncs = 0;
  uint64_t mirror_corrections = 0;
  std::vector<LabeledCount> mirror_events;  // by kind of object
  Firewall firewall;
  std::vector<Service> services;
};
inline constexpr size_t kMaxRuleSeries = 1000;

class MetricSource {
 public:
  virtual ~MetricSource() = default;
  virtual MetricSample Sample() = 0;
};

// The text of one scrape.
std::string RenderMetrics(const MetricSample& sample);

class Exporter {
 public:
  explicit Exporter(MetricSource& source);
  // A numeric address; AlreadyExists when the port is taken. Port 0 takes a free one.
  absl::Status Start(const std::string& address, uint16_t port);
  void Stop() { server_.Stop(); }
  uint16_t port() const { return server_.port(); }

 private:
  HttpServer server_;
};

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_EXPORTER_H_
