// Ethernet, ARP, ICMP, UDP and TCP headers, and the flow hash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <set>
#include <utility>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "wire/arp.h"
#include "wire/bootp.h"
#include "wire/ethernet.h"
#include "wire/flow_hash.h"
#include "wire/icmp.h"
#include "wire/icmpv6.h"
#include "wire/tcp.h"
#include "wire/udp.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

const Mac kMacA{{2, 0, 0, 0, 0, 1}};
const Mac kMacB{{2, 0, 0, 0, 0, 2}};

TEST(EthernetTest, ReadsWhatTheBuilderWrites) {
  const auto frame = PacketBuilder().Ethernet(kMacA, kMacB).EtherType(0x1234).Build();
  const auto view = EthernetView::Parse(frame);
  ASSERT_TRUE(view);
  EXPECT_EQ(view->source(), kMacA);
  EXPECT_EQ(view->destination(), kMacB);
  EXPECT_EQ(view->ether_type(), 0x1234);
  EXPECT_FALSE(view->IsMulticast());
  EXPECT_FALSE(EthernetView::Parse(std::span(frame).first(13)));
}

TEST(EthernetTest, GroupAddresses) {
  const auto broadcast = PacketBuilder().Ethernet(kMacA, Mac::Broadcast()).Build();
  EXPECT_TRUE(EthernetView::Parse(broadcast)->IsBroadcast());
  EXPECT_TRUE(EthernetView::Parse(broadcast)->IsMulticast());
  const auto group = PacketBuilder().Ethernet(kMacA, "33:33:00:00:00:01").Build();
  EXPECT_FALSE(EthernetView::Parse(group)->IsBroadcast());
  EXPECT_TRUE(EthernetView::Parse(group)->IsMulticast());
}

TEST(EthernetTest, EmitRoundTrip) {
  std::array<uint8_t, 14> out;
  ASSERT_EQ(EmitEthernet(out, kMacA, kMacB, kEtherTypeIpv6), 14u);
  EXPECT_EQ(test::ToHex(out),
            "020000000001020000000002"
            "86dd");
  EXPECT_EQ(EmitEthernet(std::span(out).first(13), kMacA, kMacB, 0), 0u);
}

TEST(BootpTest, WhoseReplyItIs) {
  Bytes message(240);
  message[0] = 2;
  message[1] = 1;
  message[2] = 6;
  std::copy(kMacA.bytes.begin(), kMacA.bytes.end(), message.begin() + 28);
  const auto is_reply = [&](const Mac& client, size_t size = BootpView::kSize) {
    const auto view = BootpView::Parse(std::span(message).first(size));
    return view && view->IsReplyTo(client);
  };
  EXPECT_TRUE(is_reply(kMacA));
  EXPECT_FALSE(is_reply(kMacB));
  EXPECT_FALSE(is_reply(kMacA, BootpView::kSize - 1));
  for (const size_t at : {0, 1, 2}) {  // a request, another kind of link, another length of address
    const uint8_t right = std::exchange(message[at], 3);
    EXPECT_FALSE(is_reply(kMacA)) << at;
    message[at] = right;
  }
  EXPECT_TRUE(is_reply(kMacA));
}

TEST(EthernetTest, SkipsUpToTwoTags) {
  const auto base = PacketBuilder().Ethernet(kMacA, kMacB);
  const auto plain = PacketBuilder(base).Ipv4("1.1.1.1", "2.2.2.2").Build();
  EXPECT_EQ(SkipVlanTags(plain)->offset, 14);
  EXPECT_EQ(SkipVlanTags(plain)->vlan_tags, 0);
  EXPECT_EQ(SkipVlanTags(plain)->ether_type, kEtherTypeIpv4);
  const auto two =
      PacketBuilder(base).Vlan(5, kEtherTypeQinQ, 7).Vlan(6).Ipv4("1.1.1.1", "2.2.2.2").Build();
  const auto l2 = SkipVlanTags(two);
  ASSERT_TRUE(l2);
  EXPECT_EQ(l2->offset, 22);
  EXPECT_EQ(l2->vlan_tags, 2);
  EXPECT_EQ(l2->vlan_id, 5) << "priority bits are not part of it";
  EXPECT_EQ(l2->ether_type, kEtherTypeIpv4);
  const auto three = PacketBuilder(base).Vlan(1).Vlan(2).Vlan(3).EtherType(0x0800).Build();
  EXPECT_EQ(SkipVlanTags(three)->ether_type, kEtherTypeVlan);
  EXPECT_FALSE(SkipVlanTags(std::span(two).first(21)));
  EXPECT_FALSE(SkipVlanTags(std::span(two).first(17)));
}

TEST(ArpTest, EmitEqualsTheBuilder) {
  std::array<uint8_t, 42> out;
  const Ipv4 a(10, 0, 0, 1);
  const Ipv4 b(10, 0, 0, 2);
  ASSERT_EQ(EmitArpFrame(out, Mac::Broadcast(), ArpRequestFor(b, kMacA, a)), 42u);
  const auto request =
      PacketBuilder().Ethernet(kMacA, Mac::Broadcast()).ArpRequest(kMacA, a, b).Build();
  EXPECT_EQ(test::ToHex(out), test::ToHex(request));
  const auto view = ArpView::Parse(std::span(request).subspan(14));
  ASSERT_TRUE(view);
  EXPECT_EQ(view->operation(), kArpRequest);
  EXPECT_EQ(view->sender_ip(), a);
  EXPECT_EQ(view->target_ip(), b);

  ASSERT_EQ(EmitArpFrame(out, kMacA, ArpReplyTo(*view, kMacB)), 42u);
  const auto reply = PacketBuilder().Ethernet(kMacB, kMacA).ArpReply(kMacB, b, kMacA, a).Build();
  EXPECT_EQ(test::ToHex(out), test::ToHex(reply));

  ASSERT_EQ(EmitArp(out, GratuitousArp(kMacA, a)), 28u);
  EXPECT_EQ(ArpView(out.data()).sender_ip(), ArpView(out.data()).target_ip());
  EXPECT_EQ(EmitArpFrame(std::span(out).first(41), kMacA, ArpFields{}), 0u);
}

TEST(ArpTest, RefusesOtherKinds) {
  const auto good = PacketBuilder().ArpRequest(kMacA, "10.0.0.1", "10.0.0.2").Build();
  ASSERT_TRUE(ArpView::Parse(good));
  EXPECT_FALSE(ArpView::Parse(std::span(good).first(27)));
  for (const size_t at : {0, 1, 2, 3, 4, 5}) {
    Bytes bad = good;
    bad[at] ^= 0x40;
    EXPECT_FALSE(ArpView::Parse(bad)) << at;
  }
}

TEST(IcmpTest, EmitEqualsTheBuilder) {
  Rng rng(1);
  for (size_t size = 0; size < 100; ++size) {
    Bytes body(size);
    for (auto& b : body) b = static_cast<uint8_t>(rng.Next());
    const auto expected = PacketBuilder().Icmp(3, 4, IcmpRestMtu(1400)).Payload(body).Build();
    Bytes out(expected.size());
    ASSERT_EQ(EmitIcmp(out, kIcmpUnreachable, kIcmpFragmentationNeeded, IcmpRestMtu(1400), body),
              out.size());
    ASSERT_EQ(out, expected);
    EXPECT_EQ(IcmpView::Parse(out)->mtu(), 1400);
    // The same with the body already in place.
    ASSERT_EQ(EmitIcmp(out, 3, 4, 1400, std::span(out).subspan(8)), out.size());
    ASSERT_EQ(out, expected);
    EXPECT_EQ(EmitIcmp(std::span(out).first(out.size() - 1), 3, 4, 1400, body), 0u);
  }
}

TEST(IcmpTest, EchoTurnsIntoItsReply) {
  Rng rng(2);
  for (int i = 0; i < 1000; ++i) {
    const auto id = static_cast<uint16_t>(rng.Next());
    const size_t size = rng.Below(64);
    auto v4 = PacketBuilder().Icmp(8, 0, IcmpRestEcho(id, 7)).Payload(size).Build();
    TurnIntoEchoReply(v4.data());
    EXPECT_EQ(v4, PacketBuilder().IcmpEchoReply(id, 7).Payload(size).Build());
    auto v6 = PacketBuilder().Ipv6("fe80::1", "fe80::2").Icmpv6Echo(id, 7).Payload(size).Build();
    TurnIntoEchoReplyV6(v6.data() + 40);
    EXPECT_EQ(
        v6,
        PacketBuilder().Ipv6("fe80::1", "fe80::2").Icmpv6EchoReply(id, 7).Payload(size).Build());
  }
}

TEST(IcmpTest, Icmpv6EmitEqualsTheBuilder) {
  const Ipv6 a(0xfe80'0000'0000'0000, 1);
  const Ipv6 b(0x2001'0db8'0000'0000, 2);
  for (size_t size = 0; size < 60; ++size) {
    const auto expected = PacketBuilder().Ipv6(a, b).Icmpv6(2, 0, 1280).Payload(size).Build();
    Bytes out(expected.size() - 40);
    const auto body = std::span(expected).subspan(48);
    ASSERT_EQ(EmitIcmpv6(out, a, b, kIcmpv6PacketTooBig, 0, 1280, body), out.size());
    EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin() + 40));
    EXPECT_TRUE(Icmpv6ChecksumIsRight(a, b, out));
    out[4] ^= 1;
    EXPECT_FALSE(Icmpv6ChecksumIsRight(a, b, out));
  }
}

TEST(UdpTest, EmitEqualsTheBuilder) {
  const Ipv4 a(10, 0, 0, 1);
  const Ipv4 b(10, 0, 0, 2);
  for (size_t size = 0; size < 60; ++size) {
    const auto expected = PacketBuilder().Ipv4(a, b).Udp(1, 2).Payload(size).Build();
    Bytes out(expected.size() - 20);
    const auto length = static_cast<uint32_t>(out.size());
    ASSERT_EQ(
        EmitUdp(out, 1, 2, std::span(expected).subspan(28), PseudoHeaderSum(a, b, 17, length)),
        out.size());
    EXPECT_TRUE(std::equal(out.begin(), out.end(), expected.begin() + 20));
    const auto view = UdpView::Parse(out);
    EXPECT_EQ(view->length(), length);
    EXPECT_TRUE(view->LengthFits(length));
    EXPECT_FALSE(view->LengthFits(length - 1));
  }
}

TEST(TcpTest, ReadsHeaderAndOptions) {
  const auto packet = PacketBuilder()
                          .Ipv4("10.0.0.1", "10.0.0.2")
                          .Tcp(80, 4000, kTcpSyn | kTcpAck)
                          .Sequence(0x01020304, 0x05060708)
                          .Options({2, 4, 0x05, 0xb4, 1, 3, 3, 7})
                          .Payload(3)
                          .Build();
  const auto tcp = TcpView::Parse(std::span(packet).subspan(20));
  ASSERT_TRUE(tcp);
  EXPECT_EQ(tcp->source_port(), 80);
  EXPECT_EQ(tcp->destination_port(), 4000);
  EXPECT_EQ(tcp->sequence(), 0x01020304u);
  EXPECT_EQ(tcp->acknowledgment(), 0x05060708u);
  EXPECT_EQ(tcp->header_length(), 28u);
  EXPECT_TRUE(tcp->syn() && tcp->ack() && !tcp->fin() && !tcp->rst());
  TcpOptionIterator it(tcp->options());
  EXPECT_EQ(it.Next()->kind, kTcpOptionMss);
  EXPECT_EQ(it.Next()->kind, kTcpOptionWindowScale);
  EXPECT_FALSE(it.Next());
  EXPECT_FALSE(it.malformed());
}

TEST(TcpTest, RefusesABadDataOffset) {
  Bytes header = PacketBuilder().Tcp(1, 2).Build();
  ASSERT_EQ(header.size(), 20u);
  header[12] = 0x40;
  EXPECT_FALSE(TcpView::Parse(header));
  header[12] = 0x60;
  EXPECT_FALSE(TcpView::Parse(header)) << "options beyond the end";
}

TEST(TcpTest, MalformedOptionsEndTheWalk) {
  for (const Bytes& options : {Bytes{2}, Bytes{2, 1, 0, 0}, Bytes{2, 5, 0, 0}, Bytes{3, 0}}) {
    TcpOptionIterator it(options);
    EXPECT_FALSE(it.Next());
    EXPECT_TRUE(it.malformed());
  }
}

TEST(FlowHashTest, DependsOnEveryFieldAndOnlyOnThem) {
  const Ipv4 a(10, 0, 0, 1);
  const Ipv4 b(10, 0, 0, 2);
  const uint32_t h = FlowHashL4(a, b, 6, 0x10002, 1);
  EXPECT_EQ(h, FlowHashL4(a, b, 6, 0x10002, 1));
  const std::set<uint32_t> others = {h,
                                     FlowHashL4(b, a, 6, 0x10002, 1),
                                     FlowHashL4(a, b, 17, 0x10002, 1),
                                     FlowHashL4(a, b, 6, 0x20001, 1),
                                     FlowHashL4(a, b, 6, 0x10002, 2),
                                     FlowHashL3(a, b, 1)};
  EXPECT_EQ(others.size(), 6u);
  const Ipv6 x(1, 2);
  const Ipv6 y(3, 4);
  const std::set<uint32_t> v6 = {FlowHashL3(x, y, 5, 6, 1), FlowHashL3(y, x, 5, 6, 1),
                                 FlowHashL3(x, y, 4, 6, 1), FlowHashL3(x, y, 5, 17, 1),
                                 FlowHashL4(x, y, 6, 7, 1), FlowHashL4(Ipv6(2, 1), y, 6, 7, 1)};
  EXPECT_EQ(v6.size(), 6u);
}

// The usual traffic, neighbouring addresses and ports, must spread evenly over a few paths.
TEST(FlowHashTest, SpreadsNeighbouringFlowsEvenly) {
  for (const uint32_t paths : {2u, 3u, 4u, 7u, 16u}) {
    std::vector<int> l3(paths), l4(paths), v6(paths);
    constexpr int kFlows = 16'000;
    for (uint32_t i = 0; i < kFlows; ++i) {
      const Ipv4 source(0x0a000000 + i);
      const auto path = [paths](uint32_t hash) { return uint64_t{hash} * paths >> 32; };
      ++l3[path(FlowHashL3(source, Ipv4(10, 9, 9, 9), 0))];
      ++l4[path(FlowHashL4(Ipv4(10, 0, 0, 1), Ipv4(10, 9, 9, 9), 6, (1024 + i) << 16 | 80, 0))];
      ++v6[path(FlowHashL4(Ipv6(0x20010db8'00000000, i), Ipv6(1, 1), 6, 80, 0))];
    }
    const double fair = double{kFlows} / paths;
    for (const auto& counts : {l3, l4, v6}) {
      for (const int count : counts) {
        EXPECT_NEAR(count, fair, fair * 0.15) << paths << " paths";
      }
    }
  }
}

}  // namespace
}  // namespace sluice::wire
