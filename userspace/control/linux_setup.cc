#include "control/linux_setup.h"

#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netlink/netlink.h>
#include <netlink/route/addr.h>
#include <netlink/route/nexthop.h>
#include <netlink/route/route.h>

#include <memory>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "control/netlink_handles.h"

namespace sluice::control {
namespace {

using Socket = NetlinkHandle<nl_sock, nl_socket_free>;
using LinkAddress = NetlinkHandle<rtnl_addr, rtnl_addr_put>;
using Route = NetlinkHandle<rtnl_route, rtnl_route_put>;

absl::Status NetlinkError(const std::string& what, int error) {
  const std::string text = absl::StrCat("cannot add ", what, ": ", nl_geterror(error));
  switch (-error) {
    case NLE_PERM:
    case NLE_NOACCESS:
      return absl::PermissionDeniedError(absl::StrCat(text, " (this needs CAP_NET_ADMIN)"));
    case NLE_EXIST:
      return absl::AlreadyExistsError(text);
    default:
      return absl::FailedPreconditionError(text);
  }
}

absl::StatusOr<int> IndexOf(const std::string& name, const std::string& what) {
  const unsigned index = if_nametoindex(name.c_str());
  if (index != 0) return static_cast<int>(index);
  return absl::NotFoundError(absl::StrCat("cannot add ", what, ": no interface \"", name, "\""));
}

absl::Status AddAddress(nl_sock* socket, const LinuxAddress& entry) {
  const std::string what = absl::StrCat("address ", ToString(entry.address), "/",
                                        entry.prefix_length, " on ", entry.interface);
  const auto index = IndexOf(entry.interface, what);
  if (!index.ok()) return index.status();
  const LinkAddress address(rtnl_addr_alloc());
  const NetlinkAddress local = MakeNetlinkAddress(entry.address, entry.prefix_length);
  if (!address || !local) return absl::ResourceExhaustedError("out of memory");
  rtnl_addr_set_ifindex(address.get(), *index);
  if (const int error = rtnl_addr_set_local(address.get(), local.get()); error < 0) {
    return NetlinkError(what, error);
  }
  const int error = rtnl_addr_add(socket, address.get(), NLM_F_CREATE | NLM_F_EXCL);
  return error < 0 && error != -NLE_EXIST ? NetlinkError(what, error) : absl::OkStatus();
}

absl::Status AddRoute(nl_sock* socket, const LinuxRoute& entry) {
  const std::string what =
      absl::StrCat("route ", ToString(entry.destination), "/", entry.prefix_length,
                   entry.via ? absl::StrCat(" via ", ToString(*entry.via)) : "",
                   entry.dev.empty() ? "" : absl::StrCat(" dev ", entry.dev));
  int index = 0;
  if (!entry.dev.empty()) {
    const auto found = IndexOf(entry.dev, what);
    if (!found.ok()) return found.status();
    index = *found;
  }
  const Route route(rtnl_route_alloc());
  const NetlinkAddress destination =
      MakeNetlinkAddress(entry.destination, entry.prefix_length);
  rtnl_nexthop* const nexthop = rtnl_route_nh_alloc();  // the route's, once added to it
  if (!route || !destination || nexthop == nullptr) {
    if (nexthop != nullptr) rtnl_route_nh_free(nexthop);
    return absl::ResourceExhaustedError("out of memory");
  }
  rtnl_route_set_family(route.get(), entry.destination.is_v4() ? AF_INET : AF_INET6);
  rtnl_route_set_table(route.get(), RT_TABLE_MAIN);
  rtnl_route_set_protocol(route.get(), RTPROT_STATIC);
  rtnl_route_set_scope(route.get(), entry.via ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
  rtnl_route_set_dst(route.get(), destination.get());
  if (index != 0) rtnl_route_nh_set_ifindex(nexthop, index);
  if (entry.via) {
    const NetlinkAddress via = MakeNetlinkAddress(*entry.via, entry.via->is_v4() ? 32 : 128);
    if (via) rtnl_route_nh_set_gateway(nexthop, via.get());
  }
  rtnl_route_add_nexthop(route.get(), nexthop);
  const int error = rtnl_route_add(socket, route.get(), NLM_F_CREATE | NLM_F_REPLACE);
  if (error >= 0) return absl::OkStatus();
  absl::Status status = NetlinkError(what, error);
  // What the kernel says for a link that is down, or a gateway on none of its links, is short.
  if (absl::IsFailedPrecondition(status)) {
    return absl::FailedPreconditionError(absl::StrCat(
        status.message(), " (is the device up, and the gateway in one of its networks?)"));
  }
  return status;
}

}  // namespace

absl::Status InstallLinuxConfig(const LinuxConfig& config) {
  if (config.addresses.empty() && config.routes.empty()) return absl::OkStatus();
  const Socket socket(nl_socket_alloc());
  if (!socket) return absl::ResourceExhaustedError("out of memory");
  if (const int error = nl_connect(socket.get(), NETLINK_ROUTE); error < 0) {
    return absl::UnavailableError(absl::StrCat("cannot open rtnetlink: ", nl_geterror(error)));
  }
  for (const LinuxAddress& entry : config.addresses) {
    if (absl::Status s = AddAddress(socket.get(), entry); !s.ok()) return s;
  }
  for (const LinuxRoute& entry : config.routes) {
    if (absl::Status s = AddRoute(socket.get(), entry); !s.ok()) return s;
  }
  return absl::OkStatus();
}

}  // namespace sluice::control
