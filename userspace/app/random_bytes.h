// Bytes of the kernel's generator, for secrets: keys of hashes that strangers must not predict. For
// what only has to be even, and the same with the same seed, there is base/rng.h.
//
// Thread: any. A system call, which waits where the kernel has not been seeded since it started.
#ifndef SLUICE_APP_RANDOM_BYTES_H_
#define SLUICE_APP_RANDOM_BYTES_H_

#include <cstdint>
#include <span>
#include <type_traits>

namespace sluice::app {

// getrandom(2); throws std::system_error where there is none.
void FillRandom(std::span<uint8_t> bytes);

// An integer, or a struct of them without padding.
template <class T>
T RandomValue() {
  static_assert(std::has_unique_object_representations_v<T>);
  T value{};
  FillRandom({reinterpret_cast<uint8_t*>(&value), sizeof value});
  return value;
}

}  // namespace sluice::app

#endif  // SLUICE_APP_RANDOM_BYTES_H_
