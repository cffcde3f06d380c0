// Connections that outlive Sluice's start and end: taken over from the kernel's conntrack table, and
// given back to it (control/conntrack_sync has the rules).
//
// At the end the table is written twice: before XDP stops handing over, so that the kernel knows the
// connections when their next packet comes to it, and once more what has begun meanwhile.
//
// Thread: control. The workers' tables are read in portions, between their bursts.
#ifndef SLUICE_APP_FLOW_SYNC_H_
#define SLUICE_APP_FLOW_SYNC_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "app/worker_thread.h"
#include "base/address.h"
#include "tables/flow.h"

namespace sluice::app {

using WorkerThreads = std::vector<std::unique_ptr<WorkerThread>>;

// Calls `visit` for each confirmed flow of the worker, on the control thread, with copies.
void VisitFlows(WorkerThread& thread,
                const std::function<void(const tables::Flow&)>& visit);

struct ImportResult {
  size_t in_kernel = 0;
  size_t taken = 0;
  size_t refused = 0;  // no room, or known already
};
// Forwarded connections of the kernel, to the workers that own them.
absl::StatusOr<ImportResult> ImportFlows(
    const WorkerThreads& workers, const std::function<bool(const IpAddress&)>& is_own);

class FlowExporter {
 public:
  // Writes what the kernel has not been given yet; logs how it went.
  void Export(const WorkerThreads& workers);

 private:
  absl::flat_hash_set<uint64_t> written_;  // fingerprints of original tuples
};

}  // namespace sluice::app

#endif  // SLUICE_APP_FLOW_SYNC_H_
