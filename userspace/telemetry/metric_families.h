// One Prometheus family per row of metrics.inc, filled at each scrape. Shared by exporter.cc and
// exporter_firewall.cc and exporter_services.cc only.
//
// Thread: a value of the scrape's thread.
#ifndef SLUICE_TELEMETRY_METRIC_FAMILIES_H_
#define SLUICE_TELEMETRY_METRIC_FAMILIES_H_

#include <prometheus/metric_family.h>

#include <cstdint>
#include <initializer_list>
#include <limits>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/counter.h"
#include "telemetry/exporter.h"
#include "telemetry/metrics.h"

namespace sluice::telemetry {

// All families are present at each scrape.
class Families {
 public:
  using LabelValues = std::initializer_list<std::string_view>;

  Families() {
    families_.resize(kMetricCount);
    for (size_t i = 0; i < kMetricCount; ++i) {
      families_[i].name = kMetrics[i].name;
      families_[i].help = kMetrics[i].help;
      switch (kMetrics[i].type) {
        case MetricType::kCounter:
          families_[i].type = prometheus::MetricType::Counter;
          break;
        case MetricType::kGauge:
          families_[i].type = prometheus::MetricType::Gauge;
          break;
        case MetricType::kHistogram:
          families_[i].type = prometheus::MetricType::Histogram;
          break;
      }
    }
  }

  // `values` in the order of the metric's label names.
  void Add(Metric metric, LabelValues values, double value) {
    const MetricInfo& info = kMetrics[static_cast<size_t>(metric)];
    prometheus::ClientMetric sample = Labelled(info, values);
    if (info.type == MetricType::kCounter) {
      sample.counter.value = value;
    } else {
      sample.gauge.value = value;
    }
    families_[static_cast<size_t>(metric)].metric.push_back(std::move(sample));
  }
  void Add(Metric metric, LabelValues values, uint64_t value) {
    Add(metric, values, static_cast<double>(value));
  }
  void Add(Metric metric, LabelValues values, const Counter& counter) {
    Add(metric, values, counter.Read());
  }

  void Add(Metric metric, LabelValues values, const MetricSample::Histogram& h) {
    prometheus::ClientMetric sample = Labelled(kMetrics[static_cast<size_t>(metric)], values);
    for (size_t i = 0; i < h.counts.size(); ++i) {
      sample.histogram.sample_count += h.counts[i];
      const double bound =
          i < h.bounds.size() ? h.bounds[i] : std::numeric_limits<double>::infinity();
      sample.histogram.bucket.push_back({sample.histogram.sample_count, bound});
    }
    sample.histogram.sample_sum = h.sum;
    families_[static_cast<size_t>(metric)].metric.push_back(std::move(sample));
  }

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  static prometheus::ClientMetric Labelled(const MetricInfo& info, LabelValues values) {
    prometheus::ClientMetric sample;
    std::string_view names = info.labels;
    for (const std::string_view label_value : values) {
      const size_t comma = names.find(',');
      sample.label.push_back({std::string(names.substr(0, comma)), std::string(label_value)});
      names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
    }
    return sample;
  }

  std::vector<prometheus::MetricFamily> families_;
};

void AddConntrack(const std::string& worker, const MetricSample::Worker& w, Families& out);
void AddOffload(const std::string& worker, const OffloadCounters& c, Families& out);
void AddFirewall(const MetricSample::Firewall& firewall, Families& out);
void AddSockets(const std::string& worker, const MetricSample::Worker& w, Families& out);
void AddServices(const std::vector<MetricSample::Service>& services, Families& out);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_METRIC_FAMILIES_H_
