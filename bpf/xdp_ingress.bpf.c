/* The first thing that sees a received frame: to the worker's AF_XDP socket of this receive queue,
 * or to the kernel (classify.h says which). When no socket takes the frame, the kernel does. What
 * would go to a worker is dropped here already when the early filter says so (early_filter.h), or
 * forwarded when a worker has decided about its like (offload.h); what is the kernel's is judged by
 * the kernel's own rules alone.
 *
 * One instance is loaded per interface. The two entry points differ only in whether the kernel may
 * hand over frames in several buffers (6.6 and later).
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "classify.h"
#include "dhcp.h"
#include "early_maps.h"
#include "offload_maps.h"

#include "early_filter.h"
#include "offload.h"

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, SLUICE_MAX_QUEUES);
  __type(key, __u32);
  __type(value, __u32);
} xsks SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_xdp_stats);
} stats SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_MAX_GROUPS);
  __type(key, struct sluice_group);
  __type(value, __u8);
} groups SEC(".maps");

/* Written by user space at any time, hence volatile. */
volatile struct sluice_xdp_config config;

SLUICE_INLINE int finish(struct sluice_xdp_stats* cell, __u32 reason, int action) {
  if (reason < SLUICE_XDP_REASON_COUNT) ++cell->packets[reason];
  return action;
}

/* Whether the frame is one that a worker gave back (see sluice_punt_header). */
SLUICE_INLINE int is_punted(const __u8* data, const __u8* end, __u64 cookie) {
  const struct sluice_punt_header* header = (const struct sluice_punt_header*)data;
  __u64 seen;
  if (data + sizeof(*header) + SLUICE_ETHERNET_SIZE > end) return 0;
  if (sluice_be16(header->ether_type) != SLUICE_PUNT_ETHERTYPE) return 0;
  __builtin_memcpy(&seen, header->cookie, sizeof(seen));
  return seen == cookie;
}

/* sluice_group_of, but MULTICAST as well where no service listens. */
SLUICE_INLINE enum sluice_xdp_reason joined(struct sluice_cursor c) {
  struct sluice_group group;
  const enum sluice_xdp_reason as = sluice_group_of(c, &group);
  if (as == SLUICE_XDP_MULTICAST || !bpf_map_lookup_elem(&groups, &group))
    return SLUICE_XDP_MULTICAST;
  return as;
}

static long decide_step(__u32 index, void* decision) {
  (void)index;
  return sluice_early_step(decision);
}

/* bpf_loop and not a loop, as the verifier would go through all its turns. */
__attribute__((noinline)) __u32 sluice_early_decide_rest(struct sluice_early_packet* p) {
  const __u32 zero = 0;
  struct sluice_early_packet packet; /* Linux 6.1 takes a key of a map from the stack only */
  struct sluice_early_decision d = {.packet = &packet, .reason = SLUICE_EARLY_PASS};
  __u32 index;
  if (!p) return SLUICE_EARLY_PASS;
  __builtin_memcpy(&packet, p, sizeof(packet));
  index = packet.core;
  d.core = bpf_map_lookup_elem(&early_cores, &index);
  d.stats = bpf_map_lookup_elem(&stats, &zero);
  if (!d.core || !d.stats) return SLUICE_EARLY_PASS;
  bpf_loop(SLUICE_EARLY_RULES, decide_step, &d, 0);
  return d.reason;
}

/* A reason to drop the frame, or SLUICE_EARLY_PASS. */
SLUICE_INLINE __u32 filter(struct xdp_md* ctx, struct sluice_cursor c,
                           enum sluice_xdp_reason classified, struct sluice_xdp_stats* cell,
                           __u32 early, int fragments) {
  const __u32 bytes = fragments ? (__u32)bpf_xdp_get_buff_len(ctx) : (__u32)(c.end - c.at);
  const __u32 index = (early & SLUICE_EARLY_CORE) - 1;
  const struct sluice_early_core* core = 0;
  if (early & SLUICE_EARLY_CORE) core = bpf_map_lookup_elem(&early_cores, &index);
  return sluice_early_filter(core, early, c, bytes, classified, cell);
}

__attribute__((noinline)) __u32 sluice_offload_sum(struct xdp_md* ctx, __u32 offset) {
  const __u8* p = (const __u8*)(long)ctx->data + (offset & 63);
  const __u8* const end = (const __u8*)(long)ctx->data_end;
  __u64 sum = 0;
  for (__u32 i = 0; i < SLUICE_OFFLOAD_SUM_MAX / 64; ++i) {
    __asm__ volatile("" : "+r"(p)); /* or it would compute with `end`, which is forbidden */
    if (p + 64 > end) break;
    sum += sluice_offload_sum32(p, 16);
    p += 64;
  }
  for (__u32 i = 0; i < 15; ++i) {
    __asm__ volatile("" : "+r"(p));
    if (p + 4 > end) break;
    sum += sluice_load32(p);
    p += 4;
  }
  __asm__ volatile("" : "+r"(p));
  if (p + 2 <= end) {
    sum += sluice_load16(p);
    p += 2;
  }
  __asm__ volatile("" : "+r"(p));
  if (p + 1 <= end) sum += *p;
  return sluice_offload_fold(sum);
}

/* What is between find and rewrite: 0, with the frame as it was, when there is no device to send
 * to. So nothing is lost while an interface goes. */
SLUICE_INLINE int prepare(struct xdp_md* ctx, const struct sluice_offload_packet* p,
                          const struct sluice_offload_action* a, __u32 frame_bytes, int fragments) {
  const long action = fragments ? bpf_redirect_map(&offload_devices_f, a->out, 0)
                                : bpf_redirect_map(&offload_devices, a->out, 0);
  if (action != XDP_REDIRECT) return 0;
  return frame_bytes == p->frame_bytes ||
         bpf_xdp_adjust_tail(ctx, (int)(p->frame_bytes - frame_bytes)) == 0;
}

SLUICE_INLINE int frame4(struct xdp_md* ctx, __u32 word, int fragments) {
  const __u8* data = (const __u8*)(long)ctx->data;
  const __u8* end = (const __u8*)(long)ctx->data_end;
  struct sluice_offload_packet p = {0};
  struct sluice_offload_entry4 entry;
  struct sluice_splice splice;
  __u32 sum = 0;
  if (!sluice_offload_find4(data, end, word, &p, &entry, &splice)) return 0;
  if (!prepare(ctx, &p, &entry.action, (__u32)(end - data), fragments)) return 0;
  if (p.partial) sum = sluice_offload_sum(ctx, SLUICE_OFFLOAD_L4_OF_4);
  end = (const __u8*)(long)ctx->data_end;
  if (!sluice_offload_rewrite4((__u8*)(long)ctx->data, end, sum, &p, &entry)) return 0;
  sluice_offload_count(&p);
  return 1;
}

SLUICE_INLINE int frame6(struct xdp_md* ctx, __u32 word, int fragments) {
  const __u8* data = (const __u8*)(long)ctx->data;
  const __u8* end = (const __u8*)(long)ctx->data_end;
  struct sluice_offload_packet p = {0};
  struct sluice_offload_entry6 entry;
  struct sluice_splice splice;
  __u32 sum = 0;
  if (!sluice_offload_find6(data, end, word, &p, &entry, &splice)) return 0;
  if (!prepare(ctx, &p, &entry.action, (__u32)(end - data), fragments)) return 0;
  if (p.partial) sum = sluice_offload_sum(ctx, SLUICE_OFFLOAD_L4_OF_6);
  end = (const __u8*)(long)ctx->data_end;
  if (!sluice_offload_rewrite6((__u8*)(long)ctx->data, end, sum, &p, &entry)) return 0;
  sluice_offload_count(&p);
  return 1;
}

#define SLUICE_GLOBAL __attribute__((noinline)) int
SLUICE_GLOBAL sluice_offload_frame4(struct xdp_md* ctx, __u32 word) { return frame4(ctx, word, 0); }
SLUICE_GLOBAL sluice_offload_frame6(struct xdp_md* ctx, __u32 word) { return frame6(ctx, word, 0); }
SLUICE_GLOBAL sluice_offload_frame4_f(struct xdp_md* ctx, __u32 word) {
  return frame4(ctx, word, 1);
}
SLUICE_GLOBAL sluice_offload_frame6_f(struct xdp_md* ctx, __u32 word) {
  return frame6(ctx, word, 1);
}

/* Whether the flow tier has forwarded the frame. */
SLUICE_INLINE int offload(struct xdp_md* ctx, struct sluice_cursor c, __u32 word,
                          enum sluice_xdp_reason classified, int fragments) {
  if (fragments && bpf_xdp_get_buff_len(ctx) != (__u64)(c.end - c.at)) return 0;
  if (classified == SLUICE_XDP_IPV4)
    return fragments ? sluice_offload_frame4_f(ctx, word) : sluice_offload_frame4(ctx, word);
  if (classified != SLUICE_XDP_IPV6) return 0;
  return fragments ? sluice_offload_frame6_f(ctx, word) : sluice_offload_frame6(ctx, word);
}

/* `fragments`: the frame may be in several buffers. */
SLUICE_INLINE int ingress(struct xdp_md* ctx, int fragments) {
  const __u32 zero = 0;
  struct sluice_xdp_stats* cell = bpf_map_lookup_elem(&stats, &zero);
  struct sluice_cursor c = {(const __u8*)(long)ctx->data, (const __u8*)(long)ctx->data_end};
  const __u64 cookie = config.punt_cookie;
  enum sluice_xdp_reason reason, as; /* what is counted; what the worker gets */
  __u32 early, dropped, word;
  int action;
  if (!cell) return XDP_PASS; /* the map has this one value */
  /* Before `enabled`: a frame of ours must reach the kernel without the mark in any case. */
  if (cookie && is_punted(c.at, c.end, cookie)) {
    if (bpf_xdp_adjust_head(ctx, sizeof(struct sluice_punt_header)) != 0) return XDP_ABORTED;
    return finish(cell, SLUICE_XDP_PUNTED, XDP_PASS);
  }
  if (!config.enabled) return finish(cell, SLUICE_XDP_DISABLED, XDP_PASS);
  if (config.largest_frame && bpf_xdp_get_buff_len(ctx) > config.largest_frame)
    return finish(cell, SLUICE_XDP_OVERSIZED, XDP_PASS);
  reason = sluice_classify(c, config.own_mac);
  as = reason;
  if (!sluice_is_redirect(reason)) {
    if (reason != SLUICE_XDP_MULTICAST) return finish(cell, reason, XDP_PASS);
    as = joined(c);
    if (as == SLUICE_XDP_MULTICAST) return finish(cell, reason, XDP_PASS);
    reason = SLUICE_XDP_GROUP;
  }
  early = config.early;
  if (early && !(reason == SLUICE_XDP_IPV4 && sluice_is_dhcp_reply(c, config.own_mac))) {
    dropped = filter(ctx, c, as, cell, early, fragments);
    if (dropped != SLUICE_EARLY_PASS) return finish(cell, dropped, XDP_DROP);
  }
  word = config.offload;
  if (word && offload(ctx, c, word, reason, fragments))
    return finish(cell, SLUICE_XDP_FLOW, XDP_REDIRECT);
  action = (int)bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
  return finish(cell, action == XDP_REDIRECT ? reason : SLUICE_XDP_NO_SOCKET, action);
}

SEC("xdp")
int xdp_ingress(struct xdp_md* ctx) { return ingress(ctx, 0); }

SEC("xdp.frags")
int xdp_ingress_frags(struct xdp_md* ctx) { return ingress(ctx, 1); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
