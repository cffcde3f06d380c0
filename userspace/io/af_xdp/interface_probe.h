// What the kernel tells about a network interface before Sluice serves it.
//
// By ioctl and ethtool, not sysfs, since sysfs shows the namespace it was mounted in, which need
// not be the one we run in.
//
// Thread: control. Needs no privilege, except the Set functions (CAP_NET_ADMIN).
#ifndef SLUICE_IO_AF_XDP_INTERFACE_PROBE_H_
#define SLUICE_IO_AF_XDP_INTERFACE_PROBE_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/address.h"
#include "base/ids.h"

namespace sluice::io::af_xdp {

struct InterfaceInfo {
  std::string name;
  IfIndex index;
  Mac mac;
  uint32_t mtu = 0;
  std::string driver;       // "veth", "ice"; empty when the kernel does not say
  bool is_virtual = false;  // its frames may come with checksums not filled in
  uint16_t receive_queues = 1;
  uint16_t max_queues = 1;  // what SetQueues can be asked for
  bool up = false;          // administratively
  bool carrier = false;
  bool vlan_offload = false;  // the NIC takes VLAN tags out of received frames
};

absl::StatusOr<InterfaceInfo> ProbeInterface(const std::string& name);

// Sets the number of receive (and transmit) queues.
absl::Status SetQueues(const InterfaceInfo& info, uint16_t queues);

// With the offload on, XDP sees a tagged frame without its tag and would take it for an untagged
// one. InvalidArgument when the driver cannot switch it.
absl::Status SetVlanOffload(const InterfaceInfo& info, bool on);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_INTERFACE_PROBE_H_
