#include "control/rib/attribute_store.h"

#include <algorithm>
#include <utility>

namespace sluice::control {
namespace {

template <typename T>
void Put(std::string& out, T value) {
  static_assert(std::is_integral_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void PutAddress(std::string& out, const IpAddress& a) {
  Put(out, static_cast<uint8_t>(a.family));
  Put(out, a.bits.hi);
  Put(out, a.bits.lo);
}

void PutSpec(std::string& out, Family family, const RouteSpec& s) {
  Put(out, static_cast<uint8_t>(family));
  Put(out, static_cast<uint8_t>(s.type));
  Put(out, static_cast<uint8_t>(s.host_scope | s.encapsulated << 1 | s.mtu_locked << 2 |
                                s.has_prefsrc << 3));
  Put(out, s.mtu);
  Put(out, s.nexthop_id);
  if (s.has_prefsrc) PutAddress(out, s.prefsrc);
  for (const RoutePath& p : s.paths) {
    Put(out, p.oif.value);
    Put(out, static_cast<uint8_t>(p.has_gateway | p.onlink << 1));
    Put(out, p.weight);
    if (p.has_gateway) PutAddress(out, p.gateway);
  }
}

// The kernel's rt6_qualify_for_ecmp: a gateway, and not a nexthop object.
bool QualifiesForEcmp(const RouteUpdate& u) {
  if (u.family != Family::kIpv6 || u.spec.nexthop_id != 0 || u.spec.paths.empty()) return false;
  constexpr uint8_t kRouterAdvertisement = 9;  // RTPROT_RA
  if (u.protocol == kRouterAdvertisement && u.spec.paths.size() == 1) return false;
  return std::all_of(u.spec.paths.begin(), u.spec.paths.end(),
                     [](const RoutePath& p) { return p.has_gateway; });
}

uint8_t Score(uint8_t preference) {
  // ICMPV6_ROUTER_PREF_*: 0 medium, 1 high, 3 low; flipping bit 1 orders them.
  return (preference & 3) ^ 2;
}

}  // namespace

AttributeStore::AttributeStore(RouteSink& sink, LinkLookup links)
    : sink_(sink), links_(std::move(links)) {
  attributes_.emplace_back();  // id 0 is none
  specs_.emplace_back();
  RouteSpec punt;
  punt.type = RouteType::kUnspecified;
  punt_spec_ = InternSpec(Family::kIpv4, punt);
  ++specs_[punt_spec_].attributes;  // for ever
}

AttributeStore::~AttributeStore() = default;

AttributeId AttributeStore::Intern(const RouteUpdate& u) {
  scratch_.clear();
  Put(scratch_, static_cast<uint8_t>(u.table));
  Put(scratch_, u.tos);
  Put(scratch_, u.protocol);
  Put(scratch_, u.scope);
  Put(scratch_, u.preference);
  Put(scratch_, u.metric);
  Put(scratch_, u.metrics_hash);
  PutSpec(scratch_, u.family, u.spec);
  if (attributes_[last_].uses > 0 && attributes_[last_].key == scratch_) {
    ++attributes_[last_].uses;
    return last_;
  }
  const auto found = keys_.find(absl::string_view(scratch_));
  if (found != keys_.end()) {
    last_ = found->second;
    ++attributes_[last_].uses;
    return last_;
  }
  AttributeId id;
  if (free_attributes_.empty()) {
    id = static_cast<AttributeId>(attributes_.size());
    attributes_.emplace_back();
  } else {
    id = free_attributes_.back();
    free_attributes_.pop_back();
  }
  Attribute& a = attributes_[id];
  a.table = u.table;
  a.type = u.spec.type;
  a.tos = u.tos;
  a.preference = Score(u.preference);
  a.protocol = u.protocol;
  a.scope = u.scope;
  a.metrics_hash = u.metrics_hash;
  a.ecmp = QualifiesForEcmp(u);
  a.single_gateway =
      u.spec.nexthop_id != 0 || (u.spec.paths.size() == 1 && u.spec.paths[0].has_gateway);
  a.metric = u.metric;
  a.uses = 1;
  a.key = scratch_;
  a.spec = InternSpec(u.family, u.spec);
  ++specs_[a.spec].attributes;
  keys_.emplace(absl::string_view(a.key), id);
  last_ = id;
  return id;
}

AttributeId AttributeStore::InternWithPaths(AttributeId id, Family family,
                                            const RoutePaths& paths) {
  const Attribute& a = attributes_[id];
  RouteUpdate u;
  u.family = family;
  u.table = a.table;
  u.tos = a.tos;
  u.protocol = a.protocol;
  u.scope = a.scope;
  u.preference = Score(a.preference);  // its own inverse
  u.metric = a.metric;
  u.metrics_hash = a.metrics_hash;
  u.spec = specs_[a.spec].spec;
  u.spec.paths = paths;
  // A path without siblings is told, and dumped, without a weight.
  if (paths.size() == 1) u.spec.paths[0].weight = 1;
  return Intern(u);
}

void AttributeStore::Release(AttributeId id) {
  Attribute& a = attributes_[id];
  if (--a.uses != 0) return;
  keys_.erase(absl::string_view(a.key));
  --specs_[a.spec].attributes;
  ReleaseSpec(a.spec);
  a = Attribute{};
  free_attributes_.push_back(id);
}

SpecId AttributeStore::InternSpec(Family family, const RouteSpec& spec) {
  std::string key;
  PutSpec(key, family, spec);
  if (const auto found = spec_keys_.find(absl::string_view(key)); found != spec_keys_.end()) {
    return found->second;
  }
  SpecId id;
  if (free_specs_.empty()) {
    id = static_cast<SpecId>(specs_.size());
    specs_.emplace_back();
  } else {
    id = free_specs_.back();
    free_specs_.pop_back();
  }
  Spec& s = specs_[id];
  s.family = family;
  s.spec = spec;
  s.key = std::move(key);
  s.born = stamp_;
  Resolve(s);
  spec_keys_.emplace(absl::string_view(s.key), id);
  return id;
}

void AttributeStore::ReleaseSpec(SpecId id) {
  Spec& s = specs_[id];
  if (s.attributes != 0 || s.prefixes != 0) return;
  spec_keys_.erase(absl::string_view(s.key));
  s = Spec{};
  free_specs_.push_back(id);
}

absl::StatusOr<tables::RouteId> AttributeStore::AcquireRoute(SpecId id) {
  Spec& s = specs_[id];
  if (!s.id.valid()) {
    absl::StatusOr<tables::RouteId> added = sink_.Add(s.route);
    if (!added.ok()) return added;
    s.id = *added;
  }
  ++s.prefixes;
  return s.id;
}

void AttributeStore::ReleaseRoute(SpecId id) {
  Spec& s = specs_[id];
  if (--s.prefixes != 0) return;
  sink_.Remove(s.id);
  s.id = tables::RouteId::None();
  ReleaseSpec(id);
}

void AttributeStore::SetNexthop(const NexthopUpdate& nexthop) { nexthops_[nexthop.id] = nexthop; }

bool AttributeStore::RemoveNexthop(uint32_t id) { return nexthops_.erase(id) != 0; }

bool AttributeStore::AppendPath(const Spec& s, const RoutePath& path, uint32_t weight, bool object,
                                tables::Route& route) const {
  const LinkStatus link = links_(path.oif);
  const bool immune = s.spec.host_scope ||
                      (s.family == Family::kIpv6 &&
                       (s.spec.type == RouteType::kLocal || s.spec.type == RouteType::kAnycast));
  if (!immune) {
    if (!link.up) return false;
    const bool needs_carrier =
        object || (s.family == Family::kIpv4 ? link.ignore_linkdown4 : link.ignore_linkdown6);
    if (needs_carrier && !link.carrier) return false;
    if (s.family == Family::kIpv4 && link.unready4_since > s.born) return false;
    const bool siblings = s.family == Family::kIpv6 && s.spec.paths.size() > 1;
    if (siblings && link.unready_since > s.born) return false;
  }
  tables::Path& p = route.paths.emplace_back();
  p.oif = path.oif;
  p.slot = link.slot;
  p.has_gateway = path.has_gateway;
  p.onlink = path.onlink;
  p.weight = weight;
  p.gateway = path.gateway;
  return true;
}

void AttributeStore::ResolveNexthop(const Spec& s, tables::Route& route, bool& usable) const {
  const auto found = nexthops_.find(s.spec.nexthop_id);
  if (found == nexthops_.end() || found->second.fdb) {
    usable = false;
    return;
  }
  const auto add = [&](const NexthopUpdate& nexthop, uint32_t weight) {
    if (nexthop.blackhole) {
      route.type = tables::RouteType::kBlackhole;  // a group has no others beside it
      usable = true;
      return;
    }
    if (!AppendPath(s, nexthop.path, weight, true, route)) return;
    usable = true;
    if (nexthop.encapsulated) route.type = tables::RouteType::kPunt;
  };
  usable = false;
  if (found->second.group.empty()) return add(found->second, 1);
  for (const NexthopUpdate::Member& member : found->second.group) {
    const auto nexthop = nexthops_.find(member.id);
    if (nexthop != nexthops_.end()) add(nexthop->second, member.weight);
  }
}

void AttributeStore::Resolve(Spec& s) const {
  tables::Route route;
  route.mtu = s.spec.mtu;
  route.mtu_locked = s.spec.mtu_locked;
  route.has_prefsrc = s.spec.has_prefsrc;
  route.prefsrc = s.spec.prefsrc;
  bool paths_decide = true;
  using Out = tables::RouteType;
  switch (s.spec.type) {
    case RouteType::kUnicast:
      route.type = Out::kUnicast;
      break;
    case RouteType::kLocal:
      route.type = Out::kLocal;
      break;
    case RouteType::kBroadcast:
      route.type = Out::kBroadcast;
      break;
    case RouteType::kAnycast:
      route.type = Out::kAnycast;
      break;
    case RouteType::kMulticast:
      route.type = Out::kMulticast;
      break;
    case RouteType::kBlackhole:
      route.type = Out::kBlackhole;
      paths_decide = false;
      break;
    case RouteType::kUnreachable:
      route.type = Out::kUnreachable;
      paths_decide = false;
      break;
    case RouteType::kProhibit:
      route.type = Out::kProhibit;
      paths_decide = false;
      break;
    case RouteType::kThrow:
    case RouteType::kUnspecified:
    case RouteType::kNat:
    case RouteType::kExternalResolve:
      route.type = Out::kPunt;
      paths_decide = false;
      break;
  }
  bool usable = true;
  if (paths_decide && s.spec.nexthop_id != 0) {
    ResolveNexthop(s, route, usable);
  } else if (paths_decide) {
    usable = false;
    for (const RoutePath& path : s.spec.paths) {
      if (AppendPath(s, path, path.weight, false, route)) usable = true;
    }
  }
  if (s.spec.encapsulated) route.type = Out::kPunt;
  if (route.paths.size() > tables::Route::kMaxPaths) route.type = Out::kPunt;
  if (route.type != Out::kUnicast) route.paths.clear();
  s.route = std::move(route);
  s.usable = usable;
}

bool AttributeStore::Refresh() {
  bool rescan = false;
  for (Spec& s : specs_) {
    if (s.attributes == 0 && s.prefixes == 0) continue;
    const bool was_usable = s.usable;
    const tables::Route before = s.route;
    Resolve(s);
    if (s.usable != was_usable) {
      s.flipped = true;
      rescan = true;
    }
    if (!s.id.valid() || s.route == before) continue;
    if (!s.usable) {
      // No prefix keeps it after the rescan; until then its last content serves.
      s.route = before;
      continue;
    }
    const absl::StatusOr<tables::RouteId> id = sink_.Change(s.id, s.route);
    if (!id.ok()) {
      ++sink_errors_;
      last_error_ = id.status().ToString();
      s.route = before;
      continue;
    }
    if (*id != s.id) {
      s.id = *id;
      s.moved = true;
      rescan = true;
    }
  }
  return rescan;
}

void AttributeStore::ClearMarks() {
  for (Spec& s : specs_) s.flipped = s.moved = false;
}

size_t AttributeStore::memory_bytes() const {
  size_t bytes = attributes_.size() * sizeof(Attribute) + specs_.size() * sizeof(Spec) +
                 keys_.capacity() * 32 + spec_keys_.capacity() * 32;
  for (const Attribute& a : attributes_) bytes += a.key.capacity();
  for (const Spec& s : specs_) bytes += s.key.capacity();
  return bytes;
}

}  // namespace sluice::control
