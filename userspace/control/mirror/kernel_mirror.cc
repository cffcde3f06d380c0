#include "control/mirror/kernel_mirror.h"

#include <linux/if.h>
#include <linux/rtnetlink.h>
#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sluice::control {
namespace {

constexpr size_t kEventBudget = 512;  // datagrams per Run, mostly of one message

constexpr int kGroups[] = {
    RTNLGRP_LINK,       RTNLGRP_IPV4_IFADDR,  RTNLGRP_IPV6_IFADDR,  RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE, RTNLGRP_IPV4_RULE,    RTNLGRP_IPV6_RULE,    RTNLGRP_NEIGH,
    RTNLGRP_NEXTHOP,    RTNLGRP_IPV4_NETCONF, RTNLGRP_IPV6_NETCONF,
};

}  // namespace

absl::StatusOr<std::unique_ptr<KernelMirror>> KernelMirror::Open(const MirrorOptions& options,
                                                                 RouteSink& sink, SlotLookup slots,
                                                                 Nanos now) {
  NetlinkOptions netlink;
  netlink.receive_buffer = options.receive_buffer;
  netlink.force_buffer = options.force_buffer;
  absl::StatusOr<NetlinkSocket> events = NetlinkSocket::Open(netlink);
  if (!events.ok()) return events.status();
  if (absl::Status joined = events->Join(kGroups); !joined.ok()) return joined;
  absl::StatusOr<NetlinkSocket> requests = NetlinkSocket::Open(NetlinkOptions{});
  if (!requests.ok()) return requests.status();
  std::unique_ptr<KernelMirror> mirror(
      new KernelMirror(options, sink, std::move(slots), *std::move(events), *std::move(requests)));
  mirror->now_ = now;
  mirror->wanted_ = mirror->resync_ = kAll;
  mirror->due_ = now;
  return mirror;
}

KernelMirror::KernelMirror(const MirrorOptions& options, RouteSink& sink, SlotLookup slots,
                           NetlinkSocket events, NetlinkSocket requests)
    : options_(options),
      slots_(std::move(slots)),
      events_(std::move(events)),
      requests_(std::move(requests)),
      attributes_(sink, [this](IfIndex ifindex) { return StatusOf(ifindex); }),
      rib4_(attributes_, sink),
      rib6_(attributes_, sink) {}

KernelMirror::~KernelMirror() = default;

LinkStatus KernelMirror::StatusOf(IfIndex ifindex) const {
  LinkStatus status;
  const Link* link = state_.FindLink(ifindex);
  if (link == nullptr) return status;
  status.up = link->up();
  status.carrier = link->carrier;
  status.ignore_linkdown4 = link->ignore_linkdown4 || all_ignore_linkdown4_;
  status.ignore_linkdown6 = link->ignore_linkdown6;
  status.unready_since = link->unready_since;
  status.unready4_since = link->unready4_since;
  status.slot = slots_(ifindex);
  return status;
}

Nanos KernelMirror::NextDeadline() const {
  Nanos deadline = next_audit_;
  if (running_ != kNone || wanted_ == 0) return deadline;
  const bool others = (wanted_ & ~(kRoutes4 | kRoutes6)) != 0;
  return std::min(deadline, others ? due_ : std::max(due_, not_before_));
}

absl::Status KernelMirror::Run(Nanos now) {
  now_ = now;
  if (now >= next_audit_) RequestAudit(now);
  absl::StatusOr<NetlinkSocket::ReadResult> read =
      events_.Read(kEventBudget, [this](const nlmsghdr& message) { OnEvent(message); });
  if (!read.ok()) return read.status();
  if (*read == NetlinkSocket::ReadResult::kOverflow) Overflowed();
  Flush();
  if (running_ != kNone) {
    if (absl::Status status = ReadDump(); !status.ok()) return status;
    // What the kernel did before it ended the dump must be known before the dump is judged.
    if (dump_done_ && *read == NetlinkSocket::ReadResult::kDrained) FinishDump(now);
  }
  Flush();
  if (running_ == kNone) return StartDump(now);
  return absl::OkStatus();
}

absl::Status KernelMirror::LoadAll(std::function<Nanos()> clock, Nanos deadline) {
  for (Nanos now = clock(); !synced_ || !idle(); now = clock()) {
    if (now >= deadline) {
      return absl::DeadlineExceededError("the kernel's routes could not be read in time: " +
                                         stats_.last_dump_error);
    }
    if (absl::Status status = Run(now); !status.ok()) return status;
    pollfd polled[] = {{events_.fd(), POLLIN, 0}, {requests_.fd(), POLLIN, 0}};
    const Nanos wait = std::clamp(NextDeadline() - now, Nanos(), Millis(10));
    // A dump that waits only for the events to be drained has nothing more to read.
    const int timeout = dump_done_ ? 0 : static_cast<int>((wait.count() + 999'999) / 1'000'000);
    if (poll(polled, 2, timeout) < 0 && errno != EINTR) return absl::ErrnoToStatus(errno, "poll");
  }
  return absl::OkStatus();
}

uint32_t KernelMirror::TakeChanges() { return std::exchange(changes_, 0); }

void KernelMirror::OnSlotsChanged() {
  refresh_ = true;
  Flush();
}

void KernelMirror::Flush() {
  if (!std::exchange(refresh_, false)) return;
  changes_ |= mirror_change::kRoutes;
  if (!attributes_.Refresh()) return;
  rib4_.Rescan();
  rib6_.Rescan();
  attributes_.ClearMarks();
}

bool KernelMirror::idle() const { return running_ == kNone && wanted_ == 0; }

uint64_t KernelMirror::divergence() const {
  uint64_t sum = resync_ != 0 ? 1 : 0;
  for (const uint64_t n : uncertain_) sum += n;
  return sum + rib4_.refused() + rib6_.refused();
}

MirrorStats KernelMirror::stats() const {
  MirrorStats s = stats_;
  s.rib4 = rib4_.stats();
  s.rib6 = rib6_.stats();
  s.attribute_bytes = attributes_.memory_bytes();
  return s;
}

void KernelMirror::OnEvent(const nlmsghdr& message) {
  ++stats_.events;
  switch (message.nlmsg_type) {
    case RTM_NEWROUTE:
    case RTM_DELROUTE:
      return OnRouteEvent(message);
    case RTM_NEWLINK:
    case RTM_DELLINK:
      if (const auto link = ParseLink(message)) OnLink(*link, message.nlmsg_type == RTM_DELLINK);
      return;
    case RTM_NEWADDR:
    case RTM_DELADDR: {
      // Their order is the kernel's affair: asked for anew.
      const auto address = ParseAddress(message);
      if (!address) return;
      Want(1u << (address->address.is_v4() ? kAddresses4 : kAddresses6));
      if (message.nlmsg_type == RTM_DELADDR) Want(address->address.is_v4() ? kRoutes4 : kRoutes6);
      return;
    }
    case RTM_NEWRULE:
    case RTM_DELRULE:
      if (const auto rule = ParseRule(message)) {
        Want(1u << (rule->family == Family::kIpv4 ? kRules4 : kRules6));
      }
      return;
    case RTM_NEWNEIGH:
    case RTM_DELNEIGH:
      if (const auto n = ParseNeighbor(message)) OnNeighbor(*n, message.nlmsg_type == RTM_DELNEIGH);
      return;
    case RTM_NEWNEXTHOP:
    case RTM_DELNEXTHOP:
      if (const auto n = ParseNexthop(message)) OnNexthop(*n, message.nlmsg_type == RTM_DELNEXTHOP);
      return;
    case RTM_NEWNETCONF:
    case RTM_DELNETCONF:
      changes_ |= mirror_change::kSysctls;
      if (const auto netconf = ParseNetconf(message)) OnNetconf(*netconf);
      return;
    default:
      return;
  }
}

void KernelMirror::OnRouteEvent(const nlmsghdr& message) {
  if (!ParseRoute(message, update_)) return;
  changes_ |= mirror_change::kRoutes;
  const bool v4 = update_.family == Family::kIpv4;
  bool news;
  if (message.nlmsg_type == RTM_NEWROUTE) {
    news = v4 ? rib4_.Add(update_) : rib6_.Add(update_);
  } else {
    news = v4 ? rib4_.Remove(update_) : rib6_.Remove(update_);
  }
  if (!news) Want(1u << DumpOf(update_));
}

uint32_t KernelMirror::DumpOf(const RouteUpdate& route) {
  switch (route.table) {
    case RouteTableId::kLocal:
      return route.family == Family::kIpv4 ? kLocal4 : kLocal6;
    case RouteTableId::kMain:
      return route.family == Family::kIpv4 ? kMain4 : kMain6;
    case RouteTableId::kDefault:
      break;
  }
  return kDefault4;
}

void KernelMirror::OnLink(const LinkMessage& message, bool removed) {
  changes_ |= mirror_change::kLinks | mirror_change::kSnapshot;
  refresh_ = true;
  if (running_ == kLinks) touched_ids_.insert(message.ifindex.value);
  const Link* before = state_.FindLink(message.ifindex);
  const bool was_known = before != nullptr;
  const bool was_up = was_known && before->up();
  const bool had_carrier = was_known && before->carrier;
  if (removed) {
    state_.links.erase(message.ifindex.value);
    state_.addresses4.erase(message.ifindex.value);
    state_.addresses6.erase(message.ifindex.value);
  } else {
    Link& link = state_.links[message.ifindex.value];
    static_cast<LinkMessage&>(link) = message;
    if (was_up && !link.up()) link.unready_since = attributes_.NextStamp();
    if (link.up() && link.carrier) link.unready_since = 0;
    if (!was_up && link.up()) link.unready4_since = 0;
  }
  const bool is_up = !removed && (message.flags & IFF_UP) != 0;
  if ((was_up && !is_up) || (had_carrier && (removed || !message.carrier))) {
    Want(kRoutes4 | kRoutes6 | 1u << kNexthops);
  }
  if (!was_known || removed) {
    // Settings and addresses of a new device.
    Want(1u << kAddresses4 | 1u << kAddresses6 | 1u << kNetconf4 | 1u << kNetconf6);
  }
}

void KernelMirror::OnNexthop(const NexthopUpdate& nexthop, bool removed) {
  refresh_ = true;
  if (running_ == kNexthops) touched_ids_.insert(nexthop.id);
  if (!removed) return attributes_.SetNexthop(nexthop);
  attributes_.RemoveNexthop(nexthop.id);
  Want(kRoutes4 | kRoutes6);
}

void KernelMirror::OnNeighbor(const NeighborMessage& message, bool removed) {
  const NeighborKey key{message.ifindex, message.address};
  if (running_ == kNeighbors4 || running_ == kNeighbors6) touched_neighbors_.insert(key);
  const Neighbor neighbor{message.mac, message.has_mac, message.state, message.flags};
  if (removed) {
    state_.neighbors.erase(key);
  } else {
    Neighbor& known = state_.neighbors[key];
    if (known == neighbor) return;
    known = neighbor;
  }
  if (observer_) observer_(NeighborEvent{key, neighbor, removed});
}

void KernelMirror::OnNetconf(const NetconfMessage& netconf) {
  if (!netconf.ignore_routes_with_linkdown) return;
  const bool ignore = *netconf.ignore_routes_with_linkdown;
  refresh_ = true;
  if (netconf.scope == NetconfMessage::Scope::kAll) {
    // IPv4 looks at `all` and the device (either will do), IPv6 copies `all` to each device.
    if (netconf.family == Family::kIpv4) all_ignore_linkdown4_ = ignore;
    return;
  }
  const auto found = state_.links.find(netconf.ifindex.value);
  if (found == state_.links.end()) return;
  Link& link = found->second;
  (netconf.family == Family::kIpv4 ? link.ignore_linkdown4 : link.ignore_linkdown6) = ignore;
}

}  // namespace sluice::control
