// Installs the addresses and routes of the configuration's `linux:` section into the kernel.
//
// Idempotent: an address that is there already is left alone (its lifetime and labels as well), a
// route to the same destination is replaced, as `ip route replace` does. Nothing is ever removed:
// what was installed belongs to Linux afterwards and comes back through the mirror. Links are not
// set up; a route over a link that is down is an error that says so.
//
// Thread: the control thread. Blocks for one netlink round trip per entry. Needs CAP_NET_ADMIN.
#ifndef SLUICE_CONTROL_LINUX_SETUP_H_
#define SLUICE_CONTROL_LINUX_SETUP_H_

#include "absl/status/status.h"
#include "control/config.h"

namespace sluice::control {

// Stops at the first entry that fails and names it.
absl::Status InstallLinuxConfig(const LinuxConfig& config);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_LINUX_SETUP_H_
