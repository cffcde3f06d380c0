// Zeroed memory whose pages come into being when first touched, at an address that never moves.
//
// For tables that are reserved at their limit and pay for what they use. Control thread only, at
// set-up and tear-down; throws std::bad_alloc as `new` does when the kernel refuses.
#ifndef SLUICE_TABLES_MAPPED_REGION_H_
#define SLUICE_TABLES_MAPPED_REGION_H_

#include <cstddef>

namespace sluice::tables {

class MappedRegion {
 public:
  // `huge_pages` asks for transparent huge pages, which save most TLB misses of random lookups; the
  // kernel may not grant them, and nothing but speed depends on it.
  MappedRegion(size_t bytes, bool huge_pages);
  ~MappedRegion();
  MappedRegion(const MappedRegion&) = delete;
  MappedRegion& operator=(const MappedRegion&) = delete;

  void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* mapping_ = nullptr;  // data_ is aligned within it
  size_t mapping_size_ = 0;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_MAPPED_REGION_H_
