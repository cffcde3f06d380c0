#include "control/group_memberships.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>

namespace sluice::control {
namespace {

sockaddr_storage SocketAddress(const IpAddress& address) {
  sockaddr_storage storage{};
  if (address.is_v4()) {
    sockaddr_in in{};
    in.sin_family = AF_INET;
    address.v4().ToWire(reinterpret_cast<uint8_t*>(&in.sin_addr));
    std::memcpy(&storage, &in, sizeof in);
  } else {
    sockaddr_in6 in6{};
    in6.sin6_family = AF_INET6;
    address.v6().ToWire(reinterpret_cast<uint8_t*>(&in6.sin6_addr));
    std::memcpy(&storage, &in6, sizeof in6);
  }
  return storage;
}

}  // namespace

absl::Status GroupMemberships::Join(const GroupMembership& membership) {
  if (sockets_.contains(membership)) return absl::OkStatus();
  const bool v4 = membership.group.is_v4();
  const int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return absl::ErrnoToStatus(errno, "socket");
  group_req request{};
  request.gr_interface = membership.on.value;
  request.gr_group = SocketAddress(membership.group);
  if (setsockopt(fd, v4 ? IPPROTO_IP : IPPROTO_IPV6, MCAST_JOIN_GROUP, &request,
                 sizeof request) != 0) {
    const int error = errno;
    close(fd);
    return absl::ErrnoToStatus(error, "the kernel does not join it");
  }
  sockets_.emplace(membership, fd);
  return absl::OkStatus();
}

void GroupMemberships::LeaveAllBut(const std::set<GroupMembership>& kept) {
  std::erase_if(sockets_, [&](const auto& held) {
    if (kept.contains(held.first)) return false;
    close(held.second);
    return true;
  });
}

}  // namespace sluice::control
