#include "control/netfilter/netfilter_watch.h"

#include <linux/xfrm.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "control/netfilter/legacy_tables.h"
#include "control/netlink/attributes.h"

namespace sluice::control {
namespace {

constexpr Nanos kPollInterval = Seconds(2);

}  // namespace

std::unique_ptr<NetfilterWatch> NetfilterWatch::Open(Nanos now) {
  std::unique_ptr<NetfilterWatch> watch(new NetfilterWatch);
  NetlinkOptions options;
  options.protocol = NETLINK_XFRM;
  options.strict_check = false;
  options.receive_buffer = 1 << 20;
  // A kernel without IPsec has no policies either.
  absl::StatusOr<NetlinkSocket> xfrm = NetlinkSocket::Open(options);
  if (xfrm.ok()) watch->xfrm_ = *std::move(xfrm);
  watch->Evaluate(now);
  return watch;
}

bool NetfilterWatch::Run(Nanos now) { return now >= next_poll_ && Evaluate(now); }

bool NetfilterWatch::Evaluate(Nanos now) {
  next_poll_ = now + kPollInterval;
  FirewallPresence presence;
  JudgeLegacyTables(Family::kIpv4, presence);
  JudgeLegacyTables(Family::kIpv6, presence);
  JudgeIpsec(presence);
  if (presence == presence_) return false;
  presence_ = std::move(presence);
  return true;
}

void NetfilterWatch::JudgeIpsec(FirewallPresence& presence) {
  if (!xfrm_) return;
  // The answer to this request is there when send() returns; nothing is waited for.
  const uint32_t flags = 0;
  const absl::Span<const uint8_t> body(reinterpret_cast<const uint8_t*>(&flags), sizeof flags);
  const absl::StatusOr<uint32_t> sent = xfrm_->Send(XFRM_MSG_GETSPDINFO, 0, body);
  if (!sent.ok()) return;
  uint32_t policies = 0;
  const auto read = xfrm_->Read(16, [&](const nlmsghdr& message) {
    if (message.nlmsg_seq != *sent || message.nlmsg_type != XFRM_MSG_NEWSPDINFO) return;
    const Attributes<XFRMA_SPD_MAX> a(message, sizeof flags);
    const auto counts = a.Get<xfrmu_spdinfo>(XFRMA_SPD_INFO);
    if (counts) policies = counts->incnt + counts->outcnt + counts->fwdcnt;
  });
  if (!read.ok() || policies == 0) return;
  Merge(FirewallPresence{true,
                         true,
                         true,
                         true,
                         {absl::StrCat("IPsec: ", policies, " policies (ip xfrm policy)")}},
        presence);
}

}  // namespace sluice::control
