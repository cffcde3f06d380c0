// What packets add to sets (`add @s`, `update @s`, meters): each worker's elements of its own, over
// the ElementSet that the control thread knows.
//
// Limits: `capacity` elements per worker (the set's size, at most kMaxCapacity); the kernel's size
// counts all of a set, this one each worker's. When it is full an addition fails, as in the kernel.
// Elements expire at their time for lookups, and are removed by a timer wheel. Memory is reserved
// at the limit and used as elements come.
//
// Threads: built by the control thread, which may also ask for a flush; an Overlay is its worker's.
// Nothing is allocated after construction; every operation is O(1) but Expire, which is bounded.
#ifndef SLUICE_TABLES_RULESET_DYNAMIC_SET_H_
#define SLUICE_TABLES_RULESET_DYNAMIC_SET_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/counter.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "tables/mapped_region.h"
#include "tables/ruleset/state_pool.h"
#include "tables/ruleset/stateful.h"
#include "tables/timer_wheel.h"

namespace sluice::tables {

// An element that a packet has added, refreshed or removed, for the control thread.
struct SetEvent {
  enum class Kind : uint8_t { kAdd, kUpdate, kDelete };
  uint64_t set = 0;  // DynamicSet::id
  Kind kind = Kind::kAdd;
  bool has_statements = false;  // a limit, a counter, ...: each worker's own
  uint8_t key_length = 0;
  uint8_t data_length = 0;
  Nanos timeout;  // 0: none
  std::array<uint8_t, 64> key{};
  std::array<uint8_t, 64> data{};
};

class Overlay {
 public:
  static constexpr size_t kMaxExprs = 2;  // NFT_SET_EXPR_MAX

  struct Shape {
    uint8_t key_length = 0;  // rounded up to four by the constructor
    uint8_t data_length = 0;
    uint32_t capacity = 0;
    uint64_t seed = 0;
  };
  // One element. Key and data follow it.
  struct Node {
    int64_t expires = 0;   // ns; 0: never
    uint32_t next = 0;
    uint8_t exprs = 0;     // template of its statements; 0: none
    bool deleted = false;  // hides the element of the same key in the ElementSet
    std::array<StateCell, kMaxExprs> cells;
  };

  Overlay(const Shape& shape, Nanos start);

  // Null when it is not there or over. A node that `deleted` says is hidden is returned.
  Node* Find(const uint8_t* key, Nanos now);
  // A new node, without data; null when full. The key must not be there.
  Node* Insert(const uint8_t* key, Nanos now);
  void SetExpiry(Node* node, Nanos expires);  // 0: never
  void Remove(Node* node);
  uint8_t* Key(Node* node) const { return reinterpret_cast<uint8_t*>(node + 1); }
  uint8_t* Data(Node* node) const { return Key(node) + key_size_; }
  void Expire(Nanos now, size_t max_visits);
  void Clear();

  uint32_t size() const { return static_cast<uint32_t>(size_.Read()); }
  // How many elements this and a set below it have together, of which they may share some: what a
  // worker has added comes back to it with the set. `base`: whose it is, to know it again; `has`
  // tells whether it has a key. Looked through once for each state of both, and only if it is small;
  // of large ones the larger is taken for all.
  template <class Has>
  uint32_t SizeWith(const void* base, uint32_t base_size, Has&& has);
  uint32_t capacity() const { return capacity_; }
  size_t memory_bytes() const;

 private:
  static constexpr uint32_t kNone = 0xffffffff;
  static constexpr uint32_t kSmall = 4096;

  Node* At(uint32_t index) const {
    return reinterpret_cast<Node*>(static_cast<uint8_t*>(region_.data()) + index * stride_);
  }
  uint32_t IndexOf(const Node* node) const;
  uint32_t& HeadOf(const uint8_t* key);

  const size_t key_size_;
  const size_t stride_;
  const uint32_t capacity_;
  const uint64_t seed_;
  MappedRegion region_;
  std::vector<uint32_t> heads_;
  TimerWheel timers_;
  uint32_t fresh_ = 0;  // nodes from here on have never been used
  uint32_t free_ = kNone;
  Counter size_;
  // What SizeWith has found, and of which state.
  const void* counted_base_ = nullptr;
  uint32_t counted_base_size_ = 0;
  uint64_t counted_changes_ = 0;
  uint32_t counted_ = 0;
  uint64_t changes_ = 1;
};

template <class Has>
uint32_t Overlay::SizeWith(const void* base, uint32_t base_size, Has&& has) {
  if (base_size == 0 || size() == 0) return base_size + size();
  if (capacity_ > kSmall) return std::max(base_size, size());
  if (counted_base_ == base && counted_base_size_ == base_size && counted_changes_ == changes_) {
    return counted_;
  }
  uint32_t both = base_size;
  for (const uint32_t head : heads_) {
    for (uint32_t index = head; index != kNone; index = At(index)->next) {
      Node* const node = At(index);
      const bool below = has(static_cast<const uint8_t*>(Key(node)));
      if (node->deleted && below) --both;
      if (!node->deleted && !below) ++both;
    }
  }
  counted_base_ = base;
  counted_base_size_ = base_size;
  counted_changes_ = changes_;
  return counted_ = both;
}

class DynamicSet {
 public:
  static constexpr uint32_t kMaxCapacity = 1u << 20;
  static constexpr size_t kMaxTemplates = 32;
  static constexpr size_t kMaxRemovals = 256;

  // `timeout` is the set's own, 0: none.
  DynamicSet(uint64_t id, const Overlay::Shape& shape, uint32_t workers, Nanos timeout, Nanos start);

  uint64_t id() const { return id_; }
  const Overlay::Shape& shape() const { return shape_; }
  Nanos timeout() const { return timeout_; }
  Overlay& worker(uint32_t worker) { return *overlays_[worker]; }
  const Overlay& worker(uint32_t worker) const { return *overlays_[worker]; }

  // The statements of new elements by number, from 1. Control thread, before a Ruleset names them;
  // 0 when there are too many different ones.
  uint8_t InternTemplate(const std::vector<StatefulExpr>& exprs);
  const std::vector<StatefulExpr>& exprs(uint8_t number) const { return templates_[number]; }

  // Control: the kernel's set was emptied, or lost an element; each worker follows at its next Tick.
  // More removals than kMaxRemovals at once empty the set.
  void RequestFlush() { flush_.fetch_add(1, std::memory_order_release); }
  void RequestRemoval(std::span<const uint8_t> key);
  // Worker.
  void FollowRequests(uint32_t worker);

  size_t memory_bytes() const;

 private:
  const uint64_t id_;
  const Overlay::Shape shape_;
  const Nanos timeout_;
  std::vector<std::unique_ptr<Overlay>> overlays_;
  std::array<std::vector<StatefulExpr>, kMaxTemplates> templates_;
  size_t template_count_ = 1;  // 0 is "none"
  std::atomic<uint32_t> flush_{0};
  std::vector<uint32_t> flushed_;  // by worker
  using Key = std::array<uint8_t, 64>;
  std::vector<std::unique_ptr<SpscRing<Key>>> removals_;  // by worker
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_DYNAMIC_SET_H_
