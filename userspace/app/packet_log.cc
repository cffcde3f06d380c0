#include "app/packet_log.h"

#include <span>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
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

using Bytes = std::span<const uint8_t>;

void AppendTcpFlags(uint8_t flags, std::string& line) {
  constexpr std::pair<uint8_t, const char*> kNames[] = {
      {wire::kTcpCwr, "CWR "}, {wire::kTcpEce, "ECE "}, {wire::kTcpUrg, "URG "},
      {wire::kTcpAck, "ACK "}, {wire::kTcpPsh, "PSH "}, {wire::kTcpRst, "RST "},
      {wire::kTcpSyn, "SYN "}, {wire::kTcpFin, "FIN "}};
  for (const auto& [bit, name] : kNames) {
    if ((flags & bit) != 0) line += name;
  }
}

void AppendTransport(uint8_t protocol, Bytes l4, std::string& line) {
  switch (protocol) {
    case wire::kProtocolTcp:
      line += "PROTO=TCP ";
      if (l4.size() < wire::TcpView::kMinSize) break;
      absl::StrAppendFormat(&line, "SPT=%d DPT=%d WINDOW=%d RES=0x%02x ", LoadBe16(l4.data()),
                            LoadBe16(l4.data() + 2), LoadBe16(l4.data() + 14), l4[12] & 0xf);
      AppendTcpFlags(l4[13], line);
      absl::StrAppend(&line, "URGP=", LoadBe16(l4.data() + 18), " ");
      return;
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite:
      line += protocol == wire::kProtocolUdp ? "PROTO=UDP " : "PROTO=UDPLITE ";
      if (l4.size() < 8) break;
      absl::StrAppendFormat(&line, "SPT=%d DPT=%d LEN=%d ", LoadBe16(l4.data()),
                            LoadBe16(l4.data() + 2), LoadBe16(l4.data() + 4));
      return;
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      line += protocol == wire::kProtocolIcmp ? "PROTO=ICMP " : "PROTO=ICMPv6 ";
      if (l4.size() < 8) break;
      absl::StrAppendFormat(&line, "TYPE=%d CODE=%d ", l4[0], l4[1]);
      if (protocol == wire::kProtocolIcmp ? l4[0] == 0 || l4[0] == 8 : l4[0] == 128 || l4[0] == 129) {
        absl::StrAppendFormat(&line, "ID=%d SEQ=%d ", LoadBe16(l4.data() + 4),
                              LoadBe16(l4.data() + 6));
      }
      return;
    default:
      absl::StrAppend(&line, "PROTO=", protocol, " ");
      return;
  }
  absl::StrAppend(&line, "INCOMPLETE [", l4.size(), " bytes] ");
}

void AppendIpv4(Bytes l3, std::string& line) {
  const wire::Ipv4View ip(l3.data());
  absl::StrAppendFormat(&line, "SRC=%s DST=%s LEN=%d TOS=0x%02X PREC=0x%02X TTL=%d ID=%d ",
                        ToString(ip.source()), ToString(ip.destination()), ip.total_length(),
                        ip.tos() & 0x1e, ip.tos() & 0xe0, ip.ttl(), LoadBe16(l3.data() + 4));
  const uint16_t fragment = LoadBe16(l3.data() + 6);
  if ((fragment & 0x8000) != 0) line += "CE ";
  if ((fragment & 0x4000) != 0) line += "DF ";
  if ((fragment & 0x2000) != 0) line += "MF ";
  if ((fragment & 0x1fff) != 0) {
    absl::StrAppend(&line, "FRAG:", fragment & 0x1fff, " PROTO=", ip.protocol(), " ");
    return;
  }
  const size_t header = ip.header_length();
  if (header > l3.size()) return;
  AppendTransport(ip.protocol(), l3.subspan(header), line);
}

void AppendIpv6(Bytes l3, std::string& line) {
  const wire::Ipv6View ip(l3.data());
  const uint32_t first = LoadBe32(l3.data());
  absl::StrAppendFormat(&line, "SRC=%s DST=%s LEN=%d TC=%d HOPLIMIT=%d FLOWLBL=%d ",
                        ToString(ip.source()), ToString(ip.destination()), ip.packet_length(),
                        first >> 20 & 0xff, ip.hop_limit(), first & 0xfffff);
  const wire::Ipv6Chain chain = wire::WalkIpv6Chain(l3);
  if (!chain.HasL4() || chain.l4_offset > l3.size()) {
    absl::StrAppend(&line, "PROTO=", chain.protocol, " ");
    return;
  }
  AppendTransport(chain.protocol, l3.subspan(chain.l4_offset), line);
}

}  // namespace

std::string FormatLoggedPacket(const stages::LogRecord& record, std::string_view prefix,
                               std::string_view in, std::string_view out) {
  std::string line = absl::StrFormat("%sIN=%s OUT=%s ", std::string(prefix), std::string(in),
                                     std::string(out));
  const Bytes l3(record.l3.data(), record.captured);
  const uint8_t version = l3.empty() ? 0 : l3[0] >> 4;
  if (version == 4 && l3.size() >= wire::Ipv4View::kMinSize) {
    AppendIpv4(l3, line);
  } else if (version == 6 && l3.size() >= wire::Ipv6View::kSize) {
    AppendIpv6(l3, line);
  } else {
    absl::StrAppend(&line, "LEN=", record.l3_length, " ");
  }
  if (record.mark != 0) absl::StrAppendFormat(&line, "MARK=0x%x ", record.mark);
  line.pop_back();
  return line;
}

}  // namespace sluice::app
