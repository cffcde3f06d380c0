#include "tables/ruleset/dynamic_set.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <new>

#include "tables/ruleset/key_hash.h"

namespace sluice::tables {
namespace {

constexpr size_t RoundUp(size_t n, size_t to) { return (n + to - 1) / to * to; }
constexpr Nanos kTimerGranularity = Millis(100);
constexpr size_t kTimerSlots = 4096;

}  // namespace

Overlay::Overlay(const Shape& shape, Nanos start)
    : key_size_(RoundUp(shape.key_length, 4)),
      stride_(RoundUp(sizeof(Node) + key_size_ + RoundUp(shape.data_length, 4), alignof(Node))),
      capacity_(std::max<uint32_t>(shape.capacity, 1)),
      seed_(shape.seed),
      region_(stride_ * capacity_, false),
      heads_(std::bit_ceil(size_t{capacity_}), kNone),
      timers_(capacity_, kTimerGranularity, kTimerSlots, start) {}

uint32_t Overlay::IndexOf(const Node* node) const {
  return static_cast<uint32_t>(
      static_cast<size_t>(reinterpret_cast<const uint8_t*>(node) -
                          static_cast<const uint8_t*>(region_.data())) /
      stride_);
}

uint32_t& Overlay::HeadOf(const uint8_t* key) {
  return heads_[KeyHash(key, key_size_, seed_) & (heads_.size() - 1)];
}

Overlay::Node* Overlay::Find(const uint8_t* key, Nanos now) {
  for (uint32_t index = HeadOf(key); index != kNone;) {
    Node* node = At(index);
    if (SameKey(Key(node), key, key_size_)) {
      return node->expires != 0 && now.count() >= node->expires ? nullptr : node;
    }
    index = node->next;
  }
  return nullptr;
}

Overlay::Node* Overlay::Insert(const uint8_t* key, Nanos now) {
  // An expired element of the same key makes room for this one.
  for (uint32_t index = HeadOf(key); index != kNone; index = At(index)->next) {
    if (!SameKey(Key(At(index)), key, key_size_)) continue;
    Remove(At(index));
    break;
  }
  if (free_ == kNone && fresh_ == capacity_) Expire(now, 64);
  uint32_t index = free_;
  if (index != kNone) {
    free_ = At(index)->next;
  } else if (fresh_ < capacity_) {
    index = fresh_++;
    new (At(index)) Node;
  } else {
    return nullptr;
  }
  Node* node = At(index);
  node->expires = 0;
  node->exprs = 0;
  node->deleted = false;
  for (StateCell& cell : node->cells) cell.Clear();
  std::memcpy(Key(node), key, key_size_);
  uint32_t& head = HeadOf(key);
  node->next = head;
  head = index;
  size_.Add();
  ++changes_;
  return node;
}

void Overlay::SetExpiry(Node* node, Nanos expires) {
  node->expires = expires.count();
  if (expires == Nanos()) {
    timers_.Cancel(IndexOf(node));
  } else {
    timers_.Schedule(IndexOf(node), expires);
  }
}

void Overlay::Remove(Node* node) {
  const uint32_t index = IndexOf(node);
  timers_.Cancel(index);
  uint32_t* link = &HeadOf(Key(node));
  while (*link != index) link = &At(*link)->next;
  *link = node->next;
  node->next = free_;
  free_ = index;
  size_.Sub();
  ++changes_;
}

void Overlay::Expire(Nanos now, size_t max_visits) {
  timers_.Advance(now, [this](uint32_t index) { Remove(At(index)); }, max_visits);
}

void Overlay::Clear() {
  for (uint32_t& head : heads_) {
    while (head != kNone) Remove(At(head));
  }
}

size_t Overlay::memory_bytes() const {
  return fresh_ * stride_ + heads_.size() * sizeof(uint32_t) + capacity_ * size_t{16};
}

DynamicSet::DynamicSet(uint64_t id, const Overlay::Shape& shape, uint32_t workers, Nanos timeout,
                       Nanos start)
    : id_(id), shape_(shape), timeout_(timeout), flushed_(workers) {
  Overlay::Shape bounded = shape;
  bounded.capacity = std::min(shape.capacity, kMaxCapacity);
  for (uint32_t worker = 0; worker < workers; ++worker) {
    overlays_.push_back(std::make_unique<Overlay>(bounded, start));
    removals_.push_back(std::make_unique<SpscRing<Key>>(kMaxRemovals));
  }
}

uint8_t DynamicSet::InternTemplate(const std::vector<StatefulExpr>& exprs) {
  if (exprs.size() > Overlay::kMaxExprs) return 0;
  for (size_t i = 1; i < template_count_; ++i) {
    if (templates_[i] == exprs) return static_cast<uint8_t>(i);
  }
  if (template_count_ == kMaxTemplates) return 0;
  templates_[template_count_] = exprs;
  return static_cast<uint8_t>(template_count_++);
}

void DynamicSet::RequestRemoval(std::span<const uint8_t> key) {
  for (const auto& ring : removals_) {
    Key copy{};
    std::copy_n(key.begin(), std::min(key.size(), copy.size()), copy.begin());
    if (!ring->TryPush(std::move(copy))) RequestFlush();
  }
}

void DynamicSet::FollowRequests(uint32_t worker) {
  Overlay& overlay = *overlays_[worker];
  for (Key key; removals_[worker]->TryPop(key);) {
    if (Overlay::Node* node = overlay.Find(key.data(), Nanos())) overlay.Remove(node);
  }
  const uint32_t asked = flush_.load(std::memory_order_acquire);
  if (flushed_[worker] == asked) return;
  flushed_[worker] = asked;
  overlay.Clear();
}

size_t DynamicSet::memory_bytes() const {
  size_t bytes = sizeof *this;
  for (const auto& overlay : overlays_) bytes += overlay->memory_bytes();
  return bytes;
}

}  // namespace sluice::tables
