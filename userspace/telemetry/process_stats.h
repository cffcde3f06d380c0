// What /proc tells about this process, for the process_* metrics.
//
// Thread: any. A few reads of /proc per call; what cannot be read is 0.
#ifndef SLUICE_TELEMETRY_PROCESS_STATS_H_
#define SLUICE_TELEMETRY_PROCESS_STATS_H_

#include <cstdint>

namespace sluice::telemetry {

struct ProcessStats {
  double cpu_seconds = 0;
  double start_time_seconds = 0;  // since 1970
  uint64_t resident_bytes = 0;
  uint64_t virtual_bytes = 0;
  uint64_t open_fds = 0;
  uint64_t max_fds = 0;
};

ProcessStats ReadProcessStats();

}  // namespace sluice::telemetry

#endif  // SLUICE_TELEMETRY_PROCESS_STATS_H_
