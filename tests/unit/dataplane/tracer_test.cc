#include "dataplane/tracer.h"

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "base/reason.h"

namespace sluice::dataplane {
namespace {

// Packets in memory of the test's own; a Tracer looks at no more than the handle and the bytes.
class TracerTest : public ::testing::Test {
 protected:
  packet::Packet PacketOf(packet::FrameIndex frame, uint8_t first, uint16_t length = 60) {
    bytes_.push_back(std::make_unique<std::vector<uint8_t>>(length, first));
    packet::Packet p;
    p.data = bytes_.back()->data();
    p.frame = frame;
    p.length = length;
    p.segment_length = length;
    p.in = IfaceSlot{1};
    return p;
  }
  std::vector<TraceRecord> Records() {
    std::vector<TraceRecord> out;
    for (TraceRecord r; session_.ring.TryPop(r);) out.push_back(r);
    return out;
  }

  std::vector<std::unique_ptr<std::vector<uint8_t>>> bytes_;
  TraceSession session_;
  Tracer tracer_;
};

TEST_F(TracerTest, NothingHappensWithoutASession) {
  packet::Packet p = PacketOf(1, 0xaa);
  EXPECT_FALSE(tracer_.active());
  EXPECT_EQ(tracer_.RulesOf(p, 1), nullptr);
  tracer_.Begin(p, Seconds(1));
  tracer_.End(p, TraceOutcome::kDropped);
  tracer_.Use(&session_);
  EXPECT_TRUE(tracer_.active());
  tracer_.End(p, TraceOutcome::kDropped);
  EXPECT_TRUE(Records().empty());
}

TEST_F(TracerTest, TellsHowAPacketCameAndWhatBecameOfIt) {
  tracer_.Use(&session_);
  packet::Packet p = PacketOf(7, 0xaa, 200);
  tracer_.Begin(p, Seconds(3));
  stages::TraceSink* const rules = tracer_.RulesOf(p, 99);
  ASSERT_NE(rules, nullptr);
  rules->RuleMatched(10);
  rules->PolicyApplied(4, /*accept=*/true);
  rules->PolicyApplied(5, /*accept=*/false);
  rules->RuleMatched(12);
  p.data[0] = 0xbb;  // rewritten
  p.out = IfaceSlot{2};
  tracer_.End(p, TraceOutcome::kForwarded);
  tracer_.End(p, TraceOutcome::kDropped);  // the frame's next use is not of this packet
  const auto records = Records();
  ASSERT_EQ(records.size(), 1u);
  const TraceRecord& r = records[0];
  EXPECT_EQ(r.time, Seconds(3));
  EXPECT_EQ(r.in, IfaceSlot{1});
  EXPECT_EQ(r.out, IfaceSlot{2});
  EXPECT_EQ(r.length, 200u);
  EXPECT_EQ(r.captured, kTraceBytes);
  EXPECT_EQ(r.arrived[0], 0xaa);
  EXPECT_EQ(r.left[0], 0xbb);
  EXPECT_EQ(r.generation, 99u);
  ASSERT_EQ(r.rule_count, 3);
  EXPECT_EQ(r.rules[0], 10u);
  EXPECT_EQ(r.rules[1], kTraceChain | 5u);
  EXPECT_EQ(r.rules[2], 12u);
  EXPECT_EQ(session_.lost.Read(), 0u);
}

TEST_F(TracerTest, OfManyRulesTheDecidingOneIsKept) {
  tracer_.Use(&session_);
  packet::Packet p = PacketOf(7, 0);
  tracer_.Begin(p, Seconds(1));
  for (uint32_t rule = 0; rule < 100; ++rule) tracer_.RulesOf(p, 1)->RuleMatched(rule);
  tracer_.End(p, TraceOutcome::kDropped, static_cast<uint8_t>(DropReason::kNoRoute));
  const auto records = Records();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].rule_count, kTraceRules);
  EXPECT_EQ(records[0].rules[kTraceRules - 1], 99u);
  EXPECT_EQ(records[0].reason, static_cast<uint8_t>(DropReason::kNoRoute));
  EXPECT_EQ(records[0].departed, 0);
}

TEST_F(TracerTest, OnlyWhatTheFilterPicks) {
  // ldb [0]; jeq #0xaa: 1, else 0.
  ASSERT_TRUE(PacketFilter::Make({{0x30, 0, 0, 0}, {0x15, 0, 1, 0xaa}, {0x06, 0, 0, 1}, {0x06, 0, 0, 0}},
                                 &session_.filter));
  tracer_.Use(&session_);
  packet::Packet yes = PacketOf(1, 0xaa), no = PacketOf(2, 0xab);
  for (packet::Packet p : {yes, no}) {
    tracer_.Begin(p, Seconds(1));
    EXPECT_EQ(tracer_.RulesOf(p, 1) != nullptr, p.frame == yes.frame);
    tracer_.End(p, TraceOutcome::kLocal);
  }
  EXPECT_EQ(Records().size(), 1u);
}

TEST_F(TracerTest, ForgottenAndReusedFramesSayNothingWrong) {
  tracer_.Use(&session_);
  packet::Packet first = PacketOf(5, 1);
  tracer_.Begin(first, Seconds(1));
  tracer_.Forget(first);
  tracer_.End(first, TraceOutcome::kDropped);
  // The same frame again, without an end of the packet before: that one was freed silently.
  tracer_.Begin(first, Seconds(1));
  packet::Packet second = PacketOf(5, 2);
  tracer_.Begin(second, Seconds(2));
  tracer_.End(second, TraceOutcome::kPunted);
  const auto records = Records();
  ASSERT_EQ(records.size(), 1u);
  EXPECT_EQ(records[0].arrived[0], 2);
  EXPECT_EQ(session_.lost.Read(), 0u);
}

TEST_F(TracerTest, APacketWithoutAFrameIsNoPacket) {
  tracer_.Use(&session_);
  packet::Packet given_away = PacketOf(packet::kNoFrame, 0);
  tracer_.End(given_away, TraceOutcome::kLocal);
  EXPECT_EQ(tracer_.RulesOf(given_away, 1), nullptr);
  EXPECT_TRUE(Records().empty());
}

// Its flow would go to XDP else, and the trace would see no more of it.
TEST_F(TracerTest, WhatHasLostItsPlaceShowsXdpNoWay) {
  // ldb [0]; jeq #2: 0, else 1.
  ASSERT_TRUE(PacketFilter::Make({{0x30, 0, 0, 0}, {0x15, 1, 0, 2}, {0x06, 0, 0, 1}, {0x06, 0, 0, 0}},
                                 &session_.filter));
  tracer_.Use(&session_);
  packet::Packet one = PacketOf(3, 1), not_picked = PacketOf(4, 2), other = PacketOf(3 + kOpenTraces, 3);
  for (packet::Packet* p : {&one, &not_picked, &other}) tracer_.Begin(*p, Seconds(1));
  ASSERT_EQ(session_.lost.Read(), 1u);
  EXPECT_TRUE(tracer_.NoteOffload(one));
  EXPECT_TRUE(tracer_.NoteOffload(other));
  EXPECT_FALSE(tracer_.NoteOffload(not_picked));
  tracer_.Use(nullptr);
  EXPECT_FALSE(tracer_.NoteOffload(one));
}

TEST_F(TracerTest, CountsWhatItCannotKeep) {
  tracer_.Use(&session_);
  packet::Packet one = PacketOf(3, 1), other = PacketOf(3 + kOpenTraces, 2);
  tracer_.Begin(one, Seconds(1));
  tracer_.Begin(other, Seconds(1));  // takes its place
  tracer_.End(one, TraceOutcome::kLocal);
  tracer_.End(other, TraceOutcome::kLocal);
  EXPECT_EQ(Records().size(), 1u);
  EXPECT_EQ(session_.lost.Read(), 1u);
  for (size_t i = 0; i < kTraceRing + 5; ++i) {
    tracer_.Begin(one, Seconds(2));
    tracer_.End(one, TraceOutcome::kLocal);
  }
  EXPECT_EQ(Records().size(), kTraceRing);
  EXPECT_EQ(session_.lost.Read(), 6u);
  tracer_.Begin(one, Seconds(3));
  tracer_.Use(nullptr);
  tracer_.End(one, TraceOutcome::kLocal);
  EXPECT_TRUE(Records().empty());
}

}  // namespace
}  // namespace sluice::dataplane
