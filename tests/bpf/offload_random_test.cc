// The flow tier, natively and in the kernel, against the worker's own stages, over random flows and
// packets with all that must go to a worker: the same bytes, and the right counts.
//
// SLUICE_OFFLOAD_PACKETS sets how many packets (40,000 without it, 1,000,000 in CI),
// SLUICE_OFFLOAD_SEED the seed.
#include "support/environment.h"
#include "support/offload_random.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/rng.h"
#include "support/offload_flow.h"
#include "support/offload_native.h"
#include "support/offload_rig.h"
#include "support/router_world.h"

namespace sluice {
namespace {

using tables::FlowDirection;
using test::Bytes;
using test::FrameOf;
using test::OffloadFlow;
using test::OffloadRig;

constexpr uint8_t kSlot = 5;
const Ipv4 kOwnAddress{0x0a000001};

class OffloadRandomTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr uint32_t kFlows = 128;

  void SetUp() override {
    rig_ = std::make_unique<OffloadRig>(GetParam(), 2 * kFlows);
    for (uint32_t& routes : rig_->memory().state->routes) {
      routes = static_cast<uint32_t>(rng_.Next());
    }
    const uint32_t own = SLUICE_OFFLOAD_OWN_BIT(kOwnAddress.value);
    rig_->memory().state->own4[own / 64] |= 1ull << (own % 64);
    own_ = kOwnAddress;
  }

  // Other flows, another mode.
  void NewRound() {
    std::vector<tables::OffloadChange> changes;
    for (auto& [name, flow] : flows_) {
      if (!stale_.contains(name)) rig_->Live(flow.id, 0);
      changes.push_back(test::Removal(test::MakeChange(flow, rig_->memory(), mode_, kSlot)));
    }
    flows_.clear();
    stale_.clear();
    mode_ = static_cast<sluice_offload_mode>(1 + rng_.Below(3));
    complete_ = rng_.Chance(3, 4);
    for (uint32_t id = 0; id < kFlows; ++id) {
      const Family family = rng_.Chance(1, 2) ? Family::kIpv4 : Family::kIpv6;
      OffloadFlow flow =
          test::RandomFlow(rng_, family, mode_ == SLUICE_OFFLOAD_FLOW && rng_.Chance(3, 4));
      flow.id = id;
      flow.epoch = ++epoch_;
      const std::string name = NameOf(flow.in);
      if (flows_.contains(name)) continue;
      flows_[name] = flow;
      rig_->Live(id, flow.epoch);
      changes.push_back(test::MakeChange(flow, rig_->memory(), mode_, kSlot));
      switch (rng_.Below(10)) {
        case 0:
          rig_->Live(id, 0);
          break;
        case 1:
          rig_->Live(id, flow.epoch + 1);
          break;
        case 2:
          ++changes.back().action().world;
          break;
        case 3:
          ++changes.back().action().routes[rng_.Below(2)];
          break;
        default:
          continue;
      }
      stale_[name] = true;
    }
    rig_->Apply(changes);
    // There are no relays; to look for them changes nothing.
    word_ = SLUICE_OFFLOAD_WORD(mode_, mode_, kSlot, complete_ ? 1 : 0);
    if (rng_.Chance(1, 2)) word_ |= SLUICE_OFFLOAD_RELAYS;
    ASSERT_TRUE(rig_->program().SetOffload(word_));
  }

  std::string NameOf(const tables::FlowTuple& t) const {
    sluice_offload_key6 key6{};
    sluice_offload_key4 key4{};
    if (t.family == Family::kIpv4) {
      test::FillKey(t, mode_, kSlot, key4);
      return {reinterpret_cast<const char*>(&key4), sizeof key4};
    }
    test::FillKey(t, mode_, kSlot, key6);
    return {reinterpret_cast<const char*>(&key6), sizeof key6};
  }

  Bytes NewFrame() {
    auto at = flows_.begin();
    std::advance(at, static_cast<long>(rng_.Below(flows_.size())));
    tables::FlowTuple t = at->second.in;
    if (mode_ != SLUICE_OFFLOAD_FLOW) {
      if (mode_ == SLUICE_OFFLOAD_DESTINATION) t.source = test::RandomAddress(rng_, t.family);
      if (rng_.Chance(1, 4)) t.protocol = static_cast<uint8_t>(rng_.Next());
    }
    const size_t payload = rng_.Chance(1, 4) ? rng_.Below(1500) : rng_.Below(60);
    FrameOf f = test::RandomFrame(rng_, t, payload);
    const uint64_t kind = rng_.Below(8);
    if (kind < 2) test::Spoil(rng_, f);
    if (kind == 2 || f.bytes.size() < 60) {
      for (uint64_t n = rng_.Below(30); n > 0; --n) {
        f.bytes.push_back(static_cast<uint8_t>(rng_.Next()));
      }
    }
    return f.bytes;
  }

  // The flow that the tier forwards this frame by.
  const OffloadFlow* Expected(const Bytes& frame) {
    tables::FlowTuple t;
    if (!test::TierTakes(frame, mode_, own_, t)) return nullptr;
    const std::string name = NameOf(t);
    const auto found = flows_.find(name);
    if (found == flows_.end() || stale_.contains(name)) return nullptr;
    return IpBytes(frame) > 1500 ? nullptr : &found->second;
  }
  static uint64_t IpBytes(const Bytes& frame) {
    return frame[12] == 0x08 ? LoadBe16(&frame[16]) : LoadBe16(&frame[18]) + 40u;
  }

  void Check(const Bytes& frame) {
    const OffloadFlow* const flow = Expected(frame);
    Bytes native = frame;
    ASSERT_EQ(test::ForwardsNatively(rig_->maps(), word_, native), flow != nullptr);
    if (flow == nullptr) {
      ++to_worker_;
      ASSERT_EQ(native, frame);
      ASSERT_FALSE(rig_->Forwards(frame)) << test::ToHex(frame);
      ASSERT_EQ(rig_->frame(), frame) << "changed, and not sent";
      return;
    }
    ++forwarded_;
    bool completed = false;
    OffloadFlow translated = *flow;
    if (mode_ != SLUICE_OFFLOAD_FLOW) {  // it is what it is
      test::TierTakes(frame, mode_, own_, translated.in);
      translated.out = translated.in;
    }
    const FlowDirection direction =
        rng_.Chance(1, 2) ? FlowDirection::kOriginal : FlowDirection::kReply;
    const Bytes expected =
        test::Forwarded(world_, frame, translated, complete_, direction, completed);
    OffloadRig::Counted counts = rig_->Cell(flow->id);
    ++counts.packets;
    counts.bytes += IpBytes(frame);
    counts.completed += completed;
    completed_ += completed;
    ASSERT_EQ(native, expected) << "of " << test::ToHex(frame);
    ASSERT_TRUE(rig_->Forwards(frame)) << test::ToHex(frame);
    ASSERT_EQ(rig_->frame(), expected) << "of " << test::ToHex(frame);
    ASSERT_EQ(rig_->Cell(flow->id), counts);
  }

  uint64_t seed_ = test::FromEnvironment("SLUICE_OFFLOAD_SEED", 1);
  Rng rng_{seed_};
  test::RouterWorld world_;
  std::unique_ptr<OffloadRig> rig_;
  Ipv4 own_;
  sluice_offload_mode mode_ = SLUICE_OFFLOAD_FLOW;
  bool complete_ = false;
  uint32_t word_ = 0;
  uint32_t epoch_ = 0;
  std::map<std::string, OffloadFlow> flows_;
  std::map<std::string, bool> stale_;
  uint64_t forwarded_ = 0;
  uint64_t completed_ = 0;
  uint64_t to_worker_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Entry, OffloadRandomTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "frags" : "plain"; });

TEST_P(OffloadRandomTest, SameAsTheWorkersStages) {
  SCOPED_TRACE("SLUICE_OFFLOAD_SEED=" + std::to_string(seed_));
  const uint64_t packets = test::FromEnvironment("SLUICE_OFFLOAD_PACKETS", 40'000) / 2;
  for (uint64_t i = 0; i < packets && !HasFailure(); ++i) {
    if (i % 2000 == 0) NewRound();
    ASSERT_NO_FATAL_FAILURE(Check(NewFrame())) << "packet " << i;
  }
  // All that matters was met.
  EXPECT_GT(forwarded_, packets / 4);
  EXPECT_GT(completed_, packets / 20);
  EXPECT_GT(to_worker_, packets / 10);
  RecordProperty("forwarded", static_cast<int>(forwarded_));
  const io::af_xdp::XdpCounts counts = *rig_->program().ReadCounts();
  EXPECT_EQ(counts[SLUICE_XDP_FLOW], forwarded_);
  world_.CheckFrames();
}

}  // namespace
}  // namespace sluice
