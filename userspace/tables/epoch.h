// Quiescent-state-based reclamation: when may memory that a worker could still be reading be freed?
//
// One control thread unlinks things and hands them to Retire(); workers read without locks or
// counters. A worker says Quiescent() once per tick, when it holds no pointer into shared tables,
// and Offline() before it sleeps, so that a sleeping worker holds nothing up. Reclaim() frees what
// was retired before the last quiescent point of every online worker (QSBR, see T. E. Hart et al.,
// "Performance of memory reclamation for lockless synchronization", 2007).
//
// Threads: Retire, Reclaim, Cancel and pending belong to the control thread; Online, Quiescent and
// Offline of one WorkerId belong to that worker. Cost: Quiescent and Offline are one load and one
// plain store to the worker's own cache line; Online is one store with a full barrier. Reclaim
// reads kMaxWorkers lines.
//
// Memory order. `epoch_` is written by the control thread only. For "unlink, then advance epoch_ to
// E+1" there are two cases:
//  - The worker stored a value >= E+1. It had loaded epoch_ (acquire) from the store that followed
//    the unlinking, so its later reads cannot find the object; its earlier reads happen before its
//    release store, which Reclaim has acquired. Freeing is safe.
//  - Reclaim saw the worker offline. Either it still is, or its Online() store comes after
//  Reclaim's
//    load in the single order of seq_cst operations. Then so does the load of epoch_ that Online()
//    makes after its store, and it reads E+1 (acquire): again the worker cannot find the object.
//    This is the one place where a store must be visible before a later load; hence seq_cst.
//
// What it refuses: readers that keep a pointer across Quiescent() are not protected. The list of
// retired objects has no limit of its own: pending() and the age of a worker tell of a stuck one.
#ifndef SLUICE_TABLES_EPOCH_H_
#define SLUICE_TABLES_EPOCH_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <type_traits>

#include "base/ids.h"

namespace sluice::tables {

class EpochDomain {
 public:
  // Called with the two values given to Retire. Must not call Retire, Reclaim or Cancel.
  using Deleter = void (*)(void* context, uint64_t argument);

  EpochDomain() = default;
  ~EpochDomain();  // no reader may be online; runs what is left
  EpochDomain(const EpochDomain&) = delete;
  EpochDomain& operator=(const EpochDomain&) = delete;

  // Worker side.
  void Online(WorkerId worker) {
    std::atomic<uint64_t>& seen = readers_[worker.value].seen;
    seen.store(epoch_.load(std::memory_order_acquire), std::memory_order_seq_cst);
    (void)epoch_.load(std::memory_order_seq_cst);  // see "Memory order": pairs with Reclaim
  }
  void Quiescent(WorkerId worker) {
    readers_[worker.value].seen.store(epoch_.load(std::memory_order_acquire),
                                      std::memory_order_release);
  }
  void Offline(WorkerId worker) {
    readers_[worker.value].seen.store(kOffline, std::memory_order_release);
  }

  // Control side. The object must be unreachable for readers that start now.
  void Retire(Deleter deleter, void* context, uint64_t argument = 0);
  template <class T>
  void RetireObject(std::unique_ptr<T> object) {
    Retire([](void* p, uint64_t) { delete static_cast<T*>(p); },
           const_cast<std::remove_const_t<T>*>(object.release()));
  }
  // Frees what may be freed; returns how many deleters ran. Also runs by itself now and then from
  // Retire, so that a bulk load does not pile up garbage.
  size_t Reclaim();
  // Drops what was retired with `context` without running it: the owner goes away as a whole, and
  // no reader uses it any longer.
  void Cancel(const void* context);

  size_t pending() const { return retired_.size(); }
  // How many epochs the slowest online worker lags; 0 when none does. For the watchdog and metrics.
  uint64_t lag() const;

 private:
  static constexpr uint64_t kOffline = 0;
  static constexpr uint32_t kReclaimEvery = 128;

  struct alignas(64) Reader {
    std::atomic<uint64_t> seen{kOffline};
  };
  struct Retired {
    uint64_t epoch;  // free when every online reader has seen more than this
    Deleter deleter;
    void* context;
    uint64_t argument;
  };

  uint64_t OldestSeen() const;

  alignas(64) std::atomic<uint64_t> epoch_{1};
  std::array<Reader, kMaxWorkers> readers_;
  std::deque<Retired> retired_;
  uint32_t since_reclaim_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_EPOCH_H_
