#include "control/neighbor_writer.h"

#include <linux/neighbour.h>
#include <netlink/netlink.h>
#include <netlink/route/neighbour.h>

#include "absl/strings/str_cat.h"
#include "control/netlink_handles.h"

namespace sluice::control {

absl::StatusOr<std::unique_ptr<NeighborWriter>> NeighborWriter::Open() {
  nl_sock* const socket = nl_socket_alloc();
  if (socket == nullptr) return absl::ResourceExhaustedError("out of memory");
  std::unique_ptr<NeighborWriter> writer(new NeighborWriter(socket));
  if (const int error = nl_connect(socket, NETLINK_ROUTE); error < 0) {
    return absl::UnavailableError(absl::StrCat("cannot open rtnetlink: ", nl_geterror(error)));
  }
  return writer;
}

NeighborWriter::~NeighborWriter() { nl_socket_free(socket_); }

absl::Status NeighborWriter::Add(IfIndex interface, const IpAddress& address, const Mac& mac) {
  const NetlinkHandle<rtnl_neigh, rtnl_neigh_put> neighbor(rtnl_neigh_alloc());
  const NetlinkAddress destination = MakeNetlinkAddress(address, address.is_v4() ? 32 : 128);
  const NetlinkAddress link(nl_addr_build(AF_LLC, mac.bytes.data(), mac.bytes.size()));
  if (!neighbor || !destination || !link) return absl::ResourceExhaustedError("out of memory");
  rtnl_neigh_set_ifindex(neighbor.get(), static_cast<int>(interface.value));
  rtnl_neigh_set_dst(neighbor.get(), destination.get());
  rtnl_neigh_set_lladdr(neighbor.get(), link.get());
  rtnl_neigh_set_state(neighbor.get(), NUD_STALE);
  const int error = rtnl_neigh_add(socket_, neighbor.get(), NLM_F_CREATE | NLM_F_EXCL);
  if (error >= 0 || error == -NLE_EXIST) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("neighbour ", ToString(address), ": ", nl_geterror(error)));
}

}  // namespace sluice::control
