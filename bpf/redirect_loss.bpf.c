/* Sees what becomes of the frames that the flow tier redirects, after the XDP program has ended: the
 * kernel refuses the device (redirect_refused), or its driver does not take what it is given in bulk
 * (redirect_lost). Either way the frames are freed, and these tracepoints are all that tells of it.
 *
 *   lost     counts them, by output
 *   closed   where nothing can be sent at all (a veth whose other end has lost its NAPI, a link that
 *            has gone down): all entries end at once, and workers make no new ones for this output
 *            until user space has looked at it
 *
 * Where nothing is lost it costs one comparison per bulk of up to 16 frames.
 */
#include <linux/bpf.h>
#include <linux/errno.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

#include "offload_state.h"

/* Of the kernel's structures what is read here; relocated when the program is loaded. */
#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct ns_common {
  unsigned int inum;
};
struct net {
  struct ns_common ns;
};
typedef struct {
  struct net* net;
} possible_net_t;
struct net_device {
  int ifindex;
  possible_net_t nd_net;
};
#pragma clang attribute pop

volatile const __u32 netns;      /* our network namespace: interface numbers are its own */
volatile const __u32 devmaps[2]; /* the tier's, by id */

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, SLUICE_OFFLOAD_DEVICES);
  __type(key, __u32);   /* ifindex of a served interface */
  __type(value, __u32); /* its slot */
} loss_slots SEC(".maps");

static __always_inline const __u32* slot_of(const struct net_device* device) {
  const __u32 ifindex = (__u32)device->ifindex;
  if (device->nd_net.net->ns.inum != netns) return 0;
  return bpf_map_lookup_elem(&loss_slots, &ifindex);
}

static __always_inline void count(__u32 slot, __u64 frames, int close) {
  const __u32 zero = 0;
  struct sluice_offload_state* const state = bpf_map_lookup_elem(&offload_state, &zero);
  if (!state) return;
  slot &= SLUICE_OFFLOAD_DEVICES - 1;
  asm volatile("" : "+r"(slot)); /* the verifier shall see the bound */
  __sync_fetch_and_add(&state->lost[slot], frames);
  if (!close) return;
  /* Closed first: a worker that reads the new generation reads this too. */
  __sync_fetch_and_or(&state->closed[slot / 64 & 3], 1ull << (slot & 63));
  if (__sync_fetch_and_add(&state->world, 1) == 0xffffffffu) __sync_fetch_and_add(&state->world, 1);
}

/* `error`: the driver took nothing. */
SEC("tp_btf/xdp_devmap_xmit")
int BPF_PROG(redirect_lost, const struct net_device* from, const struct net_device* to, int sent,
             int drops, int error) {
  const __u32* slot;
  (void)ctx; /* of the macro */
  (void)sent;
  if (drops <= 0) return 0;
  slot = slot_of(to);
  if (!slot || !slot_of(from)) return 0;
  count(*slot, (__u64)drops, error < 0);
  return 0;
}

/* One frame; a device that cannot, or is down, or a frame that is too long for it. */
SEC("tp_btf/xdp_redirect_err")
int BPF_PROG(redirect_refused, const struct net_device* from, const void* program,
             const void* target, int error, __u32 map_type, __u32 map, __u32 index) {
  (void)ctx;
  (void)from;
  (void)program;
  (void)target;
  if (map_type != BPF_MAP_TYPE_DEVMAP) return 0;
  if (map != devmaps[0] && map != devmaps[1]) return 0;
  count(index, 1, error != -EMSGSIZE);
  return 0;
}

char LICENSE[] SEC("license") = "GPL";
