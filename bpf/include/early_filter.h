/* The early filter's decision about one frame that is otherwise a worker's: dropped, and why, or
 * not. Plain C over early_abi.h's tables, so that tests run it natively.
 *
 * Order, as in the kernel: what ip_rcv_core and ip6_rcv_core drop (also before ingress chains,
 * which have nothing to say about a broken header), the rules of ingress and then of prerouting
 * chains, and what ip_route_input drops by the addresses alone. A header checksum costs more than
 * all the rest, so it is looked at only when a prerouting rule is about to have an effect.
 *
 * Not judged here, but by workers as if there were no early filter: IPv6 with extension headers,
 * and, by prerouting rules, fragments when the kernel would have reassembled them before
 * (userspace/tables/early_program.h has that as a predicate). This is a fixed rule, so that a
 * packet is judged exactly once.
 *
 * Who includes this has declared before:
 *   const struct sluice_early_line* sluice_early_get_line(__u32 number);
 *   __u32 sluice_early_class6(__u32 trie, const __u8* address);
 *   struct sluice_early_bucket* sluice_early_rule_bucket(__u32 index);
 *   struct sluice_early_bucket* sluice_early_source_bucket(const struct sluice_early_source* key);
 *   __u64 sluice_early_now(void);
 *   __u32 sluice_early_decide_rest(struct sluice_early_packet* p);
 * and defines the last: sluice_early_step until it says that this was all, SLUICE_EARLY_RULES times
 * at most.
 */
#ifndef SLUICE_BPF_INCLUDE_EARLY_FILTER_H_
#define SLUICE_BPF_INCLUDE_EARLY_FILTER_H_

#include "early_abi.h"
#include "parse.h"

#define SLUICE_EARLY_PASS ((__u32)SLUICE_XDP_REASON_COUNT)
#define SLUICE_EARLY_WHOLE_FRAME 0xffffffffu

/* The kernel's fast path for loads of one, two or four bytes (nft_payload_fast_eval) does not ask
 * whether the packet is a later fragment, and takes what it carries for an L4 header. So does this.
 */
struct sluice_early_frame {
  const __u8* l4;
  const __u8* end;
};

/* For an index that the compiler knows to be in bounds and Linux 6.1's verifier does not (it loses
 * them when bits are put together).
 */
SLUICE_INLINE __u32 sluice_early_bounded(__u32 value, __u32 mask) {
  __asm__ volatile("" : "+r"(value));
  return value & mask;
}

/* The class that an entry of the hash gives an address. */
SLUICE_INLINE __u32 sluice_early_class_of_entry(__u64 entry, __u32 address, __u32 otherwise) {
  const __u32 value = (__u32)entry;
  const __u32 low = address & 255;
  const __u32 kind = entry >> 32 & 255;
  const struct sluice_early_line* line;
  if (kind == SLUICE_EARLY_RANGE)
    return low >= (value & 255) && low <= (value >> 8 & 255) ? value >> 24 : value >> 16 & 255;
  if (kind == SLUICE_EARLY_BITS) {
    const struct sluice_early_bits* bits;
    line = sluice_early_get_line(value);
    if (!line) return otherwise;
    bits = (const struct sluice_early_bits*)line;
    return bits->bits[low >> 6] >> (low & 63) & 1 ? bits->b : bits->a;
  }
  line = sluice_early_get_line(value + (low >> 6));
  return line ? line->bytes[low & 63] : otherwise;
}

SLUICE_INLINE __u32 sluice_early_class_in_hash(const struct sluice_early_table4* table,
                                               __u32 address, __u32 otherwise) {
  const __u32 key = address >> 8;
  for (__u32 i = 0; i < SLUICE_EARLY_PROBES; ++i) {
    const struct sluice_early_line* line =
        sluice_early_get_line(table->hash + (SLUICE_EARLY_PLACE(key, i) & table->hash_mask));
    if (!line) return otherwise;
    for (__u32 at = 0; at < 8; ++at) {
      const __u64 entry = line->longs[at];
      if (!entry) return otherwise;
      if (entry >> 40 == key) return sluice_early_class_of_entry(entry, address, otherwise);
    }
  }
  return otherwise;
}

SLUICE_INLINE __u32 sluice_early_class4(const struct sluice_early_table4* table, __u32 address) {
  const struct sluice_early_line* line = sluice_early_get_line(table->root + (address >> 20));
  __u32 word, number, code;
  if (!line) return 0;
  word = line->words[address >> 16 & 15];
  number = word & 0xffff;
  if (number == SLUICE_EARLY_ALL_A) return word >> 16 & 255;
  if (number != SLUICE_EARLY_IN_HASH) {
    line = sluice_early_get_line(table->lines + number);
    if (!line) return 0;
    code = line->longs[address >> 13 & 7] >> (address >> 7 & 62) & 3;
    if (code == SLUICE_EARLY_CODE_A) return word >> 16 & 255;
    if (code == SLUICE_EARLY_CODE_B) return word >> 24;
  }
  return sluice_early_class_in_hash(table, address, word >> 16 & 255);
}

/* The rules that L4 bytes satisfy, of which the first `bytes` count. */
SLUICE_INLINE __u64 sluice_early_l4_rules(const struct sluice_early_core* core, const __u8* l4,
                                          const __u8* end, __u32 bytes) {
  __u64 rules = ~0ull;
  rules &= bytes >= 1 && l4 + 1 <= end ? core->byte0_rules[l4[0]] : core->no_byte0;
  rules &= bytes >= 2 && l4 + 2 <= end ? core->byte1_rules[l4[1]] : core->no_byte1;
  if (core->has_port[0]) {
    rules &=
        bytes >= 2 && l4 + 2 <= end
            ? core->port_rules[0]
                              [core->port_classes[0][sluice_early_bounded(sluice_be16(l4), 0xffff)]]
            : core->no_port[0];
  }
  if (core->has_port[1]) {
    rules &= bytes >= 4 && l4 + 4 <= end
                 ? core->port_rules[1][core->port_classes[1][sluice_early_bounded(
                       sluice_be16(l4 + 2), 0xffff)]]
                 : core->no_port[1];
  }
  return rules & (bytes >= 14 && l4 + 14 <= end ? core->flags_rules[l4[13]] : core->no_flags);
}

/* Restricts `rules` by what is behind the IP header. An ingress chain still sees Ethernet's
 * padding, a prerouting chain no more.
 */
SLUICE_INLINE __u64 sluice_early_match_l4(const struct sluice_early_core* core, __u64 rules,
                                          const struct sluice_early_frame* f,
                                          const struct sluice_early_packet* p) {
  __u64 ingress = rules & core->ingress_rules;
  __u64 prerouting = rules & ~core->ingress_rules;
  if (!(rules & core->l4_rules)) return rules;
  if (ingress) ingress &= sluice_early_l4_rules(core, f->l4, f->end, SLUICE_EARLY_WHOLE_FRAME);
  if (prerouting) prerouting &= sluice_early_l4_rules(core, f->l4, f->end, p->l4_bytes);
  return ingress | prerouting;
}

SLUICE_INLINE __u32 sluice_early_sum16(const __u8* p, __u32 words) {
  const sluice_u16* at = (const sluice_u16*)p;
  __u32 sum = 0;
  for (__u32 i = 0; i < words; ++i) sum += at[i];
  return sum;
}

/* Whether the header checksum is right. `ip` has 20 bytes before `end`. */
SLUICE_INLINE int sluice_early_checksum_is_right(const __u8* ip, const __u8* end, __u32 size) {
  __u32 sum = sluice_early_sum16(ip, 10);
  const __u8* option = ip + 20;
  for (__u32 at = 20; at < 60; at += 4) {
    if (at >= size) break;
    /* Or the compiler would compute with `end`, which the verifier forbids. */
    __asm__ volatile("" : "+r"(option));
    if (option + 4 > end) return 0;
    sum += sluice_early_sum16(option, 2);
    option += 4;
  }
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return sum == 0xffff;
}

/* Takes one packet from the bucket. 0: it has none left. nft_limit_eval's arithmetic: a bucket of
 * `depth` nanoseconds, refilled by time, from which a packet takes `cost`. Several CPUs may take at
 * once; one that loses the race four times in a row goes by what it saw, without taking.
 */
SLUICE_INLINE int sluice_early_take(struct sluice_early_bucket* bucket,
                                    const struct sluice_early_rule* rule, __u64 now) {
  /* Far from 0, as a bucket may be deeper than the machine has been up. */
  const __u64 empty_at = now + (1ull << 62);
  for (int i = 0; i < 4; ++i) {
    const __u64 seen = *(volatile __u64*)&bucket->paid_until_ns;
    const __u64 full = empty_at - rule->depth_ns;
    const __u64 next = (seen < full ? full : seen) + rule->cost_ns;
    if (next > empty_at) return 0;
    if (__sync_val_compare_and_swap(&bucket->paid_until_ns, seen, next) == seen) return 1;
  }
  return 1;
}

/* Whether the rule's limit lets it match. */
SLUICE_INLINE int sluice_early_limit(const struct sluice_early_rule* rule,
                                     struct sluice_early_source* source) {
  struct sluice_early_bucket* bucket;
  if (rule->limit == SLUICE_EARLY_LIMIT_RULE) {
    bucket = sluice_early_rule_bucket(rule->bucket);
  } else {
    source->bucket = rule->bucket;
    bucket = sluice_early_source_bucket(source);
  }
  if (!bucket) return 0; /* no memory for a new sender: nf_tables breaks the rule off as well */
  return sluice_early_take(bucket, rule, sluice_early_now()) != rule->over;
}

SLUICE_INLINE void sluice_early_count_packet(const struct sluice_early_core* core, __u32 number,
                                             const struct sluice_early_packet* p,
                                             struct sluice_xdp_stats* stats) {
  struct sluice_early_count* count =
      &stats->early[core->rules[number].slot & (SLUICE_EARLY_COUNTERS - 1)];
  ++count->packets;
  count->bytes += core->ingress_rules >> number & 1 ? p->frame_bytes : p->ip_bytes;
}

/* The number of the lowest bit, without branches, which would multiply the verifier's work. (clang
 * 14 has no code for __builtin_ctzll.) Counts the bits below it, as in Hacker's Delight 5-1.
 */
SLUICE_INLINE __u32 sluice_early_lowest(__u64 rules) {
  __u64 below = (rules & (0 - rules)) - 1;
  below -= below >> 1 & 0x5555555555555555ull;
  below = (below & 0x3333333333333333ull) + (below >> 2 & 0x3333333333333333ull);
  below = (below + (below >> 4)) & 0x0f0f0f0f0f0f0f0full;
  return (__u32)((below * 0x0101010101010101ull) >> 56) & (SLUICE_EARLY_RULES - 1);
}

struct sluice_early_decision {
  const struct sluice_early_core* core;
  struct sluice_early_packet* packet;
  struct sluice_xdp_stats* stats;
  __u32 reason;
};

/* Carries out the first of the rules that match, packet->rules. Whether that was all. */
SLUICE_INLINE int sluice_early_step(struct sluice_early_decision* d) {
  struct sluice_early_packet* p = d->packet;
  const struct sluice_early_core* core = d->core;
  const struct sluice_early_rule* rule;
  __u32 number;
  if (!p->rules) return 1;
  number = sluice_early_lowest(p->rules);
  p->rules &= p->rules - 1;
  rule = &core->rules[number];
  if (rule->limit != SLUICE_EARLY_NO_LIMIT) {
    if (rule->count == SLUICE_EARLY_COUNT_FIRST)
      sluice_early_count_packet(core, number, p, d->stats);
    if (!sluice_early_limit(rule, &p->source)) return 0;
    if (rule->count != SLUICE_EARLY_COUNT_FIRST)
      sluice_early_count_packet(core, number, p, d->stats);
  } else {
    sluice_early_count_packet(core, number, p, d->stats);
  }
  if (rule->action == SLUICE_EARLY_DROP) {
    d->reason =
        rule->limit == SLUICE_EARLY_NO_LIMIT ? SLUICE_XDP_EARLY_RULE : SLUICE_XDP_RATE_LIMIT;
    return 1;
  }
  if (rule->action == SLUICE_EARLY_END_OF_CHAIN) p->rules &= rule->rest;
  return 0;
}

/* Carries out the rules that match: at once when the first one is to drop, which a flood meets,
 * else by a function of its own.
 */
SLUICE_INLINE __u32 sluice_early_decide(const struct sluice_early_core* core,
                                        struct sluice_early_packet* p,
                                        struct sluice_xdp_stats* stats) {
  const __u32 number = sluice_early_lowest(p->rules);
  const struct sluice_early_rule* rule = &core->rules[number];
  if (rule->limit != SLUICE_EARLY_NO_LIMIT || rule->action != SLUICE_EARLY_DROP)
    return sluice_early_decide_rest(p);
  sluice_early_count_packet(core, number, p, stats);
  return SLUICE_XDP_EARLY_RULE;
}

SLUICE_INLINE __u32 sluice_early_martian4(__u32 flags, __u32 source, __u32 destination) {
  if (!(flags & SLUICE_EARLY_MARTIANS)) return SLUICE_EARLY_PASS;
  if (source >> 28 == 14 || source == 0xffffffff) return SLUICE_XDP_MARTIAN_SOURCE;
  if (!source) return destination ? (__u32)SLUICE_XDP_MARTIAN_SOURCE : SLUICE_EARLY_PASS;
  if (!destination) return SLUICE_XDP_MARTIAN_DESTINATION;
  if (!(flags & SLUICE_EARLY_LOOPBACK)) return SLUICE_EARLY_PASS;
  if (destination >> 24 == 127) return SLUICE_XDP_MARTIAN_DESTINATION;
  return source >> 24 == 127 ? (__u32)SLUICE_XDP_MARTIAN_SOURCE : SLUICE_EARLY_PASS;
}

/* The rules for an IPv4 packet whose header is sound; `ip` has 20 bytes before f->end. */
SLUICE_INLINE __u32 sluice_early_rules4(const struct sluice_early_core* core, const __u8* ip,
                                        __u32 header_size, struct sluice_early_frame* f,
                                        struct sluice_early_packet* p,
                                        struct sluice_xdp_stats* stats) {
  const __u32 fragment = sluice_be16(ip + 6);
  __u64 rules = core->family_rules[SLUICE_EARLY_IPV4] & core->protocol_rules[ip[9]];
  rules &= core->fragment_rules[sluice_early_bounded(
      fragment >> 13 << 1 | ((fragment & 0x1fff) != 0), 15)];
  if (!rules) return SLUICE_EARLY_PASS;
  if (core->has_address[SLUICE_EARLY_SRC4]) {
    rules &= core->address_rules[SLUICE_EARLY_SRC4]
                                [sluice_early_class4(&core->table4[0], sluice_be32(ip + 12)) & 255];
    if (!rules) return SLUICE_EARLY_PASS;
  }
  if (core->has_address[SLUICE_EARLY_DST4]) {
    rules &= core->address_rules[SLUICE_EARLY_DST4]
                                [sluice_early_class4(&core->table4[1], sluice_be32(ip + 16)) & 255];
    if (!rules) return SLUICE_EARLY_PASS;
  }
  f->l4 = ip + header_size;
  rules = sluice_early_match_l4(core, rules, f, p);
  /* The kernel's prerouting chains never see a packet with a wrong header checksum. */
  if ((rules & ~core->ingress_rules) && !sluice_early_checksum_is_right(ip, f->end, header_size))
    rules &= core->ingress_rules;
  if (!rules) return SLUICE_EARLY_PASS;
  __builtin_memset(&p->source, 0, sizeof(p->source));
  __builtin_memcpy(p->source.address, ip + 12, 4);
  p->rules = rules;
  return sluice_early_decide(core, p, stats);
}

SLUICE_INLINE __u32 sluice_early_ipv4(const struct sluice_early_core* core, __u32 flags,
                                      const __u8* ip, struct sluice_early_frame* f,
                                      struct sluice_early_packet* p,
                                      struct sluice_xdp_stats* stats) {
  __u32 header_size, reason;
  if (ip + 20 > f->end) return SLUICE_EARLY_PASS;
  header_size = (ip[0] & 15) * 4;
  p->ip_bytes = sluice_be16(ip + 2);
  if (ip[0] >> 4 != 4 || header_size < 20 || ip + header_size > f->end)
    return flags & SLUICE_EARLY_HEADERS ? (__u32)SLUICE_XDP_IPV4_HEADER : SLUICE_EARLY_PASS;
  if (p->frame_bytes < p->ip_bytes)
    return flags & SLUICE_EARLY_HEADERS ? (__u32)SLUICE_XDP_IPV4_TRUNCATED : SLUICE_EARLY_PASS;
  if (p->ip_bytes < header_size)
    return flags & SLUICE_EARLY_HEADERS ? (__u32)SLUICE_XDP_IPV4_HEADER : SLUICE_EARLY_PASS;
  p->l4_bytes = p->ip_bytes - header_size;
  if (core) {
    reason = sluice_early_rules4(core, ip, header_size, f, p, stats);
    if (reason != SLUICE_EARLY_PASS) return reason;
  }
  return sluice_early_martian4(flags, sluice_be32(ip + 12), sluice_be32(ip + 16));
}

/* Extension headers as ipv6_ext_hdr knows them. */
SLUICE_INLINE int sluice_early_is_extension(__u32 next_header) {
  return next_header == 0 || next_header == 43 || next_header == 44 || next_header == 51 ||
         next_header == 60;
}

SLUICE_INLINE int sluice_early_is_loopback6(const __u8* address) {
  const sluice_u16* words = (const sluice_u16*)address;
  return !(words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6]) &&
         address[14] == 0 && address[15] == 1;
}

/* ip6_rcv_core's tests, for a packet without hop-by-hop options. */
SLUICE_INLINE __u32 sluice_early_check6(const __u8* ip, const struct sluice_early_packet* p) {
  if (ip[0] >> 4 != 6) return SLUICE_XDP_IPV6_HEADER;
  if (sluice_early_is_loopback6(ip + 8) || sluice_early_is_loopback6(ip + 24))
    return SLUICE_XDP_IPV6_HEADER;
  if (ip[24] == 0xff && (ip[25] & 15) <= 1) return SLUICE_XDP_IPV6_HEADER;
  if (ip[8] == 0xff) return SLUICE_XDP_IPV6_HEADER;
  return p->frame_bytes < p->ip_bytes ? (__u32)SLUICE_XDP_IPV6_TRUNCATED : SLUICE_EARLY_PASS;
}

SLUICE_INLINE __u32 sluice_early_ipv6(const struct sluice_early_core* core, __u32 flags,
                                      const __u8* ip, struct sluice_early_frame* f,
                                      struct sluice_early_packet* p,
                                      struct sluice_xdp_stats* stats) {
  __u64 rules;
  __u32 reason;
  if (ip + 40 > f->end) return SLUICE_EARLY_PASS;
  if (sluice_early_is_extension(ip[6])) return SLUICE_EARLY_PASS;
  p->l4_bytes = sluice_be16(ip + 4);
  p->ip_bytes = 40 + p->l4_bytes;
  reason = sluice_early_check6(ip, p);
  if (reason != SLUICE_EARLY_PASS) return flags & SLUICE_EARLY_HEADERS ? reason : SLUICE_EARLY_PASS;
  if (!core) return SLUICE_EARLY_PASS;
  rules = core->family_rules[SLUICE_EARLY_IPV6] & core->protocol_rules[ip[6]];
  if (!rules) return SLUICE_EARLY_PASS;
  if (core->has_address[SLUICE_EARLY_SRC6]) {
    rules &=
        core->address_rules[SLUICE_EARLY_SRC6][sluice_early_class6(core->trie[0], ip + 8) & 255];
    if (!rules) return SLUICE_EARLY_PASS;
  }
  if (core->has_address[SLUICE_EARLY_DST6]) {
    rules &=
        core->address_rules[SLUICE_EARLY_DST6][sluice_early_class6(core->trie[1], ip + 24) & 255];
    if (!rules) return SLUICE_EARLY_PASS;
  }
  f->l4 = ip + 40;
  rules = sluice_early_match_l4(core, rules, f, p);
  if (!rules) return SLUICE_EARLY_PASS;
  __builtin_memcpy(p->source.address, ip + 8, 16);
  p->rules = rules;
  return sluice_early_decide(core, p, stats);
}

/* `c` covers the (first buffer of the) frame from its Ethernet header, `frame_bytes` is its whole
 * length; `classified` is what sluice_classify said of it, one of those that redirect. `core` may
 * be null. Returns a reason whose action is to drop, or SLUICE_EARLY_PASS.
 */
SLUICE_INLINE __u32 sluice_early_filter(const struct sluice_early_core* core, __u32 flags,
                                        struct sluice_cursor c, __u32 frame_bytes,
                                        enum sluice_xdp_reason classified,
                                        struct sluice_xdp_stats* stats) {
  struct sluice_early_packet p = {0};
  struct sluice_early_frame f;
  const __u8* ip;
  if (!sluice_take(&c, SLUICE_ETHERNET_SIZE)) return SLUICE_EARLY_PASS;
  ip = c.at;
  f.end = c.end;
  p.core = (flags & SLUICE_EARLY_CORE) - 1;
  p.frame_bytes = frame_bytes - SLUICE_ETHERNET_SIZE;
  if (classified == SLUICE_XDP_IPV4) return sluice_early_ipv4(core, flags, ip, &f, &p, stats);
  if (classified != SLUICE_XDP_ARP) return sluice_early_ipv6(core, flags, ip, &f, &p, stats);
  if (!core) return SLUICE_EARLY_PASS;
  p.rules = core->family_rules[SLUICE_EARLY_OTHER];
  return p.rules ? sluice_early_decide(core, &p, stats) : SLUICE_EARLY_PASS;
}

#endif /* SLUICE_BPF_INCLUDE_EARLY_FILTER_H_ */
