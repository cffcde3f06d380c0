// The dumps of KernelMirror: what to ask for and when, and how the answer meets what is known.
#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "control/mirror/kernel_mirror.h"

namespace sluice::control {
namespace {

constexpr size_t kDumpBudget = 8;  // datagrams of up to 32 KiB per Run, some 4,000 routes
constexpr int kPauseFactor = 4;    // route dumps take at most a fifth of the time
constexpr Nanos kRetry = Millis(200);

template <class T>
absl::Span<const uint8_t> Bytes(const T& value) {
  return {reinterpret_cast<const uint8_t*>(&value), sizeof value};
}

bool SameLink(const LinkMessage& a, const LinkMessage& b) {
  return a.name == b.name && a.kind == b.kind && a.mac == b.mac && a.mtu == b.mtu &&
         a.flags == b.flags && a.master == b.master && a.carrier == b.carrier;
}

bool SameAddresses(const std::vector<AddressMessage>& a, const std::vector<AddressMessage>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const AddressMessage& x, const AddressMessage& y) {
                      return x.address == y.address && x.peer == y.peer && x.flags == y.flags &&
                             x.prefix_length == y.prefix_length && x.scope == y.scope;
                    });
}

}  // namespace

void KernelMirror::Want(uint32_t dumps) {
  wanted_ |= dumps;
  by_audit_ &= ~dumps;
  due_ = std::min(due_, now_ + options_.debounce);
}

void KernelMirror::RequestAudit(Nanos now) {
  by_audit_ |= kAll & ~wanted_;
  wanted_ = kAll;
  due_ = std::min(due_, now);
  ++stats_.audits;
  next_audit_ = options_.audit_interval > Nanos() ? now + options_.audit_interval : Nanos::Max();
}

void KernelMirror::Overflowed() {
  ++stats_.overflows;
  if (running_ != kNone) AbandonDump();
  wanted_ = resync_ = kAll;
  by_audit_ = 0;
  due_ = now_;
}

absl::Status KernelMirror::StartDump(Nanos now) {
  if (wanted_ == 0 || now < due_) return absl::OkStatus();
  uint32_t eligible = wanted_;
  if (now < not_before_ && resync_ == 0) eligible &= ~(kRoutes4 | kRoutes6);
  if (eligible == 0) return absl::OkStatus();
  running_ = static_cast<uint32_t>(std::countr_zero(eligible));
  const uint32_t bit = 1u << running_;
  audited_ = (by_audit_ & bit) != 0;
  wanted_ &= ~bit;
  by_audit_ &= ~bit;
  if (wanted_ == 0) due_ = Nanos::Max();
  started_ = now;
  interrupted_ = dump_done_ = false;
  dump_status_ = absl::OkStatus();
  dumped_links_.clear();
  dumped_addresses_.clear();
  dumped_rules_.clear();
  dumped_nexthops_.clear();
  dumped_neighbors_.clear();
  touched_ids_.clear();
  touched_neighbors_.clear();

  absl::StatusOr<uint32_t> sent = SendRequest();
  if (!sent.ok()) return sent.status();
  sequence_ = *sent;
  return absl::OkStatus();
}

absl::StatusOr<uint32_t> KernelMirror::SendRequest() {
  const auto ask = [&](uint16_t type, absl::Span<const uint8_t> body) {
    return requests_.Send(type, NLM_F_DUMP, body);
  };
  const auto ask_routes = [&](uint8_t family, uint8_t table, RouteTableId id) {
    if (family == AF_INET) {
      rib4_.BeginDump(id, audited_);
    } else {
      rib6_.BeginDump(id, audited_);
    }
    rtmsg body{};
    body.rtm_family = family;
    body.rtm_table = table;
    return ask(RTM_GETROUTE, Bytes(body));
  };
  const uint8_t v4_or_v6 = running_ == kAddresses4 || running_ == kNetconf4 ||
                                   running_ == kRules4 || running_ == kNeighbors4
                               ? AF_INET
                               : AF_INET6;
  switch (running_) {
    case kLinks: {
      struct {
        ifinfomsg header;
        nlattr attribute;
        uint32_t mask;
      } body{};
      body.attribute = {sizeof(nlattr) + sizeof(uint32_t), IFLA_EXT_MASK};
      body.mask = RTEXT_FILTER_SKIP_STATS;
      return ask(RTM_GETLINK, Bytes(body));
    }
    case kAddresses4:
    case kAddresses6: {
      ifaddrmsg body{};
      body.ifa_family = v4_or_v6;
      return ask(RTM_GETADDR, Bytes(body));
    }
    case kNetconf4:
    case kNetconf6: {
      // One byte, but the kernel's strict check wants it padded.
      const uint8_t body[NLMSG_ALIGN(sizeof(netconfmsg))] = {v4_or_v6};
      return ask(RTM_GETNETCONF, Bytes(body));
    }
    case kRules4:
    case kRules6: {
      fib_rule_hdr body{};
      body.family = v4_or_v6;
      return ask(RTM_GETRULE, Bytes(body));
    }
    case kNexthops: {
      const nhmsg body{};
      return ask(RTM_GETNEXTHOP, Bytes(body));
    }
    case kLocal4:
      return ask_routes(AF_INET, RT_TABLE_LOCAL, RouteTableId::kLocal);
    case kMain4:
      return ask_routes(AF_INET, RT_TABLE_MAIN, RouteTableId::kMain);
    case kDefault4:
      return ask_routes(AF_INET, RT_TABLE_DEFAULT, RouteTableId::kDefault);
    case kLocal6:
      return ask_routes(AF_INET6, RT_TABLE_LOCAL, RouteTableId::kLocal);
    case kMain6:
      return ask_routes(AF_INET6, RT_TABLE_MAIN, RouteTableId::kMain);
    default: {
      ndmsg body{};
      body.ndm_family = v4_or_v6;
      return ask(RTM_GETNEIGH, Bytes(body));
    }
  }
}

absl::Status KernelMirror::ReadDump() {
  if (dump_done_) return absl::OkStatus();
  const absl::StatusOr<NetlinkSocket::ReadResult> read =
      requests_.Read(kDumpBudget, [this](const nlmsghdr& message) { OnDumped(message); });
  if (!read.ok()) return read.status();
  if (*read == NetlinkSocket::ReadResult::kOverflow) {
    dump_status_ = absl::ResourceExhaustedError("a dump did not fit into the socket");
    dump_done_ = true;
  }
  return absl::OkStatus();
}

void KernelMirror::OnDumped(const nlmsghdr& message) {
  if (message.nlmsg_seq != sequence_ || dump_done_) return;  // of a dump given up
  if ((message.nlmsg_flags & NLM_F_DUMP_INTR) != 0) interrupted_ = true;
  if (message.nlmsg_type == NLMSG_DONE || message.nlmsg_type == NLMSG_ERROR) {
    dump_done_ = true;
    const int number = ErrorNumber(message);
    // A table without routes does not exist; neither do families and objects of no kernel support.
    if (number == ENOENT || number == EOPNOTSUPP || number == EAFNOSUPPORT) return;
    dump_status_ = ParseError(message);
    return;
  }
  switch (message.nlmsg_type) {
    case RTM_NEWROUTE:
      if (!ParseRoute(message, update_)) return;
      if (update_.family == Family::kIpv4) {
        rib4_.DumpRoute(update_);
      } else {
        rib6_.DumpRoute(update_);
      }
      return;
    case RTM_NEWLINK:
      if (const auto link = ParseLink(message)) dumped_links_[link->ifindex.value] = *link;
      return;
    case RTM_NEWADDR:
      if (const auto a = ParseAddress(message)) dumped_addresses_[a->ifindex.value].push_back(*a);
      return;
    case RTM_NEWNETCONF:
      if (const auto netconf = ParseNetconf(message)) OnNetconf(*netconf);
      return;
    case RTM_NEWRULE:
      if (const auto rule = ParseRule(message)) dumped_rules_.push_back(*rule);
      return;
    case RTM_NEWNEXTHOP:
      if (const auto nexthop = ParseNexthop(message)) dumped_nexthops_[nexthop->id] = *nexthop;
      return;
    case RTM_NEWNEIGH:
      if (const auto n = ParseNeighbor(message)) {
        dumped_neighbors_[NeighborKey{n->ifindex, n->address}] =
            Neighbor{n->mac, n->has_mac, n->state, n->flags};
      }
      return;
    default:
      return;
  }
}

void KernelMirror::AbandonDump() {
  if (IsRoutes(running_)) {
    if ((1u << running_ & kRoutes4) != 0) {
      rib4_.AbortDump();
    } else {
      rib6_.AbortDump();
    }
  }
  running_ = kNone;
  sequence_ = 0;
}

void KernelMirror::FinishDump(Nanos now) {
  const uint32_t bit = 1u << running_;
  if (!dump_status_.ok() || interrupted_) {
    ++stats_.dumps_repeated;
    if (!dump_status_.ok()) stats_.last_dump_error = dump_status_.ToString();
    AbandonDump();
    wanted_ |= bit;
    if (audited_) by_audit_ |= bit;
    due_ = std::min(due_, now + (dump_status_.ok() ? options_.debounce : kRetry));
    return;
  }
  ++stats_.dumps;
  size_t corrections = 0;
  switch (running_) {
    case kLinks:
      corrections = AdoptLinks();
      break;
    case kAddresses4:
      corrections = AdoptAddresses(state_.addresses4);
      break;
    case kAddresses6:
      corrections = AdoptAddresses(state_.addresses6);
      break;
    case kRules4:
      corrections = AdoptRules(state_.rules4);
      break;
    case kRules6:
      corrections = AdoptRules(state_.rules6);
      break;
    case kNexthops:
      corrections = AdoptNexthops();
      break;
    case kNeighbors4:
      corrections = AdoptNeighbors(Family::kIpv4);
      break;
    case kNeighbors6:
      corrections = AdoptNeighbors(Family::kIpv6);
      break;
    case kNetconf4:
    case kNetconf6:
      break;
    default:
      corrections = AdoptRoutes(now);
      break;
  }
  // An event that came meanwhile has asked for the same once more: then it was no fault.
  if (audited_ && (wanted_ & bit & ~by_audit_) == 0) {
    (IsRoutes(running_) ? stats_.audit_route_corrections : stats_.audit_other_corrections) +=
        corrections;
  }
  running_ = kNone;
  if (resync_ == 0) return;
  resync_ &= ~bit;
  if (resync_ != 0) return;
  ++stats_.resyncs;
  synced_ = true;
  if (next_audit_ == Nanos::Max() && options_.audit_interval > Nanos()) {
    next_audit_ = now + options_.audit_interval;
  }
}

size_t KernelMirror::AdoptLinks() {
  size_t corrections = 0;
  for (auto it = state_.links.begin(); it != state_.links.end();) {
    if (!dumped_links_.contains(it->first) && !touched_ids_.contains(it->first)) {
      it = state_.links.erase(it);
      ++corrections;
    } else {
      ++it;
    }
  }
  for (const auto& [ifindex, message] : dumped_links_) {
    if (touched_ids_.contains(ifindex)) continue;
    const Link* known = state_.FindLink(IfIndex{ifindex});
    if (known != nullptr && SameLink(*known, message)) continue;
    Link& link = state_.links[ifindex];
    static_cast<LinkMessage&>(link) = message;
    if (link.up() && link.carrier) link.unready_since = 0;
    ++corrections;
  }
  if (corrections > 0) {
    changes_ |= mirror_change::kLinks | mirror_change::kSnapshot;
    refresh_ = true;
  }
  return corrections;
}

size_t KernelMirror::AdoptAddresses(
    absl::flat_hash_map<uint32_t, std::vector<AddressMessage>>& known) {
  size_t corrections = 0;
  for (const auto& [ifindex, addresses] : known)
    corrections += !dumped_addresses_.contains(ifindex);
  for (const auto& [ifindex, addresses] : dumped_addresses_) {
    const auto found = known.find(ifindex);
    corrections += found == known.end() || !SameAddresses(found->second, addresses);
  }
  if (corrections == 0) return 0;
  if (&known == &state_.addresses4) {
    for (auto& [ifindex, link] : state_.links) {
      const bool had = known.contains(ifindex);
      if (had == dumped_addresses_.contains(ifindex)) continue;
      link.unready4_since = had ? attributes_.NextStamp() : 0;
      refresh_ = true;
    }
  }
  known = std::move(dumped_addresses_);
  changes_ |= mirror_change::kSnapshot;
  return corrections;
}

size_t KernelMirror::AdoptRules(std::vector<RuleMessage>& known) {
  const bool same = std::equal(known.begin(), known.end(), dumped_rules_.begin(),
                               dumped_rules_.end(), [](const RuleMessage& a, const RuleMessage& b) {
                                 return a.priority == b.priority && a.table == b.table &&
                                        a.action == b.action && a.plain == b.plain;
                               });
  if (same) return 0;
  known = std::move(dumped_rules_);
  changes_ |= mirror_change::kSnapshot;
  return 1;
}

size_t KernelMirror::AdoptNexthops() {
  size_t corrections = 0;
  std::vector<uint32_t> gone;
  for (const auto& [id, nexthop] : attributes_.nexthops()) {
    if (!dumped_nexthops_.contains(id) && !touched_ids_.contains(id)) gone.push_back(id);
  }
  for (const uint32_t id : gone) attributes_.RemoveNexthop(id);
  corrections += gone.size();
  for (const auto& [id, nexthop] : dumped_nexthops_) {
    if (touched_ids_.contains(id)) continue;
    const auto found = attributes_.nexthops().find(id);
    if (found != attributes_.nexthops().end() && found->second == nexthop) continue;
    attributes_.SetNexthop(nexthop);
    ++corrections;
  }
  if (corrections > 0) refresh_ = true;
  return corrections;
}

size_t KernelMirror::AdoptNeighbors(Family family) {
  // Neighbours are the most restless of all: what differs is news, not a fault, and not counted.
  std::vector<NeighborKey> gone;
  for (const auto& [key, neighbor] : state_.neighbors) {
    if (key.address.family == family && !dumped_neighbors_.contains(key) &&
        !touched_neighbors_.contains(key)) {
      gone.push_back(key);
    }
  }
  for (const NeighborKey& key : gone) {
    const Neighbor neighbor = state_.neighbors[key];
    state_.neighbors.erase(key);
    if (observer_) observer_(NeighborEvent{key, neighbor, true});
  }
  for (const auto& [key, neighbor] : dumped_neighbors_) {
    if (touched_neighbors_.contains(key)) continue;
    Neighbor& known = state_.neighbors[key];
    if (known == neighbor) continue;
    known = neighbor;
    if (observer_) observer_(NeighborEvent{key, neighbor, false});
  }
  return 0;
}

size_t KernelMirror::AdoptRoutes(Nanos now) {
  const bool v4 = (1u << running_ & kRoutes4) != 0;
  const DumpOutcome outcome = v4 ? rib4_.EndDump() : rib6_.EndDump();
  uncertain_[running_] = outcome.uncertain;
  if (outcome.uncertain > 0) Want(1u << running_);
  not_before_ = now + (now - started_) * kPauseFactor;
  if (outcome.corrections > 0) changes_ |= mirror_change::kRoutes;
  return outcome.corrections;
}

}  // namespace sluice::control
