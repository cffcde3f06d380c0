// The entries of one of OffloadMaps' hash maps: which keys it holds and with which id, so that a
// removal can be conditional without asking the kernel, and changes go there in batches.
//
// Internal to OffloadMaps. Thread: control.
#ifndef SLUICE_IO_AF_XDP_OFFLOAD_ENTRIES_H_
#define SLUICE_IO_AF_XDP_OFFLOAD_ENTRIES_H_

#include <cstdint>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/status.h"
#include "bpf/include/offload_abi.h"

namespace sluice::io::af_xdp {

template <class Key, class Entry>
class OffloadEntries {
 public:
  OffloadEntries() = default;
  OffloadEntries(const OffloadEntries&) = delete;
  OffloadEntries& operator=(const OffloadEntries&) = delete;

  void Use(int fd, uint32_t capacity) {
    fd_ = fd;
    capacity_ = capacity;
  }

  // Notes the change; `entry` stays where it is until Flush.
  void Add(const Key& key, const Entry& entry) { pending_[{key}] = &entry; }
  void Remove(const Key& key, uint32_t id);
  // Carries out what has been noted: removals first, since they make room.
  absl::Status Flush();

  size_t size() const { return present_.size(); }
  uint64_t full() const { return full_; }

 private:
  struct Name {  // compared by bytes: keys have no holes
    Key key;
    bool operator==(const Name& other) const {
      return std::memcmp(&key, &other.key, sizeof key) == 0;
    }
    template <typename H>
    friend H AbslHashValue(H h, const Name& n) {
      return H::combine_contiguous(std::move(h), reinterpret_cast<const unsigned char*>(&n.key),
                                   sizeof n.key);
    }
  };

  absl::Status Delete();
  absl::Status Update();

  int fd_ = -1;
  size_t capacity_ = 0;
  uint64_t full_ = 0;
  absl::flat_hash_map<Name, uint32_t> present_;      // the kernel's map: key to id
  absl::flat_hash_map<Name, const Entry*> pending_;  // null: to be removed
  std::vector<Key> keys_;                            // of a batch
  std::vector<Entry> values_;
};

extern template class OffloadEntries<sluice_offload_key4, sluice_offload_entry4>;
extern template class OffloadEntries<sluice_offload_key6, sluice_offload_entry6>;

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_OFFLOAD_ENTRIES_H_
