#include "transport/transport.h"

#include <optional>
#include <span>

#include "base/byte_order.h"
#include "transport/common/datagram.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::transport {

namespace {

using packet::Verdict;

// The packet that an ICMP error quotes, which we have sent. ICMP quotes at least eight bytes of it:
// ports, and of TCP the sequence number (RFC 792).
struct Quotation {
  Tuple tuple;
  uint8_t protocol = 0;
  uint32_t sequence = 0;
  bool may_be_fragmented = false;  // on its way
};

constexpr size_t kFragmentHeader = 8;

std::optional<Quotation> ReadQuotation(std::span<const uint8_t> quoted) {
  Quotation q;
  std::span<const uint8_t> l4;
  if (const auto ip = wire::Ipv4View::Parse(quoted)) {
    if (ip->IsLaterFragment()) return {};
    q.tuple = {{ip->source(), 0}, {ip->destination(), 0}};
    q.protocol = ip->protocol();
    q.may_be_fragmented = !ip->dont_fragment();
    l4 = quoted.subspan(ip->header_length());
  } else if (const auto ip6 = wire::Ipv6View::Parse(quoted)) {
    // We send no extension headers but those of fragments, of which the first one tells the ports.
    q.tuple = {{ip6->source(), 0}, {ip6->destination(), 0}};
    q.protocol = ip6->next_header();
    l4 = quoted.subspan(wire::Ipv6View::kSize);
    if (q.protocol == wire::kProtocolFragment) {
      if (l4.size() < kFragmentHeader || (LoadBe16(l4.data() + 2) & ~7u) != 0) return {};
      q.protocol = l4[0];
      l4 = l4.subspan(kFragmentHeader);
    }
  } else {
    return {};
  }
  if (l4.size() < 8) return {};
  const wire::L4PortsView ports(l4.data());
  q.tuple.local.port = ports.source_port();
  q.tuple.remote.port = ports.destination_port();
  q.sequence = LoadBe32(l4.data() + 4);
  return q;
}

struct Meaning {
  TcpIcmpError::Kind kind = TcpIcmpError::Kind::kSoft;
  uint32_t mtu = 0;
};

// RFC 1122 section 3.2.2.1, RFC 5927 section 4: hard are protocol and port unreachable and what is
// prohibited; nothing: not an error that sockets are told of.
std::optional<Meaning> Read4(const wire::IcmpView& icmp) {
  if (icmp.type() == wire::kIcmpTimeExceeded || icmp.type() == wire::kIcmpParameterProblem) {
    return Meaning{};
  }
  if (icmp.type() != wire::kIcmpUnreachable) return {};
  switch (icmp.code()) {
    case wire::kIcmpFragmentationNeeded:
      return Meaning{TcpIcmpError::Kind::kTooBig, icmp.mtu()};
    case wire::kIcmpProtocolUnreachable:
    case wire::kIcmpPortUnreachable:
    case wire::kIcmpNetProhibited:
    case wire::kIcmpHostProhibited:
    case wire::kIcmpFiltered:
      return Meaning{TcpIcmpError::Kind::kHard};
    default:
      return Meaning{};
  }
}

std::optional<Meaning> Read6(const wire::Icmpv6View& icmp) {
  switch (icmp.type()) {
    case wire::kIcmpv6PacketTooBig:
      return Meaning{TcpIcmpError::Kind::kTooBig, icmp.mtu()};
    case wire::kIcmpv6Unreachable:
      return icmp.code() == wire::kIcmpv6PortUnreachable || icmp.code() == wire::kIcmpv6Prohibited
                 ? Meaning{TcpIcmpError::Kind::kHard} : Meaning{};
    case wire::kIcmpv6TimeExceeded:
    case wire::kIcmpv6ParameterProblem:
      return Meaning{};
    default:
      return {};
  }
}

}  // namespace

Verdict Transport::Receive(packet::Packet& p, Nanos now) {
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
      return tcp_.Receive(p, now);
    case wire::kProtocolUdp:
      return udp_.Receive(p, now);
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      return ReceiveIcmp(p, now);
    default:
      return Verdict::Continue();
  }
}

bool Transport::Claims(const packet::Packet& p) const {
  const auto ports = wire::L4PortsView::Parse(FirstPieceOf(p));
  if (!ports) return false;
  const IpEnds ends = EndsOf(p);
  const Tuple tuple{{ends.destination, ports->destination_port()},
                    {ends.source, ports->source_port()}};
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
      return tcp_.Claims(tuple);
    case wire::kProtocolUdp:
      return FirstPieceOf(p).size() >= wire::UdpView::kSize && udp_.Claims(tuple, p.in);
    default:
      return false;
  }
}

void Transport::OnRefused(uint8_t protocol, const Tuple& tuple, uint32_t sequence, uint32_t mtu,
                          Nanos now) {
  using Kind = TcpIcmpError::Kind;
  if (protocol == wire::kProtocolTcp) {
    tcp_.OnIcmpError(
        {tuple, wire::TcpSeq(sequence), mtu != 0 ? Kind::kTooBig : Kind::kHard, mtu}, now);
  } else if (mtu != 0) {
    udp_.OnTooBig(tuple, mtu, now);
  } else {
    udp_.OnIcmpError(tuple, true, now);
  }
}

void Transport::OnSevered(const packet::Packet& p, const Tuple& tuple, Nanos now) {
  const auto segment = wire::TcpView::Parse(FirstPieceOf(p));
  if (segment) tcp_.OnSevered(tuple, wire::TcpSeq(segment->sequence()), now);
}

Verdict Transport::ReceiveIcmp(packet::Packet& p, Nanos now) {
  const std::span<const uint8_t> message = FirstPieceOf(p);
  if (message.size() < wire::IcmpView::kSize) return Verdict::Continue();
  const bool v4 = p.l4_protocol == wire::kProtocolIcmp;
  const auto meaning = v4 ? Read4(wire::IcmpView(message.data()))
                          : Read6(wire::Icmpv6View(message.data()));
  if (!meaning) return Verdict::Continue();
  const auto quoted = ReadQuotation(message.subspan(wire::IcmpView::kSize));
  if (!quoted || quoted->tuple.is_v4() != v4) return Verdict::Continue();
  const IpEnds ends = EndsOf(p);
  wire::SumChain chain(
      v4 ? 0 : PseudoSumOf(ends.source, ends.destination, p.l4_protocol, L4LengthOf(p)));
  packet::ForEachSegment(frames_.arena(), p, p.l4_offset,
                         [&](std::span<uint8_t> piece) { chain.Add(piece); });
  const bool right = wire::Fold(chain.sum()) == 0xffff;
  // An error about somebody else's packet is the kernel's, as it came.
  bool ours = false;
  if (quoted->protocol == wire::kProtocolTcp) {
    ours = right && tcp_.OnIcmpError({quoted->tuple, wire::TcpSeq(quoted->sequence),
                                      meaning->kind, meaning->mtu}, now);
  } else if (quoted->protocol == wire::kProtocolUdp &&
             meaning->kind == TcpIcmpError::Kind::kTooBig && !quoted->may_be_fragmented) {
    ours = right && udp_.OnTooBig(quoted->tuple, meaning->mtu, now);
  } else if (quoted->protocol == wire::kProtocolUdp) {
    ours = right && udp_.OnIcmpError(quoted->tuple, meaning->kind == TcpIcmpError::Kind::kHard,
                                     now);
  }
  if (!ours) return Verdict::Continue();
  packet::FreePacket(frames_, p);
  return Verdict::Local();
}

}  // namespace sluice::transport
