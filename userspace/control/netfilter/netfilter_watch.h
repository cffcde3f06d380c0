// Watches whether the old iptables or IPsec could judge packets in this network namespace. (nftables,
// and so iptables-nft, is followed by control/nft.)
//
// Neither has a cheap notification: both are looked at every two seconds.
//
// Threads: the control thread only, in the namespace of Open.
#ifndef SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_
#define SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_

#include <memory>
#include <optional>

#include "base/time.h"
#include "control/netfilter/firewall_presence.h"
#include "control/netlink/netlink_socket.h"

namespace sluice::control {

class NetfilterWatch {
 public:
  // Evaluates once.
  static std::unique_ptr<NetfilterWatch> Open(Nanos now);
  NetfilterWatch(const NetfilterWatch&) = delete;
  NetfilterWatch& operator=(const NetfilterWatch&) = delete;

  Nanos NextDeadline() const { return next_poll_; }
  // True when presence() has changed.
  bool Run(Nanos now);
  const FirewallPresence& presence() const { return presence_; }

 private:
  NetfilterWatch() = default;
  bool Evaluate(Nanos now);
  void JudgeIpsec(FirewallPresence& presence);

  std::optional<NetlinkSocket> xfrm_;
  FirewallPresence presence_;
  Nanos next_poll_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_
