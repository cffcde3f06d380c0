// ICMPv6 (RFC 4443): view, checksum with the pseudo header, errors, echo.
//
// Neighbour discovery, which travels in ICMPv6, is in ndp.h. As with icmp.h, what to send and how
// much to quote is the ICMP stage's to decide (an error must fit 1280 bytes as a whole).
#ifndef SLUICE_WIRE_ICMPV6_H_
#define SLUICE_WIRE_ICMPV6_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"
#include "wire/checksum.h"
#include "wire/protocol.h"

namespace sluice::wire {

inline constexpr uint8_t kIcmpv6Unreachable = 1;
inline constexpr uint8_t kIcmpv6PacketTooBig = 2;
inline constexpr uint8_t kIcmpv6TimeExceeded = 3;
inline constexpr uint8_t kIcmpv6ParameterProblem = 4;
inline constexpr uint8_t kIcmpv6EchoRequest = 128;
inline constexpr uint8_t kIcmpv6EchoReply = 129;
inline constexpr uint8_t kIcmpv6RouterSolicitation = 133;
inline constexpr uint8_t kIcmpv6RouterAdvertisement = 134;
inline constexpr uint8_t kIcmpv6NeighborSolicitation = 135;
inline constexpr uint8_t kIcmpv6NeighborAdvertisement = 136;
inline constexpr uint8_t kIcmpv6Redirect = 137;

// Codes of kIcmpv6Unreachable.
inline constexpr uint8_t kIcmpv6NoRoute = 0;
inline constexpr uint8_t kIcmpv6Prohibited = 1;
inline constexpr uint8_t kIcmpv6BeyondScope = 2;
inline constexpr uint8_t kIcmpv6AddressUnreachable = 3;
inline constexpr uint8_t kIcmpv6PortUnreachable = 4;
// Codes of kIcmpv6TimeExceeded and kIcmpv6ParameterProblem.
inline constexpr uint8_t kIcmpv6HopLimitExceeded = 0;
inline constexpr uint8_t kIcmpv6ReassemblyTimeout = 1;
inline constexpr uint8_t kIcmpv6ErroneousField = 0;
inline constexpr uint8_t kIcmpv6UnknownNextHeader = 1;
inline constexpr uint8_t kIcmpv6UnknownOption = 2;

constexpr bool IsIcmpv6Error(uint8_t type) { return type < 128; }
constexpr bool IsNeighborDiscovery(uint8_t type) {
  return type >= kIcmpv6RouterSolicitation && type <= kIcmpv6Redirect;
}

class Icmpv6View {
 public:
  static constexpr size_t kSize = 8;

  static std::optional<Icmpv6View> Parse(std::span<const uint8_t> message) {
    if (message.size() < kSize) return {};
    return Icmpv6View(message.data());
  }
  // Trusts that kSize bytes are there.
  explicit Icmpv6View(const uint8_t* p) : p_(p) {}

  uint8_t type() const { return p_[0]; }
  uint8_t code() const { return p_[1]; }
  uint16_t checksum() const { return LoadBe16(p_ + 2); }
  uint32_t rest() const { return LoadBe32(p_ + 4); }  // bytes 4 to 7
  uint16_t echo_id() const { return LoadBe16(p_ + 4); }
  uint16_t echo_sequence() const { return LoadBe16(p_ + 6); }
  uint32_t mtu() const { return rest(); }      // packet too big
  uint32_t pointer() const { return rest(); }  // parameter problem

 private:
  const uint8_t* p_;
};

// Over a whole message that lies in one piece; pieces go through SumChain with PseudoHeaderSum.
inline bool Icmpv6ChecksumIsRight(const Ipv6& source, const Ipv6& destination,
                                  std::span<const uint8_t> message) {
  const auto length = static_cast<uint32_t>(message.size());
  return Fold(PseudoHeaderSum(source, destination, kProtocolIcmpv6, length) +
              uint64_t{Sum(message)}) == 0xffff;
}

// Fills in the checksum of a message that is complete otherwise.
inline void FillIcmpv6Checksum(const Ipv6& source, const Ipv6& destination,
                               std::span<uint8_t> message) {
  const auto length = static_cast<uint32_t>(message.size());
  StoreBe16(message.data() + 2, 0);
  StoreBe16(message.data() + 2,
            Checksum(PseudoHeaderSum(source, destination, kProtocolIcmpv6, length) +
                     uint64_t{Sum(message)}));
}

// Writes a message with its checksum: the header, then `body`. Returns the bytes written, 0 when
// `out` is too small. `body` may already stand at its place in `out`.
inline size_t EmitIcmpv6(std::span<uint8_t> out, const Ipv6& source, const Ipv6& destination,
                         uint8_t type, uint8_t code, uint32_t rest, std::span<const uint8_t> body) {
  const size_t size = Icmpv6View::kSize + body.size();
  if (out.size() < size) return 0;
  uint8_t* p = out.data();
  if (p + Icmpv6View::kSize != body.data()) {
    std::copy(body.begin(), body.end(), p + Icmpv6View::kSize);
  }
  p[0] = type;
  p[1] = code;
  StoreBe32(p + 4, rest);
  FillIcmpv6Checksum(source, destination, out.first(size));
  return size;
}

// Makes an echo request into its reply, in place. Swapping the IPv6 addresses leaves the checksum
// alone; where the reply's source is another one (the request went to a group), update that too.
inline void TurnIntoEchoReplyV6(uint8_t* icmpv6) {
  const uint16_t before = LoadBe16(icmpv6);
  icmpv6[0] = kIcmpv6EchoReply;
  StoreBe16(icmpv6 + 2, UpdateChecksum16(LoadBe16(icmpv6 + 2), before, LoadBe16(icmpv6)));
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_ICMPV6_H_
