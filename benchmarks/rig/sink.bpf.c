// The far end: counts frames by TTL or hop limit, per core, and drops all but marked ones
// (rig_abi.h). The helpers need the types first.
// clang-format off
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/udp.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
// clang-format on

#include "rig_abi.h"

// Set by the loader: the address that NAT gives to what it lets out, in network order.
const volatile __u32 translated_source = 0;

struct {
  __uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct rig_sink_count);
} counts SEC(".maps");

// The TTL or hop limit; 0 for what is neither IPv4 nor IPv6.
static __always_inline __u32 ttl_of(void* data, void* end) {
  struct ethhdr* eth = data;
  struct ipv6hdr* ip6 = (void*)(eth + 1);
  if ((void*)(ip6 + 1) > end) return 0;  // no frame of the generator is shorter
  if (eth->h_proto == bpf_htons(ETH_P_IP)) return ((struct iphdr*)(eth + 1))->ttl;
  return eth->h_proto == bpf_htons(ETH_P_IPV6) ? ip6->hop_limit : 0;
}

static __always_inline int is_marked(void* data, void* end) {
  struct ethhdr* eth = data;
  struct iphdr* ip = (void*)(eth + 1);
  __u8* payload = (void*)(ip + 1) + sizeof(struct udphdr);
  if ((void*)(payload + 1) > end || eth->h_proto != bpf_htons(ETH_P_IP)) return 0;
  return ip->protocol == IPPROTO_UDP && *payload == RIG_MARK;
}

SEC("xdp")
int count(struct xdp_md* ctx) {
  __u32 key = 0;
  struct rig_sink_count* seen = bpf_map_lookup_elem(&counts, &key);
  if (!seen) return XDP_ABORTED;
  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  __u32 ttl = ttl_of(data, end);
  seen->bytes += end - data;
  if (ttl == 63) {
    seen->forwarded++;
    // ttl_of() has found the header to be there.
    struct iphdr* ip = data + sizeof(struct ethhdr);
    if ((void*)(ip + 1) <= end && ip->version == 4 && ip->saddr == translated_source) {
      seen->translated++;
    }
  } else if (ttl == 64) {
    seen->untouched++;
  } else {
    seen->other++;
  }
  return is_marked(data, end) ? XDP_PASS : XDP_DROP;
}

char _license[] SEC("license") = "GPL";
