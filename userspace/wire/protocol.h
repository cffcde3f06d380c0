// The IP protocol numbers that Sluice knows by name (IANA "Assigned Internet Protocol Numbers").
// They are plain bytes, not an enum, since every value may come in from the wire.
#ifndef SLUICE_WIRE_PROTOCOL_H_
#define SLUICE_WIRE_PROTOCOL_H_

#include <cstdint>

namespace sluice::wire {

inline constexpr uint8_t kProtocolHopByHop = 0;
inline constexpr uint8_t kProtocolIcmp = 1;
inline constexpr uint8_t kProtocolIgmp = 2;
inline constexpr uint8_t kProtocolTcp = 6;
inline constexpr uint8_t kProtocolUdp = 17;
inline constexpr uint8_t kProtocolRouting = 43;
inline constexpr uint8_t kProtocolFragment = 44;
inline constexpr uint8_t kProtocolGre = 47;
inline constexpr uint8_t kProtocolEsp = 50;
inline constexpr uint8_t kProtocolAuthentication = 51;
inline constexpr uint8_t kProtocolIcmpv6 = 58;
inline constexpr uint8_t kProtocolNoNextHeader = 59;
inline constexpr uint8_t kProtocolDestinationOptions = 60;
inline constexpr uint8_t kProtocolSctp = 132;
inline constexpr uint8_t kProtocolUdpLite = 136;

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_PROTOCOL_H_
