#include "control/early/early_conditions.h"

#include <algorithm>
#include <memory>
#include <utility>

#include "control/early/early_ranges.h"

namespace sluice::control {

using nft::Bytes;
using tables::EarlyBytes;
using tables::EarlyRanges;
using tables::EarlyTerm;

namespace {

constexpr uint8_t kIp = tables::kEarlyIpv4 | tables::kEarlyIpv6;
constexpr size_t kMaxSets = 64;
constexpr uint16_t kEtherTypes[] = {0x0806, 0x0800, 0x86dd};  // by bit of EarlyFamily

// What a register holds when the field has this value.
void Load(std::span<const EarlyByte> bytes, uint32_t value, uint8_t* out) {
  for (size_t i = 0; i < bytes.size(); ++i) {
    const auto raw = static_cast<uint8_t>(value >> (8 * (bytes.size() - 1 - i)));
    out[i] = (raw & bytes[i].mask) ^ bytes[i].flip;
  }
}

}  // namespace

bool EarlyConditions::Unmasked(std::span<const EarlyByte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](const EarlyByte& b) { return b.mask == 0xff && b.flip == 0; });
}

EarlyConditions::Step EarlyConditions::SmallBytes(std::optional<EarlyBytes>& condition,
                                                  std::span<const EarlyByte> bytes,
                                                  const Predicate& matches) {
  EarlyBytes values;
  for (uint32_t v = 0; v < 256; ++v) {
    uint8_t loaded;
    Load(bytes, v, &loaded);
    if (matches({&loaded, 1})) values.set(v);
  }
  condition = condition ? *condition & values : values;
  families_ &= kIp;
  return condition->none() ? Step::kNever : Step::kGo;
}

EarlyConditions::Step EarlyConditions::Ports(tables::EarlyDimension d,
                                             std::span<const EarlyByte> bytes,
                                             const Predicate& matches) {
  EarlyRanges<uint16_t> ranges;
  for (uint32_t v = 0; v < 65536; ++v) {
    uint8_t loaded[2];
    Load(bytes, v, loaded);
    if (!matches(loaded)) continue;
    const auto port = static_cast<uint16_t>(v);
    if (!ranges.empty() && uint32_t{ranges.back().last} + 1 == v) {
      ranges.back().last = port;
    } else {
      ranges.push_back({port, port});
    }
  }
  if (ranges.empty()) return Step::kNever;
  families_ &= kIp;
  std::vector<EarlyRanges<uint16_t>>& sets = program_.port_sets;
  const auto found = std::find(sets.begin(), sets.end(), ranges);
  const auto number = static_cast<uint16_t>(found - sets.begin());
  if (found == sets.end()) {
    if (sets.size() == kMaxSets) return Stop("one more set of ports than XDP can tell apart");
    sets.push_back(std::move(ranges));
  }
  rule_.ports[d].push_back({number, false});
  return Step::kGo;
}

EarlyConditions::Step EarlyConditions::Fragment(std::span<const EarlyByte> bytes,
                                                const Predicate& matches) {
  std::bitset<16> forms;
  for (uint32_t form = 0; form < 16; ++form) {
    int yes = 0;
    int no = 0;
    const bool later = (form & 1) != 0;
    for (uint32_t offset = later ? 1 : 0; offset <= (later ? 0x1fffu : 0u); ++offset) {
      uint8_t loaded[2];
      Load(bytes, (form >> 1) << 13 | offset, loaded);
      ++(matches(loaded) ? yes : no);
    }
    if (yes != 0 && no != 0) return Stop("looks at a fragment's offset");
    forms[form] = yes != 0;
  }
  rule_.fragment = rule_.fragment ? *rule_.fragment & forms : forms;
  return rule_.fragment->none() ? Step::kNever : Step::kGo;
}

EarlyConditions::Step EarlyConditions::EtherType(std::span<const EarlyByte> bytes,
                                                 const Predicate& matches) {
  for (size_t i = 0; i < std::size(kEtherTypes); ++i) {
    uint8_t loaded[2];
    Load(bytes, kEtherTypes[i], loaded);
    if (!matches(std::span<const uint8_t>(loaded, bytes.size()))) {
      families_ &= static_cast<uint8_t>(~(1u << i));
    }
  }
  return families_ == 0 ? Step::kNever : Step::kGo;
}

EarlyConditions::Step EarlyConditions::Small(EarlyField field, std::span<const EarlyByte> bytes,
                                             const Predicate& matches) {
  switch (field) {
    case EarlyField::kEtherType:
      return EtherType(bytes, matches);
    case EarlyField::kProtocol:
      return SmallBytes(rule_.protocol, bytes, matches);
    case EarlyField::kByte0:
      return SmallBytes(rule_.byte0, bytes, matches);
    case EarlyField::kByte1:
      return SmallBytes(rule_.byte1, bytes, matches);
    case EarlyField::kTcpFlags:
      return SmallBytes(rule_.tcp_flags, bytes, matches);
    case EarlyField::kSourcePort:
      return Ports(tables::kEarlySource, bytes, matches);
    case EarlyField::kDestinationPort:
      return Ports(tables::kEarlyDestination, bytes, matches);
    case EarlyField::kFragment:
      return Fragment(bytes, matches);
    default:
      return Stop("compares addresses in a way that XDP cannot");
  }
}

template <typename Set>
EarlyConditions::Step EarlyConditions::AddTerm(std::vector<Set>& sets,
                                               std::vector<EarlyTerm>& terms, Set set,
                                               bool inverted) {
  const auto same = [&](const Set& other) {
    return other == set || (set->size() <= 16 && other->size() <= 16 && *other == *set);
  };
  const auto found = std::find_if(sets.begin(), sets.end(), same);
  const auto number = static_cast<uint16_t>(found - sets.begin());
  if (found == sets.end()) {
    if (sets.size() == kMaxSets) return Stop("one more set of addresses than XDP can tell apart");
    sets.push_back(std::move(set));
  }
  terms.push_back({number, inverted});
  return Step::kGo;
}

EarlyConditions::Step EarlyConditions::AddTerm4(EarlyField field, tables::EarlySet4 set,
                                                bool inverted) {
  return AddTerm(program_.sets4, rule_.addresses4[field == EarlyField::kDestination4],
                 std::move(set), inverted);
}

EarlyConditions::Step EarlyConditions::AddTerm6(EarlyField field, tables::EarlySet6 set,
                                                bool inverted) {
  return AddTerm(program_.sets6, rule_.addresses6[field == EarlyField::kDestination6],
                 std::move(set), inverted);
}

EarlyConditions::Step EarlyConditions::AddressRange(EarlyField field,
                                                    const std::array<uint8_t, 16>& from,
                                                    const std::array<uint8_t, 16>& to,
                                                    bool inverted) {
  if (from > to) return inverted ? Step::kGo : Step::kNever;
  if (field == EarlyField::kSource4 || field == EarlyField::kDestination4) {
    EarlyRanges<Ipv4> ranges = {{Ipv4::FromWire(from.data()), Ipv4::FromWire(to.data())}};
    return AddTerm4(field, std::make_shared<const EarlyRanges<Ipv4>>(ranges), inverted);
  }
  EarlyRanges<Ipv6> ranges = {{Ipv6::FromWire(from.data()), Ipv6::FromWire(to.data())}};
  return AddTerm6(field, std::make_shared<const EarlyRanges<Ipv6>>(ranges), inverted);
}

EarlyConditions::Step EarlyConditions::EqualAddress(const EarlyPiece& piece,
                                                    std::span<const EarlyByte> bytes,
                                                    const uint8_t* data) {
  std::array<uint8_t, 16> from{};
  std::array<uint8_t, 16> to{};
  to.fill(0xff);
  bool ended = false;  // the mask's ones
  for (size_t i = 0; i < piece.known; ++i) {
    const uint8_t mask = bytes[i].mask;
    const uint8_t wanted = data[i] ^ bytes[i].flip;
    if ((wanted & ~mask) != 0) return Step::kNever;
    const bool is_prefix = ((~mask & 0xff) & ((~mask & 0xff) + 1)) == 0;
    if (!is_prefix || (ended && mask != 0)) return Stop("an address under a mask with holes");
    ended = ended || mask != 0xff;
    from[i] = wanted;
    to[i] = static_cast<uint8_t>(wanted | ~mask);
  }
  return AddressRange(piece.field, from, to, false);
}

EarlyConditions::Step EarlyConditions::OrderedAddress(const EarlyPiece& piece,
                                                      std::span<const EarlyByte> bytes,
                                                      const Bytes& from, const Bytes& to,
                                                      bool inverted) {
  if (!Unmasked(bytes)) return Stop("orders addresses under a mask");
  std::array<uint8_t, 16> low{};
  std::array<uint8_t, 16> high{};
  high.fill(0xff);
  std::copy_n(from.begin(), piece.known, low.begin());
  std::copy_n(to.begin(), piece.known, high.begin());
  return AddressRange(piece.field, low, high, inverted);
}

bool EarlyConditions::IsAddress(EarlyField field) {
  return field == EarlyField::kSource4 || field == EarlyField::kDestination4 ||
         field == EarlyField::kSource6 || field == EarlyField::kDestination6;
}

EarlyConditions::Step EarlyConditions::EqualFields(std::span<const EarlyByte> bytes,
                                                   const Bytes& data) {
  size_t at = 0;
  while (at < bytes.size()) {
    const auto rest = bytes.subspan(at);
    const std::optional<EarlyPiece> piece = FirstField(rest);
    if (!piece) return Stop("looks at bytes that XDP does not");
    Step step;
    if (IsAddress(piece->field)) {
      step = EqualAddress(*piece, rest, data.data() + at);
    } else {
      const auto equal = [&](std::span<const uint8_t> value) {
        return std::equal(value.begin(), value.end(), data.begin() + static_cast<long>(at));
      };
      step = Small(piece->field, rest.first(piece->size), equal);
    }
    if (step != Step::kGo) return step;
    at += piece->known;
  }
  return Step::kGo;
}

}  // namespace sluice::control
