// Fills and changes an ElementSet that nobody else sees yet. Control thread.
#ifndef SLUICE_TABLES_RULESET_ELEMENT_SET_EDITOR_H_
#define SLUICE_TABLES_RULESET_ELEMENT_SET_EDITOR_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "tables/ruleset/element_set.h"

namespace sluice::tables {

class ElementSetEditor {
 public:
  explicit ElementSetEditor(ElementSet& set) : set_(set) {}

  void Fill(std::span<const Element> elements);  // of an empty set
  void Add(const Element& element);
  void Remove(const Element& element);

 private:
  static constexpr size_t kExactBlock = 32;
  static constexpr size_t kIntervalBlock = 128;
  static constexpr size_t kBoxBlock = 64;
  static constexpr uint32_t kMaxDepth = 24;

  // A record being placed.
  struct Item {
    std::vector<uint8_t> record;
    std::shared_ptr<const ElementState> state;
  };
  struct Sorted {
    uint64_t hash = 0;
    uint32_t index = 0;
  };

  Item Encode(const Element& element) const;
  void EncodeValue(const Element& element, uint8_t* value) const;
  void Append(Block& block, const uint8_t* record, const std::shared_ptr<const ElementState>& state,
              uint64_t hash) const;
  void Erase(Block& block, size_t index) const;
  const uint8_t* RecordOf(const Block& block, size_t index) const {
    return block.records.data() + index * set_.stride_;
  }

  void FillExact(std::span<const Element> elements);
  void FillSorted(std::span<const Element> elements);
  void AddExact(const Item& item);
  void RemoveExact(const uint8_t* key);
  void SplitExact(uint64_t hash);
  Ref<Block> ExactCopy(uint64_t hash);  // of the block there, put in its place

  int Compare(const uint8_t* a, const uint8_t* b) const;  // records of sorted kinds, by low key
  size_t BlockFor(const uint8_t* record) const;
  void AddSorted(const Item& item);
  void RemoveSorted(const Item& item);
  bool RemoveSortedFrom(size_t block, const uint8_t* record);
  void Bound(size_t index);
  void InsertBlock(size_t index, Ref<Block> block);
  void EraseBlock(size_t index);

  ElementSet& set_;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_ELEMENT_SET_EDITOR_H_
