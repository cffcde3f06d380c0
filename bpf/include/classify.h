/* Who gets a frame: a worker or the kernel, and why. The whole decision of xdp_ingress, without its
 * effects, so that it can be run natively by tests.
 *
 * To the worker: what a router decides about (IP unicast), and what keeps its neighbours known
 * (ARP, multicast neighbour discovery). Everything else is the kernel's: other hosts' frames
 * (bridges and macvlans on top of the interface want them, and its own drop counter), VLANs (a
 * priority tag too: rare enough), groups, broadcasts, control protocols, runts.
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
  return reason <= SLUICE_XDP_ND;
}

#endif /* SLUICE_BPF_INCLUDE_CLASSIFY_H_ */
