// Ethernet II headers and VLAN tags (IEEE 802.3, 802.1Q, 802.1ad).
//
// EthernetView reads the 14 bytes at the start of a frame. SkipVlanTags finds what is behind up to
// two tags; Linux counts a priority tag (VLAN id 0) as no tag at all, so the caller gets the id.
// Refuses: frames under 14 bytes. An EtherType below 0x0600 is a length (802.3 with LLC), which no
// caller here serves; it simply matches no known type.
#ifndef SLUICE_WIRE_ETHERNET_H_
#define SLUICE_WIRE_ETHERNET_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"

namespace sluice::wire {

inline constexpr uint16_t kEtherTypeIpv4 = 0x0800;
inline constexpr uint16_t kEtherTypeArp = 0x0806;
inline constexpr uint16_t kEtherTypeVlan = 0x8100;
inline constexpr uint16_t kEtherTypeQinQ = 0x88a8;
inline constexpr uint16_t kEtherTypeIpv6 = 0x86dd;

inline constexpr size_t kEthernetHeaderSize = 14;
inline constexpr size_t kVlanTagSize = 4;

class EthernetView {
 public:
  static constexpr size_t kSize = kEthernetHeaderSize;

  static std::optional<EthernetView> Parse(std::span<const uint8_t> frame) {
    if (frame.size() < kSize) return {};
    return EthernetView(frame.data());
  }
  // Trusts that kSize bytes are there.
  explicit EthernetView(const uint8_t* p) : p_(p) {}

  Mac destination() const { return Mac::FromWire(p_); }
  Mac source() const { return Mac::FromWire(p_ + 6); }
  uint16_t ether_type() const { return LoadBe16(p_ + 12); }
  bool IsMulticast() const { return (p_[0] & 1) != 0; }  // to a group or to all
  bool IsBroadcast() const { return LoadBe32(p_) == 0xffff'ffff && LoadBe16(p_ + 4) == 0xffff; }

 private:
  const uint8_t* p_;
};

// What the frame carries behind its tags.
struct L2Payload {
  uint16_t ether_type = 0;
  uint16_t offset = 0;    // of the payload
  uint8_t vlan_tags = 0;  // how many were skipped
  uint16_t vlan_id = 0;   // of the outermost tag
};

// Skips up to two VLAN tags. Empty when the frame ends within the header or a tag. A third tag is
// left as the ether_type.
inline std::optional<L2Payload> SkipVlanTags(std::span<const uint8_t> frame) {
  if (frame.size() < kEthernetHeaderSize) return {};
  L2Payload l2{.ether_type = LoadBe16(frame.data() + 12), .offset = kEthernetHeaderSize};
  while (l2.vlan_tags < 2 && (l2.ether_type == kEtherTypeVlan || l2.ether_type == kEtherTypeQinQ)) {
    if (frame.size() < l2.offset + kVlanTagSize) return {};
    if (l2.vlan_tags == 0) l2.vlan_id = LoadBe16(frame.data() + l2.offset) & 0x0fff;
    l2.ether_type = LoadBe16(frame.data() + l2.offset + 2);
    l2.offset += kVlanTagSize;
    ++l2.vlan_tags;
  }
  return l2;
}

// Trusts that kEthernetHeaderSize bytes are there: the rewrite of a forwarded frame.
inline void WriteEthernet(uint8_t* p, const Mac& destination, const Mac& source,
                          uint16_t ether_type) {
  destination.ToWire(p);
  source.ToWire(p + 6);
  StoreBe16(p + 12, ether_type);
}

// Returns the bytes written, 0 when `out` is too small.
inline size_t EmitEthernet(std::span<uint8_t> out, const Mac& destination, const Mac& source,
                           uint16_t ether_type) {
  if (out.size() < kEthernetHeaderSize) return 0;
  WriteEthernet(out.data(), destination, source, ether_type);
  return kEthernetHeaderSize;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_ETHERNET_H_
