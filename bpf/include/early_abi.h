/* The early filter's tables as the XDP program reads them: what is in each map, to the byte.
 *
 * Scheme: bit vectors (Lakshman and Stiliadis 1998, "High-speed policy-based packet forwarding") on
 * top of equivalence classes, so that the cost does not grow with rules or with elements of sets.
 * A program has at most 64 rules in order. Each dimension of a packet (addresses, ports, protocol,
 * ...) maps to the 64-bit mask of the rules which that value satisfies; the AND of the masks holds
 * the rules that match, and the lowest bit is the first of them.
 *
 * An address or port first becomes a class: which of the program's sets hold it. Classes of IPv4
 * addresses are in `lines` of 64 bytes, one cache line each:
 *
 *   root (4096 lines): a word per /16: all of it is one class, or a line says more, or the hash
 *   line of a /16:     256 codes of two bits, one per /24: class A, class B, or "see the hash"
 *   hash of /24s:      eight entries per line: a class for the addresses within a range and one for
 *                      the others, or where a bit or a byte per address is
 *
 * So an address costs two cache lines, rarely three, and a list of 100,000 networks and hosts takes
 * some two megabytes. Classes of IPv6 addresses are in a longest-prefix trie of the kernel's.
 *
 * User space changes single words of lines in place while programs run: an address is in or out of
 * a set by one store. A line that is reached is never used again for something else before all
 * programs that could see it have ended.
 */
#ifndef SLUICE_BPF_INCLUDE_EARLY_ABI_H_
#define SLUICE_BPF_INCLUDE_EARLY_ABI_H_

#include "abi.h"

#define SLUICE_EARLY_CLASSES 256 /* per dimension: a byte */
#define SLUICE_EARLY_LIMITS 256  /* token buckets of rules */
#define SLUICE_EARLY_SOURCES \
  65536 /* buckets of single senders, the least recently used make room */

/* Lines come in pages, each a map of its own, so that there are only those in use. */
#define SLUICE_EARLY_PAGE_LINES 16384u /* 1 MiB */
#define SLUICE_EARLY_PAGES 256u
#define SLUICE_EARLY_TRIES 8u
#define SLUICE_EARLY_TRIE_SIZE (1u << 22)
#define SLUICE_EARLY_ROOT_LINES 4096u
/* A /24 is in one of so many lines of the hash (double hashing), and in none behind one that has
 * room. With half of the room taken, that is nearly always the first.
 */
#define SLUICE_EARLY_PROBES 4u
#define SLUICE_EARLY_PLACE(key24, i) \
  ((((key24) + 1) * 0x9e3779b1u >> 8) + (i) * (((key24) + 1) * 0x85ebca6bu >> 9 | 1))

struct sluice_early_line {
  union {
    __u8 bytes[64];
    __u32 words[16];
    __u64 longs[8];
  };
};

/* A word of the root: class A, class B, and a line relative to the table's first, or one of two. */
#define SLUICE_EARLY_ALL_A 0xffffu   /* the whole /16 */
#define SLUICE_EARLY_IN_HASH 0xfffeu /* /24s that are not in the hash are A */
#define SLUICE_EARLY_ROOT_WORD(line, a, b) ((__u32)(line) | (__u32)(a) << 16 | (__u32)(b) << 24)
enum { SLUICE_EARLY_CODE_A, SLUICE_EARLY_CODE_B, SLUICE_EARLY_CODE_HASH };

/* An entry of the hash is one word: the /24 in its upper 24 bits, a kind, and 32 bits; 0 is free,
 * and then so are those behind it in the line. Entries are never removed.
 */
#define SLUICE_EARLY_ENTRY(key24, kind, value) \
  ((__u64)(key24) << 40 | (__u64)(kind) << 32 | (__u32)(value))
enum {
  SLUICE_EARLY_RANGE = 1, /* addresses & 255 from `first` to `last` are class B, the others A */
  SLUICE_EARLY_BITS = 2,  /* the number of a struct sluice_early_bits */
  SLUICE_EARLY_BYTES = 3, /* the number of the first of four lines with a class per address */
};
#define SLUICE_EARLY_RANGE_VALUE(first, last, a, b) \
  ((__u32)(first) | (__u32)(last) << 8 | (__u32)(a) << 16 | (__u32)(b) << 24)
struct sluice_early_bits {
  __u64 bits[4]; /* by address & 255: 0 is A, 1 is B */
  __u8 a, b;
  __u8 reserved[30];
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_early_line) == 64, "a line is a cache line");
SLUICE_STATIC_ASSERT(sizeof(struct sluice_early_bits) == 64, "a line is a cache line");

/* Where a table of IPv4 addresses is: numbers of lines (page * PAGE_LINES + place). */
struct sluice_early_table4 {
  __u32 root;
  __u32 lines;
  __u32 hash;
  __u32 hash_mask; /* lines of the hash - 1, a power of two */
};

enum { SLUICE_EARLY_SRC4, SLUICE_EARLY_DST4, SLUICE_EARLY_SRC6, SLUICE_EARLY_DST6 };
enum { SLUICE_EARLY_OTHER, SLUICE_EARLY_IPV4, SLUICE_EARLY_IPV6 }; /* what follows Ethernet */
enum { SLUICE_EARLY_CONTINUE, SLUICE_EARLY_DROP, SLUICE_EARLY_END_OF_CHAIN };

/* `count`: when a rule's counter counts. */
enum { SLUICE_EARLY_COUNT_LAST, SLUICE_EARLY_COUNT_FIRST };
/* `limit`: what its token bucket belongs to. */
enum { SLUICE_EARLY_NO_LIMIT, SLUICE_EARLY_LIMIT_RULE, SLUICE_EARLY_LIMIT_SOURCE };

struct sluice_early_rule {
  __u64 rest;     /* END_OF_CHAIN: the rules that may still match, those of later chains */
  __u64 cost_ns;  /* of one packet: the unit of time by the rate */
  __u64 depth_ns; /* of a full bucket */
  __u8 action;
  __u8 count;
  __u8 slot; /* its counter */
  __u8 limit;
  __u8 over; /* `limit rate over`: matches what the bucket does not cover */
  __u8 reserved[3];
  __u32 bucket; /* number of its token bucket, or what tells its senders' buckets from others */
  __u32 reserved2;
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_early_rule) == 40, "sluice_early_rule has holes");

/* One program. Masks have the bit of each rule that is satisfied or has no such condition. */
struct sluice_early_core {
  struct sluice_early_rule rules[SLUICE_EARLY_RULES];
  __u64 family_rules[3];
  __u64 ingress_rules; /* of ingress chains: they see a packet before IP does, with its padding */
  __u64 l4_rules;      /* that look behind the IP header */
  __u64 fragment_rules[16]; /* by reserved bit, DF, MF and "offset is not 0", from 8 to 1 */
  __u64 protocol_rules[256];
  __u64 byte0_rules[256];             /* of the L4 header: ICMP type */
  __u64 byte1_rules[256];             /* ICMP code */
  __u64 flags_rules[256];             /* of TCP */
  __u64 no_byte0, no_byte1, no_flags; /* when the packet ends before */
  __u64 no_port[2];
  __u64 port_rules[2][SLUICE_EARLY_CLASSES];
  __u64 address_rules[4][SLUICE_EARLY_CLASSES];
  struct sluice_early_table4 table4[2];
  __u32 trie[2];
  __u8 has_address[4]; /* whether any rule looks at it */
  __u8 has_port[2];
  __u8 reserved[2];
  __u8 port_classes[2][65536];
};

/* A token bucket in one word, so that it needs no lock: the time until which what it has given out
 * would have to be paid back, as in the generic cell rate algorithm (ITU-T I.371). 0: it is full.
 */
struct sluice_early_bucket {
  __u64 paid_until_ns;
};
struct sluice_early_source {
  __u8 address[16]; /* IPv4 in the first four bytes */
  __u32 bucket;
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_early_source) == 20, "sluice_early_source has holes");

/* What the program keeps of a packet while it decides. */
struct sluice_early_packet {
  __u64 rules; /* that match */
  __u32 core;
  __u32 frame_bytes; /* from the IP header to the end of the frame, padding and all */
  __u32 ip_bytes;    /* as the IP header says */
  __u32 l4_bytes;    /* what of it is behind the IP header */
  struct sluice_early_source source;
  __u32 reserved;
};
SLUICE_STATIC_ASSERT(sizeof(struct sluice_early_packet) == 48, "sluice_early_packet has holes");

/* sluice_xdp_config.early: which core, 0 for none, and what else is checked. */
#define SLUICE_EARLY_CORE 3u
#define SLUICE_EARLY_HEADERS 4u   /* drop what ip_rcv_core and ip6_rcv_core drop */
#define SLUICE_EARLY_MARTIANS 8u  /* drop what ip_route_input drops by the addresses alone */
#define SLUICE_EARLY_LOOPBACK 16u /* with that: loopback addresses (route_localnet is off) */

#endif /* SLUICE_BPF_INCLUDE_EARLY_ABI_H_ */
