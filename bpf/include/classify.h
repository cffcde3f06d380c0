/* Who gets a frame: a worker or the kernel, and why. The whole decision of xdp_ingress, without its
 * effects, so that it can be run natively by tests.
 *
 * To the worker: what a router decides about (IP unicast), and what keeps its neighbours known
 * (ARP, multicast neighbour discovery). Everything else is the kernel's: other hosts' frames
 * (bridges and macvlans on top of the interface want them, and its own drop counter), VLANs (a
 * priority tag too: rare enough), groups, broadcasts, control protocols, runts. Of groups the program
 * then takes out those that services listen to (sluice_group_of).
 */
#ifndef SLUICE_BPF_INCLUDE_CLASSIFY_H_
#define SLUICE_BPF_INCLUDE_CLASSIFY_H_

#include "abi.h"
#include "parse.h"

/* `c` is behind the Ethernet header. */
SLUICE_INLINE enum sluice_xdp_reason sluice_classify_ipv4(struct sluice_cursor* c,
                                                          const struct sluice_ethernet* eth) {
  struct sluice_ipv4 ip;
  if (sluice_parse_ipv4(c, &ip) < 0) return SLUICE_XDP_TRUNCATED;
  if (eth->destination == SLUICE_MAC_BROADCAST || ip.destination == 0xffffffff)
    return SLUICE_XDP_BROADCAST;
  if (eth->multicast || ip.destination >> 28 == 14) return SLUICE_XDP_MULTICAST;
  return SLUICE_XDP_IPV4;
}

SLUICE_INLINE enum sluice_xdp_reason sluice_classify_ipv6(struct sluice_cursor* c,
                                                          const struct sluice_ethernet* eth) {
  struct sluice_ipv6 ip;
  const __u8* icmp;
  if (sluice_parse_ipv6(c, &ip) < 0) return SLUICE_XDP_TRUNCATED;
  if (!eth->multicast && !ip.multicast) return SLUICE_XDP_IPV6;
  if (ip.next_header != SLUICE_PROTOCOL_ICMPV6) return SLUICE_XDP_MULTICAST;
  icmp = sluice_take(c, 1);
  if (!icmp) return SLUICE_XDP_TRUNCATED;
  if (*icmp == SLUICE_ICMPV6_NS || *icmp == SLUICE_ICMPV6_NA) return SLUICE_XDP_ND;
  return SLUICE_XDP_MULTICAST;
}

/* `c` covers the frame from its Ethernet header; `own_mac` as in sluice_xdp_config. */
SLUICE_INLINE enum sluice_xdp_reason sluice_classify(struct sluice_cursor c, __u64 own_mac) {
  struct sluice_ethernet eth;
  if (sluice_parse_ethernet(&c, &eth) < 0) return SLUICE_XDP_TRUNCATED;
  if (!eth.multicast && eth.destination != own_mac) return SLUICE_XDP_OTHER_MAC;
  switch (eth.ether_type) {
    case SLUICE_ETHERTYPE_IPV4:
      return sluice_classify_ipv4(&c, &eth);
    case SLUICE_ETHERTYPE_IPV6:
      return sluice_classify_ipv6(&c, &eth);
    case SLUICE_ETHERTYPE_ARP:
      return SLUICE_XDP_ARP;
    case SLUICE_ETHERTYPE_VLAN:
    case SLUICE_ETHERTYPE_QINQ:
      return SLUICE_XDP_VLAN;
    default:
      return SLUICE_XDP_NON_IP;
  }
}

/* Whether the enumerator's action is to redirect. */
SLUICE_INLINE int sluice_is_redirect(enum sluice_xdp_reason reason) {
  return reason <= SLUICE_XDP_GROUP;
}

/* Of a frame that sluice_classify calls MULTICAST: as what a worker gets it if services listen to its
 * `group` (IPV4 or IPV6), or MULTICAST if it is the kernel's in any case. That is all but UDP (so IGMP,
 * MLD and routing protocols, also those that speak to the group itself), and groups that do not leave
 * the link (224.0.0.0/24, and IPv6 of that scope or less).
 */
SLUICE_INLINE enum sluice_xdp_reason sluice_group_of(struct sluice_cursor c,
                                                     struct sluice_group* group) {
  struct sluice_ethernet eth;
  const __u8* ip;
  if (sluice_parse_ethernet(&c, &eth) < 0) return SLUICE_XDP_MULTICAST;
  if (eth.ether_type == SLUICE_ETHERTYPE_IPV4) {
    ip = sluice_take(&c, 20);
    if (!ip || ip[9] != SLUICE_PROTOCOL_UDP || ip[16] >> 4 != 14) return SLUICE_XDP_MULTICAST;
    if (ip[16] == 224 && !ip[17] && !ip[18]) return SLUICE_XDP_MULTICAST;
    __builtin_memset(group->address, 0, 10);
    __builtin_memset(group->address + 10, 0xff, 2);
    __builtin_memcpy(group->address + 12, ip + 16, 4);
    return SLUICE_XDP_IPV4;
  }
  if (eth.ether_type != SLUICE_ETHERTYPE_IPV6) return SLUICE_XDP_MULTICAST;
  ip = sluice_take(&c, 40);
  if (!ip || ip[24] != 0xff || (ip[25] & 15) <= 2) return SLUICE_XDP_MULTICAST;
  if (ip[6] != SLUICE_PROTOCOL_UDP && ip[6] != SLUICE_PROTOCOL_FRAGMENT)
    return SLUICE_XDP_MULTICAST;
  __builtin_memcpy(group->address, ip + 24, 16);
  return SLUICE_XDP_IPV6;
}

#endif /* SLUICE_BPF_INCLUDE_CLASSIFY_H_ */
