#include "tables/ruleset/element_set.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/byte_order.h"
#include "tables/ruleset/element_set_editor.h"
#include "tables/ruleset/key_hash.h"

namespace sluice::tables {
namespace {

constexpr size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }

// The high bit of each of 8 bytes that equals `tag`; perhaps also of a byte behind one that does.
uint64_t MatchTags(const uint8_t* tags, uint8_t tag) {
  constexpr uint64_t kOnes = 0x0101010101010101;
  uint64_t word;
  std::memcpy(&word, tags, sizeof word);
  word ^= kOnes * tag;
  return (word - kOnes) & ~word & (kOnes << 7);
}

// How the words of one field compare.
bool LessOrEqual(const uint32_t* a, const uint32_t* b, size_t words) {
  for (size_t i = 0; i < words; ++i) {
    if (a[i] != b[i]) return a[i] < b[i];
  }
  return true;
}

}  // namespace

ElementSet::ElementSet(SetShape shape) : shape_(std::move(shape)) {
  key_size_ = RoundUp(shape_.key_length, 4);
  value_offset_ = RoundUp(shape_.kind == SetKind::kExact ? key_size_ : 2 * key_size_, 8);
  size_t at = RoundUp(shape_.data_length, 8);
  expires_at_ = at;
  if (shape_.timed) at += 8;
  state_at_ = at;
  if (shape_.stateful) at += 8;
  order_at_ = at;
  if (shape_.kind == SetKind::kBoxes) at += 8;
  // Exact sets of plain keys are packed: nothing in them wants to be aligned.
  if (at == 0 && shape_.kind == SetKind::kExact) value_offset_ = key_size_;
  stride_ = value_offset_ + at;
  for (const uint8_t field : shape_.fields) {
    field_words_.push_back(static_cast<uint8_t>((field + 3) / 4));
  }
}

const uint8_t* ElementSet::FindKey(const uint8_t* key) const {
  if (blocks_.empty()) return nullptr;
  switch (shape_.kind) {
    case SetKind::kExact:
      return FindExact(key);
    case SetKind::kInterval:
      return FindInterval(key);
    case SetKind::kBoxes:
      return FindBox(key);
  }
  return nullptr;
}

const uint8_t* ElementSet::FindExact(const uint8_t* key) const {
  const uint64_t hash = KeyHash(key, key_size_);
  const Block& block = *blocks_[depth_ == 0 ? 0 : hash >> (64 - depth_)];
  const auto tag = static_cast<uint8_t>(hash);
  for (uint32_t group = 0; group < block.count; group += 8) {
    for (uint64_t bits = MatchTags(block.tags.data() + group, tag); bits != 0; bits &= bits - 1) {
      const uint32_t i = group + static_cast<uint32_t>(std::countr_zero(bits)) / 8;
      if (i >= block.count) break;
      const uint8_t* record = block.records.data() + i * stride_;
      if (SameKey(record, key, key_size_)) return record + value_offset_;
    }
  }
  return nullptr;
}

const uint8_t* ElementSet::FindInterval(const uint8_t* key) const {
  if (shape_.key_length == 4) {
    const uint32_t word = LoadBe32(key);
    const auto after = std::upper_bound(first_words_.begin(), first_words_.end(), word);
    if (after == first_words_.begin()) return nullptr;
    const Block& block = *blocks_[static_cast<size_t>(after - first_words_.begin()) - 1];
    // The last record that does not start after the key.
    size_t low = 0;
    for (size_t n = block.count; n > 1;) {
      const size_t half = n / 2;
      low += LoadBe32(block.records.data() + (low + half) * stride_) <= word ? half : 0;
      n -= half;
    }
    const uint8_t* record = block.records.data() + low * stride_;
    return word <= LoadBe32(record + 4) ? record + value_offset_ : nullptr;
  }
  size_t low = 0;
  size_t high = blocks_.size();  // blocks before `low` start at or before the key
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (std::memcmp(first_keys_.data() + middle * key_size_, key, shape_.key_length) <= 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low == 0) return nullptr;
  const Block& block = *blocks_[low - 1];
  size_t at = 0;
  for (size_t n = block.count; n > 1;) {
    const size_t half = n / 2;
    const uint8_t* record = block.records.data() + (at + half) * stride_;
    at += std::memcmp(record, key, shape_.key_length) <= 0 ? half : 0;
    n -= half;
  }
  const uint8_t* record = block.records.data() + at * stride_;
  return std::memcmp(key, record + key_size_, shape_.key_length) <= 0 ? record + value_offset_
                                                                      : nullptr;
}

const uint8_t* ElementSet::FindBox(const uint8_t* key) const {
  std::array<uint32_t, kMaxKey / 4> words;
  const size_t count = key_size_ / 4;
  for (size_t i = 0; i < count; ++i) words[i] = LoadBe32(key + 4 * i);
  // `low` and `high` are `count` words each, in host order.
  const auto inside = [&](const uint32_t* low, const uint32_t* high) {
    size_t at = 0;
    for (const uint8_t field : field_words_) {
      if (!LessOrEqual(low + at, words.data() + at, field)) return false;
      if (!LessOrEqual(words.data() + at, high + at, field)) return false;
      at += field;
    }
    return true;
  };
  const uint8_t* best = nullptr;
  uint64_t best_order = ~uint64_t{0};
  for (size_t b = 0; b < blocks_.size(); ++b) {
    const uint32_t* bound = bounds_.data() + b * 2 * count;
    if (!inside(bound, bound + count)) continue;
    const Block& block = *blocks_[b];
    for (uint32_t i = 0; i < block.count; ++i) {
      const uint8_t* record = block.records.data() + i * stride_;
      const auto* low = reinterpret_cast<const uint32_t*>(record);
      if (!inside(low, low + count)) continue;
      uint64_t order;
      std::memcpy(&order, record + value_offset_ + order_at_, sizeof order);
      if (best != nullptr && order >= best_order) continue;
      best = record + value_offset_;
      best_order = order;
    }
  }
  return best;
}

std::shared_ptr<const ElementState> ElementSet::SharedState(const uint8_t* key) const {
  const uint8_t* value = FindKey(key);
  if (value == nullptr || !shape_.stateful) return nullptr;
  for (const Ref<Block>& block : blocks_) {
    const uint8_t* first = block->records.data();
    if (value < first || value >= first + block->records.size()) continue;
    return block->states[static_cast<size_t>(value - first) / stride_];
  }
  return nullptr;
}

size_t ElementSet::memory_bytes() const {
  size_t bytes = sizeof *this + blocks_.size() * sizeof(Ref<Block>) + 4 * first_words_.size() +
                 first_keys_.size() + 4 * bounds_.size();
  const Block* before = nullptr;  // a block may stand in several places, side by side
  for (const Ref<Block>& block : blocks_) {
    if (block.get() == before) continue;
    before = block.get();
    bytes += sizeof(Block) + block->tags.capacity() + block->records.capacity() +
             block->states.size() * (sizeof(std::shared_ptr<void>) + sizeof(ElementState) +
                                     sizeof(StatefulExpr));
  }
  return bytes;
}

void ElementSet::ForEach(const Visitor& visit) const {
  const Block* before = nullptr;
  for (const Ref<Block>& block : blocks_) {
    if (block.get() == before) continue;
    before = block.get();
    for (uint32_t i = 0; i < block->count; ++i) {
      const uint8_t* record = block->records.data() + i * stride_;
      if (shape_.kind == SetKind::kExact) {
        visit({record, shape_.key_length}, {}, record + value_offset_);
        continue;
      }
      std::array<uint8_t, 2 * kMaxKey> keys;
      if (shape_.kind == SetKind::kInterval) {
        std::memcpy(keys.data(), record, 2 * key_size_);
      } else {
        for (size_t w = 0; w < key_size_ / 2; ++w) {
          uint32_t word;
          std::memcpy(&word, record + 4 * w, sizeof word);
          StoreBe32(keys.data() + 4 * w, word);
        }
      }
      visit({keys.data(), shape_.key_length}, {keys.data() + key_size_, shape_.key_length},
            record + value_offset_);
    }
  }
}

std::shared_ptr<const ElementSet> ElementSet::Build(SetShape shape,
                                                    std::span<const Element> elements) {
  std::shared_ptr<ElementSet> set(new ElementSet(std::move(shape)));
  ElementSetEditor(*set).Fill(elements);
  return set;
}

std::shared_ptr<const ElementSet> ElementSet::With(std::span<const Element> removed,
                                                   std::span<const Element> added) const {
  std::shared_ptr<ElementSet> set(new ElementSet(*this));
  ElementSetEditor editor(*set);
  for (const Element& element : removed) editor.Remove(element);
  for (const Element& element : added) editor.Add(element);
  return set;
}

}  // namespace sluice::tables
