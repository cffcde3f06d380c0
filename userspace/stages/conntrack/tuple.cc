#include "stages/conntrack/tuple.h"

#include <array>

#include "base/byte_order.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/ipv6_extensions.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::stages {

using packet::Packet;
using tables::FlowTuple;

namespace {

constexpr size_t kIcmpBytes = 8;

// Type 0 stands for "no answer" below, so types are kept plus one.
uint8_t InverseIcmpType(uint8_t type) {
  switch (type) {
    case wire::kIcmpEchoRequest: return wire::kIcmpEchoReply + 1;
    case wire::kIcmpEchoReply: return wire::kIcmpEchoRequest + 1;
    case wire::kIcmpTimestamp: return wire::kIcmpTimestampReply + 1;
    case wire::kIcmpTimestampReply: return wire::kIcmpTimestamp + 1;
    case 15: return 16 + 1;  // information request and reply (RFC 792)
    case 16: return 15 + 1;
    case 17: return 18 + 1;  // address mask request and reply (RFC 950)
    case 18: return 17 + 1;
    default: return 0;
  }
}

uint8_t InverseIcmpv6Type(uint8_t type) {
  switch (type) {
    case wire::kIcmpv6EchoRequest: return wire::kIcmpv6EchoReply + 1;
    case wire::kIcmpv6EchoReply: return wire::kIcmpv6EchoRequest + 1;
    case 139: return 140 + 1;  // node information query and response (RFC 4620)
    case 140: return 139 + 1;
    default: return 0;
  }
}

// `l4` is what there is of the transport header and its payload, in one piece.
bool SetPorts(std::span<const uint8_t> l4, FlowTuple& t) {
  switch (t.protocol) {
    case wire::kProtocolTcp:
    case wire::kProtocolUdp:
    case wire::kProtocolUdpLite:
    case wire::kProtocolSctp: {
      if (l4.size() < wire::L4PortsView::kSize) return false;
      const wire::L4PortsView ports(l4.data());
      t.source_port = ports.source_port();
      t.destination_port = ports.destination_port();
      return true;
    }
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      if (l4.size() < kIcmpBytes) return false;
      t.source_port = LoadBe16(l4.data() + 4);
      t.destination_port = LoadBe16(l4.data());
      return true;
    case wire::kProtocolGre: {
      // Version 1 is PPTP's (RFC 2637 section 4.1): key present, payload PPP, call ID.
      if (l4.size() < 4 || (LoadBe16(l4.data()) & 7) != 1) return true;
      if (l4.size() < 8) return true;
      if (LoadBe16(l4.data() + 2) != 0x880b) return false;
      t.destination_port = LoadBe16(l4.data() + 6);
      return true;
    }
    default:
      return true;
  }
}

void SetAddresses(Ipv4 source, Ipv4 destination, FlowTuple& t) {
  t.source = Ipv6(0, source.value);
  t.destination = Ipv6(0, destination.value);
}

}  // namespace

bool MakeTuple(const Packet& p, FlowTuple& tuple) {
  if (p.Has(packet::kFlagFragment) || p.l4_offset == 0 || p.l4_offset > p.segment_length) {
    return false;
  }
  tuple = FlowTuple{};
  tuple.protocol = p.l4_protocol;
  if (p.l3()[0] >> 4 == 4) {
    const wire::Ipv4View ip(p.l3());
    SetAddresses(ip.source(), ip.destination(), tuple);
  } else {
    if (p.l4_protocol == wire::kProtocolNoNextHeader) return false;
    const wire::Ipv6View ip(p.l3());
    tuple.family = Family::kIpv6;
    tuple.source = ip.source();
    tuple.destination = ip.destination();
  }
  return SetPorts({p.l4(), static_cast<size_t>(p.segment_length - p.l4_offset)}, tuple);
}

bool ParseQuote(std::span<const uint8_t> quote, Family family, QuotedPacket& out) {
  out = QuotedPacket{};
  FlowTuple& t = out.tuple;
  t.family = family;
  if (family == Family::kIpv4) {
    const auto ip = wire::Ipv4View::Parse(quote);
    if (!ip || ip->IsLaterFragment()) return false;
    t.protocol = ip->protocol();
    SetAddresses(ip->source(), ip->destination(), t);
    out.l4_offset = ip->header_length();
  } else {
    const auto ip = wire::Ipv6View::Parse(quote);
    if (!ip) return false;
    const wire::Ipv6Chain chain = wire::WalkIpv6Chain(quote);
    if (!chain.HasL4() || chain.protocol == wire::kProtocolNoNextHeader) return false;
    t.protocol = chain.protocol;
    t.source = ip->source();
    t.destination = ip->destination();
    out.l4_offset = chain.l4_offset;
  }
  return SetPorts(quote.subspan(out.l4_offset), t);
}

bool InvertTuple(const FlowTuple& tuple, FlowTuple& inverse) {
  inverse = tuple;
  inverse.source = tuple.destination;
  inverse.destination = tuple.source;
  if (tuple.protocol == wire::kProtocolIcmp || tuple.protocol == wire::kProtocolIcmpv6) {
    const auto type = static_cast<uint8_t>(tuple.destination_port >> 8);
    const uint8_t other = tuple.protocol == wire::kProtocolIcmp ? InverseIcmpType(type)
                                                                 : InverseIcmpv6Type(type);
    if (other == 0) return false;
    inverse.destination_port =
        static_cast<uint16_t>((other - 1) << 8 | (tuple.destination_port & 0xff));
    return true;
  }
  inverse.source_port = tuple.destination_port;
  inverse.destination_port = tuple.source_port;
  return true;
}

}  // namespace sluice::stages
