#include <algorithm>
#include <span>

#include "control/packet_text/packet_spec.h"
#include "wire/checksum.h"
#include "wire/crc32c.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::control {
namespace {

using Bytes = std::vector<uint8_t>;

constexpr size_t kSctpHeaderSize = 12;
constexpr size_t kMaxIpLength = 0xffff;

uint16_t Low16(PacketSpec::Number number, uint32_t otherwise = 0) {
  return static_cast<uint16_t>(number.value_or(otherwise));
}
uint8_t Low8(PacketSpec::Number number, uint32_t otherwise = 0) {
  return static_cast<uint8_t>(number.value_or(otherwise));
}

bool IsEcho(const PacketSpec& s) {
  if (!s.type) return true;
  return s.family == Family::kIpv4
             ? *s.type == wire::kIcmpEchoRequest || *s.type == wire::kIcmpEchoReply
             : *s.type == wire::kIcmpv6EchoRequest || *s.type == wire::kIcmpv6EchoReply;
}

Bytes TcpHeader(const PacketSpec& s) {
  Bytes header(wire::TcpView::kMinSize + (s.maxseg ? 4 : 0));
  uint8_t* const p = header.data();
  StoreBe16(p, Low16(s.source_port, kDefaultSourcePort));
  StoreBe16(p + 2, Low16(s.destination_port));
  StoreBe32(p + 4, s.sequence.value_or(1));
  StoreBe32(p + 8, s.acknowledgment.value_or(0));
  p[12] = static_cast<uint8_t>(header.size() / 4 << 4);
  p[13] = Low8(s.flags, wire::kTcpSyn);
  StoreBe16(p + 14, Low16(s.window, 64'240));
  StoreBe16(p + 18, Low16(s.urgent));
  if (s.maxseg) {
    p[20] = wire::kTcpOptionMss;
    p[21] = 4;
    StoreBe16(p + 22, Low16(s.maxseg));
  }
  return header;
}

Bytes UdpHeader(const PacketSpec& s) {
  Bytes header(8);
  StoreBe16(header.data(), Low16(s.source_port, kDefaultSourcePort));
  StoreBe16(header.data() + 2, Low16(s.destination_port));
  return header;
}

Bytes SctpHeader(const PacketSpec& s) {
  Bytes header(kSctpHeaderSize);
  StoreBe16(header.data(), Low16(s.source_port, kDefaultSourcePort));
  StoreBe16(header.data() + 2, Low16(s.destination_port));
  StoreBe32(header.data() + 4, s.tag.value_or(0));
  return header;
}

Bytes IcmpHeader(const PacketSpec& s) {
  Bytes header(wire::IcmpView::kSize);
  const bool v4 = s.family == Family::kIpv4;
  header[0] = Low8(s.type, v4 ? wire::kIcmpEchoRequest : wire::kIcmpv6EchoRequest);
  header[1] = Low8(s.code);
  if (s.mtu) {
    StoreBe32(header.data() + 4, *s.mtu);
  } else {
    StoreBe16(header.data() + 4, Low16(s.icmp_id, IsEcho(s) ? 1 : 0));
    StoreBe16(header.data() + 6, Low16(s.icmp_sequence, IsEcho(s) ? 1 : 0));
  }
  return header;
}

bool IsLaterFragment(const PacketSpec& s) {
  return s.family == Family::kIpv4 && (s.fragment.value_or(0) & wire::kIpv4OffsetMask) != 0;
}

bool HasTransportFields(const PacketSpec& s) {
  for (const PacketSpec::Number& n :
       {s.source_port, s.destination_port, s.flags, s.sequence, s.acknowledgment, s.window,
        s.urgent, s.maxseg, s.udp_checksum, s.tag, s.type, s.code, s.icmp_id, s.icmp_sequence,
        s.mtu}) {
    if (n) return true;
  }
  return false;
}

Bytes TransportHeader(const PacketSpec& s) {
  if (IsLaterFragment(s)) return {};
  switch (*s.protocol) {
    case wire::kProtocolTcp:
      return TcpHeader(s);
    case wire::kProtocolUdp:
      return UdpHeader(s);
    case wire::kProtocolSctp:
      return SctpHeader(s);
    case wire::kProtocolIcmp:
      return s.family == Family::kIpv4 ? IcmpHeader(s) : Bytes();
    case wire::kProtocolIcmpv6:
      return s.family == Family::kIpv6 ? IcmpHeader(s) : Bytes();
    default:
      return {};
  }
}

// `message` is the transport header and what follows it.
void FillChecksum(const PacketSpec& s, std::span<uint8_t> message) {
  if (IsLaterFragment(s)) return;
  const auto protocol = static_cast<uint8_t>(*s.protocol);
  const auto length = static_cast<uint32_t>(message.size());
  const uint64_t pseudo =
      s.family == Family::kIpv4
          ? wire::PseudoHeaderSum(s.source->v4(), s.destination->v4(), protocol, length)
          : wire::PseudoHeaderSum(s.source->v6(), s.destination->v6(), protocol, length);
  switch (protocol) {
    case wire::kProtocolTcp:
      StoreBe16(message.data() + 16, wire::Checksum(pseudo + wire::Sum(message)));
      break;
    case wire::kProtocolUdp:
      StoreBe16(message.data() + 4, static_cast<uint16_t>(length));
      if (s.udp_checksum) break;
      StoreBe16(message.data() + 6, wire::NonZeroChecksum(pseudo + wire::Sum(message)));
      break;
    case wire::kProtocolSctp: {
      wire::Crc32c crc;
      crc.Add(message);
      // The one number that is sent low byte first.
      for (int i = 0; i < 4; ++i) message[8 + i] = static_cast<uint8_t>(crc.value() >> 8 * i);
      break;
    }
    case wire::kProtocolIcmp:
      if (s.family == Family::kIpv4) {
        StoreBe16(message.data() + 2, wire::InternetChecksum(message));
      }
      break;
    case wire::kProtocolIcmpv6:
      if (s.family == Family::kIpv6) {
        wire::FillIcmpv6Checksum(s.source->v6(), s.destination->v6(), message);
      }
      break;
    default:
      break;
  }
}

absl::Status Missing(const PacketSpec& s) {
  if (!s.family) {
    return absl::InvalidArgumentError("the addresses are missing: ip saddr A ip daddr B, or ip6");
  }
  const std::string ip = s.family == Family::kIpv4 ? "ip" : "ip6";
  if (!s.source) return absl::InvalidArgumentError("\"" + ip + " saddr\" is missing");
  if (!s.destination) return absl::InvalidArgumentError("\"" + ip + " daddr\" is missing");
  if (!s.protocol) {
    return absl::InvalidArgumentError(
        "the protocol is missing: tcp, udp, icmp, icmpv6, sctp, or meta l4proto NUMBER");
  }
  if (IsLaterFragment(s)) {
    if (!HasTransportFields(s)) return absl::OkStatus();
    return absl::InvalidArgumentError(
        "a fragment with an offset has no transport header (say meta l4proto, payload size)");
  }
  const bool has_ports = *s.protocol == wire::kProtocolTcp || *s.protocol == wire::kProtocolUdp ||
                         *s.protocol == wire::kProtocolSctp;
  if (has_ports && !s.destination_port) {
    return absl::InvalidArgumentError("the destination port is missing (dport)");
  }
  return absl::OkStatus();
}

// The bytes behind the transport header: as said, or as many as the given length leaves.
absl::StatusOr<size_t> PayloadSize(const PacketSpec& s, size_t ip_header, size_t transport) {
  const bool v4 = s.family == Family::kIpv4;
  const size_t before = transport + (v4 ? ip_header : 0);  // that the length field counts
  if (s.length && (*s.length < before || (s.payload && before + *s.payload != *s.length))) {
    return absl::InvalidArgumentError(
        std::string(v4 ? "\"ip length " : "\"ip6 length ") + std::to_string(*s.length) +
        "\" does not fit: the headers" + (s.payload ? " and the payload" : "") + " have " +
        std::to_string(before + s.payload.value_or(0)) + " bytes");
  }
  const size_t size = s.length ? *s.length - before : s.payload.value_or(0);
  if (before + size > kMaxIpLength) {
    return absl::InvalidArgumentError("the packet is longer than 65535 bytes");
  }
  return size;
}

}  // namespace

absl::StatusOr<Bytes> BuildFrame(const PacketSpec& s) {
  if (absl::Status missing = Missing(s); !missing.ok()) return missing;
  const bool v4 = s.family == Family::kIpv4;
  const Bytes transport = TransportHeader(s);
  const size_t ip_header = v4 ? wire::Ipv4View::kMinSize : wire::Ipv6View::kSize;
  const absl::StatusOr<size_t> payload = PayloadSize(s, ip_header, transport.size());
  if (!payload.ok()) return payload.status();

  Bytes frame(wire::kEthernetHeaderSize + ip_header + transport.size() + *payload);
  const std::span<uint8_t> ip = std::span(frame).subspan(wire::kEthernetHeaderSize);
  const std::span<uint8_t> message = ip.subspan(ip_header);
  wire::WriteEthernet(frame.data(), s.ether_destination.value_or(Mac{}),
                      s.ether_source.value_or(Mac{}),
                      v4 ? wire::kEtherTypeIpv4 : wire::kEtherTypeIpv6);
  const auto tos = static_cast<uint8_t>(s.dscp.value_or(0) << 2 | s.ecn.value_or(0));
  if (v4) {
    wire::EmitIpv4Header(ip, {.tos = tos,
                              .payload_length = static_cast<uint16_t>(message.size()),
                              .id = Low16(s.id),
                              .fragment_field = Low16(s.fragment),
                              .ttl = Low8(s.ttl, 64),
                              .protocol = Low8(s.protocol),
                              .source = s.source->v4(),
                              .destination = s.destination->v4()});
  } else {
    wire::EmitIpv6Header(ip, {.traffic_class = tos,
                              .flow_label = s.flow_label.value_or(0),
                              .payload_length = static_cast<uint16_t>(message.size()),
                              .next_header = Low8(s.protocol),
                              .hop_limit = Low8(s.ttl, 64),
                              .source = s.source->v6(),
                              .destination = s.destination->v6()});
  }
  std::copy(transport.begin(), transport.end(), message.begin());
  FillChecksum(s, message);
  return frame;
}

}  // namespace sluice::control
