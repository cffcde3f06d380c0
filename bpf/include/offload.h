/* The flow tier's decision about one frame, and what it does to it. Plain C over offload_abi.h's
 * tables, so that tests run it natively.
 *
 * sluice_offload_find4 and ..6 say whether the frame is forwarded here, and write nothing;
 * sluice_offload_rewrite4 and ..6 then make of it what a worker would
 * (userspace/dataplane/forward.cc, stages/nat, stages/rewrite), to the byte. All else is left to
 * the worker: fragments, options and extension headers, what is malformed, hops that expire,
 * packets larger than the MTU, TCP segments that change a connection's state, relays' with options
 * other than their timestamps. TCP and UDP checksums are not verified, as no router does; so unlike
 * conntrack in a worker this forwards a segment with a wrong one, and does not look at TCP's window.
 *
 * Between the two the caller trims the frame to find's `frame_bytes`, and sums up the L4 bytes
 * where `partial` says so. That is the checksum that senders on virtual links leave to the network
 * card (userspace/wire/partial_checksum.h has the rule and why it is sound).
 *
 * Checksum updates: RFC 1624, equation 3. Sums are of 16-bit words as they are in memory, which
 * only swaps the result's bytes (RFC 1071, 2B); little-endian machines only.
 *
 * Who includes this has declared before:
 *   const struct sluice_offload_entry4* sluice_offload_get4(const struct sluice_offload_key4* key);
 *   const struct sluice_offload_entry6* sluice_offload_get6(const struct sluice_offload_key6* key);
 *   const volatile struct sluice_offload_state* sluice_offload_get_state(void);
 *   struct sluice_offload_cell* sluice_offload_get_cell(__u32 index);
 *   const struct sluice_splice* sluice_offload_get_splice(__u32 id);
 *   __u32 sluice_offload_cpu(void);
 */
#ifndef SLUICE_BPF_INCLUDE_OFFLOAD_H_
#define SLUICE_BPF_INCLUDE_OFFLOAD_H_

#include "offload_abi.h"
#include "offload_tag.h"
#include "parse.h"

enum {
  SLUICE_OFFLOAD_TCP = 6,
  SLUICE_OFFLOAD_UDP = 17,
  /* Where things are in the frame: nothing between the headers, or a worker has it. */
  SLUICE_OFFLOAD_L3 = SLUICE_ETHERNET_SIZE,
  SLUICE_OFFLOAD_L4_OF_4 = SLUICE_OFFLOAD_L3 + 20,
  SLUICE_OFFLOAD_L4_OF_6 = SLUICE_OFFLOAD_L3 + 40,
};
/* NOP, NOP, timestamps (RFC 7323, appendix A), as they are in memory. */
#define SLUICE_OFFLOAD_TIMESTAMPS 0x0a080101u
/* L4 bytes that are summed up here, for a partial checksum: what is in one buffer of a page. */
#define SLUICE_OFFLOAD_SUM_MAX 4096u

/* What find found out about a frame. */
struct sluice_offload_packet {
  struct sluice_offload_cell* cell;
  struct sluice_offload_cell* numbers; /* of a splice: the cell that has them, of all CPUs */
  const struct sluice_splice* splice; /* null: the entry has none */
  __u32 ip_bytes;
  __u32 frame_bytes; /* without the padding */
  __u32 l4_bytes;
  __u32 ack; /* of a splice, as they came, in host order */
  __u32 end; /* of the data */
  __u8 protocol;
  __u8 partial; /* its TCP or UDP checksum */
  __u8 reserved[2];
};

/* Loads that need no alignment. The verifier, and the machines with BPF that have 64 bits, allow
 * them, but clang would take them apart.
 */
#ifdef __bpf__
typedef __u32 __attribute__((may_alias)) sluice_u32;
SLUICE_INLINE __u32 sluice_load32(const __u8* p) { return *(const sluice_u32*)p; }
SLUICE_INLINE void sluice_store32(__u8* p, __u32 v) { *(sluice_u32*)p = v; }
/* The copy is one: the compiler may not read the original again. */
#define SLUICE_OFFLOAD_COPIED(copy) __asm__ volatile("" : : "r"(copy) : "memory")
/* The compiler cannot tell where the pointer comes from: so it is the pointer that is compared with
 * null later on, and not what had made it null, of which the verifier does not know any longer. */
#define SLUICE_OFFLOAD_OPAQUE(pointer) __asm__ volatile("" : "+r"(pointer))
#else
SLUICE_INLINE __u32 sluice_load32(const __u8* p) {
  __u32 v;
  __builtin_memcpy(&v, p, sizeof(v));
  return v;
}
SLUICE_INLINE void sluice_store32(__u8* p, __u32 v) { __builtin_memcpy(p, &v, sizeof(v)); }
#define SLUICE_OFFLOAD_COPIED(copy) (void)(copy)
#define SLUICE_OFFLOAD_OPAQUE(pointer) (void)(pointer)
#endif
SLUICE_INLINE __u16 sluice_load16(const __u8* p) { return *(const sluice_u16*)p; }
SLUICE_INLINE void sluice_store16(__u8* p, __u16 v) { *(sluice_u16*)p = v; }

/* 16 bits; zero only for zero. `sum` is below 2^48. */
SLUICE_INLINE __u32 sluice_offload_fold(__u64 sum) {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return (__u32)((sum & 0xffff) + (sum >> 16));
}

SLUICE_INLINE __u64 sluice_offload_sum32(const __u8* p, __u32 words) {
  __u64 sum = 0;
  for (__u32 i = 0; i < words; ++i) sum += sluice_load32(p + 4 * i);
  return sum;
}

/* Whether an entry's copy is in force for a packet of this size: its cell, or null. */
SLUICE_INLINE struct sluice_offload_cell* sluice_offload_in_force(
    const struct sluice_offload_action* a, __u32 ip_bytes) {
  const volatile struct sluice_offload_state* state = sluice_offload_get_state();
  struct sluice_offload_cell* cell;
  if (!state || ip_bytes > a->mtu || a->world != state->world) return 0;
  if (a->routes[0] != state->routes[a->bucket[0] & (SLUICE_OFFLOAD_BUCKETS - 1)]) return 0;
  if (a->routes[1] != state->routes[a->bucket[1] & (SLUICE_OFFLOAD_BUCKETS - 1)]) return 0;
  cell = sluice_offload_get_cell(sluice_offload_cpu() * state->ids + a->id);
  if (!cell || !a->epoch || a->epoch != *(volatile __u32*)&cell->epoch) return 0;
  return cell;
}

/* TCP and UDP headers at `l4`, of which l4_bytes are the packet's: whether all of the header is
 * there, and a flow's packet does not need a worker. */
SLUICE_INLINE int sluice_offload_flow_l4(const __u8* l4, const __u8* end,
                                         const struct sluice_offload_packet* p) {
  __u32 size;
  if (p->protocol == SLUICE_OFFLOAD_TCP) {
    if (l4 + 20 > end) return 0;
    size = (l4[12] >> 4) * 4;
    /* ACK, with or without PSH; the low bits of byte 12 are flags too (RFC 9293, 3.1). */
    return size >= 20 && size <= p->l4_bytes && !(l4[12] & 15) && (l4[13] & ~8) == 0x10;
  }
  if (p->protocol != SLUICE_OFFLOAD_UDP || l4 + 8 > end) return 0;
  size = sluice_be16(l4 + 4);
  /* Shorter: the checksum is that of another length, and conntrack calls it wrong. */
  return size >= 8 && size == p->l4_bytes;
}

/* The worker's rule: the field equals the pseudo header's sum. As there, only the field itself need
 * be in the packet. */
SLUICE_INLINE int sluice_offload_is_partial(const __u8* l4, const __u8* end, __u64 addresses,
                                            const struct sluice_offload_packet* p) {
  const __u64 pseudo =
      addresses + (__u16)(p->protocol << 8) + __builtin_bswap16((__u16)p->l4_bytes);
  if (p->protocol == SLUICE_OFFLOAD_TCP) {
    if (p->l4_bytes < 18 || l4 + 18 > end) return 0;
    return sluice_load16(l4 + 16) == sluice_offload_fold(pseudo);
  }
  if (p->protocol != SLUICE_OFFLOAD_UDP || p->l4_bytes < 8 || l4 + 8 > end) return 0;
  return sluice_load16(l4 + 6) == sluice_offload_fold(pseudo);
}

/* The splice of an entry, into `copy`: whether it says all that becomes of this segment, whose only
 * options are its timestamps. */
SLUICE_INLINE int sluice_offload_find_splice(const __u8* l4, const __u8* end, __u32 id,
                                             struct sluice_offload_packet* p,
                                             struct sluice_splice* copy) {
  const struct sluice_splice* splice = sluice_offload_get_splice(id);
  if (!splice || p->protocol != SLUICE_OFFLOAD_TCP) return 0;
  __builtin_memcpy(copy, splice, sizeof(*copy));
  SLUICE_OFFLOAD_COPIED(copy);
  if (copy->timestamps) {
    if (l4 + 32 > end || l4[12] >> 4 != 8) return 0;
    if (sluice_load32(l4 + 20) != SLUICE_OFFLOAD_TIMESTAMPS) return 0;
  } else if (l4 + 20 > end || l4[12] >> 4 != 5) {
    return 0;
  }
  p->ack = __builtin_bswap32(sluice_load32(l4 + 8));
  p->end = __builtin_bswap32(sluice_load32(l4 + 4)) + p->l4_bytes - (copy->timestamps ? 32 : 20);
  splice = copy;
  SLUICE_OFFLOAD_OPAQUE(splice);
  p->splice = splice;
  return 1;
}

/* What is left to find once there is an entry, `a` its copy. */
SLUICE_INLINE int sluice_offload_may_go(const __u8* l4, const __u8* end,
                                        const struct sluice_offload_action* a,
                                        struct sluice_offload_packet* p,
                                        struct sluice_splice* copy) {
  p->splice = 0;
  /* First, as it is the id's of now; in force says that so was the entry's. */
  if (a->flags & SLUICE_OFFLOAD_SPLICE && !sluice_offload_find_splice(l4, end, a->id, p, copy))
    return 0;
  p->cell = sluice_offload_in_force(a, p->ip_bytes);
  p->numbers = p->splice ? sluice_offload_get_cell(a->id) : p->cell;
  return p->cell && p->numbers;
}

/* In the modes of routes: whether a source of this kind goes to the worker, who drops it or asks
 * further. */
SLUICE_INLINE int sluice_offload_odd_source4(const __u8* address) {
  const __u32 source = sluice_be32(address);
  const __u32 bit = SLUICE_OFFLOAD_OWN_BIT(source) & (SLUICE_OFFLOAD_OWN_BITS - 1);
  const volatile struct sluice_offload_state* state = sluice_offload_get_state();
  if (!state || source >> 24 == 0 || source >> 24 == 127 || source >> 28 >= 14) return 1;
  return state->own4[bit >> 6] >> (bit & 63) & 1;
}
SLUICE_INLINE int sluice_offload_odd6(const __u8* address) {
  if (address[0] == 0xff) return 1;
  if (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) return 1;
  if (sluice_load32(address) | sluice_load32(address + 4) | sluice_load32(address + 8)) return 0;
  /* :: and ::1 */
  return !(sluice_load32(address + 12) & __builtin_bswap32(0xfffffffe));
}
/* Extension headers, as wire/ipv6_extensions.h knows them: what is behind them may be TCP. */
SLUICE_INLINE int sluice_offload_is_extension(__u32 next_header) {
  return next_header == 0 || next_header == 43 || next_header == 44 || next_header == 51 ||
         next_header == 60;
}

/* The packet's connection, which flow_l4 has found. */
SLUICE_INLINE void sluice_offload_connection4(const __u8* ip, __u32 protocol,
                                              struct sluice_offload_key4* key) {
  key->source = sluice_load32(ip + 12);
  key->source_port = sluice_load16(ip + 20);
  key->destination_port = sluice_load16(ip + 22);
  key->protocol = (__u8)protocol;
}
SLUICE_INLINE void sluice_offload_connection6(const __u8* ip, __u32 protocol,
                                              struct sluice_offload_key6* key) {
  for (__u32 i = 0; i < 4; ++i) key->source[i] = sluice_load32(ip + 8 + 4 * i);
  key->source_port = sluice_load16(ip + 40);
  key->destination_port = sluice_load16(ip + 42);
  key->protocol = (__u8)protocol;
}

/* The entry that the packet goes by, copied to `out`; false: none. In the modes of routes a relay's
 * is found at the second attempt, as no route leads to an address of ours. */
SLUICE_INLINE int sluice_offload_lookup4(const __u8* ip, const __u8* end, __u32 word,
                                         const struct sluice_offload_packet* p,
                                         struct sluice_offload_entry4* out) {
  const __u32 mode = SLUICE_OFFLOAD_MODE4(word);
  struct sluice_offload_key4 key __attribute__((aligned(8))) = {0};
  const struct sluice_offload_entry4* entry;
  key.slot = SLUICE_OFFLOAD_SLOT(word);
  key.destination = sluice_load32(ip + 16);
  if (mode == SLUICE_OFFLOAD_FLOW) {
    if (!sluice_offload_flow_l4(ip + 20, end, p)) return 0;
    sluice_offload_connection4(ip, p->protocol, &key);
  } else {
    if (sluice_offload_odd_source4(ip + 12)) return 0;
    if (mode == SLUICE_OFFLOAD_PAIR) key.source = sluice_load32(ip + 12);
  }
  entry = sluice_offload_get4(&key);
  if (!entry && word & SLUICE_OFFLOAD_RELAYS && mode != SLUICE_OFFLOAD_FLOW) {
    if (!sluice_offload_flow_l4(ip + 20, end, p)) return 0;
    sluice_offload_connection4(ip, p->protocol, &key);
    entry = sluice_offload_get4(&key);
  }
  if (!entry) return 0;
  __builtin_memcpy(out, entry, sizeof(*out));
  SLUICE_OFFLOAD_COPIED(out);
  if (out->action.tag != sluice_offload_tag4(&key, out)) return 0;
  return !key.protocol || mode == SLUICE_OFFLOAD_FLOW || out->action.flags & SLUICE_OFFLOAD_RELAY;
}

SLUICE_INLINE int sluice_offload_lookup6(const __u8* ip, const __u8* end, __u32 word,
                                         const struct sluice_offload_packet* p,
                                         struct sluice_offload_entry6* out) {
  const __u32 mode = SLUICE_OFFLOAD_MODE6(word);
  struct sluice_offload_key6 key __attribute__((aligned(8))) = {0};
  const struct sluice_offload_entry6* entry;
  key.slot = SLUICE_OFFLOAD_SLOT(word);
  for (__u32 i = 0; i < 4; ++i) key.destination[i] = sluice_load32(ip + 24 + 4 * i);
  if (mode == SLUICE_OFFLOAD_FLOW) {
    if (!sluice_offload_flow_l4(ip + 40, end, p)) return 0;
    sluice_offload_connection6(ip, p->protocol, &key);
  } else {
    if (sluice_offload_is_extension(p->protocol)) return 0;
    if (sluice_offload_odd6(ip + 8) || sluice_offload_odd6(ip + 24)) return 0;
    if (mode == SLUICE_OFFLOAD_PAIR) {
      for (__u32 i = 0; i < 4; ++i) key.source[i] = sluice_load32(ip + 8 + 4 * i);
    }
  }
  entry = sluice_offload_get6(&key);
  if (!entry && word & SLUICE_OFFLOAD_RELAYS && mode != SLUICE_OFFLOAD_FLOW) {
    if (!sluice_offload_flow_l4(ip + 40, end, p)) return 0;
    sluice_offload_connection6(ip, p->protocol, &key);
    entry = sluice_offload_get6(&key);
  }
  if (!entry) return 0;
  __builtin_memcpy(out, entry, sizeof(*out));
  SLUICE_OFFLOAD_COPIED(out);
  if (out->action.tag != sluice_offload_tag6(&key, out)) return 0;
  return !key.protocol || mode == SLUICE_OFFLOAD_FLOW || out->action.flags & SLUICE_OFFLOAD_RELAY;
}

/* 0: to the worker. Else `p` and `out`, the entry's copy, say what is to be done; p->splice is
 * `splice` where the entry has one. `data` is the Ethernet header of an IPv4 frame that
 * sluice_classify gave to the worker, in one buffer. */
SLUICE_INLINE int sluice_offload_find4(const __u8* data, const __u8* end, __u32 word,
                                       struct sluice_offload_packet* p,
                                       struct sluice_offload_entry4* out,
                                       struct sluice_splice* splice) {
  const __u32 mode = SLUICE_OFFLOAD_MODE4(word);
  const __u8* const ip = data + SLUICE_OFFLOAD_L3;
  const __u8* const l4 = data + SLUICE_OFFLOAD_L4_OF_4;
  if (!mode || mode > SLUICE_OFFLOAD_PAIR || l4 > end) return 0;
  if (ip[0] != 0x45 || sluice_be16(ip + 6) & 0x3fff || ip[8] <= 1) return 0;
  p->ip_bytes = sluice_be16(ip + 2);
  if (p->ip_bytes < 20 || p->ip_bytes > (__u32)(end - ip)) return 0;
  if (sluice_offload_fold(sluice_offload_sum32(ip, 5)) != 0xffff) return 0;
  p->frame_bytes = p->ip_bytes + SLUICE_OFFLOAD_L3;
  p->l4_bytes = p->ip_bytes - 20;
  p->protocol = ip[9];
  if (!sluice_offload_lookup4(ip, end, word, p, out)) return 0;
  if (!sluice_offload_may_go(l4, end, &out->action, p, splice)) return 0;
  p->partial = SLUICE_OFFLOAD_COMPLETE(word) &&
               sluice_offload_is_partial(l4, end, sluice_offload_sum32(ip + 12, 2), p);
  return !p->partial || p->l4_bytes <= SLUICE_OFFLOAD_SUM_MAX;
}

/* The same for IPv6. */
SLUICE_INLINE int sluice_offload_find6(const __u8* data, const __u8* end, __u32 word,
                                       struct sluice_offload_packet* p,
                                       struct sluice_offload_entry6* out,
                                       struct sluice_splice* splice) {
  const __u32 mode = SLUICE_OFFLOAD_MODE6(word);
  const __u8* const ip = data + SLUICE_OFFLOAD_L3;
  const __u8* const l4 = data + SLUICE_OFFLOAD_L4_OF_6;
  if (!mode || mode > SLUICE_OFFLOAD_PAIR || l4 > end) return 0;
  p->l4_bytes = sluice_be16(ip + 4);
  if (ip[0] >> 4 != 6 || !p->l4_bytes || ip[7] <= 1) return 0;
  p->ip_bytes = p->l4_bytes + 40;
  if (p->ip_bytes > (__u32)(end - ip)) return 0;
  p->frame_bytes = p->ip_bytes + SLUICE_OFFLOAD_L3;
  p->protocol = ip[6];
  if (!sluice_offload_lookup6(ip, end, word, p, out)) return 0;
  if (!sluice_offload_may_go(l4, end, &out->action, p, splice)) return 0;
  p->partial = SLUICE_OFFLOAD_COMPLETE(word) &&
               sluice_offload_is_partial(l4, end, sluice_offload_sum32(ip + 8, 8), p);
  return !p->partial || p->l4_bytes <= SLUICE_OFFLOAD_SUM_MAX;
}

/* A number in the packet grows: what that adds to a sum of 16-bit words. */
SLUICE_INLINE __u64 sluice_offload_add32(__u8* at, __u32 difference) {
  const __u32 before = sluice_load32(at);
  const __u32 after = __builtin_bswap32(__builtin_bswap32(before) + difference);
  sluice_store32(at, after);
  return (__u64)(__u32)~before + after;
}

/* TCP's header by its splice; `delta` grows by what that adds to the sum behind the checksum.
 * False, and nothing is written, when it is not in the frame. */
SLUICE_INLINE int sluice_offload_rewrite_tcp(__u8* l4, const __u8* end,
                                             const struct sluice_splice* splice, __u64* delta) {
  __u32 window, before;
  if (splice->timestamps) {
    if (l4 + 32 > end) return 0;
    *delta += sluice_offload_add32(l4 + 24, splice->tsval);
    *delta += sluice_offload_add32(l4 + 28, splice->tsecr);
  } else if (l4 + 20 > end) {
    return 0;
  }
  *delta += sluice_offload_add32(l4 + 4, splice->seq);
  *delta += sluice_offload_add32(l4 + 8, splice->ack);
  before = sluice_load16(l4 + 14);
  window = (__u32)__builtin_bswap16((__u16)before) << (splice->window_left & 15);
  if (window > 0xffff) window = 0xffff;
  window = __builtin_bswap16((__u16)(window >> (splice->window_right & 15)));
  sluice_store16(l4 + 14, (__u16)window);
  *delta += (~before & 0xffff) + window;
  return 1;
}

/* The L4 header's checksum and ports. `sum` is that of the L4 bytes, for a partial checksum. False,
 * and nothing is written, when they are not in the frame, which find has excluded. */
SLUICE_INLINE int sluice_offload_rewrite_l4(__u8* l4, const __u8* end, __u32 sum,
                                            const struct sluice_offload_packet* p,
                                            const struct sluice_offload_action* a) {
  const int udp = p->protocol == SLUICE_OFFLOAD_UDP;
  __u64 delta = a->l4_delta;
  __u8* field;
  __u32 check;
  if (!p->partial && !(a->flags & SLUICE_OFFLOAD_REWRITE)) return 1;
  if (udp) {
    if (l4 + 8 > end) return 0;
    field = l4 + 6;
  } else {
    if (l4 + 18 > end) return 0;
    field = l4 + 16;
  }
  if (p->splice && !sluice_offload_rewrite_tcp(l4, end, p->splice, &delta)) return 0;
  check = sluice_load16(field);
  if (p->partial) {
    check = ~sum & 0xffff;
    if (!check) check = 0xffff;
  }
  if (a->flags & SLUICE_OFFLOAD_REWRITE) {
    if (!udp || check) {
      check = ~sluice_offload_fold((~check & 0xffff) + delta) & 0xffff;
      if (udp && !check) check = 0xffff;
    }
    sluice_store16(l4, a->source_port);
    sluice_store16(l4 + 2, a->destination_port);
  }
  sluice_store16(field, (__u16)check);
  return 1;
}

/* What the TTL, or the hop limit, becomes. */
SLUICE_INLINE __u32 sluice_offload_hops(__u32 hops, const struct sluice_offload_action* a) {
  return a->flags & SLUICE_OFFLOAD_RELAY ? SLUICE_OFFLOAD_RELAY_TTL : hops - 1;
}

SLUICE_INLINE void sluice_offload_link(__u8* data, const struct sluice_offload_action* a) {
  __builtin_memcpy(data, a->link, sizeof(a->link));
}

/* Writes. `sum` is the folded sum of the L4 bytes where p->partial, and else is not looked at. The
 * frame ends with the packet. 0, without a change: it is shorter than find has seen it. */
SLUICE_INLINE int sluice_offload_rewrite4(__u8* data, const __u8* end, __u32 sum,
                                          const struct sluice_offload_packet* p,
                                          const struct sluice_offload_entry4* e) {
  __u8* const ip = data + SLUICE_OFFLOAD_L3;
  __u32 ttl;
  __u64 l3;
  if (data + SLUICE_OFFLOAD_L4_OF_4 > end) return 0;
  if (!sluice_offload_rewrite_l4(data + SLUICE_OFFLOAD_L4_OF_4, end, sum, p, &e->action)) return 0;
  ttl = sluice_offload_hops(ip[8], &e->action);
  /* The TTL is the low byte of its word, as it is in memory. */
  l3 = (__u64)(~sluice_load16(ip + 10) & 0xffff) + 0xffff + ttl - ip[8];
  if (e->action.flags & SLUICE_OFFLOAD_REWRITE) {
    l3 += e->action.l3_delta;
    sluice_store32(ip + 12, e->source);
    sluice_store32(ip + 16, e->destination);
  }
  sluice_store16(ip + 10, (__u16)~sluice_offload_fold(l3));
  ip[8] = (__u8)ttl;
  sluice_offload_link(data, &e->action);
  return 1;
}

SLUICE_INLINE int sluice_offload_rewrite6(__u8* data, const __u8* end, __u32 sum,
                                          const struct sluice_offload_packet* p,
                                          const struct sluice_offload_entry6* e) {
  __u8* const ip = data + SLUICE_OFFLOAD_L3;
  if (data + SLUICE_OFFLOAD_L4_OF_6 > end) return 0;
  if (!sluice_offload_rewrite_l4(data + SLUICE_OFFLOAD_L4_OF_6, end, sum, p, &e->action)) return 0;
  if (e->action.flags & SLUICE_OFFLOAD_REWRITE) {
    for (__u32 i = 0; i < 4; ++i) {
      sluice_store32(ip + 8 + 4 * i, e->source[i]);
      sluice_store32(ip + 24 + 4 * i, e->destination[i]);
    }
  }
  ip[7] = (__u8)sluice_offload_hops(ip[7], &e->action);
  sluice_offload_link(data, &e->action);
  return 1;
}

/* What the segment's numbers say of how far a splice has come. Nobody has looked at windows: where one
 * of both is far from what was there, it is a stranger's, or damaged. */
SLUICE_INLINE void sluice_offload_note(const struct sluice_offload_packet* p) {
  const __u32 end = p->end - p->numbers->last_end;
  const __u32 ack = p->ack - p->numbers->last_ack;
  if (end + SLUICE_SPLICE_NEAR > 2 * SLUICE_SPLICE_NEAR) return;
  if (ack + SLUICE_SPLICE_NEAR > 2 * SLUICE_SPLICE_NEAR) return;
  if ((__s32)end > 0) p->numbers->last_end = p->end;
  if ((__s32)ack > 0) p->numbers->last_ack = p->ack;
}

/* Counts the packet, which is on its way. Its numbers come first: user space looks for new ones only
 * where there are new packets. */
SLUICE_INLINE void sluice_offload_count(const struct sluice_offload_packet* p) {
  if (p->splice) sluice_offload_note(p);
  p->cell->bytes += p->ip_bytes;
  if (p->partial) ++p->cell->completed;
  ++p->cell->packets;
}

#endif /* SLUICE_BPF_INCLUDE_OFFLOAD_H_ */
