#include "stages/filter/flow_path.h"

#include <algorithm>

#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::stages {

namespace {

struct VarianceInfo {
  std::string_view label;
  std::string_view text;
};
constexpr std::array<VarianceInfo, kVarianceCount> kVariances = {{
    {"none", ""},
    {"form", "XDP does not carry out packets of this form"},
    {"header_field", "a header field that differs from packet to packet decides"},
    {"packet_length", "the packet's length decides"},
    {"tcp_flags", "the TCP flag PSH decides"},
    {"tcp_options", "TCP options decide"},
    {"payload", "the packet's content decides"},
    {"time", "the time decides"},
    {"random", "a number that differs from packet to packet decides"},
    {"connection_state", "the connection's state may still change"},
    {"connection_counts", "what the connection has carried, or its age, decides"},
    {"connection_mark", "the packet changes the connection's mark"},
    {"limit", "a rate limit decides"},
    {"quota", "a quota decides"},
    {"connection_limit", "the number of connections decides"},
    {"last", "a rule notes when it was last met"},
    {"dynamic_set", "a set that packets change decides, or is changed"},
    {"timed_element", "an element that ends decides"},
    {"log", "the packet is logged"},
    {"reject", "the packet is answered by a reject"},
    {"write", "a rule writes to the packet"},
    {"kernel", "the kernel decides"},
    {"many_counters", "more counters than the flow tier has room for"},
    {"many_routes", "more routes decide than the flow tier has room for"},
}};

}  // namespace

std::string_view VarianceLabel(Variance reason) {
  return kVariances[static_cast<size_t>(reason)].label;
}

std::string_view VarianceText(Variance reason) {
  return kVariances[static_cast<size_t>(reason)].text;
}

bool HasOffloadForm(const packet::Packet& p) {
  constexpr uint16_t kOtherForms =
      packet::kFlagFragment | packet::kFlagOptions | packet::kFlagOptionsForKernel |
      packet::kFlagRoutingHeader | packet::kFlagFragmentHeader | packet::kFlagLinkMulticast;
  if (p.Has(kOtherForms) || p.fragment_size != 0 || p.l3_offset != 14) return false;
  size_t header;
  if (p.l3()[0] >> 4 == 4) {
    const wire::Ipv4View ip(p.l3());
    if (ip.has_options() || ip.IsFragment() || ip.ttl() <= 1) return false;
    header = wire::Ipv4View::kMinSize;
  } else {
    const wire::Ipv6View ip(p.l3());
    if (ip.next_header() != p.l4_protocol || ip.hop_limit() <= 1) return false;
    header = wire::Ipv6View::kSize;
  }
  if (p.l4_offset != p.l3_offset + header) return false;
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
      return p.segment_length >= p.l4_offset + wire::TcpView::kMinSize &&
             (p.l4()[13] & ~wire::kTcpPsh) == wire::kTcpAck;
    case wire::kProtocolUdp:
      return p.segment_length >= p.l4_offset + wire::UdpView::kSize;
    default:
      return false;
  }
}

void FlowPath::Begin(const packet::Packet& p) {
  variance = HasOffloadForm(p) ? Variance::kNone : Variance::kForm;
  cell_count = 0;
  route_count = 0;
  rule = tables::kNoRule;
}

bool FlowPath::AddRoute(const IpAddress& address) {
  const auto end = routes.begin() + route_count;
  if (std::find(routes.begin(), end, address) != end) return true;
  if (route_count == kRoutes) return false;
  routes[route_count++] = address;
  return true;
}

}  // namespace sluice::stages
