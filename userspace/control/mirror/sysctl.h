// The sysctls that packets are judged by, read from /proc/sys and combined as the kernel combines
// `all` with the interface: the IN_DEV_* macros of include/linux/inetdevice.h.
//
//   per interface alone   forwarding (a write to `all` or ip_forward sets every interface)
//   the larger            rp_filter, arp_ignore
//   either                accept_local, send_redirects, shared_media, secure_redirects, proxy_arp,
//                         route_localnet, arp_accept, drop_gratuitous_arp,
//                         drop_unicast_in_l2_multicast
//   both                  accept_source_route, bc_forwarding
// IPv6: forwarding is that of `all` alone (ip6_forward in net/ipv6/ip6_output.c; the interface's
// own makes it a router or a host in other respects), or force_forwarding of the interface,
// since 6.17; proxy_ndp either; what remains, the interface alone.
// Reassembly: net.ipv4.ipfrag_* and net.netfilter.nf_conntrack_frag6_*.
//
// net.netfilter.nf_conntrack_* exist while the kernel's own connection tracking is loaded.
//
// Threads: any, but /proc/sys/net is that of the network namespace of the calling thread. Cost:
// about 45 small files per interface. A file that does not exist (an older or newer kernel, IPv6
// off) leaves the kernel's default.
#ifndef SLUICE_CONTROL_MIRROR_SYSCTL_H_
#define SLUICE_CONTROL_MIRROR_SYSCTL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/types/span.h"
#include "tables/conntrack_settings.h"
#include "tables/snapshot.h"

namespace sluice::control {

// The settings of one interface, named as in tables::Interface.
struct InterfaceSysctls {
  bool forwarding4 = false;
  uint8_t rp_filter = 0;
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
  bool ipv6_enabled = true;
  bool forwarding6 = false;
  bool proxy_ndp = false;
  uint32_t mtu6 = 0;  // 0: no IPv6 on this interface
  uint8_t hop_limit6 = 64;
  tables::NeighborSettings neighbor4;
  tables::NeighborSettings neighbor6;

  bool operator==(const InterfaceSysctls&) const = default;
};

struct Sysctls {
  absl::btree_map<std::string, InterfaceSysctls> interfaces;  // by name
  tables::IcmpSettings icmp;
  tables::ConntrackSettings conntrack;
  tables::DefragSettings defrag;
  uint8_t default_ttl = 64;
  bool ip_forward_use_pmtu = false;
  bool nexthop_compat_mode = true;
  uint8_t multipath_hash_policy4 = 0;
  uint8_t multipath_hash_policy6 = 0;

  bool operator==(const Sysctls&) const = default;
};

class SysctlReader {
 public:
  explicit SysctlReader(std::string root = "/proc/sys") : root_(std::move(root)) {}

  // For these interfaces; one that does not exist gets the kernel's defaults.
  Sysctls Read(absl::Span<const std::string> interfaces) const;

 private:
  // The first number of a file below root_/net/.
  std::optional<int64_t> Number(const std::string& path) const;
  int64_t Number(const std::string& path, int64_t otherwise) const;
  InterfaceSysctls ReadInterface(const std::string& name) const;
  tables::NeighborSettings ReadNeighbor(const std::string& family, const std::string& name) const;
  void ReadIcmp(tables::IcmpSettings& icmp) const;
  void ReadConntrack(tables::ConntrackSettings& conntrack) const;
  void ReadDefrag(tables::DefragSettings& defrag) const;

  std::string root_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_MIRROR_SYSCTL_H_
