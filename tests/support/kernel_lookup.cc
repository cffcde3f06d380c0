#include "support/kernel_lookup.h"

#include <gtest/gtest.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"

namespace sluice::test {
namespace {

std::string PathText(uint32_t oif, const std::string& gateway, uint32_t weight) {
  return absl::StrCat(" ", oif, "/", gateway, "/", weight);
}

std::string GatewayText(const rtattr* a) {
  const auto* data = static_cast<const uint8_t*>(RTA_DATA(a));
  size_t length = RTA_PAYLOAD(a);
  if (a->rta_type == RTA_VIA) {
    data += 2;
    length -= 2;
  }
  return length == 4 ? ToString(Ipv4::FromWire(data)) : ToString(Ipv6::FromWire(data));
}

std::string Paths(const nlmsghdr* message) {
  const auto* body = static_cast<const rtmsg*>(NLMSG_DATA(message));
  int left = static_cast<int>(RTM_PAYLOAD(message));
  uint32_t oif = 0;
  std::string gateway = "-";
  std::vector<std::pair<uint32_t, std::string>> hops;
  std::vector<uint32_t> weights;
  for (const rtattr* a = RTM_RTA(body); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
    if (a->rta_type == RTA_OIF) std::memcpy(&oif, RTA_DATA(a), sizeof oif);
    if (a->rta_type == RTA_GATEWAY || a->rta_type == RTA_VIA) gateway = GatewayText(a);
    if (a->rta_type != RTA_MULTIPATH) continue;
    int hops_left = static_cast<int>(RTA_PAYLOAD(a));
    for (const auto* hop = static_cast<const rtnexthop*>(RTA_DATA(a)); RTNH_OK(hop, hops_left);
         hops_left -= NLMSG_ALIGN(hop->rtnh_len), hop = RTNH_NEXT(hop)) {
      if ((hop->rtnh_flags & RTNH_F_DEAD) != 0) continue;
      std::string hop_gateway = "-";
      int attributes_left = static_cast<int>(hop->rtnh_len - sizeof *hop);
      for (const rtattr* h = RTNH_DATA(hop); RTA_OK(h, attributes_left);
           h = RTA_NEXT(h, attributes_left)) {
        if (h->rta_type == RTA_GATEWAY || h->rta_type == RTA_VIA) hop_gateway = GatewayText(h);
      }
      hops.emplace_back(static_cast<uint32_t>(hop->rtnh_ifindex), hop_gateway);
      weights.push_back(hop->rtnh_hops + 1u);
    }
  }
  if (hops.empty()) return PathText(oif, gateway, 1);
  std::string text;
  for (size_t i = 0; i < hops.size(); ++i) {
    // The weight of a sole path that is left means nothing.
    text += PathText(hops[i].first, hops[i].second, hops.size() == 1 ? 1 : weights[i]);
  }
  return text;
}

std::string TypeText(const nlmsghdr* message) {
  switch (static_cast<const rtmsg*>(NLMSG_DATA(message))->rtm_type) {
    case RTN_UNICAST:
      return "unicast" + Paths(message);
    case RTN_LOCAL:
      return "local";
    case RTN_BROADCAST:
      return "broadcast";
    case RTN_ANYCAST:
      return "anycast";
    case RTN_MULTICAST:
      return "multicast";
    case RTN_BLACKHOLE:
      return "blackhole";
    case RTN_UNREACHABLE:
      return "unreachable";
    case RTN_PROHIBIT:
      return "prohibit";
    default:
      return "other";
  }
}

}  // namespace

KernelLookup::KernelLookup() : fd_(socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)) {
  EXPECT_GE(fd_, 0);
}

KernelLookup::~KernelLookup() { close(fd_); }

std::string KernelLookup::Find(const IpAddress& address) {
  struct {
    nlmsghdr header;
    rtmsg body;
    rtattr attribute;
    uint8_t bytes[16];
  } request{};
  const unsigned short size = address.is_v4() ? 4 : 16;
  request.header.nlmsg_type = RTM_GETROUTE;
  request.header.nlmsg_flags = NLM_F_REQUEST;
  request.body.rtm_family = address.is_v4() ? AF_INET : AF_INET6;
  request.body.rtm_dst_len = static_cast<unsigned char>(size * 8);
  request.body.rtm_flags = RTM_F_FIB_MATCH;
  request.attribute = {static_cast<unsigned short>(RTA_LENGTH(size)), RTA_DST};
  request.header.nlmsg_len = static_cast<uint32_t>(NLMSG_LENGTH(sizeof(rtmsg)) + RTA_LENGTH(size));
  if (address.is_v4()) {
    address.v4().ToWire(request.bytes);
  } else {
    address.v6().ToWire(request.bytes);
  }
  EXPECT_GT(send(fd_, &request, request.header.nlmsg_len, 0), 0);
  std::vector<uint8_t> reply(64 * 1024);
  EXPECT_GT(recv(fd_, reply.data(), reply.size(), 0), 0);
  const auto* message = reinterpret_cast<const nlmsghdr*>(reply.data());
  if (message->nlmsg_type != NLMSG_ERROR) return TypeText(message);
  switch (-static_cast<const nlmsgerr*>(NLMSG_DATA(message))->error) {
    case ENETUNREACH:
      return "no route";
    case EHOSTUNREACH:
      return "unreachable";
    case EACCES:
      return "prohibit";
    case EINVAL:
      return "blackhole";
    default:
      return absl::StrCat("error ", -static_cast<const nlmsgerr*>(NLMSG_DATA(message))->error);
  }
}

std::string Describe(const tables::Route* route) {
  if (route == nullptr) return "no route";
  switch (route->type) {
    case tables::RouteType::kUnicast: {
      std::string text = "unicast";
      for (const tables::Path& p : route->paths) {
        text += PathText(p.oif.value, p.has_gateway ? ToString(p.gateway) : "-",
                         route->paths.size() == 1 ? 1 : p.weight);
      }
      return text;
    }
    case tables::RouteType::kLocal:
      return "local";
    case tables::RouteType::kBroadcast:
      return "broadcast";
    case tables::RouteType::kMulticast:
      return "multicast";
    case tables::RouteType::kAnycast:
      return "anycast";
    case tables::RouteType::kBlackhole:
      return "blackhole";
    case tables::RouteType::kUnreachable:
      return "unreachable";
    case tables::RouteType::kProhibit:
      return "prohibit";
    case tables::RouteType::kPunt:
      return "punt";
  }
  return "?";
}

}  // namespace sluice::test
