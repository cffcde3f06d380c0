#include "wire/ipv6.h"

#include <gtest/gtest.h>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "wire/ipv6_extensions.h"

namespace sluice::wire {
namespace {

using test::Bytes;
using test::PacketBuilder;

PacketBuilder Packet() { return PacketBuilder().Ipv6("2001:db8::1", "2001:db8:1::1"); }

TEST(Ipv6Test, ReadsAllFields) {
  const auto packet =
      Packet().Tos(0xb9).FlowLabel(0xabcde).HopLimit(7).Udp(1, 2).Payload(3).Build();
  const auto ip = Ipv6View::Parse(packet);
  ASSERT_TRUE(ip);
  EXPECT_EQ(ip->version(), 6);
  EXPECT_EQ(ip->traffic_class(), 0xb9);
  EXPECT_EQ(ip->ecn(), 1);
  EXPECT_EQ(ip->flow_label(), 0xabcdeu);
  EXPECT_EQ(ip->payload_length(), 11);
  EXPECT_EQ(ip->packet_length(), packet.size());
  EXPECT_EQ(ip->next_header(), 17);
  EXPECT_EQ(ip->hop_limit(), 7);
  EXPECT_EQ(ip->source(), Ipv6(0x20010db8'00000000, 1));
  EXPECT_EQ(ip->destination(), Ipv6(0x20010db8'00010000, 1));
}

struct Case {
  const char* what;
  Bytes packet;
  std::optional<DropReason> expected;
};

TEST(Ipv6Test, AcceptsAndRefusesAsLinux) {
  const auto to = [](const char* a) { return PacketBuilder().Ipv6("2001:db8::1", a).Build(); };
  const auto from = [](const char* a) { return PacketBuilder().Ipv6(a, "2001:db8::1").Build(); };
  const Case cases[] = {
      {"good", Packet().Udp(1, 2).Build(), {}},
      {"padded", Packet().Udp(1, 2).PadTo(60).Build(), {}},
      {"39 bytes", Packet().TruncateTo(39).Build(), DropReason::kIpv6Header},
      {"empty", {}, DropReason::kIpv6Header},
      {"version 4", Packet().Version(4).Build(), DropReason::kIpv6Header},
      {"truncated", Packet().Udp(1, 2).TruncateTo(47).Build(), DropReason::kIpv6Truncated},
      {"from loopback", from("::1"), DropReason::kMartianSource},
      {"to loopback", to("::1"), DropReason::kMartianDestination},
      {"from a group", from("ff02::1"), DropReason::kMartianSource},
      {"to scope 0", to("ff00::1"), DropReason::kMartianDestination},
      {"to scope 1", to("ff01::1"), DropReason::kMartianDestination},
      {"to scope 1, transient", to("ff11::1"), DropReason::kMartianDestination},
      {"to scope 2", to("ff02::1"), {}},
      {"unspecified source", from("::"), {}},
      {"mapped source", from("::ffff:10.0.0.1"), {}},
      {"jumbo length", Packet().HopByHop().PayloadLength(0).Build(), {}},
      {"length 0 without hop-by-hop", Packet().Udp(1, 2).PayloadLength(0).Build(), {}},
  };
  for (const Case& c : cases) EXPECT_EQ(CheckIpv6(c.packet), c.expected) << c.what;
}

TEST(Ipv6Test, EmitAndSettersEqualTheBuilder) {
  Rng rng(1);
  for (int i = 0; i < 5'000; ++i) {
    const Ipv6Fields f{.traffic_class = static_cast<uint8_t>(rng.Next()),
                       .flow_label = static_cast<uint32_t>(rng.Below(1 << 20)),
                       .payload_length = static_cast<uint16_t>(rng.Next()),
                       .next_header = static_cast<uint8_t>(rng.Next()),
                       .hop_limit = static_cast<uint8_t>(rng.Next()),
                       .source = Ipv6(rng.Next(), rng.Next()),
                       .destination = Ipv6(rng.Next(), rng.Next())};
    const auto expected = PacketBuilder()
                              .Ipv6(f.source, f.destination)
                              .Tos(f.traffic_class)
                              .FlowLabel(f.flow_label)
                              .PayloadLength(f.payload_length)
                              .Protocol(f.next_header)
                              .HopLimit(f.hop_limit)
                              .Build();
    Bytes out(40, 0xee);
    ASSERT_EQ(EmitIpv6Header(out, f), 40u);
    ASSERT_EQ(out, expected);
    Bytes set = PacketBuilder().Ipv6("::", "::").Build();
    Ipv6Mutable ip(set.data());
    ip.set_flow_label(f.flow_label | 0xfff0'0000);
    ip.set_traffic_class(f.traffic_class);
    ip.set_payload_length(f.payload_length);
    ip.set_next_header(f.next_header);
    ip.set_hop_limit(f.hop_limit);
    ip.set_source(f.source);
    ip.set_destination(f.destination);
    ASSERT_EQ(set, expected);
  }
  Bytes small(39);
  EXPECT_EQ(EmitIpv6Header(small, {}), 0u);
}

TEST(ChainTest, WithoutExtensions) {
  const auto packet = Packet().Tcp(1, 2).Build();
  const auto chain = WalkIpv6Chain(packet);
  EXPECT_TRUE(chain.HasL4());
  EXPECT_EQ(chain.protocol, 6);
  EXPECT_EQ(chain.l4_offset, 40);
  EXPECT_EQ(chain.next_header_at, 6);
  EXPECT_FALSE(chain.has_hop_by_hop);
}

TEST(ChainTest, AllKindsInARow) {
  const auto packet = Packet()
                          .HopByHop({5, 2, 0, 0})
                          .DestinationOptions(Bytes(14, 0))
                          .Routing(4, 1, Bytes(16))
                          .Fragment(0, true, 0x01020304)
                          .Authentication(12)
                          .Udp(1, 2)
                          .Build();
  const auto chain = WalkIpv6Chain(packet);
  EXPECT_TRUE(chain.HasL4());
  EXPECT_EQ(chain.protocol, 17);
  EXPECT_EQ(chain.l4_offset, packet.size() - 8);
  EXPECT_EQ(chain.next_header_at, packet.size() - 8 - 24);
  EXPECT_TRUE(chain.has_hop_by_hop);
  EXPECT_TRUE(chain.has_routing);
  EXPECT_TRUE(chain.has_fragment_header);
  EXPECT_TRUE(chain.is_fragment);
  EXPECT_TRUE(chain.more_fragments);
  EXPECT_EQ(chain.fragment_offset, 0);
  EXPECT_EQ(chain.fragment_id, 0x01020304u);
  EXPECT_EQ(packet[chain.fragment_header_at + 7], 4);
}

TEST(ChainTest, FragmentsAndOtherEnds) {
  const auto later =
      WalkIpv6Chain(Packet().Fragment(1448, false, 9).Protocol(17).Payload(8).Build());
  EXPECT_EQ(later.status, ChainStatus::kFragment);
  EXPECT_EQ(later.protocol, 17);
  EXPECT_EQ(later.fragment_offset, 1448);
  EXPECT_TRUE(later.is_fragment);
  const auto atomic = WalkIpv6Chain(Packet().Fragment(0, false, 9).Udp(1, 2).Build());
  EXPECT_TRUE(atomic.HasL4());
  EXPECT_FALSE(atomic.is_fragment);
  EXPECT_TRUE(atomic.has_fragment_header);
  EXPECT_FALSE(WalkIpv6Chain(Packet().Routing(4, 0).Udp(1, 2).Build()).has_routing);
  const auto none = WalkIpv6Chain(Packet().DestinationOptions().Build());
  EXPECT_TRUE(none.HasL4());
  EXPECT_EQ(none.protocol, kProtocolNoNextHeader);
  const auto esp = WalkIpv6Chain(Packet().Protocol(50).Payload(20).Build());
  EXPECT_EQ(esp.protocol, kProtocolEsp);
  const auto not_first = WalkIpv6Chain(Packet().DestinationOptions().HopByHop().Udp(1, 2).Build());
  EXPECT_FALSE(not_first.has_hop_by_hop);
  EXPECT_EQ(not_first.protocol, 17);
}

TEST(ChainTest, BoundedInCountAndLength) {
  PacketBuilder builder = Packet();
  for (size_t i = 0; i < kMaxExtensionHeaders; ++i) builder.DestinationOptions();
  EXPECT_TRUE(WalkIpv6Chain(PacketBuilder(builder).Udp(1, 2).Build()).HasL4());
  EXPECT_EQ(WalkIpv6Chain(builder.DestinationOptions().Udp(1, 2).Build()).status,
            ChainStatus::kTooMany);
  const auto packet = Packet().DestinationOptions(Bytes(22, 0)).Udp(1, 2).Build();
  for (size_t size = 40; size < 64; ++size) {
    EXPECT_EQ(WalkIpv6Chain(std::span(packet).first(size)).status, ChainStatus::kTruncated) << size;
  }
  EXPECT_TRUE(WalkIpv6Chain(std::span(packet).first(64)).HasL4());
}

HopByHopResult Check(Bytes options, const char* destination = "2001:db8:1::1") {
  const auto packet = PacketBuilder()
                          .Ipv6("2001:db8::1", destination)
                          .HopByHop(std::move(options))
                          .Udp(1, 2)
                          .Build();
  return CheckHopByHop(packet, packet.size());
}

TEST(HopByHopTest, Padding) {
  EXPECT_EQ(Check({}).verdict, HopByHopVerdict::kOk);
  EXPECT_EQ(Check({0, 0, 0, 0, 0, 0}).verdict, HopByHopVerdict::kOk);
  // Seven bytes in a row are the most, whatever they are made of.
  EXPECT_EQ(Check({0, 0, 0, 0, 0, 0, 0, 0x1e, 5, 0, 0, 0, 0, 0}).verdict, HopByHopVerdict::kOk);
  EXPECT_EQ(Check({5, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e, 1, 0}).verdict, HopByHopVerdict::kOk);
  EXPECT_EQ(Check({5, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x1e, 0}).verdict, HopByHopVerdict::kDrop);
  EXPECT_EQ(Check(Bytes(14, 0)).verdict, HopByHopVerdict::kDrop);
  EXPECT_EQ(Check({1, 6, 0, 0, 0, 0, 0, 0, 1, 4, 0, 0, 0, 0}).verdict, HopByHopVerdict::kDrop);
  EXPECT_EQ(Check({1, 4, 0, 0, 0, 1}).verdict, HopByHopVerdict::kDrop) << "PadN not zero";
}

TEST(HopByHopTest, UnknownOptionsByTheirActionBits) {
  EXPECT_EQ(Check({0x1e, 2, 0, 0}).verdict, HopByHopVerdict::kOk);
  EXPECT_EQ(Check({0x5e, 2, 0, 0}).verdict, HopByHopVerdict::kDrop);
  for (const uint8_t type : {0x9e, 0xde}) {
    const auto result = Check({0, type, 2, 0, 0});
    EXPECT_EQ(result.verdict, HopByHopVerdict::kParameterProblem);
    EXPECT_EQ(result.code, 2);
    EXPECT_EQ(result.pointer, 43);
  }
  EXPECT_EQ(Check({0x9e, 2, 0, 0}, "ff02::5").verdict, HopByHopVerdict::kParameterProblem);
  EXPECT_EQ(Check({0xde, 2, 0, 0}, "ff02::5").verdict, HopByHopVerdict::kDrop);
}

TEST(HopByHopTest, RouterAlertAndActions) {
  const auto alert = Check({5, 2, 0x12, 0x34});
  EXPECT_EQ(alert.verdict, HopByHopVerdict::kOk);
  EXPECT_TRUE(alert.router_alert);
  EXPECT_EQ(alert.router_alert_value, 0x1234);
  EXPECT_EQ(Check({5, 3, 0, 0, 0}).verdict, HopByHopVerdict::kDrop);
  EXPECT_TRUE(Check({0x31, 2, 0, 0}).other_action);
  EXPECT_TRUE(Check({0x07, 2, 0, 0}).other_action);
  EXPECT_FALSE(Check({0x1e, 2, 0, 0}).other_action);
}

TEST(HopByHopTest, AtMostEightOptions) {
  Bytes options;
  for (int i = 0; i < 8; ++i) options.insert(options.end(), {0x1e, 0});
  EXPECT_EQ(Check(options).verdict, HopByHopVerdict::kOk);
  options.insert(options.end(), {0x1e, 0});
  EXPECT_EQ(Check(options).verdict, HopByHopVerdict::kDrop);
}

TEST(HopByHopTest, OptionsMustFit) {
  EXPECT_EQ(Check({0x1e, 5, 0, 0, 0, 0}).verdict, HopByHopVerdict::kDrop);
  EXPECT_EQ(Check({1, 3, 0, 0, 0, 0x1e}).verdict, HopByHopVerdict::kDrop) << "no length byte";
  const auto packet =
      Packet().HopByHop(Bytes{0x1e, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}).Build();
  for (size_t size = 40; size < packet.size(); ++size) {
    EXPECT_EQ(CheckHopByHop(std::span(packet).first(size), size).verdict, HopByHopVerdict::kDrop);
  }
}

TEST(HopByHopTest, JumboPayload) {
  const auto check = [](Bytes option, uint16_t payload_length, size_t length) {
    const auto packet =
        Packet().HopByHop(std::move(option)).PayloadLength(payload_length).Udp(1, 2).Build();
    return CheckHopByHop(packet, length);
  };
  const Bytes jumbo = {0xc2, 4, 0, 1, 0, 0};
  const auto good = check(jumbo, 0, 40 + 0x10000);
  EXPECT_EQ(good.verdict, HopByHopVerdict::kOk);
  EXPECT_TRUE(good.jumbo);
  EXPECT_EQ(good.jumbo_length, 0x10000u);
  EXPECT_EQ(check(jumbo, 0, 40 + 0xffff).verdict, HopByHopVerdict::kDrop) << "truncated";
  const auto small = check({0xc2, 4, 0, 0, 0xff, 0xff}, 0, 70'000);
  EXPECT_EQ(small.verdict, HopByHopVerdict::kParameterProblem);
  EXPECT_EQ(small.code, 0);
  EXPECT_EQ(small.pointer, 44);
  const auto both = check(jumbo, 16, 70'000);
  EXPECT_EQ(both.verdict, HopByHopVerdict::kParameterProblem);
  EXPECT_EQ(both.pointer, 42);
  EXPECT_EQ(check({0xc2, 3, 1, 0, 0, 0}, 0, 70'000).verdict, HopByHopVerdict::kDrop) << "length";
  EXPECT_EQ(check({0, 0xc2, 4, 0, 1, 0, 0}, 0, 70'000).verdict, HopByHopVerdict::kDrop) << "align";
}

}  // namespace
}  // namespace sluice::wire
