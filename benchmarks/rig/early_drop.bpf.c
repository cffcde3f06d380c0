// For early_drop.cc: a bare XDP_DROP program, and Sluice's with another packet each time.
#include "../../bpf/xdp_ingress.bpf.c"

#include "rig_abi.h"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, RIG_MAX_TARGETS);
  __type(key, __u32);
  __type(value, struct rig_target);
} targets SEC(".maps");

__u32 target_count = 1;
__u32 next_target = 0;

// Another source address from the list, as if the next packet had come.
SLUICE_INLINE int next_packet(struct xdp_md* ctx) {
  __u8* data = (__u8*)(long)ctx->data;
  const struct rig_target* target;
  __u32 index = next_target;
  next_target = index + 1 >= target_count ? 0 : index + 1;
  target = bpf_map_lookup_elem(&targets, &index);
  if (!target || data + 34 > (__u8*)(long)ctx->data_end) return -1;
  __builtin_memcpy(data + 24, &target->ip_checksum, 2);
  __builtin_memcpy(data + 26, target->address, 4);
  return 0;
}

SEC("xdp")
int bare(struct xdp_md* ctx) {
  (void)ctx;
  return XDP_DROP;
}

SEC("xdp")
int time_bare(struct xdp_md* ctx) { return next_packet(ctx) ? XDP_ABORTED : XDP_DROP; }

SEC("xdp")
int time_early(struct xdp_md* ctx) { return next_packet(ctx) ? XDP_ABORTED : ingress(ctx, 0); }
