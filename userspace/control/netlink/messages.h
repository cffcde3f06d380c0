// rtnetlink messages as plain structures. Parsing is one pass over the attributes of one message;
// nothing is cached and nothing is kept.
//
// A Parse function answers nullopt for a message that is malformed or of no concern here (another
// address family, a table that the default rules do not use, a cached IPv6 exception). Attributes
// that are unknown are passed over: newer kernels send more.
//
// Rules and formats: linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h, linux/fib_rules.h,
// linux/neighbour.h, linux/nexthop.h, linux/netconf.h.
#ifndef SLUICE_CONTROL_NETLINK_MESSAGES_H_
#define SLUICE_CONTROL_NETLINK_MESSAGES_H_

#include <linux/netlink.h>

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "base/address.h"
#include "base/ids.h"
#include "control/rib/route_update.h"

namespace sluice::control {

struct LinkMessage {
  IfIndex ifindex;
  std::string name;
  std::string kind;  // "veth", "bridge", ...; empty for physical ones
  Mac mac;
  uint32_t mtu = 0;
  uint32_t flags = 0;  // IFF_*
  uint32_t master = 0;
  uint16_t type = 0;  // ARPHRD_*
  bool carrier = false;
  uint8_t operstate = 0;
  uint32_t rx_queues = 0;
  uint32_t tx_queues = 0;
};

struct AddressMessage {
  IfIndex ifindex;
  IpAddress address;  // ours (IFA_LOCAL)
  IpAddress peer;     // IFA_ADDRESS: equal, but on point-to-point links
  uint8_t prefix_length = 0;
  uint8_t scope = 0;
  uint32_t flags = 0;  // IFA_F_*
};

struct RuleMessage {
  Family family = Family::kIpv4;
  uint32_t priority = 0;
  uint32_t table = 0;
  uint8_t action = 0;  // FR_ACT_*
  bool plain = false;  // "from all lookup TABLE" and nothing else
};

struct NeighborMessage {
  IfIndex ifindex;
  IpAddress address;
  Mac mac;
  bool has_mac = false;
  uint16_t state = 0;  // NUD_*
  uint8_t flags = 0;   // NTF_*
  uint8_t type = 0;    // RTN_*
};

struct NetconfMessage {
  enum class Scope : uint8_t { kAll, kDefault, kInterface };
  Family family = Family::kIpv4;
  Scope scope = Scope::kInterface;
  IfIndex ifindex;
  std::optional<bool> ignore_routes_with_linkdown;
};

std::optional<LinkMessage> ParseLink(const nlmsghdr& message);
std::optional<AddressMessage> ParseAddress(const nlmsghdr& message);
std::optional<RuleMessage> ParseRule(const nlmsghdr& message);
std::optional<NeighborMessage> ParseNeighbor(const nlmsghdr& message);
std::optional<NetconfMessage> ParseNetconf(const nlmsghdr& message);
std::optional<NexthopUpdate> ParseNexthop(const nlmsghdr& message);
// Fills `out` (reused from message to message to spare allocations). False: of no concern.
bool ParseRoute(const nlmsghdr& message, RouteUpdate& out);

// What an NLMSG_ERROR says; OK for an acknowledgement.
absl::Status ParseError(const nlmsghdr& message);
// The errno of an NLMSG_ERROR or NLMSG_DONE, as a positive number; 0 for success.
int ErrorNumber(const nlmsghdr& message);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETLINK_MESSAGES_H_
