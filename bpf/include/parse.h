/* A bounds-checked cursor over a frame, and the few headers that XDP has to look at.
 *
 * Written for the verifier: every read is preceded by a comparison of the very pointer it uses with
 * the end. It is plain C, so tests compile it natively and hold it against userspace/wire.
 * Values are in host order. Nothing is written, nothing is allocated.
 *
 * Formats: IEEE 802.3 and 802.1Q, RFC 791, RFC 8200, RFC 4443.
 */
#ifndef SLUICE_BPF_INCLUDE_PARSE_H_
#define SLUICE_BPF_INCLUDE_PARSE_H_

#include <linux/types.h>

#define SLUICE_INLINE static inline __attribute__((always_inline))

struct sluice_cursor {
  const __u8* at;
  const __u8* end;
};

/* The next `size` bytes, or null when the frame (its first buffer) ends before. `size` is a
 * constant at each call.
 */
SLUICE_INLINE const __u8* sluice_take(struct sluice_cursor* c, __u32 size) {
  const __u8* p = c->at;
  if (p + size > c->end) return 0;
  c->at = p + size;
  return p;
}

/* Byte by byte, since nothing is aligned; the compiler makes one load of it natively. */
SLUICE_INLINE __u16 sluice_be16(const __u8* p) { return (__u16)((p[0] << 8) | p[1]); }
SLUICE_INLINE __u32 sluice_be32(const __u8* p) {
  return ((__u32)p[0] << 24) | ((__u32)p[1] << 16) | ((__u32)p[2] << 8) | p[3];
}
/* Six bytes as they are in memory, in the low 48 bits (little-endian machines only). A frame begins
 * at an even address.
 */
typedef __u16 __attribute__((may_alias)) sluice_u16;
SLUICE_INLINE __u64 sluice_mac(const __u8* p) {
  const sluice_u16* words = (const sluice_u16*)p;
  return (__u64)words[0] | (__u64)words[1] << 16 | (__u64)words[2] << 32;
}

enum {
  SLUICE_ETHERTYPE_IPV4 = 0x0800,
  SLUICE_ETHERTYPE_ARP = 0x0806,
  SLUICE_ETHERTYPE_VLAN = 0x8100,
  SLUICE_ETHERTYPE_QINQ = 0x88a8,
  SLUICE_ETHERTYPE_IPV6 = 0x86dd,
  SLUICE_PROTOCOL_UDP = 17,
  SLUICE_PROTOCOL_FRAGMENT = 44,
  SLUICE_PROTOCOL_ICMPV6 = 58,
  SLUICE_ICMPV6_NS = 135,
  SLUICE_ICMPV6_NA = 136,
};
#define SLUICE_ETHERNET_SIZE 14
#define SLUICE_MAC_BROADCAST 0xffffffffffffULL

struct sluice_ethernet {
  __u64 destination; /* see sluice_mac */
  __u16 ether_type;
  __u8 multicast; /* to a group, or to all */
};

/* 0, or -1 when the frame is too short. */
SLUICE_INLINE int sluice_parse_ethernet(struct sluice_cursor* c, struct sluice_ethernet* out) {
  const __u8* p = sluice_take(c, SLUICE_ETHERNET_SIZE);
  if (!p) return -1;
  out->destination = sluice_mac(p);
  out->ether_type = sluice_be16(p + 12);
  out->multicast = p[0] & 1;
  return 0;
}

struct sluice_ipv4 {
  __u32 source;
  __u32 destination;
  __u8 version;
  __u8 header_words; /* IHL; a valid header has at least 5 */
  __u8 protocol;
};

/* Reads the fixed 20 bytes; what they say is not judged here. */
SLUICE_INLINE int sluice_parse_ipv4(struct sluice_cursor* c, struct sluice_ipv4* out) {
  const __u8* p = sluice_take(c, 20);
  if (!p) return -1;
  out->version = p[0] >> 4;
  out->header_words = p[0] & 15;
  out->protocol = p[9];
  out->source = sluice_be32(p + 12);
  out->destination = sluice_be32(p + 16);
  return 0;
}

struct sluice_ipv6 {
  __u8 version;
  __u8 next_header;
  __u8 multicast; /* destination in ff00::/8 */
};

SLUICE_INLINE int sluice_parse_ipv6(struct sluice_cursor* c, struct sluice_ipv6* out) {
  const __u8* p = sluice_take(c, 40);
  if (!p) return -1;
  out->version = p[0] >> 4;
  out->next_header = p[6];
  out->multicast = p[24] == 0xff;
  return 0;
}

#endif /* SLUICE_BPF_INCLUDE_PARSE_H_ */
