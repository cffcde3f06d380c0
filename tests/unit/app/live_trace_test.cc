#include "app/live_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <thread>
#include <vector>

#include "base/reason.h"
#include "control/packet_text/packet_text.h"
#include "telemetry/view_json.h"

namespace sluice::app {
namespace {

using dataplane::TraceOutcome;
using dataplane::TraceRecord;
using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TraceRecord Record(const std::string& came, const std::string& went = "") {
  TraceRecord r;
  const auto fill = [](const std::string& words, auto& bytes) {
    const auto frame = *control::ParsePacketText(words);
    const size_t n = std::min(frame.size(), bytes.size());
    std::copy_n(frame.begin(), n, bytes.begin());
    return static_cast<uint8_t>(n);
  };
  r.time = Seconds(105);
  r.in = IfaceSlot{0};
  r.captured = fill(came, r.arrived);
  r.length = r.captured;
  if (!went.empty()) {
    r.departed = fill(went, r.left);
    r.out = IfaceSlot{1};
  }
  return r;
}

class LiveTraceTest : public ::testing::Test {
 protected:
  static LiveTrace::InterfaceNames Names() {
    LiveTrace::InterfaceNames names;
    names[0] = "lan0";
    names[1] = "wan0";
    return names;
  }
  std::vector<telemetry::TraceView> Read(TraceRecord record, uint32_t worker = 0) {
    EXPECT_TRUE(trace_.session(worker)->ring.TryPush(std::move(record)));
    std::vector<telemetry::TraceView> out;
    EXPECT_TRUE(trace_.Next(Seconds(5), out));
    return out;
  }

  int ended_ = 0;
  LiveTrace trace_{dataplane::PacketFilter(), 2, Names(), Seconds(100), [this] { ++ended_; }};
};

TEST_F(LiveTraceTest, SaysHowAPacketCameAndWent) {
  const std::string came = "ip saddr 10.0.0.5 ip daddr 1.1.1.1 udp sport 5 udp dport 53";
  const std::string went = "ip saddr 192.0.2.1 ip daddr 1.1.1.1 ip ttl 63 udp sport 5 udp dport 53";
  const auto views = Read(Record(came, went), 1);
  ASSERT_THAT(views, SizeIs(1));
  EXPECT_DOUBLE_EQ(views[0].time_seconds, 5);
  EXPECT_EQ(views[0].worker, 1u);
  EXPECT_EQ(views[0].interface, "lan0");
  EXPECT_EQ(views[0].packet, came);
  EXPECT_EQ(views[0].verdict, "forwarded");
  EXPECT_EQ(views[0].reason, "");
  EXPECT_EQ(views[0].output, "wan0");
  EXPECT_EQ(views[0].translated, went);
  EXPECT_EQ(*telemetry::FromHex(views[0].bytes), *control::ParsePacketText(came));
}

TEST_F(LiveTraceTest, AHopLessIsNoTranslation) {
  const auto views =
      Read(Record("ip6 saddr ::5 ip6 daddr ::6 udp sport 5 udp dport 53",
                  "ip6 saddr ::5 ip6 daddr ::6 ip6 hoplimit 63 udp sport 5 udp dport 53"));
  EXPECT_EQ(views[0].translated, "");
}

TEST_F(LiveTraceTest, NamesReasonsAndRules) {
  trace_.UseRules({7,
                   {"inet filter forward handle 3", "inet filter forward handle 4"},
                   {"inet filter forward policy drop"}});
  TraceRecord record = Record("ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 22");
  record.outcome = TraceOutcome::kDropped;
  record.reason = static_cast<uint8_t>(DropReason::kNoRoute);
  record.generation = 7;
  record.rule_count = 3;
  record.rules = {1, 9, dataplane::kTraceChain};
  auto views = Read(record);
  EXPECT_EQ(views[0].verdict, "dropped");
  EXPECT_EQ(views[0].reason, "no_route");
  EXPECT_THAT(views[0].rules, ElementsAre("inet filter forward handle 4", "rule 9 of generation 7",
                                          "inet filter forward policy drop"));
  // The ruleset changes: packets of the one before are still on their way.
  trace_.UseRules({8, {"new"}, {}});
  record.rule_count = 1;
  EXPECT_THAT(Read(record)[0].rules, ElementsAre("inet filter forward handle 4"));
  trace_.UseRules({9, {"newer"}, {}});
  EXPECT_THAT(Read(record)[0].rules, ElementsAre("rule 1 of generation 7"));

  record = Record("ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 22");
  record.outcome = TraceOutcome::kPunted;
  record.reason = static_cast<uint8_t>(PuntReason::kLocal);
  EXPECT_EQ(Read(record)[0].verdict, "left to the kernel");
  record.reason = 255;
  EXPECT_EQ(Read(record)[0].reason, "");
}

TEST_F(LiveTraceTest, SaysWhoWouldHaveCarriedThePacket) {
  TraceRecord record = Record("ip saddr 10.0.0.5 ip daddr 1.1.1.1 udp sport 5 udp dport 53");
  EXPECT_EQ(Read(record)[0].tier, "worker");
  record.offload = true;
  EXPECT_EQ(Read(record)[0].tier, "xdp");
  record.offload = false;
  record.outcome = TraceOutcome::kPunted;
  EXPECT_EQ(Read(record)[0].tier, "kernel");
}

TEST_F(LiveTraceTest, GathersWorkersInTheOrderOfTime) {
  for (uint32_t i = 0; i < 6; ++i) {
    TraceRecord record = Record("ip saddr 10.0.0.5 ip daddr 1.1.1.1 tcp dport 22");
    record.time = Seconds(110 - i);
    ASSERT_TRUE(trace_.session(i % 2)->ring.TryPush(std::move(record)));
  }
  trace_.session(1)->lost.Add(4);
  std::vector<telemetry::TraceView> out;
  ASSERT_TRUE(trace_.Next(Nanos(), out));
  ASSERT_THAT(out, SizeIs(6));
  for (size_t i = 1; i < out.size(); ++i) EXPECT_LE(out[i - 1].time_seconds, out[i].time_seconds);
  EXPECT_EQ(trace_.lost(), 4u);
  out.clear();
  EXPECT_TRUE(trace_.Next(Millis(1), out));
  EXPECT_THAT(out, IsEmpty());
}

TEST(LiveTraceEndTest, TakesTheSessionsBackUnlessSluiceEnds) {
  int ended = 0;
  { LiveTrace trace({}, 1, {}, Nanos(), [&] { ++ended; }); }
  EXPECT_EQ(ended, 1);
  {
    LiveTrace trace({}, 1, {}, Nanos(), [&] { ++ended; });
    std::thread reader([&] {
      std::vector<telemetry::TraceView> out;
      while (trace.Next(Seconds(60), out)) {
      }
    });
    trace.Close();
    reader.join();
  }
  EXPECT_EQ(ended, 1);
}

}  // namespace
}  // namespace sluice::app
