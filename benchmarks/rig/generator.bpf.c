// The generator's program. BPF_PROG_RUN calls it once per frame; it writes the whole frame anew
// (frames are recycled as the last owner left them) and sends it out of the device it runs on.
// The helpers need the types first.
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

// Set by the loader before the program is loaded.
const volatile __u32 target_count = 1;
const volatile __u8 is_ipv6 = 0;
const volatile __u64 interval_ns = 0;  // 0: as fast as it goes
const volatile __u64 frame_limit = 0;  // 0: without end
const volatile __u32 new_ports = 0;    // a new source port, out of so many, for every round
// Plain variables: a copy of a constant array would be taken at compile time, as zeros.
__u8 source_mac[6] = {};
__u8 gateway_mac[6] = {};

__u64 sent_frames = 0;  // one core runs the program, so no atomics
__u32 next_target = 0;
__u32 rounds = 0;  // through all targets
__u64 next_send_ns = 0;

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(max_entries, RIG_MAX_TARGETS);
  __type(key, __u32);
  __type(value, struct rig_target);
} targets SEC(".maps");

static __always_inline void fill_udp(struct udphdr* udp, __u32 ip_payload,
                                     const struct rig_target* target) {
  udp->source = target->source_port;
  udp->dest = target->destination_port;
  udp->len = bpf_htons(ip_payload);
  udp->check = target->udp_checksum;
  if (new_ports) {
    // RFC 1624.
    udp->source = bpf_htons(1024 + rounds % new_ports);
    __u32 sum = (__u16)~udp->check + (__u16)~target->source_port + udp->source;
    sum = (sum & 0xffff) + (sum >> 16);
    udp->check = ~(__u16)(sum + (sum >> 16));
  }
}

static __always_inline int write_ipv4(void* data, void* end, const struct rig_target* target) {
  struct iphdr* ip = data + sizeof(struct ethhdr);
  struct udphdr* udp = (void*)(ip + 1);
  if ((void*)(udp + 1) > end) return -1;
  __u32 ip_length = end - (void*)ip;
  *(__u16*)ip = bpf_htons(0x4500);
  ip->tot_len = bpf_htons(ip_length);
  ip->id = 0;
  ip->frag_off = bpf_htons(0x4000);
  ip->ttl = 64;
  ip->protocol = IPPROTO_UDP;
  ip->check = target->ip_checksum;
  __builtin_memcpy(&ip->saddr, target->source, 4);
  __builtin_memcpy(&ip->daddr, target->address, 4);
  fill_udp(udp, ip_length - sizeof(*ip), target);
  return 0;
}

static __always_inline int write_ipv6(void* data, void* end, const struct rig_target* target) {
  struct ipv6hdr* ip = data + sizeof(struct ethhdr);
  struct udphdr* udp = (void*)(ip + 1);
  if ((void*)(udp + 1) > end) return -1;
  __u32 payload = end - (void*)udp;
  *(__u32*)ip = bpf_htonl(0x60000000);
  ip->payload_len = bpf_htons(payload);
  ip->nexthdr = IPPROTO_UDP;
  ip->hop_limit = 64;
  __builtin_memcpy(&ip->saddr, target->source, 16);
  __builtin_memcpy(&ip->daddr, target->address, 16);
  fill_udp(udp, payload, target);
  return 0;
}

SEC("xdp")
int generate(struct xdp_md* ctx) {
  if (frame_limit && sent_frames >= frame_limit) return XDP_DROP;
  if (interval_ns) {
    // Early frames go round again: the loop of BPF_PROG_RUN is the clock.
    __u64 now = bpf_ktime_get_ns();
    if (now < next_send_ns) return XDP_DROP;
    // A generator that was held up does not send a burst to catch up.
    next_send_ns = (now > next_send_ns + 100000 ? now : next_send_ns) + interval_ns;
  }
  __u32 index = next_target;
  next_target = index + 1;
  if (next_target >= target_count) {
    next_target = 0;
    rounds++;
  }
  const struct rig_target* target = bpf_map_lookup_elem(&targets, &index);
  if (!target) return XDP_ABORTED;

  void* data = (void*)(long)ctx->data;
  void* end = (void*)(long)ctx->data_end;
  struct ethhdr* eth = data;
  if ((void*)(eth + 1) > end) return XDP_ABORTED;
  __builtin_memcpy(eth->h_dest, gateway_mac, 6);
  __builtin_memcpy(eth->h_source, source_mac, 6);
  eth->h_proto = is_ipv6 ? bpf_htons(ETH_P_IPV6) : bpf_htons(ETH_P_IP);
  int failed = is_ipv6 ? write_ipv6(data, end, target) : write_ipv4(data, end, target);
  if (failed) return XDP_ABORTED;
  sent_frames++;
  return XDP_TX;
}

char _license[] SEC("license") = "GPL";
