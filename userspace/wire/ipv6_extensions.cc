#include "wire/ipv6_extensions.h"

#include <algorithm>

namespace sluice::wire {
namespace {

constexpr uint8_t kPad1 = 0x00;
constexpr uint8_t kPadN = 0x01;
constexpr uint8_t kRouterAlert = 0x05;
constexpr uint8_t kCalipso = 0x07;
constexpr uint8_t kIoam = 0x31;
constexpr uint8_t kJumboPayload = 0xc2;
constexpr size_t kMaxPadding = 7;

constexpr HopByHopResult kDropIt{.verdict = HopByHopVerdict::kDrop};

HopByHopResult Problem(uint8_t code, size_t pointer) {
  return {.verdict = HopByHopVerdict::kParameterProblem,
          .code = code,
          .pointer = static_cast<uint16_t>(pointer)};
}

// RFC 8200 section 4.2: what the two high bits of an unknown option ask for.
HopByHopResult JudgeUnknown(uint8_t type, size_t at, const Ipv6View& ip,
                            const HopByHopResult& so_far) {
  switch (type >> 6) {
    case 0:
      return so_far;
    case 1:
      return kDropIt;
    case 2:
      return Problem(2, at);
    default:
      return ip.destination().IsMulticast() ? kDropIt : Problem(2, at);
  }
}

HopByHopResult JudgeJumbo(std::span<const uint8_t> option, size_t at, const Ipv6View& ip,
                          size_t length, HopByHopResult so_far) {
  if (option.size() != 6 || (at & 3) != 2) return kDropIt;
  const uint32_t jumbo_length = LoadBe32(option.data() + 2);
  if (jumbo_length <= 0xffff) return Problem(0, at + 2);
  if (ip.payload_length() != 0) return Problem(0, at);
  if (jumbo_length > length - Ipv6View::kSize) return kDropIt;
  so_far.jumbo = true;
  so_far.jumbo_length = jumbo_length;
  return so_far;
}

HopByHopResult JudgeOption(std::span<const uint8_t> option, size_t at, const Ipv6View& ip,
                           size_t length, HopByHopResult so_far) {
  switch (option[0]) {
    case kRouterAlert:
      if (option.size() != 4) return kDropIt;
      so_far.router_alert = true;
      so_far.router_alert_value = LoadBe16(option.data() + 2);
      return so_far;
    case kJumboPayload:
      return JudgeJumbo(option, at, ip, length, so_far);
    case kIoam:
    case kCalipso:
      so_far.other_action = true;
      return so_far;
    default:
      return JudgeUnknown(option[0], at, ip, so_far);
  }
}

}  // namespace

Ipv6Chain WalkExtensionHeaders(std::span<const uint8_t> packet) {
  Ipv6Chain chain{.protocol = packet[6], .l4_offset = Ipv6View::kSize};
  for (size_t count = 0; IsExtensionHeader(chain.protocol); ++count) {
    const size_t at = chain.l4_offset;
    if (count == kMaxExtensionHeaders) {
      chain.status = ChainStatus::kTooMany;
      return chain;
    }
    if (packet.size() < at + 8) {
      chain.status = ChainStatus::kTruncated;
      return chain;
    }
    const uint8_t* p = packet.data() + at;
    size_t size = (p[1] + size_t{1}) * 8;
    if (chain.protocol == kProtocolAuthentication) size = (p[1] + size_t{2}) * 4;
    if (chain.protocol == kProtocolFragment) size = 8;
    if (packet.size() < at + size) {
      chain.status = ChainStatus::kTruncated;
      return chain;
    }
    if (chain.protocol == kProtocolHopByHop && count == 0) chain.has_hop_by_hop = true;
    if (chain.protocol == kProtocolRouting && p[3] > 0) chain.has_routing = true;
    if (chain.protocol == kProtocolFragment) {
      const uint16_t field = LoadBe16(p + 2);
      chain.has_fragment_header = true;
      chain.fragment_header_at = static_cast<uint16_t>(at);
      chain.fragment_offset = field & 0xfff8;
      chain.more_fragments = (field & 1) != 0;
      chain.fragment_id = LoadBe32(p + 4);
      chain.is_fragment = chain.fragment_offset != 0 || chain.more_fragments;
    }
    chain.next_header_at = static_cast<uint16_t>(at);
    chain.l4_offset = static_cast<uint16_t>(at + size);
    chain.protocol = p[0];
    if (chain.fragment_offset != 0) {
      chain.status = ChainStatus::kFragment;
      return chain;
    }
  }
  return chain;
}

HopByHopResult CheckHopByHop(std::span<const uint8_t> packet, size_t length) {
  size_t at = Ipv6View::kSize;
  if (packet.size() < at + 8) return kDropIt;
  const size_t end = at + (packet[at + 1] + size_t{1}) * 8;
  if (packet.size() < end) return kDropIt;
  const Ipv6View ip(packet.data());
  HopByHopResult result;
  size_t padding = 0;
  size_t options = 0;
  at += 2;
  while (at < end) {
    if (packet[at] == kPad1) {
      if (++padding > kMaxPadding) return kDropIt;
      ++at;
      continue;
    }
    if (end - at < 2) return kDropIt;
    const size_t size = packet[at + 1] + size_t{2};
    if (size > end - at) return kDropIt;
    const auto option = packet.subspan(at, size);
    if (option[0] == kPadN) {
      padding += size;
      if (padding > kMaxPadding) return kDropIt;
      const bool zeros =
          std::all_of(option.begin() + 2, option.end(), [](uint8_t byte) { return byte == 0; });
      if (!zeros) return kDropIt;
    } else {
      if (++options > kMaxHopByHopOptions) return kDropIt;
      result = JudgeOption(option, at, ip, length, result);
      if (result.verdict != HopByHopVerdict::kOk) return result;
      padding = 0;
    }
    at += size;
  }
  return result;
}

}  // namespace sluice::wire
