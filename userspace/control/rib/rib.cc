#include "control/rib/rib.h"

#include <algorithm>

namespace sluice::control {
namespace {

bool SameHop(const RoutePath& a, const RoutePath& b) {
  return a.oif == b.oif && a.has_gateway == b.has_gateway && a.gateway == b.gateway;
}

}  // namespace

template <class Traits>
auto Rib<Traits>::AliasesOf(const Node& node) const -> Aliases {
  const uint32_t index = node.entry & kIndexMask;
  if ((node.entry & kMulti) != 0) return multi_[index];
  Aliases aliases;
  if (index != 0) aliases.push_back(index);
  return aliases;
}

template <class Traits>
void Rib<Traits>::Store(Node& node, const Aliases& aliases) {
  const uint32_t seen = node.entry & ~(kMulti | kIndexMask);
  const uint32_t index = node.entry & kIndexMask;
  const bool was_multi = (node.entry & kMulti) != 0;
  if (aliases.size() <= 1) {
    if (was_multi) {
      multi_[index].clear();
      free_multi_.push_back(index);
    }
    node.entry = seen | (aliases.empty() ? 0 : aliases[0]);
    return;
  }
  if (was_multi) {
    multi_[index] = aliases;
    return;
  }
  uint32_t slot;
  if (free_multi_.empty()) {
    slot = static_cast<uint32_t>(multi_.size());
    multi_.push_back(aliases);
  } else {
    slot = free_multi_.back();
    free_multi_.pop_back();
    multi_[slot] = aliases;
  }
  node.entry = seen | kMulti | slot;
}

template <class Traits>
std::pair<size_t, size_t> Rib<Traits>::EqualRange(const Aliases& aliases,
                                                  const Attribute& a) const {
  const auto before = [](const Attribute& x, const Attribute& y) {
    if (x.table != y.table) return x.table < y.table;
    if (x.tos != y.tos) return x.tos > y.tos;
    return x.metric < y.metric;
  };
  size_t first = 0;
  while (first < aliases.size() && before(at(aliases[first]), a)) ++first;
  size_t last = first;
  while (last < aliases.size() && !before(a, at(aliases[last]))) ++last;
  return {first, last};
}

template <class Traits>
auto Rib<Traits>::Choose(const Prefix& prefix, const Aliases& aliases, bool first_layer) const
    -> Choice {
  const Attribute* best = nullptr;
  for (const AttributeId id : aliases) {
    const Attribute& a = at(id);
    if (Traits::InFirstLayer(a.table) != first_layer || !attributes_.usable(a.spec)) continue;
    if (best == nullptr) {
      if (a.tos != 0) return {Layer::kLive, attributes_.punt_spec()};
      best = &a;
      continue;
    }
    if (a.table != best->table || a.metric != best->metric) break;
    if (Traits::kFamily == Family::kIpv6) {
      if (a.preference > best->preference) best = &a;
    } else if (prefix.length == 0 && best->type == RouteType::kUnicast && best->single_gateway &&
               a.type == RouteType::kUnicast) {
      return {Layer::kLive, attributes_.punt_spec()};
    }
  }
  if (best == nullptr) return {};
  return {best->type == RouteType::kThrow ? Layer::kThrow : Layer::kLive, best->spec};
}

template <class Traits>
auto Rib<Traits>::CoveredByFirst(const Prefix& prefix) const -> Choice {
  for (int length = prefix.length - 1; length >= 0; --length) {
    if (first_layer_[static_cast<size_t>(length)] == 0) continue;
    const Prefix shorter = Prefix{prefix.address, static_cast<uint8_t>(length)}.Canonical();
    const auto found = nodes_.find(shorter);
    if (found == nodes_.end()) continue;
    const Choice choice = Choose(shorter, AliasesOf(found->second), true);
    if (choice.layer != Layer::kNone) return choice;
  }
  return {};
}

template <class Traits>
SpecId Rib<Traits>::SearchSecond(const Prefix& prefix) const {
  for (int length = prefix.length; length >= 0; --length) {
    if (second_layer_[static_cast<size_t>(length)] == 0) continue;
    const Prefix shorter = Prefix{prefix.address, static_cast<uint8_t>(length)}.Canonical();
    const auto found = nodes_.find(shorter);
    if (found == nodes_.end()) continue;
    const Choice choice = Choose(shorter, AliasesOf(found->second), false);
    if (choice.layer == Layer::kLive) return choice.spec;
    if (choice.layer == Layer::kThrow) break;
  }
  return attributes_.punt_spec();
}

template <class Traits>
SpecId Rib<Traits>::Decide(const Prefix& prefix, const Aliases& aliases) const {
  const Choice first = Choose(prefix, aliases, true);
  if (first.layer == Layer::kLive) return first.spec;
  if (first.layer == Layer::kThrow) return SearchSecond(prefix);
  const Choice second = Choose(prefix, aliases, false);
  if (second.layer == Layer::kNone) return kNoSpec;
  if (CoveredByFirst(prefix).layer == Layer::kLive) return kNoSpec;
  return second.layer == Layer::kThrow ? attributes_.punt_spec() : second.spec;
}

template <class Traits>
SpecId Rib<Traits>::Lookup(const Address& address) const {
  for (int length = Traits::kBits; length >= 0; --length) {
    const size_t l = static_cast<size_t>(length);
    if (first_layer_[l] == 0 && second_layer_[l] == 0) continue;
    const auto found = nodes_.find(Prefix{address, static_cast<uint8_t>(length)}.Canonical());
    if (found != nodes_.end() && found->second.installed != kNoSpec) {
      return found->second.installed;
    }
  }
  return kNoSpec;
}

template <class Traits>
void Rib<Traits>::InsertIpv4(Aliases& aliases, AttributeId id, const RouteUpdate& update) {
  const auto [first, last] = EqualRange(aliases, at(id));
  if (update.replace && first < last) {
    attributes_.Release(aliases[first]);
    aliases[first] = id;
    return;
  }
  const size_t place = update.append ? last : first;
  aliases.insert(aliases.begin() + static_cast<ptrdiff_t>(place), id);
}

// Siblings that join are told with themselves first and the others behind, and with their own
// attributes, although the kernel selects among them with the new ones last. So the group keeps its
// attributes and, where it can be told, its order. Takes the use of `id`, gives one of the result.
template <class Traits>
AttributeId Rib<Traits>::JoinSiblings(AttributeId group, AttributeId id, const RoutePaths& all) {
  const RoutePaths& had = attributes_.spec_of(group).paths;
  RoutePaths rest = all;
  RoutePaths paths;
  for (const RoutePath& known : had) {
    const auto same = std::find_if(rest.begin(), rest.end(),
                                   [&](const RoutePath& p) { return SameHop(p, known); });
    if (same == rest.end()) continue;
    paths.push_back(*same);
    rest.erase(same);
  }
  paths.insert(paths.end(), rest.begin(), rest.end());
  const AttributeId joined = attributes_.InternWithPaths(group, Traits::kFamily, paths);
  attributes_.Release(id);
  return joined;
}

template <class Traits>
void Rib<Traits>::InsertIpv6(Aliases& aliases, AttributeId id, const RouteUpdate& update) {
  const auto [first, last] = EqualRange(aliases, at(id));
  const bool ecmp = at(id).ecmp;
  size_t alike = first;
  while (alike < last && at(aliases[alike]).ecmp != ecmp) ++alike;
  if (update.replace || ecmp) {
    size_t victim = alike;
    if (victim == last && update.replace) victim = first;
    if (victim < last) {
      if (!update.replace) id = JoinSiblings(aliases[victim], id, update.spec.paths);
      attributes_.Release(aliases[victim]);
      aliases[victim] = id;
      return;
    }
  }
  aliases.insert(aliases.begin() + static_cast<ptrdiff_t>(last), id);
}

// For a removal that names no known route as it stands: one of the paths of an IPv6 multipath
// route, or a route that differs in something of no weight.
template <class Traits>
bool Rib<Traits>::RemoveSimilar(Aliases& aliases, const RouteUpdate& update) {
  const AttributeId probe = attributes_.Intern(update);
  const auto [first, last] = EqualRange(aliases, at(probe));
  attributes_.Release(probe);
  for (size_t i = first; i < last; ++i) {
    const RouteSpec& spec = attributes_.spec_of(aliases[i]);
    if (spec.type != update.spec.type || spec.nexthop_id != update.spec.nexthop_id) continue;
    RoutePaths rest = spec.paths;
    for (const RoutePath& gone : update.spec.paths) {
      const auto path = std::find_if(rest.begin(), rest.end(),
                                     [&](const RoutePath& p) { return SameHop(p, gone); });
      if (path != rest.end()) rest.erase(path);
    }
    if (rest.size() == spec.paths.size() && !spec.paths.empty()) continue;
    const AttributeId old = aliases[i];
    if (rest.empty()) {
      aliases.erase(aliases.begin() + static_cast<ptrdiff_t>(i));
    } else if (Traits::kFamily == Family::kIpv6) {
      aliases[i] = attributes_.InternWithPaths(old, Traits::kFamily, rest);
    } else {
      continue;  // IPv4 removes multipath routes whole
    }
    attributes_.Release(old);
    return true;
  }
  return false;
}

template <class Traits>
void Rib<Traits>::SetTable(Aliases& aliases, RouteTableId table, const Aliases& wanted) {
  Aliases result;
  for (const AttributeId id : aliases) {
    if (at(id).table < table) result.push_back(id);
  }
  result.insert(result.end(), wanted.begin(), wanted.end());
  for (const AttributeId id : aliases) {
    if (at(id).table > table) result.push_back(id);
  }
  for (const AttributeId id : aliases) {
    if (at(id).table == table) attributes_.Release(id);
  }
  aliases = std::move(result);
}

template <class Traits>
bool Rib<Traits>::HasLayer(const Aliases& aliases, bool first_layer) const {
  return std::any_of(aliases.begin(), aliases.end(), [&](AttributeId id) {
    return Traits::InFirstLayer(at(id).table) == first_layer;
  });
}

template <class Traits>
void Rib<Traits>::CountLayers(const Prefix& prefix, const Aliases& aliases, int change) {
  const uint32_t delta = static_cast<uint32_t>(change);  // -1 wraps as it should
  if (HasLayer(aliases, true)) first_layer_[prefix.length] += delta;
  if (HasLayer(aliases, false)) {
    second_layer_[prefix.length] += delta;
    second_total_ += static_cast<size_t>(static_cast<ptrdiff_t>(change));
  }
  const bool throws = std::any_of(aliases.begin(), aliases.end(), [&](AttributeId id) {
    return at(id).type == RouteType::kThrow && Traits::InFirstLayer(at(id).table);
  });
  if (!throws) return;
  if (change > 0) {
    throws_.insert(prefix);
  } else {
    throws_.erase(prefix);
  }
}

template <class Traits>
template <class Edit>
void Rib<Traits>::Mutate(const Prefix& prefix, const Edit& edit) {
  const auto [it, inserted] = nodes_.try_emplace(prefix);
  Node& node = it->second;
  if (inserted) node.entry = seen_;
  Aliases aliases = AliasesOf(node);
  const Layer before = Choose(prefix, aliases, true).layer;
  bool second = HasLayer(aliases, false);
  CountLayers(prefix, aliases, -1);
  edit(aliases);
  CountLayers(prefix, aliases, +1);
  second = second || HasLayer(aliases, false);
  const Layer after = Choose(prefix, aliases, true).layer;
  Store(node, aliases);
  Install(prefix, node, Decide(prefix, aliases));
  if (aliases.empty()) {
    refused_.erase(prefix);
    nodes_.erase(it);
  }
  if (before != after && second_total_ > 0 && prefix.length < Traits::kBits) {
    RedecideSecondLayer(prefix);
  }
  if (second && !throws_.empty()) RedecideThrows();
}

template <class Traits>
void Rib<Traits>::Install(const Prefix& prefix, Node& node, SpecId wanted) {
  if (wanted == node.installed) return;
  if (wanted != kNoSpec) {
    const absl::StatusOr<tables::RouteId> id = attributes_.AcquireRoute(wanted);
    const absl::Status set = id.ok() ? sink_.Set(prefix, *id) : id.status();
    if (set.ok()) {
      refused_.erase(prefix);
    } else {
      if (id.ok()) attributes_.ReleaseRoute(wanted);
      refused_.insert(prefix);
      wanted = kNoSpec;
    }
  }
  const SpecId old = node.installed;
  node.installed = wanted;
  if (old == kNoSpec) {
    installed_ += wanted != kNoSpec;
    return;
  }
  if (wanted == kNoSpec) {
    sink_.Clear(prefix);
    --installed_;
  }
  attributes_.ReleaseRoute(old);
}

template <class Traits>
void Rib<Traits>::RedecideSecondLayer(const Prefix& under) {
  for (auto& [prefix, node] : nodes_) {
    if (prefix.length <= under.length || !under.Contains(prefix.address)) continue;
    const Aliases aliases = AliasesOf(node);
    if (HasLayer(aliases, false)) Install(prefix, node, Decide(prefix, aliases));
  }
}

template <class Traits>
void Rib<Traits>::RedecideThrows() {
  for (const Prefix& prefix : throws_) {
    Node& node = nodes_.find(prefix)->second;
    Install(prefix, node, Decide(prefix, AliasesOf(node)));
  }
}

template <class Traits>
bool Rib<Traits>::Add(const RouteUpdate& update) {
  const Prefix prefix = Traits::PrefixOf(update);
  if (dumping_) touched_.insert(prefix);
  const AttributeId id = attributes_.Intern(update);
  bool news = true;
  Mutate(prefix, [&](Aliases& aliases) {
    if (std::find(aliases.begin(), aliases.end(), id) != aliases.end()) {
      // It keeps its place. The kernel itself repeats routes when their nexthop object is replaced
      // (nexthop_replace_notify), and when hardware has taken them over.
      attributes_.Release(id);
      news = update.spec.nexthop_id != 0;
    } else if (Traits::kFamily == Family::kIpv4) {
      InsertIpv4(aliases, id, update);
    } else {
      InsertIpv6(aliases, id, update);
    }
  });
  return news;
}

template <class Traits>
bool Rib<Traits>::Remove(const RouteUpdate& update) {
  const Prefix prefix = Traits::PrefixOf(update);
  if (dumping_) touched_.insert(prefix);
  if (!nodes_.contains(prefix)) return false;
  bool found = false;
  Mutate(prefix, [&](Aliases& aliases) {
    const AttributeId id = attributes_.Intern(update);
    const auto same = std::find(aliases.begin(), aliases.end(), id);
    if (same != aliases.end()) {
      aliases.erase(same);
      attributes_.Release(id);
      found = true;
    }
    attributes_.Release(id);
    if (!found) found = RemoveSimilar(aliases, update);
  });
  return found;
}

template <class Traits>
void Rib<Traits>::BeginDump(RouteTableId table, bool exact) {
  if (dumping_) AbortDump();
  dumping_ = true;
  dump_table_ = table;
  exact_ = exact;
  corrected_.clear();
  seen_ ^= SeenBit();
  touched_.clear();
  dumped_.clear();
  outcome_ = {};
}

template <class Traits>
void Rib<Traits>::DumpRoute(const RouteUpdate& update) {
  const Prefix prefix = Traits::PrefixOf(update);
  if (!dumped_.empty() && prefix != dumped_prefix_) FlushDumped();
  dumped_prefix_ = prefix;
  dumped_.push_back(attributes_.Intern(update));
  ++outcome_.routes;
}

template <class Traits>
void Rib<Traits>::FlushDumped() {
  if (dumped_.empty()) return;
  Aliases current;
  const auto found = nodes_.find(dumped_prefix_);
  if (found != nodes_.end()) {
    for (const AttributeId id : AliasesOf(found->second)) {
      if (at(id).table == dump_table_) current.push_back(id);
    }
    MarkSeen(found->second);
  }
  if (current == dumped_ || touched_.contains(dumped_prefix_)) {
    outcome_.uncertain += current != dumped_;
    for (const AttributeId id : dumped_) attributes_.Release(id);
  } else {
    ++outcome_.corrections;
    if (exact_) corrected_.push_back(dumped_prefix_);
    Mutate(dumped_prefix_, [&](Aliases& aliases) { SetTable(aliases, dump_table_, dumped_); });
  }
  dumped_.clear();
}

template <class Traits>
DumpOutcome Rib<Traits>::EndDump() {
  FlushDumped();
  std::vector<Prefix> gone;
  for (auto& [prefix, node] : nodes_) {
    if ((node.entry & SeenBit()) == (seen_ & SeenBit())) continue;
    MarkSeen(node);
    const Aliases aliases = AliasesOf(node);
    const bool known = std::any_of(aliases.begin(), aliases.end(),
                                   [&](AttributeId id) { return at(id).table == dump_table_; });
    if (!known) continue;
    if (touched_.contains(prefix)) {
      ++outcome_.uncertain;
    } else {
      gone.push_back(prefix);
    }
  }
  for (const Prefix& prefix : gone) {
    ++outcome_.corrections;
    Mutate(prefix, [&](Aliases& aliases) { SetTable(aliases, dump_table_, {}); });
  }
  for (const Prefix& prefix : corrected_) outcome_.corrections -= touched_.contains(prefix);
  dumping_ = false;
  touched_ = {};
  corrected_ = {};
  return outcome_;
}

template <class Traits>
void Rib<Traits>::AbortDump() {
  for (const AttributeId id : dumped_) attributes_.Release(id);
  dumped_.clear();
  for (auto& [prefix, node] : nodes_) MarkSeen(node);
  dumping_ = false;
  touched_ = {};
}

template <class Traits>
void Rib<Traits>::Rescan() {
  bool first_layer_flipped = false;
  for (auto& [prefix, node] : nodes_) {
    if (node.installed != kNoSpec && attributes_.moved(node.installed)) {
      // The same spec under another id.
      if (!sink_.Set(prefix, attributes_.route_id(node.installed)).ok()) refused_.insert(prefix);
    }
    const uint32_t index = node.entry & kIndexMask;
    if ((node.entry & kMulti) == 0 && !attributes_.flipped(at(index).spec)) continue;
    const Aliases aliases = AliasesOf(node);
    bool flipped = false;
    for (const AttributeId id : aliases) {
      if (!attributes_.flipped(at(id).spec)) continue;
      flipped = true;
      first_layer_flipped = first_layer_flipped ||
                            (Traits::InFirstLayer(at(id).table) && prefix.length < Traits::kBits);
    }
    if (flipped) Install(prefix, node, Decide(prefix, aliases));
  }
  if (first_layer_flipped && second_total_ > 0) RedecideSecondLayer(Prefix{});
  if (!throws_.empty()) RedecideThrows();
}

template <class Traits>
RibStats Rib<Traits>::stats() const {
  RibStats s;
  s.prefixes = nodes_.size();
  s.installed = installed_;
  s.refused = refused_.size();
  s.bytes = nodes_.capacity() * (sizeof(typename decltype(nodes_)::value_type) + 1) +
            multi_.capacity() * sizeof(Aliases) + free_multi_.capacity() * sizeof(uint32_t);
  return s;
}

template class Rib<Ipv4RibTraits>;
template class Rib<Ipv6RibTraits>;

}  // namespace sluice::control
