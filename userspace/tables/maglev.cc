#include "tables/maglev.h"

#include <algorithm>

namespace sluice::tables {

std::vector<uint8_t> BuildMaglev(std::span<const MaglevBackend> backends) {
  constexpr uint16_t kFree = 0xffff;
  if (backends.empty()) return {};
  struct Turn {
    uint32_t next;    // the next place of its permutation
    uint32_t skip;
    uint32_t credit;  // it may claim a place when this has reached the largest weight
  };
  std::vector<Turn> turns;
  uint32_t largest = 1;
  for (const MaglevBackend& b : backends) {
    largest = std::max(largest, b.weight);
    turns.push_back({static_cast<uint32_t>(MixBits(b.key) % kMaglevSize),
                     static_cast<uint32_t>(MixBits(b.key ^ 0x6d61676c6576) % (kMaglevSize - 1)) + 1,
                     0});
  }
  std::vector<uint16_t> places(kMaglevSize, kFree);
  for (uint32_t filled = 0; filled < kMaglevSize;) {
    for (size_t i = 0; i < turns.size() && filled < kMaglevSize; ++i) {
      Turn& turn = turns[i];
      turn.credit += backends[i].weight;
      if (turn.credit < largest) continue;
      turn.credit -= largest;
      while (places[turn.next] != kFree) turn.next = (turn.next + turn.skip) % kMaglevSize;
      places[turn.next] = static_cast<uint16_t>(i);
      ++filled;
    }
  }
  return {places.begin(), places.end()};
}

}  // namespace sluice::tables
