#include "tables/fib_node.h"

#include <algorithm>
#include <cstring>

namespace sluice::tables::fib {

PrefixList PrefixList::Of(const uint32_t* words) {
  const uint32_t* cold = Entries(words) + Head(words).RunCount();
  const uint32_t count = *cold;
  return {count, cold + 1, reinterpret_cast<const uint16_t*>(cold + 1 + count)};
}

uint32_t PrefixList::IndexOf(uint32_t code) const {
  return static_cast<uint32_t>(std::lower_bound(codes, codes + count, code) - codes);
}

uint32_t PrefixList::Find(uint32_t code) const {
  const uint32_t i = IndexOf(code);
  return i < count && codes[i] == code ? routes[i] : 0;
}

size_t NodeWords(const uint32_t* words) {
  return kHeadWords + Head(words).RunCount() + ColdWords(PrefixList::Of(words).count);
}

void NodeImage::Clear(Entry fallback) {
  fallback_ = fallback;
  prefix_count_ = 0;
  child_count_ = 0;
}

void NodeImage::Load(const uint32_t* words) {
  fallback_ = Head(words).fallback;
  const PrefixList list = PrefixList::Of(words);
  prefix_count_ = list.count;
  std::memcpy(routes_, list.routes, list.count * sizeof *list.routes);
  std::memcpy(codes_, list.codes, list.count * sizeof *list.codes);
  // The leaves are painted anew from the prefixes; of the entries only the children are taken. A
  // child is a run of its own, one slot long, since no other entry equals it.
  child_count_ = 0;
  const Entry* entry = Entries(words);
  for (uint32_t word = 0; word < 4; ++word) {
    for (uint64_t bits = Head(words).run_starts[word]; bits != 0; bits &= bits - 1, ++entry) {
      if (!IsChild(*entry)) continue;
      child_slots_[child_count_] = static_cast<uint8_t>(word * 64 + std::countr_zero(bits));
      children_[child_count_++] = *entry;
    }
  }
}

uint32_t NodeImage::Pack(uint32_t* words) const {
  NodeHead head{};
  head.fallback = fallback_;
  uint32_t* out = words + kHeadWords;
  Entry previous = ~slots_[0];
  for (uint32_t word = 0; word < 4; ++word) {
    head.runs_before[word] = static_cast<uint8_t>(out - words - kHeadWords);
    uint64_t bits = 0;
    for (uint32_t i = 0; i < 64; ++i) {
      const Entry e = slots_[word * 64 + i];
      const uint64_t starts = e != previous;
      bits |= starts << i;
      *out = e;  // kept when the run starts here, overwritten by the next one otherwise
      out += starts;
      previous = e;
    }
    head.run_starts[word] = bits;
  }
  std::memcpy(words, &head, sizeof head);
  *out++ = prefix_count_;
  std::memcpy(out, routes_, prefix_count_ * sizeof *routes_);
  out += prefix_count_;
  if (prefix_count_ % 2 != 0) out[prefix_count_ / 2] = 0;  // the half word of padding
  std::memcpy(out, codes_, prefix_count_ * sizeof *codes_);
  out += (prefix_count_ + 1) / 2;
  return static_cast<uint32_t>(out - words);
}

bool NodeImage::SetPrefix(uint32_t code, uint32_t route) {
  const uint32_t i =
      static_cast<uint32_t>(std::lower_bound(codes_, codes_ + prefix_count_, code) - codes_);
  if (i < prefix_count_ && codes_[i] == code) {
    routes_[i] = route;
    return false;
  }
  std::copy_backward(codes_ + i, codes_ + prefix_count_, codes_ + prefix_count_ + 1);
  std::copy_backward(routes_ + i, routes_ + prefix_count_, routes_ + prefix_count_ + 1);
  codes_[i] = static_cast<uint16_t>(code);
  routes_[i] = route;
  ++prefix_count_;
  return true;
}

void NodeImage::RemovePrefix(uint32_t code) {
  const uint32_t i =
      static_cast<uint32_t>(std::lower_bound(codes_, codes_ + prefix_count_, code) - codes_);
  std::copy(codes_ + i + 1, codes_ + prefix_count_, codes_ + i);
  std::copy(routes_ + i + 1, routes_ + prefix_count_, routes_ + i);
  --prefix_count_;
}

void NodeImage::SetChild(uint32_t slot, Entry child) {
  child_slots_[child_count_] = static_cast<uint8_t>(slot);
  children_[child_count_++] = child;
}

void NodeImage::RemoveChild(uint32_t slot) {
  const uint32_t i = static_cast<uint32_t>(
      std::find(child_slots_, child_slots_ + child_count_, slot) - child_slots_);
  --child_count_;
  child_slots_[i] = child_slots_[child_count_];
  children_[i] = children_[child_count_];
}

void NodeImage::PaintLeaves() {
  std::fill(slots_, slots_ + kSlots, 0);
  // Ascending codes are ascending lengths: a longer prefix paints over a shorter one.
  for (uint32_t i = 0; i < prefix_count_; ++i) {
    Entry* first = slots_ + FirstSlotOf(codes_[i]);
    std::fill_n(first, kSlots >> LengthOf(codes_[i]), routes_[i]);
  }
}

}  // namespace sluice::tables::fib
