// The workers' part of the flow tier: what is promoted, what comes back, and how it ends. XDP is a
// few lines here; the real program is held against the pipeline in tests/bpf.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "unit/dataplane/offload_fixture.h"

namespace sluice::dataplane {
namespace {

// --- Routes ---

TEST_F(OffloadTest, ADestinationIsPromotedAfterSomePackets) {
  Repeat(To("203.0.113.1"), Offload::kThreshold);
  EXPECT_EQ(Drain(), 0u);
  Process(To("203.0.113.1"));
  ASSERT_EQ(Drain(), 1u);
  EXPECT_EQ(last->family, Family::kIpv4);
  EXPECT_EQ(last->key4.source, 0u);
  EXPECT_EQ(last->key4.destination, __builtin_bswap32(A4("203.0.113.1").value));
  EXPECT_EQ(last->key4.protocol, 0);
  EXPECT_EQ(last->key4.slot, kLan.value);
  EXPECT_EQ(last->action().out, kWan.value);
  EXPECT_EQ(last->action().mtu, 1500);
  EXPECT_EQ(last->action().flags, 0);
  EXPECT_EQ(Mac::FromWire(last->action().link), kPeerMac);
  EXPECT_EQ(Mac::FromWire(last->action().link + 6), kWanMac);
  EXPECT_TRUE(InForce(*last));
  Repeat(To("203.0.113.1", "10.0.0.3"), 5);
  EXPECT_EQ(Drain(), 0u) << "once is enough";
}

TEST_F(OffloadTest, Ipv6AndPairs) {
  const Bytes frame = FromHost().Ipv6("2001:db8::2", "2001:db8:9::1").Udp(1, 2).Build();
  Repeat(frame, kEnough);
  ASSERT_EQ(Drain(), 1u);
  EXPECT_EQ(last->family, Family::kIpv6);
  world.lan().rp_filter = 1;
  SetModes(SLUICE_OFFLOAD_PAIR);
  Repeat(To("203.0.113.1"), kEnough);
  ASSERT_EQ(Drain(), 1u);
  EXPECT_EQ(last->key4.source, __builtin_bswap32(A4("10.0.0.2").value));
  EXPECT_EQ(last->action().bucket[1], tables::OffloadBucket(A4("10.0.0.2")));
}

TEST_F(OffloadTest, NetworksThatDifferInAnyBitHavePlacesOfTheirOwn) {
  for (uint32_t bit = 0; bit < 32; ++bit) {  // more than share a place, of either half
    Ipv6 address = A6("2001:db8:9::1");
    (bit < 16 ? address.hi : address.lo) ^= uint64_t{1} << (bit < 16 ? bit : bit + 32);
    Repeat(FromHost().Ipv6("2001:db8::2", ToString(address)).Udp(1, 2).Build(), kEnough);
    EXPECT_EQ(Drain(), 1u) << bit;
  }
}

TEST_F(OffloadTest, WhatIsNotPlainStaysWithTheWorker) {
  world.Unicast("198.51.100.0/24", {Via(kWan, kWanIndex, "192.0.2.254"),
                                    Via(kWan, kWanIndex, "192.0.2.253")});
  Repeat(To("198.51.100.1"), 20);  // several paths
  Repeat(FromHost().Ipv4("10.0.0.2", "203.0.113.1").MoreFragments().Udp(1, 2).Payload(80).Build(), 20);
  Repeat(FromHost().Ipv4("10.0.0.2", "10.0.0.7").Udp(1, 2).Build(), 20);  // a redirect is due
  Repeat(To("203.0.113.1", "10.0.0.2", 1), 20);                          // TTL
  world.wan().offload_output = false;
  Change();
  Repeat(To("203.0.113.1"), 20);
  EXPECT_EQ(Drain(), 0u);
}

TEST_F(OffloadTest, CountsComeBackToTheInterfaces) {
  Repeat(To("203.0.113.1"), kEnough);
  Drain();
  Carry(*last, 100, 5800);
  Carry(*last, 20, 1160, 1);
  RunTimersFor(Millis(150));
  const InterfaceCounters& lan = counters->of(kLan);
  EXPECT_EQ(lan.offloaded_packets.Read(), 120u);
  EXPECT_EQ(lan.offloaded_bytes.Read(), 6960u + 120 * 14);
  EXPECT_EQ(lan.received_packets.Read(), 120u) << "the worker counts its own in Tick";
  EXPECT_EQ(counters->of(kWan).transmitted_packets.Read(), 120u);
}

// Each by itself: nothing that was promoted is in force, and the next packets promote anew.
TEST_F(OffloadTest, ARouteChangeEndsWhatGoesByIt) {
  Repeat(To("203.0.113.1"), kEnough);
  world.Unicast("198.51.100.0/24", {Via(kWan, kWanIndex, "192.0.2.254")});
  Repeat(To("198.51.100.1"), kEnough);
  ASSERT_EQ(Drain(), 2u);
  tables::BumpRoute(memory, *ParseIpv4Prefix("203.0.113.128/25"));
  EXPECT_EQ(EntriesInForce(), 1u) << "the other one is somewhere else";
  Process(To("203.0.113.1"));
  EXPECT_EQ(Drain(), 1u);
  EXPECT_EQ(EntriesInForce(), 2u);
  tables::BumpRoute(memory, *ParseIpv4Prefix("0.0.0.0/0"));
  EXPECT_EQ(EntriesInForce(), 0u);
}

TEST_F(OffloadTest, ARouteThatChangesWhileItIsUsed) {
  Repeat(To("203.0.113.1"), kEnough - 1);
  std::vector<packet::Packet> burst = {world.Receive(To("203.0.113.1"))};
  ++received[kLan.value];
  pipeline->BeginTick(now);
  tables::BumpRoute(memory, *ParseIpv4Prefix("203.0.113.0/24"));
  pipeline->Process(burst, kLan, world.snapshot, now);
  Collect();
  EXPECT_EQ(Drain(), 0u) << "what was looked up may be from before";
}

TEST_F(OffloadTest, AnotherMacAddressEndsAll) {
  Repeat(To("203.0.113.1"), kEnough);
  Drain();
  Know(kWan, A4("192.0.2.254"), Mac{{2, 0, 0, 0, 0, 0xcc}});  // the same neighbour, confirmed
  now += Seconds(2);
  const Bytes reply = FromPeer().ArpReply(Mac{{2, 0, 0, 0, 0, 0xcc}}, A4("192.0.2.254"), kWanMac,
                                         A4("192.0.2.1")).Build();
  Process(reply, kWan);
  EXPECT_EQ(EntriesInForce(), 0u);
  EXPECT_EQ(counters->offload.invalidations.Read(), 1u);
}

TEST_F(OffloadTest, IdleEntriesGoAndTheirIdsComeBack) {
  Repeat(To("203.0.113.1"), kEnough);
  Drain();
  const uint32_t epoch = last->action().epoch;
  LetPass(Seconds(34));
  EXPECT_EQ(Drain(), 1u);
  EXPECT_TRUE(entries.empty());
  EXPECT_EQ(counters->offload.ended_idle.Read(), 1u);
  EXPECT_EQ(counters->offload.entries.Read(), 0u);
  LetPass(Seconds(2));
  Repeat(To("203.0.113.1"), kEnough);
  ASSERT_EQ(Drain(), 1u);
  EXPECT_NE(last->action().epoch, epoch);
}

TEST_F(OffloadTest, WhenEntriesAreScarceTheIdlestGoSoon) {
  for (uint32_t i = 0; i < kIds + 10; ++i) {
    const std::string to = "203.0.113." + std::to_string(i + 1);
    Repeat(To(to.c_str()), kEnough);
  }
  Drain();
  EXPECT_EQ(entries.size(), kIds);
  EXPECT_GT(counters->offload.refused_full.Read(), 0u);
  const OffloadChange busy = *last;
  for (int i = 0; i < 30; ++i) {
    Carry(busy, 1, 60);
    RunTimersFor(Millis(100));
  }
  Drain();
  EXPECT_LT(entries.size(), kIds / 2 + 1);
  EXPECT_TRUE(InForce(busy));
}

TEST_F(OffloadTest, AFullRingOfOrdersLosesNothing) {
  Repeat(To("203.0.113.1"), kEnough);
  Drain();
  OffloadChange filler = *last;
  while (pipeline->offload().orders().TryPush(OffloadChange(filler))) {
  }
  Repeat(To("203.0.113.2"), kEnough);
  EXPECT_EQ(counters->offload.refused_ring.Read(), 1u);
  Drain();
  Process(To("203.0.113.2"));
  EXPECT_EQ(Drain(), 1u) << "later";
}

// --- Connections ---

TEST_F(OffloadTest, AnEstablishedConnectionIsPromotedBothWays) {
  Use(Tracked());
  Establish();
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_EQ(EntriesInForce(), 2u);
  EXPECT_TRUE(OnlyFlow().Has(tables::kFlowOffload));
  const OffloadChange down = *last;
  EXPECT_EQ(down.key4.slot, kWan.value);
  EXPECT_EQ(down.key4.source_port, __builtin_bswap16(80));
  EXPECT_EQ(down.action().flags & SLUICE_OFFLOAD_REWRITE, 0);
  const uint64_t before = OnlyFlow().counts[1].packets;
  const uint64_t rule = ruleset->RuleCount(0).packets;
  Carry(down, 1000, 1'500'000);
  now += Seconds(100);
  RunTimersFor(Millis(200));
  EXPECT_EQ(OnlyFlow().counts[1].packets, before + 1000);
  EXPECT_EQ(ruleset->RuleCount(0).packets, rule + 1000);
  EXPECT_GT(OnlyFlow().expires, now + Seconds(3600)) << "its traffic keeps it alive";
}

class OffloadEndTest : public OffloadTest, public testing::WithParamInterface<uint8_t> {};

TEST_P(OffloadEndTest, EndsTheConnectionsEntries) {
  Use(Tracked());
  Establish();
  ASSERT_EQ(EntriesInForce(), 2u);
  // Far from what the worker has seen: XDP has carried what was between.
  Process(Up(GetParam(), 5'000'000));
  EXPECT_EQ(EntriesInForce(), 0u);
  EXPECT_FALSE(OnlyFlow().Has(tables::kFlowOffload));
  EXPECT_NE(OnlyFlow().tcp.state, static_cast<uint8_t>(tables::TcpState::kEstablished));
  EXPECT_EQ(counters->conntrack.invalid.Read(), 0u);
  RunTimersFor(Seconds(3));
  Drain();
  EXPECT_TRUE(entries.empty());
}
INSTANTIATE_TEST_SUITE_P(Flags, OffloadEndTest,
                         testing::Values(static_cast<uint8_t>(kFin | kAck), kRst,
                                         static_cast<uint8_t>(kRst | kAck)));

// A server finishes while much is on its way that XDP has carried, and sends the oldest again. (For
// flows that it offloads, the kernel, too, has windows no more enforced.)
TEST_F(OffloadTest, AcksOfWhatXdpHasCarriedAreValid) {
  Use(Tracked());
  const auto acknowledge = [&](uint32_t up_to) {
    Process(FromHost()
                .Ipv4("10.0.0.2", "203.0.113.9")
                .Tcp(4000, 80, kAck)
                .Sequence(1001, up_to)
                .Build());
  };
  Establish();
  Process(Down(kFin | kAck), kWan);
  ASSERT_EQ(EntriesInForce(), 0u);
  acknowledge(8'000'000);
  acknowledge(9'000'000);
  Process(Down(kAck), kWan);
  acknowledge(10'000'000);
  EXPECT_EQ(counters->conntrack.invalid.Read(), 0u);
}

TEST_F(OffloadTest, ARuleThatWantsEachPacketKeepsItBack) {
  RulesetModel m = Tracked();
  m.Base("post", kPostrouting)
      .Rule({test::Payload(test::kNetwork, 8, 1), test::Cmp(test::kEq, {63}), nft::CounterExpr{}});  // TTL
  Use(m);
  Establish();
  EXPECT_EQ(entries.size(), 0u);
  EXPECT_GT(counters->offload.refused_rules.Read(), 0u);
}

TEST_F(OffloadTest, RulesThatGoAreCountedUntilThen) {
  Use(Tracked());
  Establish();
  const OffloadChange entry = *last;
  const auto old = ruleset;
  const uint64_t before = old->RuleCount(0).packets;
  Carry(entry, 7, 700);
  Use(Tracked());
  pipeline->SeeSnapshot(world.snapshot, now);
  EXPECT_EQ(old->RuleCount(0).packets, before + 7);
  EXPECT_EQ(EntriesInForce(), 0u);
  Process(Down(kAck | kPsh), kWan);
  EXPECT_EQ(Drain(), 1u) << "judged afresh, promoted again";
  Carry(*last, 5, 500);
  RunTimersFor(Millis(200));
  EXPECT_EQ(ruleset->RuleCount(0).packets, before + 7 + 1 + 5) << "the same rule, so its count goes on";
}

TEST_F(OffloadTest, AnIdleConnectionsEntriesEndWithIt) {
  Use(Tracked());
  Establish();
  pipeline->firewall().flows().Visit(0, 65536, [&](tables::FlowIndex i, const tables::Flow&) {
    pipeline->firewall().flows().at(i).expires = now + Seconds(3);
  });
  RunTimersFor(Seconds(2));
  EXPECT_EQ(EntriesInForce(), 2u);
  RunTimersFor(Seconds(2));
  EXPECT_EQ(EntriesInForce(), 0u) << "sooner than an idle entry goes";
}

TEST_F(OffloadTest, PacketsThatComeByAnotherInterfaceFromNowOn) {
  Use(Tracked());
  Establish();
  ASSERT_EQ(entries.size(), 2u);
  const Bytes up =
      FromPeer().Ipv4("10.0.0.2", "203.0.113.9").Tcp(4000, 80, kAck).Sequence(1001, 2000).Build();
  Repeat(up, 10, kWan);
  EXPECT_EQ(Drain(), 0u) << "they may come by both";
  now += Seconds(1);
  Process(up, kWan);
  ASSERT_EQ(Drain(), 2u) << "the old one goes, a new one comes";
  EXPECT_EQ(last->key4.slot, kWan.value);
  EXPECT_TRUE(InForce(*last));
  EXPECT_EQ(entries.size(), 2u);
  EXPECT_EQ(EntriesInForce(), 2u);
}

TEST_F(OffloadTest, WhenTheWorldChangesAllTheTimePromotionPauses) {
  Use(Tracked());
  Establish();
  for (int i = 0; i < 5; ++i) {
    now += Millis(10);
    tables::BumpWorld(memory);
    Process(Up(kAck, 1001));
  }
  EXPECT_LE(Drain(), 1u);
  now += Millis(200);
  Process(Up(kAck, 1001));
  EXPECT_EQ(Drain(), 1u);
}

class AdaptiveOffloadTest : public OffloadTest {
 protected:
  AdaptiveOffloadTest() { adaptive = true; }
};

TEST_F(AdaptiveOffloadTest, EntriesThatCarryLittleCostMore) {
  for (int round = 0; round < 12; ++round) {
    Confirm();
    for (uint32_t i = 0; i < 60; ++i) {
      const std::string to = "203.0.113." + std::to_string(i + 1);
      Repeat(To(to.c_str()), pipeline->offload().threshold() + 1);
    }
    Drain();
    LetPass(Seconds(40));
    Drain();
  }
  EXPECT_GT(pipeline->offload().threshold(), Offload::kThreshold);
}

}  // namespace
}  // namespace sluice::dataplane
