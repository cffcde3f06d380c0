#include "tables/ruleset/state_pool.h"

namespace sluice::tables {

std::shared_ptr<StatePool> StatePool::Create(uint32_t workers) {
  return std::shared_ptr<StatePool>(new StatePool(workers));
}

StateHandle StatePool::Allocate() {
  if (free_.empty()) {
    slabs_.push_back(std::make_unique<StateCell[]>(kCellsPerSlab * workers_));
    free_.reserve(free_.size() + kCellsPerSlab);
    // Handed out from the back: cells made one after the other lie side by side.
    for (size_t i = kCellsPerSlab; i-- > 0;) free_.push_back(&slabs_.back()[i]);
  }
  StateCell* cell = free_.back();
  free_.pop_back();
  ++used_;
  for (uint32_t worker = 0; worker < workers_; ++worker) WorkerCell(cell, worker).Clear();
  return StateHandle(cell, [pool = shared_from_this()](StateCell* c) { pool->Free(c); });
}

void StatePool::Free(StateCell* cell) {
  free_.push_back(cell);
  --used_;
}

size_t StatePool::memory_bytes() const {
  return slabs_.size() * kCellsPerSlab * workers_ * sizeof(StateCell);
}

}  // namespace sluice::tables
