// Which address and port a flow gets: one test per kind of statement.
#include <set>

#include "unit/stages/nat/nat_fixture.h"

namespace sluice::stages {
namespace {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowTuple;
using tables::kNatFullyRandom;
using tables::kNatNetmap;
using tables::kNatPersistent;
using tables::kNatRandom;

class NatSetupTest : public NatFixture {};

TEST_F(NatSetupTest, SourceKeepsThePort) {
  const Flow& flow = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Snat("192.0.2.9"));
  EXPECT_EQ(Show(Outside(flow)), "192.0.2.9:4000>1.1.1.1:80");
  EXPECT_EQ(flow.tuples[0], Tuple("10.0.0.2", 4000, "1.1.1.1", 80));
  EXPECT_EQ(flow.status & tables::kFlowNatMask, tables::kFlowSourceNat);
  EXPECT_FALSE(flow.Has(tables::kFlowMasquerade));
  EXPECT_EQ(nat.counters().translated.Read(), 1u);
  EXPECT_EQ(nat.counters().port_changed.Read(), 0u);
}

TEST_F(NatSetupTest, SourceOfIpv6) {
  EXPECT_EQ(ConnectTo(Tuple("2001:db8::2", 4000, "2001:4860::8", 53, wire::kProtocolUdp),
                      Snat("2001:db8:1::9")),
            "2001:db8:1::9:4000>2001:4860::8:53");
}

TEST_F(NatSetupTest, OneOutsidePortServesSeveralDestinations) {
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Snat("192.0.2.9")),
            "192.0.2.9:4000>1.1.1.1:80");
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.3", 4000, "1.1.1.1", 81), Snat("192.0.2.9")),
            "192.0.2.9:4000>1.1.1.1:81");
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.4", 4000, "1.1.1.2", 80), Snat("192.0.2.9")),
            "192.0.2.9:4000>1.1.1.2:80");
}

TEST_F(NatSetupTest, AClashChangesThePort) {
  struct Case {
    uint16_t port;
    uint16_t low, high;
  };
  for (const Case& c : {Case{4000, 49152, 65535}, Case{53, 1, 511}, Case{511, 1, 511},
                        Case{512, 600, 1023}, Case{1023, 600, 1023}, Case{1024, 49152, 65535}}) {
    Connect(Tuple("10.0.0.2", c.port, "1.1.1.1", 80), Snat("192.0.2.9"));
    const Flow& second = Connect(Tuple("10.0.0.3", c.port, "1.1.1.1", 80), Snat("192.0.2.9"));
    const FlowTuple outside = Outside(second);
    EXPECT_NE(outside.source_port, c.port);
    EXPECT_GE(outside.source_port, c.low) << c.port;
    EXPECT_LE(outside.source_port, c.high) << c.port;
    EXPECT_EQ(outside.source, A("192.0.2.9").bits);
  }
  EXPECT_EQ(nat.counters().port_changed.Read(), 6u);
}

TEST_F(NatSetupTest, AChangedPortIsTheSourcesOwnForOtherDestinations) {
  Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Snat("192.0.2.9"));
  const Flow& second = Connect(Tuple("10.0.0.3", 4000, "1.1.1.1", 80), Snat("192.0.2.9"));
  const uint16_t port = Outside(second).source_port;
  const Flow& third = Connect(Tuple("10.0.0.3", 4000, "1.1.1.2", 80), Snat("192.0.2.9"));
  EXPECT_EQ(Outside(third).source_port, port);
  // Unless the rule forbids.
  const Flow& fourth =
      Connect(Tuple("10.0.0.3", 4000, "1.1.1.3", 80), Snat("192.0.2.9", "192.0.2.9", kNatRandom));
  EXPECT_NE(Outside(fourth).source_port, port);
}

TEST_F(NatSetupTest, NullBindingKeepsTuplesApart) {
  // Its outside looks like a flow that was never translated.
  Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Snat("192.0.2.9"));
  const FlowTuple direct = Tuple("192.0.2.9", 4000, "1.1.1.1", 80);
  const tables::FlowIndex index = New(direct);
  Flow& flow = table.at(index);
  EXPECT_TRUE(nat.SetupNull(flow, NatManip::kDestination).verdict.is_continue());
  EXPECT_FALSE(flow.Has(tables::kFlowNatMask)) << "a destination's port is never changed";
  EXPECT_TRUE(nat.SetupNull(flow, NatManip::kSource).verdict.is_continue());
  EXPECT_TRUE(flow.Has(tables::kFlowSourceNat));
  EXPECT_EQ(Outside(flow).source, direct.source);
  EXPECT_NE(Outside(flow).source_port, 4000);
  Confirm(index);
}

TEST_F(NatSetupTest, NullBindingChangesNothingElse) {
  for (const FlowTuple& t : {Tuple("10.0.0.2", 1, "1.1.1.1", 80), Echo("10.0.0.2", "1.1.1.1", 99),
                             Tuple("10.0.0.2", 0, "1.1.1.1", 0, wire::kProtocolEsp),
                             Tuple("2001:db8::2", 5, "2001:4860::8", 53, wire::kProtocolUdp)}) {
    Flow& flow = table.at(New(t));
    nat.SetupNull(flow, NatManip::kDestination);
    nat.SetupNull(flow, NatManip::kSource);
    EXPECT_EQ(flow.tuples[1], Inverse(t));
    EXPECT_EQ(flow.status, tables::kFlowSourceNatDone | tables::kFlowDestinationNatDone);
  }
}

TEST_F(NatSetupTest, Masquerade) {
  const Flow& flow = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Masquerade());
  EXPECT_EQ(Show(Outside(flow)), "192.0.2.1:4000>1.1.1.1:80");
  EXPECT_TRUE(flow.Has(tables::kFlowMasquerade));
  EXPECT_EQ(flow.masquerade_slot, kWan);
  EXPECT_EQ(ConnectTo(Tuple("2001:db8::2", 4000, "2001:4860::8", 80), Masquerade()),
            "2001:db8:1::1:4000>2001:4860::8:80");
  // No address to hide yet: DHCP.
  EXPECT_EQ(
      ConnectTo(Tuple("0.0.0.0", 68, "255.255.255.255", 67, wire::kProtocolUdp), Masquerade()),
      "0.0.0.0:68>255.255.255.255:67");
}

TEST_F(NatSetupTest, MasqueradeNeedsAnAddress) {
  for (auto& interface : snapshot.interfaces) {
    interface.addresses4.clear();
    interface.addresses6.clear();
  }
  for (const FlowTuple& t :
       {Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Tuple("2001:db8::2", 4000, "2001:4860::8", 80)}) {
    Flow& flow = table.at(New(t));
    EXPECT_EQ(nat.Setup(flow, Masquerade(), Context()).verdict,
              packet::Verdict::Drop(DropReason::kNatNoAddress));
    EXPECT_EQ(nat.Setup(flow, Redirect(), Context()).verdict,
              packet::Verdict::Drop(DropReason::kNatNoAddress));
    EXPECT_EQ(flow.status, 0u);
    EXPECT_EQ(flow.tuples[1], Inverse(t));
  }
}

TEST_F(NatSetupTest, MasqueradeWithPorts) {
  for (int i = 0; i < 10; ++i) {
    const Flow& flow = Connect(Tuple("10.0.0.2", 4000, "1.1.1." + std::to_string(i), 80),
                               Masquerade(0, 2000, 2009));
    EXPECT_GE(Outside(flow).source_port, 2000);
    EXPECT_LE(Outside(flow).source_port, 2009);
  }
  // One that lies in the range already stays.
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 2003, "2.2.2.2", 80), Masquerade(0, 2000, 2009)),
            "192.0.2.1:2003>2.2.2.2:80");
}

TEST_F(NatSetupTest, DestinationAndItsPort) {
  EXPECT_EQ(ConnectTo(Tuple("198.51.100.7", 4000, "192.0.2.1", 80), Dnat("10.0.0.5")),
            "198.51.100.7:4000>10.0.0.5:80");
  const Flow& flow = Connect(Tuple("198.51.100.7", 4001, "192.0.2.1", 80), Dnat("10.0.0.5", 8080));
  EXPECT_EQ(Show(Outside(flow)), "198.51.100.7:4001>10.0.0.5:8080");
  EXPECT_EQ(flow.status & tables::kFlowNatMask, tables::kFlowDestinationNat);
  EXPECT_EQ(ConnectTo(Tuple("2001:4860::8", 1, "2001:db8:1::1", 80), Dnat("2001:db8::5", 8080)),
            "2001:4860::8:1>2001:db8::5:8080");
  // Only the port: nft's "dnat to :8080".
  EXPECT_EQ(ConnectTo(Tuple("198.51.100.7", 4002, "192.0.2.1", 80), Dnat("", "", 0, 8080, 8080)),
            "198.51.100.7:4002>192.0.2.1:8080");
}

TEST_F(NatSetupTest, TwoDestinationsThatBecomeOneAreKeptApartByTheSource) {
  Connect(Tuple("198.51.100.7", 4000, "192.0.2.1", 80), Dnat("10.0.0.5", 8080));
  const Flow& second =
      Connect(Tuple("198.51.100.7", 4000, "192.0.2.1", 81), Dnat("10.0.0.5", 8080));
  EXPECT_EQ(Outside(second).destination_port, 8080);
  EXPECT_NE(Outside(second).source_port, 4000);
  EXPECT_TRUE(second.Has(tables::kFlowSourceNat));
}

TEST_F(NatSetupTest, Redirect) {
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Redirect(3128)),
            "10.0.0.2:4000>10.0.0.1:3128");
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 4001, "1.1.1.1", 80), Redirect()),
            "10.0.0.2:4001>10.0.0.1:80");
  EXPECT_EQ(ConnectTo(Tuple("2001:db8::2", 4000, "2001:4860::8", 80), Redirect(3128)),
            "2001:db8::2:4000>2001:db8::1:3128");
  EXPECT_EQ(ConnectTo(Tuple("fe80::9", 4000, "fe80::77", 80), Redirect(3128)),
            "fe80::9:4000>fe80::1:3128");
}

TEST_F(NatSetupTest, HairpinIsBoth) {
  const FlowTuple t = Tuple("10.0.0.2", 4000, "192.0.2.1", 80);
  Flow& flow = table.at(New(t));
  ASSERT_TRUE(nat.Setup(flow, Dnat("10.0.0.5", 8080), Context()).verdict.is_continue());
  ASSERT_TRUE(nat.Setup(flow, Snat("10.0.0.1"), Context()).verdict.is_continue());
  EXPECT_EQ(Show(Outside(flow)), "10.0.0.1:4000>10.0.0.5:8080");
  EXPECT_EQ(flow.tuples[0], t);
  EXPECT_EQ(flow.status & tables::kFlowNatMask, tables::kFlowNatMask);
}

TEST_F(NatSetupTest, ConfirmedFlowsStayAsTheyAre) {
  const Flow before = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Snat("192.0.2.9"));
  Flow& flow = table.at(table.Find(before.tuples[0]).flow);
  EXPECT_TRUE(nat.Setup(flow, Snat("192.0.2.10"), Context()).verdict.is_continue());
  EXPECT_TRUE(nat.SetupNull(flow, NatManip::kSource).verdict.is_continue());
  EXPECT_EQ(flow.tuples, before.tuples);
  EXPECT_EQ(flow.status, before.status);
}

TEST_F(NatSetupTest, RangeSpreadsAndPersistentDoesNotAskForTheDestination) {
  std::set<Ipv6> all;
  for (int i = 0; i < 200; ++i) {
    const Flow& flow = Connect(
        Tuple("10.0.0.2", static_cast<uint16_t>(2000 + i), "1.1.1." + std::to_string(i), 80),
        Snat("192.0.2.16", "192.0.2.31"));
    const Ipv6 chosen = Outside(flow).source;
    EXPECT_GE(chosen, A("192.0.2.16").bits);
    EXPECT_LE(chosen, A("192.0.2.31").bits);
    EXPECT_EQ(Outside(flow).source_port, 2000 + i);
    all.insert(chosen);
  }
  EXPECT_EQ(all.size(), 16u);
  all.clear();
  for (int i = 0; i < 200; ++i) {
    all.insert(Outside(Connect(Tuple("10.0.0.3", static_cast<uint16_t>(2000 + i),
                                     "1.1.1." + std::to_string(i), 80),
                               Snat("192.0.2.16", "192.0.2.31", kNatPersistent)))
                   .source);
  }
  EXPECT_EQ(all.size(), 1u);
}

TEST_F(NatSetupTest, RangeOfIpv6AndOfDestinations) {
  std::set<Ipv6> all;
  for (int i = 0; i < 300; ++i) {
    const auto host = "2001:db8::" + std::to_string(1000 + i);
    const Ipv6 chosen = Outside(Connect(Tuple(host, 2000, "2001:4860::8", 80),
                                        Snat("2001:db8:1::fffe", "2001:db8:1::1:5")))
                            .source;
    EXPECT_GE(chosen, A("2001:db8:1::fffe").bits);
    EXPECT_LE(chosen, A("2001:db8:1::1:5").bits);
    all.insert(chosen);
  }
  EXPECT_GT(all.size(), 6u);
  all.clear();
  for (int i = 0; i < 100; ++i) {
    const FlowTuple t = Tuple("198.51.100." + std::to_string(i), 4000, "192.0.2.1", 80);
    all.insert(Outside(Connect(t, Dnat("10.0.0.4", "10.0.0.7"))).destination);
  }
  EXPECT_EQ(all.size(), 4u);
}

TEST_F(NatSetupTest, Netmap) {
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.77", 1, "1.1.1.1", 80),
                      Snat("203.0.113.0", "203.0.113.255", kNatNetmap)),
            "203.0.113.77:1>1.1.1.1:80");
  EXPECT_EQ(ConnectTo(Tuple("10.0.3.77", 1, "1.1.1.1", 80),
                      Snat("203.0.112.0", "203.0.115.255", kNatNetmap)),
            "203.0.115.77:1>1.1.1.1:80");
  EXPECT_EQ(
      ConnectTo(Tuple("1.1.1.1", 9, "203.0.113.5", 80), Dnat("10.0.0.0", "10.0.0.255", kNatNetmap)),
      "1.1.1.1:9>10.0.0.5:80");
  // NAT66 by prefix.
  EXPECT_EQ(ConnectTo(Tuple("fd00::1:2:3", 1, "2001:4860::8", 80),
                      Snat("2001:db8:7::", "2001:db8:7:ffff:ffff:ffff:ffff:ffff", kNatNetmap)),
            "2001:db8:7::1:2:3:1>2001:4860::8:80");
}

TEST_F(NatSetupTest, RandomPortsAreRandom) {
  for (const uint32_t flag : {kNatRandom, kNatFullyRandom}) {
    std::set<uint16_t> ports;
    for (int i = 0; i < 50; ++i) {
      const Flow& flow = Connect(
          Tuple("10.0.0.2", 4000, "1.1." + std::to_string(flag) + "." + std::to_string(i), 80),
          Masquerade(flag));
      EXPECT_GE(Outside(flow).source_port, 49152);
      ports.insert(Outside(flow).source_port);
    }
    EXPECT_GT(ports.size(), 40u);
  }
  // A destination's port is only changed by a rule that gives ports.
  EXPECT_EQ(ConnectTo(Tuple("198.51.100.7", 4000, "192.0.2.1", 80),
                      Dnat("10.0.0.5", "10.0.0.5", kNatRandom)),
            "198.51.100.7:4000>10.0.0.5:80");
}

TEST_F(NatSetupTest, PortOffsetBeginsWithThePortsDistance) {
  const Flow& flow = Connect(Tuple("198.51.100.7", 4000, "192.0.2.1", 5003),
                             Dnat("10.0.0.5", "10.0.0.5", tables::kNatPortOffset, 6000, 6999));
  EXPECT_EQ(Outside(flow).destination_port, 6000 + 5003 % 1000);
}

TEST_F(NatSetupTest, IcmpIdentifiersAreLikePorts) {
  EXPECT_EQ(ConnectTo(Echo("10.0.0.2", "1.1.1.1", 7), Masquerade()), "192.0.2.1:7>1.1.1.1:2048");
  const Flow& second = Connect(Echo("10.0.0.3", "1.1.1.1", 7), Masquerade());
  EXPECT_EQ(Outside(second).source, A("192.0.2.1").bits);
  EXPECT_NE(Outside(second).source_port, 7);
  Connect(Echo("2001:db8::2", "2001:4860::8", 7), Masquerade());
  EXPECT_NE(Outside(Connect(Echo("2001:db8::3", "2001:4860::8", 7), Masquerade())).source_port, 7);
  const Flow& given = Connect(Echo("10.0.0.3", "1.1.1.9", 7), Masquerade(0, 100, 109));
  EXPECT_GE(Outside(given).source_port, 100);
  EXPECT_LE(Outside(given).source_port, 109);
}

TEST_F(NatSetupTest, ProtocolsWithoutPortsCannotShareAnAddress) {
  const uint8_t esp = wire::kProtocolEsp;
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.2", 0, "1.1.1.1", 0, esp), Masquerade()),
            "192.0.2.1:0>1.1.1.1:0");
  // As in the kernel, it is refused when it would be confirmed.
  const tables::FlowIndex second = New(Tuple("10.0.0.3", 0, "1.1.1.1", 0, esp));
  EXPECT_TRUE(nat.Setup(table.at(second), Masquerade(), Context()).verdict.is_continue());
  EXPECT_FALSE(table.Insert(second));
  EXPECT_EQ(ConnectTo(Tuple("10.0.0.3", 0, "1.1.1.2", 0, esp), Masquerade()),
            "192.0.2.1:0>1.1.1.2:0");
}

TEST_F(NatSetupTest, ADoubledFirstPacketIsNoClash) {
  const FlowTuple t = Tuple("10.0.0.2", 4000, "1.1.1.1", 80);
  Flow& twin = table.at(New(t));
  Connect(t, Masquerade());
  EXPECT_TRUE(nat.Setup(twin, Masquerade(), Context()).verdict.is_continue());
  EXPECT_EQ(Show(Outside(twin)), "192.0.2.1:4000>1.1.1.1:80");
}

TEST_F(NatSetupTest, AMasqueradedFlowDoesNotChangeItsWayOut) {
  const Flow masqueraded = Connect(Tuple("10.0.0.2", 4000, "1.1.1.1", 80), Masquerade());
  const auto over = packet::Verdict::Drop(DropReason::kNatRouteChanged);
  EXPECT_EQ(Nat::CheckOut(masqueraded, FlowDirection::kOriginal, kLan), over);
  EXPECT_TRUE(Nat::CheckOut(masqueraded, FlowDirection::kOriginal, kWan).is_continue());
  EXPECT_TRUE(Nat::CheckOut(masqueraded, FlowDirection::kReply, kLan).is_continue());
  const Flow other = Connect(Tuple("10.0.0.2", 4001, "1.1.1.1", 80), Snat("192.0.2.1"));
  EXPECT_TRUE(Nat::CheckOut(other, FlowDirection::kOriginal, kLan).is_continue());
}

}  // namespace
}  // namespace sluice::stages
