// What `sluice explain` says about the tier that carries a packet. Its other words are tested where
// a whole program says them (tests/e2e/visibility_test.py).
#include "app/explain_walk.h"

#include <gtest/gtest.h>

#include <string>

#include "control/packet_text/packet_text.h"

namespace sluice::app {
namespace {

using dataplane::Walk;
using dataplane::WalkStep;
using Tier = WalkStep::Tier;

telemetry::ExplainStage StageOf(Tier tier, stages::Variance variance = stages::Variance::kNone) {
  Walk walk;
  WalkStep& step = walk.Add(WalkStep::Kind::kTier);
  step.tier = tier;
  step.variance = variance;
  const telemetry::ExplainRequest request{
      .interface = "lan0",
      .frame = *control::ParsePacketText("ip saddr 10.0.0.5 ip daddr 1.1.1.1 udp dport 53")};
  const telemetry::ExplainView view =
      ExplainWalk(request, walk, {.interface = [](IfaceSlot) { return std::string("wan0"); }});
  EXPECT_EQ(view.stages.size(), 1u);
  return view.stages.at(0);
}

TEST(ExplainTierTest, SaysWhoCarriesThePacketAndWhy) {
  EXPECT_EQ(StageOf(Tier::kXdp).stage, "tier");
  EXPECT_EQ(StageOf(Tier::kXdp).text, "xdp");
  EXPECT_EQ(StageOf(Tier::kXdp).detail, "");
  for (const Tier tier : {Tier::kSoonXdp, Tier::kNotYet, Tier::kForm, Tier::kDiffers, Tier::kOff,
                          Tier::kOutput, Tier::kPaths}) {
    EXPECT_EQ(StageOf(tier).text, "worker");
    EXPECT_NE(StageOf(tier).detail, "");
  }
  EXPECT_EQ(StageOf(Tier::kDiffers, stages::Variance::kQuota).detail,
            "not XDP: a quota decides");
}

}  // namespace
}  // namespace sluice::app
