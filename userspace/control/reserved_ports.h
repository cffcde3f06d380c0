// Keeps the kernel's own connections off the ports that NAT gives to translated ones, or those that
// Sluice's sockets take: the range is
// added to net.ipv4.ip_local_reserved_ports (which holds for IPv6, too) and taken out again at the
// end. What others have reserved stays.
//
// Thread: control. The sysctl is that of the calling thread's network namespace.
#ifndef SLUICE_CONTROL_RESERVED_PORTS_H_
#define SLUICE_CONTROL_RESERVED_PORTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "control/config.h"

namespace sluice::control {

// A list of ports as the sysctl has it ("8080,9000-9010") with `range` added: sorted, merged. None
// when `list` is not such a list.
std::optional<std::string> AddPorts(std::string_view list, PortRange range);

// ... and with those of `range` taken out, but for the ports of the list `keep`.
std::optional<std::string> RemovePorts(std::string_view list, PortRange range,
                                       std::string_view keep);

class ReservedPorts {
 public:
  ReservedPorts() = default;
  ~ReservedPorts() { Release(); }
  ReservedPorts(const ReservedPorts&) = delete;
  ReservedPorts& operator=(const ReservedPorts&) = delete;

  // Once; later calls change nothing.
  absl::Status Reserve(PortRange range);
  // Takes out again what was added. Several may be alive, and end in any order.
  void Release();

 private:
  std::optional<PortRange> range_;  // none: nothing is reserved
  std::string before_;              // as it was
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RESERVED_PORTS_H_
