// The kernel's memberships in multicast groups, held for Sluice's services.
//
// The kernel keeps the groups' state: it answers queriers (IGMP, RFC 3376; MLD, RFC 3810), so that routers
// and snooping switches send a group this way, and it has the network card accept its frames. All that
// needs is a socket that has joined, from any source (RFC 3678 section 5.1), and reads nothing: it is
// bound to no port. A membership ends with its socket, so those of a process that dies end too.
//
// One socket per membership, since the kernel limits memberships per socket
// (net.ipv4.igmp_max_memberships); how many there are is limited by tables::kMaxGroupListens for each
// interface. Thread: control; the network namespace is the calling thread's.
#ifndef SLUICE_CONTROL_GROUP_MEMBERSHIPS_H_
#define SLUICE_CONTROL_GROUP_MEMBERSHIPS_H_

#include <compare>
#include <cstddef>
#include <map>
#include <set>

#include "absl/status/status.h"
#include "base/address.h"
#include "base/ids.h"

namespace sluice::control {

struct GroupMembership {
  IpAddress group;
  IfIndex on;
  auto operator<=>(const GroupMembership&) const = default;
};

class GroupMemberships {
 public:
  GroupMemberships() = default;
  ~GroupMemberships() { LeaveAllBut({}); }
  GroupMemberships(const GroupMemberships&) = delete;
  GroupMemberships& operator=(const GroupMemberships&) = delete;

  // OK as well when it is joined already.
  absl::Status Join(const GroupMembership& membership);
  void LeaveAllBut(const std::set<GroupMembership>& kept);
  size_t size() const { return sockets_.size(); }

 private:
  std::map<GroupMembership, int> sockets_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_GROUP_MEMBERSHIPS_H_
