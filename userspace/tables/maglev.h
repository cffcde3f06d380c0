// Consistent hashing after D. E. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load
// Balancer", NSDI 2016, section 3.4: each backend has a permutation of the table's places, and they
// take turns at claiming the next free one. With weights, a backend's turns come in proportion.
//
// Two tables of nearly the same backends agree in nearly all places, and every machine that is
// configured alike has the same table, since permutations depend on the backends' own keys alone.
// Building costs a few milliseconds: for the control thread. A lookup is one load. Pure functions.
#ifndef SLUICE_TABLES_MAGLEV_H_
#define SLUICE_TABLES_MAGLEV_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sluice::tables {

// Prime, and a hundred times the number of backends and more, so that shares are right within 1 %.
inline constexpr uint32_t kMaglevSize = 65'537;

struct MaglevBackend {
  uint64_t key = 0;     // names it: of its address, not of its place in a list
  uint32_t weight = 1;  // not 0
};

// At most 256 backends; the table holds their indices. Empty without any.
std::vector<uint8_t> BuildMaglev(std::span<const MaglevBackend> backends);

// A mix of 64 bits that is the same everywhere and always (SplitMix64's).
constexpr uint64_t MixBits(uint64_t z) {
  z += 0x9e3779b97f4a7c15ull;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
  return z ^ (z >> 31);
}
// Place of a hash in the table.
constexpr uint32_t MaglevPlace(uint64_t hash) {
  return static_cast<uint32_t>((static_cast<unsigned __int128>(hash) * kMaglevSize) >> 64);
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_MAGLEV_H_
