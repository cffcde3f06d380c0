#include "control/netfilter/netfilter_watch.h"

#include <linux/netfilter/nfnetlink.h>
#include <linux/xfrm.h>
#include <nftables/libnftables.h>
#include <poll.h>
#include <time.h>

#include <algorithm>
#include <string_view>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/netfilter/legacy_tables.h"
#include "control/netfilter/nft_ruleset.h"
#include "control/netlink/attributes.h"

namespace sluice::control {
namespace {

constexpr Nanos kDebounce = Millis(20);
constexpr Nanos kPollInterval = Seconds(2);
constexpr int kPauseFactor = 20;

// How long listing took is a matter of the real clock.
Nanos Clock() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return Seconds(t.tv_sec) + Nanos(t.tv_nsec);
}

void Merge(const FirewallPresence& from, FirewallPresence& into) {
  into.forward4 |= from.forward4;
  into.forward6 |= from.forward6;
  into.input4 |= from.input4;
  into.input6 |= from.input6;
  into.reasons.insert(into.reasons.end(), from.reasons.begin(), from.reasons.end());
}

}  // namespace

void NetfilterWatch::FreeContext::operator()(nft_ctx* context) const { nft_ctx_free(context); }

NetfilterWatch::~NetfilterWatch() = default;

absl::StatusOr<std::unique_ptr<NetfilterWatch>> NetfilterWatch::Open(Nanos now) {
  std::unique_ptr<NetfilterWatch> watch(new NetfilterWatch);
  NetlinkOptions options;
  options.protocol = NETLINK_NETFILTER;
  options.strict_check = false;
  options.receive_buffer = 1 << 20;
  absl::StatusOr<NetlinkSocket> socket = NetlinkSocket::Open(options);
  // A kernel without nfnetlink has no rules either.
  if (socket.ok()) {
    constexpr int kGroups[] = {NFNLGRP_NFTABLES};
    if (absl::Status joined = socket->Join(kGroups); !joined.ok()) return joined;
    watch->socket_ = *std::move(socket);
    watch->nft_.reset(nft_ctx_new(NFT_CTX_DEFAULT));
    if (watch->nft_ == nullptr) return absl::ResourceExhaustedError("no memory for libnftables");
    nft_ctx_output_set_flags(watch->nft_.get(), NFT_CTX_OUTPUT_JSON | NFT_CTX_OUTPUT_TERSE);
    nft_ctx_buffer_output(watch->nft_.get());
    nft_ctx_buffer_error(watch->nft_.get());
  }
  options.protocol = NETLINK_XFRM;
  absl::StatusOr<NetlinkSocket> xfrm = NetlinkSocket::Open(options);
  if (xfrm.ok()) watch->xfrm_ = *std::move(xfrm);
  watch->Evaluate(now, true);
  return watch;
}

absl::StatusOr<bool> NetfilterWatch::Run(Nanos now) {
  if (socket_) {
    // Each message says only that something has changed; so does a lost one.
    size_t messages = 0;
    const absl::StatusOr<NetlinkSocket::ReadResult> read =
        socket_->Read(1024, [&](const nlmsghdr&) { ++messages; });
    if (!read.ok()) return read.status();
    if (messages > 0 || *read == NetlinkSocket::ReadResult::kOverflow) {
      due_ = std::min(due_, std::max(now + kDebounce, not_before_));
    }
  }
  if (now >= due_) return Evaluate(now, true);
  if (now >= next_poll_) return Evaluate(now, false);
  return false;
}

bool NetfilterWatch::Evaluate(Nanos now, bool nftables) {
  if (nftables) {
    const Nanos started = Clock();
    nftables_ = FirewallPresence{};
    JudgeNftables(nftables_);
    due_ = Nanos::Max();
    not_before_ = now + (Clock() - started) * kPauseFactor;
  }
  next_poll_ = now + kPollInterval;
  FirewallPresence presence = nftables_;
  JudgeLegacyTables(Family::kIpv4, presence);
  JudgeLegacyTables(Family::kIpv6, presence);
  JudgeIpsec(presence);
  if (presence == presence_) return false;
  presence_ = std::move(presence);
  return true;
}

void NetfilterWatch::JudgeNftables(FirewallPresence& presence) {
  if (nft_ == nullptr) return;
  const int failed = nft_run_cmd_from_buffer(nft_.get(), "list ruleset");
  const std::string_view output = nft_ctx_get_output_buffer(nft_.get());
  const std::string error = nft_ctx_get_error_buffer(nft_.get());
  std::string cause = error;
  if (failed == 0) {
    const absl::Status judged = JudgeNftRuleset(output, presence);
    if (judged.ok()) return;
    cause = judged.ToString();
  } else if (error.find("not supported") != std::string::npos) {
    return;  // no nf_tables in this kernel
  }
  // Unknown rules may judge anything.
  Merge(
      FirewallPresence{
          true, true, true, true, {absl::StrCat("the nftables ruleset cannot be read: ", cause)}},
      presence);
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
