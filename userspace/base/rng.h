// A small seeded generator (SplitMix64): the same seed gives the same run, in tests and in the
// jitter of timers. Not for secrets.
#ifndef SLUICE_BASE_RNG_H_
#define SLUICE_BASE_RNG_H_

#include <cstdint>

namespace sluice {

class Rng {
 public:
  explicit Rng(uint64_t seed) : state_(seed) {}

  uint64_t Next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
  }
  // In [0, bound); bound must not be 0. The bias is below 2^-32 for the bounds used here.
  uint64_t Below(uint64_t bound) {
    return static_cast<uint64_t>((static_cast<unsigned __int128>(Next()) * bound) >> 64);
  }
  // True with probability numerator / denominator.
  bool Chance(uint64_t numerator, uint64_t denominator) { return Below(denominator) < numerator; }

 private:
  uint64_t state_;
};

}  // namespace sluice

#endif  // SLUICE_BASE_RNG_H_
