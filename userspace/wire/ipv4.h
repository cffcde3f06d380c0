// The IPv4 header (RFC 791): view, validation as Linux receives it, setters, emitter.
//
// CheckIpv4 is the fixed-cost test of an incoming packet, in the order of Linux' ip_rcv_core: at
// least 20 bytes, version and IHL, the whole header there, its checksum, the frame not shorter than
// the total length, the total length not shorter than the header. After it (or after Parse, which
// leaves out checksum and total length) Ipv4View's accessors cannot fail. A frame longer than its
// total length is fine; the caller trims it, as Linux does.
//
// Refuses: nothing more. Addresses, TTL and options are judged by later stages (see
// ipv4_options.h).
#ifndef SLUICE_WIRE_IPV4_H_
#define SLUICE_WIRE_IPV4_H_

#include <algorithm>
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

inline constexpr uint16_t kIpv4DontFragment = 0x4000;
inline constexpr uint16_t kIpv4MoreFragments = 0x2000;
inline constexpr uint16_t kIpv4OffsetMask = 0x1fff;

// The two low bits of TOS and traffic class (RFC 3168).
inline constexpr uint8_t kEcnMask = 0x03;
inline constexpr uint8_t kEcnCongestionExperienced = 0x03;

class Ipv4View {
 public:
  static constexpr size_t kMinSize = 20;
  static constexpr size_t kMaxSize = 60;

  // Version 4 and the whole header, options included, within `packet`.
  static std::optional<Ipv4View> Parse(std::span<const uint8_t> packet) {
    if (packet.size() < kMinSize) return {};
    const Ipv4View view(packet.data());
    if (view.version() != 4 || view.header_length() < kMinSize) return {};
    if (packet.size() < view.header_length()) return {};
    return view;
  }
  // Trusts that Parse or CheckIpv4 has accepted this header.
  explicit Ipv4View(const uint8_t* p) : p_(p) {}

  uint8_t version() const { return p_[0] >> 4; }
  uint8_t header_length() const { return (p_[0] & 0xf) * 4; }  // bytes, 20 to 60
  bool has_options() const { return p_[0] != 0x45; }
  uint8_t tos() const { return p_[1]; }
  uint8_t dscp() const { return p_[1] >> 2; }
  uint8_t ecn() const { return p_[1] & kEcnMask; }
  uint16_t total_length() const { return LoadBe16(p_ + 2); }
  uint16_t payload_length() const { return total_length() - header_length(); }  // after CheckIpv4
  uint16_t id() const { return LoadBe16(p_ + 4); }
  uint16_t fragment_field() const { return LoadBe16(p_ + 6); }  // flags and offset as they stand
  bool dont_fragment() const { return (fragment_field() & kIpv4DontFragment) != 0; }
  bool more_fragments() const { return (fragment_field() & kIpv4MoreFragments) != 0; }
  uint16_t fragment_offset() const { return (fragment_field() & kIpv4OffsetMask) * 8; }  // bytes
  bool IsFragment() const {
    return (fragment_field() & (kIpv4MoreFragments | kIpv4OffsetMask)) != 0;
  }
  bool IsLaterFragment() const {
    return (fragment_field() & kIpv4OffsetMask) != 0;
  }  // no L4 header
  uint8_t ttl() const { return p_[8]; }
  uint8_t protocol() const { return p_[9]; }
  uint16_t checksum() const { return LoadBe16(p_ + 10); }
  Ipv4 source() const { return Ipv4::FromWire(p_ + 12); }
  Ipv4 destination() const { return Ipv4::FromWire(p_ + 16); }
  std::span<const uint8_t> options() const { return {p_ + kMinSize, header_length() - kMinSize}; }
  bool ChecksumIsRight() const { return Fold(Ipv4HeaderSum(p_, p_[0] & 0xf)) == 0xffff; }
  // For the L4 checksum of a whole (unfragmented) datagram.
  uint32_t PseudoSum() const {
    return PseudoHeaderSum(source(), destination(), protocol(), payload_length());
  }

 private:
  const uint8_t* p_;
};

// Empty when the packet may go on. `first` is the packet's first piece from its IPv4 header on (the
// header must be in it), `length` the bytes in all pieces.
inline std::optional<DropReason> CheckIpv4(std::span<const uint8_t> first, size_t length) {
  if (first.size() < Ipv4View::kMinSize) return DropReason::kIpv4Header;
  const Ipv4View ip(first.data());
  if (ip.version() != 4 || ip.header_length() < Ipv4View::kMinSize) return DropReason::kIpv4Header;
  if (first.size() < ip.header_length()) return DropReason::kIpv4Header;
  if (!ip.ChecksumIsRight()) return DropReason::kIpv4Checksum;
  if (length < ip.total_length()) return DropReason::kIpv4Truncated;
  if (ip.total_length() < ip.header_length()) return DropReason::kIpv4Header;
  return {};
}
inline std::optional<DropReason> CheckIpv4(std::span<const uint8_t> packet) {
  return CheckIpv4(packet, packet.size());
}

// Setters on a header that Ipv4View has accepted. Those named Update keep the checksum right; the
// others leave it to FillIpv4Checksum.
class Ipv4Mutable : public Ipv4View {
 public:
  explicit Ipv4Mutable(uint8_t* p) : Ipv4View(p), p_(p) {}

  void set_tos(uint8_t v) { p_[1] = v; }
  void set_total_length(uint16_t v) { StoreBe16(p_ + 2, v); }
  void set_id(uint16_t v) { StoreBe16(p_ + 4, v); }
  void set_fragment_field(uint16_t v) { StoreBe16(p_ + 6, v); }
  void set_ttl(uint8_t v) { p_[8] = v; }
  void set_protocol(uint8_t v) { p_[9] = v; }
  void set_checksum(uint16_t v) { StoreBe16(p_ + 10, v); }
  void set_source(Ipv4 v) { v.ToWire(p_ + 12); }
  void set_destination(Ipv4 v) { v.ToWire(p_ + 16); }

  void UpdateTos(uint8_t v) {
    const uint16_t before = LoadBe16(p_);
    p_[1] = v;
    set_checksum(UpdateChecksum16(checksum(), before, LoadBe16(p_)));
  }
  void UpdateSource(Ipv4 v) {
    set_checksum(UpdateChecksum(checksum(), source(), v));
    set_source(v);
  }
  void UpdateDestination(Ipv4 v) {
    set_checksum(UpdateChecksum(checksum(), destination(), v));
    set_destination(v);
  }
  void DecrementTtl() { wire::DecrementTtl(p_); }
  void FillChecksum() {
    set_checksum(0);
    set_checksum(Checksum(Ipv4HeaderSum(p_, p_[0] & 0xf)));
  }

 private:
  uint8_t* p_;
};

struct Ipv4Fields {
  uint8_t tos = 0;
  uint16_t payload_length = 0;  // what follows this header
  uint16_t id = 0;
  uint16_t fragment_field = 0;  // kIpv4DontFragment and the like, and the offset in units of 8
  uint8_t ttl = 64;
  uint8_t protocol = 0;
  Ipv4 source;
  Ipv4 destination;
};

// Writes a header, with `options` (at most 40 bytes) padded to a multiple of 4 by End of Options,
// and its checksum. Returns its length, 0 when it does not fit `out` or IPv4.
inline size_t EmitIpv4Header(std::span<uint8_t> out, const Ipv4Fields& f,
                             std::span<const uint8_t> options = {}) {
  if (options.size() > Ipv4View::kMaxSize - Ipv4View::kMinSize) return 0;
  const size_t size = Ipv4View::kMinSize + (options.size() + 3) / 4 * 4;
  if (out.size() < size || size + f.payload_length > 0xffff) return 0;
  uint8_t* p = out.data();
  p[0] = static_cast<uint8_t>(0x40 | size / 4);
  Ipv4Mutable ip(p);
  ip.set_tos(f.tos);
  ip.set_total_length(static_cast<uint16_t>(size + f.payload_length));
  ip.set_id(f.id);
  ip.set_fragment_field(f.fragment_field);
  ip.set_ttl(f.ttl);
  ip.set_protocol(f.protocol);
  ip.set_source(f.source);
  ip.set_destination(f.destination);
  std::fill(p + Ipv4View::kMinSize, p + size, uint8_t{0});
  std::copy(options.begin(), options.end(), p + Ipv4View::kMinSize);
  ip.FillChecksum();
  return size;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_IPV4_H_
