// Ports and workers: whose port is it, what happens when there is none left, who may be evicted.
#include <memory>
#include <set>
#include <vector>

#include "base/rng.h"
#include "tables/flow_owner.h"
#include "unit/stages/nat/nat_fixture.h"

namespace sluice::stages {
namespace {

using tables::Flow;
using tables::FlowIndex;
using tables::FlowTuple;
using tables::OwnerOf;

FlowTuple RandomTuple(Rng& rng, uint8_t protocol, bool v6) {
  FlowTuple t;
  t.family = v6 ? Family::kIpv6 : Family::kIpv4;
  const auto address = [&] {
    return v6 ? Ipv6(rng.Next(), rng.Next()) : Ipv6(0, rng.Next() & 0xffff'ffff);
  };
  t.source = address();
  t.destination = address();
  t.protocol = protocol;
  if (protocol == wire::kProtocolIcmp || protocol == wire::kProtocolIcmpv6) {
    t.source_port = static_cast<uint16_t>(rng.Next());
    t.destination_port = v6 ? 0x8000 : 0x0800;
  } else if (tables::HasPorts(protocol)) {
    t.source_port = static_cast<uint16_t>(rng.Next());
    t.destination_port = static_cast<uint16_t>(rng.Next());
  }
  return t;
}

TEST(FlowOwnerTest, BothDirectionsHaveOneOwnerAndAllWorkersGetTheirShare) {
  Rng rng(1);
  for (const size_t workers : {1u, 2u, 3u, 7u, 32u}) {
    for (const uint8_t protocol : {6, 17, 136, 132, 1, 58, 47, 50}) {
      std::vector<int> share(workers);
      for (int i = 0; i < 3200; ++i) {
        const FlowTuple t = RandomTuple(rng, protocol, protocol == 58 || (i & 1) != 0);
        const WorkerId owner = OwnerOf(t, workers);
        ASSERT_LT(owner.value, workers);
        EXPECT_EQ(owner, OwnerOf(Inverse(t), workers)) << Show(t);
        ++share[owner.value];
      }
      for (const int n : share) EXPECT_GT(n, 3200 / static_cast<int>(workers) / 2) << workers;
    }
  }
}

TEST(FlowOwnerTest, TranslationWithPreservedPortsKeepsTheOwner) {
  Rng rng(2);
  for (const uint8_t protocol : {6, 17, 136, 132, 1}) {
    for (int i = 0; i < 1000; ++i) {
      FlowTuple t = RandomTuple(rng, protocol, false);
      const WorkerId owner = OwnerOf(t, 5);
      t.source.lo = rng.Next() & 0xffff'ffff;
      t.destination.lo = rng.Next() & 0xffff'ffff;
      EXPECT_EQ(OwnerOf(t, 5), owner);
    }
  }
}

TEST(FlowOwnerTest, ConsecutivePortsSpread) {
  // What a client does: one destination, source ports in a row.
  std::vector<int> share(4);
  for (uint16_t port = 32768; port < 32768 + 1000; ++port) {
    ++share[OwnerOf(Tuple("10.0.0.2", port, "1.1.1.1", 443), 4).value];
  }
  for (const int n : share) EXPECT_NEAR(n, 250, 60);
}

class NatWorkersTest : public NatFixture {};

// Several workers, each with its own table, as in the program: nothing is shared, and yet no two
// flows get the same outside.
TEST_F(NatWorkersTest, WorkersNeverChooseTheSameTuple) {
  constexpr uint32_t kWorkers = 3;
  std::vector<std::unique_ptr<tables::FlowTable>> tables;
  std::vector<std::unique_ptr<Nat>> nats;
  for (uint32_t w = 0; w < kWorkers; ++w) {
    tables.push_back(std::make_unique<tables::FlowTable>(
        tables::FlowTable::Options{.capacity = 20'000, .hash_seed = w}));
    nats.push_back(std::make_unique<Nat>(
        Nat::Options{
            .worker = WorkerId{static_cast<uint8_t>(w)}, .worker_count = kWorkers, .seed = w},
        *tables.back()));
  }
  std::set<std::string> outsides;
  Rng rng(4);
  for (int i = 0; i < 12'000; ++i) {
    // Few ports and destinations, so that most flows clash.
    const FlowTuple t = Tuple("10.0." + std::to_string(i / 250) + "." + std::to_string(i % 250),
                              static_cast<uint16_t>(4000 + rng.Below(3)), "1.1.1.1",
                              static_cast<uint16_t>(80 + rng.Below(2)),
                              rng.Chance(1, 2) ? wire::kProtocolTcp : wire::kProtocolUdp);
    const uint8_t w = OwnerOf(t, kWorkers).value;
    const FlowIndex index = tables[w]->Allocate(now, [](FlowIndex) { FAIL(); });
    Flow& flow = tables[w]->at(index);
    flow.tuples = {t, Inverse(t)};
    flow.expires = now + Seconds(100);
    nats[w]->SetupNull(flow, NatManip::kDestination);
    const auto result = nats[w]->Setup(flow, Masquerade(), Context());
    ASSERT_TRUE(result.verdict.is_continue());
    EXPECT_FALSE(result.foreign_reply);
    EXPECT_EQ(OwnerOf(flow.tuples[1], kWorkers).value, w);
    EXPECT_TRUE(tables[w]->Insert(index));
    const bool first = outsides.insert(std::to_string(t.protocol) + Show(Outside(flow))).second;
    EXPECT_TRUE(first) << Show(Outside(flow));
  }
}

TEST_F(NatWorkersTest, AnotherWorkersReplyIsReported) {
  Nat two({.worker = WorkerId{0}, .worker_count = 2}, table);
  int foreign = 0;
  for (uint16_t port = 4000; port < 4200; ++port) {
    const FlowTuple t = Tuple("198.51.100.7", port, "192.0.2.1", 80);
    if (OwnerOf(t, 2).value != 0) continue;
    Flow& flow = table.at(New(t));
    const auto result = two.Setup(flow, Dnat("10.0.0.5", 8080), Context());
    ASSERT_TRUE(result.verdict.is_continue());
    EXPECT_EQ(Outside(flow).destination_port, 8080);
    EXPECT_EQ(result.foreign_reply, OwnerOf(flow.tuples[1], 2).value != 0);
    EXPECT_EQ(two.SetupNull(flow, NatManip::kSource).foreign_reply, result.foreign_reply);
    foreign += result.foreign_reply;
  }
  EXPECT_GT(foreign, 20);
  EXPECT_EQ(two.counters().foreign.Read(), static_cast<uint64_t>(foreign));
}

TEST_F(NatWorkersTest, ARangeWithoutAnOwnPortIsUsedAllTheSame) {
  Nat two({.worker = WorkerId{0}, .worker_count = 2}, table);
  // A port p with which answers belong to the other worker.
  uint16_t p = 7000;
  while (OwnerOf(Tuple("1.1.1.1", 80, "192.0.2.1", p), 2).value == 0) ++p;
  Flow& flow = table.at(New(Tuple("10.0.0.2", 4000, "1.1.1.1", 80)));
  const auto result = two.Setup(flow, Snat("192.0.2.1", "192.0.2.1", 0, p, p), Context());
  EXPECT_TRUE(result.verdict.is_continue());
  EXPECT_TRUE(result.foreign_reply);
  EXPECT_EQ(Outside(flow).source_port, p);
}

TEST_F(NatWorkersTest, ExhaustionIsCountedAndBounded) {
  // Ten ports, one destination.
  const auto request = Masquerade(0, 2000, 2009);
  std::set<uint16_t> ports;
  for (int i = 0; i < 10; ++i) {
    const Flow& flow =
        Connect(Tuple("10.0.0." + std::to_string(10 + i), 4000, "1.1.1.1", 80), request);
    ports.insert(Outside(flow).source_port);
  }
  EXPECT_EQ(ports.size(), 10u);
  const FlowTuple t = Tuple("10.0.0.99", 4000, "1.1.1.1", 80);
  Flow& flow = table.at(New(t));
  EXPECT_EQ(nat.Setup(flow, request, Context()).verdict,
            packet::Verdict::Drop(DropReason::kNatExhausted));
  EXPECT_EQ(nat.counters().exhausted.Read(), 1u);
  EXPECT_EQ(flow.tuples[1], Inverse(t));
  EXPECT_EQ(flow.status, 0u);
  // Another destination has all of them again.
  Connect(Tuple("10.0.0.99", 4000, "1.1.1.2", 80), request);
}

TEST_F(NatWorkersTest, FindsTheLastPortsOfTheWholeRange) {
  // 16,384 ports and the preserved one: nearly all of them can be had, though each search is short.
  int got = 0;
  int refused = 0;
  for (int i = 0; i < 16'385; ++i) {
    const FlowTuple t = Tuple("10." + std::to_string(1 + i / 62'500) + "." +
                                  std::to_string(i / 250) + "." + std::to_string(i % 250),
                              4000, "1.1.1.1", 80);
    const FlowIndex index = New(t);
    Flow& flow = table.at(index);
    nat.SetupNull(flow, NatManip::kDestination);
    if (nat.Setup(flow, Masquerade(), Context()).verdict.is_continue()) {
      EXPECT_TRUE(table.Insert(index));
      ++got;
    } else {
      table.Free(index);
      ++refused;
    }
  }
  EXPECT_GT(got, 16'385 * 98 / 100) << "a search of 248 candidates rarely fails before the end";
  EXPECT_EQ(nat.counters().exhausted.Read(), static_cast<uint64_t>(refused));
}

class NatEvictionTest : public NatFixture {
 protected:
  // All ten ports are held by flows in this state, which ended at sequence number 1000.
  void Occupy(tables::TcpState state) {
    for (int i = 0; i < 10; ++i) {
      const Flow& flow =
          Connect(Tuple("10.0.0." + std::to_string(10 + i), 4000, "1.1.1.1", 80), kPorts);
      Flow& held = table.at(table.Find(flow.tuples[0]).flow);
      held.tcp.state = static_cast<uint8_t>(state);
      held.tcp.peers[0].end = 1000;
    }
  }
  Nat::Result Try(uint32_t sequence) {
    Flow& flow = table.at(last = New(Tuple("10.0.0.99", 4000, "1.1.1.1", 80)));
    flow.tcp.peers[0].end = sequence;
    nat.SetupNull(flow, NatManip::kDestination);
    return nat.Setup(flow, kPorts, Context());
  }
  const tables::NatRequest kPorts = Masquerade(0, 2000, 2009);
  FlowIndex last = tables::kNoFlow;
};

TEST_F(NatEvictionTest, AClosedFlowMakesRoom) {
  Occupy(tables::TcpState::kTimeWait);
  const auto result = Try(2000);
  ASSERT_TRUE(result.verdict.is_continue());
  ASSERT_NE(result.evict, tables::kNoFlow);
  EXPECT_EQ(table.at(result.evict).tuples[1], table.at(last).tuples[1]);
  table.Remove(result.evict);
  EXPECT_TRUE(table.Insert(last));
  EXPECT_EQ(nat.counters().evicted.Read(), 1u);
}

TEST_F(NatEvictionTest, ButNotWhenItsPeerCouldMistakeTheNewOneForIt) {
  Occupy(tables::TcpState::kTimeWait);
  EXPECT_EQ(Try(900).verdict, packet::Verdict::Drop(DropReason::kNatExhausted));
}

TEST_F(NatEvictionTest, LiveFlowsStay) {
  Occupy(tables::TcpState::kEstablished);
  EXPECT_EQ(Try(2000).verdict, packet::Verdict::Drop(DropReason::kNatExhausted));
}

}  // namespace
}  // namespace sluice::stages
