#include "stages/icmp/source_address.h"

#include <bit>
#include <tuple>

namespace sluice::stages {

using tables::Interface;
using tables::Ipv6InterfaceAddress;
using tables::Snapshot;

namespace {

int CommonPrefix(const Ipv6& a, const Ipv6& b) {
  if (a.hi != b.hi) return std::countl_zero(a.hi ^ b.hi);
  return 64 + (a.lo == b.lo ? 64 : std::countl_zero(a.lo ^ b.lo));
}

// Larger is better; compared from the first element on (RFC 6724 section 5, rules 1 to 3, 5, 8).
using Rank = std::tuple<bool, bool, bool, bool, int>;

Rank RankOf(const Ipv6InterfaceAddress& a, const Ipv6& destination, bool is_near) {
  const int common = CommonPrefix(a.address, destination);
  return {a.address == destination, a.address.IsLinkLocal() == destination.IsLinkLocal(),
          !a.deprecated, is_near, std::min<int>(common, a.prefix_length)};
}

}  // namespace

std::optional<Ipv4> InterfaceAddress4(const Interface& interface, std::optional<Ipv4> near,
                                      uint8_t scope) {
  std::optional<Ipv4> first;
  for (const auto& own : interface.addresses4) {
    if (own.secondary || own.scope > scope) continue;
    if (!near || Ipv4Prefix{own.address, own.prefix_length}.Contains(*near)) return own.address;
    if (!first) first = own.address;
  }
  return first;
}

std::optional<Ipv4> SelectSource4(const tables::Route& route, const tables::Path& path,
                                  const Snapshot& snapshot) {
  if (route.has_prefsrc && route.prefsrc.is_v4()) return route.prefsrc.v4();
  const Interface& out = snapshot.at(path.slot);
  if (!path.has_gateway) return InterfaceAddress4(out, {}, kScopeLink);
  // An IPv6 gateway is in no IPv4 subnet.
  const Ipv4 gateway = path.gateway.is_v4() ? path.gateway.v4() : Ipv4();
  return InterfaceAddress4(out, gateway, kScopeUniverse);
}

std::optional<Ipv6> SelectSource6(const tables::Route& route, const Ipv6& destination,
                                  IfaceSlot near, const Snapshot& snapshot) {
  if (route.has_prefsrc && !route.prefsrc.is_v4()) return route.prefsrc.v6();
  std::optional<Ipv6> best;
  Rank best_rank;
  for (const Interface& interface : snapshot.interfaces) {
    if (!interface.slot.valid()) continue;
    const bool is_near = interface.slot == near;
    // A link-local address means something on its own link only.
    for (const Ipv6InterfaceAddress& own : interface.addresses6) {
      if (own.tentative) continue;
      if (own.address.IsLinkLocal() && !(is_near && destination.IsLinkLocal())) continue;
      const Rank rank = RankOf(own, destination, is_near);
      if (!best || rank > best_rank) {
        best = own.address;
        best_rank = rank;
      }
    }
  }
  return best;
}

}  // namespace sluice::stages
