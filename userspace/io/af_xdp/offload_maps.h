// The flow tier's BPF maps: made, lent to the programs of all interfaces, and the only place that
// writes their entries.
//
// Cost. A key that is added or removed is part of a system call for many; Apply's time grows with
// the number of changes. Memory, all of it at the start, so that the limit is a promise: for each
// id 135 bytes in the kernel for an IPv4 entry, 188 for an IPv6 one (both maps have room for all
// ids), 32 to 64 for their buckets, 32 bytes per possible CPU for its cells and 32 for its splice; and
// up to 60 here once it has an entry. 65,536 ids on four CPUs: 35 MiB. Besides 17 KiB of state.
//
// Errors are one sentence that says what to do. What only fails because a map is full is no error,
// but counted: such a flow stays with its worker.
//
// Thread: control. The mapped memory is for all threads, as tables/offload.h says.
#ifndef SLUICE_IO_AF_XDP_OFFLOAD_MAPS_H_
#define SLUICE_IO_AF_XDP_OFFLOAD_MAPS_H_

#include <cstdint>
#include <memory>
#include <span>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/ids.h"
#include "io/af_xdp/offload_entries.h"
#include "tables/offload.h"

namespace sluice::io::af_xdp {

class OffloadMaps {
 public:
  // For at most so many entries of both families together, with ids from 0 to `ids` - 1.
  static absl::StatusOr<std::unique_ptr<OffloadMaps>> Create(uint32_t ids);
  ~OffloadMaps();
  OffloadMaps(const OffloadMaps&) = delete;
  OffloadMaps& operator=(const OffloadMaps&) = delete;

  // Valid as long as this is; programs of interfaces keep their own hold of the maps. All epochs
  // are 0, the world's generation is 1.
  tables::OffloadMemory memory() const { return memory_; }

  // For bpf_map__reuse_fd. `devices_f`: for programs that take frames in several buffers.
  struct Fds {
    int flows4 = -1;
    int flows6 = -1;
    int cells = -1;
    int splices = -1;
    int state = -1;
    int devices = -1;
    int devices_f = -1;
  };
  const Fds& fds() const { return fds_; }

  // In the order given, in so far as it matters: of several changes of one key the outcome is that
  // of one after the other. An addition replaces the key's entry, whatever id that has; a removal
  // removes it only if it has that id. When the kernel fails, what could be done has been done, and
  // what was to be removed can be removed again.
  absl::Status Apply(std::span<const tables::OffloadChange> changes);

  struct Counts {
    size_t entries4 = 0;
    size_t entries6 = 0;
    uint64_t full = 0;  // additions so far that found no room
  };
  Counts counts() const;

  // Where entries with `out == slot` go, from now on; the interface is one of this thread's network
  // namespace. The kernel takes it out by itself when it goes.
  absl::Status SetDevice(IfaceSlot slot, IfIndex index);
  absl::Status ClearDevice(IfaceSlot slot);

 private:
  OffloadMaps() = default;
  absl::Status Open(uint32_t ids, uint32_t cpus);

  Fds fds_;
  tables::OffloadMemory memory_;
  size_t state_size_ = 0;  // mapped, by whole pages
  size_t cells_size_ = 0;
  size_t splices_size_ = 0;
  OffloadEntries<sluice_offload_key4, sluice_offload_entry4> entries4_;
  OffloadEntries<sluice_offload_key6, sluice_offload_entry6> entries6_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_OFFLOAD_MAPS_H_
