#include "support/packet_builder.h"

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <initializer_list>
#include <utility>

namespace sluice::test {
namespace {

[[noreturn]] void Fail(const char* what, std::string_view detail = {}) {
  std::fprintf(stderr, "PacketBuilder: %s %.*s\n", what, static_cast<int>(detail.size()),
               detail.data());
  std::abort();
}

void Put16(Bytes& out, size_t at, uint16_t v) {
  out.at(at) = static_cast<uint8_t>(v >> 8);
  out.at(at + 1) = static_cast<uint8_t>(v);
}

void Append16(Bytes& out, uint16_t v) {
  out.push_back(static_cast<uint8_t>(v >> 8));
  out.push_back(static_cast<uint8_t>(v));
}

void Append32(Bytes& out, uint32_t v) {
  Append16(out, static_cast<uint16_t>(v >> 16));
  Append16(out, static_cast<uint16_t>(v));
}

void Append64(Bytes& out, uint64_t v) {
  Append32(out, static_cast<uint32_t>(v >> 32));
  Append32(out, static_cast<uint32_t>(v));
}

void AppendAll(Bytes& out, std::span<const uint8_t> bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

void Append(Bytes& out, const Mac& mac) { AppendAll(out, mac.bytes); }
void Append(Bytes& out, Ipv4 a) { Append32(out, a.value); }
void Append(Bytes& out, const Ipv6& a) {
  Append64(out, a.hi);
  Append64(out, a.lo);
}

Bytes Join(std::span<const uint8_t> a, std::span<const uint8_t> b) {
  Bytes all(a.begin(), a.end());
  AppendAll(all, b);
  return all;
}

}  // namespace

MacArg::MacArg(const char* text) {
  const auto mac = ParseMac(text);
  if (!mac) Fail("not a MAC address:", text);
  value = *mac;
}

Ipv4Arg::Ipv4Arg(const char* text) {
  const auto address = ParseIpv4(text);
  if (!address) Fail("not an IPv4 address:", text);
  value = *address;
}

Ipv6Arg::Ipv6Arg(const char* text) {
  const auto address = ParseIpv6(text);
  if (!address) Fail("not an IPv6 address:", text);
  value = *address;
}

uint16_t NaiveSum(std::span<const uint8_t> bytes) {
  uint64_t sum = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    sum += i % 2 == 0 ? uint64_t{bytes[i]} * 256 : uint64_t{bytes[i]};
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return static_cast<uint16_t>(sum);
}

uint16_t NaiveChecksum(std::span<const uint8_t> bytes) {
  return static_cast<uint16_t>(0xffff - NaiveSum(bytes));
}

Bytes PseudoHeader(Ipv4 source, Ipv4 destination, uint8_t protocol, size_t length) {
  Bytes out;
  Append(out, source);
  Append(out, destination);
  Append16(out, protocol);
  Append16(out, static_cast<uint16_t>(length));
  return out;
}

Bytes PseudoHeader(const Ipv6& source, const Ipv6& destination, uint8_t protocol, size_t length) {
  Bytes out;
  Append(out, source);
  Append(out, destination);
  Append32(out, static_cast<uint32_t>(length));
  Append32(out, protocol);
  return out;
}

Bytes FromHex(std::string_view text) {
  Bytes out;
  std::string digits;
  for (const char c : text) {
    if (c == ' ' || c == ':' || c == '\n' || c == '\t') continue;
    if (!std::isxdigit(static_cast<unsigned char>(c))) Fail("not hexadecimal:", text);
    digits.push_back(c);
    if (digits.size() < 2) continue;
    out.push_back(static_cast<uint8_t>(std::stoul(digits, nullptr, 16)));
    digits.clear();
  }
  if (!digits.empty()) Fail("an odd number of hexadecimal digits:", text);
  return out;
}

std::string ToHex(std::span<const uint8_t> bytes) {
  std::string out;
  for (const uint8_t b : bytes) {
    constexpr char kDigits[] = "0123456789abcdef";
    out.push_back(kDigits[b >> 4]);
    out.push_back(kDigits[b & 15]);
  }
  return out;
}

PacketBuilder& PacketBuilder::Add(Kind kind, uint8_t protocol, Bytes bytes, uint16_t ether_type) {
  Layer layer;
  layer.kind = kind;
  layer.protocol = protocol;
  layer.ether_type = ether_type;
  layer.bytes = std::move(bytes);
  layers_.push_back(std::move(layer));
  return *this;
}

PacketBuilder::Layer& PacketBuilder::Last(std::initializer_list<Kind> kinds) {
  for (auto it = layers_.rbegin(); it != layers_.rend(); ++it) {
    if (std::find(kinds.begin(), kinds.end(), it->kind) != kinds.end()) return *it;
  }
  Fail("a setter was called before the layer that it changes");
}

PacketBuilder& PacketBuilder::Ethernet(MacArg source, MacArg destination) {
  Bytes b;
  Append(b, destination.value);
  Append(b, source.value);
  Append16(b, 0);
  return Add(Kind::kEthernet, 0, b);
}

PacketBuilder& PacketBuilder::EtherType(uint16_t type) {
  Last({Kind::kEthernet, Kind::kVlan}).next = type;
  return *this;
}

PacketBuilder& PacketBuilder::Vlan(uint16_t id, uint16_t tag_type, uint8_t priority) {
  Bytes b;
  Append16(b, static_cast<uint16_t>(priority << 13 | (id & 0xfff)));
  Append16(b, 0);
  return Add(Kind::kVlan, 0, b, tag_type);
}

PacketBuilder& PacketBuilder::ArpRequest(MacArg sender_mac, Ipv4Arg sender_ip, Ipv4Arg target_ip) {
  Bytes b = FromHex("0001 0800 06 04 0001");
  Append(b, sender_mac.value);
  Append(b, sender_ip.value);
  Append(b, Mac{});
  Append(b, target_ip.value);
  return Add(Kind::kArp, 0, b, 0x0806);
}

PacketBuilder& PacketBuilder::ArpReply(MacArg sender_mac, Ipv4Arg sender_ip, MacArg target_mac,
                                       Ipv4Arg target_ip) {
  Bytes b = FromHex("0001 0800 06 04 0002");
  Append(b, sender_mac.value);
  Append(b, sender_ip.value);
  Append(b, target_mac.value);
  Append(b, target_ip.value);
  return Add(Kind::kArp, 0, b, 0x0806);
}

PacketBuilder& PacketBuilder::GratuitousArp(MacArg mac, Ipv4Arg ip) {
  return ArpRequest(mac, ip, ip);
}

PacketBuilder& PacketBuilder::Ipv4(Ipv4Arg source, Ipv4Arg destination) {
  Bytes b = FromHex("45 00 0000 0000 0000 40 00 0000");
  Append(b, source.value);
  Append(b, destination.value);
  return Add(Kind::kIpv4, 4, b, 0x0800);
}

PacketBuilder& PacketBuilder::Id(uint16_t id) {
  Put16(Last({Kind::kIpv4}).bytes, 4, id);
  return *this;
}

PacketBuilder& PacketBuilder::DontFragment() {
  Last({Kind::kIpv4}).bytes[6] |= 0x40;
  return *this;
}

PacketBuilder& PacketBuilder::MoreFragments() {
  Last({Kind::kIpv4}).bytes[6] |= 0x20;
  return *this;
}

PacketBuilder& PacketBuilder::FragmentOffset(uint16_t bytes) {
  Bytes& b = Last({Kind::kIpv4}).bytes;
  const uint16_t flags = b[6] & 0xe0;
  Put16(b, 6, static_cast<uint16_t>(flags << 8 | bytes / 8));
  return *this;
}

PacketBuilder& PacketBuilder::Options(Bytes options) {
  Layer& layer = Last({Kind::kIpv4, Kind::kTcp});
  while (options.size() % 4 != 0) options.push_back(0);
  AppendAll(layer.bytes, options);
  return *this;
}

PacketBuilder& PacketBuilder::Ihl(uint8_t words) {
  Layer& layer = Last({Kind::kIpv4});
  layer.bytes[0] = static_cast<uint8_t>((layer.bytes[0] & 0xf0) | words);
  layer.keep_ihl = true;
  return *this;
}

PacketBuilder& PacketBuilder::TotalLength(uint16_t length) {
  Last({Kind::kIpv4}).length = length;
  return *this;
}

PacketBuilder& PacketBuilder::BadIpChecksum() {
  Last({Kind::kIpv4}).checksum = ChecksumMode::kBad;
  return *this;
}

PacketBuilder& PacketBuilder::Ipv6(Ipv6Arg source, Ipv6Arg destination) {
  Bytes b = FromHex("60000000 0000 00 40");
  Append(b, source.value);
  Append(b, destination.value);
  return Add(Kind::kIpv6, 41, b, 0x86dd);
}

PacketBuilder& PacketBuilder::FlowLabel(uint32_t label) {
  Bytes& b = Last({Kind::kIpv6}).bytes;
  b[1] = static_cast<uint8_t>((b[1] & 0xf0) | (label >> 16 & 0x0f));
  Put16(b, 2, static_cast<uint16_t>(label));
  return *this;
}

PacketBuilder& PacketBuilder::PayloadLength(uint16_t length) {
  Last({Kind::kIpv6}).length = length;
  return *this;
}

PacketBuilder& PacketBuilder::AddExtension(uint8_t protocol, Bytes options) {
  Bytes b = {0, 0};
  AppendAll(b, options);
  const size_t pad = (8 - b.size() % 8) % 8;
  if (pad == 1) b.push_back(0);
  if (pad > 1) {
    b.push_back(1);
    b.push_back(static_cast<uint8_t>(pad - 2));
    b.resize(b.size() + pad - 2);
  }
  b[1] = static_cast<uint8_t>(b.size() / 8 - 1);
  return Add(Kind::kExtension, protocol, b);
}

PacketBuilder& PacketBuilder::HopByHop(Bytes options) { return AddExtension(0, options); }

PacketBuilder& PacketBuilder::DestinationOptions(Bytes options) {
  return AddExtension(60, options);
}

PacketBuilder& PacketBuilder::Routing(uint8_t type, uint8_t segments_left, Bytes data) {
  Bytes b = {0, 0, type, segments_left, 0, 0, 0, 0};
  AppendAll(b, data);
  b.resize((b.size() + 7) / 8 * 8);
  b[1] = static_cast<uint8_t>(b.size() / 8 - 1);
  return Add(Kind::kExtension, 43, b);
}

PacketBuilder& PacketBuilder::Fragment(uint16_t offset_bytes, bool more, uint32_t id) {
  Bytes b = {0, 0};
  Append16(b, static_cast<uint16_t>((offset_bytes & 0xfff8) | (more ? 1 : 0)));
  Append32(b, id);
  return Add(Kind::kExtension, 44, b);
}

PacketBuilder& PacketBuilder::Authentication(size_t icv_bytes) {
  Bytes b(12 + icv_bytes);
  b[1] = static_cast<uint8_t>(b.size() / 4 - 2);
  return Add(Kind::kExtension, 51, b);
}

PacketBuilder& PacketBuilder::Ttl(uint8_t ttl) {
  Layer& layer = Last({Kind::kIpv4, Kind::kIpv6});
  layer.bytes[layer.kind == Kind::kIpv4 ? 8 : 7] = ttl;
  return *this;
}

PacketBuilder& PacketBuilder::Tos(uint8_t tos) {
  Layer& layer = Last({Kind::kIpv4, Kind::kIpv6});
  if (layer.kind == Kind::kIpv4) {
    layer.bytes[1] = tos;
  } else {
    layer.bytes[0] = static_cast<uint8_t>((layer.bytes[0] & 0xf0) | tos >> 4);
    layer.bytes[1] = static_cast<uint8_t>((layer.bytes[1] & 0x0f) | tos << 4);
  }
  return *this;
}

PacketBuilder& PacketBuilder::Protocol(uint8_t protocol) {
  Last({Kind::kIpv4, Kind::kIpv6, Kind::kExtension}).next = protocol;
  return *this;
}

PacketBuilder& PacketBuilder::Version(uint8_t version) {
  Bytes& b = IpBytes();
  b[0] = static_cast<uint8_t>(version << 4 | (b[0] & 0x0f));
  return *this;
}

PacketBuilder& PacketBuilder::Udp(uint16_t source_port, uint16_t destination_port) {
  Bytes b;
  Append16(b, source_port);
  Append16(b, destination_port);
  Append32(b, 0);
  return Add(Kind::kUdp, 17, b);
}

PacketBuilder& PacketBuilder::UdpLength(uint16_t length) {
  Last({Kind::kUdp}).length = length;
  return *this;
}

PacketBuilder& PacketBuilder::ZeroUdpChecksum() {
  Last({Kind::kUdp}).checksum = ChecksumMode::kZero;
  return *this;
}

PacketBuilder& PacketBuilder::Tcp(uint16_t source_port, uint16_t destination_port, uint8_t flags) {
  Bytes b;
  Append16(b, source_port);
  Append16(b, destination_port);
  Append64(b, 0);
  Append16(b, static_cast<uint16_t>(0x5000 | flags));
  Append16(b, 0xffff);
  Append32(b, 0);
  return Add(Kind::kTcp, 6, b);
}

PacketBuilder& PacketBuilder::Sequence(uint32_t sequence, uint32_t acknowledgment) {
  Bytes numbers;
  Append32(numbers, sequence);
  Append32(numbers, acknowledgment);
  std::copy(numbers.begin(), numbers.end(), Last({Kind::kTcp}).bytes.begin() + 4);
  return *this;
}

PacketBuilder& PacketBuilder::Window(uint16_t window) {
  StoreBe16(Last({Kind::kTcp}).bytes.data() + 14, window);
  return *this;
}

PacketBuilder& PacketBuilder::Icmp(uint8_t type, uint8_t code, uint32_t rest) {
  Bytes b = {type, code, 0, 0};
  Append32(b, rest);
  return Add(Kind::kIcmp, 1, b);
}

PacketBuilder& PacketBuilder::IcmpEcho(uint16_t id, uint16_t sequence) {
  return Icmp(8, 0, uint32_t{id} << 16 | sequence);
}

PacketBuilder& PacketBuilder::IcmpEchoReply(uint16_t id, uint16_t sequence) {
  return Icmp(0, 0, uint32_t{id} << 16 | sequence);
}

PacketBuilder& PacketBuilder::Icmpv6(uint8_t type, uint8_t code, uint32_t rest) {
  Bytes b = {type, code, 0, 0};
  Append32(b, rest);
  return Add(Kind::kIcmpv6, 58, b);
}

PacketBuilder& PacketBuilder::Icmpv6Echo(uint16_t id, uint16_t sequence) {
  return Icmpv6(128, 0, uint32_t{id} << 16 | sequence);
}

PacketBuilder& PacketBuilder::Icmpv6EchoReply(uint16_t id, uint16_t sequence) {
  return Icmpv6(129, 0, uint32_t{id} << 16 | sequence);
}

PacketBuilder& PacketBuilder::AddNd(Bytes message) {
  Ttl(255);
  return Add(Kind::kIcmpv6, 58, std::move(message));
}

PacketBuilder& PacketBuilder::NeighborSolicitation(Ipv6Arg target) {
  Bytes b = FromHex("87 00 0000 00000000");
  Append(b, target.value);
  return AddNd(b);
}

PacketBuilder& PacketBuilder::NeighborAdvertisement(Ipv6Arg target, bool router, bool solicited,
                                                    bool override_flag) {
  Bytes b = FromHex("88 00 0000 00000000");
  b[4] = static_cast<uint8_t>(router << 7 | solicited << 6 | override_flag << 5);
  Append(b, target.value);
  return AddNd(b);
}

PacketBuilder& PacketBuilder::RouterSolicitation() { return AddNd(FromHex("85 00 0000 00000000")); }

PacketBuilder& PacketBuilder::RouterAdvertisement(uint16_t lifetime_seconds, uint8_t hop_limit) {
  Bytes b = {134, 0, 0, 0, hop_limit, 0};
  Append16(b, lifetime_seconds);
  Append64(b, 0);
  return AddNd(b);
}

PacketBuilder& PacketBuilder::Redirect(Ipv6Arg target, Ipv6Arg destination) {
  Bytes b = FromHex("89 00 0000 00000000");
  Append(b, target.value);
  Append(b, destination.value);
  return AddNd(b);
}

PacketBuilder& PacketBuilder::SourceLinkLayer(MacArg mac) {
  return NdOption(Join(Bytes{1, 1}, mac.value.bytes));
}

PacketBuilder& PacketBuilder::TargetLinkLayer(MacArg mac) {
  return NdOption(Join(Bytes{2, 1}, mac.value.bytes));
}

PacketBuilder& PacketBuilder::NdOption(Bytes option) {
  AppendAll(Last({Kind::kIcmpv6}).bytes, option);
  return *this;
}

PacketBuilder& PacketBuilder::PartialChecksum() {
  Last({Kind::kUdp, Kind::kTcp}).checksum = ChecksumMode::kPartial;
  return *this;
}

PacketBuilder& PacketBuilder::BadChecksum() {
  L4().checksum = ChecksumMode::kBad;
  return *this;
}

PacketBuilder& PacketBuilder::L4Checksum(uint16_t value) {
  L4().checksum = ChecksumMode::kValue;
  L4().checksum_value = value;
  return *this;
}

PacketBuilder& PacketBuilder::Payload(size_t size) {
  Bytes b(size);
  for (size_t i = 0; i < size; ++i) b[i] = static_cast<uint8_t>(i % 251);
  return Payload(b);
}

PacketBuilder& PacketBuilder::Payload(const Bytes& bytes) { return Add(Kind::kPayload, 59, bytes); }

PacketBuilder& PacketBuilder::Payload(std::string_view text) {
  return Payload(Bytes(text.begin(), text.end()));
}

PacketBuilder& PacketBuilder::PadTo(size_t size) {
  pad_to_ = size;
  return *this;
}

PacketBuilder& PacketBuilder::TruncateTo(size_t size) {
  truncate_to_ = size;
  return *this;
}

// The protocol number in the pseudo header: the layer's own, not what a broken header claims.
uint8_t PacketBuilder::FinalProtocol(size_t layer) const { return layers_[layer].protocol; }

void PacketBuilder::FinishIpv4(const Layer& layer, size_t index, Bytes& header, size_t rest) const {
  const uint16_t implied = index + 1 < layers_.size() ? layers_[index + 1].protocol : 59;
  if (!layer.keep_ihl) {
    header[0] = static_cast<uint8_t>((header[0] & 0xf0) | header.size() / 4);
  }
  header[9] = static_cast<uint8_t>(layer.next.value_or(implied));
  Put16(header, 2, layer.length.value_or(static_cast<uint16_t>(header.size() + rest)));
  const uint16_t check = NaiveChecksum(header);
  Put16(header, 10, layer.checksum == ChecksumMode::kBad ? check ^ 0x5555 : check);
}

// `packet` begins at the L4 header; its checksum covers all that follows.
void PacketBuilder::FinishL4(size_t index, Bytes& packet) const {
  const Layer& layer = layers_[index];
  const size_t at = layer.kind == Kind::kUdp ? 6 : layer.kind == Kind::kTcp ? 16 : 2;
  if (layer.kind == Kind::kUdp) {
    Put16(packet, 4, layer.length.value_or(static_cast<uint16_t>(packet.size())));
  }
  if (layer.kind == Kind::kTcp) {
    packet[12] = static_cast<uint8_t>(layer.bytes.size() / 4 << 4);
  }
  Bytes pseudo;
  for (size_t i = index; i-- > 0 && pseudo.empty() && layer.kind != Kind::kIcmp;) {
    const Bytes& b = layers_[i].bytes;
    if (layers_[i].kind == Kind::kIpv4) {
      pseudo = PseudoHeader(sluice::Ipv4::FromWire(&b[12]), sluice::Ipv4::FromWire(&b[16]),
                            FinalProtocol(index), packet.size());
    }
    if (layers_[i].kind == Kind::kIpv6) {
      pseudo = PseudoHeader(sluice::Ipv6::FromWire(&b[8]), sluice::Ipv6::FromWire(&b[24]),
                            FinalProtocol(index), packet.size());
    }
  }
  const uint16_t partial = NaiveSum(pseudo);
  uint16_t check = NaiveChecksum(Join(pseudo, packet));
  if (check == 0 && layer.kind == Kind::kUdp) check = 0xffff;
  switch (layer.checksum) {
    case ChecksumMode::kRight:
      break;
    case ChecksumMode::kPartial:
      check = partial;
      break;
    case ChecksumMode::kBad: {
      // Not right, not what a partial one looks like, and not "absent".
      uint16_t wrong = check ^ 0x5555;
      while (wrong == partial || wrong == 0 || wrong == check) ++wrong;
      check = wrong;
      break;
    }
    case ChecksumMode::kZero:
      check = 0;
      break;
    case ChecksumMode::kValue:
      check = layer.checksum_value;
      break;
  }
  Put16(packet, at, check);
}

Bytes PacketBuilder::Build() const {
  Bytes packet;
  for (size_t i = layers_.size(); i-- > 0;) {
    const Layer& layer = layers_[i];
    const Layer* following = i + 1 < layers_.size() ? &layers_[i + 1] : nullptr;
    Bytes header = layer.bytes;
    switch (layer.kind) {
      case Kind::kEthernet:
      case Kind::kVlan:
        Put16(header, header.size() - 2,
              layer.next.value_or(following ? following->ether_type : uint16_t{0x88b5}));
        break;
      case Kind::kIpv4:
        FinishIpv4(layer, i, header, packet.size());
        break;
      case Kind::kIpv6:
        header[6] = static_cast<uint8_t>(layer.next.value_or(following ? following->protocol : 59));
        Put16(header, 4, layer.length.value_or(static_cast<uint16_t>(packet.size())));
        break;
      case Kind::kExtension:
        header[0] = static_cast<uint8_t>(layer.next.value_or(following ? following->protocol : 59));
        break;
      default:
        break;
    }
    packet = Join(header, packet);
    if (layer.kind == Kind::kUdp || layer.kind == Kind::kTcp || layer.kind == Kind::kIcmp ||
        layer.kind == Kind::kIcmpv6) {
      FinishL4(i, packet);
    }
  }
  if (pad_to_ && packet.size() < *pad_to_) packet.resize(*pad_to_);
  if (truncate_to_ && packet.size() > *truncate_to_) packet.resize(*truncate_to_);
  return packet;
}

}  // namespace sluice::test
