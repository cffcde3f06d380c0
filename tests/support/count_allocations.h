// How often this program has called operator new. A program that links count_allocations.cc has its
// operators replaced.
#ifndef SLUICE_TESTS_SUPPORT_COUNT_ALLOCATIONS_H_
#define SLUICE_TESTS_SUPPORT_COUNT_ALLOCATIONS_H_

#include <cstdint>

namespace sluice::test {

uint64_t Allocations();
// How much it has asked for, freed or not.
uint64_t AllocatedBytes();

}  // namespace sluice::test

#endif  // SLUICE_TESTS_SUPPORT_COUNT_ALLOCATIONS_H_
