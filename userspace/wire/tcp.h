// The TCP header (RFC 9293): view and an iterator over its options.
//
// Parse checks that the fixed 20 bytes and the options, as far as the data offset says, are there.
// A router that only wants ports may use L4PortsView, which needs four bytes (enough for a quoted
// packet in an ICMP error, too).
#ifndef SLUICE_WIRE_TCP_H_
#define SLUICE_WIRE_TCP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/byte_order.h"

namespace sluice::wire {

inline constexpr uint8_t kTcpFin = 0x01;
inline constexpr uint8_t kTcpSyn = 0x02;
inline constexpr uint8_t kTcpRst = 0x04;
inline constexpr uint8_t kTcpPsh = 0x08;
inline constexpr uint8_t kTcpAck = 0x10;
inline constexpr uint8_t kTcpUrg = 0x20;
inline constexpr uint8_t kTcpEce = 0x40;
inline constexpr uint8_t kTcpCwr = 0x80;

inline constexpr uint8_t kTcpOptionEnd = 0;
inline constexpr uint8_t kTcpOptionNop = 1;
inline constexpr uint8_t kTcpOptionMss = 2;
inline constexpr uint8_t kTcpOptionWindowScale = 3;
inline constexpr uint8_t kTcpOptionSackPermitted = 4;
inline constexpr uint8_t kTcpOptionSack = 5;
inline constexpr uint8_t kTcpOptionTimestamps = 8;

// The ports, which stand at the same place in TCP, UDP, UDP-Lite, SCTP and DCCP.
class L4PortsView {
 public:
  static constexpr size_t kSize = 4;
  static std::optional<L4PortsView> Parse(std::span<const uint8_t> l4) {
    if (l4.size() < kSize) return {};
    return L4PortsView(l4.data());
  }
  explicit L4PortsView(const uint8_t* p) : p_(p) {}
  uint16_t source_port() const { return LoadBe16(p_); }
  uint16_t destination_port() const { return LoadBe16(p_ + 2); }
  uint32_t both() const { return LoadBe32(p_); }  // for hashing

 private:
  const uint8_t* p_;
};

class TcpView {
 public:
  static constexpr size_t kMinSize = 20;

  static std::optional<TcpView> Parse(std::span<const uint8_t> l4) {
    if (l4.size() < kMinSize) return {};
    const TcpView view(l4.data());
    if (view.header_length() < kMinSize || view.header_length() > l4.size()) return {};
    return view;
  }
  // Trusts that Parse has accepted this header.
  explicit TcpView(const uint8_t* p) : p_(p) {}

  uint16_t source_port() const { return LoadBe16(p_); }
  uint16_t destination_port() const { return LoadBe16(p_ + 2); }
  uint32_t sequence() const { return LoadBe32(p_ + 4); }
  uint32_t acknowledgment() const { return LoadBe32(p_ + 8); }
  size_t header_length() const { return (p_[12] >> 4) * size_t{4}; }  // bytes, 20 to 60
  uint8_t flags() const { return p_[13]; }
  bool syn() const { return (flags() & kTcpSyn) != 0; }
  bool ack() const { return (flags() & kTcpAck) != 0; }
  bool fin() const { return (flags() & kTcpFin) != 0; }
  bool rst() const { return (flags() & kTcpRst) != 0; }
  uint16_t window() const { return LoadBe16(p_ + 14); }
  uint16_t checksum() const { return LoadBe16(p_ + 16); }
  uint16_t urgent_pointer() const { return LoadBe16(p_ + 18); }
  std::span<const uint8_t> options() const { return {p_ + kMinSize, header_length() - kMinSize}; }

 private:
  const uint8_t* p_;
};

struct TcpOption {
  uint8_t kind = 0;
  std::span<const uint8_t> bytes;  // all of it, kind and length included
};

// Yields the options one by one, No-Operations left out; ends early, `malformed`, at one that does
// not fit.
class TcpOptionIterator {
 public:
  explicit TcpOptionIterator(std::span<const uint8_t> options) : left_(options) {}

  std::optional<TcpOption> Next() {
    while (!left_.empty() && left_[0] == kTcpOptionNop) left_ = left_.subspan(1);
    if (left_.empty() || left_[0] == kTcpOptionEnd) return {};
    if (left_.size() < 2 || left_[1] < 2 || left_[1] > left_.size()) {
      malformed_ = true;
      return {};
    }
    const TcpOption option{left_[0], left_.first(left_[1])};
    left_ = left_.subspan(option.bytes.size());
    return option;
  }
  bool malformed() const { return malformed_; }

 private:
  std::span<const uint8_t> left_;
  bool malformed_ = false;
};

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_TCP_H_
