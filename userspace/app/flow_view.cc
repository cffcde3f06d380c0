#include "app/flow_view.h"

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "control/packet_text/names.h"
#include "wire/protocol.h"

namespace sluice::app {
namespace {

using tables::Flow;
using tables::FlowCount;
using tables::FlowDirection;
using tables::FlowTuple;

constexpr uint8_t kProtocolGre = 47;
constexpr uint8_t kProtocolDccp = 33;
constexpr uint8_t kProtocolUdpLite = 136;

// By TCP_CONNTRACK_* of linux/netfilter/nf_conntrack_tcp.h.
constexpr std::string_view kTcpStates[] = {"NONE",       "SYN_SENT",  "SYN_RECV", "ESTABLISHED",
                                           "FIN_WAIT",   "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT",
                                           "CLOSE",      "SYN_SENT2"};
// By SCTP_CONNTRACK_* of linux/netfilter/nf_conntrack_sctp.h.
constexpr std::string_view kSctpStates[] = {
    "NONE",          "CLOSED",        "COOKIE_WAIT",       "COOKIE_ECHOED", "ESTABLISHED",
    "SHUTDOWN_SENT", "SHUTDOWN_RECD", "SHUTDOWN_ACK_SENT", "HEARTBEAT_SENT"};

std::string_view StateName(const Flow& flow) {
  switch (flow.tuple(FlowDirection::kOriginal).protocol) {
    case wire::kProtocolTcp:
      return TcpStateName(flow.tcp.state);
    case wire::kProtocolSctp:
      return flow.sctp.state < std::size(kSctpStates) ? kSctpStates[flow.sctp.state] : "NONE";
    default:
      return {};
  }
}

std::string AddressText(Family family, const Ipv6& bits) {
  return family == Family::kIpv4 ? ToString(Ipv4(static_cast<uint32_t>(bits.lo))) : ToString(bits);
}

bool IsIcmp(const FlowTuple& t) {
  return t.protocol == wire::kProtocolIcmp || t.protocol == wire::kProtocolIcmpv6;
}

bool HasPorts(const FlowTuple& t) {
  return t.protocol == wire::kProtocolTcp || t.protocol == wire::kProtocolUdp ||
         t.protocol == wire::kProtocolSctp || t.protocol == kProtocolDccp ||
         t.protocol == kProtocolUdpLite;
}

uint64_t SecondsLeft(const Flow& flow, Nanos now) {
  return flow.expires > now ? static_cast<uint64_t>((flow.expires - now) / Seconds(1)) : 0;
}

// conntrack knows the protocols that the kernel tracks by name.
std::string ConntrackName(const FlowTuple& t) {
  return HasPorts(t) || IsIcmp(t) || t.protocol == kProtocolGre
             ? control::NameOf(control::ProtocolNames(), t.protocol)
             : "unknown";
}

std::string ConntrackTuple(const FlowTuple& t, const FlowCount& count) {
  std::string out = absl::StrCat("src=", AddressText(t.family, t.source),
                                 " dst=", AddressText(t.family, t.destination), " ");
  if (IsIcmp(t)) {
    absl::StrAppend(&out, "type=", t.destination_port >> 8, " code=", t.destination_port & 0xff,
                    " id=", t.source_port, " ");
  } else if (t.protocol == kProtocolGre) {
    absl::StrAppendFormat(&out, "srckey=0x%x dstkey=0x%x ", t.source_port, t.destination_port);
  } else if (HasPorts(t)) {
    absl::StrAppend(&out, "sport=", t.source_port, " dport=", t.destination_port, " ");
  }
  absl::StrAppend(&out, "packets=", count.packets, " bytes=", count.bytes, " ");
  return out;
}

telemetry::TupleView TupleViewOf(const FlowTuple& t, const FlowCount& count) {
  telemetry::TupleView view;
  view.source = AddressText(t.family, t.source);
  view.destination = AddressText(t.family, t.destination);
  if (IsIcmp(t)) {
    view.icmp_type = t.destination_port >> 8;
    view.icmp_code = t.destination_port & 0xff;
    view.icmp_id = t.source_port;
  } else if (HasPorts(t)) {
    view.source_port = t.source_port;
    view.destination_port = t.destination_port;
  }
  view.packets = count.packets;
  view.bytes = count.bytes;
  return view;
}

std::string NatText(const Flow& flow) {
  const bool source = flow.Has(tables::kFlowSourceNat);
  const bool destination = flow.Has(tables::kFlowDestinationNat);
  const std::string snat = flow.Has(tables::kFlowMasquerade) ? "masquerade" : "snat";
  if (source && destination) return snat + "+dnat";
  return source ? snat : destination ? "dnat" : "";
}

std::string EndpointText(const FlowTuple& t, const Ipv6& address, uint16_t port) {
  const std::string text = AddressText(t.family, address);
  if (!HasPorts(t)) return text;
  return t.family == Family::kIpv4 ? absl::StrCat(text, ":", port)
                                   : absl::StrCat("[", text, "]:", port);
}

}  // namespace

std::string_view TcpStateName(uint8_t state) {
  return state < std::size(kTcpStates) ? kTcpStates[state] : "NONE";
}

std::optional<uint8_t> TcpStateOf(std::string_view name) {
  const auto* const found = std::find(std::begin(kTcpStates), std::end(kTcpStates), name);
  if (found == std::end(kTcpStates)) return {};
  return static_cast<uint8_t>(found - std::begin(kTcpStates));
}

std::string ConntrackLine(const Flow& flow, Nanos now) {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  std::string out = absl::StrFormat("%-8s %u %u ", ConntrackName(original), original.protocol,
                                    SecondsLeft(flow, now));
  if (const std::string_view state = StateName(flow); !state.empty()) {
    absl::StrAppend(&out, absl::string_view(state.data(), state.size()), " ");
  }
  out += ConntrackTuple(original, flow.count(FlowDirection::kOriginal));
  if (!flow.Has(tables::kFlowSeenReply)) out += "[UNREPLIED] ";
  out += ConntrackTuple(flow.tuple(FlowDirection::kReply), flow.count(FlowDirection::kReply));
  // As conntrack does: one or the other.
  if (flow.Has(tables::kFlowOffload)) {
    out += "[OFFLOAD] ";
  } else if (flow.Has(tables::kFlowAssured)) {
    out += "[ASSURED] ";
  }
  absl::StrAppend(&out, "mark=", flow.mark, " use=1");
  return out;
}

telemetry::FlowView ViewOf(const Flow& flow, WorkerId worker, Nanos now) {
  const FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  telemetry::FlowView view;
  view.family = original.family == Family::kIpv4 ? "ipv4" : "ipv6";
  view.protocol = control::NameOf(control::ProtocolNames(), original.protocol);
  view.protocol_number = original.protocol;
  view.state = std::string(StateName(flow));
  view.timeout_seconds = std::max(0.0, (flow.expires - now).seconds());
  view.original = TupleViewOf(original, flow.count(FlowDirection::kOriginal));
  view.reply = TupleViewOf(flow.tuple(FlowDirection::kReply), flow.count(FlowDirection::kReply));
  view.nat = NatText(flow);
  if (!flow.Has(tables::kFlowSeenReply)) view.status.push_back("UNREPLIED");
  if (flow.Has(tables::kFlowAssured)) view.status.push_back("ASSURED");
  if (flow.Has(tables::kFlowOffload)) view.status.push_back("OFFLOAD");
  if (flow.Has(tables::kFlowExpected)) view.status.push_back("EXPECTED");
  if (flow.Has(tables::kFlowDying)) view.status.push_back("DYING");
  if (flow.Has(tables::kFlowKernel)) view.status.push_back("KERNEL");
  if (flow.Has(tables::kFlowImported)) view.status.push_back("IMPORTED");
  view.mark = flow.mark;
  view.worker = worker.value;
  view.conntrack = ConntrackLine(flow, now);
  return view;
}

telemetry::NatFlowView NatViewOf(const Flow& flow, Nanos now) {
  const FlowTuple& before = flow.tuple(FlowDirection::kOriginal);
  const FlowTuple& reply = flow.tuple(FlowDirection::kReply);  // the translated packet, turned round
  telemetry::NatFlowView view;
  view.protocol = control::NameOf(control::ProtocolNames(), before.protocol);
  view.from = EndpointText(before, before.source, before.source_port) + " > " +
              EndpointText(before, before.destination, before.destination_port);
  view.to = EndpointText(reply, reply.destination, reply.destination_port) + " > " +
            EndpointText(reply, reply.source, reply.source_port);
  if (IsIcmp(before)) {
    absl::StrAppend(&view.from, " id ", before.source_port);
    absl::StrAppend(&view.to, " id ", reply.source_port);
  }
  view.nat = NatText(flow);
  view.timeout_seconds = std::max(0.0, (flow.expires - now).seconds());
  return view;
}

}  // namespace sluice::app
