// The IPv6 header (RFC 8200): view, validation as Linux receives it, setters, emitter.
//
// CheckIpv6 is the fixed-cost test of an incoming packet, with the rules and order of Linux'
// ip6_rcv_core (6.1 to 6.18): 40 bytes, version, no loopback address on a wire, no multicast
// destination of scope 0 or 1 (interface-local), no multicast source, the frame not shorter than
// header and payload. A payload length of 0 before a hop-by-hop header passes here: the Jumbo
// Payload option has the length then (see CheckHopByHop in ipv6_extensions.h). A longer frame is
// fine; the caller trims it.
//
// Not refused, as Linux forwards it: an IPv4-mapped source (only its TCP refuses that since 5.12).
#ifndef SLUICE_WIRE_IPV6_H_
#define SLUICE_WIRE_IPV6_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"
#include "base/reason.h"
#include "wire/checksum.h"
#include "wire/protocol.h"

namespace sluice::wire {

class Ipv6View {
 public:
  static constexpr size_t kSize = 40;

  // Version 6 and 40 bytes within `packet`.
  static std::optional<Ipv6View> Parse(std::span<const uint8_t> packet) {
    if (packet.size() < kSize || packet[0] >> 4 != 6) return {};
    return Ipv6View(packet.data());
  }
  // Trusts that Parse or CheckIpv6 has accepted this header.
  explicit Ipv6View(const uint8_t* p) : p_(p) {}

  uint8_t version() const { return p_[0] >> 4; }
  uint8_t traffic_class() const { return static_cast<uint8_t>(LoadBe16(p_) >> 4); }
  uint8_t ecn() const { return traffic_class() & 0x03; }
  uint32_t flow_label() const { return LoadBe32(p_) & 0x000f'ffff; }
  uint16_t payload_length() const { return LoadBe16(p_ + 4); }
  size_t packet_length() const { return kSize + payload_length(); }  // unless a jumbogram
  uint8_t next_header() const { return p_[6]; }
  uint8_t hop_limit() const { return p_[7]; }
  Ipv6 source() const { return Ipv6::FromWire(p_ + 8); }
  Ipv6 destination() const { return Ipv6::FromWire(p_ + 24); }

  // For the L4 checksum; behind extension headers `length` is shorter than the payload.
  uint32_t PseudoSum(uint8_t protocol, uint32_t length) const {
    return PseudoHeaderSum(source(), destination(), protocol, length);
  }

 private:
  const uint8_t* p_;
};

// Empty when the packet may go on. `first` is the packet's first piece from its IPv6 header on,
// `length` the bytes in all pieces.
inline std::optional<DropReason> CheckIpv6(std::span<const uint8_t> first, size_t length) {
  if (first.size() < Ipv6View::kSize) return DropReason::kIpv6Header;
  const Ipv6View ip(first.data());
  if (ip.version() != 6) return DropReason::kIpv6Header;
  const Ipv6 source = ip.source();
  const Ipv6 destination = ip.destination();
  if (source.IsLoopback()) return DropReason::kMartianSource;
  if (destination.IsLoopback()) return DropReason::kMartianDestination;
  // The scope is the low half of the second byte (RFC 4291 section 2.7).
  if (destination.IsMulticast() && (destination.hi >> 48 & 0xf) <= 1) {
    return DropReason::kMartianDestination;
  }
  if (source.IsMulticast()) return DropReason::kMartianSource;
  const bool may_be_jumbo = ip.payload_length() == 0 && ip.next_header() == kProtocolHopByHop;
  if (!may_be_jumbo && length < ip.packet_length()) return DropReason::kIpv6Truncated;
  return {};
}
inline std::optional<DropReason> CheckIpv6(std::span<const uint8_t> packet) {
  return CheckIpv6(packet, packet.size());
}

// Setters on a header that Ipv6View has accepted. IPv6 has no header checksum; changing addresses
// means updating the L4 one.
class Ipv6Mutable : public Ipv6View {
 public:
  explicit Ipv6Mutable(uint8_t* p) : Ipv6View(p), p_(p) {}

  void set_traffic_class(uint8_t v) {
    StoreBe16(p_, static_cast<uint16_t>((LoadBe16(p_) & 0xf00f) | v << 4));
  }
  void set_flow_label(uint32_t v) {
    StoreBe32(p_, (LoadBe32(p_) & 0xfff0'0000) | (v & 0x000f'ffff));
  }
  void set_payload_length(uint16_t v) { StoreBe16(p_ + 4, v); }
  void set_next_header(uint8_t v) { p_[6] = v; }
  void set_hop_limit(uint8_t v) { p_[7] = v; }
  void set_source(const Ipv6& v) { v.ToWire(p_ + 8); }
  void set_destination(const Ipv6& v) { v.ToWire(p_ + 24); }
  void DecrementHopLimit() { p_[7] = static_cast<uint8_t>(p_[7] - 1); }

 private:
  uint8_t* p_;
};

struct Ipv6Fields {
  uint8_t traffic_class = 0;
  uint32_t flow_label = 0;
  uint16_t payload_length = 0;
  uint8_t next_header = 0;
  uint8_t hop_limit = 64;
  Ipv6 source;
  Ipv6 destination;
};

// Returns the bytes written, 0 when `out` is too small.
inline size_t EmitIpv6Header(std::span<uint8_t> out, const Ipv6Fields& f) {
  if (out.size() < Ipv6View::kSize) return 0;
  uint8_t* p = out.data();
  StoreBe32(p, uint32_t{6} << 28 | uint32_t{f.traffic_class} << 20 | (f.flow_label & 0x000f'ffff));
  Ipv6Mutable ip(p);
  ip.set_payload_length(f.payload_length);
  ip.set_next_header(f.next_header);
  ip.set_hop_limit(f.hop_limit);
  ip.set_source(f.source);
  ip.set_destination(f.destination);
  return Ipv6View::kSize;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_IPV6_H_
