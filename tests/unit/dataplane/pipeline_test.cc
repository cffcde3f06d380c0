// The order of the pipeline, and that each packet ends in one way. Single rules are tested with
// their stages.
#include "dataplane/pipeline.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/rng.h"
#include "unit/dataplane/pipeline_fixture.h"

namespace sluice::dataplane {
namespace {

using tables::ChecksumMode;
using tables::RouteType;

PacketBuilder Out4() { return FromHost().Ipv4("10.0.0.2", "203.0.113.1"); }
PacketBuilder Out6() { return FromHost().Ipv6("2001:db8::2", "2001:db8:9::1"); }
// As it leaves to the WAN.
PacketBuilder Left4() {
  return PacketBuilder().Ethernet(kWanMac, kPeerMac).Ipv4("10.0.0.2", "203.0.113.1");
}
PacketBuilder Left6() {
  return PacketBuilder().Ethernet(kWanMac, kPeerMac).Ipv6("2001:db8::2", "2001:db8:9::1");
}

class PipelineTest : public PipelineFixture {};

TEST_F(PipelineTest, ForwardsByteForByte) {
  Process({Out4().Ttl(64).Udp(1, 2).Payload(50).PadTo(120).Build(),
           Out6().HopLimit(2).Tcp(1, 2).Payload(51).Build()});
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0], (Sent{kWan, Left4().Ttl(63).Udp(1, 2).Payload(50).Build(), kLan}));
  EXPECT_EQ(sent[1], (Sent{kWan, Left6().HopLimit(1).Tcp(1, 2).Payload(51).Build(), kLan}));
  EXPECT_TRUE(punts.empty());
}

TEST_F(PipelineTest, TheOrderOfABurstIsKeptPerFamily) {
  std::vector<Bytes> burst;
  for (uint16_t i = 0; i < 64; ++i) {
    burst.push_back(i % 2 == 0 ? Out4().Udp(i, 2).Build() : Out6().Udp(i, 2).Build());
  }
  Process(burst);
  ASSERT_EQ(sent.size(), 64u);
  int last4 = -1;
  int last6 = -1;
  for (const Sent& s : sent) {
    const bool v4 = s.bytes[12] == 0x08;
    const int port = LoadBe16(s.bytes.data() + (v4 ? 34 : 54));
    int& last = v4 ? last4 : last6;
    EXPECT_GT(port, last);
    last = port;
  }
}

// --- Which error does a packet with two faults get? ---

TEST_F(PipelineTest, NoRouteComesBeforeTtl) {
  Process(FromHost().Ipv4("10.0.0.2", "8.8.8.8").Ttl(1).Udp(1, 2).Build());
  EXPECT_EQ(OnlyIcmp(), 0x0300);
  EXPECT_EQ(Dropped(DropReason::kNoRoute), 1u);
  Forget();
  Process(FromHost().Ipv6("2001:db8::2", "2001:4860::1").HopLimit(1).Udp(1, 2).Build());
  EXPECT_EQ(OnlyIcmp(), 0x0100);
  EXPECT_EQ(Dropped(DropReason::kNoRoute), 2u);
}

TEST_F(PipelineTest, TheSourceComesBeforeTtl) {
  world.lan().rp_filter = 1;
  Process(FromHost().Ipv4("203.0.113.7", "203.0.113.1").Ttl(1).Udp(1, 2).Build());
  EXPECT_EQ(Dropped(DropReason::kReversePath), 1u);
  EXPECT_TRUE(sent.empty());
}

TEST_F(PipelineTest, TtlComesBeforeMtuAndNeighbor) {
  Process(FromHost()
              .Ipv4("10.0.0.2", "192.0.2.77")
              .Ttl(1)
              .DontFragment()
              .Udp(1, 2)
              .Payload(1600)
              .Build());
  EXPECT_EQ(OnlyIcmp(), 0x0b00);
  EXPECT_EQ(Dropped(DropReason::kTtlExpired), 1u);
  Forget();
  Process(
      FromHost().Ipv6("2001:db8::2", "2001:db8:1::77").HopLimit(0).Udp(1, 2).Payload(1600).Build());
  EXPECT_EQ(OnlyIcmp(), 0x0300);
  EXPECT_EQ(Dropped(DropReason::kTtlExpired), 2u);
  EXPECT_EQ(Held(), 0u);
}

TEST_F(PipelineTest, LinkLocalSourceComesAfterTtlAndBeforeMtu) {
  const auto frame = [](uint8_t ttl) {
    return FromHost()
        .Ipv6("fe80::77", "2001:db8:9::1")
        .HopLimit(ttl)
        .Udp(1, 2)
        .Payload(1600)
        .Build();
  };
  // A link-local sender is the kernel's to answer; which error that is, it finds out itself.
  Process(frame(64));
  ASSERT_EQ(punts.size(), 1u);
  EXPECT_EQ(punts[0].reason, PuntReason::kReplyRoute);
  EXPECT_EQ(punts[0].bytes, frame(64)) << "as it came";
  Process(FromHost().Ipv6("::", "2001:db8:9::1").Udp(1, 2).Payload(1600).Build());
  EXPECT_EQ(Dropped(DropReason::kMartianSource), 1u);
}

TEST_F(PipelineTest, MtuComesBeforeTheNeighbor) {
  Process(FromHost().Ipv4("10.0.0.2", "192.0.2.77").DontFragment().Udp(1, 2).Payload(1473).Build());
  EXPECT_EQ(OnlyIcmp(), 0x0304);
  EXPECT_EQ(LoadBe16(sent[0].bytes.data() + 40), 1500) << "the MTU it is told";
  EXPECT_EQ(Dropped(DropReason::kFragmentationNeeded), 1u);
  Forget();
  Process(FromHost().Ipv6("2001:db8::2", "2001:db8:1::77").Udp(1, 2).Payload(1453).Build());
  EXPECT_EQ(OnlyIcmp(), 0x0200);
  EXPECT_EQ(LoadBe32(sent[0].bytes.data() + 58), 1500u);
  EXPECT_EQ(Dropped(DropReason::kPacketTooBig), 1u);
  EXPECT_EQ(Held(), 0u);
  Forget();
  // One byte less is fine.
  Process({Out4().DontFragment().Udp(1, 2).Payload(1472).Build(),
           Out6().Udp(1, 2).Payload(1452).Build()});
  EXPECT_EQ(sent.size(), 2u);
}

TEST_F(PipelineTest, ErrorsGoBackToTheSenderOverItsLink) {
  const Bytes frame = Out4().Ttl(1).Udp(1, 2).Payload(30).Build();
  Process(frame);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].slot, kLan);
  EXPECT_FALSE(sent[0].in.valid());
  const uint16_t id = LoadBe16(sent[0].bytes.data() + 18);
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv4("10.0.0.1", "10.0.0.2")
                               .Tos(0xc0)
                               .Id(id)
                               .Icmp(11, 0)
                               .Payload(Bytes(frame.begin() + 14, frame.end()))
                               .Build());
  EXPECT_EQ(Generated(GeneratedKind::kIcmpError), 1u);
}

// --- Partial checksums ---

TEST_F(PipelineTest, PartialChecksumsAreCompletedOnVirtualInterfacesOnly) {
  const Bytes partial = Out4().Udp(1, 2).PartialChecksum().Payload(9).Build();
  Process(partial);
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes, Left4().Ttl(63).Udp(1, 2).PartialChecksum().Payload(9).Build());
  Forget();
  world.lan().checksum = ChecksumMode::kComplete;
  Process({partial, Out6().Tcp(1, 2).PartialChecksum().Payload(9).Build()});
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].bytes, Left4().Ttl(63).Udp(1, 2).Payload(9).Build());
  EXPECT_EQ(sent[1].bytes, Left6().HopLimit(63).Tcp(1, 2).Payload(9).Build());
  EXPECT_EQ(counters->of(kLan).checksums_completed.Read(), 2u);
}

TEST_F(PipelineTest, PuntsHaveTheirChecksumsCompleted) {
  world.lan().checksum = ChecksumMode::kComplete;
  const auto to_us = [] { return FromHost().Ipv4("10.0.0.2", "10.0.0.1").Tcp(1, 22); };
  const auto to_us6 = [] { return FromHost().Ipv6("2001:db8::2", "2001:db8::1").Udp(1, 22); };
  Process({to_us().PartialChecksum().Payload(3).Build(),
           to_us6().PartialChecksum().Payload(3).Build()});
  ASSERT_EQ(punts.size(), 2u);
  EXPECT_EQ(punts[0].bytes, to_us().Payload(3).Build());
  EXPECT_EQ(punts[1].bytes, to_us6().Payload(3).Build());
  EXPECT_EQ(punts[0].reason, PuntReason::kLocal);
  EXPECT_FALSE(punts[0].copy);
}

TEST_F(PipelineTest, FragmentsOfAPartialPacketCarryTheRightChecksum) {
  world.lan().checksum = ChecksumMode::kComplete;
  Process(Out4().Udp(1, 2).PartialChecksum().Payload(1500).Build());
  ASSERT_EQ(sent.size(), 2u);
  const Bytes whole = Out4().Udp(1, 2).Payload(1500).Build();
  EXPECT_EQ(LoadBe16(sent[0].bytes.data() + 40), LoadBe16(whole.data() + 40));
}

// --- A DHCP client on this machine ---

// Its address is not there yet, and a route might lead it elsewhere.
TEST_F(PipelineTest, WhatADhcpServerSendsToThisMachineIsTheKernels) {
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.2")});
  const char* const addresses[] = {"192.0.2.77", "8.8.8.8", "198.51.100.1", "192.0.2.1"};
  std::vector<Bytes> offers;
  for (const char* to : addresses) offers.push_back(DhcpReply(kWanMac, to).Build());
  Process(offers, kWan);
  ASSERT_EQ(punts.size(), offers.size());
  for (size_t i = 0; i < offers.size(); ++i) {
    EXPECT_EQ(punts[i].reason, PuntReason::kDhcp) << addresses[i];
    EXPECT_EQ(punts[i].bytes, offers[i]) << addresses[i];
  }
  EXPECT_TRUE(sent.empty());
  EXPECT_EQ(Held(kWan), 0u);

  world.wan().checksum = ChecksumMode::kComplete;
  Publish();
  Process(DhcpReply(kWanMac, "8.8.8.8").PartialChecksum().Build(), kWan);
  ASSERT_EQ(punts.size(), offers.size() + 1);
  EXPECT_EQ(punts.back().bytes, DhcpReply(kWanMac, "8.8.8.8").Build());
}

TEST_F(PipelineTest, DhcpInTransitIsForwarded) {
  const auto leaves = [&](const Bytes& frame) {
    Forget();
    Process(frame, kWan);
    return punts.empty() && sent.size() == 1 && sent[0].slot == kLan;
  };
  EXPECT_TRUE(leaves(DhcpReply(kHostMac, "10.0.0.2").Build())) << "a renewal of a client behind us";
  EXPECT_TRUE(leaves(DhcpReply(kLanMac, "10.0.0.2").Build())) << "not the interface it came by";
  EXPECT_TRUE(leaves(DhcpReply(kWanMac, "10.0.0.2", 53).Build())) << "another server";
  EXPECT_TRUE(leaves(FromPeer().Ipv4("192.0.2.254", "10.0.0.2").Udp(67, 68).Payload(43).Build()));
  EXPECT_TRUE(leaves(FromPeer().Ipv4("192.0.2.254", "10.0.0.2").Udp(67, 68).Build()));
  EXPECT_TRUE(leaves(DhcpReply(kWanMac, "10.0.0.2").FragmentOffset(80).Build()));
}

// --- Fragments, and neighbours that are not known ---

TEST_F(PipelineTest, FragmentsCountOnceForTheConservationLaw) {
  Process(Out4().Udp(1, 2).Payload(4000).Build(), kLan, 1700);
  ASSERT_EQ(sent.size(), 3u);
  EXPECT_EQ(sent[0].in, kLan);
  EXPECT_FALSE(sent[1].in.valid());
  EXPECT_FALSE(sent[2].in.valid());
  EXPECT_EQ(Generated(GeneratedKind::kFragment), 2u);
  EXPECT_EQ(Generated(GeneratedKind::kNone), 0u);
  EXPECT_EQ(forwarded[0], 1u);
}

TEST_F(PipelineTest, FragmentsWaitForTheirNeighborTogether) {
  Process(FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Payload(3000).Build());
  ASSERT_EQ(sent.size(), 1u) << "the ARP request";
  EXPECT_EQ(LoadBe16(sent[0].bytes.data() + 12), 0x0806);
  EXPECT_EQ(Held(), 1u);
  Forget();
  Process(PacketBuilder()
              .Ethernet(kPeerMac, kWanMac)
              .ArpReply(kPeerMac, "192.0.2.77", kWanMac, "192.0.2.1")
              .Build(),
          kWan);
  EXPECT_EQ(sent.size(), 3u);
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(forwarded[0], 1u);
  EXPECT_EQ(counters->of(kWan).local_packets.Read(), 1u);
}

TEST_F(PipelineTest, ANeighborThatDoesNotAnswer) {
  Process({FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Build(),
           FromHost().Ipv6("2001:db8::2", "2001:db8:1::77").Udp(1, 2).Build()});
  EXPECT_EQ(Held(), 2u);
  Forget();
  RunTimersFor(Seconds(5));
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(Dropped(DropReason::kNeighborFailed), 2u);
  std::vector<uint16_t> errors;
  for (const Sent& s : sent) {
    if (s.slot == kLan)
      errors.push_back(LoadBe16(s.bytes.data() + (s.bytes[12] == 0x08 ? 34 : 54)));
  }
  EXPECT_THAT(errors, testing::UnorderedElementsAre(0x0301, 0x0103));
}

TEST_F(PipelineTest, ForgettingAnInterfaceNamesWhatWaited) {
  Process(FromHost().Ipv4("10.0.0.2", "192.0.2.77").Udp(1, 2).Build());
  pipeline->ForgetInterface(kWan);
  EXPECT_EQ(Held(), 0u);
  EXPECT_EQ(Dropped(DropReason::kInterfaceDown), 1u);
}

TEST_F(PipelineTest, AnOutboxThatIsFull) {
  const std::vector<Bytes> burst(64, Out4().Udp(1, 2).Build());
  for (int i = 0; i < 33; ++i) {
    std::vector<packet::Packet> packets;
    for (const Bytes& frame : burst) packets.push_back(world.Receive(frame));
    received[0] += packets.size();
    pipeline->Process(packets, kLan, world.snapshot, now);
  }
  Collect();
  EXPECT_EQ(sent.size(), packet::Outbox::kPerInterface);
  EXPECT_EQ(Dropped(DropReason::kTxRingFull), 33 * 64 - packet::Outbox::kPerInterface);
}

TEST_F(PipelineTest, TooManyPunts) {
  const std::vector<Bytes> burst(64, FromHost().Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build());
  for (int i = 0; i < 5; ++i) {
    std::vector<packet::Packet> packets;
    for (const Bytes& frame : burst) packets.push_back(world.Receive(frame));
    received[0] += packets.size();
    pipeline->Process(packets, kLan, world.snapshot, now);
  }
  Collect();
  EXPECT_EQ(punts.size(), packet::Outbox::kPunts);
  EXPECT_EQ(Dropped(DropReason::kPuntFailed), 5 * 64 - packet::Outbox::kPunts);
}

TEST_F(PipelineTest, AnInterfaceThatTheSnapshotDoesNotKnow) {
  world.lan().slot = IfaceSlot::None();
  Publish();
  Process(Out4().Udp(1, 2).Build());
  EXPECT_EQ(Dropped(DropReason::kInterfaceDown), 1u);
}

// --- For this machine ---

TEST_F(PipelineTest, EchoIsAnsweredUnlessTheKernelCouldObject) {
  const auto ping4 = [] {
    return FromHost().Ipv4("10.0.0.2", "10.0.0.1").IcmpEcho(1, 2).Payload(9);
  };
  const auto ping6 = [] {
    return FromHost().Ipv6("2001:db8::2", "2001:db8::1").Icmpv6Echo(1, 2).Payload(9);
  };
  Process({ping4().Build(), ping6().Build()});
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[1].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv6("2001:db8::1", "2001:db8::2")
                               .Icmpv6EchoReply(1, 2)
                               .Payload(9)
                               .Build());
  EXPECT_EQ(counters->of(kLan).local_packets.Read(), 2u);
  EXPECT_EQ(Generated(GeneratedKind::kEchoReply), 2u);

  Process({ping4().BadChecksum().Build(), ping6().BadChecksum().Build()});
  EXPECT_EQ(Dropped(DropReason::kChecksum), 2u);
  Forget();
  world.snapshot.input_firewall4 = true;
  world.snapshot.icmp.echo_ignore_all6 = true;
  Process({ping4().Build(), ping6().Build()});
  EXPECT_TRUE(sent.empty());
  ASSERT_EQ(punts.size(), 2u);
  EXPECT_EQ(punts[0].bytes, ping4().Build());
  EXPECT_EQ(punts[1].reason, PuntReason::kLocal);
}

TEST_F(PipelineTest, EchoFromASourceThatCannotBe) {
  Process(FromHost().Ipv4("192.0.2.1", "10.0.0.1").IcmpEcho(1, 2).Build());
  EXPECT_EQ(Dropped(DropReason::kMartianSource), 1u);
  world.lan().rp_filter = 1;
  Process(FromHost().Ipv4("203.0.113.1", "10.0.0.1").IcmpEcho(1, 2).Build());
  EXPECT_EQ(Dropped(DropReason::kReversePath), 1u);
  world.Route("172.22.0.0/16", RouteType::kPunt);
  Process(FromHost().Ipv4("172.22.0.1", "10.0.0.1").IcmpEcho(1, 2).Build());
  ASSERT_EQ(punts.size(), 1u);
  EXPECT_EQ(punts[0].reason, PuntReason::kRouteType);
}

TEST_F(PipelineTest, RepliesThatWouldLeaveByAnUnservedDevice) {
  world.Unicast("172.16.0.0/12", {Via(IfaceSlot::None(), kTunnelIndex)});
  world.Unicast("2001:db8:7::/48", {Via(IfaceSlot::None(), kTunnelIndex)});
  const std::vector<Bytes> frames = {
      FromHost().Ipv4("172.16.0.1", "10.0.0.1").IcmpEcho(1, 2).Build(),
      FromHost().Ipv4("172.16.0.1", "203.0.113.1").Ttl(1).Udp(1, 2).Build(),
      FromHost().Ipv6("2001:db8:7::1", "2001:db8::1").Icmpv6Echo(1, 2).Build(),
      FromHost().Ipv6("2001:db8:7::1", "2001:db8:9::1").HopLimit(1).Udp(1, 2).Build(),
  };
  for (const Bytes& frame : frames) {
    Forget();
    Process(frame);
    EXPECT_TRUE(sent.empty());
    ASSERT_EQ(punts.size(), 1u);
    EXPECT_EQ(punts[0].reason, PuntReason::kReplyRoute);
    EXPECT_EQ(punts[0].bytes, frame) << "as it came";
  }
}

TEST_F(PipelineTest, AnEchoReplyLargerThanTheMtuIsTheKernels) {
  world.lan().mtu = world.lan().mtu6 = 1300;
  Process({FromHost().Ipv4("10.0.0.2", "10.0.0.1").IcmpEcho(1, 2).Payload(1273).Build(),
           FromHost().Ipv6("2001:db8::2", "2001:db8::1").Icmpv6Echo(1, 2).Payload(1253).Build()});
  EXPECT_EQ(punts.size(), 2u);
  Process({FromHost().Ipv4("10.0.0.2", "10.0.0.1").IcmpEcho(1, 2).Payload(1272).Build(),
           FromHost().Ipv6("2001:db8::2", "2001:db8::1").Icmpv6Echo(1, 2).Payload(1252).Build()});
  EXPECT_EQ(sent.size(), 2u);
}

TEST_F(PipelineTest, NeighborDiscoveryGoesFirst) {
  world.snapshot.firewall6 = world.snapshot.input_firewall6 = true;
  Process(PacketBuilder()
              .Ethernet(kHostMac, "33:33:ff:00:00:01")
              .Ipv6("2001:db8::2", "ff02::1:ff00:1")
              .NeighborSolicitation("2001:db8::1")
              .SourceLinkLayer(kHostMac)
              .Build());
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].bytes[54], 136) << "an advertisement";
  EXPECT_EQ(counters->of(kLan).local_packets.Read(), 1u);
  Process(FromHost().Ipv6("2001:db8::2", "2001:db8::1").Icmpv6Echo(1, 2).Build());
  ASSERT_EQ(punts.size(), 1u);
  EXPECT_EQ(punts[0].reason, PuntReason::kFirewall);
}

// --- Redirects ---

TEST_F(PipelineTest, RedirectAndThePacketItself) {
  world.Unicast("198.51.100.0/24", {Via(kLan, kLanIndex, "10.0.0.9")});
  Know(kLan, A4("10.0.0.9"), kPeerMac);
  Process(FromHost().Ipv4("10.0.0.2", "198.51.100.1").Ttl(9).Udp(1, 2).Build());
  ASSERT_EQ(sent.size(), 2u);
  const Bytes left = PacketBuilder()
                         .Ethernet(kLanMac, kPeerMac)
                         .Ipv4("10.0.0.2", "198.51.100.1")
                         .Ttl(8)
                         .Udp(1, 2)
                         .Build();
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv4("10.0.0.1", "10.0.0.2")
                               .Tos(0xc0)
                               .Id(LoadBe16(sent[0].bytes.data() + 18))
                               .Icmp(5, 1, A4("10.0.0.9").value)
                               .Payload(Bytes(left.begin() + 14, left.end()))  // after the TTL
                               .Build());
  EXPECT_EQ(sent[1], (Sent{kLan, left, kLan}));
  EXPECT_EQ(Generated(GeneratedKind::kRedirect), 1u);
}

TEST_F(PipelineTest, Redirect6NamesTheRouterAndItsMac) {
  world.Unicast("2001:db8:7::/48", {Via(kLan, kLanIndex, "fe80::9")});
  Know(kLan, A6("fe80::9"), kPeerMac);
  const Bytes frame = FromHost().Ipv6("2001:db8::2", "2001:db8:7::1").HopLimit(9).Udp(1, 2).Build();
  Process(frame);
  ASSERT_EQ(sent.size(), 2u);
  Bytes option = {4, 7, 0, 0, 0, 0, 0, 0};
  option.insert(option.end(), frame.begin() + 14, frame.begin() + 14 + 48);  // before the hop limit
  EXPECT_EQ(sent[0].bytes, PacketBuilder()
                               .Ethernet(kLanMac, kHostMac)
                               .Ipv6("fe80::1", "2001:db8::2")
                               .Redirect("fe80::9", "2001:db8:7::1")
                               .TargetLinkLayer(kPeerMac)
                               .NdOption(option)
                               .Build());
  EXPECT_EQ(sent[1].bytes[21], 8);
}

// --- Anything ---

TEST_F(PipelineTest, RandomPacketsEndOnceEach) {
  world.lan().checksum = ChecksumMode::kComplete;
  world.Route("198.51.100.0/24", RouteType::kUnreachable);
  world.Unicast("172.16.0.0/12", {Via(IfaceSlot::None(), kTunnelIndex)});
  const char* const v4[] = {"10.0.0.2",     "10.0.0.1",   "192.0.2.77",      "203.0.113.1",
                            "198.51.100.1", "172.16.0.1", "8.8.8.8",         "224.0.0.1",
                            "127.0.0.1",    "0.0.0.0",    "255.255.255.255", "10.0.0.255",
                            "10.0.0.66"};
  const char* const v6[] = {
      "2001:db8::2", "2001:db8::1", "2001:db8:1::77", "2001:db8:9::1", "fe80::2", "ff02::1",
      "::",          "::1",         "2001:4860::1"};
  Rng rng(11);
  for (int round = 0; round < 300; ++round) {
    std::vector<Bytes> burst;
    for (uint64_t n = rng.Below(64); n > 0; --n) {
      PacketBuilder b = FromHost();
      if (rng.Chance(1, 2)) {
        b.Ipv4(v4[rng.Below(std::size(v4))], v4[rng.Below(std::size(v4))]);
        if (rng.Chance(1, 4)) b.DontFragment();
        if (rng.Chance(1, 8)) b.FragmentOffset(8);
      } else {
        b.Ipv6(v6[rng.Below(std::size(v6))], v6[rng.Below(std::size(v6))]);
      }
      b.Ttl(static_cast<uint8_t>(rng.Below(4)));
      if (rng.Chance(1, 3)) {
        b.Icmp(static_cast<uint8_t>(rng.Below(20)), 0);
      } else {
        b.Udp(1, 2);
        if (rng.Chance(1, 2)) b.PartialChecksum();
      }
      b.Payload(rng.Below(rng.Chance(1, 4) ? 1700 : 100));
      Bytes frame = b.Build();
      if (rng.Chance(1, 5))
        frame[12 + rng.Below(frame.size() - 12)] ^= static_cast<uint8_t>(rng.Next());
      burst.push_back(std::move(frame));
    }
    Process(burst, rng.Chance(1, 8) ? kWan : kLan, rng.Chance(1, 4) ? 600 : 0);
    RunTimersFor(Millis(static_cast<int64_t>(rng.Below(200))));
    Forget();
  }
  EXPECT_GT(forwarded[0], 0u);  // TearDown has the law
}

}  // namespace
}  // namespace sluice::dataplane
