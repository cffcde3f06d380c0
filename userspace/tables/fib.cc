#include "tables/fib.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <thread>

#include "absl/strings/str_cat.h"

namespace sluice::tables {

using fib::Entry;

template <class Traits>
Fib<Traits>::Fib(EpochDomain& domain, FibLimits limits)
    : domain_(domain),
      limits_(limits),
      arena_(std::max(limits.bytes, kRootSlots * sizeof(Entry) * 2),
             kRootSlots / LineArena::kLineWords, limits.huge_pages),
      words_(arena_.words()),
      root_routes_(2 * kRootSlots),
      image_(std::make_unique<fib::NodeImage>()),
      packed_(kMaxNodeLines * LineArena::kLineWords) {}

template <class Traits>
Fib<Traits>::~Fib() {
  domain_.Cancel(&arena_);
}

template <class Traits>
void Fib<Traits>::LookupBatch(const Address* addresses, RouteId* out, size_t n) const {
  const Entry fallback_of_all = fib::LoadEntry(&default_);
  const Entry* at[kGroup];
  Entry best[kGroup];
  uint8_t pending[kGroup];
  for (size_t base = 0; base < n; base += kGroup, addresses += kGroup, out += kGroup) {
    const size_t count = std::min(kGroup, n - base);
    for (size_t i = 0; i < count; ++i) {
      at[i] = words_ + Traits::Top16(addresses[i]);
      __builtin_prefetch(at[i]);
      best[i] = fallback_of_all;
      pending[i] = static_cast<uint8_t>(i);
    }
    size_t waiting = count;
    for (uint32_t offset = 16; waiting != 0; offset += 8) {
      // First the entries: an answer, or a node to fetch.
      size_t below = 0;
      for (size_t k = 0; k < waiting; ++k) {
        const size_t i = pending[k];
        const Entry e = fib::LoadEntry(at[i]);
        if (fib::IsChild(e)) {
          at[i] = arena_.At(fib::LineOf(e));
          __builtin_prefetch(at[i]);
          pending[below++] = static_cast<uint8_t>(i);
        } else {
          out[i] = RouteId{e != 0 ? e : best[i]};
        }
      }
      // Then the nodes: where in them the next entry is.
      waiting = below;
      for (size_t k = 0; k < waiting; ++k) {
        const size_t i = pending[k];
        const uint32_t* node = at[i];
        const Entry fallback = fib::LoadEntry(node + 8);
        best[i] = fallback != 0 ? fallback : best[i];
        at[i] = fib::EntryOf(node, Traits::Byte(addresses[i], offset));
        __builtin_prefetch(at[i]);
      }
    }
  }
}

template <class Traits>
typename Fib<Traits>::Place Fib<Traits>::PlaceOf(const Prefix& prefix) {
  const uint32_t level = (prefix.length - 17u) / 8 + 1;
  const uint32_t offset = OffsetOf(level);
  return {level, fib::CodeOf(Traits::Byte(prefix.address, offset), prefix.length - offset)};
}

template <class Traits>
uint32_t Fib<Traits>::RootCodeOf(const Prefix& prefix) {
  return (1u << prefix.length) | Traits::Top16(prefix.address) >> (16 - prefix.length);
}

template <class Traits>
typename Fib<Traits>::Path Fib<Traits>::Descend(const Address& address, uint32_t level) const {
  Path path;
  path.at[1] = words_ + Traits::Top16(address);
  for (uint32_t k = 1; k <= level && fib::IsChild(*path.at[k]); ++k) {
    path.depth = k;
    uint32_t* node = arena_.At(fib::LineOf(*path.at[k]));
    path.at[k + 1] =
        k == kLevels ? nullptr : fib::EntryOf(node, Traits::Byte(address, OffsetOf(k)));
  }
  return path;
}

template <class Traits>
absl::Status Fib<Traits>::Insert(const Prefix& prefix, RouteId route) {
  if (prefix.length > Traits::kBits || prefix != prefix.Canonical()) {
    return absl::InvalidArgumentError(
        absl::StrCat(ToString(prefix), " has bits set beyond its length"));
  }
  if (!route.valid() || route.value > RouteId::kMaxValue) {
    return absl::InvalidArgumentError(
        absl::StrCat("route id ", route.value, " for ", ToString(prefix), " is out of range"));
  }
  const bool is_new = !Find(prefix).valid();
  if (is_new && routes_ >= limits_.routes) {
    return absl::ResourceExhaustedError(
        absl::StrCat("the table is full: ", routes_, " routes is its limit"));
  }
  if (prefix.length == 0) {
    fib::StoreEntry(&default_, route.value);
  } else if (prefix.length <= 16) {
    const uint32_t code = RootCodeOf(prefix);
    root_routes_[code] = route.value;
    UpdateRoot(code);
  } else {
    if (!HasRoom()) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the table's memory is full: ", limits_.bytes, " bytes is its limit"));
    }
    InsertBelow(prefix, route);
  }
  routes_ += is_new ? 1 : 0;
  return absl::OkStatus();
}

template <class Traits>
bool Fib<Traits>::HasRoom() {
  // At most one new node per level, each of one line, and one that is rebuilt; the rest is kept
  // for Erase, while what it replaces waits for the workers.
  const uint32_t lines =
      kLevels + 2 * kMaxNodeLines + static_cast<uint32_t>(arena_.capacity_lines() / 64);
  if (arena_.CanAllocate(lines)) return true;
  domain_.Reclaim();
  return arena_.CanAllocate(lines);
}

template <class Traits>
void Fib<Traits>::InsertBelow(const Prefix& prefix, RouteId route) {
  const Place place = PlaceOf(prefix);
  const Path path = Descend(prefix.address, place.level);
  if (path.depth == place.level) {
    image_->Load(arena_.At(fib::LineOf(*path.at[place.level])));
    image_->SetPrefix(place.code, route.value);
    PaintImage();
    ReplaceNode(path.at[place.level]);
    return;
  }
  // The chain of new nodes, from the bottom up. The topmost takes over the leaf in whose place it
  // comes as its fallback; the others have nothing of their own for the slots beside their child.
  const uint32_t top = path.depth + 1;
  const Entry leaf = *path.at[top];
  image_->Clear(place.level == top ? leaf : 0);
  image_->SetPrefix(place.code, route.value);
  PaintImage();
  Entry child = NewNode();
  for (uint32_t level = place.level - 1; level >= top; --level) {
    image_->Clear(level == top ? leaf : 0);
    image_->SetChild(Traits::Byte(prefix.address, OffsetOf(level)), child);
    image_->Paint([](Entry, Entry) {});
    child = NewNode();
  }
  if (top == 1) {
    fib::StoreEntry(path.at[1], child);
    return;
  }
  Entry* parent = path.at[top - 1];
  image_->Load(arena_.At(fib::LineOf(*parent)));
  image_->SetChild(Traits::Byte(prefix.address, OffsetOf(top - 1)), child);
  PaintImage();
  ReplaceNode(parent);
}

template <class Traits>
bool Fib<Traits>::Erase(const Prefix& prefix) {
  if (!Find(prefix).valid()) return false;
  --routes_;
  if (prefix.length == 0) {
    fib::StoreEntry(&default_, 0);
    return true;
  }
  if (prefix.length <= 16) {
    const uint32_t code = RootCodeOf(prefix);
    root_routes_[code] = 0;
    UpdateRoot(code);
    return true;
  }
  const Place place = PlaceOf(prefix);
  const Path path = Descend(prefix.address, place.level);
  Entry* slot = path.at[place.level];
  image_->Load(arena_.At(fib::LineOf(*slot)));
  image_->RemovePrefix(place.code);
  if (image_->empty()) {
    RemoveEmptyNode(path, prefix.address, place.level);
  } else {
    PaintImage();
    ReplaceNode(slot);
  }
  return true;
}

// image_ is the node at `level`, with nothing left in it: it goes, and so does each parent that it
// leaves empty.
template <class Traits>
void Fib<Traits>::RemoveEmptyNode(const Path& path, const Address& address, uint32_t level) {
  std::array<Entry, kLevels + 1> dropped{};
  size_t drops = 0;
  for (;; --level) {
    const Entry child = *path.at[level];
    dropped[drops++] = child;
    if (level == 1) {
      fib::StoreEntry(path.at[1], image_->fallback());
      break;
    }
    Entry* parent = path.at[level - 1];
    image_->Load(arena_.At(fib::LineOf(*parent)));
    image_->RemoveChild(Traits::Byte(address, OffsetOf(level - 1)));
    if (image_->empty()) continue;
    PaintImage();
    ReplaceNode(parent);
    break;
  }
  for (size_t i = 0; i < drops; ++i) RetireNode(dropped[i]);
}

template <class Traits>
RouteId Fib<Traits>::Find(const Prefix& prefix) const {
  if (prefix.length > Traits::kBits || prefix != prefix.Canonical()) return RouteId::None();
  if (prefix.length == 0) return RouteId{default_};
  if (prefix.length <= 16) return RouteId{root_routes_[RootCodeOf(prefix)]};
  const Place place = PlaceOf(prefix);
  const Path path = Descend(prefix.address, place.level);
  if (path.depth != place.level) return RouteId::None();
  const uint32_t* node = arena_.At(fib::LineOf(*path.at[place.level]));
  return RouteId{fib::PrefixList::Of(node).Find(place.code)};
}

// The prefix with `code` changed: works out what its slots of the root now say.
template <class Traits>
void Fib<Traits>::UpdateRoot(uint32_t code) {
  Entry route = 0;
  for (uint32_t up = code; up > 1 && route == 0; up /= 2) route = root_routes_[up];
  PaintRoot(code, route);
}

template <class Traits>
void Fib<Traits>::PaintRoot(uint32_t code, Entry route) {
  if (code >= kRootSlots) {
    SetLeafOrFallback(words_ + (code - kRootSlots), route);
    return;
  }
  for (uint32_t child = 2 * code; child <= 2 * code + 1; ++child) {
    // A longer prefix keeps its slots: nothing changes below it.
    if (root_routes_[child] == 0) PaintRoot(child, route);
  }
}

template <class Traits>
void Fib<Traits>::SetLeafOrFallback(Entry* slot, Entry leaf) {
  Entry* word = fib::IsChild(*slot) ? fib::Fallback(arena_.At(fib::LineOf(*slot))) : slot;
  if (*word != leaf) fib::StoreEntry(word, leaf);
}

template <class Traits>
void Fib<Traits>::PaintImage() {
  image_->Paint([this](Entry child, Entry leaf) {
    Entry* fallback = fib::Fallback(arena_.At(fib::LineOf(child)));
    if (*fallback != leaf) fib::StoreEntry(fallback, leaf);
  });
}

template <class Traits>
Entry Fib<Traits>::NewNode() {
  const uint32_t words = image_->Pack(packed_.data());
  const uint32_t lines = (words + LineArena::kLineWords - 1) / LineArena::kLineWords;
  uint32_t line = arena_.Allocate(lines);
  while (line == 0) {  // only ever in Erase, see the header
    domain_.Reclaim();
    line = arena_.Allocate(lines);
    if (line == 0) std::this_thread::yield();
  }
  std::memcpy(arena_.At(line), packed_.data(), words * sizeof(uint32_t));
  ++nodes_;
  cold_words_ += fib::ColdWords(fib::PrefixList::Of(packed_.data()).count);
  return fib::ChildEntry(line);
}

template <class Traits>
void Fib<Traits>::ReplaceNode(Entry* slot) {
  const Entry old = *slot;
  uint32_t* node = arena_.At(fib::LineOf(old));
  if (StoreInPlace(node, image_->Pack(packed_.data()))) return;
  fib::StoreEntry(slot, NewNode());
  RetireNode(old);
}

// When the runs and the block's size stay as they are, each changed entry is one store.
template <class Traits>
bool Fib<Traits>::StoreInPlace(uint32_t* node, uint32_t words) {
  const uint32_t* fresh = packed_.data();
  const auto lines = [](size_t w) {
    return (w + LineArena::kLineWords - 1) / LineArena::kLineWords;
  };
  if (std::memcmp(node, fresh, sizeof fib::NodeHead::run_starts) != 0) return false;
  if (lines(words) != lines(fib::NodeWords(node))) return false;
  const uint32_t hot = fib::kHeadWords + fib::Head(node).RunCount();
  for (uint32_t i = fib::kHeadWords; i < hot; ++i) {
    if (node[i] != fresh[i]) fib::StoreEntry(node + i, fresh[i]);
  }
  cold_words_ -= fib::ColdWords(fib::PrefixList::Of(node).count);
  cold_words_ += fib::ColdWords(fib::PrefixList::Of(fresh).count);
  std::memcpy(node + hot, fresh + hot, (words - hot) * sizeof(uint32_t));
  return true;
}

template <class Traits>
void Fib<Traits>::RetireNode(Entry child) {
  const uint32_t line = fib::LineOf(child);
  const size_t words = fib::NodeWords(arena_.At(line));
  const uint64_t lines = (words + LineArena::kLineWords - 1) / LineArena::kLineWords;
  --nodes_;
  cold_words_ -= fib::ColdWords(fib::PrefixList::Of(arena_.At(line)).count);
  domain_.Retire(
      [](void* arena, uint64_t block) {
        static_cast<LineArena*>(arena)->Free(static_cast<uint32_t>(block >> 32),
                                             static_cast<uint32_t>(block));
      },
      &arena_, uint64_t{line} << 32 | lines);
}

template <class Traits>
void Fib<Traits>::ForEach(const std::function<void(const Prefix&, RouteId)>& visit) const {
  if (default_ != 0) visit(Prefix{}, RouteId{default_});
  for (uint32_t code = 2; code < 2 * kRootSlots; ++code) {
    if (root_routes_[code] == 0) continue;
    const uint32_t length = fib::LengthOf(code);
    const uint32_t top = (code << (16 - length)) & (kRootSlots - 1);
    visit(Prefix{Traits::FromTop16(top), static_cast<uint8_t>(length)},
          RouteId{root_routes_[code]});
  }
  for (uint32_t top = 0; top < kRootSlots; ++top) {
    if (fib::IsChild(words_[top])) VisitNode(words_[top], Traits::FromTop16(top), 1, visit);
  }
}

template <class Traits>
void Fib<Traits>::VisitNode(Entry child, const Address& base, uint32_t level,
                            const std::function<void(const Prefix&, RouteId)>& visit) const {
  const uint32_t* node = arena_.At(fib::LineOf(child));
  const uint32_t offset = OffsetOf(level);
  const fib::PrefixList list = fib::PrefixList::Of(node);
  for (uint32_t i = 0; i < list.count; ++i) {
    const uint32_t code = list.codes[i];
    visit(Prefix{Traits::WithByte(base, offset, fib::FirstSlotOf(code)),
                 static_cast<uint8_t>(offset + fib::LengthOf(code))},
          RouteId{list.routes[i]});
  }
  for (uint32_t slot = 0; slot < fib::kSlots; ++slot) {
    const Entry e = *fib::EntryOf(node, slot);
    if (fib::IsChild(e)) VisitNode(e, Traits::WithByte(base, offset, slot), level + 1, visit);
  }
}

template <class Traits>
FibStats Fib<Traits>::stats() const {
  FibStats s;
  s.routes = routes_;
  s.nodes = nodes_;
  const size_t cold = cold_words_ * sizeof(uint32_t);
  s.lookup_bytes = kRootSlots * sizeof(Entry) + arena_.used_lines() * LineArena::kLineBytes - cold;
  s.control_bytes = cold + root_routes_.size() * sizeof root_routes_[0] +
                    packed_.size() * sizeof packed_[0] + sizeof *image_;
  s.extent_bytes = arena_.reached_lines() * LineArena::kLineBytes;
  s.limits = limits_;
  return s;
}

template class Fib<Ipv4FibTraits>;
template class Fib<Ipv6FibTraits>;

}  // namespace sluice::tables
