/* The flow tier's maps, and how offload.h reaches them from the kernel. Here they have room for
 * next to nothing: with a flow tier, user space puts its own in their place before it loads the
 * program (io/af_xdp/offload_maps.h), the same ones for all interfaces.
 */
#ifndef SLUICE_BPF_INCLUDE_OFFLOAD_MAPS_H_
#define SLUICE_BPF_INCLUDE_OFFLOAD_MAPS_H_

#include "offload_state.h"
#include "parse.h"

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1);
  __type(key, struct sluice_offload_key4);
  __type(value, struct sluice_offload_entry4);
} offload_flows4 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_HASH);
  __uint(max_entries, 1);
  __type(key, struct sluice_offload_key6);
  __type(value, struct sluice_offload_entry6);
} offload_flows6 SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_offload_cell);
} offload_cells SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_splice);
} offload_splices SEC(".maps");

/* The same devices twice: the kernel lets a devmap be used by programs for frames in one buffer, or
 * by those for several, but not by both. */
struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP);
  __uint(max_entries, SLUICE_OFFLOAD_DEVICES);
  __type(key, __u32);
  __type(value, __u32);
} offload_devices SEC(".maps");

struct {
  __uint(type, BPF_MAP_TYPE_DEVMAP);
  __uint(max_entries, SLUICE_OFFLOAD_DEVICES);
  __type(key, __u32);
  __type(value, __u32);
} offload_devices_f SEC(".maps");

SLUICE_INLINE const struct sluice_offload_entry4* sluice_offload_get4(
    const struct sluice_offload_key4* key) {
  return bpf_map_lookup_elem(&offload_flows4, key);
}
SLUICE_INLINE const struct sluice_offload_entry6* sluice_offload_get6(
    const struct sluice_offload_key6* key) {
  return bpf_map_lookup_elem(&offload_flows6, key);
}
SLUICE_INLINE const volatile struct sluice_offload_state* sluice_offload_get_state(void) {
  const __u32 zero = 0;
  return bpf_map_lookup_elem(&offload_state, &zero);
}
SLUICE_INLINE struct sluice_offload_cell* sluice_offload_get_cell(__u32 index) {
  return bpf_map_lookup_elem(&offload_cells, &index);
}
SLUICE_INLINE const struct sluice_splice* sluice_offload_get_splice(__u32 id) {
  return bpf_map_lookup_elem(&offload_splices, &id);
}
SLUICE_INLINE __u32 sluice_offload_cpu(void) { return bpf_get_smp_processor_id(); }

/* Global, so that the verifier looks at each once, and not at the end of each way through the early
 * filter. Whether the frame has been forwarded (XDP_REDIRECT); _f: by a program for several
 * buffers. */
int sluice_offload_frame4(struct xdp_md* ctx, __u32 word);
int sluice_offload_frame6(struct xdp_md* ctx, __u32 word);
int sluice_offload_frame4_f(struct xdp_md* ctx, __u32 word);
int sluice_offload_frame6_f(struct xdp_md* ctx, __u32 word);
/* The folded sum from `offset` to the end of the frame. */
__u32 sluice_offload_sum(struct xdp_md* ctx, __u32 offset);

#endif /* SLUICE_BPF_INCLUDE_OFFLOAD_MAPS_H_ */
