// Which worker a flow belongs to: the one place that says so.
//
// The owner is a function of the packet's tuple alone, the same for both directions, and the same
// before and after translation as long as ports are preserved: what is hashed is the sum of the two
// ports (ICMP queries: the identifier), no address. Protocols without ports go by both addresses,
// so that a translated flow of those has tuples with different owners; so has a flow whose
// destination port is changed. The NAT stage reports such flows (`foreign_reply`).
//
// Cost: one multiplication (others: three). No state, any thread. The values are the same in every
// process: an attacker may choose ports that all land on one worker, as with any receive-side
// scaling by a known key.
#ifndef SLUICE_TABLES_FLOW_OWNER_H_
#define SLUICE_TABLES_FLOW_OWNER_H_

#include <cstddef>
#include <cstdint>

#include "base/ids.h"
#include "tables/flow.h"
#include "wire/flow_hash.h"
#include "wire/protocol.h"

namespace sluice::tables {

// The first four bytes of the transport header are two ports, and conntrack reads them (DCCP's it
// does not, as Linux since 6.17).
constexpr bool HasPorts(uint8_t protocol) {
  return protocol == wire::kProtocolTcp || protocol == wire::kProtocolUdp ||
         protocol == wire::kProtocolUdpLite || protocol == wire::kProtocolSctp;
}

constexpr bool IsIcmp(uint8_t protocol) {
  return protocol == wire::kProtocolIcmp || protocol == wire::kProtocolIcmpv6;
}

constexpr uint32_t OwnerHash(const FlowTuple& t) {
  if (HasPorts(t.protocol)) {
    return wire::internal::Finish(uint64_t{t.source_port} + t.destination_port);
  }
  if (IsIcmp(t.protocol)) return wire::internal::Finish(t.source_port);
  // A sum of what each address hashes to: symmetric.
  return wire::internal::Finish(wire::internal::Mix(t.source.hi, t.source.lo) +
                                wire::internal::Mix(t.destination.hi, t.destination.lo));
}

// `worker_count` is at least 1.
constexpr WorkerId OwnerOf(const FlowTuple& tuple, size_t worker_count) {
  return WorkerId{static_cast<uint8_t>(uint64_t{OwnerHash(tuple)} * worker_count >> 32)};
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_FLOW_OWNER_H_
