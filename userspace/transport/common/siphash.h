// A keyed hash that cannot be guessed without its key: SipHash-1-3 and SipHash-2-4 (J.-P. Aumasson,
// D. J. Bernstein, "SipHash: a fast short-input PRF", 2012), over whole 64-bit words.
//
// 1-3 for tables that strangers fill; 2-4 for what they must not predict: initial sequence numbers
// (RFC 6528), ports (RFC 6056), SYN cookies (RFC 4987), timestamp offsets (RFC 7323 section 5.4).
#ifndef SLUICE_TRANSPORT_COMMON_SIPHASH_H_
#define SLUICE_TRANSPORT_COMMON_SIPHASH_H_

#include <bit>
#include <cstdint>
#include <initializer_list>

namespace sluice::transport {

struct HashKey {
  uint64_t k0 = 0;
  uint64_t k1 = 0;
};

template <int kCompression, int kFinalization>
constexpr uint64_t SipHash(const HashKey& key, std::initializer_list<uint64_t> words) {
  uint64_t v0 = key.k0 ^ 0x736f6d6570736575ull;
  uint64_t v1 = key.k1 ^ 0x646f72616e646f6dull;
  uint64_t v2 = key.k0 ^ 0x6c7967656e657261ull;
  uint64_t v3 = key.k1 ^ 0x7465646279746573ull;
  const auto rounds = [&](int n) {
    for (int i = 0; i < n; ++i) {
      v0 += v1;
      v1 = std::rotl(v1, 13) ^ v0;
      v0 = std::rotl(v0, 32);
      v2 += v3;
      v3 = std::rotl(v3, 16) ^ v2;
      v0 += v3;
      v3 = std::rotl(v3, 21) ^ v0;
      v2 += v1;
      v1 = std::rotl(v1, 17) ^ v2;
      v2 = std::rotl(v2, 32);
    }
  };
  for (const uint64_t word : words) {
    v3 ^= word;
    rounds(kCompression);
    v0 ^= word;
  }
  const uint64_t last = (uint64_t{words.size()} * 8) << 56;
  v3 ^= last;
  rounds(kCompression);
  v0 ^= last;
  v2 ^= 0xff;
  rounds(kFinalization);
  return v0 ^ v1 ^ v2 ^ v3;
}

constexpr uint64_t TableHash(const HashKey& key, std::initializer_list<uint64_t> words) {
  return SipHash<1, 3>(key, words);
}
constexpr uint64_t SecretHash(const HashKey& key, std::initializer_list<uint64_t> words) {
  return SipHash<2, 4>(key, words);
}

}  // namespace sluice::transport

#endif  // SLUICE_TRANSPORT_COMMON_SIPHASH_H_
