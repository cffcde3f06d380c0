// Finds a connection's index by its addresses and ports.
//
// Open addressing with linear probing, at most half full, and removal that closes the gap, so that no
// tombstones pile up. The hash is keyed (siphash.h): strangers choose the addresses. A slot is 8
// bytes: the index and 32 bits of hash; the tuples stay with the connections, which `tuple_of(index)`
// hands out. One thread; nothing is allocated after construction.
#ifndef SLUICE_TRANSPORT_COMMON_TUPLE_TABLE_H_
#define SLUICE_TRANSPORT_COMMON_TUPLE_TABLE_H_

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "transport/common/endpoint.h"
#include "transport/common/slab.h"

namespace sluice::transport {

class TupleTable {
 public:
  TupleTable(uint32_t capacity, const HashKey& key)
      : key_(key), slots_(std::bit_ceil(std::max<size_t>(capacity, 8) * 2)) {}

  template <class TupleOf>
  uint32_t Find(const Tuple& t, TupleOf&& tuple_of) const {
    const uint32_t hash = Hash(t);
    for (size_t i = hash & mask(); slots_[i].index != kNoIndex; i = (i + 1) & mask()) {
      if (slots_[i].hash == hash && tuple_of(slots_[i].index) == t) return slots_[i].index;
    }
    return kNoIndex;
  }

  // The tuple must not be there yet, and no more than `capacity` at a time.
  void Insert(const Tuple& t, uint32_t index) {
    const uint32_t hash = Hash(t);
    size_t i = hash & mask();
    while (slots_[i].index != kNoIndex) i = (i + 1) & mask();
    slots_[i] = {hash, index};
  }

  void Erase(const Tuple& t, uint32_t index) {
    size_t hole = Hash(t) & mask();
    while (slots_[hole].index != index) hole = (hole + 1) & mask();
    // Whatever a search would no longer reach moves back into the hole.
    for (size_t i = (hole + 1) & mask(); slots_[i].index != kNoIndex; i = (i + 1) & mask()) {
      const size_t home = slots_[i].hash & mask();
      if (((i - home) & mask()) >= ((i - hole) & mask())) {
        slots_[hole] = slots_[i];
        hole = i;
      }
    }
    slots_[hole] = Slot{};
  }

 private:
  struct Slot {
    uint32_t hash = 0;
    uint32_t index = kNoIndex;
  };

  uint32_t Hash(const Tuple& t) const { return static_cast<uint32_t>(HashOf(key_, t)); }
  size_t mask() const { return slots_.size() - 1; }

  const HashKey key_;
  std::vector<Slot> slots_;
};

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_TUPLE_TABLE_H_
