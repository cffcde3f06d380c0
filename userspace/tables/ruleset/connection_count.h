// How many live connections `ct count` statements have seen: one worker's lists of connections, as
// net/netfilter/nf_conncount.c keeps them.
//
// An owner is one statement, or one element's; each connection is counted once per owner, as long as
// it lives. A connection that has ended is noticed by a look: a few per call, more of an owner that
// is over its limit (at most once per millisecond), as the kernel collects them.
//
// Limit: `capacity` pairs of owner and connection, beyond which Add reports what it has. O(1) but
// for those looks. Nothing is allocated after construction. Thread: the worker.
#ifndef SLUICE_TABLES_RULESET_CONNECTION_COUNT_H_
#define SLUICE_TABLES_RULESET_CONNECTION_COUNT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/time.h"
#include "tables/flow.h"
#include "tables/ruleset/key_hash.h"

namespace sluice::tables {

inline uint64_t TupleFingerprint(const FlowTuple& tuple) {
  uint64_t hash = MixHash(tuple.source.hi ^ tuple.protocol, tuple.source.lo);
  hash = MixHash(hash ^ tuple.destination.hi, tuple.destination.lo);
  return MixHash(hash, uint64_t{tuple.source_port} << 16 | tuple.destination_port);
}

class ConnectionCounts {
 public:
  explicit ConnectionCounts(uint32_t capacity);

  struct Connection {
    FlowIndex flow = kNoFlow;
    uint64_t fingerprint = 0;
  };
  // Counts the connection for this owner unless it has been already; returns how many there are,
  // this one included. `alive(const Connection&)` tells of others. `peek` changes nothing.
  template <class Alive>
  uint32_t Add(uint64_t owner, const Connection& connection, uint32_t limit, Nanos now,
               Alive&& alive, bool peek);
  // Looks at `visits` entries for ended connections.
  template <class Alive>
  void Sweep(size_t visits, Alive&& alive);

  size_t size() const { return size_; }

 private:
  static constexpr uint32_t kNone = 0xffffffff;

  struct Node {  // one connection of one owner
    Connection connection;
    uint32_t list = kNone;   // its owner; kNone: the node is free
    uint32_t next = kNone;   // same hash
    uint32_t older = kNone;  // of the same owner
    uint32_t newer = kNone;
  };
  struct List {
    uint64_t owner = 0;
    uint32_t count = 0;
    uint32_t newest = kNone;
    uint32_t next = kNone;  // same hash, or free
    Nanos looked;
  };

  uint32_t FindList(uint64_t owner) const;
  uint32_t MakeList(uint64_t owner);
  uint32_t FindNode(uint32_t list, const Connection& connection) const;
  void MakeNode(uint32_t list, const Connection& connection);
  void Remove(uint32_t node);
  size_t SlotOf(uint32_t list, const Connection& connection) const {
    return MixHash(connection.fingerprint, lists_[list].owner) & (heads_.size() - 1);
  }
  size_t ListSlot(uint64_t owner) const { return MixHash(owner, 1) & (list_heads_.size() - 1); }

  std::vector<Node> nodes_;
  std::vector<List> lists_;
  std::vector<uint32_t> heads_;
  std::vector<uint32_t> list_heads_;
  uint32_t free_node_ = 0;
  uint32_t free_list_ = 0;
  uint32_t sweep_ = 0;
  size_t size_ = 0;
};

template <class Alive>
uint32_t ConnectionCounts::Add(uint64_t owner, const Connection& connection, uint32_t limit,
                               Nanos now, Alive&& alive, bool peek) {
  uint32_t list = FindList(owner);
  const bool known = list != kNone && FindNode(list, connection) != kNone;
  if (peek) return (list == kNone ? 0 : lists_[list].count) + (known ? 0 : 1);
  Sweep(4, alive);
  list = FindList(owner);  // the sweep may have ended it
  if (list == kNone) list = MakeList(owner);
  if (list == kNone) return 1;
  if (FindNode(list, connection) == kNone) MakeNode(list, connection);
  if (lists_[list].count > limit && now - lists_[list].looked >= Millis(1)) {
    lists_[list].looked = now;
    for (uint32_t node = lists_[list].newest; node != kNone;) {
      const uint32_t older = nodes_[node].older;
      if (!(nodes_[node].connection.fingerprint == connection.fingerprint) &&
          !alive(nodes_[node].connection)) {
        Remove(node);
      }
      node = older;
    }
  }
  return lists_[list].count;
}

template <class Alive>
void ConnectionCounts::Sweep(size_t visits, Alive&& alive) {
  if (size_ == 0) return;
  while (visits-- > 0) {
    if (++sweep_ >= nodes_.size()) sweep_ = 0;
    if (nodes_[sweep_].list != kNone && !alive(nodes_[sweep_].connection)) Remove(sweep_);
  }
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_CONNECTION_COUNT_H_
