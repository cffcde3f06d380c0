// What a NAT statement of a rule asks for (nf_nat_range2): the rule engine fills it in, the nat
// stage chooses the mapping.
#ifndef SLUICE_TABLES_NAT_REQUEST_H_
#define SLUICE_TABLES_NAT_REQUEST_H_

#include <cstdint>

#include "base/address.h"

namespace sluice::tables {

enum class NatKind : uint8_t { kSource, kDestination, kMasquerade, kRedirect };

// The kernel's NF_NAT_RANGE_* bits: 1 map addresses, 2 ports given, 4 random, 8 persistent,
// 16 fully random, 32 port offset from base, 64 netmap.
enum NatRange : uint32_t {
  kNatMapAddresses = 1 << 0,
  kNatPortsGiven = 1 << 1,
  kNatRandom = 1 << 2,
  kNatPersistent = 1 << 3,
  kNatFullyRandom = 1 << 4,
  kNatPortOffset = 1 << 5,
  kNatNetmap = 1 << 6,
};

struct NatRequest {
  NatKind kind = NatKind::kSource;
  uint32_t flags = 0;
  IpAddress min_address;  // with kNatMapAddresses
  IpAddress max_address;
  uint16_t min_port = 0;  // with kNatPortsGiven; host order
  uint16_t max_port = 0;
};

// Where a source port that cannot be preserved is taken from (host order, inclusive); reserved with
// the kernel (ip_local_reserved_ports) so that its own sockets stay out.
struct NatPorts {
  uint16_t first = 49152;
  uint16_t last = 65535;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_NAT_REQUEST_H_
