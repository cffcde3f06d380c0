// The hash of set keys: whole words, multiplied and folded; seeded, since senders choose the keys of
// dynamic sets. Keys are padded with zeros to a multiple of four bytes.
#ifndef SLUICE_TABLES_RULESET_KEY_HASH_H_
#define SLUICE_TABLES_RULESET_KEY_HASH_H_

#include <cstddef>
#include <cstdint>
#include <cstring>

namespace sluice::tables {

inline uint64_t MixHash(uint64_t a, uint64_t b) {
  const auto product = static_cast<unsigned __int128>(a ^ 0x9e3779b97f4a7c15ull) *
                       (b ^ 0xe7037ed1a0b428dbull);
  return static_cast<uint64_t>(product) ^ static_cast<uint64_t>(product >> 64);
}

inline uint64_t KeyHash(const uint8_t* key, size_t size, uint64_t seed = 0) {
  uint64_t hash = seed ^ size;
  size_t at = 0;
  for (; at + 8 <= size; at += 8) {
    uint64_t word;
    std::memcpy(&word, key + at, sizeof word);
    hash = MixHash(hash ^ word, 0x589965cc75374cc3ull + at);
  }
  if (at < size) {
    uint32_t word;
    std::memcpy(&word, key + at, sizeof word);
    hash = MixHash(hash ^ word, 0x1d8e4e27c47d124full);
  }
  return MixHash(hash, 0xeb44accab455d165ull);
}

inline bool SameKey(const uint8_t* a, const uint8_t* b, size_t size) {
  if (size == 4) {
    uint32_t x;
    uint32_t y;
    std::memcpy(&x, a, 4);
    std::memcpy(&y, b, 4);
    return x == y;
  }
  if (size == 8) {
    uint64_t x;
    uint64_t y;
    std::memcpy(&x, a, 8);
    std::memcpy(&y, b, 8);
    return x == y;
  }
  return size == 0 || std::memcmp(a, b, size) == 0;  // without bytes there may be no place either
}

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_RULESET_KEY_HASH_H_
