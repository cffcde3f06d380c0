// The elements of an nftables set or map: one immutable version of them.
//
// A change makes a new version that shares all blocks but the changed ones with the old, so that one
// element in 100,000 costs microseconds, and a Ruleset that names versions is one generation of all
// its sets. Kinds, by what the kernel's set types promise:
//   kExact     extendible hashing: a directory of blocks of about 32 records with a tag byte each
//   kInterval  a sorted directory of sorted blocks of up to 128 intervals that do not overlap
//   kBoxes     concatenations with ranges (the kernel's pipapo): blocks of up to 64 records with
//              their bounding boxes; a lookup scans the boxes: n / 64 comparisons at worst
// Keys are the bytes of consecutive registers; intervals compare as memcmp does.
//
// Threads: Find is for everybody; building, copying and destroying are the control thread's (the
// blocks' reference counts are plain numbers).
#ifndef SLUICE_TABLES_RULESET_ELEMENT_SET_H_
#define SLUICE_TABLES_RULESET_ELEMENT_SET_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "base/time.h"
#include "tables/ruleset/block.h"
#include "tables/ruleset/stateful.h"

namespace sluice::tables {

enum class SetKind : uint8_t { kExact, kInterval, kBoxes };

struct SetShape {
  SetKind kind = SetKind::kExact;
  uint8_t key_length = 0;       // bytes, at most 64
  uint8_t data_length = 0;      // of maps; 8 (a SetVerdict) for verdict maps
  bool timed = false;           // elements may expire
  bool stateful = false;        // elements may have statements of their own, or be objects
  std::vector<uint8_t> fields;  // kBoxes: bytes of each field, before padding to four

  bool operator==(const SetShape&) const = default;
};

struct SetVerdict {
  int32_t code = 0;
  uint32_t chain = 0;
};

// One element as it is given in. For intervals and boxes `end` is the last key that belongs to it.
// The data of verdict maps are the bytes of a SetVerdict.
struct Element {
  std::vector<uint8_t> key;
  std::vector<uint8_t> end;
  std::vector<uint8_t> data;
  bool catchall = false;
  Nanos expires;       // 0: never
  uint64_t order = 0;  // kBoxes: of boxes that overlap, the one with the smallest counts
  std::shared_ptr<const ElementState> state;
};

class ElementSet {
 public:
  static constexpr size_t kMaxKey = 64;

  // Of exact elements with equal keys the last one counts.
  static std::shared_ptr<const ElementSet> Build(SetShape shape, std::span<const Element> elements);
  // A new version; `removed` are looked up by key. What is not there is passed over.
  std::shared_ptr<const ElementSet> With(std::span<const Element> removed,
                                         std::span<const Element> added) const;

  // The element's value (see the accessors below), null when there is none. The catch-all element
  // stands in for what is not found. `key` has key_length bytes, padded with zeros to four.
  const uint8_t* Find(const uint8_t* key, Nanos now) const {
    const uint8_t* value = FindKey(key);
    if (value != nullptr && IsLive(value, now)) return value;
    if (has_catchall_ && IsLive(catchall_.data(), now)) return catchall_.data();
    return nullptr;
  }

  const uint8_t* Data(const uint8_t* value) const { return value; }
  SetVerdict Verdict(const uint8_t* value) const {
    SetVerdict verdict;
    std::memcpy(&verdict, value, sizeof verdict);
    return verdict;
  }
  // Null when it has none.
  const ElementState* State(const uint8_t* value) const {
    if (!shape_.stateful) return nullptr;
    const ElementState* state;
    std::memcpy(&state, value + state_at_, sizeof state);
    return state;
  }
  Nanos Expires(const uint8_t* value) const {
    if (!shape_.timed) return Nanos();
    int64_t expires;
    std::memcpy(&expires, value + expires_at_, sizeof expires);
    return Nanos(expires);
  }

  const SetShape& shape() const { return shape_; }
  size_t size() const { return size_; }  // with the catch-all element
  size_t memory_bytes() const;
  // Visits all but the catch-all element: key, end (empty for exact sets), value.
  using Visitor = std::function<void(std::span<const uint8_t>, std::span<const uint8_t>,
                                     const uint8_t*)>;
  void ForEach(const Visitor& visit) const;
  // What the element that Find finds owns; null when it has nothing. Control thread.
  std::shared_ptr<const ElementState> SharedState(const uint8_t* key) const;
  const uint8_t* catchall() const { return has_catchall_ ? catchall_.data() : nullptr; }

 private:
  friend class ElementSetEditor;

  explicit ElementSet(SetShape shape);

  bool IsLive(const uint8_t* value, Nanos now) const {
    if (!shape_.timed) return true;
    const Nanos expires = Expires(value);
    return expires == Nanos() || now < expires;
  }
  const uint8_t* FindKey(const uint8_t* key) const;
  const uint8_t* FindExact(const uint8_t* key) const;
  const uint8_t* FindInterval(const uint8_t* key) const;
  const uint8_t* FindBox(const uint8_t* key) const;

  SetShape shape_;
  size_t key_size_;      // key_length rounded up to four
  size_t value_offset_;  // in a record
  size_t expires_at_;    // in a value
  size_t state_at_;
  size_t order_at_;
  size_t stride_;
  size_t size_ = 0;
  bool has_catchall_ = false;
  std::vector<uint8_t> catchall_;  // a value
  std::shared_ptr<const ElementState> catchall_state_;

  std::vector<Ref<Block>> blocks_;     // kExact: by the hash's top bits
  uint32_t depth_ = 0;                 // kExact: how many bits
  std::vector<uint32_t> first_words_;  // kInterval of 4 bytes: each block's first key
  std::vector<uint8_t> first_keys_;    // kInterval, other lengths
  std::vector<uint32_t> bounds_;       // kBoxes: per block low and high words
  std::vector<uint8_t> field_words_;   // kBoxes: words of each field
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_ELEMENT_SET_H_
