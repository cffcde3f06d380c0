#include "tables/ruleset/element_set_editor.h"

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "tables/ruleset/key_hash.h"

namespace sluice::tables {

void ElementSetEditor::EncodeValue(const Element& element, uint8_t* value) const {
  const SetShape& shape = set_.shape_;
  std::copy_n(element.data.begin(), std::min<size_t>(element.data.size(), shape.data_length),
              value);
  if (shape.timed) {
    const int64_t expires = element.expires.count();
    std::memcpy(value + set_.expires_at_, &expires, sizeof expires);
  }
  if (shape.stateful) {
    const ElementState* state = element.state.get();
    std::memcpy(value + set_.state_at_, &state, sizeof state);
  }
  if (shape.kind == SetKind::kBoxes) {
    std::memcpy(value + set_.order_at_, &element.order, sizeof element.order);
  }
}

ElementSetEditor::Item ElementSetEditor::Encode(const Element& element) const {
  const SetShape& shape = set_.shape_;
  Item item{std::vector<uint8_t>(set_.stride_), element.state};
  uint8_t* record = item.record.data();
  const auto put = [&](const std::vector<uint8_t>& key, uint8_t* to) {
    std::copy_n(key.begin(), std::min<size_t>(key.size(), shape.key_length), to);
    if (shape.kind != SetKind::kBoxes) return;
    for (size_t at = 0; at < set_.key_size_; at += 4) {  // words in host order
      const uint32_t word = LoadBe32(to + at);
      std::memcpy(to + at, &word, sizeof word);
    }
  };
  put(element.key, record);
  if (shape.kind != SetKind::kExact) {
    put(element.end.empty() ? element.key : element.end, record + set_.key_size_);
  }
  EncodeValue(element, record + set_.value_offset_);
  return item;
}

void ElementSetEditor::Append(Block& block, const uint8_t* record,
                              const std::shared_ptr<const ElementState>& state,
                              uint64_t hash) const {
  block.records.insert(block.records.end(), record, record + set_.stride_);
  if (set_.shape_.kind == SetKind::kExact) {
    if (block.count % 16 == 0) block.tags.resize(block.count + 16);
    block.tags[block.count] = static_cast<uint8_t>(hash);
  }
  if (set_.shape_.stateful) block.states.push_back(state);
  ++block.count;
}

void ElementSetEditor::Erase(Block& block, size_t index) const {
  const auto at = static_cast<ptrdiff_t>(index);
  const auto stride = static_cast<ptrdiff_t>(set_.stride_);
  block.records.erase(block.records.begin() + at * stride,
                      block.records.begin() + (at + 1) * stride);
  if (set_.shape_.kind == SetKind::kExact) {
    block.tags.erase(block.tags.begin() + at);
    block.tags.push_back(0);
  }
  if (set_.shape_.stateful) block.states.erase(block.states.begin() + at);
  --block.count;
}

void ElementSetEditor::Fill(std::span<const Element> elements) {
  for (const Element& element : elements) {
    if (element.catchall) Add(element);
  }
  if (set_.shape_.kind == SetKind::kExact) {
    FillExact(elements);
  } else {
    FillSorted(elements);
  }
}

void ElementSetEditor::Add(const Element& element) {
  if (element.catchall) {
    if (!set_.has_catchall_) ++set_.size_;
    set_.has_catchall_ = true;
    set_.catchall_.assign(std::max<size_t>(set_.stride_ - set_.value_offset_, 1), 0);
    set_.catchall_state_ = element.state;
    EncodeValue(element, set_.catchall_.data());
    return;
  }
  const Item item = Encode(element);
  if (set_.shape_.kind == SetKind::kExact) {
    AddExact(item);
  } else {
    AddSorted(item);
  }
}

void ElementSetEditor::Remove(const Element& element) {
  if (element.catchall) {
    if (set_.has_catchall_) --set_.size_;
    set_.has_catchall_ = false;
    set_.catchall_state_.reset();
    return;
  }
  if (set_.blocks_.empty()) return;
  const Item item = Encode(element);
  if (set_.shape_.kind == SetKind::kExact) {
    RemoveExact(item.record.data());
  } else {
    RemoveSorted(item);
  }
}

// --- Exact sets ---

void ElementSetEditor::FillExact(std::span<const Element> elements) {
  std::vector<Sorted> order;
  order.reserve(elements.size());
  std::vector<uint8_t> key(set_.key_size_);
  for (uint32_t i = 0; i < elements.size(); ++i) {
    if (elements[i].catchall) continue;
    std::fill(key.begin(), key.end(), uint8_t{0});
    std::copy_n(elements[i].key.begin(),
                std::min<size_t>(elements[i].key.size(), set_.shape_.key_length), key.begin());
    order.push_back({KeyHash(key.data(), set_.key_size_), i});
  }
  if (order.empty()) return;
  std::sort(order.begin(), order.end(), [](const Sorted& a, const Sorted& b) {
    return a.hash != b.hash ? a.hash < b.hash : a.index < b.index;
  });
  // Equal keys lie together now; later ones replace earlier ones.
  struct Range {
    size_t from;
    size_t to;
    uint32_t depth;
  };
  std::vector<Range> stack{{0, order.size(), 0}};
  std::vector<Ref<Block>> leaves;
  uint32_t deepest = 0;
  while (!stack.empty()) {
    const Range range = stack.back();
    stack.pop_back();
    if (range.to - range.from > kExactBlock && range.depth < kMaxDepth) {
      const uint64_t bit = uint64_t{1} << (63 - range.depth);
      const auto middle = std::partition_point(
          order.begin() + static_cast<ptrdiff_t>(range.from),
          order.begin() + static_cast<ptrdiff_t>(range.to),
          [bit](const Sorted& s) { return (s.hash & bit) == 0; });
      const auto at = static_cast<size_t>(middle - order.begin());
      stack.push_back({at, range.to, range.depth + 1});
      stack.push_back({range.from, at, range.depth + 1});
      continue;
    }
    Ref<Block> block(new Block);
    block->depth = range.depth;
    deepest = std::max(deepest, range.depth);
    block->records.reserve((range.to - range.from) * set_.stride_);
    for (size_t i = range.from; i < range.to; ++i) {
      const Item item = Encode(elements[order[i].index]);
      bool replaced = false;
      for (size_t k = block->count; k-- > 0 && !replaced;) {
        if (!SameKey(RecordOf(*block, k), item.record.data(), set_.key_size_)) continue;
        std::memcpy(block->records.data() + k * set_.stride_, item.record.data(), set_.stride_);
        if (set_.shape_.stateful) block->states[k] = item.state;
        replaced = true;
      }
      if (replaced) continue;
      Append(*block, item.record.data(), item.state, order[i].hash);
      ++set_.size_;
    }
    leaves.push_back(std::move(block));
  }
  set_.depth_ = deepest;
  set_.blocks_.reserve(size_t{1} << deepest);
  for (const Ref<Block>& leaf : leaves) {
    set_.blocks_.insert(set_.blocks_.end(), size_t{1} << (deepest - leaf->depth), leaf);
  }
}

Ref<Block> ElementSetEditor::ExactCopy(uint64_t hash) {
  const size_t index = set_.depth_ == 0 ? 0 : hash >> (64 - set_.depth_);
  const Ref<Block> old = set_.blocks_[index];
  Block* fresh = new Block(*old);
  fresh->references = 0;
  Ref<Block> copy(fresh);
  const uint32_t span_bits = set_.depth_ - old->depth;
  const size_t first = index >> span_bits << span_bits;
  for (size_t i = 0; i < size_t{1} << span_bits; ++i) set_.blocks_[first + i] = copy;
  return copy;
}

void ElementSetEditor::AddExact(const Item& item) {
  if (set_.blocks_.empty()) {
    set_.blocks_.push_back(Ref<Block>(new Block));
    set_.depth_ = 0;
  }
  const uint64_t hash = KeyHash(item.record.data(), set_.key_size_);
  for (;;) {
    const Ref<Block> block = ExactCopy(hash);
    for (size_t i = 0; i < block->count; ++i) {
      if (!SameKey(RecordOf(*block, i), item.record.data(), set_.key_size_)) continue;
      std::memcpy(block->records.data() + i * set_.stride_, item.record.data(), set_.stride_);
      if (set_.shape_.stateful) block->states[i] = item.state;
      return;
    }
    if (block->count < kExactBlock || block->depth == kMaxDepth) {
      Append(*block, item.record.data(), item.state, hash);
      ++set_.size_;
      return;
    }
    SplitExact(hash);
  }
}

void ElementSetEditor::SplitExact(uint64_t hash) {
  size_t index = set_.depth_ == 0 ? 0 : hash >> (64 - set_.depth_);
  const Ref<Block> old = set_.blocks_[index];
  if (old->depth == set_.depth_) {  // the directory doubles
    std::vector<Ref<Block>> doubled;
    doubled.reserve(set_.blocks_.size() * 2);
    for (const Ref<Block>& block : set_.blocks_) doubled.insert(doubled.end(), 2, block);
    set_.blocks_ = std::move(doubled);
    ++set_.depth_;
    index = hash >> (64 - set_.depth_);
  }
  const Ref<Block> halves[2] = {Ref<Block>(new Block), Ref<Block>(new Block)};
  for (const Ref<Block>& half : halves) half->depth = old->depth + 1;
  for (size_t i = 0; i < old->count; ++i) {
    const uint8_t* record = RecordOf(*old, i);
    const uint64_t record_hash = KeyHash(record, set_.key_size_);
    Append(*halves[record_hash >> (63 - old->depth) & 1], record,
           set_.shape_.stateful ? old->states[i] : nullptr, record_hash);
  }
  const uint32_t span_bits = set_.depth_ - old->depth;
  const size_t first = index >> span_bits << span_bits;
  const size_t half_span = size_t{1} << (span_bits - 1);
  for (size_t i = 0; i < half_span; ++i) {
    set_.blocks_[first + i] = halves[0];
    set_.blocks_[first + half_span + i] = halves[1];
  }
}

void ElementSetEditor::RemoveExact(const uint8_t* key) {
  if (set_.FindExact(key) == nullptr) return;
  const Ref<Block> block = ExactCopy(KeyHash(key, set_.key_size_));
  for (size_t i = 0; i < block->count; ++i) {
    if (!SameKey(RecordOf(*block, i), key, set_.key_size_)) continue;
    Erase(*block, i);
    --set_.size_;
    return;
  }
}

// --- Intervals and boxes: blocks in the order of their records' low keys ---

int ElementSetEditor::Compare(const uint8_t* a, const uint8_t* b) const {
  if (set_.shape_.kind == SetKind::kInterval) return std::memcmp(a, b, set_.shape_.key_length);
  for (size_t at = 0; at < 2 * set_.key_size_; at += 4) {
    uint32_t x;
    uint32_t y;
    std::memcpy(&x, a + at, sizeof x);
    std::memcpy(&y, b + at, sizeof y);
    if (x != y) return x < y ? -1 : 1;
  }
  return 0;
}

void ElementSetEditor::FillSorted(std::span<const Element> elements) {
  std::vector<Item> items;
  items.reserve(elements.size());
  for (const Element& element : elements) {
    if (!element.catchall) items.push_back(Encode(element));
  }
  std::stable_sort(items.begin(), items.end(), [this](const Item& a, const Item& b) {
    return Compare(a.record.data(), b.record.data()) < 0;
  });
  const size_t full = set_.shape_.kind == SetKind::kInterval ? kIntervalBlock : kBoxBlock;
  for (size_t i = 0; i < items.size(); ++i) {
    // Three quarters full: the next insertions find room.
    if (set_.blocks_.empty() || set_.blocks_.back()->count >= full * 3 / 4) {
      InsertBlock(set_.blocks_.size(), Ref<Block>(new Block));
    }
    Append(*set_.blocks_.back(), items[i].record.data(), items[i].state, 0);
    ++set_.size_;
  }
  for (size_t i = 0; i < set_.blocks_.size(); ++i) Bound(i);
}

void ElementSetEditor::InsertBlock(size_t index, Ref<Block> block) {
  const auto at = static_cast<ptrdiff_t>(index);
  set_.blocks_.insert(set_.blocks_.begin() + at, std::move(block));
  if (set_.shape_.kind == SetKind::kBoxes) {
    const auto words = static_cast<ptrdiff_t>(set_.key_size_ / 2);
    set_.bounds_.insert(set_.bounds_.begin() + at * words, static_cast<size_t>(words), 0);
  } else if (set_.shape_.key_length == 4) {
    set_.first_words_.insert(set_.first_words_.begin() + at, 0);
  } else {
    const auto size = static_cast<ptrdiff_t>(set_.key_size_);
    set_.first_keys_.insert(set_.first_keys_.begin() + at * size, set_.key_size_, 0);
  }
}

void ElementSetEditor::EraseBlock(size_t index) {
  const auto at = static_cast<ptrdiff_t>(index);
  set_.blocks_.erase(set_.blocks_.begin() + at);
  if (set_.shape_.kind == SetKind::kBoxes) {
    const auto words = static_cast<ptrdiff_t>(set_.key_size_ / 2);
    set_.bounds_.erase(set_.bounds_.begin() + at * words, set_.bounds_.begin() + (at + 1) * words);
  } else if (set_.shape_.key_length == 4) {
    set_.first_words_.erase(set_.first_words_.begin() + at);
  } else {
    const auto size = static_cast<ptrdiff_t>(set_.key_size_);
    set_.first_keys_.erase(set_.first_keys_.begin() + at * size,
                           set_.first_keys_.begin() + (at + 1) * size);
  }
}

void ElementSetEditor::Bound(size_t index) {
  const Block& block = *set_.blocks_[index];
  if (set_.shape_.kind == SetKind::kInterval) {
    if (set_.shape_.key_length == 4) {
      set_.first_words_[index] = LoadBe32(block.records.data());
    } else {
      std::memcpy(set_.first_keys_.data() + index * set_.key_size_, block.records.data(),
                  set_.key_size_);
    }
    return;
  }
  const size_t words = set_.key_size_ / 4;
  uint32_t* low = set_.bounds_.data() + index * 2 * words;
  uint32_t* high = low + words;
  std::memcpy(low, block.records.data(), 2 * set_.key_size_);
  for (size_t i = 1; i < block.count; ++i) {
    const auto* record = reinterpret_cast<const uint32_t*>(RecordOf(block, i));
    size_t at = 0;
    for (const uint8_t field : set_.field_words_) {
      if (std::lexicographical_compare(record + at, record + at + field, low + at,
                                       low + at + field)) {
        std::copy(record + at, record + at + field, low + at);
      }
      const uint32_t* end = record + words;
      if (std::lexicographical_compare(high + at, high + at + field, end + at, end + at + field)) {
        std::copy(end + at, end + at + field, high + at);
      }
      at += field;
    }
  }
}

size_t ElementSetEditor::BlockFor(const uint8_t* record) const {
  // The last block whose first record is not after this one.
  size_t low = 0;
  size_t high = set_.blocks_.size();
  while (low < high) {
    const size_t middle = (low + high) / 2;
    if (Compare(RecordOf(*set_.blocks_[middle], 0), record) <= 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low == 0 ? 0 : low - 1;
}

void ElementSetEditor::AddSorted(const Item& item) {
  RemoveSorted(item);
  if (set_.blocks_.empty()) InsertBlock(0, Ref<Block>(new Block));
  const size_t full = set_.shape_.kind == SetKind::kInterval ? kIntervalBlock : kBoxBlock;
  size_t index = set_.blocks_[0]->count == 0 ? 0 : BlockFor(item.record.data());
  const Ref<Block> old = set_.blocks_[index];
  Ref<Block> fresh(new Block);
  fresh->records.reserve(old->records.size() + set_.stride_);
  bool placed = false;
  for (size_t i = 0; i < old->count; ++i) {
    const uint8_t* record = RecordOf(*old, i);
    if (!placed && Compare(item.record.data(), record) < 0) {
      Append(*fresh, item.record.data(), item.state, 0);
      placed = true;
    }
    Append(*fresh, record, set_.shape_.stateful ? old->states[i] : nullptr, 0);
  }
  if (!placed) Append(*fresh, item.record.data(), item.state, 0);
  ++set_.size_;
  set_.blocks_[index] = fresh;
  if (fresh->count > full) {
    Ref<Block> left(new Block);
    Ref<Block> right(new Block);
    for (size_t i = 0; i < fresh->count; ++i) {
      Append(i < fresh->count / 2 ? *left : *right, RecordOf(*fresh, i),
             set_.shape_.stateful ? fresh->states[i] : nullptr, 0);
    }
    set_.blocks_[index] = std::move(left);
    InsertBlock(index + 1, std::move(right));
    Bound(index + 1);
  }
  Bound(index);
}

bool ElementSetEditor::RemoveSortedFrom(size_t index, const uint8_t* record) {
  const Ref<Block> old = set_.blocks_[index];
  for (size_t i = 0; i < old->count; ++i) {
    if (Compare(RecordOf(*old, i), record) != 0) continue;
    Block* fresh = new Block(*old);
    fresh->references = 0;
    set_.blocks_[index] = Ref<Block>(fresh);
    Erase(*fresh, i);
    --set_.size_;
    if (fresh->count == 0) {
      EraseBlock(index);
    } else {
      Bound(index);
    }
    return true;
  }
  return false;
}

void ElementSetEditor::RemoveSorted(const Item& item) {
  if (set_.blocks_.empty()) return;
  RemoveSortedFrom(BlockFor(item.record.data()), item.record.data());
}

}  // namespace sluice::tables
