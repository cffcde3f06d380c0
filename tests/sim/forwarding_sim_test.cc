// Packets through one router and through five in a row: each arrives once, in order, unchanged but
// for its TTL; and when links misbehave, every missing packet is accounted for.
#include <algorithm>
#include <set>

#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

struct Case {
  size_t routers;
  bool v6;
};

class ForwardingSimTest : public SimTest, public testing::WithParamInterface<Case> {};

TEST_P(ForwardingSimTest, AllArriveOnceInOrderWithTheirTtlCounted) {
  const auto [count, v6] = GetParam();
  Row row(net, count);
  constexpr uint32_t kPackets = 300;
  std::vector<Bytes> sent;
  for (uint32_t i = 0; i < kPackets; ++i) {
    sent.push_back(Numbered(row.from(v6), row.to(v6), i, 60 + i * 4).Build());
    net.After(Micros(20) * i, [&, i] { row.a->Send(sent[i]); });
  }
  net.Run(Seconds(2));
  ASSERT_EQ(NumbersOf(row.b->received), UpTo(kPackets));
  for (uint32_t i = 0; i < kPackets; ++i) {
    const Bytes& got = row.b->received[i].packet;
    EXPECT_EQ(PacketReader{got}.ttl(), 64 - count);
    EXPECT_TRUE(PacketReader{got}.checksums_right());
    // Undo what routers may do; the rest is as it was sent.
    Bytes undone = got;
    undone[v6 ? 7 : 8] = 64;
    if (!v6) std::copy(sent[i].begin() + 10, sent[i].begin() + 12, undone.begin() + 10);
    EXPECT_EQ(undone, sent[i]);
  }
  for (SimRouter* r : row.routers) {
    EXPECT_EQ(r->Forwarded("left"), kPackets);
    EXPECT_EQ(r->Held(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Rows, ForwardingSimTest,
                         testing::Values(Case{1, false}, Case{1, true}, Case{5, false},
                                         Case{5, true}),
                         [](const auto& param_info) {
                           return std::string(param_info.param.v6 ? "Ipv6" : "Ipv4") + "Through" +
                                  std::to_string(param_info.param.routers);
                         });

class FaultySimTest : public testing::TestWithParam<uint64_t> {};

// Faults on each link from a to b once all neighbours are known; the way back is sound.
TEST_P(FaultySimTest, WhatIsMissingIsWhatTheLinksDropped) {
  SCOPED_TRACE("seed " + std::to_string(GetParam()));
  SimNetwork net(GetParam());
  Row row(net, 3);
  row.Warm(net);
  constexpr uint32_t kPackets = 2000;
  std::vector<SimLinkStats> before;
  for (SimLink* link : row.links) {
    before.push_back(link->stats(0));
    link->options.loss = 0.03;
    link->options.duplicate = 0.02;
    link->options.reorder = 0.05;
    link->options.jitter = Micros(200);
  }
  for (uint32_t i = 0; i < kPackets; ++i) {
    net.After(Micros(50) * i,
              [&row, i] { row.a->Send(Numbered(row.from(i % 2 == 1), row.to(i % 2 == 1), i)); });
  }
  net.Run(Seconds(3));
  ASSERT_EQ(net.violation(), "");
  uint64_t lost = 0;
  uint64_t duplicated = 0;
  for (size_t i = 0; i < row.links.size(); ++i) {
    lost += row.links[i]->stats(0).lost - before[i].lost;
    duplicated += row.links[i]->stats(0).duplicated - before[i].duplicated;
    EXPECT_EQ(row.links[i]->stats(0).in_flight(), 0u);
  }
  EXPECT_GT(lost, 0u);
  EXPECT_GT(duplicated, 0u);
  EXPECT_EQ(row.b->received.size(), kPackets - lost + duplicated);
  const auto numbers = NumbersOf(row.b->received);
  EXPECT_FALSE(std::is_sorted(numbers.begin(), numbers.end()));  // so there was reordering
  for (SimRouter* r : row.routers) {
    EXPECT_EQ(r->Dropped(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, FaultySimTest, testing::Range<uint64_t>(1, 6));

struct Log {
  uint64_t digest;
  std::vector<SimHost::Received> a;
  std::vector<SimHost::Received> b;
};

Log RunFaulty(uint64_t seed) {
  SimNetwork net(seed);
  SimLinkOptions link;
  link.loss = link.duplicate = link.reorder = link.corrupt = 0.05;
  link.jitter = Micros(300);
  Row row(net, 2, {}, link);
  for (uint32_t i = 0; i < 300; ++i) {
    net.After(Millis(i), [&row, i] {
      const bool v6 = i % 3 == 0;
      row.a->Send(Numbered(row.from(v6), row.to(v6), i).Ttl(static_cast<uint8_t>(1 + i % 5)));
      row.b->Send(Numbered(row.to(v6), row.from(v6), i));
    });
  }
  net.Run(Seconds(20));
  EXPECT_EQ(net.violation(), "");
  return {net.digest(), row.a->received, row.b->received};
}

TEST(DeterminismSimTest, ASeedGivesTheSameRunToTheByte) {
  const Log first = RunFaulty(7);
  const Log second = RunFaulty(7);
  EXPECT_FALSE(first.a.empty());
  EXPECT_EQ(first.digest, second.digest);
  EXPECT_EQ(first.a, second.a);
  EXPECT_EQ(first.b, second.b);
  EXPECT_NE(RunFaulty(8).digest, first.digest);
}

using TtlSimTest = SimTest;

// Each router on the way shows itself by the address of the interface that leads back.
TEST_F(TtlSimTest, TracerouteSeesEveryHop) {
  Row row(net, 4);
  row.Warm(net);
  for (const bool v6 : {false, true}) {
    row.a->received.clear();
    for (uint8_t ttl = 1; ttl <= 5; ++ttl) {
      row.a->Send(Numbered(row.from(v6), row.to(v6), ttl).Ttl(ttl));
      net.Run(Seconds(1));
    }
    const std::vector<Bytes> errors = IcmpOf(row.a->received);
    ASSERT_EQ(errors.size(), 4u);
    for (size_t i = 0; i < errors.size(); ++i) {
      const PacketReader error{errors[i]};
      EXPECT_TRUE(error.checksums_right());
      EXPECT_EQ(error.icmp_type(), v6 ? wire::kIcmpv6TimeExceeded : wire::kIcmpTimeExceeded);
      EXPECT_EQ(error.icmp_code(), 0);
      const std::string link = std::to_string(i);
      const std::string hop = v6 ? "2001:db8:0:" + link + "::2" : "10.0." + link + ".2";
      EXPECT_EQ(ParseIpAddress(error.source()), ParseIpAddress(hop));
      EXPECT_EQ(LoadBe32(error.icmp_quote().data() + error.icmp_quote().size() - 4), i + 1);
    }
    EXPECT_EQ(NumbersOf(row.b->received).back(), 5u);
  }
}

// Two routers that think the other one knows better.
TEST_F(TtlSimTest, LoopsEndWithTheTtl) {
  Row row(net, 2);
  row.routers[0]->AddRoute("172.16.0.0/12", "10.0.1.2").AddRoute("fd00::/8", "2001:db8:0:1::2");
  row.routers[1]->AddRoute("172.16.0.0/12", "10.0.1.1").AddRoute("fd00::/8", "2001:db8:0:1::1");
  row.Warm(net);
  const uint64_t before = row.links[1]->stats(0).offered + row.links[1]->stats(1).offered;
  row.a->Send(Numbered(row.a4, "172.16.1.1", 1).Ttl(40));
  net.Run(Seconds(1));
  EXPECT_EQ(row.links[1]->stats(0).offered + row.links[1]->stats(1).offered - before, 39u + 1)
      << "39 hops and an error to a, or none";
  row.a->Send(Numbered(row.a6, "fd00::1", 2).Ttl(40));
  net.Run(Seconds(1));
  EXPECT_EQ(row.routers[0]->Dropped(DropReason::kTtlExpired) +
                row.routers[1]->Dropped(DropReason::kTtlExpired),
            2u);
  EXPECT_EQ(net.in_flight(), 0u);
  EXPECT_EQ(IcmpOf(row.a->received).size(), 2u);
}

}  // namespace
}  // namespace sluice::test
