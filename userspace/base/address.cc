#include "base/address.h"

#include <arpa/inet.h>

#include <charconv>
#include <cstdio>

namespace sluice {
namespace {

// Splits "address/length"; without a slash the length is `whole`. Empty when the length is no
// number or larger than `whole`.
std::optional<uint8_t> TakePrefixLength(std::string_view& text, uint8_t whole) {
  const size_t slash = text.find('/');
  if (slash == std::string_view::npos) return whole;
  const std::string_view digits = text.substr(slash + 1);
  text = text.substr(0, slash);
  unsigned length = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), length);
  if (error != std::errc() || end != digits.data() + digits.size() || length > whole) return {};
  return static_cast<uint8_t>(length);
}

}  // namespace

std::string ToString(const Mac& mac) {
  char text[18];
  const auto& b = mac.bytes;
  std::snprintf(text, sizeof text, "%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4],
                b[5]);
  return text;
}

std::string ToString(Ipv4 address) {
  uint8_t wire[4];
  address.ToWire(wire);
  char text[INET_ADDRSTRLEN];
  return inet_ntop(AF_INET, wire, text, sizeof text);
}

std::string ToString(const Ipv6& address) {
  uint8_t wire[16];
  address.ToWire(wire);
  char text[INET6_ADDRSTRLEN];
  return inet_ntop(AF_INET6, wire, text, sizeof text);
}

std::string ToString(const IpAddress& address) {
  return address.is_v4() ? ToString(address.v4()) : ToString(address.v6());
}

std::string ToString(const Ipv4Prefix& prefix) {
  return ToString(prefix.address) + "/" + std::to_string(prefix.length);
}

std::string ToString(const Ipv6Prefix& prefix) {
  return ToString(prefix.address) + "/" + std::to_string(prefix.length);
}

std::optional<Mac> ParseMac(std::string_view text) {
  Mac mac;
  if (text.size() != 17) return {};
  for (size_t i = 0; i < 6; ++i) {
    const char* p = text.data() + i * 3;
    if (i < 5 && p[2] != ':') return {};
    const auto [end, error] = std::from_chars(p, p + 2, mac.bytes[i], 16);
    if (error != std::errc() || end != p + 2) return {};
  }
  return mac;
}

std::optional<Ipv4> ParseIpv4(std::string_view text) {
  uint8_t wire[4];
  if (inet_pton(AF_INET, std::string(text).c_str(), wire) != 1) return {};
  return Ipv4::FromWire(wire);
}

std::optional<Ipv6> ParseIpv6(std::string_view text) {
  uint8_t wire[16];
  if (inet_pton(AF_INET6, std::string(text).c_str(), wire) != 1) return {};
  return Ipv6::FromWire(wire);
}

std::optional<IpAddress> ParseIpAddress(std::string_view text) {
  if (const auto v4 = ParseIpv4(text)) return IpAddress(*v4);
  if (const auto v6 = ParseIpv6(text)) return IpAddress(*v6);
  return {};
}

std::optional<Ipv4Prefix> ParseIpv4Prefix(std::string_view text) {
  const auto length = TakePrefixLength(text, 32);
  const auto address = ParseIpv4(text);
  if (!length || !address) return {};
  return Ipv4Prefix{*address, *length};
}

std::optional<Ipv6Prefix> ParseIpv6Prefix(std::string_view text) {
  const auto length = TakePrefixLength(text, 128);
  const auto address = ParseIpv6(text);
  if (!length || !address) return {};
  return Ipv6Prefix{*address, *length};
}

}  // namespace sluice
