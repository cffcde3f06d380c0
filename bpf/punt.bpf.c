/* On the ingress of a punt TAP device: whatever a worker writes to it is received by the kernel as
 * if it had come in by the interface that Sluice serves.
 *
 * The device has a queue per worker, and the kernel notes it as the one that a frame was received by.
 * Of the interface it means nothing; where that has fewer queues, the kernel would warn of a driver's
 * mistake. Received by no queue in particular, then.
 */
#include <linux/bpf.h>

#include <bpf/bpf_helpers.h>

volatile const __u32 target_ifindex;

SEC("tc")
int punt(struct __sk_buff* skb) {
  skb->queue_mapping = 0;
  return (int)bpf_redirect(target_ifindex, BPF_F_INGRESS);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
