// What packets change in rules: sixteen bytes per stateful statement and worker, which outlive the
// Ruleset they were made for.
//
// A cell belongs to a statement as long as any Ruleset holds its handle; the compiler gives an
// unchanged rule its old handle again, which is how counters, limits and quotas survive a change of
// the ruleset. Cells of one worker lie together, so that workers share no cache line; a worker's
// cell is found by an addition.
//
// Threads: Allocate and the end of handles are the control thread's. A cell is written by its
// worker (relaxed stores; anybody may read), except where state_ops.h says that all workers share
// that of worker 0 (token buckets).
#ifndef SLUICE_TABLES_RULESET_STATE_POOL_H_
#define SLUICE_TABLES_RULESET_STATE_POOL_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

namespace sluice::tables {

struct StateCell {
  std::atomic<uint64_t> a{0};
  std::atomic<uint64_t> b{0};

  static void Add(std::atomic<uint64_t>& value, uint64_t n) {  // one writer
    value.store(value.load(std::memory_order_relaxed) + n, std::memory_order_relaxed);
  }
  void Clear() {
    a.store(0, std::memory_order_relaxed);
    b.store(0, std::memory_order_relaxed);
  }
};
static_assert(sizeof(StateCell) == 16);

// Worker 0's cell; WorkerCell finds the others. The cells are free again with the last copy.
using StateHandle = std::shared_ptr<StateCell>;

inline constexpr size_t kCellsPerSlab = 256;

inline StateCell& WorkerCell(StateCell* cell, uint32_t worker) {
  return cell[worker * kCellsPerSlab];
}

class StatePool : public std::enable_shared_from_this<StatePool> {
 public:
  static std::shared_ptr<StatePool> Create(uint32_t workers);
  StatePool(const StatePool&) = delete;
  StatePool& operator=(const StatePool&) = delete;

  StateHandle Allocate();  // zeroes for every worker

  uint32_t workers() const { return workers_; }
  size_t used() const { return used_; }
  size_t memory_bytes() const;

 private:
  explicit StatePool(uint32_t workers) : workers_(workers) {}
  void Free(StateCell* cell);

  const uint32_t workers_;
  std::vector<std::unique_ptr<StateCell[]>> slabs_;
  std::vector<StateCell*> free_;
  size_t used_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_STATE_POOL_H_
