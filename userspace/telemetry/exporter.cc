#include "telemetry/exporter.h"

#include <prometheus/collectable.h>
#include <prometheus/text_serializer.h>

#include <sstream>
#include <string_view>
#include <utility>

#include "base/reason.h"
#include "telemetry/metrics.h"
#include "telemetry/metric_families.h"
#include "telemetry/process_stats.h"

namespace sluice::telemetry {
namespace {

void AddInterfaceOfWorker(const std::string& interface, const std::string& worker,
                          const InterfaceCounters& c, Families& out) {
  const Families::LabelValues both = {interface, worker};
  out.Add(Metric::kReceivedPackets, both, c.received_packets);
  out.Add(Metric::kReceivedBytes, both, c.received_bytes);
  out.Add(Metric::kForwardedPackets, both, c.forwarded_packets);
  out.Add(Metric::kLocalPackets, both, c.local_packets);
  out.Add(Metric::kPuntedPackets, both, c.punted_packets);
  out.Add(Metric::kMergedPackets, both, c.merged_packets);
  out.Add(Metric::kPuntCopies, both, c.punt_copies);
  out.Add(Metric::kChecksumsCompleted, both, c.checksums_completed);
  out.Add(Metric::kOffloadedBytes, both, c.offloaded_bytes);
  out.Add(Metric::kTransmittedPackets, both, c.transmitted_packets);
  out.Add(Metric::kTransmittedBytes, both, c.transmitted_bytes);
  // Every reason, also at 0: a series that begins with its first event hides it from rate().
  for (size_t i = 0; i < kDropReasonCount; ++i) {
    out.Add(Metric::kDroppedPackets, {interface, worker, kDropReasons[i].label},
            c.dropped_packets[i]);
  }
  for (size_t i = 0; i < kPuntReasonCount; ++i) {
    out.Add(Metric::kPunts, {interface, worker, kPuntReasons[i].label}, c.punts[i]);
  }
  for (size_t i = 0; i < kTxErrorCount; ++i) {
    out.Add(Metric::kTxErrors, {interface, worker, kTxErrors[i]}, c.tx_errors[i]);
  }
}

void AddWorker(const MetricSample::Worker& w,
               const std::vector<MetricSample::Interface>& interfaces, Families& out) {
  const std::string worker = std::to_string(w.id.value);
  const WorkerCounters& c = *w.counters;
  for (const auto& interface : interfaces) {
    AddInterfaceOfWorker(interface.name, worker, c.of(interface.slot), out);
  }
  for (size_t i = 1; i < kGeneratedKindCount; ++i) {  // 0 is "not generated"
    out.Add(Metric::kGeneratedPackets, {worker, kGeneratedKinds[i]}, c.generated[i]);
  }
  out.Add(Metric::kGeneratedDropped, {worker}, c.generated_dropped);
  out.Add(Metric::kSocketsRefused, {worker}, c.sockets_refused);
  out.Add(Metric::kIcmpRateLimited, {worker}, c.icmp_rate_limited);
  out.Add(Metric::kWorkerBusySeconds, {worker}, static_cast<double>(c.busy_ns.Read()) / 1e9);
  out.Add(Metric::kWorkerLoops, {worker}, c.loops);
  out.Add(Metric::kWorkerSleeps, {worker}, c.sleeps);
  out.Add(Metric::kFramesHandedOver, {worker}, c.frames_handed_over);
  out.Add(Metric::kWorkerStalled, {worker}, uint64_t{w.stalled});
  for (const LabeledCount& n : w.neighbors) {
    out.Add(Metric::kNeighbors, {worker, n.label}, n.count);
  }
  AddConntrack(worker, w, out);
  AddOffload(worker, c.offload, out);
  AddSockets(worker, w, out);
  for (const LabeledCount& n : w.frames) out.Add(Metric::kFrames, {worker, n.label}, n.count);
}

void AddHeld(const MetricSample::Interface& interface,
             const std::vector<MetricSample::Worker>& workers, Families& out) {
  std::vector<uint64_t> gauges;
  for (const auto& w : workers) {
    gauges.push_back(w.counters->of(interface.slot).held_packets.Read());
  }
  const std::vector<uint64_t> held = ShareOutHeld(gauges);
  for (size_t w = 0; w < workers.size(); ++w) {
    out.Add(Metric::kHeldPackets, {interface.name, std::to_string(workers[w].id.value)}, held[w]);
  }
}

void AddTiers(const MetricSample::Interface& interface,
              const std::vector<MetricSample::Worker>& workers, Families& out) {
  uint64_t received = 0;
  uint64_t xdp = 0;
  uint64_t kernel = 0;
  for (const auto& w : workers) {
    const InterfaceCounters& c = w.counters->of(interface.slot);
    xdp += c.offloaded_packets.Read();
    kernel += c.punted_packets.Read();
    received += c.received_packets.Read();  // last: it is never behind the others
  }
  out.Add(Metric::kTierPackets, {interface.name, "xdp"}, xdp);
  out.Add(Metric::kTierPackets, {interface.name, "worker"}, received - xdp - kernel);
  out.Add(Metric::kTierPackets, {interface.name, "kernel"}, kernel);
}

void AddInterface(const MetricSample::Interface& i, Families& out) {
  out.Add(Metric::kInterfaceUp, {i.name}, uint64_t{i.up});
  out.Add(Metric::kInterfaceInfo,
          {i.name, i.driver, i.mode, i.zero_copy ? "yes" : "no", std::to_string(i.queues)},
          uint64_t{1});
  for (const auto& x : i.xdp) out.Add(Metric::kXdpPackets, {i.name, x.action, x.reason}, x.packets);
  out.Add(Metric::kXdpRingFull, {i.name}, i.ring_full);
  out.Add(Metric::kOffloadLost, {i.name}, i.offload_lost);
}

void AddProcess(Families& out) {
  const ProcessStats stats = ReadProcessStats();
  out.Add(Metric::kProcessCpuSeconds, {}, stats.cpu_seconds);
  out.Add(Metric::kProcessResidentMemory, {}, stats.resident_bytes);
  out.Add(Metric::kProcessVirtualMemory, {}, stats.virtual_bytes);
  out.Add(Metric::kProcessStartTime, {}, stats.start_time_seconds);
  out.Add(Metric::kProcessOpenFds, {}, stats.open_fds);
  out.Add(Metric::kProcessMaxFds, {}, stats.max_fds);
}

class SampleCollector : public prometheus::Collectable {
 public:
  explicit SampleCollector(const MetricSample& sample) : sample_(sample) {}

  std::vector<prometheus::MetricFamily> Collect() const override {
    Families out;
    for (const auto& worker : sample_.workers) AddWorker(worker, sample_.interfaces, out);
    for (const auto& interface : sample_.interfaces) AddHeld(interface, sample_.workers, out);
    for (const auto& interface : sample_.interfaces) AddTiers(interface, sample_.workers, out);
    for (const auto& interface : sample_.interfaces) AddInterface(interface, out);
    for (const TableUse& table : sample_.tables) {
      out.Add(Metric::kTableUsed, {table.name}, table.used);
      out.Add(Metric::kTableLimit, {table.name}, table.limit);
    }
    out.Add(Metric::kFramesLimit, {}, sample_.frames_limit);
    out.Add(Metric::kOffloadFailedOrders, {}, sample_.offload_failed_orders);
    out.Add(Metric::kNeighborsNotExported, {}, sample_.neighbors_not_exported);
    out.Add(Metric::kGroupsNotJoined, {}, sample_.groups_not_joined);
    out.Add(Metric::kMirrorDivergence, {}, sample_.mirror_divergence);
    out.Add(Metric::kMirrorResyncs, {}, sample_.mirror_resyncs);
    out.Add(Metric::kMirrorCorrections, {}, sample_.mirror_corrections);
    for (const LabeledCount& n : sample_.mirror_events) {
      out.Add(Metric::kMirrorEvents, {n.label}, n.count);
    }
    AddFirewall(sample_.firewall, out);
    AddServices(sample_.services, out);
    out.Add(Metric::kBuildInfo, {sample_.version, sample_.kernel}, uint64_t{1});
    out.Add(Metric::kReady, {}, uint64_t{sample_.ready});
    AddProcess(out);
    return out.Take();
  }

 private:
  const MetricSample& sample_;
};

}  // namespace

std::string RenderMetrics(const MetricSample& sample) {
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, SampleCollector(sample).Collect());
  return out.str();
}

Exporter::Exporter(MetricSource& source) {
  server_.Handle("/metrics", [&source](const HttpQuery&) {
    return HttpReply{200, "text/plain; version=0.0.4; charset=utf-8",
                     RenderMetrics(source.Sample())};
  });
  server_.HandleOther([](const std::string&) {
    return HttpReply{404, "text/plain", "Sluice's metrics are at /metrics\n"};
  });
}

absl::Status Exporter::Start(const std::string& address, uint16_t port) {
  return server_.StartTcp(address, port);
}

}  // namespace sluice::telemetry
