// BOOTP (RFC 951), the form of a DHCP message (RFC 2131): as much as tells whose reply one is.
#ifndef SLUICE_WIRE_BOOTP_H_
#define SLUICE_WIRE_BOOTP_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>

#include "base/address.h"

namespace sluice::wire {

inline constexpr uint16_t kBootpServerPort = 67;
inline constexpr uint16_t kBootpClientPort = 68;

class BootpView {
 public:
  static constexpr size_t kSize = 44;  // up to the end of chaddr

  // What follows the UDP header.
  static std::optional<BootpView> Parse(std::span<const uint8_t> payload) {
    if (payload.size() < kSize) return {};
    return BootpView(payload.data());
  }

  // Whether it answers the client with this Ethernet address.
  bool IsReplyTo(const Mac& client) const {
    return p_[0] == kReply && p_[1] == kEthernet && p_[2] == 6 && Mac::FromWire(p_ + 28) == client;
  }

 private:
  static constexpr uint8_t kReply = 2;     // op
  static constexpr uint8_t kEthernet = 1;  // htype

  explicit BootpView(const uint8_t* p) : p_(p) {}

  const uint8_t* p_;
};

}  // namespace sluice::wire

#endif  // SLUICE_WIRE_BOOTP_H_
