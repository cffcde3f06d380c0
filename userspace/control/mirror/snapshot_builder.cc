#include "control/mirror/snapshot_builder.h"

#include <linux/if_addr.h>

#include <utility>
#include <vector>

namespace sluice::control {
namespace {

void SetSysctls(const InterfaceSysctls& s, tables::Interface& out) {
  out.forwarding4 = s.forwarding4;
  out.rp_filter = s.rp_filter;
  out.accept_local = s.accept_local;
  out.accept_source_route = s.accept_source_route;
  out.send_redirects = s.send_redirects;
  out.shared_media = s.shared_media;
  out.secure_redirects = s.secure_redirects;
  out.bc_forwarding = s.bc_forwarding;
  out.route_localnet = s.route_localnet;
  out.proxy_arp = s.proxy_arp;
  out.drop_unicast_in_l2_multicast = s.drop_unicast_in_l2_multicast;
  out.arp_ignore = s.arp_ignore;
  out.arp_accept = s.arp_accept;
  out.drop_gratuitous_arp = s.drop_gratuitous_arp;
  out.neighbor4 = s.neighbor4;
  out.ipv6_enabled = s.ipv6_enabled;
  out.forwarding6 = s.forwarding6;
  out.proxy_ndp = s.proxy_ndp;
  out.mtu6 = s.mtu6;
  out.hop_limit6 = s.hop_limit6;
  out.neighbor6 = s.neighbor6;
}

void SetAddresses(const KernelState& state, uint32_t ifindex, tables::Interface& out) {
  if (const auto found = state.addresses4.find(ifindex); found != state.addresses4.end()) {
    for (const AddressMessage& a : found->second) {
      tables::Ipv4InterfaceAddress& address = out.addresses4.emplace_back();
      address.address = a.address.v4();
      address.prefix_length = a.prefix_length;
      address.secondary = (a.flags & IFA_F_SECONDARY) != 0;
      address.scope = a.scope;
    }
  }
  if (const auto found = state.addresses6.find(ifindex); found != state.addresses6.end()) {
    for (const AddressMessage& a : found->second) {
      tables::Ipv6InterfaceAddress& address = out.addresses6.emplace_back();
      address.address = a.address.v6();
      address.prefix_length = a.prefix_length;
      // An optimistic address is tentative but may be used (RFC 4429).
      const bool optimistic = (a.flags & IFA_F_OPTIMISTIC) != 0;
      address.tentative =
          ((a.flags & IFA_F_TENTATIVE) != 0 && !optimistic) || (a.flags & IFA_F_DADFAILED) != 0;
      address.deprecated = (a.flags & IFA_F_DEPRECATED) != 0;
    }
  }
}

}  // namespace

tables::Snapshot BuildSnapshot(const KernelState& state, const Sysctls& sysctls,
                               absl::Span<const ServedInterface> served,
                               const FirewallPresence& firewall, uint64_t generation) {
  tables::Snapshot snapshot;
  snapshot.generation = generation;
  for (const ServedInterface& s : served) {
    const Link* link = state.FindLink(s.name);
    if (link == nullptr) continue;
    tables::Interface& out = snapshot.interfaces[s.slot.value];
    out.slot = s.slot;
    out.name = s.name;
    out.ifindex = link->ifindex;
    out.mac = link->mac;
    out.mtu = link->mtu;
    out.up = link->up() && link->carrier && s.ready;
    out.checksum = s.checksum;
    if (const auto found = sysctls.interfaces.find(s.name); found != sysctls.interfaces.end()) {
      SetSysctls(found->second, out);
    }
    SetAddresses(state, link->ifindex.value, out);
  }
  std::vector<Ipv4> own;
  for (const auto& [ifindex, addresses] : state.addresses4) {
    for (const AddressMessage& a : addresses) own.push_back(a.address.v4());
  }
  snapshot.own4.Assign(std::move(own));
  snapshot.icmp = sysctls.icmp;
  snapshot.conntrack = sysctls.conntrack;
  snapshot.defrag = sysctls.defrag;
  snapshot.default_ttl = sysctls.default_ttl;
  snapshot.ip_forward_use_pmtu = sysctls.ip_forward_use_pmtu;
  snapshot.multipath_hash_policy4 = sysctls.multipath_hash_policy4;
  snapshot.multipath_hash_policy6 = sysctls.multipath_hash_policy6;
  snapshot.policy_routing4 = state.policy_routing(Family::kIpv4);
  snapshot.policy_routing6 = state.policy_routing(Family::kIpv6);
  snapshot.firewall4 = firewall.forward4;
  snapshot.firewall6 = firewall.forward6;
  snapshot.input_firewall4 = firewall.input4;
  snapshot.input_firewall6 = firewall.input6;
  return snapshot;
}

}  // namespace sluice::control
