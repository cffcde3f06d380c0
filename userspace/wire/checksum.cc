#include "wire/checksum.h"

#include <cstring>

namespace sluice::wire {
namespace {

uint64_t LoadNative64(const uint8_t* p) {
  uint64_t v;
  std::memcpy(&v, p, sizeof v);
  return v;
}

// One's-complement addition: the carry goes back in at the bottom.
uint64_t AddCarry(uint64_t a, uint64_t b) {
  uint64_t sum;
  const bool carry = __builtin_add_overflow(a, b, &sum);
  return sum + carry;
}

}  // namespace

uint32_t Sum(std::span<const uint8_t> bytes) {
  // The words are added in the CPU's byte order and the result is swapped once: a one's-complement
  // sum does not care (RFC 1071 section 2B). Two accumulators keep two additions in flight.
  const uint8_t* p = bytes.data();
  size_t n = bytes.size();
  uint64_t a = 0;
  uint64_t b = 0;
  for (; n >= 32; n -= 32, p += 32) {
    a = AddCarry(a, LoadNative64(p));
    b = AddCarry(b, LoadNative64(p + 8));
    a = AddCarry(a, LoadNative64(p + 16));
    b = AddCarry(b, LoadNative64(p + 24));
  }
  a = AddCarry(a, b);
  for (; n >= 8; n -= 8, p += 8) a = AddCarry(a, LoadNative64(p));
  if (n > 0) {
    uint8_t rest[8] = {};
    std::memcpy(rest, p, n);
    a = AddCarry(a, LoadNative64(rest));
  }
  return __builtin_bswap16(Fold(a));
}

}  // namespace sluice::wire
