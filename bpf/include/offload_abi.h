/* The flow tier's tables as the XDP program and user space share them: what is in each map, to the
 * byte.
 *
 * A worker decides about a flow (or, without a ruleset, about a destination) by letting some of its
 * packets through the whole pipeline; then an entry here says what XDP does with further ones that
 * look the same: rewrite, and redirect to another device. One set of maps serves all interfaces and
 * workers.
 *
 *   offload_flows4, offload_flows6   hash: key -> entry. Written by the control thread, in batches
 *   offload_cells                    array, mapped into user space: per CPU and entry id, whether
 *                                    the entry lives, and what it has carried
 *   offload_splices                  array, mapped: per entry id, what relayed TCP segments become
 *   offload_state                    array of one, mapped: the generations of the world
 *   offload_devices, .._f            devmaps by interface slot (see offload_maps.h)
 *
 * An entry is valid while three numbers agree: the world's generation, the generation of the routes
 * it was made with (by the destination's, and the source's, route bucket), and its cell's epoch. Each
 * is invalidated by one store, without a system call, by whoever knows that it must end. What is not
 * valid goes to the worker like a packet without an entry.
 *
 * Order. A worker reads `world` and the route generations before it reads the snapshot, the FIB and
 * neighbours; the control thread changes those and then the generations. So an entry made from an old
 * state has an old generation.
 */
#ifndef SLUICE_BPF_INCLUDE_OFFLOAD_ABI_H_
#define SLUICE_BPF_INCLUDE_OFFLOAD_ABI_H_

#include "abi.h"

/* How the packets of a family that arrive by an interface are looked up (sluice_xdp_config.offload). Fields that are not part of the key are 0 in it.
 */
enum sluice_offload_mode {
  SLUICE_OFFLOAD_OFF = 0,
  SLUICE_OFFLOAD_FLOW = 1,        /* connections: addresses, protocol (TCP, UDP), ports */
  SLUICE_OFFLOAD_DESTINATION = 2, /* routes: destination address */
  SLUICE_OFFLOAD_PAIR = 3,        /* routes where the source is judged too: both addresses */
};

/* sluice_xdp_config.offload. `complete`: senders leave checksums to their network card, so they are
 * looked at, and completed where they are partial (0: they are as the sender made them).
 */
#define SLUICE_OFFLOAD_WORD(mode4, mode6, slot, complete) \
  ((__u32)(mode4) | (__u32)(mode6) << 4 | (__u32)(complete) << 8 | (__u32)(slot) << 16)
/* A bit of it: there may be entries of relays, which are looked up as connections where routes have
 * nothing (modes of routes only). */
#define SLUICE_OFFLOAD_RELAYS (1u << 9)
#define SLUICE_OFFLOAD_MODE4(word) ((word) & 15)
#define SLUICE_OFFLOAD_MODE6(word) ((word) >> 4 & 15)
#define SLUICE_OFFLOAD_COMPLETE(word) ((word) >> 8 & 1)
#define SLUICE_OFFLOAD_SLOT(word) ((word) >> 16 & 255)

/* Addresses and ports are as they are on the wire. Protocol 0 in the modes without connections. */
struct sluice_offload_key4 {
  __u32 source;
  __u32 destination;
  __u16 source_port;
  __u16 destination_port;
  __u8 protocol;
  __u8 slot; /* of the arrival interface: of sluice_xdp_config.offload */
  __u8 reserved[2];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_key4) == 16, "sluice_offload_key4 has holes");

struct sluice_offload_key6 {
  __u32 source[4];
  __u32 destination[4];
  __u16 source_port;
  __u16 destination_port;
  __u8 protocol;
  __u8 slot;
  __u8 reserved[2];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_key6) == 40, "sluice_offload_key6 has holes");

#define SLUICE_OFFLOAD_DEVICES 256u /* slots of output interfaces */

/* What is done to the packet: flags of an entry. */
enum {
  SLUICE_OFFLOAD_REWRITE = 1, /* addresses and ports are replaced (NAT) */
  /* A relay of ours: the packet leaves as one of this machine's, with a TTL of its own. */
  SLUICE_OFFLOAD_RELAY = 2,
  SLUICE_OFFLOAD_SPLICE = 4,  /* of TCP: the header changes too, by offload_splices[id] */
};
#define SLUICE_OFFLOAD_RELAY_TTL 64u

#define SLUICE_SPLICE_NEAR (16u << 20) /* bytes; no window of ours or Linux' is larger by default */

/* Two TCP connections of ours that are relayed into each other: what changes in the segments of one
 * direction. Numbers are in host order, and are added modulo 2^32. Written before the entry is ordered,
 * and not again while its id is in use.
 */
struct sluice_splice {
  __u32 seq;
  __u32 ack;   /* also what SACK blocks move by */
  __u32 tsval; /* TSval, TSecr: RFC 7323 */
  __u32 tsecr;
  __u8 window_left;  /* the window field is shifted left, then right; at most one of both is not 0. */
  __u8 window_right; /* What does not fit 16 bits is 0xffff */
  __u8 timestamps;   /* segments have them; XDP takes those whose only option they are (NOP NOP TS) */
  __u8 reserved[13];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_splice) == 32, "sluice_splice has holes");

/* The part that both families have; one cache line. */
struct sluice_offload_action {
  __u32 id;         /* of its cell */
  __u32 epoch;      /* its cell's, while it lives */
  __u32 world;      /* sluice_offload_state.world */
  __u32 routes[2];  /* sluice_offload_state.routes[bucket[i]] */
  __u16 bucket[2];  /* the destination's, the source's (the same one again where none counts) */
  __u16 mtu;        /* largest IP length */
  __u8 out;         /* slot of the output interface: key of offload_devices */
  __u8 flags;
  __u8 link[12];    /* destination and source MAC address */
  __u16 l4_delta;   /* one's complement: what a rewrite adds to the sum behind the TCP or UDP
                     * checksum (~HC' = ~HC + delta, RFC 1624), of 16-bit words as they are in
                     * memory. 0 only where nothing changes: changes whose sum is zero are 0xffff */
  __u16 l3_delta;   /* the same for the IPv4 header's, without the TTL */
  __u16 source_port; /* after a rewrite, wire order */
  __u16 destination_port;
  __u64 tag; /* binds it to its key, see offload_tag.h; written by the maps' owner */
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_action) == 56, "sluice_offload_action has holes");

struct sluice_offload_entry4 {
  struct sluice_offload_action action;
  __u32 source; /* after a rewrite, wire order */
  __u32 destination;
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_entry4) == 64, "sluice_offload_entry4 has holes");

struct sluice_offload_entry6 {
  struct sluice_offload_action action;
  __u32 source[4];
  __u32 destination[4];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_entry6) == 88, "sluice_offload_entry6 has holes");

/* One per possible CPU and id, at [cpu * ids + id]. `epoch` is written by user space, the rest by XDP
 * on that CPU alone, without atomics. Counters are never reset: readers keep what they saw last.
 */
struct sluice_offload_cell {
  __u64 packets;
  __u64 bytes;      /* IP length */
  __u32 epoch;      /* 0: no entry lives with this id */
  __u32 completed;  /* of `packets`: partial checksums completed (modulo 2^32) */
  /* Of a splice, in host order, the latest of each (modulo 2^32): acknowledgment numbers, and ends of
   * the data, as they came. In the cell of CPU 0, for all CPUs, so that a connection may move between
   * them however fast it is: without atomics, so when two CPUs are at it at once, one that is a little
   * older may stand there until the next segment. User space writes what they begin with before an
   * entry lives, and what segments that went by a worker have come to. */
  __u32 last_ack;
  __u32 last_end;
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_cell) == 32, "two cells are a cache line");

/* The one value of `offload_state`. */
#define SLUICE_OFFLOAD_BUCKETS 4096u
/* Addresses of this machine as a Bloom filter with one hash: a source that may be ours goes to the
 * worker (modes of routes, IPv4). */
#define SLUICE_OFFLOAD_OWN_BITS 4096u
struct sluice_offload_state {
  __u32 world; /* never 0 */
  __u32 ids;   /* cells per CPU */
  __u32 changes; /* of routes, all together; user space's: not read by XDP */
  __u32 reserved0;
  __u64 own4[SLUICE_OFFLOAD_OWN_BITS / 64];
  /* By output slot, written by redirect_loss.bpf.c with atomics: a bit for those whose driver takes
   * nothing (user space takes it back), and how many frames drivers have not taken. */
  __u64 closed[SLUICE_OFFLOAD_DEVICES / 64];
  __u8 reserved[16];
  __u64 lost[SLUICE_OFFLOAD_DEVICES];
  __u32 routes[SLUICE_OFFLOAD_BUCKETS];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_offload_state) ==
                         64 + SLUICE_OFFLOAD_OWN_BITS / 8 + 8 * SLUICE_OFFLOAD_DEVICES +
                             4 * SLUICE_OFFLOAD_BUCKETS,
                     "sluice_offload_state has holes");

/* A route change for a prefix of at least /16 (IPv6: /32) changes one bucket's generation, for a
 * shorter one the world's. `address16`: the first 16 bits of an IPv4 address, `address32`: the first
 * 32 of an IPv6 one, in host order.
 */
#define SLUICE_OFFLOAD_BUCKET4(address16) \
  (((__u32)(address16) * 0x9e3779b1u) >> 20 & (SLUICE_OFFLOAD_BUCKETS - 1))
#define SLUICE_OFFLOAD_BUCKET6(address32) \
  (((__u32)(address32) * 0x85ebca6bu) >> 20 & (SLUICE_OFFLOAD_BUCKETS - 1))
#define SLUICE_OFFLOAD_OWN_BIT(address) ((__u32)(address) * 0x9e3779b1u >> 20) /* host order */

#endif /* SLUICE_BPF_INCLUDE_OFFLOAD_ABI_H_ */
