// Routes and nexthop objects. These come by the hundred thousand: no allocation per message.
#include <linux/lwtunnel.h>
#include <linux/nexthop.h>
#include <linux/rtnetlink.h>

#include "control/netlink/attributes.h"
#include "control/netlink/messages.h"

namespace sluice::control {
namespace {

constexpr uint8_t kAfInet = 2;
constexpr uint8_t kAfInet6 = 10;

std::optional<RouteTableId> TableOf(uint32_t table, Family family) {
  if (table == RT_TABLE_LOCAL) return RouteTableId::kLocal;
  if (table == RT_TABLE_MAIN) return RouteTableId::kMain;
  // IPv6 has no rule for the table default (fib6_rules_net_init).
  if (table == RT_TABLE_DEFAULT && family == Family::kIpv4) return RouteTableId::kDefault;
  return std::nullopt;
}

uint32_t HashBytes(const uint8_t* data, size_t length) {
  uint32_t h = 0x811c9dc5;  // FNV-1a
  for (size_t i = 0; i < length; ++i) h = (h ^ data[i]) * 0x01000193;
  return h;
}

void ParseMetrics(const nlattr* nested, RouteUpdate& out) {
  out.metrics_hash = HashBytes(DataOf(nested), LengthOf(nested));
  const Attributes<RTAX_MAX> a(nested);
  out.spec.mtu = a.U32(RTAX_MTU);
  out.spec.mtu_locked = (a.U32(RTAX_LOCK) & 1u << RTAX_MTU) != 0;
}

// RTA_VIA: a family and an address of it.
std::optional<IpAddress> Via(const nlattr* a) {
  constexpr size_t kFamilyBytes = 2;
  if (LengthOf(a) < kFamilyBytes) return std::nullopt;
  return AddressFrom(DataOf(a) + kFamilyBytes, LengthOf(a) - kFamilyBytes);
}

void SetGateway(std::optional<IpAddress> gateway, RoutePath& path) {
  if (!gateway) return;
  path.has_gateway = true;
  path.gateway = *gateway;
}

void ParseMultipath(const nlattr* nested, RouteSpec& spec) {
  const uint8_t* at = DataOf(nested);
  size_t left = LengthOf(nested);
  while (left >= sizeof(rtnexthop)) {
    const auto* hop = reinterpret_cast<const rtnexthop*>(at);
    if (hop->rtnh_len < sizeof(rtnexthop) || hop->rtnh_len > left) return;
    RoutePath& path = spec.paths.emplace_back();
    path.oif = IfIndex{static_cast<uint32_t>(hop->rtnh_ifindex)};
    path.onlink = (hop->rtnh_flags & RTNH_F_ONLINK) != 0;
    path.weight = static_cast<uint16_t>(hop->rtnh_hops + 1);
    ForEachAttribute(at + sizeof *hop, hop->rtnh_len - sizeof *hop,
                     [&](uint16_t type, const nlattr* a) {
                       if (type == RTA_GATEWAY) {
                         SetGateway(AddressFrom(DataOf(a), LengthOf(a)), path);
                       } else if (type == RTA_VIA) {
                         SetGateway(Via(a), path);
                       } else if (type == RTA_ENCAP || type == RTA_NEWDST) {
                         spec.encapsulated = true;
                       }
                     });
    const size_t step = RTNH_ALIGN(hop->rtnh_len);
    if (step >= left) return;
    at += step;
    left -= step;
  }
}

void ParsePaths(const Attributes<RTA_MAX>& a, const rtmsg& body, RouteSpec& spec) {
  spec.encapsulated = a.has(RTA_ENCAP);
  if (a.has(RTA_NH_ID)) {
    // With nexthop_compat_mode the message repeats the object's paths; the object is the truth.
    spec.nexthop_id = a.U32(RTA_NH_ID);
    spec.encapsulated = false;
    // So does the type: it becomes blackhole when the object does.
    if (spec.type == RouteType::kBlackhole) spec.type = RouteType::kUnicast;
    return;
  }
  if (a.has(RTA_MULTIPATH)) return ParseMultipath(a[RTA_MULTIPATH], spec);
  if (!a.has(RTA_OIF)) return;
  RoutePath& path = spec.paths.emplace_back();
  path.oif = IfIndex{a.U32(RTA_OIF)};
  path.onlink = (body.rtm_flags & RTNH_F_ONLINK) != 0;
  if (a.has(RTA_GATEWAY)) SetGateway(a.Address(RTA_GATEWAY), path);
  if (a.has(RTA_VIA)) SetGateway(Via(a[RTA_VIA]), path);
}

}  // namespace

bool ParseRoute(const nlmsghdr& message, RouteUpdate& out) {
  const auto* body = BodyOf<rtmsg>(message);
  if (body == nullptr) return false;
  if (body->rtm_family != kAfInet && body->rtm_family != kAfInet6) return false;
  if ((body->rtm_flags & RTM_F_CLONED) != 0) return false;  // an exception, not a route
  const Family family = body->rtm_family == kAfInet ? Family::kIpv4 : Family::kIpv6;
  const Attributes<RTA_MAX> a(message, sizeof *body);
  const std::optional<RouteTableId> table = TableOf(a.U32(RTA_TABLE, body->rtm_table), family);
  if (!table) return false;
  const uint8_t bits = family == Family::kIpv4 ? 32 : 128;
  if (body->rtm_dst_len > bits || body->rtm_type > RTN_XRESOLVE) return false;

  out.spec.paths.clear();
  out.spec.nexthop_id = 0;
  out.spec.mtu = 0;
  out.spec.mtu_locked = false;
  out.metrics_hash = 0;
  out.family = family;
  out.table = *table;
  out.tos = family == Family::kIpv4 ? body->rtm_tos : 0;
  out.protocol = body->rtm_protocol;
  out.scope = body->rtm_scope;
  out.preference = a.Get<uint8_t>(RTA_PREF).value_or(0);
  out.length = body->rtm_dst_len;
  out.destination = a.Address(RTA_DST).value_or(IpAddress()).bits;
  out.metric = a.U32(RTA_PRIORITY);
  out.replace = (message.nlmsg_flags & NLM_F_REPLACE) != 0;
  out.append = (message.nlmsg_flags & NLM_F_APPEND) != 0;
  out.spec.type = static_cast<RouteType>(body->rtm_type);
  out.spec.host_scope = body->rtm_scope == RT_SCOPE_HOST;
  if (a.has(RTA_METRICS)) ParseMetrics(a[RTA_METRICS], out);
  const std::optional<IpAddress> prefsrc = a.Address(RTA_PREFSRC);
  out.spec.has_prefsrc = prefsrc.has_value();
  out.spec.prefsrc = prefsrc.value_or(IpAddress());
  ParsePaths(a, *body, out.spec);
  // A route by source address too (IPv6 subtrees) is not decided by the destination alone.
  if (body->rtm_src_len != 0) out.spec.encapsulated = true;
  return true;
}

std::optional<NexthopUpdate> ParseNexthop(const nlmsghdr& message) {
  const auto* body = BodyOf<nhmsg>(message);
  if (body == nullptr) return std::nullopt;
  const Attributes<NHA_MAX> a(message, sizeof *body);
  NexthopUpdate n;
  n.id = a.U32(NHA_ID);
  if (n.id == 0) return std::nullopt;
  n.blackhole = a.has(NHA_BLACKHOLE);
  n.encapsulated = a.has(NHA_ENCAP);
  n.fdb = a.has(NHA_FDB);
  n.path.oif = IfIndex{a.U32(NHA_OIF)};
  n.path.onlink = (body->nh_flags & RTNH_F_ONLINK) != 0;
  if (a.has(NHA_GATEWAY)) SetGateway(a.Address(NHA_GATEWAY), n.path);
  if (const nlattr* group = a[NHA_GROUP]; group != nullptr) {
    // struct nexthop_grp: id, low and (from 6.12 on) high byte of weight - 1, two bytes reserved.
    constexpr size_t kMemberBytes = 8;
    const uint8_t* at = DataOf(group);
    for (size_t left = LengthOf(group); left >= kMemberBytes; left -= kMemberBytes) {
      uint32_t id;
      std::memcpy(&id, at, sizeof id);
      n.group.push_back({id, static_cast<uint16_t>((at[5] << 8 | at[4]) + 1)});
      at += kMemberBytes;
    }
  }
  return n;
}

}  // namespace sluice::control
