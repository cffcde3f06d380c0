/* What the BPF programs and user space must agree on: one copy, included by both.
 *
 * C99 and C++20. Sizes are asserted on both sides. XDP decides early and cheaply; every decision
 * has a name, and is counted per CPU in the map `stats`, one cell per name.
 *
 * One set of programs and maps exists per interface, so nothing here is keyed by interface.
 */
#ifndef SLUICE_BPF_INCLUDE_ABI_H_
#define SLUICE_BPF_INCLUDE_ABI_H_

#include <linux/types.h>

#ifdef __cplusplus
#define SLUICE_STATIC_ASSERT(condition, text) static_assert(condition, text)
#else
#define SLUICE_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

/* X(ENUMERATOR, action, label, text): the labels of sluice_xdp_packets_total{action=, reason=} and
 * what they mean. The order is the index into `stats`.
 */
#define SLUICE_XDP_REASONS(X)                                                                  \
  X(IPV4, "redirect", "ipv4", "IPv4 unicast, to the worker")                                   \
  X(IPV6, "redirect", "ipv6", "IPv6 unicast, to the worker")                                   \
  X(ARP, "redirect", "arp", "ARP, to the worker")                                              \
  X(ND, "redirect", "neighbor_discovery", "multicast neighbour discovery, to the worker")      \
  X(GROUP, "redirect", "group",                                                                \
    "UDP to a group that services listen to, to the worker, which gives the kernel a copy")    \
  X(OTHER_MAC, "pass", "other_mac", "unicast to a MAC address that is not this interface's")   \
  X(VLAN, "pass", "vlan", "carries a VLAN tag, which the kernel handles")                      \
  X(MULTICAST, "pass", "multicast", "multicast, which the kernel handles")                     \
  X(BROADCAST, "pass", "broadcast", "IPv4 broadcast, which the kernel handles")                \
  X(NON_IP, "pass", "non_ip", "neither IP nor ARP")                                            \
  X(TRUNCATED, "pass", "truncated", "too short to tell; the kernel counts it")                 \
  X(OVERSIZED, "pass", "oversized",                                                            \
    "longer than the MTU: several packets which the kernel is still to cut up (generic mode)") \
  X(NO_SOCKET, "pass", "no_socket", "no worker has a socket on this receive queue")            \
  X(DISABLED, "pass", "disabled", "Sluice is not in charge at the moment (starting, ending)")  \
  X(PUNTED, "pass", "punted", "given back by a worker, on its way into the kernel (generic mode)") \
  X(EARLY_RULE, "drop", "early_rule", "a rule of an ingress or prerouting chain, before any copy") \
  X(RATE_LIMIT, "drop", "rate_limit", "such a rule with a rate limit or a meter")              \
  X(IPV4_HEADER, "drop", "ipv4_header",                                                        \
    "IPv4 version, header length or total length impossible")                                  \
  X(IPV4_TRUNCATED, "drop", "ipv4_truncated", "frame shorter than the IPv4 total length")      \
  X(IPV6_HEADER, "drop", "ipv6_header", "IPv6 version or addresses impossible")                \
  X(IPV6_TRUNCATED, "drop", "ipv6_truncated", "frame shorter than the IPv6 payload length")    \
  X(MARTIAN_SOURCE, "drop", "martian_source",                                                  \
    "source address cannot be a sender's (multicast, broadcast, loopback, unspecified)")       \
  X(MARTIAN_DESTINATION, "drop", "martian_destination",                                        \
    "destination address cannot be forwarded to (unspecified, loopback)")                      \
  X(FLOW, "forward", "flow", "of a flow or to a route that a worker has decided about")

enum sluice_xdp_reason {
#define SLUICE_XDP_ENUM(name, action, label, text) SLUICE_XDP_##name,
  SLUICE_XDP_REASONS(SLUICE_XDP_ENUM)
#undef SLUICE_XDP_ENUM
      SLUICE_XDP_REASON_COUNT
};

/* The early filter (early_abi.h) has at most so many rules. A rule keeps its counter from one
 * program to the next; there are twice as many, so that a new program need not reuse one of the
 * program that it replaces.
 */
#define SLUICE_EARLY_RULES 64
#define SLUICE_EARLY_COUNTERS (2 * SLUICE_EARLY_RULES)
struct sluice_early_count {
  __u64 packets;
  __u64 bytes;
};

/* The one value of the per-CPU map `stats`. */
struct sluice_xdp_stats {
  __u64 packets[SLUICE_XDP_REASON_COUNT];
  struct sluice_early_count early[SLUICE_EARLY_COUNTERS];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_xdp_stats) ==
                         8 * SLUICE_XDP_REASON_COUNT + 16 * SLUICE_EARLY_COUNTERS,
                     "sluice_xdp_stats has holes");

/* What user space tells the program, as a global of it, changed while it runs. Each member is
 * written with one store.
 */
struct sluice_xdp_config {
  __u64 own_mac;       /* the six bytes as they are on the wire, in the low 48 bits */
  __u64 punt_cookie;   /* marks frames given back in generic mode; 0: none are */
  __u32 enabled;       /* 0: everything goes to the kernel */
  __u32 largest_frame; /* with the Ethernet header; longer ones go to the kernel. 0: no limit */
  __u32 early;         /* what the early filter does: see early_abi.h; 0: nothing */
  __u32 offload;       /* what the flow tier does: SLUICE_OFFLOAD_WORD of offload_abi.h; 0: nothing */
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_xdp_config) == 32, "sluice_xdp_config has holes");

/* In generic mode the kernel shows a frame that is given back to the XDP program once more. Such a
 * frame has this in front of its Ethernet header, which the program takes off. The EtherType is
 * one of the two for local experiments (IEEE 802); the cookie is random for each run, so that no
 * sender on the link can pretend.
 */
#define SLUICE_PUNT_ETHERTYPE 0x88b5
struct sluice_punt_header {
  __u8 destination[6];
  __u8 source[6];
  __u8 ether_type[2];
  __u8 reserved[2];
  __u8 cookie[8]; /* in the byte order of the machine */
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_punt_header) == 24, "sluice_punt_header has holes");

/* XSKMAP size: no interface has more receive queues than this served. */
#define SLUICE_MAX_QUEUES 64

/* A group that services listen to, the key of the map `groups`: an IPv6 address in network order, or an
 * IPv4 one mapped into it. (Values mean nothing.)
 */
struct sluice_group {
  __u8 address[16];
};
#define SLUICE_MAX_GROUPS 64

#endif /* SLUICE_BPF_INCLUDE_ABI_H_ */
