// TCP connections, walked through by name.
#include "unit/stages/conntrack_fixture.h"

namespace sluice::stages {
namespace {

constexpr uint8_t kScale7[] = {1, 3, 3, 7};
constexpr uint8_t kScale0[] = {1, 3, 3, 0};
constexpr uint8_t kSackPermitted[] = {4, 2, 1, 1};
Bytes Options(std::initializer_list<std::span<const uint8_t>> parts) {
  Bytes all;
  for (const auto part : parts) all.insert(all.end(), part.begin(), part.end());
  return all;
}

TEST_F(TcpFixture, ThreeWayHandshake) {
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
  EXPECT_EQ(state(), TcpState::kSynSent);
  EXPECT_EQ(Left(), Seconds(120));
  EXPECT_FALSE(flow().Has(tables::kFlowSeenReply));
  EXPECT_EQ(B(kSyn | kAck, 0, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kSynReceived);
  EXPECT_EQ(direction(), FlowDirection::kReply);
  EXPECT_TRUE(flow().Has(tables::kFlowSeenReply));
  EXPECT_FALSE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Left(), Seconds(60));
  EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(Left(), Seconds(432'000));
  EXPECT_EQ(flow().counts[0].packets, 2u);
  EXPECT_EQ(flow().counts[0].bytes, 80u);
  EXPECT_EQ(flow().counts[1].packets, 1u);
  EXPECT_EQ(counters.created.Read(), 1u);
}

TEST_F(TcpFixture, DataUntilAcknowledgedHoldsForFiveMinutesOnly) {
  Handshake();
  EXPECT_EQ(A(kAck | kPsh, 1, 1, {.data = 100}), CtState::kEstablished);
  EXPECT_EQ(Left(), Seconds(300));
  EXPECT_EQ(B(kAck, 1, 101), CtState::kEstablished);
  EXPECT_EQ(Left(), Seconds(432'000));
  EXPECT_EQ(flow().counts[0].bytes, 80u + 140u);
}

TEST_F(TcpFixture, SynRetransmissionsDoNotKeepTheFlowAlive) {
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
  Wait(Seconds(30));
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
  EXPECT_LE(Left(), Seconds(90));
  EXPECT_EQ(flow().counts[0].packets, 1u);
  Wait(Seconds(91));
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(counters.expired.Read(), 1u);
}

TEST_F(TcpFixture, SimultaneousOpen) {
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
  EXPECT_EQ(B(kSyn, 0), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kSynSent2);
  EXPECT_EQ(A(kSyn | kAck, 0, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kSynReceived);
  EXPECT_EQ(B(kSyn | kAck, 0, 1), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
}

TEST_F(TcpFixture, Close) {
  Handshake();
  EXPECT_EQ(A(kFin | kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kFinWait);
  EXPECT_EQ(Left(), Seconds(120));
  EXPECT_EQ(B(kAck, 1, 2), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kCloseWait);
  EXPECT_EQ(Left(), Seconds(60));
  EXPECT_EQ(B(kFin | kAck, 1, 2), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kLastAck);
  EXPECT_EQ(Left(), Seconds(30));
  EXPECT_EQ(A(kAck, 2, 2), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kTimeWait);
  EXPECT_EQ(Left(), Seconds(120));
  Wait(Seconds(121));
  EXPECT_EQ(table->size(), 0u);
}

TEST_F(TcpFixture, HalfClosedTheOtherSideGoesOnSending) {
  Handshake();
  EXPECT_EQ(A(kFin | kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 1, 2), CtState::kEstablished);
  for (uint32_t at = 1; at < 5000; at += 1000) {
    EXPECT_EQ(B(kAck, at, 2, {.data = 1000}), CtState::kEstablished);
    EXPECT_EQ(A(kAck, 2, at + 1000), CtState::kEstablished);
    EXPECT_EQ(state(), TcpState::kCloseWait);
  }
}

TEST_F(TcpFixture, ResetInAnswerToASynEndsTheFlowAtOnce) {
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
  EXPECT_EQ(B(kRst | kAck, 0u - kIsnB, 1), CtState::kEstablished);
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(flow().counts[1].packets, 1u);
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
}

TEST_F(TcpFixture, ResetWithTheRightNumberCloses) {
  Handshake();
  EXPECT_EQ(B(kRst, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kClose);
  EXPECT_EQ(Left(), Seconds(10));
}

TEST_F(TcpFixture, ResetBehindDataOnItsWayCloses) {
  Handshake();
  EXPECT_EQ(B(kAck | kPsh, 1, 1, {.data = 19}), CtState::kEstablished);
  EXPECT_EQ(B(kRst | kAck, 20, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kClose);
}

TEST_F(TcpFixture, ResetInTheWindowButNotExactLeavesTheDecisionToTheReceiver) {
  Handshake();
  EXPECT_EQ(B(kRst, 500), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_EQ(Left(), Seconds(10));
  // The receiver's challenge ACK brings it back.
  EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  EXPECT_GT(Left(), Seconds(200));
}

TEST_F(TcpFixture, ResetOutsideTheWindowIsInvalid) {
  Handshake();
  EXPECT_EQ(B(kRst, 0u - 100), CtState::kInvalid);
  EXPECT_EQ(B(kRst, 200'000), CtState::kInvalid);
  EXPECT_EQ(counters.invalid.Read(), 2u);
  EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
}

TEST_F(TcpFixture, ResetBelowTheAcknowledgedCanBeBelieved) {
  settings.tcp_ignore_invalid_rst = true;
  Handshake();
  EXPECT_EQ(A(kAck, 1, 1, {.data = 100}), CtState::kEstablished);
  EXPECT_EQ(B(kRst, 0), CtState::kEstablished);
}

TEST_F(TcpFixture, DataBeyondTheWindowIsInvalid) {
  Handshake();
  EXPECT_EQ(A(kAck, 30'000, 1, {.data = 100}), CtState::kInvalid);
  EXPECT_EQ(p.flow, packet::kNoFlowIndex);
  EXPECT_EQ(B(kAck, 1, 30'100), CtState::kInvalid) << "acknowledges what was never sent";
}

TEST_F(TcpFixture, DataALittleBeyondTheWindowPassesAndMayBeAcknowledged) {
  Handshake();
  EXPECT_EQ(A(kAck, 1, 1, {.data = 1000}), CtState::kEstablished);
  EXPECT_EQ(A(kAck, 10'100, 1, {.data = 100}), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 1, 10'200), CtState::kEstablished);
}

TEST_F(TcpFixture, OldDuplicatesPassAndChangeNothing) {
  Handshake();
  for (uint32_t at = 1; at < 50'000; at += 1000) {
    ASSERT_EQ(A(kAck, at, 1, {.data = 1000}), CtState::kEstablished);
    ASSERT_EQ(B(kAck, 1, at + 1000), CtState::kEstablished);
  }
  const uint64_t packets = flow().counts[0].packets;
  EXPECT_EQ(A(kAck, 1, 1, {.data = 1000}), CtState::kEstablished);
  EXPECT_EQ(flow().counts[0].packets, packets) << "not counted, and no longer life";
}

TEST_F(TcpFixture, BeLiberalAcceptsAnyNumbers) {
  settings.tcp_be_liberal = true;
  Handshake();
  EXPECT_EQ(A(kAck, 500'000, 1, {.data = 100}), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 1, 900'000), CtState::kEstablished);
}

TEST_F(TcpFixture, WindowScaling) {
  EXPECT_EQ(A(kSyn, 0, 0, {.options = Options({kScale7})}), CtState::kNew);
  EXPECT_EQ(B(kSyn | kAck, 0, 1, {.options = Options({kScale7})}), CtState::kEstablished);
  EXPECT_EQ(A(kAck, 1, 1, {.window = 1000}), CtState::kEstablished);
  // 1000 << 7 is 128,000.
  EXPECT_EQ(B(kAck, 100'001, 1, {.data = 1000, .window = 1000}), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 300'001, 1, {.data = 1000, .window = 1000}), CtState::kInvalid);
}

TEST_F(TcpFixture, WindowScalingNeedsBothSides) {
  EXPECT_EQ(A(kSyn, 0, 0, {.options = Options({kScale7})}), CtState::kNew);
  EXPECT_EQ(B(kSyn | kAck, 0, 1), CtState::kEstablished);
  EXPECT_EQ(A(kAck, 1, 1, {.window = 1000}), CtState::kEstablished);
  EXPECT_EQ(flow().tcp.scales[0], 0);
  EXPECT_EQ(B(kAck, 100'001, 1, {.data = 1000}), CtState::kInvalid);
}

TEST_F(TcpFixture, WindowScaleIsCutToFourteen) {
  const uint8_t scale[] = {1, 3, 3, 15};
  EXPECT_EQ(A(kSyn, 0, 0, {.options = Options({scale})}), CtState::kNew);
  EXPECT_EQ(flow().tcp.scales[0], 14);
}

TEST_F(TcpFixture, MalformedOptionsEndTheList) {
  const uint8_t bad[] = {8, 0, 3, 3, 7, 0, 0, 0};
  EXPECT_EQ(A(kSyn, 0, 0, {.options = Options({bad})}), CtState::kNew);
  EXPECT_EQ(flow().tcp.flags[0] & tables::kTcpWindowScale, 0);
}

TEST_F(TcpFixture, SackReachesFurtherThanTheAcknowledgment) {
  EXPECT_EQ(A(kSyn, 0, 0, {.options = Options({kScale0, kSackPermitted})}), CtState::kNew);
  EXPECT_EQ(B(kSyn | kAck, 0, 1, {.options = Options({kScale0, kSackPermitted})}),
            CtState::kEstablished);
  EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(A(kAck, 1001, 1, {.data = 1000}), CtState::kEstablished);
  Bytes sack = {1, 1, 5, 10};
  for (const uint32_t edge : {kIsnA + 1001, kIsnA + 2001}) {
    sack.resize(sack.size() + 4);
    StoreBe32(sack.data() + sack.size() - 4, edge);
  }
  EXPECT_EQ(B(kAck, 1, 1, {.options = sack}), CtState::kEstablished);
  EXPECT_EQ(flow().tcp.peers[0].max_end, kIsnA + 2001 + 10'000);
  StoreBe32(sack.data() + 8, kIsnA + 3001);
  EXPECT_EQ(B(kAck, 1, 1, {.options = sack}), CtState::kInvalid) << "never sent";
}

TEST_F(TcpFixture, PortReuseAfterTimeWait) {
  Handshake();
  Close();
  const FlowIndex old = p.flow;
  EXPECT_EQ(A(kSyn, 100'000), CtState::kNew);
  EXPECT_EQ(state(), TcpState::kSynSent);
  EXPECT_EQ(table->size(), 1u);
  EXPECT_TRUE(table->at(old).Has(tables::kFlowDying) || old == p.flow);
  EXPECT_EQ(B(kSyn | kAck, 700'000, 100'001), CtState::kEstablished);
}

TEST_F(TcpFixture, PortReuseAfterAReset) {
  Handshake();
  EXPECT_EQ(A(kRst, 1), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kClose);
  EXPECT_EQ(A(kSyn, 100'000), CtState::kNew);
  EXPECT_EQ(state(), TcpState::kSynSent);
}

TEST_F(TcpFixture, ASynFromTheOtherSideInTimeWaitChangesRoles) {
  Handshake();
  Close();
  EXPECT_EQ(B(kSyn, 900'000), CtState::kNew);
  EXPECT_EQ(direction(), FlowDirection::kOriginal);
  EXPECT_EQ(flow().tuples[0].source_port, 80);
}

TEST_F(TcpFixture, TheOldFlowCanStillBeReadByAPacketOfTheSameTick) {
  Handshake();
  Close();
  const Nanos tick = now;
  const FlowIndex old = p.flow;
  const auto frame = [](uint32_t sequence, uint8_t flags) {
    return FromHost().Ipv4("10.0.0.2", "192.0.2.9").Tcp(4000, 80, flags).Sequence(
        sequence, (flags & kAck) != 0 ? kIsnB + 2 : 0).Build();
  };
  Packet last_ack = TrackOnly(frame(kIsnA + 2, kAck));
  Packet syn = TrackOnly(frame(kIsnA + 100'000, kSyn));
  EXPECT_EQ(now, tick);
  EXPECT_EQ(last_ack.flow, old);
  EXPECT_NE(syn.flow, old);
  EXPECT_EQ(table->at(old).tuples[0].source_port, 4000);
  EXPECT_EQ(conntrack->Confirm(last_ack, now), Verdict::Continue());
  EXPECT_EQ(conntrack->Confirm(syn, now), Verdict::Continue());
  EXPECT_EQ(table->size(), 1u);
  world.Free(last_ack);
  world.Free(syn);
}

TEST_F(TcpFixture, SynInTheMiddleIsRememberedAndTheAnswerPutsUsInStep) {
  Handshake();
  // a was restarted, b agrees: new numbers for both.
  EXPECT_EQ(A(kSyn, 500'000), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_EQ(B(kSyn | kAck, 800'000, 500'001), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kSynReceived);
  EXPECT_EQ(A(kAck, 500'001, 800'001), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_EQ(A(kAck, 500'001, 800'001, {.data = 1000}), CtState::kEstablished);
}

TEST_F(TcpFixture, SynInTheMiddleAnsweredByAResetEndsTheOldConnection) {
  Handshake();
  EXPECT_EQ(A(kSyn, 500'000), CtState::kEstablished);
  EXPECT_EQ(B(kRst | kAck, 1, 500'001), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kClose);
}

TEST_F(TcpFixture, ChallengeAckInLastAckIsNotTheLastAck) {
  Handshake();
  EXPECT_EQ(A(kFin | kAck, 1, 1), CtState::kEstablished);
  EXPECT_EQ(B(kFin | kAck, 1, 2), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kLastAck);
  EXPECT_EQ(A(kSyn, 500'000), CtState::kEstablished);
  EXPECT_EQ(B(kAck, 2, 2), CtState::kEstablished);
  EXPECT_EQ(state(), TcpState::kLastAck);
}

TEST_F(TcpFixture, LoosePickUpInTheMiddle) {
  EXPECT_EQ(A(kAck | kPsh, 1, 1, {.data = 100}), CtState::kNew);
  EXPECT_EQ(state(), TcpState::kEstablished);
  EXPECT_EQ(Left(), Seconds(300)) << "nobody has answered";
  EXPECT_FALSE(flow().Has(tables::kFlowAssured));
  EXPECT_EQ(B(kAck, 1, 101), CtState::kEstablished);
  EXPECT_EQ(A(kAck, 101, 1), CtState::kEstablished);
  EXPECT_TRUE(flow().Has(tables::kFlowAssured));
  // Scales are not known, so nothing is too far away.
  EXPECT_EQ(A(kAck, 400'000, 1, {.data = 100}), CtState::kEstablished);
}

TEST_F(TcpFixture, NoPickUpWhenNotLoose) {
  settings.tcp_loose = false;
  EXPECT_EQ(A(kAck, 1, 1), CtState::kInvalid);
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(A(kSyn, 0), CtState::kNew);
}

TEST_F(TcpFixture, OnlySynAndAckBeginAConnection) {
  EXPECT_EQ(A(kRst, 1), CtState::kInvalid);
  EXPECT_EQ(A(kFin | kAck, 1, 1), CtState::kInvalid);
  EXPECT_EQ(A(kSyn | kAck, 1, 1), CtState::kInvalid);
  EXPECT_EQ(table->size(), 0u);
  EXPECT_EQ(counters.invalid.Read(), 3u);
}

TEST_F(TcpFixture, FlagsThatNoTcpSends) {
  Handshake();
  const uint8_t kNone = 0;
  for (const uint8_t flags : {uint8_t{kNone}, uint8_t{kFin}, uint8_t{kSyn | kFin},
                              uint8_t{kSyn | kRst}, uint8_t{0x3f}, uint8_t{0x29}, uint8_t{kPsh},
                              uint8_t{kFin | kRst | kAck}, uint8_t{kRst | wire::kTcpUrg}}) {
    EXPECT_EQ(A(flags, 1, 1), CtState::kInvalid) << int{flags};
  }
  EXPECT_EQ(A(kAck | wire::kTcpEce | wire::kTcpCwr, 1, 1), CtState::kEstablished);
  EXPECT_EQ(A(kAck | kPsh | wire::kTcpUrg, 1, 1), CtState::kEstablished);
}

TEST_F(TcpFixture, RetransmissionsWithoutAnAnswerShortenTheTimeout) {
  Handshake();
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(Left(), Seconds(432'000));
    EXPECT_EQ(A(kAck, 1, 1), CtState::kEstablished);
  }
  EXPECT_EQ(Left(), settings.tcp_max_retrans_timeout);
}

TEST_F(TcpFixture, AClosedWindowShortensTheTimeout) {
  Handshake();
  EXPECT_EQ(B(kAck, 1, 1, {.window = 0}), CtState::kEstablished);
  EXPECT_EQ(Left(), settings.tcp_max_retrans_timeout);
}

TEST_F(TcpFixture, FinsOutsideTheWindowOfBothSidesShortenTheTimeout) {
  Handshake();
  EXPECT_EQ(A(kFin | kAck, 900'000, 1), CtState::kInvalid);
  EXPECT_EQ(B(kRst, 900'000), CtState::kInvalid);
  EXPECT_LE(table->at(table->Find([&] {
    FlowTuple t;
    t.source = Ipv6(0, test::A4("10.0.0.2").value);
    t.destination = Ipv6(0, test::A4("192.0.2.9").value);
    t.source_port = 4000;
    t.destination_port = 80;
    t.protocol = 6;
    return t;
  }()).flow).expires - now, Seconds(300));
}

TEST_F(TcpFixture, ASynSentTwiceInOneTickIsOneFlow) {
  const Bytes frame = FromHost().Ipv4("10.0.0.2", "192.0.2.9").Tcp(4000, 80, kSyn).Build();
  Packet first = TrackOnly(frame);
  Packet second = TrackOnly(frame);
  EXPECT_NE(first.flow, second.flow);
  EXPECT_EQ(conntrack->Confirm(first, now), Verdict::Continue());
  EXPECT_EQ(conntrack->Confirm(second, now), Verdict::Continue());
  EXPECT_EQ(first.flow, second.flow);
  EXPECT_EQ(table->size(), 1u);
  EXPECT_EQ(table->at(first.flow).counts[0].packets, 2u);
  world.Free(first);
  world.Free(second);
}

TEST_F(TcpFixture, TruncatedHeaders) {
  Handshake();
  const auto segment = [] {
    return FromHost().Ipv4("10.0.0.2", "192.0.2.9").Tcp(4000, 80, kAck).Sequence(kIsnA + 1,
                                                                                kIsnB + 1);
  };
  Bytes frame = segment().TotalLength(39).Build();
  EXPECT_EQ(Pass(frame), CtState::kInvalid);
  settings.checksum = false;
  frame = segment().Build();
  frame[46] = 0x60;  // data offset behind the end
  EXPECT_EQ(Pass(frame), CtState::kInvalid);
  frame[46] = 0x40;
  EXPECT_EQ(Pass(frame), CtState::kInvalid);
  frame[46] = 0x50;
  EXPECT_EQ(Pass(frame), CtState::kEstablished);
}

}  // namespace
}  // namespace sluice::stages
