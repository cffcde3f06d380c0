// The one table of metrics: name, type, HELP and labels. See metrics.inc.
#ifndef SLUICE_TELEMETRY_METRICS_H_
#define SLUICE_TELEMETRY_METRICS_H_

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace sluice::telemetry {

enum class MetricType : uint8_t { kCounter, kGauge, kHistogram };

enum class Metric : uint8_t {
#define SLUICE_METRIC(id, name, type, labels, help) id,
#include "telemetry/metrics.inc"
#undef SLUICE_METRIC
};

struct MetricInfo {
  std::string_view name;
  MetricType type;
  std::string_view labels;  // names, with a comma between them, in the order that values are given
  std::string_view help;
};

inline constexpr MetricInfo kMetrics[] = {
#define SLUICE_METRIC(id, name, type, labels, help) {name, MetricType::type, labels, help},
#include "telemetry/metrics.inc"
#undef SLUICE_METRIC
};
inline constexpr size_t kMetricCount = sizeof kMetrics / sizeof kMetrics[0];

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_METRICS_H_
