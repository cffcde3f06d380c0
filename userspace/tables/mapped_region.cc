#include "tables/mapped_region.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

namespace sluice::tables {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

MappedRegion::MappedRegion(size_t bytes, bool huge_pages)
    : mapping_size_((bytes + 2 * kHugePage - 1) & ~(kHugePage - 1)), size_(bytes) {
  mapping_ = mmap(nullptr, mapping_size_, PROT_READ | PROT_WRITE,
                  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  const uintptr_t start = reinterpret_cast<uintptr_t>(mapping_);
  data_ = reinterpret_cast<void*>((start + kHugePage - 1) & ~(kHugePage - 1));
  // A refusal (kernel built without THP) only costs speed, so the result does not matter.
  (void)madvise(data_, size_, huge_pages ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
}

MappedRegion::~MappedRegion() { munmap(mapping_, mapping_size_); }

}  // namespace sluice::tables
