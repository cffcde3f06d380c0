// What a packet must look like, and what it is looked up by, where XDP carries packets without
// connections. Only for offer.cc and rehearsal.cc.
#ifndef SLUICE_DATAPLANE_OFFER_H_
#define SLUICE_DATAPLANE_OFFER_H_

#include "base/address.h"
#include "dataplane/firewall_pass.h"
#include "packet/packet.h"
#include "tables/offload.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::dataplane {

// Any protocol will do.
inline bool HasPlainForm(const packet::Packet& p) {
  constexpr uint16_t kOtherForms = packet::kFlagFragment | packet::kFlagOptions |
                                   packet::kFlagOptionsForKernel | packet::kFlagRoutingHeader |
                                   packet::kFlagFragmentHeader | packet::kFlagLinkMulticast;
  return !p.Has(kOtherForms) && p.segment_count == 1 && p.fragment_size == 0;
}

inline IpAddress SourceOf(const packet::Packet& p, Family family) {
  if (family == Family::kIpv4) return wire::Ipv4View(p.l3()).source();
  return wire::Ipv6View(p.l3()).source();
}

// The source as it stands in the key: unspecified where it does not matter.
inline IpAddress SourceInKey(const packet::Packet& p, Family family, sluice_offload_mode mode) {
  if (mode == SLUICE_OFFLOAD_PAIR) return SourceOf(p, family);
  if (family == Family::kIpv4) return Ipv4();
  return Ipv6();
}

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_OFFER_H_
