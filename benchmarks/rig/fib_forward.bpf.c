// The limit of forwarding inside XDP: the kernel's own route lookup, new MAC addresses, one hop
// less, and a redirect. It translates nothing and tracks nothing. What the lookup does not settle
// (no route, no neighbour, a hop limit that ends) is the kernel's. The helpers need the types
// first.
// clang-format off
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
// clang-format on

#define FAMILY_INET 2
#define FAMILY_INET6 10

__u64 redirected = 0;  // one core runs the program, so no atomics
__u64 passed = 0;

// One hop less, RFC 1624.
static __always_inline void one_hop_less(struct iphdr* ip) {
  __u32 sum = ip->check;
  sum += bpf_htons(0x0100);
  ip->check = (__u16)(sum + (sum >= 0xffff));
  ip->ttl--;
}

static __always_inline int describe4(struct iphdr* ip, void* end, struct bpf_fib_lookup* fib) {
  if ((void*)(ip + 1) > end || ip->ihl != 5 || ip->ttl <= 1) return -1;
  fib->family = FAMILY_INET;
  fib->tos = ip->tos;
  fib->l4_protocol = ip->protocol;
  fib->tot_len = bpf_ntohs(ip->tot_len);
  fib->ipv4_src = ip->saddr;
  fib->ipv4_dst = ip->daddr;
  return 0;
}

static __always_inline int describe6(struct ipv6hdr* ip, void* end, struct bpf_fib_lookup* fib) {
  if ((void*)(ip + 1) > end || ip->hop_limit <= 1) return -1;
  fib->family = FAMILY_INET6;
  fib->flowinfo = *(__be32*)ip & bpf_htonl(0x0fffffff);
  fib->l4_protocol = ip->nexthdr;
  fib->tot_len = bpf_ntohs(ip->payload_len);
  __builtin_memcpy(fib->ipv6_src, &ip->saddr, sizeof(fib->ipv6_src));
  __builtin_memcpy(fib->ipv6_dst, &ip->daddr, sizeof(fib->ipv6_dst));
  return 0;
}

SEC("xdp")
int fib_forward(struct xdp_md* ctx) {
  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  struct ethhdr* eth = data;
  struct bpf_fib_lookup fib = {.ifindex = ctx->ingress_ifindex};
  int known = -1;
  if ((void*)(eth + 1) > end) return XDP_PASS;
  if (eth->h_proto == bpf_htons(ETH_P_IP)) {
    known = describe4((void*)(eth + 1), end, &fib);
  } else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
    known = describe6((void*)(eth + 1), end, &fib);
  }
  if (known != 0 || bpf_fib_lookup(ctx, &fib, sizeof(fib), 0) != BPF_FIB_LKUP_RET_SUCCESS) {
    passed++;
    return XDP_PASS;
  }
  if (fib.family == FAMILY_INET) {
    struct iphdr* ip = (void*)(eth + 1);
    if ((void*)(ip + 1) > end) return XDP_ABORTED;
    one_hop_less(ip);
  } else {
    struct ipv6hdr* ip = (void*)(eth + 1);
    if ((void*)(ip + 1) > end) return XDP_ABORTED;
    ip->hop_limit--;
  }
  __builtin_memcpy(eth->h_dest, fib.dmac, ETH_ALEN);
  __builtin_memcpy(eth->h_source, fib.smac, ETH_ALEN);
  redirected++;
  return (int)bpf_redirect(fib.ifindex, 0);
}

char _license[] SEC("license") = "GPL";
