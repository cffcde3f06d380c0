// Each load and comparison on hand-made packets, in both families: what matches, what does not, and
// when evaluation breaks off (nft_payload.c, nft_meta.c, nft_ct.c, nft_exthdr.c, nft_fib*.c,
// nft_rt.c, nft_bitwise.c, nft_byteorder.c, nft_hash.c, nft_numgen.c).
#include <gtest/gtest.h>

#include "stages/filter/jhash.h"
#include "support/filter_world.h"

namespace sluice::test {
namespace {

using namespace tables;  // NOLINT: the keys

class FilterMatchTest : public ::testing::Test {
 protected:
  // Whether a rule of these expressions matches the packet that is loaded.
  bool Matches(Exprs exprs, HookPoint hook = HookPoint::kForward) {
    return Ask(std::move(exprs), hook) == Kind::kDrop;
  }
  Kind Ask(Exprs exprs, HookPoint hook = HookPoint::kForward) {
    RulesetModel m(nft::TableFamily::kInet);
    m.Base("forward", 2).Rule(exprs + Exprs{Drop()});
    m.Base("prerouting", 0, 0).Rule(exprs + Exprs{Drop()});
    w_.Use(m);
    return w_.Run(hook).kind;
  }
  // What an expression loads, by trying it.
  bool Loads(const nft::Expr& load, nft::Bytes value, HookPoint hook = HookPoint::kForward) {
    return Matches({load, Cmp(kEq, std::move(value))}, hook);
  }
  bool Breaks(const nft::Expr& load, size_t length) {
    return !Matches({load, Cmp(kGte, nft::Bytes(length, 0))});
  }
  Route UnicastRoute(uint32_t oif, uint8_t slot, const char* gateway = nullptr) {
    Route route;
    Path path;
    path.oif = IfIndex{oif};
    path.slot = IfaceSlot{slot};
    if (gateway != nullptr) {
      path.has_gateway = true;
      path.gateway = *ParseIpAddress(gateway);
    }
    route.paths.push_back(path);
    return route;
  }
  RouteId AddRoute(const char* prefix, const Route& route) {
    const RouteId id = *w_.routes.Intern(route);
    if (const auto v4 = ParseIpv4Prefix(prefix)) {
      EXPECT_TRUE(w_.fib4.Insert(*v4, id).ok());
    } else {
      EXPECT_TRUE(w_.fib6.Insert(*ParseIpv6Prefix(prefix), id).ok());
    }
    return id;
  }

  FilterWorld w_;
};

TEST_F(FilterMatchTest, PayloadOfEachHeader) {
  w_.Load(FilterWorld::Tcp4("10.1.2.3", "10.4.5.6", 1234, 443));
  EXPECT_TRUE(Loads(Payload(kLink, 0, 6), {2, 0, 0, 0, 0, 1}));
  EXPECT_TRUE(Loads(Payload(kLink, 12, 2), {8, 0}));
  EXPECT_TRUE(Loads(Payload(kNetwork, 12, 4), Addr("10.1.2.3")));
  EXPECT_TRUE(Loads(Payload(kNetwork, 12, 3), {10, 1, 2}));
  EXPECT_TRUE(Loads(Payload(kNetwork, 9, 1), {6}));
  EXPECT_TRUE(Loads(Payload(kTransport, 0, 4), {4, 210, 1, 187}));
  EXPECT_TRUE(Loads(Payload(kNetwork, 12, 8), Join({Addr("10.1.2.3"), Addr("10.4.5.6")})));
  EXPECT_FALSE(Loads(Payload(kTransport, 2, 2), Net16(444)));
  w_.Load(FilterWorld::Tcp6("2001:db8::1", "2001:db8::2", 1, 443));
  EXPECT_TRUE(Loads(Payload(kNetwork, 8, 16), Addr("2001:db8::1")));
  EXPECT_TRUE(Loads(Payload(kNetwork, 24, 16), Addr("2001:db8::2")));
  EXPECT_TRUE(Loads(Payload(kTransport, 2, 2), Net16(443)));
}

TEST_F(FilterMatchTest, PayloadBeyondThePacketBreaks) {
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Udp(1, 2).Build());
  EXPECT_FALSE(Breaks(Payload(kTransport, 4, 4), 4));
  EXPECT_TRUE(Breaks(Payload(kTransport, 8, 1), 1));
  EXPECT_TRUE(Breaks(Payload(kTransport, 6, 4), 4));
  EXPECT_TRUE(Breaks(Payload(kNetwork, 20, 9), 9));
  w_.in_known = false;  // our own packets have no link layer yet
  EXPECT_TRUE(Breaks(Payload(kLink, 0, 6), 6));
}

TEST_F(FilterMatchTest, PayloadBehindTheTransportHeader) {
  constexpr uint8_t kInner = 3;
  const Bytes data = {0x41, 0x42, 0x43, 0x44};
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Udp(1, 2).Payload(data).Build());
  EXPECT_TRUE(Loads(Payload(kInner, 0, 4), data));
  EXPECT_TRUE(Loads(Payload(kInner, 1, 1), {0x42}));
  EXPECT_TRUE(Breaks(Payload(kInner, 2, 4), 4));
  w_.Load(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").Tcp(1, 2).Options({1, 1, 1, 1})
              .Payload(data).Build());
  EXPECT_TRUE(Loads(Payload(kInner, 0, 4), data)) << "behind options";
  for (const auto& [flags, header] : {std::pair{0x00, 4}, {0x20, 8}, {0xb0, 16}}) {
    Bytes gre(static_cast<size_t>(header), 0);
    gre[0] = static_cast<uint8_t>(flags);
    gre.insert(gre.end(), data.begin(), data.end());
    w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Protocol(47).Payload(gre).Build());
    EXPECT_TRUE(Loads(Payload(kInner, 0, 4), data)) << flags;
    gre[1] = 1;  // PPTP's
    w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Protocol(47).Payload(gre).Build());
    EXPECT_TRUE(Breaks(Payload(kInner, 0, 4), 4));
  }
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Protocol(4).Payload(data).Build());
  EXPECT_TRUE(Loads(Payload(kInner, 0, 4), data));
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Protocol(99).Payload(data).Build());
  EXPECT_TRUE(Breaks(Payload(kInner, 0, 4), 4));
}

TEST_F(FilterMatchTest, LaterFragmentsHaveNoTransportHeader) {
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").FragmentOffset(64).Protocol(17)
              .Payload(40).Build());
  EXPECT_TRUE(Breaks(Payload(kTransport, 0, 2), 2));
  EXPECT_TRUE(Loads(Meta(kMetaL4Proto), {17}));
  w_.Load(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").Fragment(64, false, 1).Protocol(17)
              .Payload(40).Build());
  EXPECT_TRUE(Breaks(Payload(kTransport, 0, 2), 2));
  EXPECT_TRUE(Loads(Meta(kMetaL4Proto), {17}));
}

TEST_F(FilterMatchTest, TransportBehindExtensionHeaders) {
  w_.Load(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").HopByHop().DestinationOptions()
              .Udp(5, 6).Build());
  EXPECT_TRUE(Loads(Payload(kTransport, 2, 2), Net16(6)));
  EXPECT_TRUE(Loads(Meta(kMetaL4Proto), {17}));
}

TEST_F(FilterMatchTest, Comparisons) {
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 2000));
  const nft::Expr port = Payload(kTransport, 2, 2);
  const struct {
    uint8_t op;
    bool below, same, above;  // the packet's value is below, ... the constant
  } kCases[] = {{kEq, false, true, false}, {kNeq, true, false, true}, {kLt, true, false, false},
                {kLte, true, true, false}, {kGt, false, false, true}, {kGte, false, true, true}};
  for (const auto& c : kCases) {
    EXPECT_EQ(Matches({port, Cmp(c.op, Net16(2001))}), c.below) << int{c.op};
    EXPECT_EQ(Matches({port, Cmp(c.op, Net16(2000))}), c.same) << int{c.op};
    EXPECT_EQ(Matches({port, Cmp(c.op, Net16(1999))}), c.above) << int{c.op};
    // The same where nothing is fused: a value used twice, and a long one.
    EXPECT_EQ(Matches({port, Cmp(c.op, Net16(2001)), Cmp(kNeq, Net16(7))}), c.below);
    EXPECT_EQ(Matches({port, Cmp(c.op, Net16(1999)), And({255, 255}), Cmp(kNeq, {0, 0})}),
              c.above);
    EXPECT_EQ(Matches({Payload(kNetwork, 12, 8), Cmp(c.op, Join({Addr("10.0.0.1"), Addr("10.0.0.3")}))}),
              c.below);
  }
  EXPECT_TRUE(Matches({port, Range(0, Net16(2000), Net16(2005))}));
  EXPECT_FALSE(Matches({port, Range(0, Net16(2001), Net16(2005))}));
  EXPECT_TRUE(Matches({port, Range(1, Net16(2001), Net16(2005))}));
  EXPECT_FALSE(Matches({port, Range(1, Net16(1000), Net16(2000))}));
  EXPECT_TRUE(Matches({port, Cmp(kGte, Net16(1999)), Cmp(kLte, Net16(2000))}));
  EXPECT_FALSE(Matches({port, Cmp(kGt, Net16(2000)), Cmp(kLt, Net16(3000))}));
  EXPECT_FALSE(Matches({port, Cmp(kLt, Net16(0))}));
  EXPECT_FALSE(Matches({port, Cmp(kGt, Net16(0xffff))}));
}

TEST_F(FilterMatchTest, BitwiseShiftAndByteorder) {
  w_.Load(FilterWorld::Ethernet().Ipv4("10.1.2.3", "2.2.2.2").Tos(0xb8).Tcp(1, 2, 0x12).Build());
  const auto bitwise = [](uint8_t op, uint32_t length, nft::Bytes mask, nft::Bytes flip,
                          uint32_t shift) {
    nft::BitwiseExpr e;
    e.op = op;
    e.length = length;
    e.mask = std::move(mask);
    e.xor_value = std::move(flip);
    e.shift = shift;
    return nft::Expr(e);
  };
  EXPECT_TRUE(Matches({Payload(kNetwork, 12, 4), And(Addr("255.255.0.0")), Cmp(kEq, Addr("10.1.0.0"))}));
  EXPECT_FALSE(Matches({Payload(kNetwork, 12, 4), And(Addr("255.255.0.0")), Cmp(kNeq, Addr("10.1.0.0"))}));
  EXPECT_TRUE(Matches({Payload(kTransport, 13, 1), bitwise(0, 1, {0xff}, {0x10}, 0), Cmp(kEq, {0x02})}));
  // `ip dscp ef`: the byte, its upper six bits, shifted down.
  EXPECT_TRUE(Matches({Payload(kNetwork, 1, 1), And({0xfc}), bitwise(2, 1, {}, {}, 2), Cmp(kEq, {46})}));
  EXPECT_TRUE(Matches({Payload(kNetwork, 1, 1), bitwise(1, 4, {}, {}, 8), Cmp(kEq, {0, 0xb8, 0, 0})}));
  nft::ByteorderExpr order;
  order.length = 4;
  order.size = 4;
  EXPECT_TRUE(Matches({Payload(kNetwork, 12, 4), order, Cmp(kEq, {3, 2, 1, 10})}));
  order.size = 2;
  EXPECT_TRUE(Matches({Payload(kNetwork, 12, 4), order, Cmp(kEq, {1, 10, 3, 2})}));
}

TEST_F(FilterMatchTest, Meta) {
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));
  w_.p.mark = 0x1234;
  EXPECT_TRUE(Loads(Meta(kMetaLength), Host32(60)));
  EXPECT_TRUE(Loads(Meta(kMetaProtocol), {8, 0}));
  EXPECT_TRUE(Loads(Meta(kMetaMark), Host32(0x1234)));
  EXPECT_TRUE(Loads(Meta(kMetaIif), Host32(3)));
  EXPECT_TRUE(Loads(Meta(kMetaOif), Host32(4)));
  EXPECT_TRUE(Loads(Meta(kMetaIifName), Name("lan0")));
  EXPECT_TRUE(Loads(Meta(kMetaOifName), Name("wan0")));
  EXPECT_TRUE(Loads(Meta(kMetaIifName), {'l', 'a'}));  // lan*, as nft writes "la*"
  EXPECT_FALSE(Loads(Meta(kMetaIifName), Name("la")));
  EXPECT_TRUE(Loads(Meta(kMetaIifType), {1, 0}));
  EXPECT_TRUE(Loads(Meta(kMetaOifType), {1, 0}));
  EXPECT_TRUE(Loads(Meta(kMetaNfProto), {2}));
  EXPECT_TRUE(Loads(Meta(kMetaL4Proto), {6}));
  EXPECT_TRUE(Loads(Meta(kMetaPktType), {0}));
  EXPECT_TRUE(Loads(Meta(kMetaCpu), Host32(0)));
  EXPECT_TRUE(Loads(Meta(kMetaSecPath), {0}));
  EXPECT_FALSE(Breaks(Meta(kMetaRandom), 4));
  for (const uint32_t key : {kMetaSkUid, kMetaSkGid, kMetaCgroup}) {
    EXPECT_TRUE(Breaks(Meta(key), 4)) << key;
  }
  for (const uint32_t key : {kMetaRtClassId, kMetaSecMark, kMetaIifGroup, kMetaIifKind}) {
    EXPECT_EQ(Ask({Meta(key), Cmp(kEq, Host32(0))}), Kind::kKernel) << key;
    EXPECT_EQ(w_.ruleset->unsupported().size(), 2u);
  }
  w_.out_known = false;
  EXPECT_TRUE(Loads(Meta(kMetaOifName), Name("")));
  EXPECT_TRUE(Loads(Meta(kMetaOif), Host32(0)));
  EXPECT_TRUE(Breaks(Meta(kMetaOifType), 2));
}

TEST_F(FilterMatchTest, MetaOfIpv6AndLinkLayerGroups) {
  w_.Load(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2));
  EXPECT_TRUE(Loads(Meta(kMetaProtocol), {0x86, 0xdd}));
  EXPECT_TRUE(Loads(Meta(kMetaNfProto), {10}));
  EXPECT_TRUE(Loads(Meta(kMetaLength), Host32(80)));
  w_.Load(PacketBuilder().Ethernet("02:00:00:00:00:99", "ff:ff:ff:ff:ff:ff").Ipv4("1.1.1.1", "1.1.1.255")
              .Udp(1, 2).Build());
  EXPECT_TRUE(Loads(Meta(kMetaPktType), {1}));
  w_.Load(PacketBuilder().Ethernet("02:00:00:00:00:99", "01:00:5e:00:00:01").Ipv4("1.1.1.1", "224.0.0.1")
              .Udp(1, 2).Build());
  EXPECT_TRUE(Loads(Meta(kMetaPktType), {2}));
}

TEST_F(FilterMatchTest, PriorityComesFromTheTypeOfServiceWhenForwarded) {
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Tos(0x10).Udp(1, 2).Build());
  EXPECT_TRUE(Loads(Meta(kMetaPriority), Host32(6)));
  EXPECT_TRUE(Loads(Meta(kMetaPriority), Host32(0), HookPoint::kPreroutingLate));
  // The traffic class of IPv6 says nothing of the kind (ip6_forward has no such step).
  w_.Load(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").Tos(0x10).Udp(1, 2).Build());
  EXPECT_TRUE(Loads(Meta(kMetaPriority), Host32(0)));
}

TEST_F(FilterMatchTest, TimeOfDay) {
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));
  EXPECT_EQ(Ask({Meta(kMetaHour), Cmp(kGte, Host32(0))}), Kind::kKernel);  // no clock: it has one
  // Sunday, 2026-11-22 10:00:00 UTC.
  const int64_t wall = 1795341600;
  w_.wall_offset = Seconds(wall) - w_.now;
  EXPECT_TRUE(Loads(Meta(kMetaHour), Host32(36000)));
  EXPECT_TRUE(Loads(Meta(kMetaDay), {0}));
  nft::Bytes ns(8);
  const int64_t value = wall * 1'000'000'000;
  std::memcpy(ns.data(), &value, 8);
  EXPECT_TRUE(Loads(Meta(kMetaTime), ns));
}

TEST_F(FilterMatchTest, ConnectionStates) {
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));
  const std::pair<CtState, uint32_t> kStates[] = {
      {CtState::kNone, 1},        {CtState::kInvalid, 1}, {CtState::kEstablished, 2},
      {CtState::kRelated, 4},     {CtState::kNew, 8},     {CtState::kUntracked, 64}};
  for (const auto& [state, bit] : kStates) {
    w_.p.ct_state = static_cast<uint8_t>(state);
    EXPECT_TRUE(Loads(Ct(kCtState), Host32(bit)));
    EXPECT_EQ(Matches({Ct(kCtState), And(Host32(6)), Cmp(kNeq, Host32(0))}), (bit & 6) != 0);
  }
}

TEST_F(FilterMatchTest, ConnectionTuplesAndCounts) {
  Flow flow{};
  FlowTuple& original = flow.tuple(FlowDirection::kOriginal);
  original.source.lo = ParseIpv4("10.0.0.1")->value;
  original.destination.lo = ParseIpv4("8.8.8.8")->value;
  original.source_port = 1234;
  original.destination_port = 53;
  original.protocol = 17;
  FlowTuple& reply = flow.tuple(FlowDirection::kReply);
  reply.source = original.destination;
  reply.destination.lo = ParseIpv4("192.0.2.1")->value;
  reply.source_port = 53;
  reply.destination_port = 4000;
  reply.protocol = 17;
  flow.status = kFlowConfirmed | kFlowSourceNat | kFlowMasquerade;
  flow.mark = 77;
  flow.expires = w_.now + Millis(1500);
  flow.count(FlowDirection::kOriginal) = {3, 300};
  flow.count(FlowDirection::kReply) = {1, 500};
  w_.Load(FilterWorld::Udp4("10.0.0.1", "8.8.8.8", 1234, 53));
  EXPECT_TRUE(Breaks(Ct(kCtStatus), 4));  // untracked
  EXPECT_TRUE(Breaks(Ct(kCtMark), 4));
  w_.flow = &flow;
  w_.p.ct_direction = 1;
  EXPECT_TRUE(Loads(Ct(kCtDirection), {1}));
  EXPECT_TRUE(Loads(Ct(kCtStatus), Host32(kFlowConfirmed | kFlowSourceNat)));
  EXPECT_TRUE(Loads(Ct(kCtMark), Host32(77)));
  EXPECT_TRUE(Loads(Ct(kCtExpiration), Host32(1500)));
  flow.status &= ~uint32_t{kFlowConfirmed};
  EXPECT_TRUE(Loads(Ct(kCtExpiration), Host32(0))) << "as the kernel says of a first packet";
  flow.status |= kFlowConfirmed;
  EXPECT_TRUE(Loads(Ct(kCtL3Protocol), {2}));
  EXPECT_TRUE(Loads(Ct(kCtProtocol), {17}));
  EXPECT_TRUE(Loads(Ct(kCtSourceIp, 0, 0), Addr("10.0.0.1")));
  EXPECT_TRUE(Loads(Ct(kCtDestinationIp, 0, 1), Addr("192.0.2.1")));
  EXPECT_TRUE(Breaks(Ct(kCtSourceIp6, 0, 0), 16));
  EXPECT_TRUE(Loads(Ct(kCtProtoSource, 0, 0), Net16(1234)));
  EXPECT_TRUE(Loads(Ct(kCtProtoDestination, 0, 1), Net16(4000)));
  EXPECT_TRUE(Loads(Ct(kCtZone), {0, 0}));
  const auto eight = [](uint64_t v) {
    nft::Bytes b(8);
    std::memcpy(b.data(), &v, 8);
    return b;
  };
  EXPECT_TRUE(Loads(Ct(kCtPackets, 0, 0), eight(3)));
  EXPECT_TRUE(Loads(Ct(kCtPackets), eight(4)));
  EXPECT_TRUE(Loads(Ct(kCtBytes, 0, 1), eight(500)));
  EXPECT_TRUE(Loads(Ct(kCtAveragePacket), eight(200)));
  for (const uint32_t key : {kCtHelper, kCtLabels, kCtSecMark}) {
    EXPECT_EQ(Ask({Ct(key), Cmp(kEq, Host32(0))}), Kind::kKernel);
  }
}

TEST_F(FilterMatchTest, Ipv6ExtensionHeaders) {
  const auto exthdr = [](uint8_t type, uint32_t offset, uint32_t length, uint32_t flags) {
    nft::ExthdrExpr e;
    e.dreg = 0;
    e.type = type;
    e.offset = offset;
    e.length = length;
    e.flags = flags;
    return nft::Expr(e);
  };
  w_.Load(FilterWorld::Ethernet().Ipv6("fd00::1", "fd00::2").HopByHop().Fragment(0, true, 7)
              .Udp(1, 2).Build());
  EXPECT_TRUE(Loads(exthdr(0, 0, 1, 1), {1}));   // hop-by-hop exists
  EXPECT_TRUE(Loads(exthdr(43, 0, 1, 1), {0}));  // no routing header
  EXPECT_TRUE(Loads(exthdr(44, 4, 4, 0), {0, 0, 0, 7}));
  EXPECT_TRUE(Breaks(exthdr(60, 0, 1, 0), 1));
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));
  EXPECT_FALSE(Loads(exthdr(44, 0, 1, 1), {0}));  // not IPv6: break, not "missing"
}

TEST_F(FilterMatchTest, TcpAndIpv4Options) {
  const auto option = [](uint8_t op, uint8_t type, uint32_t offset, uint32_t length, bool present) {
    nft::ExthdrExpr e;
    e.dreg = 0;
    e.op = op;
    e.type = type;
    e.offset = offset;
    e.length = length;
    e.flags = present ? 1 : 0;
    return nft::Expr(e);
  };
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Tcp(1, 2, 2)
              .Options({1, 2, 4, 5, 180, 3, 3, 7}).Build());
  EXPECT_TRUE(Loads(option(1, 2, 2, 2, false), Net16(1460)));
  EXPECT_TRUE(Loads(option(1, 3, 2, 1, false), {7}));
  EXPECT_TRUE(Loads(option(1, 2, 0, 1, true), {1}));
  EXPECT_TRUE(Loads(option(1, 8, 0, 1, true), {0}));
  EXPECT_TRUE(Breaks(option(1, 8, 2, 4, false), 4));
  EXPECT_TRUE(Breaks(option(1, 3, 2, 2, false), 2));  // longer than the option
  w_.Load(FilterWorld::Udp4("1.1.1.1", "2.2.2.2", 1, 2));
  EXPECT_TRUE(Breaks(option(1, 2, 2, 2, false), 2));
  // Record route: type, length, pointer, room for one address.
  w_.Load(FilterWorld::Ethernet().Ipv4("1.1.1.1", "2.2.2.2").Options({7, 7, 4, 0, 0, 0, 0})
              .Udp(1, 2).Build());
  EXPECT_TRUE(Loads(option(2, 7, 0, 1, true), {1}));
  EXPECT_TRUE(Loads(option(2, 7, 1, 1, false), {7}));
  EXPECT_TRUE(Loads(option(2, 148, 0, 1, true), {0}));
  EXPECT_TRUE(Breaks(option(2, 148, 0, 1, false), 1));
}

TEST_F(FilterMatchTest, FibReversePath) {
  AddRoute("10.0.0.0/24", UnicastRoute(3, 0));
  AddRoute("0.0.0.0/0", UnicastRoute(4, 1, "192.0.2.1"));
  Route blackhole;
  blackhole.type = RouteType::kBlackhole;
  AddRoute("10.9.0.0/16", blackhole);
  constexpr uint32_t kSaddrIif = 1 | 8;
  const auto fib = [](uint32_t result, uint32_t flags) {
    nft::FibExpr e;
    e.result = result;
    e.flags = flags;
    return nft::Expr(e);
  };
  w_.Load(FilterWorld::Udp4("10.0.0.5", "8.8.8.8", 1, 2));
  EXPECT_TRUE(Loads(fib(1, kSaddrIif), Host32(3), HookPoint::kPreroutingLate));
  EXPECT_TRUE(Loads(fib(1, kSaddrIif | 32), {1}, HookPoint::kPreroutingLate));
  EXPECT_TRUE(Loads(fib(2, kSaddrIif), Name("lan0"), HookPoint::kPreroutingLate));
  EXPECT_TRUE(Loads(fib(1, 2), Host32(4), HookPoint::kPreroutingLate));  // where it would go
  w_.Load(FilterWorld::Udp4("1.2.3.4", "8.8.8.8", 1, 2));  // from the wrong side
  EXPECT_TRUE(Loads(fib(1, kSaddrIif), Host32(0), HookPoint::kPreroutingLate));
  EXPECT_TRUE(Loads(fib(1, kSaddrIif | 32), {0}, HookPoint::kPreroutingLate));
  EXPECT_TRUE(Loads(fib(1, 1), Host32(4), HookPoint::kPreroutingLate));  // any interface
  w_.Load(FilterWorld::Udp4("10.9.1.1", "8.8.8.8", 1, 2));
  EXPECT_TRUE(Loads(fib(1, 1), Host32(0), HookPoint::kPreroutingLate));
}

TEST_F(FilterMatchTest, FibReversePath6) {
  AddRoute("fd00::/64", UnicastRoute(3, 0));
  AddRoute("::/0", UnicastRoute(4, 1, "fd01::1"));
  nft::FibExpr fib;
  fib.result = 1;
  fib.flags = 1 | 8;
  w_.Load(FilterWorld::Tcp6("fd00::5", "2001:db8::1", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(3), HookPoint::kPreroutingLate));
  w_.Load(FilterWorld::Tcp6("2001:db8::9", "2001:db8::1", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(0), HookPoint::kPreroutingLate));
  w_.Load(FilterWorld::Tcp6("fe80::5", "2001:db8::1", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(3), HookPoint::kPreroutingLate));
}

TEST_F(FilterMatchTest, FibAddressType) {
  Route local;
  local.type = RouteType::kLocal;
  AddRoute("10.0.0.1/32", local);
  AddRoute("fd00::1/128", local);
  AddRoute("10.0.0.0/24", UnicastRoute(3, 0));
  AddRoute("fd00::/64", UnicastRoute(3, 0));
  Ipv4InterfaceAddress own;
  own.address = *ParseIpv4("10.0.0.1");
  own.prefix_length = 24;
  w_.snapshot.interfaces[0].addresses4.push_back(own);
  nft::FibExpr fib;
  fib.result = 3;
  fib.flags = 2;  // daddr
  const auto type = [&](const char* to) {
    w_.Load(FilterWorld::Udp4("10.0.0.9", to, 1, 2));
    for (uint32_t t = 0; t < 12; ++t) {
      if (Loads(fib, Host32(t), HookPoint::kPreroutingLate)) return t;
    }
    return 99u;
  };
  EXPECT_EQ(type("10.0.0.1"), 2u);
  EXPECT_EQ(type("10.0.0.7"), 1u);
  EXPECT_EQ(type("99.0.0.7"), 1u);
  EXPECT_EQ(type("224.0.0.7"), 5u);
  EXPECT_EQ(type("255.255.255.255"), 3u);
  fib.flags = 2 | 8;  // of the arrival interface
  EXPECT_EQ(type("10.0.0.1"), 2u);
  w_.snapshot.interfaces[0].addresses4.clear();
  EXPECT_EQ(type("10.0.0.1"), 1u);
  fib.flags = 2;
  w_.Load(FilterWorld::Tcp6("fd00::9", "fd00::1", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(2), HookPoint::kPreroutingLate));
  w_.Load(FilterWorld::Tcp6("fd00::9", "fd00::2", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(1), HookPoint::kPreroutingLate));
  w_.Load(FilterWorld::Tcp6("fd00::9", "2001:db8::2", 1, 2));
  EXPECT_TRUE(Loads(fib, Host32(7), HookPoint::kPreroutingLate));  // unreachable
}

TEST_F(FilterMatchTest, RouteNextHopAndMss) {
  AddRoute("10.0.0.0/24", UnicastRoute(3, 0));
  const RouteId out = AddRoute("0.0.0.0/0", UnicastRoute(4, 1, "192.0.2.1"));
  const auto rt = [](uint32_t key) {
    nft::RtExpr e;
    e.key = key;
    return nft::Expr(e);
  };
  w_.Load(FilterWorld::Tcp4("10.0.0.5", "8.8.8.8", 1, 2));
  EXPECT_TRUE(Breaks(rt(1), 4));  // not routed yet
  w_.p.route_id = out.value;
  w_.p.out = IfaceSlot{1};
  EXPECT_TRUE(Loads(rt(1), Addr("192.0.2.1")));
  EXPECT_TRUE(Breaks(rt(2), 16));
  EXPECT_TRUE(Loads(rt(3), Host32(1400 - 40)));  // the smaller of both ways
  EXPECT_EQ(Ask({rt(0), Cmp(kEq, Host32(0))}), Kind::kKernel);
  const RouteId out6 = AddRoute("::/0", UnicastRoute(4, 1, "fd01::1"));
  w_.Load(FilterWorld::Tcp6("fd00::5", "2001:db8::8", 1, 2));
  w_.p.route_id = out6.value;
  w_.p.out = IfaceSlot{1};
  EXPECT_TRUE(Loads(rt(2), Addr("fd01::1")));
  EXPECT_TRUE(Loads(rt(3), Host32(1400 - 60)));
}

TEST_F(FilterMatchTest, HashesAndNumbers) {
  // Values of the kernel's jhash, from `jhash ip saddr mod 1000 seed 0x...` would need its output;
  // these are lookup3's own published ones.
  EXPECT_EQ(stages::Jhash({}, 0), 0xdeadbeef);
  EXPECT_EQ(stages::Jhash({}, 0xdeadbeef), 0xbd5b7dde);
  const char* const kText = "Four score and seven years ago";
  const auto* bytes = reinterpret_cast<const uint8_t*>(kText);
  EXPECT_EQ(stages::Jhash({bytes, 30}, 0), 0x17770551u);
  EXPECT_EQ(stages::Jhash({bytes, 30}, 1), 0xcd628161u);

  nft::HashExpr hash;
  hash.sreg = 0;
  hash.dreg = 4;
  hash.length = 4;
  hash.modulus = 8;
  hash.seed = 5;
  hash.offset = 100;
  w_.Load(FilterWorld::Udp4("10.0.0.5", "8.8.8.8", 1, 2));
  const nft::Bytes key = Addr("10.0.0.5");
  const uint32_t expected = static_cast<uint32_t>(uint64_t{stages::Jhash(key, 5)} * 8 >> 32) + 100;
  EXPECT_TRUE(Matches({Payload(kNetwork, 12, 4), hash, Cmp(kEq, Host32(expected), 4)}));

  nft::NumgenExpr numgen;
  numgen.modulus = 3;
  numgen.offset = 10;
  RulesetModel m;
  m.Base("forward", 2).Rule({numgen, Cmp(kEq, Host32(11)), Drop()});
  w_.Use(m);
  std::string verdicts;
  for (int i = 0; i < 6; ++i) verdicts += w_.Run().kind == Kind::kDrop ? 'd' : '-';
  EXPECT_EQ(verdicts, "-d--d-");
  numgen.type = 1;
  m = RulesetModel();
  m.Base("forward", 2).Rule({numgen, Cmp(kEq, Host32(11)), Drop()});
  w_.Use(m);
  int drops = 0;
  for (int i = 0; i < 3000; ++i) drops += w_.Run().kind == Kind::kDrop ? 1 : 0;
  EXPECT_GT(drops, 800);
  EXPECT_LT(drops, 1200);
}

TEST_F(FilterMatchTest, SymmetricHashesAreSymmetric) {
  nft::HashExpr hash;
  hash.type = 1;
  hash.modulus = 1u << 20;
  RulesetModel m;
  m.Base("forward", 2).Rule({hash, MetaSet(kMetaMark)});
  w_.Use(m);
  w_.Run(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1000, 2000));
  const uint32_t there = w_.p.mark;
  w_.Run(FilterWorld::Tcp4("10.0.0.2", "10.0.0.1", 2000, 1000));
  EXPECT_EQ(w_.p.mark, there);
  w_.Run(FilterWorld::Tcp4("10.0.0.2", "10.0.0.1", 2000, 1001));
  EXPECT_NE(w_.p.mark, there);
}

}  // namespace
}  // namespace sluice::test
