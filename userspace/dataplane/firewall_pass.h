// A packet's way through netfilter's hooks: what rules may look at, and whether they have effects.
// Only for firewall.cc and rehearsal.cc.
#ifndef SLUICE_DATAPLANE_FIREWALL_PASS_H_
#define SLUICE_DATAPLANE_FIREWALL_PASS_H_

#include "dataplane/firewall.h"

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
};

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
