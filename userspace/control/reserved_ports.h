// Keeps the kernel's own connections off the ports that NAT gives to translated ones, those that
// Sluice's sockets take, and those that its services listen on: they are added to
// net.ipv4.ip_local_reserved_ports (which holds for IPv6, too) and taken out again at the end. What
// others have reserved stays. After a crash they stay in, as nobody knows whose they are.
//
// Thread: control. The sysctl is that of the calling thread's network namespace.
#ifndef SLUICE_CONTROL_RESERVED_PORTS_H_
#define SLUICE_CONTROL_RESERVED_PORTS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "control/config.h"

namespace sluice::control {

// A list of ports as the sysctl has it ("8080,9000-9010") with `ranges` added: sorted, merged. None
// when `list` is not such a list.
std::optional<std::string> AddPorts(std::string_view list, const std::vector<PortRange>& ranges);

// ... and with those of `ranges` taken out, but for the ports of the list `keep`.
std::optional<std::string> RemovePorts(std::string_view list,
                                       const std::vector<PortRange>& ranges, std::string_view keep);

class ReservedPorts {
 public:
  ReservedPorts() = default;
  ~ReservedPorts() { Release(); }
  ReservedPorts(const ReservedPorts&) = delete;
  ReservedPorts& operator=(const ReservedPorts&) = delete;

  // These and no others, in place of those before. Where it fails, those before stay.
  absl::Status Reserve(std::vector<PortRange> ranges);
  // Takes out again what was added. Several may be alive, and end in any order.
  void Release();

 private:
  std::vector<PortRange> ranges_;
  std::string before_;  // the list without them
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RESERVED_PORTS_H_
