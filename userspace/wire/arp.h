// ARP for Ethernet and IPv4 (RFC 826), the one kind that Linux handles on Ethernet.
//
// Parse checks the length and that the fixed fields say Ethernet and IPv4, as Linux' arp_process
// does (an ar_hrd of 6, IEEE 802, passes too). Whether addresses and operation make sense is up to
// the neighbour stage. Emit writes the 28 bytes; EmitArpFrame puts the Ethernet header before them.
#ifndef SLUICE_WIRE_ARP_H_
#define SLUICE_WIRE_ARP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"
#include "wire/ethernet.h"

namespace sluice::wire {

inline constexpr uint16_t kArpRequest = 1;
inline constexpr uint16_t kArpReply = 2;

class ArpView {
 public:
  static constexpr size_t kSize = 28;

  static std::optional<ArpView> Parse(std::span<const uint8_t> bytes) {
    if (bytes.size() < kSize) return {};
    const uint8_t* p = bytes.data();
    const uint16_t hardware = LoadBe16(p);
    if (hardware != 1 && hardware != 6) return {};
    if (LoadBe16(p + 2) != kEtherTypeIpv4 || p[4] != 6 || p[5] != 4) return {};
    return ArpView(p);
  }
  // Trusts that kSize bytes are there and that they are ARP for Ethernet and IPv4.
  explicit ArpView(const uint8_t* p) : p_(p) {}

  uint16_t operation() const { return LoadBe16(p_ + 6); }
  Mac sender_mac() const { return Mac::FromWire(p_ + 8); }
  Ipv4 sender_ip() const { return Ipv4::FromWire(p_ + 14); }
  Mac target_mac() const { return Mac::FromWire(p_ + 18); }
  Ipv4 target_ip() const { return Ipv4::FromWire(p_ + 24); }

 private:
  const uint8_t* p_;
};

struct ArpFields {
  uint16_t operation = kArpRequest;
  Mac sender_mac;
  Ipv4 sender_ip;
  Mac target_mac;  // zero in a request
  Ipv4 target_ip;
};

inline ArpFields ArpRequestFor(Ipv4 target, const Mac& own_mac, Ipv4 own_ip) {
  return {kArpRequest, own_mac, own_ip, Mac{}, target};
}
// The answer to `request` by the owner of its target address.
inline ArpFields ArpReplyTo(const ArpView& request, const Mac& own_mac) {
  return {kArpReply, own_mac, request.target_ip(), request.sender_mac(), request.sender_ip()};
}
// Announces own addresses: a request for oneself, as Linux' arp_notify sends it.
inline ArpFields GratuitousArp(const Mac& own_mac, Ipv4 own_ip) {
  return {kArpRequest, own_mac, own_ip, Mac{}, own_ip};
}

// Returns the bytes written, 0 when `out` is too small.
inline size_t EmitArp(std::span<uint8_t> out, const ArpFields& arp) {
  if (out.size() < ArpView::kSize) return 0;
  uint8_t* p = out.data();
  StoreBe16(p, 1);
  StoreBe16(p + 2, kEtherTypeIpv4);
  p[4] = 6;
  p[5] = 4;
  StoreBe16(p + 6, arp.operation);
  arp.sender_mac.ToWire(p + 8);
  arp.sender_ip.ToWire(p + 14);
  arp.target_mac.ToWire(p + 18);
  arp.target_ip.ToWire(p + 24);
  return ArpView::kSize;
}

// The same behind an Ethernet header from the sender's MAC to `destination`. 42 bytes; the link
// layer pads.
inline size_t EmitArpFrame(std::span<uint8_t> out, const Mac& destination, const ArpFields& arp) {
  if (out.size() < kEthernetHeaderSize + ArpView::kSize) return 0;
  const size_t l2 = EmitEthernet(out, destination, arp.sender_mac, kEtherTypeArp);
  return l2 + EmitArp(out.subspan(l2), arp);
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_ARP_H_
