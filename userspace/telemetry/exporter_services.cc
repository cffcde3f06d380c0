// The metrics of sockets and services.
#include "telemetry/metric_families.h"

namespace sluice::telemetry {

void AddSockets(const std::string& worker, const MetricSample::Worker& w, Families& out) {
  if (!w.has_sockets) return;
  for (const LabeledCount& n : w.tcp_connections) {
    out.Add(Metric::kTcpConnections, {worker, n.label}, n.count);
  }
  out.Add(Metric::kTcpAccepted, {worker}, w.tcp_accepted);
  out.Add(Metric::kTcpOpened, {worker}, w.tcp_opened);
  out.Add(Metric::kTcpFailed, {worker}, w.tcp_failed);
  out.Add(Metric::kTcpRetransmits, {worker}, w.tcp_retransmits);
  for (const LabeledCount& n : w.tcp_segments) {
    out.Add(Metric::kTcpSegments, {worker, n.label}, n.count);
  }
  for (const LabeledCount& n : w.tcp_resets) out.Add(Metric::kTcpResets, {worker, n.label}, n.count);
  for (const LabeledCount& n : w.tcp_events) out.Add(Metric::kTcpEvents, {worker, n.label}, n.count);
  out.Add(Metric::kTcpRoundTrip, {worker}, w.tcp_round_trips);
  for (const LabeledCount& n : w.udp_datagrams) {
    out.Add(Metric::kUdpDatagrams, {worker, n.label}, n.count);
  }
}

void AddServices(const std::vector<MetricSample::Service>& services, Families& out) {
  for (const MetricSample::Service& s : services) {
    out.Add(Metric::kServiceActive, {s.name, s.kind}, s.active);
    out.Add(Metric::kServiceAccepted, {s.name, s.kind}, s.accepted);
    out.Add(Metric::kServiceRetries, {s.name}, s.retries);
    out.Add(Metric::kServiceBytes, {s.name, "in"}, s.bytes_in);
    out.Add(Metric::kServiceBytes, {s.name, "out"}, s.bytes_out);
    out.Add(Metric::kServiceMessages, {s.name, "in"}, s.messages_in);
    out.Add(Metric::kServiceMessages, {s.name, "out"}, s.messages_out);
    for (const LabeledCount& n : s.failures) {
      out.Add(Metric::kServiceFailures, {s.name, n.label}, n.count);
    }
    out.Add(Metric::kServiceConnectTime, {s.name}, s.connect_time);
    for (const MetricSample::Backend& b : s.backends) {
      out.Add(Metric::kBackendUp, {s.name, b.address}, uint64_t{b.up});
      out.Add(Metric::kBackendActive, {s.name, b.address}, b.active);
      out.Add(Metric::kBackendConnections, {s.name, b.address}, b.connections);
      out.Add(Metric::kBackendFailures, {s.name, b.address}, b.failures);
      out.Add(Metric::kBackendChecks, {s.name, b.address, "passed"}, b.checks_passed);
      out.Add(Metric::kBackendChecks, {s.name, b.address, "failed"}, b.checks_failed);
      out.Add(Metric::kBackendChecks, {s.name, b.address, "skipped"}, b.checks_skipped);
    }
  }
}

}  // namespace sluice::telemetry
