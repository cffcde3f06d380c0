// CRC32c, the checksum of SCTP (RFC 4960 appendix B; polynomial 0x1EDC6F41, reflected), over
// pieces.
//
//   Crc32c crc; crc.Add(piece); ... StoreLe32(field, crc.value());
//
// SCTP transmits it least significant byte first, computed with a zero field. One byte per table
// step: some 1.5 ns per byte. SCTP is rare, and only translated SCTP needs it.
#ifndef SLUICE_WIRE_CRC32C_H_
#define SLUICE_WIRE_CRC32C_H_

#include <array>
#include <cstdint>
#include <span>

namespace sluice::wire {

namespace internal {

constexpr std::array<uint32_t, 256> MakeCrc32cTable() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c >> 1) ^ ((c & 1) != 0 ? 0x82f63b78u : 0);
    table[i] = c;
  }
  return table;
}
inline constexpr std::array<uint32_t, 256> kCrc32cTable = MakeCrc32cTable();

}  // namespace internal

class Crc32c {
 public:
  constexpr void Add(std::span<const uint8_t> piece) {
    for (const uint8_t byte : piece) {
      state_ = (state_ >> 8) ^ internal::kCrc32cTable[(state_ ^ byte) & 0xff];
    }
  }
  constexpr uint32_t value() const { return ~state_; }

 private:
  uint32_t state_ = 0xffff'ffff;
};

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_CRC32C_H_
