#include "support/count_allocations.h"

#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
uint64_t allocations = 0;
uint64_t allocated_bytes = 0;
}  // namespace

void* operator new(size_t size) {
  ++allocations;
  allocated_bytes += size;
  if (void* const p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }
// libstdc++'s array forms call these; a sanitizer's do not.
void* operator new[](size_t size) { return operator new(size); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete[](void* p, size_t) noexcept { std::free(p); }

namespace sluice::test {

uint64_t Allocations() { return allocations; }
uint64_t AllocatedBytes() { return allocated_bytes; }

}  // namespace sluice::test
