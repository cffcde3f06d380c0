// Addresses as values: MAC, IPv4, IPv6, and either of the two.
//
// Ipv4 holds its value in host order (so that prefixes and ranges compare as numbers); Ipv6 holds
// two host-order halves for the same reason. Conversions to and from the wire are explicit.
#ifndef SLUICE_BASE_ADDRESS_H_
#define SLUICE_BASE_ADDRESS_H_

#include <array>
#include <compare>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>

#include "base/byte_order.h"

namespace sluice {

struct Mac {
  std::array<uint8_t, 6> bytes{};

  static Mac FromWire(const uint8_t* p) {
    Mac m;
    std::memcpy(m.bytes.data(), p, 6);
    return m;
  }
  void ToWire(uint8_t* p) const { std::memcpy(p, bytes.data(), 6); }
  static constexpr Mac Broadcast() { return Mac{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}}; }

  constexpr bool IsMulticast() const { return (bytes[0] & 1) != 0; }  // includes broadcast
  constexpr bool IsZero() const { return *this == Mac{}; }
  constexpr auto operator<=>(const Mac&) const = default;
};

struct Ipv4 {
  uint32_t value = 0;  // host order: 10.0.0.1 is 0x0a000001

  constexpr Ipv4() = default;
  constexpr explicit Ipv4(uint32_t v) : value(v) {}
  constexpr Ipv4(uint8_t a, uint8_t b, uint8_t c, uint8_t d)
      : value(uint32_t{a} << 24 | uint32_t{b} << 16 | uint32_t{c} << 8 | d) {}
  static Ipv4 FromWire(const uint8_t* p) { return Ipv4(LoadBe32(p)); }
  void ToWire(uint8_t* p) const { StoreBe32(p, value); }

  constexpr bool IsUnspecified() const { return value == 0; }
  constexpr bool IsLoopback() const { return value >> 24 == 127; }
  constexpr bool IsMulticast() const { return value >> 28 == 0xe; }
  constexpr bool IsLimitedBroadcast() const { return value == 0xffffffff; }
  constexpr bool IsLinkLocal() const { return value >> 16 == 0xa9fe; }
  constexpr auto operator<=>(const Ipv4&) const = default;
};

struct Ipv6 {
  uint64_t hi = 0;  // host order, first eight bytes
  uint64_t lo = 0;

  constexpr Ipv6() = default;
  constexpr Ipv6(uint64_t h, uint64_t l) : hi(h), lo(l) {}
  static Ipv6 FromWire(const uint8_t* p) { return Ipv6(LoadBe64(p), LoadBe64(p + 8)); }
  void ToWire(uint8_t* p) const {
    StoreBe64(p, hi);
    StoreBe64(p + 8, lo);
  }
  // The solicited-node multicast address ff02::1:ffXX:XXXX (RFC 4291 section 2.7.1).
  constexpr Ipv6 SolicitedNode() const {
    return Ipv6(0xff02'0000'0000'0000ull, 0x0000'0001'ff00'0000ull | (lo & 0xff'ffff));
  }

  constexpr bool IsUnspecified() const { return hi == 0 && lo == 0; }
  constexpr bool IsLoopback() const { return hi == 0 && lo == 1; }
  constexpr bool IsMulticast() const { return hi >> 56 == 0xff; }
  constexpr bool IsLinkLocal() const { return hi >> 54 == 0x3fa; }  // fe80::/10
  constexpr auto operator<=>(const Ipv6&) const = default;
};

enum class Family : uint8_t { kIpv4 = 4, kIpv6 = 6 };

// Either kind, as tables and messages need it. An IPv4 address is kept in `v6.lo`, `v6.hi` zero.
struct IpAddress {
  Ipv6 bits;
  Family family = Family::kIpv4;  // last, so that what follows an address can lie in its padding

  constexpr IpAddress() = default;
  constexpr IpAddress(Ipv4 a) : bits(0, a.value), family(Family::kIpv4) {}  // NOLINT: a widening
  constexpr IpAddress(Ipv6 a) : bits(a), family(Family::kIpv6) {}           // NOLINT: a widening

  constexpr bool is_v4() const { return family == Family::kIpv4; }
  constexpr Ipv4 v4() const { return Ipv4(static_cast<uint32_t>(bits.lo)); }
  constexpr Ipv6 v6() const { return bits; }
  constexpr bool operator==(const IpAddress&) const = default;
  constexpr std::strong_ordering operator<=>(const IpAddress& o) const {
    const auto families = family <=> o.family;
    return families != 0 ? families : bits <=> o.bits;
  }
};

// A prefix; bits below `length` are zero in a canonical one (see Canonical).
struct Ipv4Prefix {
  Ipv4 address;
  uint8_t length = 0;  // 0 to 32

  constexpr uint32_t mask() const { return length == 0 ? 0 : ~uint32_t{0} << (32 - length); }
  constexpr Ipv4Prefix Canonical() const { return {Ipv4(address.value & mask()), length}; }
  constexpr bool Contains(Ipv4 a) const { return ((a.value ^ address.value) & mask()) == 0; }
  constexpr auto operator<=>(const Ipv4Prefix&) const = default;
};

struct Ipv6Prefix {
  Ipv6 address;
  uint8_t length = 0;  // 0 to 128

  constexpr Ipv6 mask() const {
    return Ipv6(length == 0 ? 0 : length >= 64 ? ~uint64_t{0} : ~uint64_t{0} << (64 - length),
                length <= 64 ? 0 : ~uint64_t{0} << (128 - length));
  }
  constexpr Ipv6Prefix Canonical() const {
    return {Ipv6(address.hi & mask().hi, address.lo & mask().lo), length};
  }
  constexpr bool Contains(Ipv6 a) const {
    return ((a.hi ^ address.hi) & mask().hi) == 0 && ((a.lo ^ address.lo) & mask().lo) == 0;
  }
  constexpr auto operator<=>(const Ipv6Prefix&) const = default;
};

// Text forms, for messages and tests (RFC 5952 for IPv6). They allocate: not for the hot path.
std::string ToString(const Mac& mac);
std::string ToString(Ipv4 address);
std::string ToString(const Ipv6& address);
std::string ToString(const IpAddress& address);
std::string ToString(const Ipv4Prefix& prefix);
std::string ToString(const Ipv6Prefix& prefix);
std::optional<Mac> ParseMac(std::string_view text);
std::optional<Ipv4> ParseIpv4(std::string_view text);
std::optional<Ipv6> ParseIpv6(std::string_view text);
std::optional<IpAddress> ParseIpAddress(std::string_view text);
std::optional<Ipv4Prefix> ParseIpv4Prefix(std::string_view text);  // a bare address is a /32
std::optional<Ipv6Prefix> ParseIpv6Prefix(std::string_view text);  // a bare address is a /128

}  // namespace sluice

#endif  // SLUICE_BASE_ADDRESS_H_
