// Random programs for the early filter, and frames that have something to do with them.
#ifndef SLUICE_TESTS_SUPPORT_EARLY_RANDOM_H_
#define SLUICE_TESTS_SUPPORT_EARLY_RANDOM_H_

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/byte_order.h"
#include "base/rng.h"
#include "support/packet_builder.h"
#include "tables/early_program.h"

namespace sluice::test {

// Addresses are drawn from few /24s and few values, so that sets and packets meet.
inline Ipv4 RandomAddress4(Rng& rng) {
  static constexpr uint32_t kNetworks[] = {0x0a000000, 0x0a000100, 0x0a010000, 0xc0a80000,
                                           0xc0a8ff00, 0x00010200, 0xdfffff00};
  if (rng.Chance(1, 10)) return Ipv4(static_cast<uint32_t>(rng.Next()));
  return Ipv4(kNetworks[rng.Below(std::size(kNetworks))] |
              static_cast<uint32_t>(rng.Chance(1, 3) ? rng.Below(256) : rng.Below(8)));
}

inline Ipv6 RandomAddress6(Rng& rng) {
  static constexpr uint64_t kNetworks[] = {0x20010db800000000, 0x20010db800000001,
                                           0x20010db800010000, 0xfe80000000000000};
  if (rng.Chance(1, 10)) return Ipv6(rng.Next() >> 3 | uint64_t{1} << 61, rng.Next());
  return Ipv6(kNetworks[rng.Below(std::size(kNetworks))],
              rng.Chance(1, 3) ? rng.Next() : rng.Below(8) + 1);
}

inline Ipv4 EndOfPrefix(Ipv4 a, uint64_t length) {
  return Ipv4(length == 0 ? UINT32_MAX : a.value | ~(~uint32_t{0} << (32 - length)));
}

inline tables::EarlySet4 RandomSet4(Rng& rng) {
  tables::EarlyRanges<Ipv4> ranges;
  for (uint64_t n = 1 + rng.Below(rng.Chance(1, 4) ? 60 : 6); n > 0; --n) {
    const Ipv4 a = RandomAddress4(rng);
    if (rng.Chance(1, 2)) {
      ranges.push_back({a, a});
    } else if (rng.Chance(1, 2)) {
      const uint64_t length = 8 + rng.Below(24);
      ranges.push_back({Ipv4(a.value & ~uint32_t{0} << (32 - length)), EndOfPrefix(a, length)});
    } else {
      const Ipv4 b = RandomAddress4(rng);
      ranges.push_back({std::min(a, b), std::max(a, b)});
    }
  }
  std::sort(ranges.begin(), ranges.end());
  tables::EarlyRanges<Ipv4> joined;
  for (const auto& range : ranges) {
    if (!joined.empty() && uint64_t{range.first.value} <= uint64_t{joined.back().last.value} + 1) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  }
  return std::make_shared<const tables::EarlyRanges<Ipv4>>(joined);
}

inline tables::EarlySet6 RandomSet6(Rng& rng) {
  tables::EarlyRanges<Ipv6> ranges;
  for (uint64_t n = 1 + rng.Below(6); n > 0; --n) {
    const Ipv6 a = RandomAddress6(rng);
    const Ipv6 b = rng.Chance(1, 2) ? a : RandomAddress6(rng);
    if (rng.Chance(1, 2)) {
      ranges.push_back({std::min(a, b), std::max(a, b)});
    } else {
      const Ipv6Prefix p = Ipv6Prefix{a, static_cast<uint8_t>(16 + rng.Below(113))}.Canonical();
      const Ipv6 mask = p.mask();
      ranges.push_back({p.address, Ipv6(p.address.hi | ~mask.hi, p.address.lo | ~mask.lo)});
    }
  }
  std::sort(ranges.begin(), ranges.end());
  tables::EarlyRanges<Ipv6> joined;
  for (const auto& range : ranges) {
    if (!joined.empty() && range.first <= joined.back().last) {
      joined.back().last = std::max(joined.back().last, range.last);
    } else {
      joined.push_back(range);
    }
  }
  return std::make_shared<const tables::EarlyRanges<Ipv6>>(joined);
}

inline constexpr uint16_t kEarlyPorts[] = {0, 53, 80, 443, 8080, 65535};
inline constexpr uint8_t kEarlyProtocols[] = {1, 6, 17, 58, 132};

inline tables::EarlyRule RandomEarlyRule(Rng& rng, const tables::EarlyProgram& program) {
  tables::EarlyRule rule;
  const auto terms = [&](size_t sets) {
    std::vector<tables::EarlyTerm> out;
    for (uint64_t n = rng.Chance(1, 2) ? 0 : 1 + rng.Below(2); n > 0; --n) {
      out.push_back({static_cast<uint16_t>(rng.Below(sets)), rng.Chance(1, 4)});
    }
    return out;
  };
  static constexpr uint8_t kFamilies[] = {1, 2, 2, 2, 4, 4, 6, 6, 7};
  rule.families = kFamilies[rng.Below(std::size(kFamilies))];
  if (rule.families == tables::kEarlyIpv4) {
    for (auto& d : rule.addresses4) d = terms(program.sets4.size());
    if (rng.Chance(1, 6)) rule.fragment = std::bitset<16>(rng.Next() & 0xffff);
  }
  if (rule.families == tables::kEarlyIpv6) {
    for (auto& d : rule.addresses6) d = terms(program.sets6.size());
  }
  if ((rule.families & tables::kEarlyOther) == 0) {
    for (auto& d : rule.ports) {
      if (rng.Chance(1, 3)) d = terms(program.port_sets.size());
    }
    const auto bytes = [&](auto pick) {
      tables::EarlyBytes b;
      for (int n = 0; n < 3; ++n) b.set(pick());
      return rng.Chance(1, 4) ? ~b : b;
    };
    if (rng.Chance(1, 3)) {
      rule.protocol = bytes([&] { return kEarlyProtocols[rng.Below(std::size(kEarlyProtocols))]; });
    }
    if (rng.Chance(1, 8)) rule.byte0 = bytes([&] { return rng.Below(12); });
    if (rng.Chance(1, 8)) rule.byte1 = bytes([&] { return rng.Below(4); });
    if (rng.Chance(1, 8)) rule.tcp_flags = bytes([&] { return rng.Below(32); });
  }
  if (rng.Chance(1, 6)) {
    const uint64_t hour = 3'600'000'000'000;
    rule.limit = tables::EarlyLimit{
        .cost_ns = hour,
        .depth_ns = hour * (1 + rng.Below(5)),
        .over = rng.Chance(1, 2),
        .per_source = rng.Chance(1, 2) && rule.families != 1 && (rule.families & 1) == 0};
  }
  rule.counter =
      rng.Chance(1, 2) ? tables::EarlyCounter::kBeforeLimit : tables::EarlyCounter::kLast;
  rule.verdict = static_cast<tables::EarlyVerdict>(rng.Below(3));
  return rule;
}

inline tables::EarlyProgram RandomEarlyProgram(Rng& rng) {
  tables::EarlyProgram program;
  for (uint64_t n = 1 + rng.Below(6); n > 0; --n) program.sets4.push_back(RandomSet4(rng));
  for (uint64_t n = 1 + rng.Below(6); n > 0; --n) program.sets6.push_back(RandomSet6(rng));
  for (uint64_t n = 1 + rng.Below(6); n > 0; --n) {
    const uint16_t a = kEarlyPorts[rng.Below(std::size(kEarlyPorts))];
    const uint16_t b = rng.Chance(1, 2) ? a : kEarlyPorts[rng.Below(std::size(kEarlyPorts))];
    program.port_sets.push_back({{std::min(a, b), std::max(a, b)}});
  }
  const uint64_t count = rng.Chance(1, 5) ? 64 : 1 + rng.Below(12);
  uint16_t chain = 0;
  bool ingress = rng.Chance(1, 2);
  bool whole = rng.Chance(1, 2);
  for (uint64_t i = 0; i < count; ++i) {
    if (rng.Chance(1, 4)) {
      ++chain;
      ingress = ingress && rng.Chance(1, 2);
      whole = rng.Chance(1, 2);
    }
    tables::EarlyRule rule = RandomEarlyRule(rng, program);
    rule.key = {1, "filter", "chain" + std::to_string(chain), i + 1};
    rule.chain = chain;
    rule.ingress = ingress;
    rule.whole_packets = !ingress && whole;
    if (!ingress) rule.families &= 6;
    if (rule.families == 0) rule.families = 6;
    program.rules.push_back(std::move(rule));
  }
  return program;
}

// An IP packet to 02:00:00:00:00:01 with a sound header (now and then but for the checksum), or
// ARP.
inline Bytes RandomEarlyFrame(Rng& rng) {
  Bytes frame = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
  const uint64_t kind = rng.Below(20);
  const auto append = [&](std::initializer_list<int> bytes) {
    for (const int b : bytes) frame.push_back(static_cast<uint8_t>(b));
  };
  if (kind == 0) {
    append({8, 6});
    frame.resize(60);
    return frame;
  }
  Bytes l4(rng.Chance(1, 4) ? rng.Below(16) : 20);
  for (uint8_t& b : l4) b = static_cast<uint8_t>(rng.Chance(1, 2) ? rng.Below(12) : rng.Next());
  for (size_t d = 0; d < 2; ++d) {
    if (l4.size() >= d * 2 + 2 && rng.Chance(2, 3)) {
      StoreBe16(l4.data() + d * 2, kEarlyPorts[rng.Below(std::size(kEarlyPorts))]);
    }
  }
  uint8_t protocol = kEarlyProtocols[rng.Below(std::size(kEarlyProtocols))];
  if (kind < 12) {
    append({8, 0});
    const size_t header = rng.Chance(1, 8) ? 20 + 4 * rng.Below(11) : 20;
    Bytes ip(header, 1);
    ip[0] = static_cast<uint8_t>(0x40 | header / 4);
    StoreBe16(ip.data() + 2, static_cast<uint16_t>(header + l4.size()));
    uint16_t fragment = 0;
    if (rng.Chance(1, 3)) fragment = static_cast<uint16_t>(rng.Below(8) << 13);
    if (rng.Chance(1, 8)) fragment |= static_cast<uint16_t>(1 + rng.Below(0x1fff));
    StoreBe16(ip.data() + 6, fragment);
    ip[9] = protocol;
    RandomAddress4(rng).ToWire(ip.data() + 12);
    Ipv4 destination = RandomAddress4(rng);
    if (destination.IsMulticast() || destination.IsLimitedBroadcast()) destination = Ipv4(1);
    destination.ToWire(ip.data() + 16);
    StoreBe16(ip.data() + 10, 0);
    uint32_t sum = 0;
    for (size_t i = 0; i < header; i += 2) sum += LoadBe16(ip.data() + i);
    while (sum >> 16 != 0) sum = (sum & 0xffff) + (sum >> 16);
    StoreBe16(ip.data() + 10, static_cast<uint16_t>(~sum));
    if (rng.Chance(1, 10)) ip[10] ^= 1;
    frame.insert(frame.end(), ip.begin(), ip.end());
  } else {
    append({0x86, 0xdd});
    if (rng.Chance(1, 10)) protocol = rng.Chance(1, 2) ? 0 : 44;
    Bytes ip(40);
    ip[0] = 0x60;
    StoreBe16(ip.data() + 4, static_cast<uint16_t>(l4.size()));
    ip[6] = protocol;
    ip[7] = 64;
    RandomAddress6(rng).ToWire(ip.data() + 8);
    RandomAddress6(rng).ToWire(ip.data() + 24);
    frame.insert(frame.end(), ip.begin(), ip.end());
  }
  frame.insert(frame.end(), l4.begin(), l4.end());
  for (uint64_t n = rng.Chance(1, 3) ? rng.Below(30) : 0; n > 0; --n)
    frame.push_back(7);  // padding
  return frame;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_EARLY_RANDOM_H_
