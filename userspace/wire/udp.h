// The UDP header (RFC 768): view and emitter.
//
// Parse checks that the eight bytes are there. Whether the length field fits the packet is a
// separate question (LengthFits), since a router does not ask it.
#ifndef SLUICE_WIRE_UDP_H_
#define SLUICE_WIRE_UDP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/byte_order.h"
#include "wire/checksum.h"

namespace sluice::wire {

class UdpView {
 public:
  static constexpr size_t kSize = 8;

  static std::optional<UdpView> Parse(std::span<const uint8_t> l4) {
    if (l4.size() < kSize) return {};
    return UdpView(l4.data());
  }
  // Trusts that kSize bytes are there.
  explicit UdpView(const uint8_t* p) : p_(p) {}

  uint16_t source_port() const { return LoadBe16(p_); }
  uint16_t destination_port() const { return LoadBe16(p_ + 2); }
  uint16_t length() const { return LoadBe16(p_ + 4); }  // header and data
  uint16_t checksum() const { return LoadBe16(p_ + 6); }
  bool has_checksum() const { return checksum() != 0; }
  // Whether the length is possible in an L4 part of `l4_length` bytes.
  bool LengthFits(size_t l4_length) const { return length() >= kSize && length() <= l4_length; }

 private:
  const uint8_t* p_;
};

// Writes header and payload with the checksum over `pseudo_header_sum`, which is PseudoHeaderSum
// with the length 8 + payload. Returns the bytes written, 0 when `out` or UDP's length is too
// small.
inline size_t EmitUdp(std::span<uint8_t> out, uint16_t source_port, uint16_t destination_port,
                      std::span<const uint8_t> payload, uint32_t pseudo_header_sum) {
  const size_t size = UdpView::kSize + payload.size();
  if (out.size() < size || size > 0xffff) return 0;
  uint8_t* p = out.data();
  if (p + UdpView::kSize != payload.data()) {
    std::copy(payload.begin(), payload.end(), p + UdpView::kSize);
  }
  StoreBe16(p, source_port);
  StoreBe16(p + 2, destination_port);
  StoreBe16(p + 4, static_cast<uint16_t>(size));
  StoreBe16(p + 6, 0);
  StoreBe16(p + 6, NonZeroChecksum(uint64_t{pseudo_header_sum} + Sum(out.first(size))));
  return size;
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_UDP_H_
