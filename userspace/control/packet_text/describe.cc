#include <algorithm>
#include <cstdio>

#include "base/address.h"
#include "control/packet_text/names.h"
#include "control/packet_text/packet_spec.h"
#include "control/packet_text/packet_text.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"
#include "wire/protocol.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::control {
namespace {

std::string FlagText(uint8_t flags) {
  if (flags == 0) return "0x0";
  std::string out;
  for (const NumberName& f : TcpFlagNames()) {
    if ((flags & f.number) != 0) out += (out.empty() ? "" : ",") + std::string(f.name);
  }
  return out;
}

class Description {
 public:
  void Add(const std::string& words) { text_ += (text_.empty() ? "" : " ") + words; }
  void Add(const std::string& words, uint64_t value) { Add(words + " " + std::to_string(value)); }
  // Left out when it is what ParsePacketText would take anyway.
  void AddUnless(uint64_t otherwise, const std::string& words, uint64_t value) {
    if (value != otherwise) Add(words, value);
  }
  std::string Take() { return std::move(text_); }

 private:
  std::string text_;
};

void Ports(const std::string& header, std::span<const uint8_t> l4, Description& d) {
  const wire::L4PortsView ports(l4.data());
  d.Add(header + " sport", ports.source_port());
  d.Add(header + " dport", ports.destination_port());
}

// How many bytes the transport header has; 0 when it is not there or not known.
size_t Tcp(std::span<const uint8_t> l4, Description& d) {
  const auto tcp = wire::TcpView::Parse(l4);
  if (!tcp) return 0;
  Ports("tcp", l4, d);
  d.Add("tcp flags " + FlagText(tcp->flags()));
  d.AddUnless(1, "tcp sequence", tcp->sequence());
  d.AddUnless(0, "tcp ackseq", tcp->acknowledgment());
  d.AddUnless(64'240, "tcp window", tcp->window());
  d.AddUnless(0, "tcp urgptr", tcp->urgent_pointer());
  wire::TcpOptionIterator options(tcp->options());
  bool had_maxseg = false;
  while (const auto option = options.Next()) {
    if (option->kind != wire::kTcpOptionMss || option->bytes.size() != 4 || had_maxseg) continue;
    d.Add("tcp option maxseg size", LoadBe16(option->bytes.data() + 2));
    had_maxseg = true;
  }
  return tcp->header_length();
}

size_t Udp(std::span<const uint8_t> l4, Description& d) {
  const auto udp = wire::UdpView::Parse(l4);
  if (!udp) return 0;
  Ports("udp", l4, d);
  if (!udp->has_checksum()) d.Add("udp checksum 0");
  return wire::UdpView::kSize;
}

size_t Sctp(std::span<const uint8_t> l4, Description& d) {
  constexpr size_t kSize = 12;
  if (l4.size() < kSize) return 0;
  Ports("sctp", l4, d);
  d.AddUnless(0, "sctp vtag", LoadBe32(l4.data() + 4));
  return kSize;
}

size_t Icmp(bool v4, std::span<const uint8_t> l4, Description& d) {
  const auto icmp = wire::IcmpView::Parse(l4);
  if (!icmp) return 0;
  const std::string header = v4 ? "icmp" : "icmpv6";
  const uint8_t type = icmp->type();
  d.Add(header + " type " + NameOf(v4 ? IcmpTypeNames() : Icmpv6TypeNames(), type));
  d.AddUnless(0, header + " code", icmp->code());
  const bool echo = v4 ? type == wire::kIcmpEchoRequest || type == wire::kIcmpEchoReply
                       : type == wire::kIcmpv6EchoRequest || type == wire::kIcmpv6EchoReply;
  const bool has_mtu =
      v4 ? type == wire::kIcmpUnreachable && icmp->code() == wire::kIcmpFragmentationNeeded &&
               icmp->rest() <= 0xffff
         : type == wire::kIcmpv6PacketTooBig;
  if (has_mtu) {
    d.Add(header + " mtu", icmp->rest());
  } else {
    d.AddUnless(echo ? 1 : 0, header + " id", icmp->echo_id());
    d.AddUnless(echo ? 1 : 0, header + " sequence", icmp->echo_sequence());
  }
  return wire::IcmpView::kSize;
}

// `length` is what the IP header says, of which a capture may hold less.
void Transport(bool v4, uint8_t protocol, std::span<const uint8_t> l4, size_t length,
               Description& d) {
  size_t header = 0;
  if (protocol == wire::kProtocolTcp) header = Tcp(l4, d);
  if (protocol == wire::kProtocolUdp) header = Udp(l4, d);
  if (protocol == wire::kProtocolSctp) header = Sctp(l4, d);
  if (protocol == (v4 ? wire::kProtocolIcmp : wire::kProtocolIcmpv6)) header = Icmp(v4, l4, d);
  if (header == 0) d.Add("meta l4proto " + NameOf(ProtocolNames(), protocol));
  if (length > header) d.Add("payload size", length - header);
}

void NoTransport(uint8_t protocol, size_t length, Description& d) {
  Transport(false, protocol, {}, length, d);
}

void Tos(const std::string& header, uint8_t tos, Description& d) {
  if (tos >> 2 != 0) d.Add(header + " dscp " + NameOf(DscpNames(), tos >> 2));
  d.AddUnless(0, header + " ecn", tos & wire::kEcnMask);
}

void Ip4(std::span<const uint8_t> packet, Description& d) {
  const auto ip = wire::Ipv4View::Parse(packet);
  if (!ip) return d.Add("(not a whole IPv4 header)");
  d.Add("ip saddr " + ToString(ip->source()) + " ip daddr " + ToString(ip->destination()));
  Tos("ip", ip->tos(), d);
  d.AddUnless(64, "ip ttl", ip->ttl());
  d.AddUnless(0, "ip id", ip->id());
  if (ip->fragment_field() != 0) {
    char text[32];
    std::snprintf(text, sizeof text, "ip frag-off 0x%x", ip->fragment_field());
    d.Add(text);
  }
  const size_t header = ip->header_length();
  const size_t length = std::max<size_t>(ip->total_length(), header) - header;
  if (ip->IsLaterFragment()) return NoTransport(ip->protocol(), length, d);
  packet = packet.subspan(header);
  Transport(true, ip->protocol(), packet.first(std::min(packet.size(), length)), length, d);
}

void Ip6(std::span<const uint8_t> packet, Description& d) {
  const auto ip = wire::Ipv6View::Parse(packet);
  if (!ip) return d.Add("(not a whole IPv6 header)");
  d.Add("ip6 saddr " + ToString(ip->source()) + " ip6 daddr " + ToString(ip->destination()));
  Tos("ip6", ip->traffic_class(), d);
  d.AddUnless(64, "ip6 hoplimit", ip->hop_limit());
  d.AddUnless(0, "ip6 flowlabel", ip->flow_label());
  const size_t end = ip->packet_length();
  packet = packet.first(std::min(packet.size(), end));
  const wire::Ipv6Chain chain = wire::WalkIpv6Chain(packet);
  const size_t length = std::max<size_t>(end, chain.l4_offset) - chain.l4_offset;
  if (!chain.HasL4() || chain.l4_offset > packet.size()) {
    return NoTransport(chain.protocol, length, d);
  }
  Transport(false, chain.protocol, packet.subspan(chain.l4_offset), length, d);
}

}  // namespace

std::string DescribePacket(std::span<const uint8_t> frame, bool with_ethernet) {
  const auto ethernet = wire::EthernetView::Parse(frame);
  if (!ethernet) return "(not a whole Ethernet header)";
  Description d;
  if (with_ethernet) {
    d.Add("ether saddr " + ToString(ethernet->source()) + " ether daddr " +
          ToString(ethernet->destination()));
  }
  const std::span<const uint8_t> packet = frame.subspan(wire::kEthernetHeaderSize);
  if (ethernet->ether_type() == wire::kEtherTypeIpv4) {
    Ip4(packet, d);
  } else if (ethernet->ether_type() == wire::kEtherTypeIpv6) {
    Ip6(packet, d);
  } else {
    char text[32];
    std::snprintf(text, sizeof text, "ether type 0x%04x", ethernet->ether_type());
    d.Add(text);
  }
  return d.Take();
}

}  // namespace sluice::control
