// Hands every frame of a queue to the AF_XDP socket of that queue: the bare forwarder's program,
// once for single buffers and once for frames in several (frags).
// The helpers need the types first.
// clang-format off
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
// clang-format on

struct {
  __uint(type, BPF_MAP_TYPE_XSKMAP);
  __uint(max_entries, 64);
  __type(key, __u32);
  __type(value, __u32);
} sockets SEC(".maps");

SEC("xdp")
int steer(struct xdp_md* ctx) { return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS); }

SEC("xdp.frags")
int steer_frags(struct xdp_md* ctx) {
  return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS);
}

char _license[] SEC("license") = "GPL";
