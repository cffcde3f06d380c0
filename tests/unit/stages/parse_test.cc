#include "stages/parse/parse.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/rng.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class ParseTest : public testing::Test {
 protected:
  ~ParseTest() override { world.CheckFrames(); }

  ParseResult ParseBytes(const Bytes& bytes, uint32_t segment = 0) {
    p = world.Receive(bytes, test::kLan, segment);
    const ParseResult result = Parse(p, world.lan(), world.pool);
    after = world.BytesOf(p);
    world.Free(p);
    return result;
  }
  Verdict VerdictOf(const Bytes& bytes) { return ParseBytes(bytes).verdict; }

  test::RouterWorld world;
  Packet p;     // as Parse left it (its frames are free again)
  Bytes after;  // its bytes
};

PacketBuilder V4() { return FromHost().Ipv4("10.0.0.2", "203.0.113.1"); }
PacketBuilder V6() { return FromHost().Ipv6("2001:db8::2", "2001:db8:9::1"); }

TEST_F(ParseTest, Ipv4) {
  const Bytes frame = V4().Udp(1, 2).Payload(100).Build();
  const ParseResult result = ParseBytes(frame);
  EXPECT_EQ(result.verdict, Verdict::Continue());
  EXPECT_EQ(result.protocol, Protocol::kIpv4);
  EXPECT_EQ(p.l3_offset, 14);
  EXPECT_EQ(p.l4_offset, 34);
  EXPECT_EQ(p.l4_protocol, 17);
  EXPECT_EQ(p.flags, 0);
  EXPECT_EQ(after, frame);
}

TEST_F(ParseTest, Ipv6) {
  EXPECT_EQ(ParseBytes(V6().Tcp(1, 2).Build()).protocol, Protocol::kIpv6);
  EXPECT_EQ(p.l4_offset, 54);
  EXPECT_EQ(p.l4_protocol, 6);
  EXPECT_EQ(p.flags, 0);
}

TEST_F(ParseTest, EachReasonToDrop) {
  struct Case {
    const char* name;
    Bytes frame;
    DropReason reason;
  };
  const auto v4 = [] { return V4().Udp(1, 2); };
  const auto v6 = [] { return V6().Udp(1, 2); };
  const auto v6_from = [](const char* source, const char* destination) {
    return FromHost().Ipv6(source, destination).Udp(1, 2).Build();
  };
  const Case cases[] = {
      {"other host",
       PacketBuilder()
           .Ethernet(test::kHostMac, test::kPeerMac)
           .Ipv4("10.0.0.2", "10.0.0.1")
           .Build(),
       DropReason::kNotForUs},
      {"VLAN", FromHost().Vlan(5).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build(),
       DropReason::kUnknownProtocol},
      {"LLDP", FromHost().EtherType(0x88cc).Payload(50).Build(), DropReason::kUnknownProtocol},
      {"802.3 length", FromHost().EtherType(60).Payload(60).Build(), DropReason::kUnknownProtocol},
      {"version 6 as IPv4", v4().Version(6).Build(), DropReason::kIpv4Header},
      {"IHL 4", v4().Ihl(4).Build(), DropReason::kIpv4Header},
      {"IHL beyond the frame", V4().Ihl(15).Payload(8).Build(), DropReason::kIpv4Header},
      {"19 bytes", v4().TruncateTo(33).Build(), DropReason::kIpv4Header},
      {"checksum", v4().BadIpChecksum().Build(), DropReason::kIpv4Checksum},
      {"longer than the frame", v4().TotalLength(29).Build(), DropReason::kIpv4Truncated},
      {"shorter than its header", v4().TotalLength(19).Build(), DropReason::kIpv4Header},
      {"version 4 as IPv6", v6().Version(4).Build(), DropReason::kIpv6Header},
      {"39 bytes", v6().TruncateTo(53).Build(), DropReason::kIpv6Header},
      {"IPv6 longer than the frame", v6().PayloadLength(9).Build(), DropReason::kIpv6Truncated},
      {"from ::1", v6_from("::1", "2001:db8:9::1"), DropReason::kMartianSource},
      {"to ::1", v6_from("2001:db8::2", "::1"), DropReason::kMartianDestination},
      {"from a group", v6_from("ff02::1", "2001:db8:9::1"), DropReason::kMartianSource},
      {"to scope 0", v6_from("2001:db8::2", "ff00::1"), DropReason::kMartianDestination},
      {"to scope 1", v6_from("2001:db8::2", "ff01::1"), DropReason::kMartianDestination},
      {"option 0x40 asks for discard", V6().HopByHop({0x40, 0}).Udp(1, 2).Build(),
       DropReason::kIpv6Extension},
      {"hop-by-hop beyond the packet",
       V6().Protocol(0).Payload(Bytes{17, 1, 0, 0, 0, 0, 0, 0}).Build(),
       DropReason::kIpv6Extension},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(VerdictOf(c.frame), Verdict::Drop(c.reason)) << c.name;
  }
  world.lan().ipv6_enabled = false;
  EXPECT_EQ(VerdictOf(v6().Build()), Verdict::Drop(DropReason::kIpv6Disabled));
}

TEST_F(ParseTest, RuntFramesAreTruncated) {
  for (size_t size = 0; size < 14; ++size) {
    EXPECT_EQ(VerdictOf(V4().Udp(1, 2).TruncateTo(size).Build()),
              Verdict::Drop(DropReason::kFrameTruncated))
        << size;
  }
}

TEST_F(ParseTest, LinkMulticastIsMarked) {
  for (const char* mac : {"ff:ff:ff:ff:ff:ff", "01:00:5e:00:00:01"}) {
    const auto frame = PacketBuilder().Ethernet(test::kHostMac, mac).Ipv4("10.0.0.2", "10.0.0.1");
    EXPECT_EQ(VerdictOf(PacketBuilder(frame).Udp(1, 2).Build()), Verdict::Continue());
    EXPECT_TRUE(p.Has(packet::kFlagLinkMulticast));
  }
}

TEST_F(ParseTest, ArpIsLeftToTheNeighbors) {
  const Bytes frame = FromHost().ArpRequest(test::kHostMac, "10.0.0.2", "10.0.0.1").Build();
  const ParseResult result = ParseBytes(frame);
  EXPECT_EQ(result.verdict, Verdict::Continue());
  EXPECT_EQ(result.protocol, Protocol::kArp);
  EXPECT_EQ(p.l3_offset, 14);
}

TEST_F(ParseTest, PaddingIsTrimmed) {
  ASSERT_EQ(VerdictOf(V4().Udp(1, 2).PadTo(60).Build()), Verdict::Continue());
  EXPECT_EQ(p.length, 42u);
  EXPECT_EQ(p.segment_length, 42);
  ASSERT_EQ(VerdictOf(V6().Udp(1, 2).PadTo(90).Build()), Verdict::Continue());
  EXPECT_EQ(p.length, 62u);
}

TEST_F(ParseTest, PiecesBehindTheEndAreGivenBack) {
  const Bytes frame = V4().Udp(1, 2).Payload(100).PadTo(400).Build();  // 142 bytes count
  for (const uint32_t segment : {48u, 71u, 142u, 200u}) {
    ASSERT_EQ(ParseBytes(frame, segment).verdict, Verdict::Continue());
    EXPECT_EQ(p.length, 142u);
    EXPECT_EQ(p.segment_count, (142 + segment - 1) / segment) << segment;
    EXPECT_EQ(p.segment_length, std::min(segment, 142u));
    EXPECT_EQ(after, Bytes(frame.begin(), frame.begin() + 142));
  }
}

TEST_F(ParseTest, HeadersMustLieInTheFirstPiece) {
  const Bytes frame = V4().Udp(1, 2).Payload(100).Build();
  EXPECT_EQ(ParseBytes(frame, 33).verdict, Verdict::Drop(DropReason::kIpv4Header));
  EXPECT_EQ(ParseBytes(frame, 34).verdict, Verdict::Continue());
  const Bytes frame6 = V6().DestinationOptions().Udp(1, 2).Payload(100).Build();
  EXPECT_EQ(ParseBytes(frame6, 53).verdict, Verdict::Drop(DropReason::kIpv6Header));
  // Extension headers may lie behind; what is in them then stays unknown.
  EXPECT_EQ(ParseBytes(frame6, 58).verdict, Verdict::Continue());
  EXPECT_EQ(p.l4_offset, 0);
}

TEST_F(ParseTest, Ipv4FragmentFlags) {
  ASSERT_EQ(VerdictOf(V4().MoreFragments().Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, packet::kFlagFragment);
  ASSERT_EQ(VerdictOf(V4().FragmentOffset(8).Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, packet::kFlagFragment | packet::kFlagLaterFragment);
  ASSERT_EQ(VerdictOf(V4().DontFragment().Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, 0);
}

TEST_F(ParseTest, Ipv4Options) {
  const struct {
    Bytes options;
    bool for_kernel;
  } cases[] = {
      {{1, 1, 1, 1}, false},             // No-Operation
      {{0x1e, 4, 0, 0}, false},          // unknown
      {{7, 7, 4, 0, 0, 0, 0}, true},     // record route, with room
      {{131, 7, 4, 10, 0, 0, 1}, true},  // source route
      {{148, 4, 0, 0}, true},            // router alert
      {{7, 40, 4, 0}, true},             // malformed: parameter problem is the kernel's
  };
  for (const auto& c : cases) {
    ASSERT_EQ(VerdictOf(V4().Options(c.options).Udp(1, 2).Build()), Verdict::Continue());
    EXPECT_TRUE(p.Has(packet::kFlagOptions));
    EXPECT_EQ(p.Has(packet::kFlagOptionsForKernel), c.for_kernel) << test::ToHex(c.options);
    EXPECT_EQ(p.l4_offset, 34 + (c.options.size() + 3) / 4 * 4);
  }
}

TEST_F(ParseTest, Ipv6ExtensionChain) {
  const Bytes frame = V6().HopByHop()
                          .DestinationOptions(Bytes(10))
                          .Routing(4, 0)
                          .Authentication()
                          .Tcp(1, 2)
                          .Build();
  ASSERT_EQ(VerdictOf(frame), Verdict::Continue());
  EXPECT_EQ(p.l4_protocol, 6);
  EXPECT_EQ(p.l4_offset, 54 + 8 + 16 + 8 + 24);
  EXPECT_EQ(p.flags, packet::kFlagOptions);
}

TEST_F(ParseTest, HopByHopOptionsThatAskForTheKernel) {
  const struct {
    Bytes options;
    bool for_kernel;
  } cases[] = {
      {{0x1e, 0}, false},             // unknown, skipped
      {{5, 2, 0, 0}, true},           // router alert
      {{0x80, 0}, true},              // unknown, answered by a parameter problem
      {{0xc0, 0}, true},              //
      {{0xc2, 4, 0, 0, 0, 8}, true},  // jumbo, too small: a parameter problem
  };
  for (const auto& c : cases) {
    ASSERT_EQ(VerdictOf(V6().HopByHop(c.options).Udp(1, 2).Build()), Verdict::Continue());
    EXPECT_TRUE(p.Has(packet::kFlagOptions));
    EXPECT_EQ(p.Has(packet::kFlagOptionsForKernel), c.for_kernel) << test::ToHex(c.options);
  }
}

TEST_F(ParseTest, RoutingHeaderWithSegmentsLeft) {
  ASSERT_EQ(VerdictOf(V6().Routing(4, 1, Bytes(16)).Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_TRUE(p.Has(packet::kFlagRoutingHeader));
  EXPECT_EQ(p.l4_offset, 54 + 24);
}

TEST_F(ParseTest, Ipv6Fragments) {
  ASSERT_EQ(VerdictOf(V6().Fragment(0, true, 7).Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, packet::kFlagFragmentHeader | packet::kFlagFragment);
  EXPECT_EQ(p.l4_offset, 62);
  ASSERT_EQ(VerdictOf(V6().Fragment(8, false, 7).Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, packet::kFlagFragmentHeader | packet::kFlagFragment |
                         packet::kFlagLaterFragment);
  EXPECT_EQ(p.l4_offset, 0);
  ASSERT_EQ(VerdictOf(V6().Fragment(0, false, 7).Udp(1, 2).Build()), Verdict::Continue());
  EXPECT_EQ(p.flags, packet::kFlagFragmentHeader) << "an atomic fragment is a whole packet";
}

// A payload length of 0 before a hop-by-hop header is not trimmed by: a jumbogram has it.
TEST_F(ParseTest, ZeroPayloadLengthBeforeHopByHopIsNotTrimmed) {
  const Bytes frame = V6().PayloadLength(0).HopByHop().Udp(1, 2).Build();
  ASSERT_EQ(VerdictOf(frame), Verdict::Continue());
  EXPECT_EQ(p.length, frame.size());
  const Bytes other = V6().PayloadLength(0).DestinationOptions().Udp(1, 2).Build();
  ASSERT_EQ(VerdictOf(other), Verdict::Continue());
  EXPECT_EQ(p.length, 54u);
  EXPECT_EQ(p.l4_offset, 0);
}

// A packet that ends where its memory does, so that the address sanitizer sees a byte too far.
class ParseInPlaceTest : public ParseTest {
 protected:
  void ParseExactly(const Bytes& bytes) {
    Bytes memory(bytes);
    memory.shrink_to_fit();
    Packet q = world.Receive({});
    q.data = memory.data();
    q.length = static_cast<uint32_t>(memory.size());
    q.segment_length = static_cast<uint16_t>(memory.size());
    const ParseResult result = Parse(q, world.lan(), world.pool);
    EXPECT_LE(q.length, bytes.size());
    EXPECT_EQ(q.length, q.segment_length);
    EXPECT_LE(q.l4_offset, q.segment_length);
    if (result.verdict.is_continue() && result.protocol == Protocol::kIpv4) {
      EXPECT_GE(q.l4_offset, 34);
      EXPECT_GE(q.length, q.l4_offset);
    }
    if (result.verdict.is_continue() && result.protocol == Protocol::kIpv6) {
      EXPECT_GE(q.length, 54u);
    }
    EXPECT_EQ(memory, bytes) << "Parse only reads";
    world.Free(q);
  }

  const std::vector<Bytes> samples_ = {
      V4().Udp(1, 2).Payload(20).Build(),
      V4().Options({7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0}).Tcp(1, 2).Build(),
      V4().MoreFragments().Icmp(8, 0).Payload(5).Build(),
      V6().Udp(1, 2).Payload(20).Build(),
      V6().HopByHop({5, 2, 0, 0}).DestinationOptions(Bytes(30)).Udp(1, 2).Build(),
      V6().Routing(4, 1, Bytes(16)).Fragment(0, true, 1).Tcp(1, 2).Build(),
      V6().Authentication(20).Icmpv6Echo(1, 2).Build(),
      FromHost().ArpRequest(test::kHostMac, "10.0.0.2", "10.0.0.1").Build(),
  };
};

TEST_F(ParseInPlaceTest, EveryTruncationStaysInBounds) {
  for (const Bytes& sample : samples_) {
    for (size_t size = 0; size <= sample.size(); ++size) {
      SCOPED_TRACE(size);
      const Bytes cut(sample.begin(), sample.begin() + static_cast<ptrdiff_t>(size));
      ParseExactly(cut);
      if (size < 34) continue;
      // The length fields that would still be fine, so that the checks behind them are reached.
      Bytes fitting = cut;
      if (cut[12] == 0x08 && cut[13] == 0) {
        StoreBe16(fitting.data() + 16, static_cast<uint16_t>(size - 14));
        StoreBe16(fitting.data() + 24, 0);
        StoreBe16(fitting.data() + 24,
                  test::NaiveChecksum({fitting.data() + 14, (fitting[14] & 0xfu) * 4 <= size - 14
                                                                ? (fitting[14] & 0xfu) * 4
                                                                : size - 14}));
      } else if (cut[12] == 0x86 && size >= 54) {
        StoreBe16(fitting.data() + 18, static_cast<uint16_t>(size - 54));
      }
      ParseExactly(fitting);
    }
  }
}

TEST_F(ParseInPlaceTest, RandomDamageStaysInBounds) {
  Rng rng(20);
  for (int i = 0; i < 20000; ++i) {
    SCOPED_TRACE(i);
    Bytes bytes = samples_[rng.Below(samples_.size())];
    for (uint64_t n = rng.Below(4); n > 0; --n) {
      // Behind the addresses, which would only make it somebody else's.
      bytes[12 + rng.Below(bytes.size() - 12)] = static_cast<uint8_t>(rng.Next());
    }
    if (rng.Chance(1, 3)) bytes.resize(rng.Below(bytes.size() + 1));
    ParseExactly(bytes);
    if (HasFailure()) return;
  }
}

}  // namespace
}  // namespace sluice::stages
