// Neighbour discovery (RFC 4861): views, the validity checks of its sections 6.1, 7.1 and 8.1, and
// emitters of solicitations and advertisements.
//
// CheckNd makes every check of the message that needs no state: hop limit 255, code 0, length,
// checksum, no multicast target, options of non-zero length that end where the message ends,
// link-layer address options of Ethernet's length, and the rules for an unspecified source. It
// names the rule that failed. After it, the view of that type and its options cannot fail. What is
// left to the neighbour stage: whether the target is ours, and (redirects) whether the sender is
// our router. Rules that Linux' ndisc.c has beyond the RFC are followed: an NS from :: with a
// source link-layer address option, or not sent to a solicited-node address, is refused.
//
// Options of one kind may repeat; the first counts, as in Linux. No allocation, one pass per
// lookup.
#ifndef SLUICE_WIRE_NDP_H_
#define SLUICE_WIRE_NDP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"
#include "wire/icmpv6.h"

namespace sluice::wire {

inline constexpr uint8_t kNdSourceLinkLayer = 1;
inline constexpr uint8_t kNdTargetLinkLayer = 2;
inline constexpr uint8_t kNdPrefix = 3;
inline constexpr uint8_t kNdRedirectedHeader = 4;
inline constexpr uint8_t kNdMtu = 5;

inline constexpr size_t kNdLinkLayerOptionSize = 8;

struct NdOption {
  uint8_t type = 0;
  std::span<const uint8_t> bytes;  // all of it, type and length included; a multiple of 8
};

// Yields the options one by one; ends early, `malformed`, at a length of zero or beyond the end.
class NdOptionIterator {
 public:
  explicit NdOptionIterator(std::span<const uint8_t> options) : left_(options) {}

  std::optional<NdOption> Next() {
    if (left_.empty() || malformed_) return {};
    const size_t size = left_.size() < 8 ? 0 : left_[1] * size_t{8};
    if (size == 0 || size > left_.size()) {
      malformed_ = true;
      return {};
    }
    const NdOption option{left_[0], left_.first(size)};
    left_ = left_.subspan(size);
    return option;
  }
  bool malformed() const { return malformed_; }

 private:
  std::span<const uint8_t> left_;
  bool malformed_ = false;
};

// The MAC address in the first option of `type`; empty when there is none of Ethernet's length.
inline std::optional<Mac> FindLinkLayerOption(std::span<const uint8_t> options, uint8_t type) {
  NdOptionIterator it(options);
  while (const auto option = it.Next()) {
    if (option->type != type) continue;
    if (option->bytes.size() != kNdLinkLayerOptionSize) return {};
    return Mac::FromWire(option->bytes.data() + 2);
  }
  return {};
}

// A message of the five kinds. Fields of other kinds are not there: ask by type() first.
class NdView {
 public:
  // The fixed part by type; 0 for other types.
  static constexpr size_t FixedSize(uint8_t type) {
    switch (type) {
      case kIcmpv6RouterSolicitation:
        return 8;
      case kIcmpv6RouterAdvertisement:
        return 16;
      case kIcmpv6NeighborSolicitation:
      case kIcmpv6NeighborAdvertisement:
        return 24;
      case kIcmpv6Redirect:
        return 40;
      default:
        return 0;
    }
  }

  // Empty when it is of another type or its fixed part is cut short.
  static std::optional<NdView> Parse(std::span<const uint8_t> message) {
    if (message.empty()) return {};
    const size_t size = FixedSize(message[0]);
    if (size == 0 || message.size() < size) return {};
    return NdView(message);
  }

  uint8_t type() const { return m_[0]; }
  uint8_t code() const { return m_[1]; }
  std::span<const uint8_t> options() const { return m_.subspan(FixedSize(m_[0])); }

  // NS, NA, redirect.
  Ipv6 target() const { return Ipv6::FromWire(m_.data() + 8); }
  // NA.
  bool from_router() const { return (m_[4] & 0x80) != 0; }
  bool solicited() const { return (m_[4] & 0x40) != 0; }
  bool override_flag() const { return (m_[4] & 0x20) != 0; }
  // RA.
  uint8_t hop_limit() const { return m_[4]; }
  bool managed() const { return (m_[5] & 0x80) != 0; }
  bool other_config() const { return (m_[5] & 0x40) != 0; }
  uint16_t router_lifetime_seconds() const { return LoadBe16(m_.data() + 6); }
  uint32_t reachable_time_ms() const { return LoadBe32(m_.data() + 8); }
  uint32_t retransmit_timer_ms() const { return LoadBe32(m_.data() + 12); }
  // Redirect.
  Ipv6 redirect_destination() const { return Ipv6::FromWire(m_.data() + 24); }

  std::optional<Mac> source_link_layer() const {
    return FindLinkLayerOption(options(), kNdSourceLinkLayer);
  }
  std::optional<Mac> target_link_layer() const {
    return FindLinkLayerOption(options(), kNdTargetLinkLayer);
  }

 private:
  explicit NdView(std::span<const uint8_t> message) : m_(message) {}
  std::span<const uint8_t> m_;
};

enum class NdError : uint8_t {
  kNone,
  kNotNd,                     // another ICMPv6 type
  kHopLimit,                  // not 255: it has passed a router
  kCode,                      // not 0
  kTooShort,                  // within the fixed part
  kChecksum,                  //
  kTarget,                    // a multicast target
  kOptions,                   // a length of zero, beyond the end, or wrong for Ethernet
  kSource,                    // unspecified or not link-local where that is not allowed
  kDestination,               // NS from :: not to a solicited-node address; solicited NA to a group
  kLinkLayerFromUnspecified,  // a source link-layer option in a message from ::
};

// `message` is the whole ICMPv6 message in one piece.
NdError CheckNd(const Ipv6& source, const Ipv6& destination, uint8_t hop_limit,
                std::span<const uint8_t> message);

// The sender's IPv6 addresses decide the checksum, so they come with the message. `link_layer`,
// when there, becomes the source (NS) or target (NA) link-layer address option.
struct NeighborSolicitationFields {
  Ipv6 source;  // :: in duplicate address detection, and then without link_layer
  Ipv6 destination;
  Ipv6 target;
  std::optional<Mac> link_layer;
};
struct NeighborAdvertisementFields {
  Ipv6 source;
  Ipv6 destination;
  Ipv6 target;
  std::optional<Mac> link_layer;
  bool router = false;
  bool solicited = false;
  bool override_flag = false;
};

// Write the ICMPv6 message with its checksum (24 or 32 bytes). Return the bytes written, 0 when
// `out` is too small.
size_t EmitNeighborSolicitation(std::span<uint8_t> out, const NeighborSolicitationFields& f);
size_t EmitNeighborAdvertisement(std::span<uint8_t> out, const NeighborAdvertisementFields& f);

// Write the whole frame: Ethernet, IPv6 with hop limit 255, message (at most kMaxNdFrameSize
// bytes).
inline constexpr size_t kMaxNdFrameSize = 14 + 40 + 32;
size_t EmitNeighborSolicitationFrame(std::span<uint8_t> out, const Mac& destination_mac,
                                     const Mac& source_mac, const NeighborSolicitationFields& f);
size_t EmitNeighborAdvertisementFrame(std::span<uint8_t> out, const Mac& destination_mac,
                                      const Mac& source_mac, const NeighborAdvertisementFields& f);

// The Ethernet group of an IPv6 multicast address (RFC 2464 section 7): 33:33 and its last 4 bytes.
inline Mac MulticastMac(const Ipv6& group) {
  Mac mac{{0x33, 0x33, 0, 0, 0, 0}};
  StoreBe32(mac.bytes.data() + 2, static_cast<uint32_t>(group.lo));
  return mac;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_NDP_H_
