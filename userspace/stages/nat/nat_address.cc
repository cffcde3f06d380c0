#include "stages/nat/nat_address.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <tuple>

namespace sluice::stages {

using tables::Interface;
using tables::Snapshot;

namespace {

constexpr uint8_t kScopeUniverse = 0;  // RT_SCOPE_*
constexpr uint8_t kScopeLink = 253;

// Four words as a union nf_inet_addr has them: an IPv4 address is the first. In host order.
using Words = std::array<uint32_t, 4>;

Words WordsOf(const IpAddress& a) {
  if (a.is_v4()) return {a.v4().value, 0, 0, 0};
  return {static_cast<uint32_t>(a.bits.hi >> 32), static_cast<uint32_t>(a.bits.hi),
          static_cast<uint32_t>(a.bits.lo >> 32), static_cast<uint32_t>(a.bits.lo)};
}

IpAddress FromWords(Family family, const Words& w) {
  if (family == Family::kIpv4) return Ipv4(w[0]);
  return Ipv6(uint64_t{w[0]} << 32 | w[1], uint64_t{w[2]} << 32 | w[3]);
}

// Bob Jenkins' lookup3 (public domain), hashword() over four words, which is the kernel's jhash2.
// The kernel hashes the words as they lie in memory: in network order, read by a little-endian CPU.
uint32_t HashWords(const Words& words, uint32_t initial) {
  const auto rot = [](uint32_t x, int k) { return std::rotl(x, k); };
  uint32_t a = 0xdeadbeef + (4u << 2) + initial;
  uint32_t b = a;
  uint32_t c = a;
  a += __builtin_bswap32(words[0]);
  b += __builtin_bswap32(words[1]);
  c += __builtin_bswap32(words[2]);
  a -= c, a ^= rot(c, 4), c += b;
  b -= a, b ^= rot(a, 6), a += c;
  c -= b, c ^= rot(b, 8), b += a;
  a -= c, a ^= rot(c, 16), c += b;
  b -= a, b ^= rot(a, 19), a += c;
  c -= b, c ^= rot(b, 4), b += a;
  a += __builtin_bswap32(words[3]);
  c ^= b, c -= rot(b, 14);
  a ^= c, a -= rot(c, 11);
  b ^= a, b -= rot(a, 25);
  c ^= b, c -= rot(b, 16);
  a ^= c, a -= rot(c, 4);
  b ^= a, b -= rot(a, 14);
  c ^= b, c -= rot(b, 24);
  return c;
}

std::optional<Ipv4> FirstAddress4(const Interface& interface, std::optional<Ipv4> near) {
  std::optional<Ipv4> first;
  for (const auto& own : interface.addresses4) {
    if (own.secondary || own.scope > kScopeUniverse) continue;
    if (!near || Ipv4Prefix{own.address, own.prefix_length}.Contains(*near)) return own.address;
    if (!first) first = own.address;
  }
  return first;
}

int CommonPrefix(const Ipv6& a, const Ipv6& b) {
  if (a.hi != b.hi) return std::countl_zero(a.hi ^ b.hi);
  return 64 + (a.lo == b.lo ? 64 : std::countl_zero(a.lo ^ b.lo));
}

// The default policy table of RFC 6724 as Linux has it (net/ipv6/addrlabel.c); addresses that
// nobody forwards left out.
int LabelOf(const Ipv6& a) {
  if (a.hi >> 57 == 0x7e) return 5;         // fc00::/7
  if (a.hi >> 48 == 0x2002) return 2;       // 6to4
  if (a.hi >> 32 == 0x2001'0000) return 6;  // Teredo
  if (a.hi >> 36 == 0x2001'001) return 7;   // ORCHID, 2001:10::/28
  return 1;
}

// Larger is better; compared from the first element on.
using Rank = std::tuple<bool, bool, bool, bool, bool, int>;

std::optional<Ipv6> SelectSource6(const Snapshot& snapshot, IfaceSlot out, const Ipv6& to) {
  std::optional<Ipv6> best;
  Rank best_rank;
  const auto consider = [&](const Interface& interface, bool is_out) {
    for (const auto& own : interface.addresses6) {
      if (own.tentative) continue;
      // A link-local address means something on its own link only.
      if (own.address.IsLinkLocal() && !is_out) continue;
      const int common = std::min<int>(CommonPrefix(own.address, to), own.prefix_length);
      const Rank rank{own.address == to,
                      own.address.IsLinkLocal() == to.IsLinkLocal(),
                      !own.deprecated,
                      is_out,
                      LabelOf(own.address) == LabelOf(to),
                      common};
      if (!best || rank > best_rank) {
        best = own.address;
        best_rank = rank;
      }
    }
  };
  consider(snapshot.at(out), true);
  if (to.IsLinkLocal() || to.IsMulticast()) return best;
  for (const Interface& interface : snapshot.interfaces) {
    if (interface.slot.valid() && interface.slot != out) consider(interface, false);
  }
  return best;
}

}  // namespace

IpAddress PickFromRange(const IpAddress& source, const IpAddress& destination, const IpAddress& min,
                        const IpAddress& max, bool persistent, bool replaces_destination) {
  if (min == max) return min;
  const size_t last = min.is_v4() ? 0 : 3;
  const Words low = WordsOf(min);
  const Words high = WordsOf(max);
  Words to = WordsOf(destination);
  Words chosen{};
  uint32_t hash = HashWords(WordsOf(source), persistent ? 0 : __builtin_bswap32(to[last]));
  // Once the words chosen so far are below the maximum's, the following may be anything.
  bool full_range = false;
  for (size_t i = 0; i <= last; ++i) {
    const uint32_t first = full_range ? 0 : low[i];
    const uint32_t count = full_range ? ~uint32_t{0} : high[i] - low[i] + 1;
    chosen[i] = first + static_cast<uint32_t>(uint64_t{hash} * count >> 32);
    if (chosen[i] != high[i]) full_range = true;
    if (replaces_destination) to[i] = chosen[i];
    if (!persistent) hash ^= __builtin_bswap32(to[i]);
  }
  return FromWords(min.family, chosen);
}

IpAddress Netmap(const IpAddress& address, const IpAddress& min, const IpAddress& max) {
  const Ipv6 host(min.bits.hi ^ max.bits.hi, min.bits.lo ^ max.bits.lo);
  IpAddress mapped = min;
  mapped.bits.hi = (address.bits.hi & host.hi) | (min.bits.hi & ~host.hi);
  mapped.bits.lo = (address.bits.lo & host.lo) | (min.bits.lo & ~host.lo);
  return mapped;
}

std::optional<IpAddress> MasqueradeAddress(const Snapshot& snapshot, IfaceSlot out,
                                           const IpAddress& next_hop,
                                           const IpAddress& destination) {
  if (!out.valid() || !snapshot.at(out).slot.valid()) return {};
  if (!destination.is_v4()) return SelectSource6(snapshot, out, destination.v6());
  // An IPv6 gateway is in no IPv4 subnet.
  const Ipv4 near = next_hop.is_v4() ? next_hop.v4() : Ipv4();
  if (const auto own = FirstAddress4(snapshot.at(out), near)) return *own;
  for (const Interface& interface : snapshot.interfaces) {
    if (!interface.slot.valid()) continue;
    for (const auto& own : interface.addresses4) {
      if (!own.secondary && own.scope != kScopeLink && own.scope <= kScopeUniverse) {
        return own.address;
      }
    }
  }
  return {};
}

std::optional<IpAddress> RedirectAddress(const Snapshot& snapshot, IfaceSlot in,
                                         const IpAddress& destination) {
  if (!in.valid() || !snapshot.at(in).slot.valid()) return {};
  const Interface& interface = snapshot.at(in);
  if (destination.is_v4()) {
    if (interface.addresses4.empty()) return {};
    return interface.addresses4.front().address;
  }
  for (const auto& own : interface.addresses6) {
    if (own.tentative) continue;
    if (destination.v6().IsLinkLocal() && !own.address.IsLinkLocal()) continue;
    return own.address;
  }
  return {};
}

}  // namespace sluice::stages
