#include "support/parse_everything.h"

#include "wire/arp.h"
#include "wire/checksum.h"
#include "wire/ethernet.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv4_options.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"
#include "wire/ndp.h"
#include "wire/partial_checksum.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::test {
namespace {

using Span = std::span<const uint8_t>;

class Digest {
 public:
  void Add(uint64_t v) { value_ = (value_ ^ v) * 0x100000001b3ull; }
  void Add(Ipv4 a) { Add(a.value); }
  void Add(const Ipv6& a) {
    Add(a.hi);
    Add(a.lo);
  }
  void Add(const Mac& m) { Add(Span(m.bytes)); }
  void Add(Span bytes) {
    for (const uint8_t b : bytes) Add(b);
  }
  template <class T>
  void Add(const std::optional<T>& v) {
    Add(v.has_value());
    if (v) Add(*v);
  }
  template <class E>
  requires std::is_enum_v<E>
  void Add(E v) { Add(static_cast<uint64_t>(v)); }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325ull;
};

void ReadTransport(Digest& d, Span l4, uint8_t protocol, uint32_t pseudo) {
  if (const auto ports = wire::L4PortsView::Parse(l4)) d.Add(ports->both());
  if (const auto udp = wire::UdpView::Parse(l4)) {
    d.Add(udp->source_port());
    d.Add(udp->destination_port());
    d.Add(udp->checksum());
    d.Add(udp->LengthFits(l4.size()));
  }
  if (const auto tcp = wire::TcpView::Parse(l4)) {
    d.Add(tcp->sequence());
    d.Add(tcp->acknowledgment());
    d.Add(tcp->flags());
    d.Add(tcp->window());
    d.Add(tcp->checksum());
    d.Add(tcp->urgent_pointer());
    wire::TcpOptionIterator options(tcp->options());
    while (const auto option = options.Next()) d.Add(option->bytes);
    d.Add(options.malformed());
  }
  d.Add(wire::ClassifyL4Checksum(protocol, l4, pseudo));
  d.Add(wire::L4ChecksumIsRight(pseudo, l4));
}

void ReadIcmp(Digest& d, Span message) {
  if (const auto icmp = wire::IcmpView::Parse(message)) {
    d.Add(icmp->type());
    d.Add(icmp->code());
    d.Add(icmp->checksum());
    d.Add(icmp->rest());
    d.Add(icmp->mtu());
    d.Add(icmp->pointer());
    d.Add(icmp->gateway());
  }
  if (const auto icmp = wire::Icmpv6View::Parse(message)) {
    d.Add(icmp->type());
    d.Add(icmp->code());
    d.Add(icmp->checksum());
    d.Add(icmp->mtu());
  }
}

void ReadNd(Digest& d, Span message, const Ipv6& source, const Ipv6& destination, uint8_t hops) {
  d.Add(wire::CheckNd(source, destination, hops, message));
  const auto nd = wire::NdView::Parse(message);
  if (!nd) return;
  wire::NdOptionIterator options(nd->options());
  while (const auto option = options.Next()) d.Add(option->bytes);
  d.Add(options.malformed());
  d.Add(nd->source_link_layer());
  d.Add(nd->target_link_layer());
  d.Add(nd->code());
  switch (nd->type()) {
    case wire::kIcmpv6RouterAdvertisement:
      d.Add(nd->hop_limit());
      d.Add(nd->router_lifetime_seconds());
      d.Add(nd->reachable_time_ms());
      d.Add(nd->retransmit_timer_ms());
      break;
    case wire::kIcmpv6Redirect:
      d.Add(nd->redirect_destination());
      d.Add(nd->target());
      break;
    case wire::kIcmpv6NeighborSolicitation:
    case wire::kIcmpv6NeighborAdvertisement:
      d.Add(nd->target());
      d.Add(nd->solicited());
      break;
    default:
      break;
  }
}

void ReadIpv4(Digest& d, Span packet) {
  d.Add(wire::CheckIpv4(packet));
  const auto ip = wire::Ipv4View::Parse(packet);
  if (!ip) return;
  d.Add(ip->tos());
  d.Add(ip->total_length());
  d.Add(ip->id());
  d.Add(ip->fragment_offset());
  d.Add(ip->ttl());
  d.Add(ip->source());
  d.Add(ip->destination());
  d.Add(ip->options());
  d.Add(ip->ChecksumIsRight());
  const auto options = wire::CompileIpv4Options(*ip);
  d.Add(options.valid);
  d.Add(options.problem_pointer);
  d.Add(options.NeedsAction());
  const Span l4 = packet.subspan(ip->header_length());
  ReadTransport(d, l4, ip->protocol(), ip->PseudoSum());
  ReadIcmp(d, l4);
}

void ReadIpv6(Digest& d, Span packet) {
  d.Add(wire::CheckIpv6(packet));
  const auto ip = wire::Ipv6View::Parse(packet);
  if (!ip) return;
  d.Add(ip->traffic_class());
  d.Add(ip->flow_label());
  d.Add(ip->payload_length());
  d.Add(ip->source());
  d.Add(ip->destination());
  if (ip->next_header() == wire::kProtocolHopByHop) {
    const auto hop = wire::CheckHopByHop(packet, packet.size());
    d.Add(hop.verdict);
    d.Add(hop.pointer);
    d.Add(hop.router_alert_value);
    d.Add(hop.jumbo_length);
  }
  const auto chain = wire::WalkIpv6Chain(packet);
  d.Add(chain.status);
  d.Add(chain.l4_offset);
  d.Add(packet[chain.next_header_at]);  // always within the packet
  const Span l4 = packet.subspan(chain.l4_offset);
  ReadTransport(d, l4, chain.protocol,
                ip->PseudoSum(chain.protocol, static_cast<uint32_t>(l4.size())));
  ReadIcmp(d, l4);
  ReadNd(d, l4, ip->source(), ip->destination(), ip->hop_limit());
}

void ReadArp(Digest& d, Span bytes) {
  const auto arp = wire::ArpView::Parse(bytes);
  if (!arp) return;
  d.Add(arp->operation());
  d.Add(arp->sender_mac());
  d.Add(arp->sender_ip());
  d.Add(arp->target_mac());
  d.Add(arp->target_ip());
}

}  // namespace

uint64_t ParseEverything(Span bytes) {
  Digest d;
  if (const auto ethernet = wire::EthernetView::Parse(bytes)) {
    d.Add(ethernet->destination());
    d.Add(ethernet->source());
    d.Add(ethernet->ether_type());
    d.Add(ethernet->IsBroadcast());
  }
  if (const auto l2 = wire::SkipVlanTags(bytes)) {
    d.Add(l2->ether_type);
    d.Add(l2->vlan_id);
    const Span l3 = bytes.subspan(l2->offset);
    ReadArp(d, l3);
    ReadIpv4(d, l3);
    ReadIpv6(d, l3);
  }
  // The same bytes as if they began at each layer.
  ReadArp(d, bytes);
  ReadIpv4(d, bytes);
  ReadIpv6(d, bytes);
  ReadTransport(d, bytes, wire::kProtocolTcp, 0);
  ReadTransport(d, bytes, wire::kProtocolUdp, 0);
  ReadIcmp(d, bytes);
  ReadNd(d, bytes, Ipv6(), Ipv6(), 255);
  wire::Ipv4OptionIterator options(bytes.first(bytes.size() < 40 ? bytes.size() : 40));
  while (const auto option = options.Next()) d.Add(option->bytes);
  d.Add(wire::InternetChecksum(bytes));
  return d.value();
}

}  // namespace sluice::test
