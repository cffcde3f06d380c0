// Neighbours between the kernel and the workers: its knowledge to them, theirs to it, and the view of
// theirs.
#include <algorithm>
#include <array>
#include <span>

#include "absl/container/flat_hash_set.h"
#include "app/engine.h"
#include "app/log.h"
#include "stages/neighbor/neighbor_state.h"

namespace sluice::app {
namespace {

// With so many, telling the kernel costs the workers time, and comes less often.
constexpr uint64_t kManyNeighbors = 1024;
constexpr Nanos kManyInterval = Seconds(30);
// The kernel's table has 1024 entries for all namespaces together (net.ipv4.neigh.default.gc_thresh3),
// and begins to throw away at 512. Where it knows so many in ours, no more are written.
constexpr size_t kExportLimit = 256;

bool IsFound(stages::NeighborState state) {
  return state == stages::NeighborState::kReachable || state == stages::NeighborState::kStale ||
         state == stages::NeighborState::kDelay || state == stages::NeighborState::kProbe;
}

}  // namespace

void Engine::SendNeighbors() {
  for (const auto& thread : workers_) {
    thread->Call([&](WorkerThread::Worker& worker) {
      for (const control::NeighborEvent& event : neighbor_events_) {
        const IfaceSlot slot = interfaces_->SlotOf(event.key.ifindex);
        if (!slot.valid()) continue;
        if (event.removed) {
          worker.pipeline().RemoveKernelNeighbor(slot, event.key.address, worker.now());
        } else {
          worker.pipeline().ApplyKernelNeighbor(slot, event.key.address, event.neighbor.mac,
                                                event.neighbor.state, worker.snapshot(),
                                                worker.now());
        }
      }
    });
  }
  neighbor_events_.clear();
}

void Engine::FillNeighborsFromKernel(IfaceSlot slot) {
  const IfIndex ifindex = interfaces_->all()[slot.value].ifindex();
  if (ifindex.value == 0) return;
  for (const auto& [key, neighbor] : mirror_->state().neighbors) {
    if (key.ifindex == ifindex) neighbor_events_.push_back({key, neighbor, false});
  }
  if (!neighbor_events_.empty()) SendNeighbors();
}

void Engine::ForEachNeighbor(
    const std::function<void(const stages::NeighborInfo&, WorkerId, Nanos)>& visit) {
  constexpr size_t kSlice = 256;  // per command, so that no worker is kept from its ports for long
  for (const auto& thread : workers_) {
    uint32_t cursor = 0;
    do {
      std::array<stages::NeighborInfo, kSlice> slice;
      size_t written = 0;
      Nanos now;
      thread->Call([&](WorkerThread::Worker& worker) {
        cursor = worker.pipeline().neighbors().table().Enumerate(cursor, slice, &written);
        now = worker.now();
      });
      for (const stages::NeighborInfo& n : std::span(slice.data(), written)) {
        visit(n, thread->worker().id(), now);
      }
    } while (cursor != 0);
  }
}

// What a worker has found and the kernel does not know.
void Engine::ExportNeighbors(Nanos now) {
  uint64_t found = 0;
  uint64_t used = 0;
  for (const auto& thread : workers_) {
    const stages::Neighbors& neighbors = thread->worker().pipeline().neighbors();
    found += neighbors.found().Read();
    used = std::max<uint64_t>(used, neighbors.table().used());
  }
  if (found == exported_found_ || now < next_export_) return;
  exported_found_ = found;
  next_export_ = now + (used > kManyNeighbors ? kManyInterval : Nanos());
  if (neighbor_writer_ == nullptr) {
    auto writer = control::NeighborWriter::Open();
    if (!writer.ok()) return LogWarning("{}", std::string(writer.status().message()));
    neighbor_writer_ = *std::move(writer);
  }
  const auto& kernels = mirror_->state().neighbors;
  absl::flat_hash_set<control::NeighborKey> told;  // workers know the same ones
  neighbors_not_exported_ = 0;
  ForEachNeighbor([&](const stages::NeighborInfo& n, WorkerId, Nanos) {
    if (!IsFound(n.state)) return;
    const ServedInterface& served = interfaces_->all()[n.slot.value];
    if (!served.attached()) return;
    const control::NeighborKey key{served.ifindex(), n.address};
    if (kernels.contains(key) || told.contains(key)) return;
    if (kernels.size() + told.size() >= kExportLimit) {
      ++neighbors_not_exported_;
      return;
    }
    told.insert(key);
    const absl::Status status = neighbor_writer_->Add(served.ifindex(), n.address, n.mac);
    if (status.ok()) return;
    ++neighbors_not_exported_;
    if (!export_failed_) LogWarning("the kernel: {}", std::string(status.message()));
    export_failed_ = true;  // once is enough
  });
}

std::vector<telemetry::NeighborView> Engine::Neighbors() {
  std::vector<telemetry::NeighborView> views;
  ForEachNeighbor([&](const stages::NeighborInfo& n, WorkerId worker, Nanos now) {
    views.push_back({.address = ToString(n.address),
                     .dev = interfaces_->all()[n.slot.value].config.name,
                     .mac = n.mac.IsZero() ? "" : ToString(n.mac),
                     .state = std::string(stages::kNeighborStates[static_cast<size_t>(n.state)]),
                     .queued = n.held,
                     .age_seconds = std::max(0.0, (now - n.confirmed).seconds()),
                     .worker = worker.value});
  });
  return views;
}

}  // namespace sluice::app
