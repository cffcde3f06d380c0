/* The first thing that sees a received frame: to the worker's AF_XDP socket of this receive queue,
 * or to the kernel (classify.h says which). When no socket takes the frame, the kernel does. What
 * would go to a worker is dropped here already when the early filter says so (early_filter.h); what
 * is the kernel's is judged by the kernel's own rules alone.
 *
 * One instance is loaded per interface. The two entry points differ only in whether the kernel may
 * hand over frames in several buffers (6.6 and later).
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

#include "classify.h"
#include "early_maps.h"

#include "early_filter.h"

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

/* `fragments`: the frame may be in several buffers. */
SLUICE_INLINE int ingress(struct xdp_md* ctx, int fragments) {
  const __u32 zero = 0;
  struct sluice_xdp_stats* cell = bpf_map_lookup_elem(&stats, &zero);
  struct sluice_cursor c = {(const __u8*)(long)ctx->data, (const __u8*)(long)ctx->data_end};
  const __u64 cookie = config.punt_cookie;
  enum sluice_xdp_reason reason;
  __u32 early, dropped;
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
  if (!sluice_is_redirect(reason)) return finish(cell, reason, XDP_PASS);
  early = config.early;
  if (early) {
    dropped = filter(ctx, c, reason, cell, early, fragments);
    if (dropped != SLUICE_EARLY_PASS) return finish(cell, dropped, XDP_DROP);
  }
  action = (int)bpf_redirect_map(&xsks, ctx->rx_queue_index, XDP_PASS);
  return finish(cell, action == XDP_REDIRECT ? reason : SLUICE_XDP_NO_SOCKET, action);
}

SEC("xdp")
int xdp_ingress(struct xdp_md* ctx) { return ingress(ctx, 0); }

SEC("xdp.frags")
int xdp_ingress_frags(struct xdp_md* ctx) { return ingress(ctx, 1); }

char LICENSE[] SEC("license") = "Dual BSD/GPL";
