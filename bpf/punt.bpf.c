/* On the ingress of a punt TAP device: whatever a worker writes to it is received by the kernel as
 * if it had come in by the interface that Sluice serves.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

volatile const __u32 target_ifindex;

SEC("tc")
int punt(struct __sk_buff* skb) {
  (void)skb;
  return (int)bpf_redirect(target_ifindex, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
