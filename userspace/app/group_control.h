// Multicast groups that services listen to, on the way from the network to the workers:
//
//   the kernel joins a group on each interface where it is wanted (control/group_memberships.h),
//   and there XDP hands its datagrams to the workers, who give the kernel a copy (io/af_xdp/xdp_program.h).
//
// Where the kernel does not join, XDP passes on as before: nothing is taken that was not asked for. The
// order leaves no gap: a group is left by XDP before the kernel leaves it, and joined by services before
// XDP hands it over (of what nobody has joined the workers give the kernel everything).
//
// Follow is cheap when nothing has changed, and is asked again for whatever has failed: an interface may
// have got an MTU that IPv6 can do with. Thread: control.
#ifndef SLUICE_APP_GROUP_CONTROL_H_
#define SLUICE_APP_GROUP_CONTROL_H_

#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "app/interfaces.h"
#include "base/address.h"
#include "base/ids.h"
#include "control/group_memberships.h"
#include "control/mirror/kernel_state.h"
#include "tables/service_config.h"

namespace sluice::app {

class GroupControl {
 public:
  using Served = std::span<const ServedInterface, kMaxInterfaces>;

  // Sets group_slots by group_interfaces, for workers.
  static void Place(tables::ServicesConfig& services, Served interfaces);

  // What these services ask for, on the interfaces that are attached now.
  void Follow(const tables::ServicesConfig& services, Served interfaces,
              const control::KernelState& kernel);

  // Groups in the table of XDP that has most.
  uint64_t used() const { return used_; }
  // Groups, by interface, that could not be joined.
  uint64_t not_joined() const { return problems_.size(); }

 private:
  using Where = std::pair<std::string, IpAddress>;  // interface, group

  absl::Status Join(const IpAddress& group, const ServedInterface& served,
                    const control::KernelState& kernel);

  control::GroupMemberships memberships_;
  std::map<Where, std::string> problems_;  // each is logged once
  uint64_t used_ = 0;
};

}  // namespace sluice::app

#endif  // SLUICE_APP_GROUP_CONTROL_H_
