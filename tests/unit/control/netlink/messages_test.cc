// Messages as bytes: complete ones, short ones, and random ones (which must only not crash).
#include "control/netlink/messages.h"

#include <gtest/gtest.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <cstring>
#include <vector>

#include "base/rng.h"

namespace sluice::control {
namespace {

// A message under construction, aligned as a receive buffer is.
class Message {
 public:
  template <class Body>
  Message(uint16_t type, uint16_t flags, const Body& body) {
    nlmsghdr header{};
    header.nlmsg_type = type;
    header.nlmsg_flags = flags;
    Append(&header, sizeof header);
    Append(&body, sizeof body);
  }
  Message& Attribute(uint16_t type, const void* data, size_t size) {
    const nlattr a{static_cast<uint16_t>(sizeof(nlattr) + size), type};
    Append(&a, sizeof a, false);
    Append(data, size);
    return *this;
  }
  Message& U32(uint16_t type, uint32_t value) { return Attribute(type, &value, sizeof value); }
  Message& Bytes(uint16_t type, std::vector<uint8_t> data) {
    return Attribute(type, data.data(), data.size());
  }
  const nlmsghdr& get() {
    auto* header = reinterpret_cast<nlmsghdr*>(bytes_.data());
    header->nlmsg_len = static_cast<uint32_t>(bytes_.size());
    return *header;
  }

 private:
  void Append(const void* data, size_t size, bool align = true) {
    const auto* p = static_cast<const uint8_t*>(data);
    bytes_.insert(bytes_.end(), p, p + size);
    if (align) bytes_.resize(NLMSG_ALIGN(bytes_.size()));
  }
  std::vector<uint8_t> bytes_;
};

rtmsg RouteBody(uint8_t family, uint8_t length) {
  rtmsg body{};
  body.rtm_family = family;
  body.rtm_dst_len = length;
  body.rtm_table = RT_TABLE_MAIN;
  body.rtm_type = RTN_UNICAST;
  return body;
}

TEST(Messages, ARouteWithAViaGateway) {
  Message m(RTM_NEWROUTE, NLM_F_REPLACE, RouteBody(AF_INET, 24));
  std::vector<uint8_t> via = {AF_INET6, 0};
  via.resize(18);
  via[2] = 0xfd;
  via[17] = 7;
  m.Bytes(RTA_DST, {10, 1, 2, 0}).U32(RTA_OIF, 5).U32(RTA_PRIORITY, 20).Bytes(RTA_VIA, via);
  RouteUpdate u;
  ASSERT_TRUE(ParseRoute(m.get(), u));
  EXPECT_TRUE(u.replace);
  EXPECT_FALSE(u.append);
  EXPECT_EQ(u.metric, 20u);
  EXPECT_EQ(IpAddress(Ipv4(10, 1, 2, 0)).bits, u.destination);
  ASSERT_EQ(u.spec.paths.size(), 1u);
  EXPECT_EQ(u.spec.paths[0].oif.value, 5u);
  EXPECT_EQ(ToString(u.spec.paths[0].gateway), "fd00::7");
}

TEST(Messages, WhatIsNoRouteOfOurs) {
  RouteUpdate u;
  rtmsg body = RouteBody(AF_INET, 24);
  body.rtm_table = 100;
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, body).get(), u)) << "another table";
  body = RouteBody(AF_INET6, 128);
  body.rtm_flags = RTM_F_CLONED;
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, body).get(), u)) << "an exception";
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, RouteBody(128, 24)).get(), u))
      << "multicast routing";
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, RouteBody(AF_INET, 33)).get(), u));
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, uint32_t{2}).get(), u)) << "too short";
  // The table in full decides, not its low byte.
  body = RouteBody(AF_INET, 0);
  EXPECT_FALSE(ParseRoute(Message(RTM_NEWROUTE, 0, body).U32(RTA_TABLE, 1000).get(), u));
}

TEST(Messages, NothingIsLeftFromTheMessageBefore) {
  RouteUpdate u;
  Message rich(RTM_NEWROUTE, NLM_F_APPEND, RouteBody(AF_INET, 8));
  rich.U32(RTA_OIF, 2).U32(RTA_PRIORITY, 3).Bytes(RTA_PREFSRC, {1, 2, 3, 4}).Bytes(RTA_ENCAP, {});
  ASSERT_TRUE(ParseRoute(rich.get(), u));
  EXPECT_TRUE(u.spec.encapsulated);
  ASSERT_EQ(u.spec.paths.size(), 1u);
  rich.U32(RTA_NH_ID, 9);  // the object decides, whatever else is told of it
  ASSERT_TRUE(ParseRoute(rich.get(), u));
  EXPECT_FALSE(u.spec.encapsulated);
  EXPECT_EQ(u.spec.nexthop_id, 9u);
  EXPECT_TRUE(u.spec.paths.empty());
  ASSERT_TRUE(ParseRoute(Message(RTM_NEWROUTE, 0, RouteBody(AF_INET, 0)).get(), u));
  EXPECT_FALSE(u.spec.encapsulated);
  EXPECT_FALSE(u.spec.has_prefsrc);
  EXPECT_FALSE(u.append);
  EXPECT_EQ(u.spec.nexthop_id, 0u);
  EXPECT_EQ(u.metric, 0u);
  EXPECT_EQ(u.destination, Ipv6());
}

TEST(Messages, RandomBytesAreSurvived) {
  Rng rng(7);
  alignas(nlmsghdr) uint8_t buffer[512];
  RouteUpdate u;
  size_t parsed = 0;
  for (int i = 0; i < 200'000; ++i) {
    for (uint8_t& byte : buffer) byte = static_cast<uint8_t>(rng.Below(rng.Chance(1, 2) ? 4 : 256));
    auto* header = reinterpret_cast<nlmsghdr*>(buffer);
    header->nlmsg_len = static_cast<uint32_t>(16 + rng.Below(sizeof buffer - 16));
    buffer[16] = rng.Chance(1, 2) ? AF_INET : AF_INET6;
    if (rng.Chance(1, 2)) buffer[20] = RT_TABLE_MAIN;
    parsed += ParseRoute(*header, u);
    parsed += ParseLink(*header).has_value() + ParseAddress(*header).has_value() +
              ParseRule(*header).has_value() + ParseNeighbor(*header).has_value() +
              ParseNetconf(*header).has_value() + ParseNexthop(*header).has_value();
    parsed += ParseError(*header).ok();
  }
  EXPECT_GT(parsed, 1000u) << "the messages are too random to reach the attributes";
}

}  // namespace
}  // namespace sluice::control
