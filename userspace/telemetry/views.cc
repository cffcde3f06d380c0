#include "telemetry/views.h"

#include <algorithm>

namespace sluice::telemetry {

int64_t Unaccounted(const PacketTotals& totals) {
  return static_cast<int64_t>(totals.received - totals.forwarded - totals.local - totals.punted -
                              totals.dropped - totals.held - totals.merged);
}

std::vector<uint64_t> ShareOutHeld(const std::vector<uint64_t>& by_worker) {
  uint64_t sum = 0;  // wraps as the gauges do
  for (const uint64_t gauge : by_worker) sum += gauge;
  // Under traffic a gauge may be read before and another after a packet has moved.
  int64_t left = std::max<int64_t>(static_cast<int64_t>(sum), 0);
  std::vector<uint64_t> result;
  for (const uint64_t gauge : by_worker) {
    const int64_t share = std::clamp<int64_t>(static_cast<int64_t>(gauge), 0, left);
    result.push_back(static_cast<uint64_t>(share));
    left -= share;
  }
  return result;
}

std::optional<FlowSort> ParseFlowSort(std::string_view word) {
  if (word == "bytes") return FlowSort::kBytes;
  if (word == "packets") return FlowSort::kPackets;
  if (word == "timeout") return FlowSort::kTimeout;
  return {};
}

}  // namespace sluice::telemetry
