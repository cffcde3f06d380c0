/* The generations of the flow tier, as a map: one for all programs of a process, which user space puts
 * in this one's place before it loads them (io/af_xdp/offload_maps.h).
 */
#ifndef SLUICE_BPF_INCLUDE_OFFLOAD_STATE_H_
#define SLUICE_BPF_INCLUDE_OFFLOAD_STATE_H_

#include "offload_abi.h"

struct {
  __uint(type, BPF_MAP_TYPE_ARRAY);
  __uint(map_flags, BPF_F_MMAPABLE);
  __uint(max_entries, 1);
  __type(key, __u32);
  __type(value, struct sluice_offload_state);
} offload_state SEC(".maps");

#endif /* SLUICE_BPF_INCLUDE_OFFLOAD_STATE_H_ */
