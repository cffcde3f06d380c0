// What the kernel says about links, addresses, rules and neighbours, kept in step by KernelMirror.
//
// Threads: the control thread only. Small next to the routes: everything by value.
#ifndef SLUICE_CONTROL_MIRROR_KERNEL_STATE_H_
#define SLUICE_CONTROL_MIRROR_KERNEL_STATE_H_

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "base/address.h"
#include "base/ids.h"
#include "control/netlink/messages.h"

namespace sluice::control {

struct Link : LinkMessage {
  bool ignore_linkdown4 = false;  // net.ipv4.conf.IF.ignore_routes_with_linkdown
  bool ignore_linkdown6 = false;
  // When (AttributeStore::NextStamp) it was last set down, if it has had no carrier since; or 0.
  uint64_t unready_since = 0;
  uint64_t unready4_since = 0;  // likewise, when it lost its last IPv4 address

  bool up() const;  // IFF_UP
};

struct NeighborKey {
  IfIndex ifindex;
  IpAddress address;
  bool operator==(const NeighborKey&) const = default;

  template <class H>
  friend H AbslHashValue(H h, const NeighborKey& k) {
    return H::combine(std::move(h), k.ifindex.value, k.address.bits.hi, k.address.bits.lo);
  }
};

struct Neighbor {
  Mac mac;
  bool has_mac = false;
  uint16_t state = 0;  // NUD_*
  uint8_t flags = 0;   // NTF_*
  bool operator==(const Neighbor&) const = default;

  bool valid() const;      // the kernel would send to it: reachable, stale, delay, probe, permanent
  bool permanent() const;  // NUD_PERMANENT
  bool noarp() const;
  bool router() const;              // NTF_ROUTER
  bool externally_learned() const;  // NTF_EXT_LEARNED
};

struct NeighborEvent {
  NeighborKey key;
  Neighbor neighbor;
  bool removed = false;
};

struct KernelState {
  absl::btree_map<uint32_t, Link> links;  // by ifindex
  // By ifindex, in the kernel's order. IPv4: primaries before secondaries.
  absl::flat_hash_map<uint32_t, std::vector<AddressMessage>> addresses4;
  absl::flat_hash_map<uint32_t, std::vector<AddressMessage>> addresses6;
  std::vector<RuleMessage> rules4;  // by priority
  std::vector<RuleMessage> rules6;
  absl::flat_hash_map<NeighborKey, Neighbor> neighbors;

  const Link* FindLink(std::string_view name) const;
  const Link* FindLink(IfIndex ifindex) const;

  // Do ip rules beyond the default ones (local, main, and for IPv4 default) decide?
  bool policy_routing(Family family) const;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_MIRROR_KERNEL_STATE_H_
