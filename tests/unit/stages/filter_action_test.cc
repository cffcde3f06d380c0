// Statements that act: reject, NAT, log, and those that change packets and marks.
#include <gtest/gtest.h>

#include "support/filter_world.h"

namespace sluice::test {
namespace {

using stages::RejectKind;
using tables::NatKind;

nft::Expr SetPayload(uint8_t base, uint32_t offset, uint32_t length, uint8_t csum_type = 0,
                     uint32_t csum_offset = 0, uint32_t csum_flags = 0) {
  nft::PayloadExpr e;
  e.base = base;
  e.offset = offset;
  e.length = length;
  e.sreg = 0;
  e.csum_type = csum_type;
  e.csum_offset = csum_offset;
  e.csum_flags = csum_flags;
  return e;
}

class FilterActionTest : public ::testing::Test {
 protected:
  FilterVerdict Do(Exprs exprs, HookPoint hook = HookPoint::kForward) {
    RulesetModel m(nft::TableFamily::kInet);
    m.Base("forward", 2).Rule(exprs);
    m.Base("nat", 4, 100, 1, "nat").Rule(exprs);
    w_.Use(m);
    return w_.Run(hook);
  }
  FilterVerdict Reject(uint32_t type, uint8_t code) { return Do({nft::RejectExpr{type, code}}); }

  FilterWorld w_;
};

TEST_F(FilterActionTest, RejectIsResolvedForTheFamily) {
  const struct {
    uint32_t type;
    uint8_t code;
    RejectKind kind4;
    uint8_t code4;
    RejectKind kind6;
    uint8_t code6;
  } kCases[] = {{0, 3, RejectKind::kIcmp, 3, RejectKind::kIcmpv6, 3},
                {1, 0, RejectKind::kTcpReset, 0, RejectKind::kTcpReset, 0},
                {2, 0, RejectKind::kIcmp, 0, RejectKind::kIcmpv6, 0},
                {2, 1, RejectKind::kIcmp, 3, RejectKind::kIcmpv6, 4},
                {2, 2, RejectKind::kIcmp, 1, RejectKind::kIcmpv6, 3},
                {2, 3, RejectKind::kIcmp, 13, RejectKind::kIcmpv6, 1}};
  for (const auto& c : kCases) {
    w_.Load(FilterWorld::Tcp4("10.0.0.1", "10.0.0.2", 1, 2));
    FilterVerdict v = Reject(c.type, c.code);
    EXPECT_EQ(v.kind, Kind::kReject);
    EXPECT_EQ(v.reject, c.kind4);
    EXPECT_EQ(v.reject_code, c.code4);
    EXPECT_EQ(v.rule, 0u);
    w_.Load(FilterWorld::Tcp6("fd00::1", "fd00::2", 1, 2));
    v = Reject(c.type, c.code);
    EXPECT_EQ(v.reject, c.kind6);
    EXPECT_EQ(v.reject_code, c.code6);
  }
  w_.Load(FilterWorld::Udp4("10.0.0.1", "10.0.0.2", 1, 2));
  EXPECT_EQ(Reject(1, 0).kind, Kind::kDrop);  // nothing to reset
}

TEST_F(FilterActionTest, SourceNatTakesItsRangeFromRegisters) {
  nft::NatExpr nat;
  nat.family = 2;
  nat.addr_min = 0;
  nat.addr_max = 4;
  nat.proto_min = 8;
  nat.proto_max = 9;
  nat.flags = 4;
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2));
  const Exprs exprs = {Set(Addr("192.0.2.1")), Set(Addr("192.0.2.9"), 4), Set(Net16(1000), 8),
                       Set(Net16(2000), 9), nat};
  const FilterVerdict v = Do(exprs, HookPoint::kPostroutingNat);
  ASSERT_EQ(v.kind, Kind::kNat);
  EXPECT_EQ(v.nat.kind, NatKind::kSource);
  EXPECT_EQ(v.nat.flags, tables::kNatRandom | tables::kNatMapAddresses | tables::kNatPortsGiven);
  EXPECT_EQ(v.nat.min_address, IpAddress(*ParseIpv4("192.0.2.1")));
  EXPECT_EQ(v.nat.max_address, IpAddress(*ParseIpv4("192.0.2.9")));
  EXPECT_EQ(v.nat.min_port, 1000);
  EXPECT_EQ(v.nat.max_port, 2000);
  w_.Load(FilterWorld::Tcp6("fd00::1", "2001:db8::8", 1, 2));  // of the other family: goes on
  EXPECT_EQ(Do(exprs, HookPoint::kPostroutingNat).kind, Kind::kAccept);
}

TEST_F(FilterActionTest, DestinationNatOfIpv6AndPortsOnly) {
  nft::NatExpr nat;
  nat.destination = true;
  nat.family = 10;
  nat.addr_min = 0;
  w_.Load(FilterWorld::Tcp6("fd00::1", "2001:db8::8", 1, 2));
  FilterVerdict v = Do({Set(Addr("fd00::80")), nat}, HookPoint::kPostroutingNat);
  ASSERT_EQ(v.kind, Kind::kNat);
  EXPECT_EQ(v.nat.kind, NatKind::kDestination);
  EXPECT_EQ(v.nat.min_address, IpAddress(*ParseIpv6("fd00::80")));
  EXPECT_EQ(v.nat.max_address, v.nat.min_address);
  nft::RedirExpr redirect;
  redirect.proto_min = 0;
  v = Do({Set(Net16(8080)), redirect}, HookPoint::kPostroutingNat);
  EXPECT_EQ(v.nat.kind, NatKind::kRedirect);
  EXPECT_EQ(v.nat.min_port, 8080);
  EXPECT_EQ(v.nat.max_port, 8080);
  nft::MasqExpr masquerade;
  masquerade.flags = tables::kNatFullyRandom;
  v = Do({masquerade}, HookPoint::kPostroutingNat);
  EXPECT_EQ(v.nat.kind, NatKind::kMasquerade);
  EXPECT_EQ(v.nat.flags, tables::kNatFullyRandom);
}

TEST_F(FilterActionTest, NetmapKeepsTheHostPart) {
  nft::NatExpr nat;
  nat.family = 2;
  nat.addr_min = 0;
  nat.addr_max = 1;
  nat.flags = tables::kNatNetmap;
  w_.Load(FilterWorld::Tcp4("10.0.0.77", "8.8.8.8", 1, 2));
  const FilterVerdict v = Do({Set(Addr("192.0.2.0")), Set(Addr("192.0.2.255"), 1), nat},
                             HookPoint::kPostroutingNat);
  EXPECT_EQ(v.nat.min_address, IpAddress(*ParseIpv4("192.0.2.77")));
  EXPECT_EQ(v.nat.max_address, IpAddress(*ParseIpv4("192.0.2.77")));
}

TEST_F(FilterActionTest, MarksAreSet) {
  tables::Flow flow{};
  w_.flow = &flow;
  nft::CtExpr set;
  set.key = tables::kCtMark;
  set.sreg = 0;
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2));
  Do({Set(Host32(5)), set, Ct(tables::kCtMark), MetaSet(tables::kMetaMark)});
  EXPECT_EQ(flow.mark, 5u);
  EXPECT_EQ(w_.p.mark, 5u);
  w_.flow = nullptr;  // untracked: it does nothing, and goes on
  EXPECT_EQ(Do({Set(Host32(6)), set, Drop()}).kind, Kind::kDrop);
}

TEST_F(FilterActionTest, NotrackBeforeConntrack) {
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2));
  Do({nft::NotrackExpr{}});
  EXPECT_EQ(w_.p.ct_state, static_cast<uint8_t>(tables::CtState::kUntracked));
  w_.p.ct_state = static_cast<uint8_t>(tables::CtState::kInvalid);
  Do({nft::NotrackExpr{}});
  EXPECT_EQ(w_.p.ct_state, static_cast<uint8_t>(tables::CtState::kUntracked));
  w_.p.ct_state = static_cast<uint8_t>(tables::CtState::kNew);
  Do({nft::NotrackExpr{}});  // too late
  EXPECT_EQ(w_.p.ct_state, static_cast<uint8_t>(tables::CtState::kNew));
}

TEST_F(FilterActionTest, SettingFieldsKeepsChecksumsRight) {
  const auto packet = [](uint8_t ttl, const char* source, uint16_t dport) {
    return FilterWorld::Ethernet().Ipv4(source, "8.8.8.8").Ttl(ttl).Tcp(1000, dport).Payload(9)
        .Build();
  };
  w_.Load(packet(64, "10.0.0.1", 80));
  Do({Set({9, 6}), SetPayload(kNetwork, 8, 2, 1, 10)});  // ttl and protocol, as nft writes it
  EXPECT_EQ(w_.Frame(), packet(9, "10.0.0.1", 80));
  w_.Load(packet(64, "10.0.0.1", 80));
  Do({Set(Addr("172.16.5.6")), SetPayload(kNetwork, 12, 4, 1, 10, 1)});
  EXPECT_EQ(w_.Frame(), packet(64, "172.16.5.6", 80));
  w_.Load(packet(64, "10.0.0.1", 80));
  Do({Set(Net16(8080)), SetPayload(kTransport, 2, 2, 1, 16)});
  EXPECT_EQ(w_.Frame(), packet(64, "10.0.0.1", 8080));
  // IPv6 has no checksum of its own; the transport's covers the addresses.
  const auto packet6 = [](const char* to) {
    return FilterWorld::Ethernet().Ipv6("fd00::1", to).Icmpv6Echo(1, 2).Payload(7).Build();
  };
  w_.Load(packet6("fd00::2"));
  Do({Set(Addr("2001:db8:1:2:3:4:5:6")), SetPayload(kNetwork, 24, 16, 0, 0, 1)});
  EXPECT_EQ(w_.Frame(), packet6("2001:db8:1:2:3:4:5:6"));
}

TEST_F(FilterActionTest, AnAbsentUdpChecksumStaysAbsent) {
  const auto packet = [](const char* source, bool partial) {
    PacketBuilder b = FilterWorld::Ethernet().Ipv4(source, "8.8.8.8").Udp(1000, 53);
    partial ? b.PartialChecksum() : b.ZeroUdpChecksum();
    return b.Payload(9).Build();
  };
  w_.Load(packet("10.0.0.1", false));
  Do({Set(Addr("172.16.5.6")), SetPayload(kNetwork, 12, 4, 1, 10, 1)});
  EXPECT_EQ(w_.Frame(), packet("172.16.5.6", false));
  w_.Load(packet("10.0.0.1", true));  // the pseudo header's sum follows the address
  w_.p.flags |= packet::kFlagPartialChecksum;
  Do({Set(Addr("172.16.5.6")), SetPayload(kNetwork, 12, 4, 1, 10, 1)});
  EXPECT_EQ(w_.Frame(), packet("172.16.5.6", true));
}

TEST_F(FilterActionTest, TheMaximumSegmentSizeIsOnlyLowered) {
  const auto packet = [](uint16_t mss, bool shifted) {
    Bytes options = {2, 4, static_cast<uint8_t>(mss >> 8), static_cast<uint8_t>(mss)};
    if (shifted) options.insert(options.begin(), 1);
    return FilterWorld::Ethernet().Ipv4("10.0.0.1", "8.8.8.8").Tcp(1, 2, 2).Options(options)
        .Payload(3).Build();
  };
  nft::ExthdrExpr set;
  set.sreg = 0;
  set.op = 1;
  set.type = 2;
  set.offset = 2;
  set.length = 2;
  for (const bool shifted : {false, true}) {  // also at an odd offset
    w_.Load(packet(1460, shifted));
    EXPECT_EQ(Do({Set(Net16(1200)), set, Drop()}).kind, Kind::kDrop);
    EXPECT_EQ(w_.Frame(), packet(1200, shifted));
    w_.Load(packet(1000, shifted));
    EXPECT_EQ(Do({Set(Net16(1200)), set, Drop()}).kind, Kind::kDrop);
    EXPECT_EQ(w_.Frame(), packet(1000, shifted));
  }
  const Bytes plain = FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2);
  w_.Load(plain);  // no such option: nothing to do
  EXPECT_EQ(Do({Set(Net16(1200)), set, Drop()}).kind, Kind::kDrop);
  EXPECT_EQ(w_.Frame(), plain);
  w_.Load(FilterWorld::Udp4("10.0.0.1", "8.8.8.8", 1, 2));
  EXPECT_EQ(Do({Set(Net16(1200)), set, Drop()}).kind, Kind::kAccept);
}

TEST_F(FilterActionTest, ATcpOptionIsOverwritten) {
  const auto packet = [](const Bytes& options) {
    return FilterWorld::Ethernet().Ipv4("10.0.0.1", "8.8.8.8").Tcp(1, 2, 2).Options(options)
        .Payload(3).Build();
  };
  nft::ExthdrExpr strip;
  strip.op = 1;
  strip.type = 8;
  // At an even and at an odd offset.
  w_.Load(packet({1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_EQ(Do({strip, Drop()}).kind, Kind::kDrop);
  EXPECT_EQ(w_.Frame(), packet({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}));
  w_.Load(packet({1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 0}));
  EXPECT_EQ(Do({strip, Drop()}).kind, Kind::kDrop);
  EXPECT_EQ(w_.Frame(), packet({1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0}));
  const Bytes plain = FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2);
  w_.Load(plain);  // no such option: nothing to do
  EXPECT_EQ(Do({strip, Drop()}).kind, Kind::kDrop);
  EXPECT_EQ(w_.Frame(), plain);
  w_.Load(FilterWorld::Udp4("10.0.0.1", "8.8.8.8", 1, 2));
  EXPECT_EQ(Do({strip, Drop()}).kind, Kind::kAccept) << "no TCP";
  w_.Load(packet({1, 1, 8, 40}));
  EXPECT_EQ(Do({strip}).kind, Kind::kDrop) << "longer than the header";
}

TEST_F(FilterActionTest, LogsAreBoundedAndSayWhatWasSeen) {
  RulesetModel m;
  nft::LogExpr log;
  log.prefix = "hello ";
  m.Base("forward", 2).Rule({log, Drop()});
  w_.Use(m);
  w_.Load(FilterWorld::Tcp4("10.0.0.1", "8.8.8.8", 1, 2));
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(w_.Run().kind, Kind::kDrop);
  EXPECT_EQ(w_.filter.logged(), 1000u);
  stages::LogRecord last;
  const size_t records = w_.filter.DrainLog([&](const stages::LogRecord& r) { last = r; });
  EXPECT_EQ(records, 100u);  // one second's worth
  EXPECT_EQ(w_.filter.log_lost(), 900u);
  EXPECT_EQ(last.rule, 0u);
  EXPECT_EQ(last.in, IfaceSlot{0});
  EXPECT_EQ(last.out, IfaceSlot{1});
  EXPECT_EQ(last.l3_length, 60);
  EXPECT_EQ(last.captured, 60);
  EXPECT_TRUE(std::equal(last.l3.begin(), last.l3.begin() + 60, w_.p.l3()));
  EXPECT_EQ(w_.ruleset->program().logs[0].prefix, "hello ");
  w_.now += Millis(20);
  w_.Run();
  EXPECT_EQ(w_.filter.DrainLog([](const stages::LogRecord&) {}), 1u);
}

TEST_F(FilterActionTest, ConntrackAndNatAreKnown) {
  RulesetModel m(nft::TableFamily::kIp);
  m.Base("nat", 4, 100, 1, "nat").Rule({nft::MasqExpr{}});
  w_.Use(m);
  EXPECT_TRUE(w_.ruleset->has_nat(Family::kIpv4));
  EXPECT_TRUE(w_.ruleset->needs_conntrack(Family::kIpv4));
  EXPECT_FALSE(w_.ruleset->needs_conntrack(Family::kIpv6));
  m = RulesetModel(nft::TableFamily::kInet);
  m.Base("forward", 2).Rule({nft::NotrackExpr{}});
  w_.Use(m);
  EXPECT_FALSE(w_.ruleset->needs_conntrack(Family::kIpv4));
  m.Rule({Ct(tables::kCtState), Cmp(kEq, Host32(2))});
  w_.Use(m);
  EXPECT_TRUE(w_.ruleset->needs_conntrack(Family::kIpv6));
}

}  // namespace
}  // namespace sluice::test
