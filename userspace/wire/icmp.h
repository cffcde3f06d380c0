// ICMP for IPv4 (RFC 792, 1191, 1812): view, errors, echo.
//
// IcmpView needs the eight bytes that every message has; what bytes 4 to 7 mean depends on the
// type. How much of an offending packet an error quotes, and whether it may be sent at all, is
// decided by the ICMP stage; EmitIcmp writes what it is given. Linux pads nothing and sends no RFC
// 4884 extensions for IPv4 forwarding errors.
#ifndef SLUICE_WIRE_ICMP_H_
#define SLUICE_WIRE_ICMP_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"
#include "base/byte_order.h"
#include "wire/checksum.h"

namespace sluice::wire {

inline constexpr uint8_t kIcmpEchoReply = 0;
inline constexpr uint8_t kIcmpUnreachable = 3;
inline constexpr uint8_t kIcmpSourceQuench = 4;
inline constexpr uint8_t kIcmpRedirect = 5;
inline constexpr uint8_t kIcmpEchoRequest = 8;
inline constexpr uint8_t kIcmpTimeExceeded = 11;
inline constexpr uint8_t kIcmpParameterProblem = 12;
inline constexpr uint8_t kIcmpTimestamp = 13;
inline constexpr uint8_t kIcmpTimestampReply = 14;

// Codes of kIcmpUnreachable.
inline constexpr uint8_t kIcmpNetUnreachable = 0;
inline constexpr uint8_t kIcmpHostUnreachable = 1;
inline constexpr uint8_t kIcmpProtocolUnreachable = 2;
inline constexpr uint8_t kIcmpPortUnreachable = 3;
inline constexpr uint8_t kIcmpFragmentationNeeded = 4;
inline constexpr uint8_t kIcmpSourceRouteFailed = 5;
inline constexpr uint8_t kIcmpNetProhibited = 9;
inline constexpr uint8_t kIcmpHostProhibited = 10;
inline constexpr uint8_t kIcmpFiltered = 13;
// Codes of kIcmpRedirect and kIcmpTimeExceeded.
inline constexpr uint8_t kIcmpRedirectHost = 1;
inline constexpr uint8_t kIcmpTtlExceeded = 0;
inline constexpr uint8_t kIcmpReassemblyTimeout = 1;

// Messages that must never be answered by another error (RFC 1812 section 4.3.2.7).
constexpr bool IsIcmpError(uint8_t type) {
  return type == kIcmpUnreachable || type == kIcmpSourceQuench || type == kIcmpRedirect ||
         type == kIcmpTimeExceeded || type == kIcmpParameterProblem;
}

class IcmpView {
 public:
  static constexpr size_t kSize = 8;

  static std::optional<IcmpView> Parse(std::span<const uint8_t> message) {
    if (message.size() < kSize) return {};
    return IcmpView(message.data());
  }
  // Trusts that kSize bytes are there.
  explicit IcmpView(const uint8_t* p) : p_(p) {}

  uint8_t type() const { return p_[0]; }
  uint8_t code() const { return p_[1]; }
  uint16_t checksum() const { return LoadBe16(p_ + 2); }
  uint32_t rest() const { return LoadBe32(p_ + 4); }  // bytes 4 to 7
  uint16_t echo_id() const { return LoadBe16(p_ + 4); }
  uint16_t echo_sequence() const { return LoadBe16(p_ + 6); }
  uint16_t mtu() const { return LoadBe16(p_ + 6); }        // fragmentation needed (RFC 1191)
  uint8_t pointer() const { return p_[4]; }                // parameter problem
  Ipv4 gateway() const { return Ipv4::FromWire(p_ + 4); }  // redirect

 private:
  const uint8_t* p_;
};

// The `rest` of messages.
constexpr uint32_t IcmpRestMtu(uint16_t mtu) { return mtu; }
constexpr uint32_t IcmpRestPointer(uint8_t pointer) { return uint32_t{pointer} << 24; }
constexpr uint32_t IcmpRestEcho(uint16_t id, uint16_t sequence) {
  return uint32_t{id} << 16 | sequence;
}

// Writes a message with its checksum: the header, then `body` (the quoted packet of an error, the
// data of an echo). Returns the bytes written, 0 when `out` is too small. `body` may already stand
// at its place in `out`.
inline size_t EmitIcmp(std::span<uint8_t> out, uint8_t type, uint8_t code, uint32_t rest,
                       std::span<const uint8_t> body) {
  const size_t size = IcmpView::kSize + body.size();
  if (out.size() < size) return 0;
  uint8_t* p = out.data();
  if (p + IcmpView::kSize != body.data()) std::copy(body.begin(), body.end(), p + IcmpView::kSize);
  p[0] = type;
  p[1] = code;
  StoreBe16(p + 2, 0);
  StoreBe32(p + 4, rest);
  StoreBe16(p + 2, InternetChecksum(out.first(size)));
  return size;
}

// Makes an echo request into its reply, in place; the data is not touched or read.
inline void TurnIntoEchoReply(uint8_t* icmp) {
  const uint16_t before = LoadBe16(icmp);
  icmp[0] = kIcmpEchoReply;
  StoreBe16(icmp + 2, UpdateChecksum16(LoadBe16(icmp + 2), before, LoadBe16(icmp)));
}

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_ICMP_H_
