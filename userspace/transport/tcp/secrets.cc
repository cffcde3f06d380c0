#include "transport/tcp/secrets.h"

#include <array>

namespace sluice::transport {

namespace {

// What hosts offer most; the largest that is not above the peer's counts.
constexpr std::array<uint16_t, 8> kCookieMss = {88, 536, 1220, 1300, 1400, 1440, 1460, 8900};

// 32 bits: 24 of the keyed hash, 5 of the minute, 3 of the MSS's index.
constexpr uint32_t kMacMask = 0xffffff00;
constexpr uint32_t kMinuteBits = 0x1f;
constexpr int64_t kCookieMinutes = 2;  // a cookie is good for its own minute and the next

uint32_t MinuteOf(Nanos now) { return static_cast<uint32_t>(now / Seconds(60)); }

// TSval's low bits: window scale (15: none), SACK, ECN.
constexpr uint32_t kTsOptionBits = 6;
constexpr uint32_t kTsOptionMask = (1u << kTsOptionBits) - 1;

}  // namespace

wire::TcpSeq TcpSecrets::MakeCookie(const Tuple& t, wire::TcpSeq irs, uint16_t mss,
                                    Nanos now) const {
  uint32_t index = 0;
  while (index + 1 < kCookieMss.size() && kCookieMss[index + 1] <= mss) ++index;
  const uint32_t minute = MinuteOf(now);
  return wire::TcpSeq((CookieMac(t, irs, minute, index) & kMacMask) |
                      (minute & kMinuteBits) << 3 | index);
}

std::optional<uint16_t> TcpSecrets::CheckCookie(const Tuple& t, wire::TcpSeq irs,
                                                wire::TcpSeq cookie, Nanos now) const {
  const uint32_t index = cookie.value() & 7;
  const uint32_t minute = MinuteOf(now);
  const uint32_t age = (minute - (cookie.value() >> 3)) & kMinuteBits;
  if (age >= kCookieMinutes || age > minute) return {};
  if ((CookieMac(t, irs, minute - age, index) & kMacMask) != (cookie.value() & kMacMask)) {
    return {};
  }
  return kCookieMss[index];
}

uint32_t TcpSecrets::CookieTimestamp(uint32_t ts_value, const CookieOptions& o) {
  const uint32_t bits = (o.has_window_scale ? o.window_scale : 15u) |
                        (o.sack_permitted ? 16u : 0u) | (o.ecn ? 32u : 0u);
  uint32_t value = (ts_value & ~kTsOptionMask) | bits;
  if (value > ts_value) value -= 1u << kTsOptionBits;
  return value;
}

TcpSecrets::CookieOptions TcpSecrets::OptionsOfTimestamp(uint32_t ts_echo_reply) {
  const uint32_t scale = ts_echo_reply & 15;
  return {scale != 15, static_cast<uint8_t>(scale == 15 ? 0 : scale),
          (ts_echo_reply & 16) != 0, (ts_echo_reply & 32) != 0};
}

}  // namespace sluice::transport
