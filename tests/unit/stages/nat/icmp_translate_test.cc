// ICMP errors about translated flows: outside and inside, both families, whole and cut short.
#include <optional>
#include <vector>

#include "base/rng.h"
#include "stages/nat/translate.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "tables/flow_owner.h"
#include "unit/stages/nat/nat_fixture.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using packet::Verdict;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;
using test::Bytes;
using test::PacketBuilder;

const Verdict kUntranslatable = Verdict::Drop(DropReason::kNatUntranslatable);

Ipv4 V4Of(const Ipv6& bits) { return Ipv4(static_cast<uint32_t>(bits.lo)); }

PacketBuilder IpOf(PacketBuilder b, const FlowTuple& t) {
  if (t.family == Family::kIpv4) return b.Ipv4(V4Of(t.source), V4Of(t.destination));
  return b.Ipv6(t.source, t.destination);
}

// A packet with this tuple, from the IP header on; its first `size` bytes.
Bytes Quote(const FlowTuple& t, size_t size = 1000) {
  PacketBuilder b = IpOf(PacketBuilder(), t);
  switch (t.protocol) {
    case wire::kProtocolTcp:
      b.Tcp(t.source_port, t.destination_port).Sequence(77, 88);
      break;
    case wire::kProtocolUdp:
      b.Udp(t.source_port, t.destination_port);
      break;
    case wire::kProtocolIcmp:
      b.IcmpEcho(t.source_port, 9);
      break;
    default:
      b.Icmpv6Echo(t.source_port, 9);
      break;
  }
  Bytes bytes = b.Payload(64).Build();
  bytes.resize(std::min(bytes.size(), size));
  return bytes;
}

// An error of `router` to whom the quoted packet came from.
Bytes Error(const std::string& router, const FlowTuple& quoted, const Bytes& quote,
            uint8_t type4 = 3, uint8_t type6 = 1, uint32_t rest = 1400) {
  PacketBuilder b = test::FromHost();
  if (quoted.family == Family::kIpv4) {
    return b.Ipv4(router, V4Of(quoted.source)).Icmp(type4, 4, rest).Payload(quote).Build();
  }
  return b.Ipv6(router, quoted.source).Icmpv6(type6, 0, rest).Payload(quote).Build();
}

struct Case {
  FlowTuple original;
  FlowTuple outside;
  std::string router;
};

class IcmpTranslateTest : public testing::Test {
 protected:
  ~IcmpTranslateTest() override { world.CheckFrames(); }

  static Flow Translated(const Case& c) {
    Flow flow{};
    flow.tuples = {c.original, Inverse(c.outside)};
    flow.status = tables::kFlowSourceNatDone | tables::kFlowDestinationNatDone;
    const bool icmp = tables::IsIcmp(c.original.protocol);
    if (c.original.source != c.outside.source || c.original.source_port != c.outside.source_port) {
      flow.status |= tables::kFlowSourceNat;
    }
    if (c.original.destination != c.outside.destination ||
        (!icmp && c.original.destination_port != c.outside.destination_port)) {
      flow.status |= tables::kFlowDestinationNat;
    }
    return flow;
  }
  Packet Receive(const Bytes& frame, uint32_t segment = 0) {
    Packet p = world.Receive(frame, test::kLan, segment);
    EXPECT_TRUE(Parse(p, world.lan(), world.pool).verdict.is_continue());
    return p;
  }
  // The error's way through both hooks; nothing when it was dropped.
  std::optional<Bytes> Through(const Bytes& frame, const Flow& flow, FlowDirection direction,
                               uint32_t segment = 0) {
    Packet p = Receive(frame, segment);
    std::optional<Bytes> result;
    if (TranslateIcmpError(*world.arena, p, flow, direction, NatManip::kDestination)
            .is_continue() &&
        TranslateIcmpError(*world.arena, p, flow, direction, NatManip::kSource).is_continue()) {
      result = world.BytesOf(p);
    }
    world.Free(p);
    return result;
  }

  test::RouterWorld world;
};

std::vector<Case> SourceCases() {
  std::vector<Case> cases;
  for (const uint8_t protocol : {wire::kProtocolTcp, wire::kProtocolUdp}) {
    cases.push_back({Tuple("10.0.0.2", 4000, "1.1.1.1", 53, protocol),
                     Tuple("192.0.2.1", 50000, "1.1.1.1", 53, protocol), "203.0.113.9"});
    cases.push_back({Tuple("2001:db8::2", 4000, "2001:4860::8", 53, protocol),
                     Tuple("2001:db8:1::1", 50000, "2001:4860::8", 53, protocol), "2001:4860::fe"});
  }
  cases.push_back({Echo("10.0.0.2", "1.1.1.1", 7), Echo("192.0.2.1", "1.1.1.1", 8), "203.0.113.9"});
  cases.push_back({Echo("2001:db8::2", "2001:4860::8", 7), Echo("2001:db8:1::1", "2001:4860::8", 8),
                   "2001:4860::fe"});
  return cases;
}

// A router on the way says that our masqueraded client's packet was too big: the client must see
// its own packet quoted.
TEST_F(IcmpTranslateTest, ErrorFromOutsideAboutASourceTranslatedPacket) {
  for (const Case& c : SourceCases()) {
    const Flow flow = Translated(c);
    for (const uint32_t segment : {0u, 130u}) {
      const auto got = Through(Error(c.router, c.outside, Quote(c.outside)), flow,
                               FlowDirection::kReply, segment);
      ASSERT_TRUE(got.has_value()) << Show(c.original);
      EXPECT_EQ(*got, Error(c.router, c.original, Quote(c.original))) << Show(c.original);
    }
  }
}

// The client's side says that the answer cannot be delivered: the server must see what it sent, and
// the error comes from the translated address.
TEST_F(IcmpTranslateTest, ErrorFromInsideAboutAnAnswer) {
  for (const Case& c : SourceCases()) {
    const Flow flow = Translated(c);
    const FlowTuple answer_inside = Inverse(c.original);
    const FlowTuple answer_outside = Inverse(c.outside);
    Bytes quote_inside = Quote(answer_inside);
    Bytes quote_outside = Quote(answer_outside);
    if (tables::IsIcmp(c.original.protocol)) continue;  // Quote() makes requests only
    const IpAddress client = c.original.family == Family::kIpv4 ? IpAddress(V4Of(c.original.source))
                                                                : IpAddress(c.original.source);
    const IpAddress outside = c.original.family == Family::kIpv4 ? IpAddress(V4Of(c.outside.source))
                                                                 : IpAddress(c.outside.source);
    const auto got = Through(Error(ToString(client), answer_inside, quote_inside), flow,
                             FlowDirection::kOriginal);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(*got, Error(ToString(outside), answer_outside, quote_outside));
  }
}

// A port forward: the server inside is unreachable, says a router inside.
TEST_F(IcmpTranslateTest, DestinationTranslatedFlows) {
  const std::vector<Case> cases = {
      {Tuple("198.51.100.7", 4000, "192.0.2.1", 80), Tuple("198.51.100.7", 4000, "10.0.0.5", 8080),
       "10.0.0.77"},
      {Tuple("2001:4860::8", 4000, "2001:db8:1::1", 80),
       Tuple("2001:4860::8", 4000, "2001:db8::5", 8080), "2001:db8::77"}};
  for (const Case& c : cases) {
    const Flow flow = Translated(c);
    const auto got =
        Through(Error(c.router, c.outside, Quote(c.outside)), flow, FlowDirection::kReply);
    ASSERT_TRUE(got.has_value());
    // Nobody outside is told the inside router's name (nor can it be reached by it).
    const std::string own = c.original.family == Family::kIpv4 ? "192.0.2.1" : "2001:db8:1::1";
    EXPECT_EQ(*got, Error(own, c.original, Quote(c.original)));
    // A router outside cannot deliver the server's answer.
    const std::string out = c.original.family == Family::kIpv4 ? "203.0.113.9" : "2001:4860::fe";
    const FlowTuple sent = Inverse(c.original);
    const FlowTuple inside = Inverse(c.outside);
    const auto back = Through(Error(out, sent, Quote(sent)), flow, FlowDirection::kOriginal);
    ASSERT_TRUE(back.has_value());
    EXPECT_EQ(*back, Error(out, inside, Quote(inside)));
  }
}

TEST_F(IcmpTranslateTest, HairpinIsTranslatedTwice) {
  const Case c{Tuple("10.0.0.2", 4000, "192.0.2.1", 80), Tuple("10.0.0.1", 4001, "10.0.0.5", 8080),
               "10.0.0.5"};
  const auto got =
      Through(Error(c.router, c.outside, Quote(c.outside)), Translated(c), FlowDirection::kReply);
  ASSERT_TRUE(got.has_value());
  EXPECT_EQ(*got, Error("192.0.2.1", c.original, Quote(c.original)));
}

// Quoted bytes end anywhere: what is there is translated, 8 bytes of L4 being the least.
TEST_F(IcmpTranslateTest, CutShortQuotes) {
  for (const Case& c : SourceCases()) {
    const Flow flow = Translated(c);
    const size_t ip = c.original.family == Family::kIpv4 ? 20 : 40;
    const size_t whole = Quote(c.outside).size();
    for (size_t size = 0; size <= whole; ++size) {
      const Bytes frame = Error(c.router, c.outside, Quote(c.outside, size));
      const auto got = Through(frame, flow, FlowDirection::kReply);
      ASSERT_EQ(got.has_value(), size >= ip + 8) << Show(c.original) << " " << size;
      if (!got) continue;
      Bytes expected_quote = Quote(c.original, size);
      if (c.original.protocol == wire::kProtocolTcp && size > ip + 16 && size < ip + 20) {
        // Part of the header is missing: like the kernel, its checksum is left.
        const Bytes outside_quote = Quote(c.outside, size);
        std::copy(outside_quote.begin() + static_cast<long>(ip) + 16, outside_quote.end(),
                  expected_quote.begin() + static_cast<long>(ip) + 16);
      }
      ASSERT_EQ(*got, Error(c.router, c.original, expected_quote))
          << Show(c.original) << " " << size;
    }
  }
}

TEST_F(IcmpTranslateTest, AllErrorTypesKeepTheirRest) {
  const Case c = SourceCases()[1];
  const Case c4 = SourceCases()[0];
  for (const uint8_t type : {1, 2, 3, 4}) {
    EXPECT_EQ(Through(Error(c.router, c.outside, Quote(c.outside), 3, type, 0x12345678),
                      Translated(c), FlowDirection::kReply),
              Error(c.router, c.original, Quote(c.original), 3, type, 0x12345678));
  }
  for (const uint8_t type : {3, 4, 11, 12}) {
    EXPECT_EQ(Through(Error(c4.router, c4.outside, Quote(c4.outside), type, 1, 0x12345678),
                      Translated(c4), FlowDirection::kReply),
              Error(c4.router, c4.original, Quote(c4.original), type, 1, 0x12345678));
  }
}

TEST_F(IcmpTranslateTest, RedirectsOfTranslatedFlowsAreDropped) {
  for (const Case& c : {SourceCases()[0], SourceCases()[1]}) {
    const Bytes frame = Error(c.router, c.outside, Quote(c.outside), 5, 137);
    EXPECT_FALSE(Through(frame, Translated(c), FlowDirection::kReply));
    const Case plain{c.original, c.original, c.router};
    const Bytes harmless = Error(c.router, c.original, Quote(c.original), 5, 137);
    EXPECT_EQ(Through(harmless, Translated(plain), FlowDirection::kReply), harmless);
    // Before both manips are decided nobody knows.
    Flow early = Translated(plain);
    early.status &= ~uint32_t{tables::kFlowSourceNatDone};
    EXPECT_FALSE(Through(harmless, early, FlowDirection::kReply));
  }
}

TEST_F(IcmpTranslateTest, AWrongChecksumIsDropped) {
  for (const Case& c : SourceCases()) {
    Bytes frame = Error(c.router, c.outside, Quote(c.outside));
    frame.back() ^= 1;
    EXPECT_FALSE(Through(frame, Translated(c), FlowDirection::kReply));
  }
}

TEST_F(IcmpTranslateTest, RestoresBeforePostrouting) {
  for (const Case& c : SourceCases()) {
    const Flow flow = Translated(c);
    const Bytes frame = Error(c.router, c.outside, Quote(c.outside));
    Packet p = Receive(frame);
    EXPECT_TRUE(RestoreOriginal(*world.arena, p, flow, FlowDirection::kReply));
    EXPECT_EQ(world.BytesOf(p), frame);
    ASSERT_TRUE(
        TranslateIcmpError(*world.arena, p, flow, FlowDirection::kReply, NatManip::kDestination)
            .is_continue());
    EXPECT_NE(world.BytesOf(p), frame);
    EXPECT_TRUE(RestoreOriginal(*world.arena, p, flow, FlowDirection::kReply));
    EXPECT_EQ(world.BytesOf(p), frame);
    world.Free(p);
  }
}

TEST_F(IcmpTranslateTest, AReplacedSenderCannotBeRestored) {
  const Case c{Tuple("198.51.100.7", 4000, "192.0.2.1", 80),
               Tuple("198.51.100.7", 4000, "10.0.0.5", 8080), "10.0.0.77"};
  const Flow flow = Translated(c);
  Packet p = Receive(Error(c.router, c.outside, Quote(c.outside)));
  ASSERT_TRUE(TranslateIcmpError(*world.arena, p, flow, FlowDirection::kReply, NatManip::kSource)
                  .is_continue());
  const Bytes translated = world.BytesOf(p);
  EXPECT_FALSE(RestoreOriginal(*world.arena, p, flow, FlowDirection::kReply));
  EXPECT_EQ(world.BytesOf(p), translated);
  world.Free(p);
}

// Quotes that Linux 6.18 translated (snat to 192.0.2.1:50000 of 10.0.0.2:4000; ICMP from
// 192.0.2.2).
TEST_F(IcmpTranslateTest, QuotesComeOutAsTheKernelsDo) {
  struct Golden {
    uint8_t protocol;
    uint16_t port;  // of 192.0.2.2
    const char* before;
    const char* after;
  };
  constexpr Golden kGolden[] = {
      {6, 81, "4500003c000100003f06f7b7c0000201c0000202 c3500051000000640000000050022000931000",
       "4500003c000100003f06afb70a000002c0000202 0fa00051000000640000000050022000931000"},
      {6, 81, "4500003c000100003f06f7b7c0000201c0000202 c350005100000064000000005002200093100000",
       "4500003c000100003f06afb70a000002c0000202 0fa00051000000640000000050022000fec00000"},
      {17, 53, "45000030000100003f11f7b8c0000201c0000202 c3500035001cf96d797979",
       "45000030000100003f11afb80a000002c0000202 0fa00035001c651e797979"},
      // SCTP's checksum is made of what there is, whether it is all or not.
      {132, 99, "45000034000100003f84f741c0000201c0000202 c350006300000000824d7e",
       "45000034000100003f84af410a000002c0000202 0fa0006300000000824d7e"},
      {132, 99, "45000034000100003f84f741c0000201c0000202 c350006300000000824d7e5b",
       "45000034000100003f84af410a000002c0000202 0fa0006300000000de20514d"},
      {132, 99, "45000034000100003f84f741c0000201c0000202 c350006300000000824d7e5b0100001400",
       "45000034000100003f84af410a000002c0000202 0fa00063000000002dba75750100001400"},
  };
  for (const Golden& g : kGolden) {
    const Case c{Tuple("10.0.0.2", 4000, "192.0.2.2", g.port, g.protocol),
                 Tuple("192.0.2.1", 50000, "192.0.2.2", g.port, g.protocol), "192.0.2.2"};
    const auto got = Through(Error(c.router, c.outside, test::FromHex(g.before)), Translated(c),
                             FlowDirection::kReply);
    ASSERT_TRUE(got.has_value());
    EXPECT_EQ(test::ToHex(*got), test::ToHex(Error(c.router, c.original, test::FromHex(g.after))));
  }
}

// A chain of pieces may end in the middle of the quoted header; that is nothing a network does.
TEST_F(IcmpTranslateTest, HeadersOverTwoPiecesAreDropped) {
  const Case c = SourceCases()[0];
  const Bytes frame = Error(c.router, c.outside, Quote(c.outside));
  EXPECT_FALSE(Through(frame, Translated(c), FlowDirection::kReply, 14 + 20 + 8 + 20 + 10));
  EXPECT_FALSE(Through(frame, Translated(c), FlowDirection::kReply, 14 + 20 + 8 + 10));
}

// Whatever is in an error: no read outside, and a drop or a packet of the same length.
TEST_F(IcmpTranslateTest, RandomBytes) {
  Rng rng(5);
  for (int round = 0; round < 20'000; ++round) {
    const auto cases = SourceCases();
    const Case& c = cases[rng.Below(cases.size())];
    Bytes quote = Quote(c.outside);
    for (int i = 0; i < 4; ++i) quote[rng.Below(60)] = static_cast<uint8_t>(rng.Next());
    quote.resize(rng.Below(quote.size() + 1));
    const Bytes frame = Error(c.router, c.outside, quote);
    const auto got = Through(frame, Translated(c), FlowDirection::kReply);
    if (got) {
      EXPECT_EQ(got->size(), frame.size());
    }
  }
}

}  // namespace
}  // namespace sluice::stages
