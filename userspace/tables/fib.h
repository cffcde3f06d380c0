// Longest prefix match: Fib4 and Fib6, read wait-free by workers while one control thread updates.
//
// Shape: a table of 65536 entries for the first 16 bits, then nodes of 8 bits each (fib_node.h); so
// IPv4 takes at most 3 steps, IPv6 as many as the prefixes around the address need (4 to 5 for
// /48). A prefix is stored in one place only, the node of its last bits. What a shorter prefix
// means for a node below it is one word in that node, `fallback`, which a lookup carries along; the
// default route is a word of its own. So an update rebuilds at most one node (and creates or
// removes the chain leading to it) and stores one word per existing child that its prefix covers: a
// /8 touches 256 entries and a /0 one word, however many routes lie below.
//
// Threads: Lookup and LookupBatch are for workers that are online in the EpochDomain, between two
// quiescent points; everything else is the control thread's. Every address is decided by one word
// per update, so that a lookup sees an update wholly or not at all; a lookup that overlaps several
// updates may see some of them.
//
// Limits: `routes` prefixes and `bytes` of address space, reserved at once and used as needed.
// Insert beyond either returns ResourceExhausted and changes nothing. Erase may need memory too (a
// node can gain runs); Insert leaves some for that, and when a stuck worker has kept even this from
// being reclaimed, Erase waits for it. Prefixes must be canonical.
#ifndef SLUICE_TABLES_FIB_H_
#define SLUICE_TABLES_FIB_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "base/address.h"
#include "tables/epoch.h"
#include "tables/fib_node.h"
#include "tables/line_arena.h"
#include "tables/route_id.h"

namespace sluice::tables {

struct FibLimits {
  size_t routes;
  size_t bytes;
  bool huge_pages = true;
};

struct FibStats {
  size_t routes = 0;
  size_t nodes = 0;
  size_t lookup_bytes = 0;   // what workers read: first table, bitmaps, entries, rounding of blocks
  size_t control_bytes = 0;  // what updates need besides: the prefixes and scratch space
  size_t extent_bytes = 0;   // how far the arena reaches at present, holes included
  FibLimits limits{};
};

struct Ipv4FibTraits {
  using Address = Ipv4;
  using Prefix = Ipv4Prefix;
  static constexpr uint32_t kBits = 32;
  static constexpr FibLimits kDefaultLimits{2'000'000, size_t{512} << 20};
  static uint32_t Top16(Address a) { return a.value >> 16; }
  // The eight bits that start at bit `offset` (16 or 24).
  static uint32_t Byte(Address a, uint32_t offset) { return a.value >> (24 - offset) & 0xff; }
  static Address WithByte(Address a, uint32_t offset, uint32_t byte) {
    return Address(a.value | byte << (24 - offset));
  }
  static Address FromTop16(uint32_t top) { return Address(top << 16); }
};

struct Ipv6FibTraits {
  using Address = Ipv6;
  using Prefix = Ipv6Prefix;
  static constexpr uint32_t kBits = 128;
  static constexpr FibLimits kDefaultLimits{500'000, size_t{1} << 30};
  static uint32_t Top16(const Address& a) { return static_cast<uint32_t>(a.hi >> 48); }
  static uint32_t Byte(const Address& a, uint32_t offset) {
    return static_cast<uint32_t>(offset < 64 ? a.hi >> (56 - offset) : a.lo >> (120 - offset)) &
           0xff;
  }
  static Address WithByte(Address a, uint32_t offset, uint32_t byte) {
    (offset < 64 ? a.hi : a.lo) |= uint64_t{byte} << (56 - offset % 64);
    return a;
  }
  static Address FromTop16(uint32_t top) { return Address(uint64_t{top} << 48, 0); }
};

template <class Traits>
class Fib {
 public:
  using Address = typename Traits::Address;
  using Prefix = typename Traits::Prefix;
  static constexpr FibLimits kDefaultLimits = Traits::kDefaultLimits;

  // The domain must outlive the table. Throws std::bad_alloc when the address space is refused.
  explicit Fib(EpochDomain& domain, FibLimits limits = kDefaultLimits);
  ~Fib();  // no worker may use it any longer
  Fib(const Fib&) = delete;
  Fib& operator=(const Fib&) = delete;

  // --- Workers ---
  // RouteId::None() when no prefix matches.
  RouteId Lookup(const Address& address) const;
  // The same for n addresses, level by level for kGroup of them at a time, so that their cache
  // misses overlap.
  void LookupBatch(const Address* addresses, RouteId* out, size_t n) const;

  // --- Control thread ---
  // Inserts the prefix or replaces its route. InvalidArgument for a prefix that is not canonical or
  // a route that is none.
  absl::Status Insert(const Prefix& prefix, RouteId route);
  bool Erase(const Prefix& prefix);          // false when it is not there
  RouteId Find(const Prefix& prefix) const;  // exactly this prefix; None when it is not there
  void ForEach(const std::function<void(const Prefix&, RouteId)>& visit) const;
  FibStats stats() const;
  size_t size() const { return routes_; }

 private:
  using Entry = fib::Entry;
  static constexpr size_t kGroup = 32;
  static constexpr uint32_t kRootSlots = 65536;
  static constexpr uint32_t kLevels = (Traits::kBits - 16) / 8;
  static constexpr uint32_t kMaxNodeLines =
      (fib::kMaxNodeWords + LineArena::kLineWords - 1) / LineArena::kLineWords;
  static_assert(kMaxNodeLines <= LineArena::kMaxBlockLines);

  // Where a prefix longer than 16 bits ends: in the node at `level` (1 is the one below the root).
  struct Place {
    uint32_t level;
    uint32_t code;
  };
  static constexpr uint32_t OffsetOf(uint32_t level) { return 8 + 8 * level; }
  static Place PlaceOf(const Prefix& prefix);
  static uint32_t RootCodeOf(const Prefix& prefix);

  // The words that lead to an address's nodes: at[k] holds the entry of the node at level k, for
  // k up to `depth`; at[depth + 1] is the place of a leaf, or beyond `level`.
  struct Path {
    uint32_t depth = 0;
    Entry* at[kLevels + 2];
  };
  Path Descend(const Address& address, uint32_t level) const;

  void UpdateRoot(uint32_t code);
  void PaintRoot(uint32_t code, Entry route);
  void SetLeafOrFallback(Entry* slot, Entry leaf);
  void PaintImage();
  Entry NewNode();                // from image_
  bool HasRoom();                 // for an Insert, and for Erase after it
  void ReplaceNode(Entry* slot);  // by image_, in place where single stores do it
  bool StoreInPlace(uint32_t* node, uint32_t words);
  void RetireNode(Entry child);
  void InsertBelow(const Prefix& prefix, RouteId route);
  void RemoveEmptyNode(const Path& path, const Address& address, uint32_t level);
  void VisitNode(Entry child, const Address& base, uint32_t level,
                 const std::function<void(const Prefix&, RouteId)>& visit) const;

  EpochDomain& domain_;
  const FibLimits limits_;
  LineArena arena_;
  uint32_t* const words_;  // the arena; its first 65536 words are the root
  alignas(64) Entry default_ = 0;
  alignas(64) size_t routes_ = 0;
  size_t nodes_ = 0;
  size_t cold_words_ = 0;
  // Routes of the prefixes of up to 16 bits, by code (see fib_node.h, with 16 for 8).
  std::vector<uint32_t> root_routes_;
  std::unique_ptr<fib::NodeImage> image_;
  std::vector<uint32_t> packed_;
};

using Fib4 = Fib<Ipv4FibTraits>;
using Fib6 = Fib<Ipv6FibTraits>;

// --- Lookup, in the header because workers inline it ---

template <class Traits>
inline RouteId Fib<Traits>::Lookup(const Address& address) const {
  Entry e = fib::LoadEntry(words_ + Traits::Top16(address));
  Entry best = 0;
  for (uint32_t offset = 16; fib::IsChild(e); offset += 8) {
    uint32_t* node = arena_.At(fib::LineOf(e));
    const Entry fallback = fib::LoadEntry(fib::Fallback(node));
    best = fallback != 0 ? fallback : best;
    e = fib::LoadEntry(fib::EntryOf(node, Traits::Byte(address, offset)));
  }
  if (e == 0) e = best;
  if (e == 0) e = fib::LoadEntry(&default_);
  return RouteId{e};
}

extern template class Fib<Ipv4FibTraits>;
extern template class Fib<Ipv6FibTraits>;

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FIB_H_
