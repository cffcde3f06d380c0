// Which packets show the way for others that XDP may then carry (dataplane/offload.h).
#include "dataplane/offer.h"
#include "dataplane/pipeline.h"
#include "dataplane/way.h"
#include "wire/protocol.h"
#include "wire/tcp.h"

namespace sluice::dataplane {

using tables::FlowDirection;

// Of the packet that has just been judged.
bool Pipeline::MayPromoteFlow(const Packet& p, OffloadWay& way) {
  const auto direction = static_cast<FlowDirection>(p.ct_direction);
  if (judged_flow_ == tables::kNoFlow ||
      p.ct_state != static_cast<uint8_t>(tables::CtState::kEstablished) ||
      !offload_.WantsFlow(judged_flow_, direction, p.in)) {
    return false;
  }
  const tables::Flow& flow = firewall_.flows().at(judged_flow_);
  if (p.l4_protocol == wire::kProtocolTcp &&
      flow.tcp.state != static_cast<uint8_t>(tables::TcpState::kEstablished)) {
    return false;
  }
  bool varies = path_.varies();
  for (const IpAddress& address : path_.routes_of()) {
    if (address == way.routed) continue;
    varies |= way.also && *way.also != address;
    way.also = address;
  }
  if (varies) counters_.offload.refused_rules.Add();
  return !varies;
}

void Pipeline::Offer(const Packet& p, Family family, const stages::RouteDecision& d, uint32_t mtu,
                     const Snapshot& snapshot) {
  if (!p.in.valid()) return;
  const tables::Interface& in = snapshot.at(p.in);
  const tables::Interface& out = snapshot.at(p.out);
  const auto mode = static_cast<sluice_offload_mode>(in.offload.of(family));
  if (mode == SLUICE_OFFLOAD_OFF || !out.offload_output || d.redirect || !HasPlainForm(p)) return;

  OffloadWay way{.in = p.in,
                 .out = p.out,
                 .next_hop = d.next_hop,
                 .own_mac = out.mac,
                 .routed = DestinationOf(p, family),
                 .mtu = mtu};
  const bool by_source = family == Family::kIpv4 && in.rp_filter != 0;
  const IpAddress source = SourceInKey(p, family, mode);
  if (mode == SLUICE_OFFLOAD_FLOW) {
    if (by_source && judged_flow_ != tables::kNoFlow) {
      const auto direction = static_cast<FlowDirection>(p.ct_direction);
      const tables::FlowTuple& tuple = firewall_.flows().at(judged_flow_).tuple(direction);
      way.also = Ipv4(static_cast<uint32_t>(tuple.source.lo));
    }
    if (!MayPromoteFlow(p, way)) return;
  } else {
    // Several paths: which one depends on more than the key says.
    if (d.route->paths.size() != 1) return;
    if (by_source) way.also = source;
    if (!offload_.WantsRoute(p.in, source, way.routed)) return;
  }
  const Mac* const mac = neighbors_.Peek(p.out, d.next_hop);
  if (mac == nullptr || offload_.IsClosed(p.out) || tracer_.NoteOffload(p)) return;
  way.mac = *mac;
  if (mode == SLUICE_OFFLOAD_FLOW) {
    offload_.PromoteFlow(judged_flow_, static_cast<FlowDirection>(p.ct_direction), way, path_);
  } else {
    offload_.PromoteRoute(source, way.routed, way);
  }
}

namespace {

// What a spliced segment that is about to leave had when it came.
Offload::TcpNumbers NumbersOf(const packet::Packet& p, const sluice_splice& splice) {
  const wire::TcpView tcp(p.l4());
  const auto payload = static_cast<uint32_t>(p.length - p.l4_offset - tcp.header_length());
  return {.end = tcp.sequence() - splice.seq + payload, .ack = tcp.acknowledgment() - splice.ack};
}

}  // namespace

// Where rules or the kernel's INPUT could object, each packet is theirs to see.
void Pipeline::OfferRelay(const Packet& p, Family family, const IpAddress& next_hop,
                          const transport::Relayed& relayed, const Snapshot& snapshot) {
  if (relayed.handle == nullptr || !relayed.in.valid() ||
      relayed.arrives.local.address.family != family ||
      relayed.leaves.local.address.family != family) {
    return;
  }
  const bool judged = firewall_.active(family) || (family == Family::kIpv4
                                                       ? snapshot.input_firewall4
                                                       : snapshot.input_firewall6);
  const tables::Interface& in = snapshot.at(relayed.in);
  const tables::Interface& out = snapshot.at(p.out);
  const uint8_t mode = in.offload.of(family);
  const bool by_routes = mode == SLUICE_OFFLOAD_DESTINATION || mode == SLUICE_OFFLOAD_PAIR;
  if (judged || !by_routes || !out.offload_output || !HasPlainForm(p)) return;
  const tables::Route& route = tables_.routes.Get(tables::RouteId{p.route_id});
  if (route.paths.size() != 1) return;
  if (!offload_.WantsRelay(relayed)) {
    if (relayed.splice != nullptr) {
      offload_.NoteSegment(*relayed.handle, NumbersOf(p, *relayed.splice));
    }
    return;
  }
  const Mac* const mac = neighbors_.Peek(p.out, next_hop);
  if (mac == nullptr || offload_.IsClosed(p.out)) return;
  // What a trace looks at is the packet that has come, and it comes as long as it does.
  if (tracer_.active() && (received_ == nullptr || tracer_.NoteOffload(*received_))) return;
  const bool by_source = family == Family::kIpv4 && in.rp_filter != 0;
  offload_.PromoteRelay(relayed, {.in = relayed.in,
                                  .out = p.out,
                                  .next_hop = next_hop,
                                  .mac = *mac,
                                  .own_mac = out.mac,
                                  .routed = relayed.leaves.remote.address,
                                  // That it is for this machine is a route's word, too.
                                  .also = by_source ? relayed.arrives.remote.address
                                                    : relayed.arrives.local.address,
                                  .mtu = MtuOf(route, out, family)},
                        relayed.splice != nullptr ? NumbersOf(p, *relayed.splice)
                                                  : Offload::TcpNumbers{});
}

}  // namespace sluice::dataplane
