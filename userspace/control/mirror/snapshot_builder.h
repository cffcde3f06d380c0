// Builds tables::Snapshot, what packets are judged by, from what the mirror knows.
//
// Threads: the control thread. Cost: proportional to the served interfaces and all addresses.
#ifndef SLUICE_CONTROL_MIRROR_SNAPSHOT_BUILDER_H_
#define SLUICE_CONTROL_MIRROR_SNAPSHOT_BUILDER_H_

#include <cstdint>
#include <string>

#include "absl/types/span.h"
#include "base/ids.h"
#include "control/mirror/kernel_state.h"
#include "control/mirror/sysctl.h"
#include "control/netfilter/firewall_presence.h"
#include "tables/snapshot.h"

namespace sluice::control {

struct ServedInterface {
  IfaceSlot slot;
  std::string name;
  tables::ChecksumMode checksum = tables::ChecksumMode::kTrust;
  bool ready = true;  // its sockets are bound
};

// An interface that the kernel does not have leaves its slot invalid.
tables::Snapshot BuildSnapshot(const KernelState& state, const Sysctls& sysctls,
                               absl::Span<const ServedInterface> served,
                               const FirewallPresence& firewall, uint64_t generation);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_MIRROR_SNAPSHOT_BUILDER_H_
