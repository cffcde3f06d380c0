// The configuration that packets are judged by: interfaces, addresses, sysctls. Immutable; the
// control thread builds a new one aside and publishes it whole, workers take the pointer once per
// tick, so that a burst sees one generation and never a mix. (Routes live in Fib4, Fib6 and
// RouteTable, which change in place.)
//
// Everything here is mirrored from the kernel; names of fields are those of the sysctls.
#ifndef SLUICE_TABLES_SNAPSHOT_H_
#define SLUICE_TABLES_SNAPSHOT_H_

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/address.h"
#include "base/ids.h"
#include "base/time.h"
#include "tables/conntrack_settings.h"
#include "tables/early_left_out.h"

namespace sluice::tables {

enum class ChecksumMode : uint8_t {
  kTrust,     // physical NIC: frames come with their checksums filled in
  kComplete,  // virtual: recognise CHECKSUM_PARTIAL and complete it
};

// A sluice_offload_mode for each family.
struct OffloadModes {
  uint8_t ipv4 = 0;
  uint8_t ipv6 = 0;
  uint8_t of(Family family) const { return family == Family::kIpv4 ? ipv4 : ipv6; }
  bool operator==(const OffloadModes&) const = default;
};

struct Ipv4InterfaceAddress {
  Ipv4 address;
  uint8_t prefix_length = 32;
  bool secondary = false;
  uint8_t scope = 0;  // RT_SCOPE_*: 0 universe, 253 link, 254 host
};

struct Ipv6InterfaceAddress {
  Ipv6 address;
  uint8_t prefix_length = 128;
  bool tentative = false;  // duplicate address detection still runs, or failed: not ours yet
  bool deprecated = false;
};

// net.ipv4.neigh.IF.* and net.ipv6.neigh.IF.*
struct NeighborSettings {
  Nanos base_reachable_time = Seconds(30);
  Nanos retrans_time = Seconds(1);
  Nanos delay_first_probe_time = Seconds(5);
  uint32_t mcast_solicit = 3;
  uint32_t ucast_solicit = 3;
  uint32_t unres_qlen_packets = 101;  // what unres_qlen_bytes (212992) amounts to in the kernel

  bool operator==(const NeighborSettings&) const = default;
};

struct Interface {
  IfaceSlot slot;
  std::string name;
  IfIndex ifindex;
  Mac mac;
  uint32_t mtu = 1500;
  bool up = false;  // administratively up, with carrier, and with sockets bound
  ChecksumMode checksum = ChecksumMode::kTrust;
  // The flow tier (bpf/include/offload_abi.h): how packets that arrive here are looked up, and
  // whether XDP can send by this interface.
  OffloadModes offload;
  bool offload_output = false;

  std::vector<Ipv4InterfaceAddress> addresses4;  // in the kernel's order: primaries first
  std::vector<Ipv6InterfaceAddress> addresses6;

  // net.ipv4.conf.IF.* as in force (max or or of `all` and IF, by each one's own rule).
  bool forwarding4 = false;
  uint8_t rp_filter = 0;  // 0 off, 1 strict, 2 loose
  bool accept_local = false;
  bool accept_source_route = false;
  bool send_redirects = true;
  bool shared_media = true;
  bool secure_redirects = true;
  bool bc_forwarding = false;
  bool route_localnet = false;
  bool proxy_arp = false;
  bool drop_unicast_in_l2_multicast = false;
  uint8_t arp_ignore = 0;
  bool arp_accept = false;
  bool drop_gratuitous_arp = false;
  NeighborSettings neighbor4;

  // net.ipv6.conf.IF.*
  bool ipv6_enabled = true;
  bool forwarding6 = false;
  bool proxy_ndp = false;
  uint32_t mtu6 = 1500;
  uint8_t hop_limit6 = 64;
  NeighborSettings neighbor6;
};

// net.ipv4.icmp_*, net.ipv6.icmp.* and the like: one per network namespace.
struct IcmpSettings {
  Nanos ratelimit4 = Seconds(1);       // icmp_ratelimit, 0 is no limit
  uint32_t ratemask4 = 6168;           // icmp_ratemask
  Nanos ratelimit6 = Seconds(1);       // icmp.ratelimit
  uint32_t msgs_per_sec = 10000;       // icmp_msgs_per_sec
  uint32_t msgs_burst = 10000;         // icmp_msgs_burst
  bool echo_ignore_all4 = false;
  bool echo_ignore_all6 = false;
  bool errors_use_inbound_address = false;  // icmp_errors_use_inbound_ifaddr

  bool operator==(const IcmpSettings&) const = default;
};

// Reassembly ahead of the rules: net.ipv4.ipfrag_*, net.netfilter.nf_conntrack_frag6_*.
struct DefragSettings {
  Nanos timeout4 = Seconds(30);           // ipfrag_time
  Nanos timeout6 = Seconds(60);           // nf_conntrack_frag6_timeout
  uint64_t high_thresh4 = 4096 * 1024;    // ipfrag_high_thresh: bytes of memory for fragments
  uint64_t high_thresh6 = 4096 * 1024;    // nf_conntrack_frag6_high_thresh

  bool operator==(const DefragSettings&) const = default;
};

// Our own addresses, for "is it ours" tests without a FIB lookup. Small and open-addressed.
class Ipv4AddressSet {
 public:
  void Assign(std::vector<Ipv4> addresses);
  const std::vector<Ipv4>& all() const { return sorted_; }
  bool Contains(Ipv4 a) const {
    if ((filter_ >> (Hash(a) & 63) & 1) == 0) return false;
    return ContainsSlow(a);
  }

 private:
  static uint32_t Hash(Ipv4 a) { return (a.value * 0x9e3779b1u) >> 16; }
  bool ContainsSlow(Ipv4 a) const;

  uint64_t filter_ = 0;  // a bit per hash: nearly every source of a forwarded packet stops here
  std::vector<Ipv4> sorted_;
};

class Ruleset;

struct Snapshot {
  uint64_t generation = 0;
  // Another one when entries of the flow tier ended with the snapshot before. (They live on when
  // nothing is new but elements that packets have added to sets: rules that read those keep a
  // connection from the tier.)
  uint64_t offload_generation = 0;
  // The compiled nftables ruleset; null: there is none. Not the snapshot's own: the control thread
  // keeps it until every worker has moved on.
  const Ruleset* ruleset = nullptr;
  // What of it XDP has applied to packets before they come here; null: nothing.
  std::shared_ptr<const EarlyLeftOut> left_out;
  // The wall clock (local time, for `meta hour` and `meta day`) minus the monotonic one.
  Nanos wall_offset;

  // By slot; a slot whose interface is away or unknown has slot.valid() == false.
  std::array<Interface, kMaxInterfaces> interfaces;
  Ipv4AddressSet own4;  // all addresses of the namespace, served interfaces or not
  IcmpSettings icmp;
  ConntrackSettings conntrack;
  DefragSettings defrag;
  uint8_t default_ttl = 64;           // net.ipv4.ip_default_ttl
  bool ip_forward_use_pmtu = false;
  uint8_t multipath_hash_policy4 = 0;  // 0 L3, 1 L4; others are treated as 0 and reported
  uint8_t multipath_hash_policy6 = 0;

  // What the kernel must decide itself in this version. Set means: punt what it could concern.
  bool policy_routing4 = false;  // ip rules beyond the default ones
  bool policy_routing6 = false;
  bool firewall4 = false;        // netfilter could judge forwarded packets of this family
  bool firewall6 = false;
  bool input_firewall4 = false;  // netfilter could judge packets for this machine
  bool input_firewall6 = false;

  const Interface& at(IfaceSlot slot) const { return interfaces[slot.value]; }
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_SNAPSHOT_H_
