#include "tables/flow_table.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "base/rng.h"
#include "wire/protocol.h"

namespace sluice::tables {
namespace {

constexpr Nanos kStart = Seconds(1000);

FlowTuple Tuple(uint32_t source, uint32_t destination, uint16_t source_port,
                uint16_t destination_port, uint8_t protocol = wire::kProtocolUdp) {
  FlowTuple t;
  t.source = Ipv6(0, source);
  t.destination = Ipv6(0, destination);
  t.source_port = source_port;
  t.destination_port = destination_port;
  t.protocol = protocol;
  return t;
}

FlowTuple Turned(const FlowTuple& t) {
  FlowTuple r = t;
  std::swap(r.source, r.destination);
  std::swap(r.source_port, r.destination_port);
  return r;
}

class FlowTableTest : public testing::Test {
 protected:
  static FlowTable::Options Of(uint32_t capacity, uint32_t per_source = 0) {
    return {.capacity = capacity, .per_source = per_source, .hash_seed = 7, .start = kStart};
  }

  // Allocates, fills and confirms.
  FlowIndex Add(FlowTable& table, const FlowTuple& tuple, Nanos now, Nanos lifetime,
                uint32_t status = 0) {
    const FlowIndex flow = table.Allocate(now, [&](FlowIndex f) { dropped.push_back(f); });
    if (flow == kNoFlow) return flow;
    table.at(flow).tuples = {tuple, Turned(tuple)};
    table.at(flow).expires = now + lifetime;
    table.at(flow).status |= status;
    if (table.Insert(flow)) return flow;
    table.Free(flow);
    return kNoFlow;
  }
  std::vector<FlowIndex> Expired(FlowTable& table, Nanos now) {
    std::vector<FlowIndex> expired;
    while (!table.Expire(now, [&](FlowIndex f) { expired.push_back(f); })) {
    }
    return expired;
  }

  std::vector<FlowIndex> dropped;
};

TEST_F(FlowTableTest, BothTuplesAreFoundOnceConfirmed) {
  FlowTable table(Of(16));
  const FlowTuple tuple = Tuple(1, 2, 3, 4);
  const FlowIndex flow = table.Allocate(kStart, [](FlowIndex) {});
  ASSERT_NE(flow, kNoFlow);
  table.at(flow).tuples = {tuple, Turned(tuple)};
  table.at(flow).expires = kStart + Seconds(30);
  EXPECT_FALSE(table.Find(tuple).found());
  EXPECT_EQ(table.size(), 1u);
  ASSERT_TRUE(table.Insert(flow));
  EXPECT_EQ(table.Find(tuple).flow, flow);
  EXPECT_EQ(table.Find(tuple).direction, FlowDirection::kOriginal);
  EXPECT_EQ(table.Find(Turned(tuple)).flow, flow);
  EXPECT_EQ(table.Find(Turned(tuple)).direction, FlowDirection::kReply);
  EXPECT_TRUE(table.at(flow).Has(kFlowConfirmed));
  table.Remove(flow);
  EXPECT_FALSE(table.Find(tuple).found());
  EXPECT_FALSE(table.Find(Turned(tuple)).found());
  EXPECT_TRUE(table.at(flow).Has(kFlowDying));
  EXPECT_EQ(table.size(), 0u);
}

TEST_F(FlowTableTest, EveryPartOfATupleCounts) {
  FlowTable table(Of(16));
  const FlowTuple tuple = Tuple(1, 2, 3, 4);
  ASSERT_NE(Add(table, tuple, kStart, Seconds(30)), kNoFlow);
  std::vector<FlowTuple> others(8, tuple);
  others[0].source.lo ^= 1;
  others[1].source.hi ^= 1;
  others[2].destination.lo ^= 1;
  others[3].destination.hi ^= 1;
  others[4].source_port ^= 1;
  others[5].destination_port ^= 1;
  others[6].protocol ^= 1;
  others[7].family = Family::kIpv6;
  for (const FlowTuple& other : others) {
    EXPECT_NE(table.Hash(other), table.Hash(tuple));
    EXPECT_FALSE(table.Find(other).found());
  }
}

TEST_F(FlowTableTest, TheHashIsKeyed) {
  FlowTable a(Of(16));
  FlowTable b({.capacity = 16, .hash_seed = 8, .start = kStart});
  const FlowTuple tuple = Tuple(1, 2, 3, 4);
  EXPECT_NE(a.Hash(tuple), b.Hash(tuple));
  EXPECT_EQ(a.Hash(tuple), FlowTable(Of(16)).Hash(tuple));
}

TEST_F(FlowTableTest, ATakenTupleRefusesAndChangesNothing) {
  FlowTable table(Of(16));
  const FlowTuple tuple = Tuple(1, 2, 3, 4);
  const FlowIndex first = Add(table, tuple, kStart, Seconds(30));
  const FlowIndex second = table.Allocate(kStart, [](FlowIndex) {});
  // Its tuple of replies is the first one's, as when two flows were translated to the same port.
  table.at(second).tuples = {Tuple(9, 2, 9, 4), Turned(tuple)};
  table.at(second).expires = kStart + Seconds(30);
  EXPECT_FALSE(table.Insert(second));
  EXPECT_FALSE(table.at(second).Has(kFlowConfirmed));
  EXPECT_FALSE(table.Find(Tuple(9, 2, 9, 4)).found());
  EXPECT_EQ(table.Find(Turned(tuple)).flow, first);
  table.Free(second);
  EXPECT_EQ(table.size(), 1u);
}

TEST_F(FlowTableTest, TimersAreLazyAndNeverEarly) {
  FlowTable table(Of(16));
  const FlowIndex flow = Add(table, Tuple(1, 2, 3, 4), kStart, Seconds(30));
  table.at(flow).expires = kStart + Seconds(200);  // packets only write the field
  EXPECT_TRUE(Expired(table, kStart + Seconds(31)).empty());
  EXPECT_TRUE(Expired(table, kStart + Seconds(199)).empty());
  EXPECT_EQ(table.size(), 1u);
  EXPECT_EQ(Expired(table, kStart + Seconds(201)), std::vector<FlowIndex>{flow});
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.NextDeadline(), Nanos::Max());
}

TEST_F(FlowTableTest, AnEarlierDeadlineIsNoticedAtOnceWithHasten) {
  FlowTable table(Of(16));
  const FlowIndex slow = Add(table, Tuple(1, 2, 3, 4), kStart, Seconds(432'000));
  const FlowIndex fast = Add(table, Tuple(1, 2, 3, 5), kStart, Seconds(432'000));
  table.at(slow).expires = kStart + Seconds(10);
  table.at(fast).expires = kStart + Seconds(10);
  table.Hasten(fast);
  EXPECT_EQ(Expired(table, kStart + Seconds(11)), std::vector<FlowIndex>{fast});
  EXPECT_EQ(Expired(table, kStart + FlowTable::kMaxTimerDelay + Seconds(1)),
            std::vector<FlowIndex>{slow});
}

TEST_F(FlowTableTest, AFullTableGivesUpUnassuredFlowsFirst) {
  FlowTable table(Of(4));
  Add(table, Tuple(1, 2, 1, 4), kStart, Seconds(30), kFlowAssured);
  Add(table, Tuple(1, 2, 2, 4), kStart, Seconds(30), kFlowAssured);
  const FlowIndex half_open = Add(table, Tuple(1, 2, 3, 4), kStart, Seconds(30));
  Add(table, Tuple(1, 2, 4, 4), kStart, Seconds(30), kFlowAssured);
  const Nanos later = kStart + Millis(1);
  EXPECT_EQ(Add(table, Tuple(1, 2, 5, 4), later, Seconds(30), kFlowAssured), half_open);
  EXPECT_EQ(dropped, std::vector<FlowIndex>{half_open});
  EXPECT_FALSE(table.Find(Tuple(1, 2, 3, 4)).found());
  EXPECT_EQ(table.size(), 4u);
  // Nothing but assured flows is left.
  EXPECT_EQ(Add(table, Tuple(1, 2, 6, 4), later + Millis(1), Seconds(30)), kNoFlow);
  EXPECT_EQ(table.size(), 4u);
}

TEST_F(FlowTableTest, AFullTableGivesUpClosingConnectionsNext) {
  FlowTable table(Of(3));
  const uint8_t tcp = wire::kProtocolTcp;
  const FlowIndex open = Add(table, Tuple(1, 2, 1, 4, tcp), kStart, Seconds(30), kFlowAssured);
  table.at(open).tcp.state = static_cast<uint8_t>(TcpState::kEstablished);
  const FlowIndex closing = Add(table, Tuple(1, 2, 2, 4, tcp), kStart, Seconds(30), kFlowAssured);
  table.at(closing).tcp.state = static_cast<uint8_t>(TcpState::kTimeWait);
  Add(table, Tuple(1, 2, 3, 4), kStart, Seconds(30), kFlowAssured);
  EXPECT_EQ(Add(table, Tuple(1, 2, 5, 4), kStart + Millis(1), Seconds(30)), closing);
}

TEST_F(FlowTableTest, AFullTableGivesUpWhatIsOverItsTime) {
  FlowTable table(Of(2));
  Add(table, Tuple(1, 2, 1, 4), kStart, Seconds(300), kFlowAssured);
  const FlowIndex over = Add(table, Tuple(1, 2, 2, 4), kStart, Seconds(30), kFlowAssured);
  EXPECT_EQ(Add(table, Tuple(1, 2, 5, 4), kStart + Seconds(31), Seconds(30)), over);
}

TEST_F(FlowTableTest, WhatAPacketOfThisTickUsesIsNotGivenUp) {
  FlowTable table(Of(2));
  const FlowIndex a = Add(table, Tuple(1, 2, 1, 4), kStart, Seconds(30));
  const FlowIndex b = Add(table, Tuple(1, 2, 2, 4), kStart, Seconds(30));
  const Nanos later = kStart + Millis(1);
  table.Touch(a, later);
  EXPECT_EQ(Add(table, Tuple(1, 2, 5, 4), later, Seconds(30)), b);
  EXPECT_EQ(Add(table, Tuple(1, 2, 6, 4), later, Seconds(30)), kNoFlow);
  EXPECT_EQ(Add(table, Tuple(1, 2, 6, 4), later + Millis(1), Seconds(30)), a);
}

TEST_F(FlowTableTest, ARemovedEntryCanBeReadUntilTheTickEnds) {
  FlowTable table(Of(8));
  const FlowIndex flow = Add(table, Tuple(1, 2, 3, 4), kStart, Seconds(30));
  table.Touch(flow, kStart);
  table.Remove(flow);
  std::set<FlowIndex> used;
  for (uint16_t port = 10; port < 14; ++port) {
    used.insert(Add(table, Tuple(1, 2, port, 4), kStart, Seconds(30)));
  }
  EXPECT_FALSE(used.contains(flow));
  EXPECT_EQ(table.at(flow).tuples[0], Tuple(1, 2, 3, 4));
  EXPECT_TRUE(table.at(flow).Has(kFlowDying));
  EXPECT_EQ(Add(table, Tuple(1, 2, 20, 4), kStart + Millis(1), Seconds(30)), flow);
}

TEST_F(FlowTableTest, ALowerLimit) {
  FlowTable table(Of(8));
  for (uint16_t port = 0; port < 6; ++port) {
    Add(table, Tuple(1, 2, port, 4), kStart, Seconds(30), kFlowAssured);
  }
  table.SetLimit(4);
  EXPECT_EQ(Add(table, Tuple(1, 2, 20, 4), kStart + Millis(1), Seconds(30)), kNoFlow);
  table.SetLimit(100);
  EXPECT_NE(Add(table, Tuple(1, 2, 20, 4), kStart + Millis(1), Seconds(30)), kNoFlow);
  EXPECT_NE(Add(table, Tuple(1, 2, 21, 4), kStart + Millis(1), Seconds(30)), kNoFlow);
}

TEST_F(FlowTableTest, FlowsPerSource) {
  FlowTable table(Of(64, 3));
  const auto room = [&](uint32_t source) { return table.SourceHasRoom(Tuple(source, 9, 9, 9)); };
  std::vector<FlowIndex> flows;
  for (uint16_t port = 0; port < 3; ++port) {
    EXPECT_TRUE(room(1));
    flows.push_back(Add(table, Tuple(1, 2, port, 4), kStart, Seconds(30)));
  }
  EXPECT_FALSE(room(1));
  EXPECT_TRUE(room(3));
  table.Remove(flows[1]);
  EXPECT_TRUE(room(1));

  FlowTuple v6 = Tuple(1, 2, 1, 1);
  v6.family = Family::kIpv6;
  for (uint16_t i = 0; i < 3; ++i) {
    v6.source = Ipv6(0x2001'0db8'0000'0000, i);  // one /64
    EXPECT_TRUE(table.SourceHasRoom(v6));
    Add(table, v6, kStart, Seconds(30));
  }
  EXPECT_FALSE(table.SourceHasRoom(v6));
  v6.source.hi += 1;
  EXPECT_TRUE(table.SourceHasRoom(v6));
}

TEST_F(FlowTableTest, UncountedFlowsLeaveTheirSourceItsRoom) {
  FlowTable table(Of(64, 3));
  for (uint16_t port = 0; port < 5; ++port) {
    const FlowIndex flow = table.Allocate(kStart, [](FlowIndex) {});
    table.at(flow).tuples = {Tuple(1, 2, port, 4), Tuple(2, 1, 4, port)};
    table.at(flow).status = kFlowUncounted;
    table.at(flow).expires = kStart + Seconds(30);
    ASSERT_TRUE(table.Insert(flow));
    if (port % 2 == 0) table.Remove(flow);
  }
  for (uint16_t port = 10; port < 13; ++port) {
    EXPECT_TRUE(table.SourceHasRoom(Tuple(1, 9, 9, 9)));
    Add(table, Tuple(1, 2, port, 4), kStart, Seconds(30));
  }
  EXPECT_FALSE(table.SourceHasRoom(Tuple(1, 9, 9, 9))) << "three that count";
}

TEST_F(FlowTableTest, VisitsInPieces) {
  FlowTable table(Of(64));
  std::set<FlowIndex> expected;
  for (uint16_t port = 0; port < 20; ++port) {
    expected.insert(Add(table, Tuple(1, 2, port, 4), kStart, Seconds(30)));
  }
  const FlowIndex removed = *expected.begin();
  table.Remove(removed);
  expected.erase(removed);
  table.Allocate(kStart, [](FlowIndex) {});  // unconfirmed: not shown
  std::set<FlowIndex> seen;
  FlowIndex at = 0;
  while (at != kNoFlow) {
    at = table.Visit(at, 7, [&](FlowIndex f, const Flow& flow) {
      EXPECT_TRUE(flow.Has(kFlowConfirmed));
      EXPECT_TRUE(seen.insert(f).second);
    });
  }
  EXPECT_EQ(seen, expected);
}

// Against a map, with few tuples so that they clash and come back, and a table that is often full.
class FlowTableModel : public testing::TestWithParam<int> {};

TEST_P(FlowTableModel, DoesWhatAMapDoes) {
  const auto seed = static_cast<uint64_t>(GetParam());
  Rng rng(seed);
  const auto capacity = static_cast<uint32_t>(1 + rng.Below(400));
  FlowTable table(
      {.capacity = capacity, .per_source = 20, .hash_seed = rng.Next(), .start = kStart});
  struct Live {
    std::array<FlowTuple, 2> tuples;
    bool assured = false;
  };
  std::map<FlowIndex, Live> model;
  Nanos now = kStart;
  size_t removed = 0;  // in this tick: their places are free in the next
  const auto random_tuple = [&] {
    return Tuple(static_cast<uint32_t>(rng.Below(30)), 100 + static_cast<uint32_t>(rng.Below(4)),
                 static_cast<uint16_t>(rng.Below(8)), 80);
  };
  const auto lookup = [&](const FlowTuple& t) -> std::optional<std::pair<FlowIndex, int>> {
    for (const auto& [flow, live] : model) {
      for (int d = 0; d < 2; ++d) {
        if (live.tuples[static_cast<size_t>(d)] == t) return std::pair(flow, d);
      }
    }
    return {};
  };

  for (int step = 0; step < 4000; ++step) {
    const uint64_t draw = rng.Below(100);
    if (draw < 45) {
      Live live;
      live.tuples[0] = random_tuple();
      live.tuples[1] = Turned(live.tuples[0]);
      // Some are translated: their answers go to one of few ports.
      if (rng.Chance(1, 3)) {
        live.tuples[1].destination = Ipv6(0, 50);
        live.tuples[1].destination_port = static_cast<uint16_t>(1000 + rng.Below(100));
      }
      live.assured = rng.Chance(1, 2);
      const bool full = model.size() + removed == capacity;
      FlowIndex victim = kNoFlow;
      const FlowIndex flow = table.Allocate(now, [&](FlowIndex f) { victim = f; });
      if (flow == kNoFlow) {
        ASSERT_TRUE(full);
        continue;
      }
      if (victim != kNoFlow) {
        ASSERT_TRUE(model.contains(victim));
        ASSERT_FALSE(model.at(victim).assured && table.at(victim).expires > now);
        model.erase(victim);
      }
      ASSERT_FALSE(model.contains(flow));
      table.at(flow).tuples = live.tuples;
      table.at(flow).expires = now + Seconds(static_cast<int64_t>(1 + rng.Below(200)));
      if (live.assured) table.at(flow).status |= kFlowAssured;
      const bool taken = lookup(live.tuples[0]) || lookup(live.tuples[1]);
      ASSERT_EQ(table.Insert(flow), !taken);
      if (taken) {
        table.Free(flow);
      } else {
        model[flow] = live;
      }
    } else if (draw < 75) {
      const FlowTuple t = rng.Chance(1, 2) ? random_tuple() : Turned(random_tuple());
      const uint64_t hash = table.Hash(t);
      table.PrefetchBucket(hash);
      table.PrefetchFlow(hash);
      const auto found = table.Find(t, hash);
      const auto expected = lookup(t);
      ASSERT_EQ(found.found(), expected.has_value());
      if (expected) {
        ASSERT_EQ(found.flow, expected->first);
        ASSERT_EQ(static_cast<int>(found.direction), expected->second);
        table.at(found.flow).expires = now + Seconds(static_cast<int64_t>(1 + rng.Below(200)));
        if (rng.Chance(1, 4)) table.Hasten(found.flow);
        table.Touch(found.flow, now);
      }
    } else if (draw < 85) {
      if (model.empty()) continue;
      auto it = model.begin();
      std::advance(it, rng.Below(model.size()));
      table.Remove(it->first);
      model.erase(it);
      ++removed;
    } else {
      now += Millis(static_cast<int64_t>(1 + rng.Below(20'000)));
      removed = model.size();
      for (;;) {
        const bool done = table.Expire(
            now,
            [&](FlowIndex f) {
              EXPECT_LE(table.at(f).expires, now);
              EXPECT_EQ(model.erase(f), 1u);
            },
            1 + rng.Below(50));
        if (done) break;
      }
      removed -= model.size();
    }
    ASSERT_EQ(table.size(), model.size());
  }
  // Everybody is found, by both tuples, and nobody else; then time ends all of them.
  for (const auto& [flow, live] : model) {
    ASSERT_EQ(table.Find(live.tuples[0]).flow, flow);
    ASSERT_EQ(table.Find(live.tuples[1]).flow, flow);
  }
  std::map<uint32_t, uint32_t> per_source;
  for (const auto& [flow, live] : model) {
    ++per_source[static_cast<uint32_t>(live.tuples[0].source.lo)];
  }
  for (uint32_t source = 0; source < 30; ++source) {
    EXPECT_EQ(table.SourceHasRoom(Tuple(source, 1, 1, 1)), per_source[source] < 20) << source;
  }
  now += Seconds(400);
  while (!table.Expire(now, [&](FlowIndex f) { EXPECT_EQ(model.erase(f), 1u); })) {
  }
  EXPECT_TRUE(model.empty());
  EXPECT_EQ(table.size(), 0u);
  EXPECT_EQ(table.NextDeadline(), Nanos::Max());
}

INSTANTIATE_TEST_SUITE_P(Seeds, FlowTableModel, testing::Range(1, 25));

// At the limit, with churn: chains of full buckets must not stay behind.
TEST_F(FlowTableTest, ChurnLeavesNothingBehind) {
  constexpr uint32_t kCapacity = 20'000;
  FlowTable table(Of(kCapacity));
  Rng rng(3);
  std::vector<std::pair<FlowIndex, FlowTuple>> live;
  Nanos now = kStart;
  uint32_t next = 1;
  for (int round = 0; round < 5; ++round) {
    while (live.size() < kCapacity) {
      const FlowTuple t = Tuple(next++, static_cast<uint32_t>(rng.Next()), 1, 2);
      const FlowIndex flow = Add(table, t, now, Seconds(1000), kFlowAssured);
      ASSERT_NE(flow, kNoFlow);
      live.emplace_back(flow, t);
    }
    for (const auto& [flow, tuple] : live) {
      ASSERT_EQ(table.Find(tuple).flow, flow);
      ASSERT_EQ(table.Find(Turned(tuple)).flow, flow);
    }
    for (size_t i = live.size(); i > 0; --i) std::swap(live[i - 1], live[rng.Below(i)]);
    const size_t keep = round == 4 ? 0 : kCapacity / 3;
    while (live.size() > keep) {
      table.Remove(live.back().first);
      ASSERT_FALSE(table.Find(live.back().second).found());
      live.pop_back();
    }
    now += Millis(1);
  }
  EXPECT_EQ(table.size(), 0u);
}

}  // namespace
}  // namespace sluice::tables
