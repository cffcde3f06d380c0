#include "io/af_xdp/interface_probe.h"

#include <linux/ethtool.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace sluice::io::af_xdp {
namespace {

class ControlSocket {
 public:
  ControlSocket() : fd_(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {}
  ~ControlSocket() {
    if (fd_ >= 0) close(fd_);
  }
  ControlSocket(const ControlSocket&) = delete;
  ControlSocket& operator=(const ControlSocket&) = delete;

  // 0, or the errno.
  int Request(const std::string& name, unsigned long request, ifreq& ifr) const {
    std::memset(ifr.ifr_name, 0, sizeof ifr.ifr_name);
    std::memcpy(ifr.ifr_name, name.data(), std::min(name.size(), sizeof ifr.ifr_name - 1));
    return ioctl(fd_, request, &ifr) == 0 ? 0 : errno;
  }
  int Ethtool(const std::string& name, void* command) const {
    ifreq ifr{};
    ifr.ifr_data = static_cast<char*>(command);
    return Request(name, SIOCETHTOOL, ifr);
  }

 private:
  const int fd_;
};

bool IsVirtualDriver(const std::string& driver) {
  static constexpr const char* kVirtual[] = {
      "veth", "tun",   "virtio_net", "bridge",  "macvlan",   "ipvlan",      "bonding",
      "team", "dummy", "netkit",     "vmxnet3", "hv_netvsc", "xen_netfront"};
  for (const char* name : kVirtual) {
    if (driver == name) return true;
  }
  return driver.empty();  // those that have no ethtool at all: lo, and the like
}

uint16_t ToQueues(uint32_t n) { return static_cast<uint16_t>(std::clamp<uint32_t>(n, 1, 0xffff)); }

// Receive queues are the "combined" channels and those that only receive.
void ProbeQueues(const ControlSocket& s, InterfaceInfo& info) {
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  if (s.Ethtool(info.name, &channels) == 0) {
    info.receive_queues = ToQueues(channels.combined_count + channels.rx_count);
    info.max_queues =
        ToQueues(std::max(channels.max_combined, std::min(channels.max_rx, channels.max_tx)));
    return;
  }
  ethtool_rxnfc rings{};
  rings.cmd = ETHTOOL_GRXRINGS;
  if (s.Ethtool(info.name, &rings) == 0) {
    info.receive_queues = ToQueues(static_cast<uint32_t>(rings.data));
  }
  info.max_queues = info.receive_queues;
}

}  // namespace

absl::StatusOr<InterfaceInfo> ProbeInterface(const std::string& name) {
  if (name.empty() || name.size() >= IFNAMSIZ) {
    return absl::InvalidArgumentError(
        absl::StrCat("interface ", name, ": not a valid name for an interface"));
  }
  const ControlSocket s;
  InterfaceInfo info;
  info.name = name;
  ifreq ifr{};
  if (const int error = s.Request(name, SIOCGIFINDEX, ifr); error != 0) {
    if (error == ENODEV) {
      return absl::NotFoundError(
          absl::StrCat("interface ", name, ": there is none of this name (see `ip link`)"));
    }
    return absl::InternalError(
        absl::StrCat("interface ", name, ": cannot be examined: ", std::strerror(error)));
  }
  info.index = IfIndex{static_cast<uint32_t>(ifr.ifr_ifindex)};
  if (s.Request(name, SIOCGIFHWADDR, ifr) == 0) {
    info.mac = Mac::FromWire(reinterpret_cast<const uint8_t*>(ifr.ifr_hwaddr.sa_data));
  }
  if (s.Request(name, SIOCGIFMTU, ifr) == 0) info.mtu = static_cast<uint32_t>(ifr.ifr_mtu);
  if (s.Request(name, SIOCGIFFLAGS, ifr) == 0) {
    info.up = (ifr.ifr_flags & IFF_UP) != 0;
    info.carrier = (ifr.ifr_flags & IFF_RUNNING) != 0;
  }
  ethtool_drvinfo driver{};
  driver.cmd = ETHTOOL_GDRVINFO;
  if (s.Ethtool(name, &driver) == 0) info.driver = driver.driver;
  info.is_virtual = IsVirtualDriver(info.driver);
  ethtool_value flags{};
  flags.cmd = ETHTOOL_GFLAGS;
  if (s.Ethtool(name, &flags) == 0) info.vlan_offload = (flags.data & ETH_FLAG_RXVLAN) != 0;
  ProbeQueues(s, info);
  return info;
}

absl::Status SetQueues(const InterfaceInfo& info, uint16_t queues) {
  const ControlSocket s;
  ethtool_channels channels{};
  channels.cmd = ETHTOOL_GCHANNELS;
  int error = s.Ethtool(info.name, &channels);
  if (error == 0) {
    if (channels.max_combined > 0) {
      channels.combined_count = queues;
      channels.rx_count = 0;
      channels.tx_count = 0;
    } else {
      channels.rx_count = queues;
      channels.tx_count = queues;
    }
    channels.cmd = ETHTOOL_SCHANNELS;
    error = s.Ethtool(info.name, &channels);
  }
  if (error == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("interface ", info.name, ": cannot be set to ", queues, " queues (it has ",
                   info.receive_queues, " and can have ", info.max_queues,
                   "): ", std::strerror(error), "; leave out `queues`, or choose another number"));
}

absl::Status SetVlanOffload(const InterfaceInfo& info, bool on) {
  const ControlSocket s;
  ethtool_value flags{};
  flags.cmd = ETHTOOL_GFLAGS;
  int error = s.Ethtool(info.name, &flags);
  if (error == 0) {
    flags.cmd = ETHTOOL_SFLAGS;
    flags.data = on ? flags.data | ETH_FLAG_RXVLAN : flags.data & ~uint32_t{ETH_FLAG_RXVLAN};
    error = s.Ethtool(info.name, &flags);
  }
  if (error == 0) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("interface ", info.name,
                                                 ": receive VLAN offload cannot be switched ",
                                                 on ? "on" : "off", ": ", std::strerror(error)));
}

}  // namespace sluice::io::af_xdp
