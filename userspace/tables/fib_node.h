// One node of the FIB's trie: eight address bits, 256 slots, kept as runs of equal slots.
//
// The idea is the Lulea one (M. Degermark, A. Brodnik, S. Carlsson, S. Pink, "Small forwarding
// tables for fast routing lookups", SIGCOMM 1997): a bitmap marks where a run starts, and counting
// its bits up to a slot gives the index of the run's entry. In memory, in 32-bit words:
//
//   hot (workers)    8  bitmap: bit s set when slot s starts a run; bit 0 always is
//                    1  fallback: the route of slots without one of their own, from shorter
//                       prefixes of the level above (0: look further up)
//                    1  four bytes: runs before each 64-bit word of the bitmap
//                    r  one entry per run
//   cold (control)   1  n, the number of prefixes that end in this node
//                    n  their routes
//                  n/2  their codes, 16 bits each, ascending
//
// so that a node with up to six runs is answered from one cache line, and one with more from two.
// A prefix whose last `len` (1 to 8) bits are in this node has the code (1 << len) | bits: the
// number of its place in a binary tree, whose order is "shorter first".
//
// An entry is 0 (no route here), a RouteId, or a child: top bit set, line number in the arena.
// Workers read nodes without locks; the control thread changes a published node only by single
// atomic stores to an entry or the fallback. Everything else is done in a NodeImage, the unpacked
// form, and packed into a fresh block.
#ifndef SLUICE_TABLES_FIB_NODE_H_
#define SLUICE_TABLES_FIB_NODE_H_

#include <bit>
#include <cstddef>
#include <cstdint>

namespace sluice::tables::fib {

using Entry = uint32_t;
inline constexpr Entry kChildBit = 0x8000'0000;
constexpr bool IsChild(Entry e) { return (e & kChildBit) != 0; }
constexpr uint32_t LineOf(Entry child) { return child & ~kChildBit; }
constexpr Entry ChildEntry(uint32_t line) { return line | kChildBit; }

// Words shared with workers. A route's content must be visible to whoever sees its id, and a
// node's to whoever sees its line: release and acquire, which are plain moves on x86.
inline Entry LoadEntry(const Entry* p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }
inline void StoreEntry(Entry* p, Entry e) { __atomic_store_n(p, e, __ATOMIC_RELEASE); }

inline constexpr size_t kSlots = 256;
inline constexpr size_t kMaxPrefixes = 510;  // all of length 1 to 8

struct NodeHead {
  uint64_t run_starts[4];
  Entry fallback;
  uint8_t runs_before[4];

  // The index of the run that holds `slot`.
  uint32_t RunOf(uint32_t slot) const {
    const uint32_t word = slot / 64;
    const uint64_t up_to_slot = ~uint64_t{0} >> (63 - slot % 64);
    return runs_before[word] + static_cast<uint32_t>(std::popcount(run_starts[word] & up_to_slot)) -
           1;
  }
  uint32_t RunCount() const {
    return runs_before[3] + static_cast<uint32_t>(std::popcount(run_starts[3]));
  }
};
inline constexpr size_t kHeadWords = 10;
static_assert(sizeof(NodeHead) == kHeadWords * sizeof(uint32_t));

inline constexpr size_t kMaxNodeWords = kHeadWords + kSlots + 1 + kMaxPrefixes + kMaxPrefixes / 2;

// Views into a packed node at `words`.
inline const NodeHead& Head(const uint32_t* words) {
  return *reinterpret_cast<const NodeHead*>(words);
}
inline Entry* Fallback(uint32_t* words) { return words + 8; }
inline const Entry* Entries(const uint32_t* words) { return words + kHeadWords; }
inline Entry* EntryOf(uint32_t* words, uint32_t slot) {
  return words + kHeadWords + Head(words).RunOf(slot);
}
inline const Entry* EntryOf(const uint32_t* words, uint32_t slot) {
  return words + kHeadWords + Head(words).RunOf(slot);
}

// The cold part of a packed node.
struct PrefixList {
  uint32_t count;
  const uint32_t* routes;
  const uint16_t* codes;

  static PrefixList Of(const uint32_t* words);
  uint32_t IndexOf(uint32_t code) const;  // of the first code >= `code`; `count` when none
  uint32_t Find(uint32_t code) const;     // the route, or 0
};
constexpr size_t ColdWords(uint32_t prefixes) { return 1 + prefixes + (prefixes + 1) / 2; }
size_t NodeWords(const uint32_t* words);

constexpr uint32_t CodeOf(uint32_t slot, uint32_t len) { return (1u << len) | slot >> (8 - len); }
constexpr uint32_t LengthOf(uint32_t code) { return 31u - std::countl_zero(code); }
constexpr uint32_t FirstSlotOf(uint32_t code) {
  return (code << (8 - LengthOf(code))) & (kSlots - 1);
}

// A node taken apart, for the control thread to change. Roughly 5 KiB; one lives in each Fib.
class NodeImage {
 public:
  void Clear(Entry fallback);
  void Load(const uint32_t* words);
  uint32_t Pack(uint32_t* words) const;  // returns the number of words, at most kMaxNodeWords

  // Returns true when the prefix is new, false when only its route changed.
  bool SetPrefix(uint32_t code, uint32_t route);
  void RemovePrefix(uint32_t code);  // must be there
  void SetChild(uint32_t slot, Entry child);
  void RemoveChild(uint32_t slot);

  bool empty() const { return prefix_count_ == 0 && child_count_ == 0; }
  Entry fallback() const { return fallback_; }

  // Works out the leaves of all slots from the prefixes, and calls set_fallback(child, leaf) for
  // each slot that holds a child. Due after any change and before Pack.
  template <class SetFallback>
  void Paint(SetFallback set_fallback) {
    PaintLeaves();
    for (uint32_t i = 0; i < child_count_; ++i) {
      const uint32_t slot = child_slots_[i];
      set_fallback(children_[i], slots_[slot]);
      slots_[slot] = children_[i];
    }
  }

 private:
  void PaintLeaves();

  Entry fallback_ = 0;
  uint32_t prefix_count_ = 0;
  uint32_t child_count_ = 0;
  Entry slots_[kSlots];
  Entry children_[kSlots];
  uint8_t child_slots_[kSlots];
  uint32_t routes_[kMaxPrefixes];
  uint16_t codes_[kMaxPrefixes];
};

}  // namespace sluice::tables::fib

#endif  // SLUICE_TABLES_FIB_NODE_H_
