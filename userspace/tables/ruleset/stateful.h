// Stateful statements: counter, limit, quota, ct count, last; of a rule, a named object, or an
// element of a set.
//
// The configuration is here, the state in a StateCell. Which words mean what:
//   kCounter      a packets, b bytes; each worker its own
//   kLimit        a: when the bucket was last empty, ns; worker 0's cell, shared by all (below)
//   kQuota        a: bytes consumed; each worker its own, what counts is the sum
//   kConnections  a: connections counted; each worker its own
//   kLast         a: when it was last reached, ns, 0 never
//
// The bucket of net/netfilter/nft_limit.c holds nanoseconds: it fills with time up to tokens_max,
// and a packet takes nsecs / rate (or nsecs * length / rate). Keeping "when it was empty" instead of
// tokens and a time stamp says the same in one word (the virtual scheduling form of the generic cell
// rate algorithm), so that workers can share it by one compare-and-swap, and only packets that take
// something write at all.
#ifndef SLUICE_TABLES_RULESET_STATEFUL_H_
#define SLUICE_TABLES_RULESET_STATEFUL_H_

#include <algorithm>
#include <cstdint>
#include <vector>

#include "base/time.h"
#include "tables/ruleset/state_pool.h"

namespace sluice::tables {

enum class StatefulKind : uint8_t { kCounter, kLimit, kQuota, kConnections, kLast };

struct StatefulExpr {
  StatefulKind kind = StatefulKind::kCounter;
  bool inverted = false;      // limit, quota, ct count: `over`
  bool bytes = false;         // kLimit: of bytes
  uint64_t rate = 0;          // kLimit
  uint64_t unit_ns = 0;       // kLimit
  uint64_t tokens_max = 0;    // kLimit, ns
  uint64_t packet_cost = 0;   // kLimit of packets, ns
  uint64_t quota = 0;         // kQuota: bytes; kConnections: the limit
  uint64_t owner = 0;         // kConnections: whose list of connections
  StateCell* cell = nullptr;  // null in templates of dynamic elements

  bool operator==(const StatefulExpr&) const = default;
};

// What an element of a set owns, or an object map's element refers to.
struct ElementState {
  std::vector<StatefulExpr> exprs;
  std::vector<StateHandle> handles;
};

// A full bucket at `now`.
inline void FillBucket(const StatefulExpr& limit, StateCell& cell, Nanos now) {
  cell.a.store(static_cast<uint64_t>(now.count() - static_cast<int64_t>(limit.tokens_max)),
               std::memory_order_relaxed);
}

// Takes `cost` if it is there; `peek` only looks.
inline bool TakeTokens(const StatefulExpr& limit, StateCell& cell, Nanos now, uint64_t cost,
                       bool peek) {
  uint64_t seen = cell.a.load(std::memory_order_relaxed);
  for (;;) {
    const int64_t empty = std::max(static_cast<int64_t>(seen),
                                   now.count() - static_cast<int64_t>(limit.tokens_max));
    if (now.count() - empty < static_cast<int64_t>(cost)) return false;
    if (peek) return true;
    const uint64_t next = static_cast<uint64_t>(empty) + cost;
    if (cell.a.compare_exchange_weak(seen, next, std::memory_order_relaxed)) return true;
  }
}

inline uint64_t LimitCost(const StatefulExpr& limit, uint32_t packet_bytes) {
  if (!limit.bytes) return limit.packet_cost;
  return static_cast<uint64_t>(static_cast<unsigned __int128>(limit.unit_ns) * packet_bytes /
                               limit.rate);
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_STATEFUL_H_
