#include "control/netlink/messages.h"

#include <linux/fib_rules.h>
#include <linux/if.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/netconf.h>
#include <linux/rtnetlink.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include "absl/strings/str_cat.h"
#include "control/netlink/attributes.h"

namespace sluice::control {
namespace {

constexpr uint8_t kAfInet = 2;
constexpr uint8_t kAfInet6 = 10;

std::optional<Family> FamilyOf(uint8_t address_family) {
  if (address_family == kAfInet) return Family::kIpv4;
  if (address_family == kAfInet6) return Family::kIpv6;
  return std::nullopt;
}

}  // namespace

std::optional<LinkMessage> ParseLink(const nlmsghdr& message) {
  const auto* body = BodyOf<ifinfomsg>(message);
  // AF_BRIDGE messages about ports come by the same group and are no change of the link.
  if (body == nullptr || body->ifi_family != 0) return std::nullopt;
  const Attributes<IFLA_MAX> a(message, sizeof *body);
  LinkMessage link;
  link.ifindex = IfIndex{static_cast<uint32_t>(body->ifi_index)};
  link.name = a.String(IFLA_IFNAME);
  link.mtu = a.U32(IFLA_MTU);
  link.flags = body->ifi_flags;
  link.type = body->ifi_type;
  link.master = a.U32(IFLA_MASTER);
  link.carrier = (body->ifi_flags & IFF_LOWER_UP) != 0;
  link.operstate = a.Get<uint8_t>(IFLA_OPERSTATE).value_or(0);
  link.rx_queues = a.U32(IFLA_NUM_RX_QUEUES);
  link.tx_queues = a.U32(IFLA_NUM_TX_QUEUES);
  if (a.has(IFLA_ADDRESS) && LengthOf(a[IFLA_ADDRESS]) == 6) {
    link.mac = Mac::FromWire(DataOf(a[IFLA_ADDRESS]));
  }
  link.kind = Attributes<IFLA_INFO_MAX>(a[IFLA_LINKINFO]).String(IFLA_INFO_KIND);
  return link;
}

std::optional<AddressMessage> ParseAddress(const nlmsghdr& message) {
  const auto* body = BodyOf<ifaddrmsg>(message);
  if (body == nullptr || !FamilyOf(body->ifa_family)) return std::nullopt;
  const Attributes<IFA_MAX> a(message, sizeof *body);
  const std::optional<IpAddress> peer = a.Address(IFA_ADDRESS);
  const std::optional<IpAddress> local = a.has(IFA_LOCAL) ? a.Address(IFA_LOCAL) : peer;
  if (!local) return std::nullopt;
  AddressMessage address;
  address.ifindex = IfIndex{body->ifa_index};
  address.address = *local;
  address.peer = peer.value_or(*local);
  address.prefix_length = body->ifa_prefixlen;
  address.scope = body->ifa_scope;
  address.flags = a.U32(IFA_FLAGS, body->ifa_flags);
  return address;
}

std::optional<RuleMessage> ParseRule(const nlmsghdr& message) {
  const auto* body = BodyOf<fib_rule_hdr>(message);
  if (body == nullptr) return std::nullopt;
  const std::optional<Family> family = FamilyOf(body->family);
  if (!family) return std::nullopt;
  const Attributes<FRA_MAX> a(message, sizeof *body);
  RuleMessage rule;
  rule.family = *family;
  rule.priority = a.U32(FRA_PRIORITY);
  rule.table = a.U32(FRA_TABLE, body->table);
  rule.action = body->action;
  constexpr int kSelectors[] = {FRA_DST,        FRA_SRC,       FRA_IIFNAME,  FRA_GOTO,
                                FRA_FWMARK,     FRA_FWMASK,    FRA_FLOW,     FRA_TUN_ID,
                                FRA_OIFNAME,    FRA_UID_RANGE, FRA_IP_PROTO, FRA_SPORT_RANGE,
                                FRA_DPORT_RANGE};
  const bool selects = std::any_of(std::begin(kSelectors), std::end(kSelectors),
                                   [&](int type) { return a.has(type); });
  constexpr uint32_t kNone = 0xffffffff;
  rule.plain = body->action == FR_ACT_TO_TBL && body->src_len == 0 && body->dst_len == 0 &&
               body->tos == 0 && (body->flags & FIB_RULE_INVERT) == 0 && !selects &&
               !a.has_unknown() && a.Get<uint8_t>(FRA_L3MDEV).value_or(0) == 0 &&
               a.U32(FRA_SUPPRESS_PREFIXLEN, kNone) == kNone &&
               a.U32(FRA_SUPPRESS_IFGROUP, kNone) == kNone;
  return rule;
}

std::optional<NeighborMessage> ParseNeighbor(const nlmsghdr& message) {
  const auto* body = BodyOf<ndmsg>(message);
  if (body == nullptr || !FamilyOf(body->ndm_family)) return std::nullopt;
  const Attributes<NDA_MAX> a(message, sizeof *body);
  const std::optional<IpAddress> address = a.Address(NDA_DST);
  if (!address) return std::nullopt;
  NeighborMessage n;
  n.ifindex = IfIndex{static_cast<uint32_t>(body->ndm_ifindex)};
  n.address = *address;
  n.state = body->ndm_state;
  n.flags = body->ndm_flags;
  n.type = body->ndm_type;
  if (a.has(NDA_LLADDR) && LengthOf(a[NDA_LLADDR]) == 6) {
    n.mac = Mac::FromWire(DataOf(a[NDA_LLADDR]));
    n.has_mac = true;
  }
  return n;
}

std::optional<NetconfMessage> ParseNetconf(const nlmsghdr& message) {
  const auto* body = BodyOf<netconfmsg>(message);
  if (body == nullptr) return std::nullopt;
  const std::optional<Family> family = FamilyOf(body->ncm_family);
  const Attributes<NETCONFA_MAX> a(message, sizeof *body);
  const std::optional<int32_t> ifindex = a.Get<int32_t>(NETCONFA_IFINDEX);
  if (!family || !ifindex) return std::nullopt;
  NetconfMessage n;
  n.family = *family;
  if (*ifindex == NETCONFA_IFINDEX_ALL) {
    n.scope = NetconfMessage::Scope::kAll;
  } else if (*ifindex == NETCONFA_IFINDEX_DEFAULT) {
    n.scope = NetconfMessage::Scope::kDefault;
  } else {
    n.ifindex = IfIndex{static_cast<uint32_t>(*ifindex)};
  }
  if (const auto value = a.Get<int32_t>(NETCONFA_IGNORE_ROUTES_WITH_LINKDOWN)) {
    n.ignore_routes_with_linkdown = *value != 0;
  }
  return n;
}

int ErrorNumber(const nlmsghdr& message) {
  const auto* error = BodyOf<int32_t>(message);
  return error == nullptr ? 0 : std::abs(*error);
}

absl::Status ParseError(const nlmsghdr& message) {
  const int number = ErrorNumber(message);
  if (number == 0) return absl::OkStatus();
  std::string text;
  if ((message.nlmsg_flags & NLM_F_ACK_TLVS) != 0) {
    // With NETLINK_CAP_ACK the request's body is left out of an error, its header is not.
    const size_t header = message.nlmsg_type == NLMSG_ERROR ? sizeof(nlmsgerr) : sizeof(int32_t);
    text = Attributes<NLMSGERR_ATTR_MSG>(message, header).String(NLMSGERR_ATTR_MSG);
  }
  return absl::ErrnoToStatus(number, text.empty() ? "netlink" : absl::StrCat("netlink: ", text));
}

}  // namespace sluice::control
