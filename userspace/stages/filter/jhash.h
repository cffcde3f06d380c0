// Bob Jenkins' lookup3 ("hashlittle", public domain, burtleburtle.net/bob/c/lookup3.c, 2006), which
// `jhash` statements of nftables name: with the same seed, the same values as the kernel's.
#ifndef SLUICE_STAGES_FILTER_JHASH_H_
#define SLUICE_STAGES_FILTER_JHASH_H_

#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

namespace sluice::stages {

inline uint32_t Jhash(std::span<const uint8_t> key, uint32_t seed) {
  uint32_t a = 0xdeadbeef + static_cast<uint32_t>(key.size()) + seed;
  uint32_t b = a;
  uint32_t c = a;
  const auto add = [&](const uint8_t* p) {
    uint32_t words[3];
    std::memcpy(words, p, sizeof words);
    a += words[0];
    b += words[1];
    c += words[2];
  };
  const auto step = [](uint32_t& x, uint32_t& y, uint32_t& z, int rotation) {
    x -= z;
    x ^= std::rotl(z, rotation);
    z += y;
  };
  while (key.size() > 12) {
    add(key.data());
    step(a, b, c, 4);
    step(b, c, a, 6);
    step(c, a, b, 8);
    step(a, b, c, 16);
    step(b, c, a, 19);
    step(c, a, b, 4);
    key = key.subspan(12);
  }
  if (key.empty()) return c;
  uint8_t last[12] = {};
  std::memcpy(last, key.data(), key.size());
  add(last);
  const auto final_step = [](uint32_t& x, uint32_t& y, int rotation) {
    x ^= y;
    x -= std::rotl(y, rotation);
  };
  final_step(c, b, 14);
  final_step(a, c, 11);
  final_step(b, a, 25);
  final_step(c, b, 16);
  final_step(a, c, 4);
  final_step(b, a, 14);
  final_step(c, b, 24);
  return c;
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FILTER_JHASH_H_
