// A device's XDP features, as the kernel's "netdev" netlink family tells them (Linux 6.3).
//
// Source: Documentation/netlink/specs/netdev.yaml. Thread: any, in the device's network namespace.
#ifndef SLUICE_IO_AF_XDP_NETDEV_FEATURES_H_
#define SLUICE_IO_AF_XDP_NETDEV_FEATURES_H_

#include <cstdint>
#include <optional>

#include "base/ids.h"

namespace sluice::io::af_xdp {

// Bits of the answer; there are more.
inline constexpr uint64_t kXdpFeatureBasic = 1;
inline constexpr uint64_t kXdpFeatureTarget = 4;  // NETDEV_XDP_ACT_NDO_XMIT

// Nothing when the kernel is too old, or the device has gone.
std::optional<uint64_t> ReadXdpFeatures(IfIndex index);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_NETDEV_FEATURES_H_
