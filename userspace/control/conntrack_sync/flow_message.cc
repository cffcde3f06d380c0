#include "control/conntrack_sync/flow_message.h"

#include <arpa/inet.h>
#include <linux/netfilter/nf_conntrack_tcp.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/netfilter/nfnetlink_conntrack.h>
#include <sys/socket.h>

#include <algorithm>
#include <cstring>

#include "base/byte_order.h"
#include "control/netlink/attributes.h"
#include "control/netlink/nfnetlink_message.h"
#include "tables/flow_owner.h"
#include "wire/protocol.h"

namespace sluice::control {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;

namespace {

constexpr uint32_t kToldStatus = (1u << 11) - 1;
constexpr uint32_t kWrittenStatus =
    tables::kFlowSeenReply | tables::kFlowAssured | tables::kFlowConfirmed;
// What of a TCP peer's flags means something without sequence numbers.
constexpr uint8_t kToldTcpFlags =
    tables::kTcpWindowScale | tables::kTcpSackPermitted | tables::kTcpCloseInit;

// --- Reading ---

// The value of an attribute, 0 when there is none.
template <class T>
T ValueOf(const nlattr* a) {
  T value{};
  if (a != nullptr && LengthOf(a) >= sizeof value) std::memcpy(&value, DataOf(a), sizeof value);
  return value;
}
uint32_t Big32(const nlattr* a) { return ntohl(ValueOf<uint32_t>(a)); }
uint16_t Big16(const nlattr* a) { return ntohs(ValueOf<uint16_t>(a)); }
uint8_t Byte(const nlattr* a) { return ValueOf<uint8_t>(a); }

bool ParseTuple(const nlattr* nested, Family family, FlowTuple& tuple) {
  const Attributes<CTA_TUPLE_MAX> parts(nested);
  const Attributes<CTA_IP_MAX> ip(parts[CTA_TUPLE_IP]);
  const Attributes<CTA_PROTO_MAX> proto(parts[CTA_TUPLE_PROTO]);
  const bool v4 = family == Family::kIpv4;
  const auto source = ip.Address(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC);
  const auto destination = ip.Address(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST);
  if (!source || !destination || source->family != family || destination->family != family ||
      !proto.has(CTA_PROTO_NUM) || Big16(parts[CTA_TUPLE_ZONE]) != 0) {
    return false;
  }
  tuple.family = family;
  tuple.source = source->bits;
  tuple.destination = destination->bits;
  tuple.protocol = Byte(proto[CTA_PROTO_NUM]);
  if (tables::IsIcmp(tuple.protocol)) {
    const bool icmp4 = tuple.protocol == wire::kProtocolIcmp;
    tuple.source_port = Big16(proto[icmp4 ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID]);
    tuple.destination_port = static_cast<uint16_t>(
        Byte(proto[icmp4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE]) << 8 |
        Byte(proto[icmp4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE]));
  } else {
    tuple.source_port = Big16(proto[CTA_PROTO_SRC_PORT]);
    tuple.destination_port = Big16(proto[CTA_PROTO_DST_PORT]);
  }
  return true;
}

tables::FlowCount ParseCounters(const nlattr* nested) {
  const Attributes<CTA_COUNTERS_MAX> counters(nested);
  tables::FlowCount count;
  if (const nlattr* a = counters[CTA_COUNTERS_PACKETS]; a != nullptr && LengthOf(a) >= 8) {
    count.packets = LoadBe64(DataOf(a));
  }
  if (const nlattr* a = counters[CTA_COUNTERS_BYTES]; a != nullptr && LengthOf(a) >= 8) {
    count.bytes = LoadBe64(DataOf(a));
  }
  return count;
}

void ParseProtocolInfo(const nlattr* nested, Flow& flow) {
  const Attributes<CTA_PROTOINFO_MAX> info(nested);
  switch (flow.tuples[0].protocol) {
    case wire::kProtocolTcp: {
      const Attributes<CTA_PROTOINFO_TCP_MAX> tcp(info[CTA_PROTOINFO_TCP]);
      flow.tcp.state = Byte(tcp[CTA_PROTOINFO_TCP_STATE]);
      // Window scales above 14 are none (RFC 7323 section 2.3).
      flow.tcp.scales = {std::min<uint8_t>(Byte(tcp[CTA_PROTOINFO_TCP_WSCALE_ORIGINAL]), 14),
                         std::min<uint8_t>(Byte(tcp[CTA_PROTOINFO_TCP_WSCALE_REPLY]), 14)};
      // The first byte of nf_ct_tcp_flags.
      flow.tcp.flags = {Byte(tcp[CTA_PROTOINFO_TCP_FLAGS_ORIGINAL]),
                        Byte(tcp[CTA_PROTOINFO_TCP_FLAGS_REPLY])};
      for (uint8_t& flags : flow.tcp.flags) {
        flags = static_cast<uint8_t>((flags & kToldTcpFlags) | tables::kTcpBeLiberal);
      }
      break;
    }
    case wire::kProtocolSctp: {
      const Attributes<CTA_PROTOINFO_SCTP_MAX> sctp(info[CTA_PROTOINFO_SCTP]);
      flow.sctp = tables::SctpTracking{};
      flow.sctp.state = Byte(sctp[CTA_PROTOINFO_SCTP_STATE]);
      flow.sctp.tags = {Big32(sctp[CTA_PROTOINFO_SCTP_VTAG_ORIGINAL]),
                        Big32(sctp[CTA_PROTOINFO_SCTP_VTAG_REPLY])};
      break;
    }
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite:
      flow.stream_from = Nanos();  // old enough
      break;
    default:
      break;
  }
}

// --- Writing ---

class Message : public NfnetlinkMessage {
 public:
  Message(std::vector<uint8_t>& out, uint8_t type, uint16_t flags, uint32_t sequence, Family family)
      : NfnetlinkMessage(out, static_cast<uint16_t>(NFNL_SUBSYS_CTNETLINK << 8 | type), flags, sequence,
                         family == Family::kIpv4 ? AF_INET : AF_INET6) {}

  void PutAddress(uint16_t type, Family family, const Ipv6& bits) {
    uint8_t bytes[16];
    if (family == Family::kIpv4) {
      StoreBe32(bytes, static_cast<uint32_t>(bits.lo));
      Put(type, bytes, 4);
    } else {
      bits.ToWire(bytes);
      Put(type, bytes, 16);
    }
  }
};

void PutTuple(Message& m, uint16_t type, const FlowTuple& t) {
  const bool v4 = t.family == Family::kIpv4;
  m.Nest(type, [&] {
    m.Nest(CTA_TUPLE_IP, [&] {
      m.PutAddress(v4 ? CTA_IP_V4_SRC : CTA_IP_V6_SRC, t.family, t.source);
      m.PutAddress(v4 ? CTA_IP_V4_DST : CTA_IP_V6_DST, t.family, t.destination);
    });
    m.Nest(CTA_TUPLE_PROTO, [&] {
      m.Put8(CTA_PROTO_NUM, t.protocol);
      if (tables::IsIcmp(t.protocol)) {
        const bool icmp4 = t.protocol == wire::kProtocolIcmp;
        m.Put16(icmp4 ? CTA_PROTO_ICMP_ID : CTA_PROTO_ICMPV6_ID, t.source_port);
        m.Put8(icmp4 ? CTA_PROTO_ICMP_TYPE : CTA_PROTO_ICMPV6_TYPE,
               static_cast<uint8_t>(t.destination_port >> 8));
        m.Put8(icmp4 ? CTA_PROTO_ICMP_CODE : CTA_PROTO_ICMPV6_CODE,
               static_cast<uint8_t>(t.destination_port));
      } else if (tables::HasPorts(t.protocol) || t.protocol == wire::kProtocolGre) {
        m.Put16(CTA_PROTO_SRC_PORT, t.source_port);
        m.Put16(CTA_PROTO_DST_PORT, t.destination_port);
      }
    });
  });
}

// The reply tuple that the flow would have without translation.
FlowTuple UntranslatedReply(const Flow& flow) {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  FlowTuple reply = flow.tuple(FlowDirection::kReply);  // for the ICMP type of answers
  reply.source = original.destination;
  reply.destination = original.source;
  if (tables::HasPorts(original.protocol)) {
    reply.source_port = original.destination_port;
    reply.destination_port = original.source_port;
  } else if (tables::IsIcmp(original.protocol)) {
    reply.source_port = original.source_port;
  }
  return reply;
}

void PutNat(Message& m, uint16_t type, Family family, const Ipv6& address,
            std::optional<uint16_t> number) {
  const bool v4 = family == Family::kIpv4;
  m.Nest(type, [&] {
    m.PutAddress(v4 ? CTA_NAT_V4_MINIP : CTA_NAT_V6_MINIP, family, address);
    m.PutAddress(v4 ? CTA_NAT_V4_MAXIP : CTA_NAT_V6_MAXIP, family, address);
    if (!number) return;
    m.Nest(CTA_NAT_PROTO, [&] {
      m.Put16(CTA_PROTONAT_PORT_MIN, *number);
      m.Put16(CTA_PROTONAT_PORT_MAX, *number);
    });
  });
}

void PutNats(Message& m, const Flow& flow) {
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  const bool ports = tables::HasPorts(reply.protocol);
  const bool icmp = tables::IsIcmp(reply.protocol);
  if (flow.Has(tables::kFlowSourceNat)) {
    std::optional<uint16_t> number;
    if (ports) number = reply.destination_port;
    if (icmp) number = reply.source_port;
    PutNat(m, CTA_NAT_SRC, reply.family, reply.destination, number);
  }
  if (flow.Has(tables::kFlowDestinationNat)) {
    std::optional<uint16_t> number;
    // The kernel does destinations first; an ICMP identifier is the source's if that changes too.
    if (ports || (icmp && !flow.Has(tables::kFlowSourceNat))) number = reply.source_port;
    PutNat(m, CTA_NAT_DST, reply.family, reply.source, number);
  }
}

void PutProtocolInfo(Message& m, const Flow& flow) {
  const uint8_t protocol = flow.tuples[0].protocol;
  if (protocol == wire::kProtocolTcp) {
    m.Nest(CTA_PROTOINFO, [&] {
      m.Nest(CTA_PROTOINFO_TCP, [&] {
        m.Put8(CTA_PROTOINFO_TCP_STATE, flow.tcp.state);
        m.Put8(CTA_PROTOINFO_TCP_WSCALE_ORIGINAL, flow.tcp.scales[0]);
        m.Put8(CTA_PROTOINFO_TCP_WSCALE_REPLY, flow.tcp.scales[1]);
        for (const size_t d : {0, 1}) {
          const nf_ct_tcp_flags flags{
              static_cast<uint8_t>((flow.tcp.flags[d] & kToldTcpFlags) | tables::kTcpBeLiberal),
              static_cast<uint8_t>(kToldTcpFlags | tables::kTcpBeLiberal)};
          m.Put(d == 0 ? CTA_PROTOINFO_TCP_FLAGS_ORIGINAL : CTA_PROTOINFO_TCP_FLAGS_REPLY, &flags,
                sizeof flags);
        }
      });
    });
  } else if (protocol == wire::kProtocolSctp) {
    m.Nest(CTA_PROTOINFO, [&] {
      m.Nest(CTA_PROTOINFO_SCTP, [&] {
        m.Put8(CTA_PROTOINFO_SCTP_STATE, flow.sctp.state);
        m.Put32(CTA_PROTOINFO_SCTP_VTAG_ORIGINAL, flow.sctp.tags[0]);
        m.Put32(CTA_PROTOINFO_SCTP_VTAG_REPLY, flow.sctp.tags[1]);
      });
    });
  }
}

}  // namespace

bool IsFlowMessage(const nlmsghdr& message) {
  return message.nlmsg_type == (NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW);
}

std::optional<Flow> ParseFlowMessage(const nlmsghdr& message, Nanos now) {
  const auto* body = BodyOf<nfgenmsg>(message);
  if (body == nullptr || (body->nfgen_family != AF_INET && body->nfgen_family != AF_INET6)) {
    return std::nullopt;
  }
  const Family family = body->nfgen_family == AF_INET ? Family::kIpv4 : Family::kIpv6;
  const Attributes<CTA_MAX> a(message, sizeof(nfgenmsg));
  Flow flow{};
  if (!ParseTuple(a[CTA_TUPLE_ORIG], family, flow.tuples[0]) ||
      !ParseTuple(a[CTA_TUPLE_REPLY], family, flow.tuples[1]) ||
      flow.tuples[0].protocol != flow.tuples[1].protocol || Big16(a[CTA_ZONE]) != 0) {
    return std::nullopt;
  }
  const uint32_t status = Big32(a[CTA_STATUS]);
  if ((status & tables::kFlowConfirmed) == 0 || (status & tables::kFlowDying) != 0) {
    return std::nullopt;
  }
  flow.status = (status & kToldStatus) | tables::kFlowImported;
  if (a.has(CTA_HELP) || (status & tables::kFlowSequenceAdjust) != 0) {
    flow.status |= tables::kFlowKernel;
  }
  flow.mark = Big32(a[CTA_MARK]);
  flow.counts = {ParseCounters(a[CTA_COUNTERS_ORIG]), ParseCounters(a[CTA_COUNTERS_REPLY])};
  flow.expires = now + (a.has(CTA_TIMEOUT) ? Seconds(Big32(a[CTA_TIMEOUT])) : kUntoldTimeout);
  ParseProtocolInfo(a[CTA_PROTOINFO], flow);
  return flow;
}

void AppendCreate(std::vector<uint8_t>& out, uint32_t sequence, const Flow& flow, Nanos now) {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  Message m(out, IPCTNL_MSG_CT_NEW, NLM_F_CREATE | NLM_F_EXCL, sequence, original.family);
  PutTuple(m, CTA_TUPLE_ORIG, original);
  PutTuple(m, CTA_TUPLE_REPLY, UntranslatedReply(flow));
  m.Put32(CTA_STATUS, (flow.status & kWrittenStatus) | tables::kFlowConfirmed);
  const int64_t left = (flow.expires - now + Seconds(1) - Nanos(1)) / Seconds(1);
  m.Put32(CTA_TIMEOUT, static_cast<uint32_t>(std::clamp<int64_t>(left, 1, 0x7fff'ffff / 1000)));
  if (flow.mark != 0) m.Put32(CTA_MARK, flow.mark);
  PutProtocolInfo(m, flow);
  PutNats(m, flow);
}

void AppendDelete(std::vector<uint8_t>& out, uint32_t sequence, const FlowTuple& tuple) {
  Message m(out, IPCTNL_MSG_CT_DELETE, 0, sequence, tuple.family);
  PutTuple(m, CTA_TUPLE_ORIG, tuple);
}

void AppendGet(std::vector<uint8_t>& out, uint32_t sequence, const FlowTuple& tuple) {
  Message m(out, IPCTNL_MSG_CT_GET, 0, sequence, tuple.family);
  PutTuple(m, CTA_TUPLE_ORIG, tuple);
}

void AppendDump(std::vector<uint8_t>& out, uint32_t sequence) {
  const size_t at = out.size();
  { Message m(out, IPCTNL_MSG_CT_GET, NLM_F_DUMP, sequence, Family::kIpv4); }
  out[at + NLMSG_HDRLEN] = AF_UNSPEC;
}

void AskForAck(std::vector<uint8_t>& out, size_t at) {
  nlmsghdr header;
  std::memcpy(&header, out.data() + at, sizeof header);
  header.nlmsg_flags |= NLM_F_ACK;
  std::memcpy(out.data() + at, &header, sizeof header);
}

}  // namespace sluice::control
