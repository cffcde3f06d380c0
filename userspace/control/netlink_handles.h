// libnl's objects with an owner.
#ifndef SLUICE_CONTROL_NETLINK_HANDLES_H_
#define SLUICE_CONTROL_NETLINK_HANDLES_H_

#include <netlink/addr.h>
#include <sys/socket.h>

#include <cstdint>
#include <memory>

#include "base/address.h"

namespace sluice::control {

template <class T, void (*kFree)(T*)>
struct NetlinkFreer {
  void operator()(T* p) const { kFree(p); }
};
template <class T, void (*kFree)(T*)>
using NetlinkHandle = std::unique_ptr<T, NetlinkFreer<T, kFree>>;
using NetlinkAddress = NetlinkHandle<nl_addr, nl_addr_put>;

// Null: there is no memory.
inline NetlinkAddress MakeNetlinkAddress(const IpAddress& address, uint8_t prefix_length) {
  uint8_t bytes[16];
  if (address.is_v4()) {
    address.v4().ToWire(bytes);
  } else {
    address.v6().ToWire(bytes);
  }
  NetlinkAddress out(
      nl_addr_build(address.is_v4() ? AF_INET : AF_INET6, bytes, address.is_v4() ? 4 : 16));
  if (out) nl_addr_set_prefixlen(out.get(), prefix_length);
  return out;
}

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETLINK_HANDLES_H_
