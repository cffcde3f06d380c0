// Whenever a FlowPath says that the packets of a flow fare alike, they do: random rules, random flows,
// and many packets of each that differ in everything that may.
#include <gtest/gtest.h>

#include <array>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "support/filter_world.h"
#include "support/random_flow.h"
#include "tables/flow.h"

namespace sluice::test {
namespace {

using stages::FlowPath;
using stages::Variance;
using tables::StateCell;

constexpr std::array kHooks = {HookPoint::kPreroutingRaw, HookPoint::kForward,
                               HookPoint::kPostroutingNat};
constexpr uint64_t kMarks = 3;

// What became of a packet.
struct Outcome {
  std::vector<FilterVerdict> verdicts;
  uint32_t mark = 0;
  uint32_t connection_mark = 0;
  uint8_t state = 0;
  std::map<StateCell*, uint64_t> counted;  // how often each cell counted the whole packet
  bool miscounted = false;                 // a cell has counted something else
  bool written = false;
  uint64_t logged = 0;
};

bool operator==(const Outcome& a, const Outcome& b) {
  const auto same = [](const FilterVerdict& x, const FilterVerdict& y) {
    return x.kind == y.kind && x.rule == y.rule && x.chain == y.chain &&
           x.reject_code == y.reject_code &&
           (x.kind != Kind::kNat ||
            (x.nat.kind == y.nat.kind && x.nat.flags == y.nat.flags &&
             x.nat.min_address == y.nat.min_address && x.nat.max_address == y.nat.max_address &&
             x.nat.min_port == y.nat.min_port && x.nat.max_port == y.nat.max_port));
  };
  return std::equal(a.verdicts.begin(), a.verdicts.end(), b.verdicts.begin(), b.verdicts.end(),
                    same) &&
         a.mark == b.mark && a.connection_mark == b.connection_mark && a.state == b.state &&
         a.counted == b.counted && !a.miscounted && !b.miscounted && a.written == b.written &&
         a.logged == b.logged;
}

class FlowWorld : public FilterWorld {
 public:
  explicit FlowWorld(FlowRules& rules) : rng_(rules.rng()) {
    Restart({.index_threshold = rng_.Chance(1, 2) ? 4u : 1'000'000u});
    Use(rules.WithOtherHooks(2 + rng_.Below(rng_.Chance(1, 2) ? 6 : 30)));
    wall_offset = Seconds(3600 * static_cast<int64_t>(1 + rng_.Below(24)));
    FindCells();
    AddRoute("10.0.0.0/24", 3, 0);
    AddRoute("192.168.0.0/16", 4, 1);
    AddRoute6("2001:db8::/48", 3, 0);
  }

  void Begin(const RandomFlow& f) {
    packets_of_ = f;
    connection_ = tables::Flow{};
    connection_.status = tables::kFlowConfirmed | tables::kFlowSeenReply |
                         (rng_.Chance(1, 2) ? tables::kFlowAssured : 0u);
    connection_.mark = static_cast<uint32_t>(rng_.Below(kMarks));
    connection_.tuples[0].source_port = f.source_port;
    connection_.tuples[0].protocol = f.tcp ? 6 : 17;
    state_ = rng_.Chance(7, 8) ? tables::CtState::kEstablished : tables::CtState::kUntracked;
  }

  // The flow's next packet: other bytes, at another time, on a connection that has done more.
  Outcome Next(FlowPath* path) {
    now += Millis(static_cast<int64_t>(rng_.Below(rng_.Chance(1, 8) ? 1'000'000 : 100)));
    if (path == nullptr && rng_.Chance(1, 2)) connection_.status |= tables::kFlowAssured;
    tables::Flow seen = connection_;
    seen.counts[0] = {rng_.Below(100), rng_.Below(100'000)};
    seen.counts[1] = {rng_.Below(100), rng_.Below(100'000)};
    seen.expires = now + Millis(static_cast<int64_t>(rng_.Below(10'000)));
    flow = state_ == tables::CtState::kUntracked ? nullptr : &seen;
    const Bytes frame = packets_of_.Packet(rng_);
    Load(frame);
    p.ct_state = static_cast<uint8_t>(state_);
    if (path != nullptr) path->Begin(p);
    const std::vector<std::array<uint64_t, 2>> before = Counts();
    const uint64_t logged = filter.logged();
    Outcome out;
    for (const HookPoint hook : kHooks) {
      stages::FilterContext context = Context();
      context.path = path;
      if (hook == HookPoint::kPreroutingRaw) context.out = nullptr;
      out.verdicts.push_back(filter.Run(hook, family, context));
      if (out.verdicts.back().kind != Kind::kAccept) break;
    }
    out.mark = p.mark;
    out.connection_mark = seen.mark;
    out.state = p.ct_state;
    out.written = Frame() != frame;
    out.logged = filter.logged() - logged;
    const std::vector<std::array<uint64_t, 2>> after = Counts();
    for (size_t i = 0; i < cells_.size(); ++i) {
      const uint64_t times = after[i][0] - before[i][0];
      if (times != 0) out.counted[cells_[i]] = times;
      if (after[i][1] - before[i][1] != times * p.l3_length()) out.miscounted = true;
    }
    connection_.mark = seen.mark;
    flow = nullptr;
    return out;
  }

 private:
  void AddRoute(const char* prefix, uint32_t ifindex, uint8_t slot) {
    EXPECT_TRUE(fib4.Insert(*ParseIpv4Prefix(prefix), Intern(ifindex, slot)).ok());
  }
  void AddRoute6(const char* prefix, uint32_t ifindex, uint8_t slot) {
    EXPECT_TRUE(fib6.Insert(*ParseIpv6Prefix(prefix), Intern(ifindex, slot)).ok());
  }
  tables::RouteId Intern(uint32_t ifindex, uint8_t slot) {
    tables::Route route;
    route.paths.push_back({.oif = IfIndex{ifindex}, .slot = IfaceSlot{slot}});
    return *routes.Intern(route);
  }

  void FindCells() {
    const tables::Program& program = ruleset->program();
    std::set<StateCell*> cells;
    for (const tables::Op& op : program.ops) {
      if (op.code == tables::OpCode::kCounter) cells.insert(op.cell);
    }
    for (const tables::StatefulExpr& e : program.stateful) {
      if (e.kind == tables::StatefulKind::kCounter) cells.insert(e.cell);
    }
    for (uint32_t s = 0; s < ruleset->set_count(); ++s) {
      const tables::ElementSet& set = ruleset->set(s);
      set.ForEach([&](std::span<const uint8_t>, std::span<const uint8_t>, const uint8_t* value) {
        if (set.State(value) == nullptr) return;
        for (const tables::StatefulExpr& e : set.State(value)->exprs) cells.insert(e.cell);
      });
    }
    cells_.assign(cells.begin(), cells.end());
  }
  std::vector<std::array<uint64_t, 2>> Counts() const {
    std::vector<std::array<uint64_t, 2>> out;
    for (StateCell* cell : cells_) out.push_back({cell->a.load(), cell->b.load()});
    return out;
  }

  Rng& rng_;
  RandomFlow packets_of_;
  tables::Flow connection_{};
  tables::CtState state_ = tables::CtState::kEstablished;
  std::vector<StateCell*> cells_;
};

std::map<StateCell*, uint64_t> CountedBy(const FlowPath& path) {
  std::map<StateCell*, uint64_t> out;
  for (StateCell* cell : path.counted()) ++out[cell];
  return out;
}

struct Tally {
  size_t flows = 0;
  size_t alike = 0;
  size_t with_counters = 0;
  size_t by_routes = 0;
  size_t dropped = 0;
  size_t translated = 0;
  size_t kept_without_need = 0;  // said to vary, without a packet that did
  std::array<size_t, stages::kVarianceCount> reasons{};
};

void Check(uint64_t seed, Tally& tally) {
  constexpr int kFlows = 12;
  constexpr int kPackets = 40;
  SCOPED_TRACE("seed " + std::to_string(seed));
  FlowRules rules(seed, 14, seed % 2 == 0 ? 20 : 6);
  FlowWorld w(rules);
  for (int i = 0; i < kFlows; ++i) {
    w.Begin(rules.Flow());
    FlowPath path;
    const Outcome first = w.Next(&path);
    ++tally.flows;
    ++tally.reasons[static_cast<size_t>(path.variance)];
    if (path.varies()) {
      bool differs = false;
      for (int k = 0; k < kPackets && !differs; ++k) differs = !(w.Next(nullptr) == first);
      tally.kept_without_need += !differs;
      continue;
    }
    ++tally.alike;
    tally.with_counters += path.cell_count > 0;
    tally.by_routes += path.route_count > 0;
    tally.dropped += first.verdicts.back().kind == Kind::kDrop;
    tally.translated += first.verdicts.back().kind == Kind::kNat;
    ASSERT_EQ(CountedBy(path), first.counted) << "flow " << i;
    ASSERT_FALSE(first.written) << "flow " << i;
    ASSERT_EQ(first.logged, 0u) << "flow " << i;
    for (int k = 0; k < kPackets; ++k) {
      ASSERT_TRUE(w.Next(nullptr) == first) << "flow " << i << " packet " << k;
    }
  }
}

TEST(FilterPathRandomTest, WhatIsSaidToFareAlikeDoes) {
  Tally tally;
  for (uint64_t seed = 1; seed <= 500 && !testing::Test::HasFatalFailure(); ++seed) {
    Check(seed, tally);
  }
  // It says something, and all sorts of it.
  EXPECT_GT(tally.alike, tally.flows / 4);
  EXPECT_GT(tally.with_counters, tally.flows / 20);
  EXPECT_GT(tally.by_routes, 20u);
  EXPECT_GT(tally.dropped, 100u);
  EXPECT_GT(tally.translated, 20u);
  const std::set<Variance> never = {Variance::kForm, Variance::kReject, Variance::kKernel,
                                    Variance::kManyRoutes, Variance::kCount};
  for (size_t i = 0; i < stages::kVarianceCount; ++i) {
    const auto reason = static_cast<Variance>(i);
    if (never.contains(reason)) continue;
    EXPECT_GT(tally.reasons[i], 0u) << VarianceLabel(reason);
  }
  RecordProperty("flows", static_cast<int>(tally.flows));
  RecordProperty("alike", static_cast<int>(tally.alike));
  RecordProperty("kept_without_need", static_cast<int>(tally.kept_without_need));
}

}  // namespace
}  // namespace sluice::test
