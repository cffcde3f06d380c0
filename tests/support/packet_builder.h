// Builds frames for tests, layer by layer, in the order in which they stand on the wire:
//
//   auto frame = PacketBuilder()
//                    .Ethernet("02:00:00:00:00:01", "02:00:00:00:00:02")  // source, destination
//                    .Ipv4("10.0.0.1", "10.0.1.1").Ttl(64).DontFragment()
//                    .Udp(1000, 2000)
//                    .Payload(100)
//                    .Build();
//
// Lengths, next-header numbers, EtherTypes and checksums are filled in by Build(), unless a setter
// overrides them. A setter changes the layer added last that has such a field. Without Ethernet()
// the packet begins at its IP header. Several IP layers nest (an ICMP error's quotation is easier
// with Payload(bytes)).
//
// It shares no code with userspace/wire, and its checksum is a plain loop: it is the oracle for
// wire. A mistake in a test (an address that does not parse, a setter without its layer) aborts.
#ifndef SLUICE_TESTS_SUPPORT_PACKET_BUILDER_H_
#define SLUICE_TESTS_SUPPORT_PACKET_BUILDER_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/address.h"

namespace sluice::test {

using Bytes = std::vector<uint8_t>;

// Addresses as values or as text.
struct MacArg {
  MacArg(const Mac& m) : value(m) {}                         // NOLINT: a widening
  MacArg(const char* text);                                  // NOLINT: a widening
  MacArg(const std::string& text) : MacArg(text.c_str()) {}  // NOLINT: a widening
  Mac value;
};
struct Ipv4Arg {
  Ipv4Arg(Ipv4 a) : value(a) {}                                // NOLINT: a widening
  Ipv4Arg(const char* text);                                   // NOLINT: a widening
  Ipv4Arg(const std::string& text) : Ipv4Arg(text.c_str()) {}  // NOLINT: a widening
  Ipv4 value;
};
struct Ipv6Arg {
  Ipv6Arg(const Ipv6& a) : value(a) {}                         // NOLINT: a widening
  Ipv6Arg(const char* text);                                   // NOLINT: a widening
  Ipv6Arg(const std::string& text) : Ipv6Arg(text.c_str()) {}  // NOLINT: a widening
  Ipv6 value;
};

// The Internet checksum, the slow and obvious way. NaiveSum is folded and not complemented.
uint16_t NaiveSum(std::span<const uint8_t> bytes);
uint16_t NaiveChecksum(std::span<const uint8_t> bytes);
// The bytes of the pseudo header (RFC 9293 section 3.1, RFC 8200 section 8.1).
Bytes PseudoHeader(Ipv4 source, Ipv4 destination, uint8_t protocol, size_t length);
Bytes PseudoHeader(const Ipv6& source, const Ipv6& destination, uint8_t protocol, size_t length);

// "45 00 0054..." (blanks, colons and line ends are skipped) and back.
Bytes FromHex(std::string_view text);
std::string ToHex(std::span<const uint8_t> bytes);

class PacketBuilder {
 public:
  // --- Link layer ---
  PacketBuilder& Ethernet(MacArg source, MacArg destination);
  PacketBuilder& EtherType(uint16_t type);  // overrides what the next layer implies
  PacketBuilder& Vlan(uint16_t id, uint16_t tag_type = 0x8100, uint8_t priority = 0);

  // --- ARP (target MAC zero in a request) ---
  PacketBuilder& ArpRequest(MacArg sender_mac, Ipv4Arg sender_ip, Ipv4Arg target_ip);
  PacketBuilder& ArpReply(MacArg sender_mac, Ipv4Arg sender_ip, MacArg target_mac,
                          Ipv4Arg target_ip);
  PacketBuilder& GratuitousArp(MacArg mac, Ipv4Arg ip);  // a request for oneself

  // --- IPv4 ---
  PacketBuilder& Ipv4(Ipv4Arg source, Ipv4Arg destination);
  PacketBuilder& Id(uint16_t id);
  PacketBuilder& DontFragment();
  PacketBuilder& MoreFragments();
  PacketBuilder& FragmentOffset(uint16_t bytes);  // a multiple of 8
  PacketBuilder& Options(Bytes options);          // IPv4 (or TCP); padded with zeros to 4 bytes
  PacketBuilder& Ihl(uint8_t words);              // overrides
  PacketBuilder& TotalLength(uint16_t length);    // overrides
  PacketBuilder& BadIpChecksum();

  // --- IPv6 and its extension headers, each padded to 8 bytes (PadN) ---
  PacketBuilder& Ipv6(Ipv6Arg source, Ipv6Arg destination);
  PacketBuilder& FlowLabel(uint32_t label);
  PacketBuilder& PayloadLength(uint16_t length);  // overrides
  PacketBuilder& HopByHop(Bytes options = {});
  PacketBuilder& DestinationOptions(Bytes options = {});
  PacketBuilder& Routing(uint8_t type, uint8_t segments_left, Bytes data = {});
  PacketBuilder& Fragment(uint16_t offset_bytes, bool more, uint32_t id);
  PacketBuilder& Authentication(size_t icv_bytes = 12);

  // --- Both IP versions ---
  PacketBuilder& Ttl(uint8_t ttl);
  PacketBuilder& HopLimit(uint8_t limit) { return Ttl(limit); }
  PacketBuilder& Tos(uint8_t tos);            // or traffic class
  PacketBuilder& Protocol(uint8_t protocol);  // overrides; of the last IP or extension header
  PacketBuilder& Version(uint8_t version);    // overrides

  // --- L4 ---
  PacketBuilder& Udp(uint16_t source_port, uint16_t destination_port);
  PacketBuilder& UdpLength(uint16_t length);  // overrides
  PacketBuilder& ZeroUdpChecksum();
  PacketBuilder& Tcp(uint16_t source_port, uint16_t destination_port, uint8_t flags = 0x10);
  PacketBuilder& Sequence(uint32_t sequence, uint32_t acknowledgment = 0);
  PacketBuilder& Window(uint16_t window);  // 65535 without
  PacketBuilder& Icmp(uint8_t type, uint8_t code, uint32_t rest = 0);
  PacketBuilder& IcmpEcho(uint16_t id, uint16_t sequence);  // request
  PacketBuilder& IcmpEchoReply(uint16_t id, uint16_t sequence);
  PacketBuilder& Icmpv6(uint8_t type, uint8_t code, uint32_t rest = 0);
  PacketBuilder& Icmpv6Echo(uint16_t id, uint16_t sequence);  // request
  PacketBuilder& Icmpv6EchoReply(uint16_t id, uint16_t sequence);

  // --- Neighbour discovery (sets hop limit 255; change it with HopLimit afterwards) ---
  PacketBuilder& NeighborSolicitation(Ipv6Arg target);
  PacketBuilder& NeighborAdvertisement(Ipv6Arg target, bool router, bool solicited,
                                       bool override_flag);
  PacketBuilder& RouterSolicitation();
  PacketBuilder& RouterAdvertisement(uint16_t lifetime_seconds, uint8_t hop_limit = 64);
  PacketBuilder& Redirect(Ipv6Arg target, Ipv6Arg destination);
  PacketBuilder& SourceLinkLayer(MacArg mac);
  PacketBuilder& TargetLinkLayer(MacArg mac);
  PacketBuilder& NdOption(Bytes option);  // all of it, type and length included

  // --- Checksum of the L4 layer ---
  PacketBuilder& PartialChecksum();  // as Linux leaves it over veth: TCP and UDP only
  PacketBuilder& BadChecksum();      // wrong, and not in the partial way
  PacketBuilder& L4Checksum(uint16_t value);

  // --- What follows; later calls append ---
  PacketBuilder& Payload(size_t size);  // 0, 1, 2, ... modulo 251
  PacketBuilder& Payload(const Bytes& bytes);
  PacketBuilder& Payload(std::string_view text);

  // --- The frame as a whole ---
  PacketBuilder& PadTo(size_t size);  // with zeros, as a NIC does up to 60 bytes
  PacketBuilder& TruncateTo(size_t size);

  Bytes Build() const;

 private:
  enum class Kind {
    kEthernet,
    kVlan,
    kArp,
    kIpv4,
    kIpv6,
    kExtension,
    kUdp,
    kTcp,
    kIcmp,
    kIcmpv6,
    kPayload
  };
  enum class ChecksumMode { kRight, kPartial, kBad, kZero, kValue };

  // One header; `bytes` has everything but what Build fills in.
  struct Layer {
    Kind kind;
    uint8_t protocol = 0;  // how the layer before names this one
    uint16_t ether_type = 0;
    Bytes bytes;
    std::optional<uint16_t> next;    // override of what names the following layer
    std::optional<uint16_t> length;  // override
    ChecksumMode checksum = ChecksumMode::kRight;
    uint16_t checksum_value = 0;
    bool keep_ihl = false;
  };

  PacketBuilder& Add(Kind kind, uint8_t protocol, Bytes bytes, uint16_t ether_type = 0);
  PacketBuilder& AddExtension(uint8_t protocol, Bytes options);
  PacketBuilder& AddNd(Bytes message);
  Layer& Last(std::initializer_list<Kind> kinds);
  Bytes& IpBytes() { return Last({Kind::kIpv4, Kind::kIpv6}).bytes; }
  Layer& L4() { return Last({Kind::kUdp, Kind::kTcp, Kind::kIcmp, Kind::kIcmpv6}); }
  uint8_t FinalProtocol(size_t layer) const;
  void FinishIpv4(const Layer& layer, size_t index, Bytes& header, size_t rest) const;
  void FinishL4(size_t index, Bytes& packet) const;

  std::vector<Layer> layers_;
  std::optional<size_t> pad_to_;
  std::optional<size_t> truncate_to_;
};

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_PACKET_BUILDER_H_
