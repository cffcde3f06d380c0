// A packet's way through netfilter's hooks: what rules may look at, and whether they have effects.
// Only for firewall*.cc and rehearsal.cc.
#ifndef SLUICE_DATAPLANE_FIREWALL_PASS_H_
#define SLUICE_DATAPLANE_FIREWALL_PASS_H_

#include "dataplane/firewall.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"
#include "wire/protocol.h"

namespace sluice::dataplane {

struct Firewall::Pass {
  packet::Packet& p;
  const Family family;
  const tables::Snapshot& snapshot;
  const tables::Interface* const in;
  const tables::Interface* out = nullptr;
  IpAddress next_hop;  // once routed
  const Nanos now;
  bool dry = false;
  bool wants_nat = false;  // a NAT rule has been met, and wants:
  tables::NatRequest wanted;
  tables::Flow* scratch = nullptr;       // instead of the packet's flow
  stages::TraceSink* trace = nullptr;
  bool of_socket = false;  // to or from a socket of ours, which the kernel does not have

  // To try the hooks before routing on a copy of the packet, without effect.
  Pass DryRun(packet::Packet& copy) const {
    return {.p = copy, .family = family, .snapshot = snapshot, .in = in, .now = now, .dry = true};
  }
};

inline Family FamilyOf(const packet::Packet& p) {
  return p.l3()[0] >> 4 == 4 ? Family::kIpv4 : Family::kIpv6;
}

inline tables::FlowDirection DirectionOf(const packet::Packet& p) {
  return static_cast<tables::FlowDirection>(p.ct_direction);
}

inline bool IsState(const packet::Packet& p, tables::CtState state) {
  return p.ct_state == static_cast<uint8_t>(state);
}

inline IpAddress DestinationOf(const packet::Packet& p, Family family) {
  if (family == Family::kIpv4) return wire::Ipv4View(p.l3()).destination();
  return wire::Ipv6View(p.l3()).destination();
}

inline bool IsSegment(const packet::Packet& p, const Firewall::Key& key) {
  return p.l4_protocol == wire::kProtocolTcp && !key.error;
}

inline Judgement ToJudgement(const packet::Verdict& verdict) {
  switch (verdict.kind()) {
    case packet::Verdict::Kind::kDrop:
      return Judgement::Drop(verdict.drop_reason());
    case packet::Verdict::Kind::kPunt:
      return Judgement::Punt(verdict.punt_reason());
    default:
      return Judgement::Accept();
  }
}

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_FIREWALL_PASS_H_
