#include "telemetry/views.h"

namespace sluice::telemetry {

int64_t Unaccounted(const PacketTotals& totals) {
  return static_cast<int64_t>(totals.received - totals.forwarded - totals.local - totals.punted -
                              totals.dropped - totals.held);
}

}  // namespace sluice::telemetry
