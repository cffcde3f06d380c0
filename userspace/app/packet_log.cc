#include "app/packet_log.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/address.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"
#include "wire/protocol.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::app {
namespace {

constexpr uint8_t kProtocolUdpLite = 136;
constexpr uint16_t kIpv4Reserved = 0x8000;  // CE in the kernel's words
// RFC 791's type of service, and its precedence.
constexpr uint8_t kTosMask = 0x1e;
constexpr uint8_t kPrecedenceMask = 0xe0;

using Bytes = std::span<const uint8_t>;

// `behind` is what the packet has from there on, of which `bytes` may hold less.
void Incomplete(size_t behind, std::string* out) {
  absl::StrAppend(out, "INCOMPLETE [", behind, " bytes] ");
}

void Tcp(Bytes l4, size_t behind, std::string* out) {
  *out += "PROTO=TCP ";
  if (l4.size() < wire::TcpView::kMinSize) return Incomplete(behind, out);
  const wire::TcpView tcp(l4.data());
  absl::StrAppend(out, "SPT=", tcp.source_port(), " DPT=", tcp.destination_port(),
                  " WINDOW=", tcp.window(), " ");
  absl::StrAppendFormat(out, "RES=0x%02x ", (l4[12] & 0x0f) << 2);
  struct Flag {
    uint8_t bit;
    const char* name;
  };
  constexpr Flag kFlags[] = {
      {wire::kTcpCwr, "CWR "}, {wire::kTcpEce, "ECE "}, {wire::kTcpUrg, "URG "},
      {wire::kTcpAck, "ACK "}, {wire::kTcpPsh, "PSH "}, {wire::kTcpRst, "RST "},
      {wire::kTcpSyn, "SYN "}, {wire::kTcpFin, "FIN "}};
  for (const Flag& flag : kFlags) {
    if ((tcp.flags() & flag.bit) != 0) *out += flag.name;
  }
  absl::StrAppend(out, "URGP=", tcp.urgent_pointer(), " ");
}

void Udp(const char* name, Bytes l4, size_t behind, std::string* out) {
  absl::StrAppend(out, "PROTO=", name, " ");
  if (l4.size() < wire::UdpView::kSize) return Incomplete(behind, out);
  const wire::UdpView udp(l4.data());
  absl::StrAppend(out, "SPT=", udp.source_port(), " DPT=", udp.destination_port(),
                  " LEN=", udp.length(), " ");
}

void Ip4(Bytes packet, size_t length, bool quoted, std::string* out);
void Ip6(Bytes packet, size_t length, bool quoted, std::string* out);

void Icmp(Bytes l4, size_t behind, bool quoted, std::string* out) {
  *out += "PROTO=ICMP ";
  if (l4.size() < wire::IcmpView::kSize) return Incomplete(behind, out);
  const wire::IcmpView icmp(l4.data());
  absl::StrAppend(out, "TYPE=", icmp.type(), " CODE=", icmp.code(), " ");
  switch (icmp.type()) {
    case wire::kIcmpEchoReply:
    case wire::kIcmpEchoRequest:
      absl::StrAppend(out, "ID=", icmp.echo_id(), " SEQ=", icmp.echo_sequence(), " ");
      return;
    case wire::kIcmpParameterProblem:
      absl::StrAppend(out, "PARAMETER=", icmp.pointer(), " ");
      return;
    case wire::kIcmpRedirect:
      absl::StrAppend(out, "GATEWAY=", ToString(icmp.gateway()), " ");
      break;
    case wire::kIcmpUnreachable:
    case wire::kIcmpSourceQuench:
    case wire::kIcmpTimeExceeded:
      break;
    default:
      return;
  }
  if (!quoted) {
    *out += "[";
    Ip4(l4.subspan(wire::IcmpView::kSize), behind - wire::IcmpView::kSize, true, out);
    *out += "] ";
  }
  if (icmp.type() == wire::kIcmpUnreachable && icmp.code() == wire::kIcmpFragmentationNeeded) {
    absl::StrAppend(out, "MTU=", icmp.mtu(), " ");
  }
}

void Icmpv6(Bytes l4, size_t behind, bool quoted, std::string* out) {
  *out += "PROTO=ICMPv6 ";
  if (l4.size() < wire::Icmpv6View::kSize) return Incomplete(behind, out);
  const wire::Icmpv6View icmp(l4.data());
  absl::StrAppend(out, "TYPE=", icmp.type(), " CODE=", icmp.code(), " ");
  switch (icmp.type()) {
    case wire::kIcmpv6EchoRequest:
    case wire::kIcmpv6EchoReply:
      absl::StrAppend(out, "ID=", icmp.echo_id(), " SEQ=", icmp.echo_sequence(), " ");
      return;
    case wire::kIcmpv6ParameterProblem:
      absl::StrAppendFormat(out, "POINTER=%08x ", icmp.pointer());
      break;
    case wire::kIcmpv6Unreachable:
    case wire::kIcmpv6PacketTooBig:
    case wire::kIcmpv6TimeExceeded:
      break;
    default:
      return;
  }
  if (!quoted) {
    *out += "[";
    Ip6(l4.subspan(wire::Icmpv6View::kSize), behind - wire::Icmpv6View::kSize, true, out);
    *out += "] ";
  }
  if (icmp.type() == wire::kIcmpv6PacketTooBig) absl::StrAppend(out, "MTU=", icmp.mtu(), " ");
}

void Transport(bool v4, uint8_t protocol, Bytes l4, size_t behind, bool quoted, std::string* out) {
  if (protocol == wire::kProtocolTcp) return Tcp(l4, behind, out);
  if (protocol == wire::kProtocolUdp) return Udp("UDP", l4, behind, out);
  if (protocol == kProtocolUdpLite) return Udp("UDPLITE", l4, behind, out);
  if (v4 && protocol == wire::kProtocolIcmp) return Icmp(l4, behind, quoted, out);
  if (!v4 && protocol == wire::kProtocolIcmpv6) return Icmpv6(l4, behind, quoted, out);
  if (protocol == wire::kProtocolEsp || protocol == wire::kProtocolAuthentication) {
    const bool esp = protocol == wire::kProtocolEsp;
    *out += esp ? "PROTO=ESP " : "PROTO=AH ";
    const size_t spi_at = esp ? 0 : 4;
    if (l4.size() < spi_at + 4) return Incomplete(behind, out);
    absl::StrAppendFormat(out, "SPI=0x%x ", LoadBe32(l4.data() + spi_at));
    return;
  }
  absl::StrAppend(out, "PROTO=", protocol, " ");
}

void Ip4(Bytes packet, size_t length, bool quoted, std::string* out) {
  const auto ip = wire::Ipv4View::Parse(packet);
  if (!ip) {
    *out += "TRUNCATED";
    return;
  }
  absl::StrAppend(out, "SRC=", ToString(ip->source()), " DST=", ToString(ip->destination()),
                  " LEN=", ip->total_length(), " ");
  absl::StrAppendFormat(out, "TOS=0x%02X PREC=0x%02X TTL=%u ID=%u ", ip->tos() & kTosMask,
                        ip->tos() & kPrecedenceMask, ip->ttl(), ip->id());
  if ((ip->fragment_field() & kIpv4Reserved) != 0) *out += "CE ";
  if (ip->dont_fragment()) *out += "DF ";
  if (ip->more_fragments()) *out += "MF ";
  if (ip->IsLaterFragment()) {
    absl::StrAppend(out, "FRAG:", ip->fragment_field() & wire::kIpv4OffsetMask, " ");
    switch (ip->protocol()) {
      case wire::kProtocolTcp:
        *out += "PROTO=TCP ";
        return;
      case wire::kProtocolUdp:
        *out += "PROTO=UDP ";
        return;
      case wire::kProtocolIcmp:
        *out += "PROTO=ICMP ";
        return;
      default:
        absl::StrAppend(out, "PROTO=", ip->protocol(), " ");
        return;
    }
  }
  const size_t header = ip->header_length();
  Transport(true, ip->protocol(), packet.subspan(header), std::max(length, header) - header, quoted,
            out);
}

// All digits, as the kernel prints addresses in its log.
std::string FullAddress(const Ipv6& a) {
  std::string out;
  for (int i = 0; i < 8; ++i) {
    const uint64_t half = i < 4 ? a.hi : a.lo;
    absl::StrAppendFormat(&out, i == 0 ? "%04x" : ":%04x", half >> (48 - 16 * (i % 4)) & 0xffff);
  }
  return out;
}

void Ip6(Bytes packet, size_t length, bool quoted, std::string* out) {
  const auto ip = wire::Ipv6View::Parse(packet);
  if (!ip) {
    *out += "TRUNCATED";
    return;
  }
  absl::StrAppend(out, "SRC=", FullAddress(ip->source()), " DST=", FullAddress(ip->destination()),
                  " LEN=", ip->packet_length(), " TC=", ip->traffic_class(),
                  " HOPLIMIT=", ip->hop_limit(), " FLOWLBL=", ip->flow_label(), " ");
  const wire::Ipv6Chain chain = wire::WalkIpv6Chain(packet);
  if (chain.has_fragment_header) {
    absl::StrAppend(out, "FRAG:", chain.fragment_offset, " ");
    if (chain.more_fragments) *out += "INCOMPLETE ";
    absl::StrAppendFormat(out, "ID:%08x ", chain.fragment_id);
  }
  if (!chain.HasL4()) {
    *out += chain.status == wire::ChainStatus::kFragment
                ? absl::StrCat("PROTO=", chain.protocol, " ")
                : std::string("TRUNCATED ");
    return;
  }
  const size_t at = std::min<size_t>(chain.l4_offset, packet.size());
  Transport(false, chain.protocol, packet.subspan(at), std::max(length, at) - at, quoted, out);
}

}  // namespace

std::string FormatLogLine(const PacketLogEntry& entry) {
  std::string out(entry.prefix);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  absl::StrAppend(&out, "IN=", absl::string_view(entry.in.data(), entry.in.size()),
                  " OUT=", absl::string_view(entry.out.data(), entry.out.size()), " ");
  if (!entry.l3.empty() && entry.l3[0] >> 4 == 6) {
    Ip6(entry.l3, entry.l3_length, false, &out);
  } else {
    Ip4(entry.l3, entry.l3_length, false, &out);
  }
  if (entry.mark != 0) absl::StrAppendFormat(&out, "MARK=0x%x ", entry.mark);
  out.erase(out.find_last_not_of(' ') + 1);
  return out;
}

LogLevel LogLevelOf(uint32_t syslog_level) {
  if (syslog_level <= 3) return LogLevel::kError;
  if (syslog_level == 4) return LogLevel::kWarning;
  return syslog_level <= 6 ? LogLevel::kInfo : LogLevel::kDebug;
}

}  // namespace sluice::app
