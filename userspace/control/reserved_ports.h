// Keeps the kernel's own connections off the ports that NAT gives to translated ones: the range is
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

class ReservedPorts {
 public:
  ReservedPorts() = default;
  ~ReservedPorts() { Release(); }
  ReservedPorts(const ReservedPorts&) = delete;
  ReservedPorts& operator=(const ReservedPorts&) = delete;

  // Once; later calls change nothing.
  absl::Status Reserve(PortRange range);
  // Puts back what was there, unless somebody has changed it meanwhile.
  void Release();

 private:
  std::string before_;
  std::string ours_;  // empty: nothing is reserved
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RESERVED_PORTS_H_
