#include "dataplane/local_sockets.h"

#include <optional>
#include <span>
#include <utility>

#include "base/byte_order.h"
#include "stages/conntrack/tuple.h"
#include "stages/icmp/source_address.h"
#include "tables/flow_owner.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"

namespace sluice::dataplane {

using packet::Packet;
using tables::FlowTuple;

namespace {

bool IsError(const Packet& p) {
  if (p.segment_length <= p.l4_offset) return false;
  return p.l4_protocol == wire::kProtocolIcmp ? wire::IsIcmpError(p.l4()[0])
                                              : wire::IsIcmpv6Error(p.l4()[0]);
}

// Of the packet that an ICMP error quotes: as we have sent it.
std::optional<FlowTuple> QuotedBy(const Packet& error) {
  const size_t at = size_t{error.l4_offset} + wire::IcmpView::kSize;
  if (error.segment_length <= at) return {};
  const Family family =
      error.l4_protocol == wire::kProtocolIcmp ? Family::kIpv4 : Family::kIpv6;
  stages::QuotedPacket quoted;
  if (!stages::ParseQuote({error.data + at, error.segment_length - at}, family, quoted)) return {};
  return quoted.tuple;
}

transport::Tuple SocketOf(const FlowTuple& sent) {
  const auto address = [&](const Ipv6& bits) {
    return sent.family == Family::kIpv4 ? IpAddress(Ipv4(static_cast<uint32_t>(bits.lo)))
                                        : IpAddress(bits);
  };
  return {{address(sent.source), sent.source_port},
          {address(sent.destination), sent.destination_port}};
}

}  // namespace

bool LocalSockets::MayConcern(const Packet& p) const {
  if (p.l4_offset == 0 || p.Has(packet::kFlagFragment)) return false;
  if (p.l3()[0] >> 4 == 6) {
    const wire::Ipv6View ip(p.l3());
    if (ip.source().IsLinkLocal() || ip.destination().IsLinkLocal()) return false;
  }
  switch (p.l4_protocol) {
    case wire::kProtocolTcp:
    case wire::kProtocolUdp:
      return true;
    case wire::kProtocolIcmp:
    case wire::kProtocolIcmpv6:
      return IsError(p);
    default:
      return false;
  }
}

bool LocalSockets::Claims(const Packet& p) const {
  if (!tables::IsIcmp(p.l4_protocol)) return stack_->Claims(p);
  const auto quoted = QuotedBy(p);
  return quoted && Claims(*quoted);
}

bool LocalSockets::Claims(const FlowTuple& sent) const {
  if (sent.protocol == wire::kProtocolTcp) return stack_->tcp().Claims(SocketOf(sent));
  return sent.protocol == wire::kProtocolUdp && stack_->udp().Claims(SocketOf(sent));
}

bool LocalSockets::IsClaimed(const Packet& p, const IpAddress& address, uint16_t port) const {
  if (!active() || !MayConcern(p) || tables::IsIcmp(p.l4_protocol)) return false;
  if (!address.is_v4() && address.v6().IsLinkLocal()) return false;
  FlowTuple arrived;
  if (!stages::MakeTuple(p, arrived)) return false;
  const transport::Tuple t{{address, port}, SocketOf(arrived).local};
  return p.l4_protocol == wire::kProtocolTcp ? stack_->tcp().Claims(t)
                                             : stack_->udp().Claims(t, p.in);
}

bool LocalSockets::HaveJoined(const Packet& p) const {
  if (!stack_->udp().has_members()) return false;
  const IpAddress destination = p.l3()[0] >> 4 == 4
                                    ? IpAddress(wire::Ipv4View(p.l3()).destination())
                                    : IpAddress(wire::Ipv6View(p.l3()).destination());
  return stack_->udp().HasMembers(destination, p.in);
}

WorkerId LocalSockets::OwnerOf(const Packet& p) const {
  if (worker_count_ == 1) return worker_;
  if (tables::IsIcmp(p.l4_protocol)) {
    const auto quoted = QuotedBy(p);
    return quoted ? tables::OwnerOf(*quoted, worker_count_) : worker_;
  }
  FlowTuple tuple;
  return stages::MakeTuple(p, tuple) ? tables::OwnerOf(tuple, worker_count_) : worker_;
}

void LocalSockets::Sever(const Packet& segment, const FlowTuple& answers, Nanos now) {
  stack_->OnSevered(segment, SocketOf(answers), now);
}

void LocalSockets::Refuse(const Packet& p, uint32_t mtu) {
  FlowTuple sent;
  if (refused_count_ == kRefusals || !stages::MakeTuple(p, sent)) return;
  const bool tcp = p.l4_protocol == wire::kProtocolTcp;
  refused_[refused_count_++] = {.tuple = SocketOf(sent),
                                .sequence = tcp ? LoadBe32(p.l4() + 4) : 0,
                                .protocol = p.l4_protocol,
                                .mtu = mtu};
}

// Who is told may send at once, and be refused again: that is for the next turn.
void LocalSockets::TellRefused(Nanos now) {
  const std::array<Refusal, kRefusals> refused = refused_;
  const size_t count = std::exchange(refused_count_, 0);
  for (size_t i = 0; i < count; ++i) {
    const Refusal& r = refused[i];
    stack_->OnRefused(r.protocol, r.tuple, r.sequence, r.mtu, now);
  }
}

void LocalSockets::Send(Packet& p, const transport::Relayed* relayed, Nanos now) {
  const IpAddress destination = p.l3()[0] >> 4 == 4
                                    ? IpAddress(wire::Ipv4View(p.l3()).destination())
                                    : IpAddress(wire::Ipv6View(p.l3()).destination());
  const Way way = WayTo(destination, tables_, *snapshot_);
  if (way.path != nullptr) {
    p.out = way.path->slot;
    p.route_id = way.id.value;
  }
  exit_.FromSocket(p, way.next_hop, relayed, now);
}

bool LocalSockets::FindPath(const IpAddress& remote, Path& path) {
  if (!remote.is_v4() && remote.v6().IsLinkLocal()) return false;
  const Way way = WayTo(remote, tables_, *snapshot_);
  if (way.path == nullptr) return false;
  if (remote.is_v4()) {
    const auto source = stages::SelectSource4(*way.route, *way.path, *snapshot_);
    if (!source) return false;
    path.source = *source;
  } else {
    const auto source =
        stages::SelectSource6(*way.route, remote.v6(), way.path->slot, *snapshot_);
    if (!source) return false;
    path.source = *source;
  }
  path.mtu = MtuOf(*way.route, snapshot_->at(way.path->slot), remote.family);
  return true;
}

bool LocalSockets::ArrivesHere(const transport::Tuple& tuple) {
  if (worker_count_ == 1) return true;
  FlowTuple t;
  t.protocol = wire::kProtocolTcp;  // UDP's ports count alike
  t.source_port = tuple.local.port;
  t.destination_port = tuple.remote.port;
  return tables::OwnerOf(t, worker_count_) == worker_;
}

}  // namespace sluice::dataplane
