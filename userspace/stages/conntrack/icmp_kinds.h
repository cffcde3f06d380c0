// How connection tracking treats ICMP and ICMPv6 messages, by type.
//
// Rules of nf_conntrack_icmpv4_error, nf_conntrack_icmp_packet and their ICMPv6 siblings
// (net/netfilter/nf_conntrack_proto_icmp.c, nf_conntrack_proto_icmpv6.c, 6.18).
#ifndef SLUICE_STAGES_CONNTRACK_ICMP_KINDS_H_
#define SLUICE_STAGES_CONNTRACK_ICMP_KINDS_H_

#include <cstdint>

#include "tables/flow.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/protocol.h"

namespace sluice::stages {

enum class IcmpKind : uint8_t {
  kNone,       // another protocol
  kQuery,      // a flow of its own, or the answer in one
  kError,      // about a packet that it quotes
  kUntracked,  // neighbour discovery, multicast listeners
  kInvalid,
};

inline IcmpKind IcmpKindOf(const tables::FlowTuple& tuple) {
  const auto type = static_cast<uint8_t>(tuple.destination_port >> 8);
  if (tuple.protocol == wire::kProtocolIcmp) {
    constexpr uint8_t kHighestKnown = 18;
    if (tuple.family != Family::kIpv4 || type > kHighestKnown) return IcmpKind::kInvalid;
    return wire::IsIcmpError(type) ? IcmpKind::kError : IcmpKind::kQuery;
  }
  if (tuple.protocol != wire::kProtocolIcmpv6) return IcmpKind::kNone;
  if (tuple.family != Family::kIpv6) return IcmpKind::kInvalid;
  if (wire::IsIcmpv6Error(type)) return IcmpKind::kError;
  constexpr uint8_t kListenerQuery = 130;
  constexpr uint8_t kListenerReport2 = 143;
  if ((type >= kListenerQuery && type <= wire::kIcmpv6NeighborAdvertisement) ||
      type == kListenerReport2) {
    return IcmpKind::kUntracked;
  }
  return IcmpKind::kQuery;
}

// Whether a query may begin a flow: requests, not replies.
inline bool IcmpMayBegin(const tables::FlowTuple& tuple) {
  const auto type = static_cast<uint8_t>(tuple.destination_port >> 8);
  if (tuple.protocol == wire::kProtocolIcmpv6) {
    constexpr uint8_t kNodeInformationQuery = 139;
    return type == wire::kIcmpv6EchoRequest || type == kNodeInformationQuery;
  }
  constexpr uint8_t kInformationRequest = 15;
  constexpr uint8_t kAddressMaskRequest = 17;
  return type == wire::kIcmpEchoRequest || type == wire::kIcmpTimestamp ||
         type == kInformationRequest || type == kAddressMaskRequest;
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_ICMP_KINDS_H_
