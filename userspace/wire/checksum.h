// The Internet checksum: sums, incremental updates, and the pseudo headers of TCP, UDP and ICMPv6.
//
// All values are in host order, as LoadBe16 yields them. A "sum" is a one's-complement sum of
// 16-bit words that is not yet complemented; sums of even-length pieces may simply be added (32
// bits hold 65,536 folded ones). A "checksum" is what stands in the header: the complement of a
// folded sum.
//
// Rules: RFC 1071 (sums), RFC 1624 equation 3 (updates: HC' = ~(~HC + ~m + m')), RFC 768 (a UDP
// checksum that computes to zero is sent as 0xffff; zero means absent, on IPv4). DecrementTtl
// leaves the very bytes that Linux' ip_decrease_ttl leaves.
//
// Cost: Sum reads 32 bytes per round; the updates are a handful of additions. No state, any thread.
#ifndef SLUICE_WIRE_CHECKSUM_H_
#define SLUICE_WIRE_CHECKSUM_H_

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"

namespace sluice::wire {

// The folded sum (0 to 0xffff) of bytes that begin at an even offset; an odd last byte counts as
// the high half of a word.
uint32_t Sum(std::span<const uint8_t> bytes);

// Adds the carries back in until 16 bits are left. Zero only for zero.
constexpr uint16_t Fold(uint64_t sum) {
  sum = (sum >> 32) + (sum & 0xffff'ffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  return static_cast<uint16_t>(sum);
}

// From a sum to the field's value.
constexpr uint16_t Checksum(uint64_t sum) { return static_cast<uint16_t>(~Fold(sum)); }

// The same for UDP (and for what Linux' skb_checksum_help fills in): never zero.
constexpr uint16_t NonZeroChecksum(uint64_t sum) {
  const uint16_t check = Checksum(sum);
  return check == 0 ? 0xffff : check;
}

inline uint16_t InternetChecksum(std::span<const uint8_t> bytes) { return Checksum(Sum(bytes)); }

// Sums pieces that follow each other, also when one of them has an odd length.
class SumChain {
 public:
  explicit SumChain(uint32_t initial = 0) : sum_(initial) {}

  void Add(std::span<const uint8_t> piece) {
    const uint32_t sum = Sum(piece);
    // A piece at an odd offset has its bytes in the other halves of the words; swapping the
    // sum's halves moves them (RFC 1071 section 2B).
    sum_ += odd_ ? __builtin_bswap16(static_cast<uint16_t>(sum)) : sum;
    odd_ ^= (piece.size() & 1) != 0;
  }
  uint64_t sum() const { return sum_; }

 private:
  uint64_t sum_;
  bool odd_ = false;
};

// The sum of an IPv4 header of `words` 32-bit words (5 to 15), for the hot path. A header whose
// checksum is right folds to 0xffff. Summed in the CPU's byte order, since a one's-complement sum
// only has its bytes swapped by that (RFC 1071 section 2B).
inline uint64_t Ipv4HeaderSum(const uint8_t* header, unsigned words) {
  uint64_t first;
  uint64_t second;
  uint32_t word;
  std::memcpy(&first, header, sizeof first);
  std::memcpy(&second, header + 8, sizeof second);
  std::memcpy(&word, header + 16, sizeof word);
  uint64_t sum = (first & 0xffff'ffff) + (first >> 32) + (second & 0xffff'ffff) + (second >> 32) +
                 word;
  for (unsigned i = 5; i < words; ++i) {
    std::memcpy(&word, header + i * size_t{4}, sizeof word);
    sum += word;
  }
  // Below 2^36: two steps leave 17 bits at most, the third none.
  sum = (sum >> 32) + (sum & 0xffff'ffff);
  sum = (sum >> 16) + (sum & 0xffff);
  sum = (sum >> 16) + (sum & 0xffff);
  return __builtin_bswap16(static_cast<uint16_t>((sum >> 16) + (sum & 0xffff)));
}

// `length` is that of the L4 header and its payload.
constexpr uint32_t PseudoHeaderSum(Ipv4 source, Ipv4 destination, uint8_t protocol,
                                   uint32_t length) {
  return (source.value >> 16) + (source.value & 0xffff) + (destination.value >> 16) +
         (destination.value & 0xffff) + protocol + (length >> 16) + (length & 0xffff);
}

constexpr uint32_t PseudoHeaderSum(const Ipv6& source, const Ipv6& destination, uint8_t protocol,
                                   uint32_t length) {
  uint64_t sum = length;
  sum += protocol;
  for (const uint64_t half : {source.hi, source.lo, destination.hi, destination.lo}) {
    sum += (half >> 32) + (half & 0xffff'ffff);
  }
  return Fold(sum);
}

// RFC 1624 equation 3: the checksum after the 16-bit word `old_value` became `new_value`.
constexpr uint16_t UpdateChecksum16(uint16_t check, uint16_t old_value, uint16_t new_value) {
  return Checksum(uint64_t{static_cast<uint16_t>(~check)} + static_cast<uint16_t>(~old_value) +
                  new_value);
}

constexpr uint16_t UpdateChecksum32(uint16_t check, uint32_t old_value, uint32_t new_value) {
  return Checksum(uint64_t{static_cast<uint16_t>(~check)} + static_cast<uint32_t>(~old_value) +
                  new_value);
}

constexpr uint16_t UpdateChecksum(uint16_t check, Ipv4 old_value, Ipv4 new_value) {
  return UpdateChecksum32(check, old_value.value, new_value.value);
}

constexpr uint16_t UpdateChecksum(uint16_t check, const Ipv6& old_value, const Ipv6& new_value) {
  uint64_t sum = static_cast<uint16_t>(~check);
  for (const uint64_t half : {~old_value.hi, ~old_value.lo, new_value.hi, new_value.lo}) {
    sum += (half >> 32) + (half & 0xffff'ffff);
  }
  return Checksum(sum);
}

// What a UDP header holds after an update by one of the functions above: an absent checksum stays
// absent, and a computed zero becomes 0xffff.
constexpr uint16_t KeepUdpRules(uint16_t check_before, uint16_t check_after) {
  if (check_before == 0) return 0;
  return check_after == 0 ? 0xffff : check_after;
}

// Takes one from the TTL of an IPv4 header and adjusts its checksum. The TTL must not be 0.
inline void DecrementTtl(uint8_t* ipv4_header) {
  ipv4_header[8] = static_cast<uint8_t>(ipv4_header[8] - 1);
  // The word with the TTL became 0x0100 less, so the checksum becomes that much more; the carry goes
  // around, and 0xffff is written as 0. As Linux does it, on the little-endian number.
  uint16_t check;
  std::memcpy(&check, ipv4_header + 10, sizeof check);
  const uint32_t sum = uint32_t{check} + 1;
  check = static_cast<uint16_t>(sum + (sum >= 0xffff ? 1 : 0));
  std::memcpy(ipv4_header + 10, &check, sizeof check);
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_CHECKSUM_H_
