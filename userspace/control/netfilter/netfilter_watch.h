// Watches whether netfilter or IPsec could judge packets in this network namespace.
//
// nftables (and iptables-nft): `list ruleset` through libnftables, again after each notification of
// NFNLGRP_NFTABLES, at most a twentieth of the time. Old iptables tables and IPsec policies have no
// cheap notification: looked at every two seconds.
//
// Threads: the control thread only, in the namespace of Open. Evaluating blocks for as long as nft
// takes to print the rules (the elements of sets are left out): some 10 ms per thousand rules.
#ifndef SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_
#define SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_

#include <memory>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/time.h"
#include "control/netfilter/firewall_presence.h"
#include "control/netlink/netlink_socket.h"

struct nft_ctx;

namespace sluice::control {

class NetfilterWatch {
 public:
  // Evaluates once. A kernel without nf_tables is no error.
  static absl::StatusOr<std::unique_ptr<NetfilterWatch>> Open(Nanos now);
  ~NetfilterWatch();
  NetfilterWatch(const NetfilterWatch&) = delete;
  NetfilterWatch& operator=(const NetfilterWatch&) = delete;

  int fd() const { return socket_ ? socket_->fd() : -1; }  // -1: poll() ignores it
  Nanos NextDeadline() const { return due_ < next_poll_ ? due_ : next_poll_; }
  // True when presence() has changed.
  absl::StatusOr<bool> Run(Nanos now);
  const FirewallPresence& presence() const { return presence_; }

 private:
  struct FreeContext {
    void operator()(nft_ctx* context) const;
  };

  NetfilterWatch() = default;
  bool Evaluate(Nanos now, bool nftables);
  void JudgeNftables(FirewallPresence& presence);
  void JudgeIpsec(FirewallPresence& presence);

  std::unique_ptr<nft_ctx, FreeContext> nft_;
  std::optional<NetlinkSocket> socket_;  // notifications of nf_tables
  std::optional<NetlinkSocket> xfrm_;
  FirewallPresence nftables_;  // of the last ruleset
  FirewallPresence presence_;
  Nanos due_ = Nanos::Max();  // of the next `list ruleset`
  Nanos not_before_;
  Nanos next_poll_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_NETFILTER_NETFILTER_WATCH_H_
