// One Prometheus family per row of metrics.inc, filled at each scrape. Shared by exporter.cc and
// exporter_firewall.cc only.
//
// Thread: a value of the scrape's thread.
#ifndef SLUICE_TELEMETRY_METRIC_FAMILIES_H_
#define SLUICE_TELEMETRY_METRIC_FAMILIES_H_

#include <prometheus/metric_family.h>

#include <cstdint>
#include <initializer_list>
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
      families_[i].type = kMetrics[i].type == MetricType::kCounter ? prometheus::MetricType::Counter
                                                                   : prometheus::MetricType::Gauge;
    }
  }

  // `values` in the order of the metric's label names.
  void Add(Metric metric, LabelValues values, double value) {
    const MetricInfo& info = kMetrics[static_cast<size_t>(metric)];
    prometheus::ClientMetric sample;
    std::string_view names = info.labels;
    for (const std::string_view label_value : values) {
      const size_t comma = names.find(',');
      sample.label.push_back({std::string(names.substr(0, comma)), std::string(label_value)});
      names = comma == std::string_view::npos ? std::string_view() : names.substr(comma + 1);
    }
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

  std::vector<prometheus::MetricFamily> Take() { return std::move(families_); }

 private:
  std::vector<prometheus::MetricFamily> families_;
};

void AddConntrack(const std::string& worker, const MetricSample::Worker& w, Families& out);
void AddOffload(const std::string& worker, const OffloadCounters& c, Families& out);
void AddFirewall(const MetricSample::Firewall& firewall, Families& out);

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_METRIC_FAMILIES_H_
