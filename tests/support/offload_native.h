// The flow tier's program as a plain function: bpf/include/offload.h compiled natively, over the
// maps that the kernel's programs have. Its counts go to the cells of CPU 0. Frames are copied to
// memory of exactly their size, so that AddressSanitizer sees any byte beyond it.
#ifndef SLUICE_TESTS_SUPPORT_OFFLOAD_NATIVE_H_
#define SLUICE_TESTS_SUPPORT_OFFLOAD_NATIVE_H_

#include <bpf/bpf.h>

#include <algorithm>
#include <memory>

#include "bpf/include/offload_abi.h"
#include "bpf/include/parse.h"
#include "io/af_xdp/offload_maps.h"
#include "support/packet_builder.h"

inline const sluice::io::af_xdp::OffloadMaps* native_offload_maps = nullptr;

SLUICE_INLINE const sluice_offload_entry4* sluice_offload_get4(const sluice_offload_key4* key) {
  static sluice_offload_entry4 entry;
  const int fd = native_offload_maps->fds().flows4;
  return bpf_map_lookup_elem(fd, key, &entry) == 0 ? &entry : nullptr;
}
SLUICE_INLINE const sluice_offload_entry6* sluice_offload_get6(const sluice_offload_key6* key) {
  static sluice_offload_entry6 entry;
  const int fd = native_offload_maps->fds().flows6;
  return bpf_map_lookup_elem(fd, key, &entry) == 0 ? &entry : nullptr;
}
SLUICE_INLINE const volatile sluice_offload_state* sluice_offload_get_state() {
  return native_offload_maps->memory().state;
}
SLUICE_INLINE sluice_offload_cell* sluice_offload_get_cell(__u32 index) {
  const sluice::tables::OffloadMemory memory = native_offload_maps->memory();
  return index < memory.cpus * memory.ids ? &memory.cells[index] : nullptr;
}
SLUICE_INLINE const sluice_splice* sluice_offload_get_splice(__u32 id) {
  const sluice::tables::OffloadMemory memory = native_offload_maps->memory();
  return id < memory.ids ? &memory.splices[id] : nullptr;
}
SLUICE_INLINE __u32 sluice_offload_cpu() { return 0; }

#include "bpf/include/offload.h"

namespace sluice::test {

// The sum of 16-bit words as they are in memory.
inline uint32_t SumInMemory(const uint8_t* at, size_t size) {
  const uint16_t sum = NaiveSum({at, size});
  return __builtin_bswap16(sum);
}

// True when it is sent on, as `frame` is then.
inline bool ForwardsNatively(const io::af_xdp::OffloadMaps& maps, uint32_t word, Bytes& frame) {
  native_offload_maps = &maps;
  auto exact = std::make_unique<uint8_t[]>(frame.size());
  std::copy(frame.begin(), frame.end(), exact.get());
  sluice_offload_packet p{};
  sluice_offload_entry4 entry4;
  sluice_offload_entry6 entry6;
  sluice_splice splice;
  const bool v4 = frame[12] == 0x08;
  const uint8_t* const end = exact.get() + frame.size();
  if (v4 ? !sluice_offload_find4(exact.get(), end, word, &p, &entry4, &splice)
         : !sluice_offload_find6(exact.get(), end, word, &p, &entry6, &splice)) {
    return false;
  }
  auto trimmed = std::make_unique<uint8_t[]>(p.frame_bytes);
  uint8_t* const data = trimmed.get();
  std::copy_n(exact.get(), p.frame_bytes, data);
  const uint32_t sum = SumInMemory(data + (v4 ? 34 : 54), p.l4_bytes);
  const uint8_t* const last = data + p.frame_bytes;
  if (v4 ? !sluice_offload_rewrite4(data, last, sum, &p, &entry4)
         : !sluice_offload_rewrite6(data, last, sum, &p, &entry6)) {
    return false;
  }
  sluice_offload_count(&p);
  frame.assign(data, data + p.frame_bytes);
  return true;
}

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_OFFLOAD_NATIVE_H_
