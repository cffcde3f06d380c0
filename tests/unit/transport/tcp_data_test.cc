// Data: acknowledging, windows, Nagle, timestamps, SACK and D-SACK as the receiver sends them.
#include <gtest/gtest.h>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::SocketError;
using transport::TcpState;

// Uses up the segments of a young connection that are acknowledged at once.
uint32_t PastQuickAcks(TcpScript& t) {
  uint32_t seq = 1;
  for (int i = 0; i < 16; ++i, seq += 1000) {
    t.In(". " + std::to_string(seq) + ":" + std::to_string(seq + 1000) + "(1000) ack 1 win 64000");
  }
  t.Read();
  t.Discard();
  return seq;
}

// RFC 9293 section 3.8.6.3: an ACK may be delayed (less than 500 ms), but every second full segment is
// acknowledged.
TEST(Rfc9293, DelayedAck) {
  TcpScript t;
  t.Establish();
  PastQuickAcks(t);
  t.In(". 16001:17001(1000) ack 1 win 64000");
  t.Nothing();
  t.Wait(Millis(41));
  t.Out(". 1:1(0) ack 17001");
  t.In(". 17001:18001(1000) ack 1 win 64000");
  t.Nothing();
  t.In(". 18001:19001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 19001");
  t.Wait(Seconds(1));
  t.Nothing();
}

// RFC 9293 section 3.10.7.4: data that the program answers with carries the acknowledgment.
TEST(Rfc9293, AckIsPiggybacked) {
  TcpScript t;
  t.Establish();
  PastQuickAcks(t);
  t.In("P. 16001:16101(100) ack 1 win 64000");
  t.Send(10);
  t.Out("P. 1:11(10) ack 16101");
  t.In(". 16101:16101(0) ack 11 win 64000");
  t.Wait(Seconds(1));
  t.Nothing();
}

// RFC 9293 section 3.8.6.3 lets any ACK wait for less than 500 ms. Where a program says that it answers,
// that of a young connection's message does, but not long.
TEST(Answers, AckOfAMessageWaitsForTheAnswer) {
  TcpScript t;
  t.Establish();
  t.tcp().SetOptions(t.socket, {.answers = true}, t.now());
  t.In("P. 1:101(100) ack 1 win 64000");
  t.Nothing();
  t.Send(10);
  t.Out("P. 1:11(10) ack 101");
  t.In("P. 101:201(100) ack 11 win 64000");
  t.Nothing();
  t.Wait(Millis(7));
  t.Out(". 11:11(0) ack 201");
  // More of the message is to come, for which the sender may want this ACK.
  t.In(". 201:301(100) ack 11 win 64000");
  t.Out(". 11:11(0) ack 301");
  t.In("P. 301:1301(1000) ack 11 win 64000");
  t.Out(". 11:11(0) ack 1301");
  t.Wait(Seconds(1));
  t.Nothing();
}

TEST(Answers, AckOfAFinWaitsForOurFin) {
  TcpScript t;
  t.Establish();
  t.tcp().SetOptions(t.socket, {.answers = true}, t.now());
  t.In("F. 1:1(0) ack 1 win 64000");
  t.Nothing();
  t.Close();
  t.Out("F. 1:1(0) ack 2");
  t.In(". 2:2(0) ack 2 win 64000");

  t.peer_port = 41000;
  t.Establish();
  t.tcp().SetOptions(t.socket, {.answers = true}, t.now());
  t.In("F. 1:1(0) ack 1 win 64000");
  t.Nothing();
  t.Wait(Millis(7));
  t.Out(". 1:1(0) ack 2");
  // The peer has not got it: at once.
  t.In("F. 1:1(0) ack 1 win 64000");
  t.Out(". 1:1(0) ack 2");
  t.Discard();
}

// Segments that arrive together are acknowledged together, and their program hears of them once; what is
// out of order is answered one by one all the same, since the peer counts duplicate ACKs.
TEST(Burst, OneAnswerForSegmentsInOrder) {
  TcpScript t;
  t.Establish();
  t.tcp().BeginBurst();
  for (int i = 0; i < 4; ++i) {
    const int from = i * 1000 + 1;
    t.In(". " + std::to_string(from) + ":" + std::to_string(from + 1000) + "(1000) ack 1 win 1000");
  }
  t.Nothing();
  EXPECT_EQ(t.readable, 0);
  t.tcp().EndBurst(t.now());
  t.Out(". 1:1(0) ack 4001");
  t.Nothing();
  EXPECT_EQ(t.readable, 1);
  t.tcp().BeginBurst();
  for (int i = 0; i < 3; ++i) t.In(". 5001:6001(1000) ack 1 win 1000");
  for (int i = 0; i < 3; ++i) t.Out(". 1:1(0) ack 4001");
  t.In(". 4001:5001(1000) ack 1 win 1000");
  t.tcp().EndBurst(t.now());
  t.Out(". 1:1(0) ack 6001");
  t.Nothing();
}

// A connection may end, and its place be taken, within a burst.
TEST(Burst, ConnectionThatEndsWithin) {
  TcpScript t;
  t.Establish();
  t.tcp().BeginBurst();
  t.In("P. 1:1001(1000) ack 1 win 1000");
  t.In("R. 1001:1001(0) ack 1 win 1000");
  t.Close();
  t.In("S 9000:9000(0) win 1000");
  t.tcp().EndBurst(t.now());
  EXPECT_EQ(t.Next().substr(0, 2), "S.");
  t.Nothing();
}

// RFC 5681 section 4.2: out-of-order data is acknowledged at once, and so is what fills a gap.
TEST(Rfc5681, OutOfOrderDataIsAckedAtOnce) {
  TcpScript t;
  t.Establish();
  PastQuickAcks(t);
  t.In(". 17001:18001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 16001");
  t.In(". 16001:17001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 18001");
  std::string got = t.Read();
  EXPECT_EQ(got.size(), 2000u);
  EXPECT_EQ(got[0], 'a' + 16001 % 26);
  EXPECT_EQ(got[1999], 'a' + 18000 % 26);
}

// RFC 2018 section 4: the first block holds the segment that caused the ACK, the others the most
// recent ones.
TEST(Rfc2018, BlocksAreOrderedByRecency) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,sackOK>");
  t.In(". 1001:2001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535 <nop,nop,sack 1001:2001>");
  t.In(". 3001:4001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535 <nop,nop,sack 3001:4001 1001:2001>");
  t.In(". 5001:6001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535 <nop,nop,sack 5001:6001 3001:4001 1001:2001>");
  t.In(". 2001:3001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535 <nop,nop,sack 1001:4001 5001:6001>");
  t.In(". 7001:8001(1000) ack 1 win 64000");
  t.In(". 9001:10001(1000) ack 1 win 64000");
  t.Discard();
  // With timestamps there would be room for three; four is the most.
  t.In(". 11001:12001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535 <nop,nop,sack 11001:12001 9001:10001 7001:8001 1001:4001>");
  t.In(". 1:1001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 4001 win 65535 <nop,nop,sack 11001:12001 9001:10001 7001:8001 5001:6001>");
  EXPECT_EQ(t.Read().size(), 4000u);
}

// Section 2: nothing of it without the peer's permission.
TEST(Rfc2018, NoBlocksUnlessPermitted) {
  TcpScript t;
  t.Establish();
  t.In(". 1001:2001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1 win 65535");
}

// RFC 2883 section 4: a duplicate is told of in the first block, once; below the acknowledgment alone,
// above it with the block that holds it.
TEST(Rfc2883, DuplicatesAreReported) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,sackOK>");
  t.In(". 1:1001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1001");
  t.In(". 1:1001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1001 win 64535 <nop,nop,sack 1:1001>");
  t.In(". 501:1501(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1501 win 65535 <nop,nop,sack 501:1001>");
  t.In(". 3001:4001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1501 win 65535 <nop,nop,sack 3001:4001>");
  t.In(". 3001:4001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1501 win 65535 <nop,nop,sack 3001:4001 3001:4001>");
  t.In(". 1501:3001(1500) ack 1 win 64000");
  t.Out(". 1:1(0) ack 4001 win 65535");
  EXPECT_EQ(t.dropped(DropReason::kTcpDuplicate), 2u);
  EXPECT_EQ(t.Read().size(), 4000u);
}

// What has been received stays: a segment that overlaps it with other bytes changes nothing.
TEST(ReceiveQueue, FirstDataWins) {
  TcpScript t;
  t.Establish();
  t.In(". 11:21(10) ack 1 win 64000");
  t.In(". 1:31(30) ack 1 win 64000");  // covers it: its own bytes are as good
  t.Discard();
  EXPECT_EQ(t.Read().size(), 30u);
  t.In(". 41:61(20) ack 1 win 64000");
  t.In(". 31:51(20) ack 1 win 64000");
  EXPECT_EQ(t.Read().size(), 30u);
}

// Small payloads share a frame, so that a peer that sends byte by byte takes little memory.
TEST(ReceiveQueue, SmallSegmentsShareFrames) {
  TcpScript t;
  t.Establish();
  for (int i = 1; i <= 1000; ++i) {
    t.In(". " + std::to_string(i) + ":" + std::to_string(i + 1) + "(1) ack 1 win 64000");
  }
  EXPECT_EQ(t.tcp().usage().receive_frames, 1u);
  const std::string got = t.Read();
  ASSERT_EQ(got.size(), 1000u);
  for (int i = 1; i <= 1000; ++i) ASSERT_EQ(got[static_cast<size_t>(i - 1)], 'a' + i % 26);
}

// RFC 9293 section 3.8.6: data beyond the window is cut off; the window closes as data waits to be
// read, and opens by no less than a segment (section 3.8.6.2.2).
TEST(Rfc9293, ZeroWindowIsToldAndDataBeyondRefused) {
  TcpScript::Options o;
  o.config.tcp.receive_buffer_initial = o.config.tcp.receive_buffer_max = 4000;
  TcpScript t(o);
  t.Establish();
  for (int i = 0; i < 4; ++i) {
    const int seq = 1 + i * 1000;
    t.In(". " + std::to_string(seq) + ":" + std::to_string(seq + 1000) + "(1000) ack 1 win 64000");
  }
  t.Out(". 1:1(0) ack 1001 win 3000");
  t.Out(". 1:1(0) ack 2001 win 2000");
  t.Out(". 1:1(0) ack 3001 win 1000");
  t.Out(". 1:1(0) ack 4001 win 0");
  // A probe of one byte is not taken, but answered, and its ACK counts.
  t.In(". 4001:4002(1) ack 1 win 64000");
  t.Out(". 1:1(0) ack 4001 win 0");
  EXPECT_EQ(t.dropped(DropReason::kTcpOutsideWindow), 1u);
  // A little room is not offered; enough is, without being asked.
  EXPECT_EQ(t.Read(100).size(), 100u);
  t.Nothing();
  EXPECT_EQ(t.Read(2900).size(), 2900u);
  t.Out(". 1:1(0) ack 4001 win 3000");
  t.In(". 4001:5001(1000) ack 1 win 64000");
  t.Out(". 1:1(0) ack 5001 win 2000");
  EXPECT_EQ(t.Read().size(), 2000u);
}

// RFC 9293 section 3.7.4 (Nagle): while a small segment is on its way, another one waits; full ones do
// not.
TEST(Rfc896, SmallSegmentsWait) {
  TcpScript t;
  t.Establish();
  t.Send(10);
  t.Out("P. 1:11(10) ack 1");
  t.Send(10);
  t.Nothing();
  t.Send(1000);
  t.Out(". 11:1011(1000) ack 1");
  t.Nothing();
  t.In(". 1:1(0) ack 11 win 64000");
  t.Out("P. 1011:1021(10) ack 1");
}

// RFC 9293 section 3.7.4: a program can have Nagle's algorithm switched off.
TEST(Rfc896, NoDelaySendsAtOnce) {
  TcpScript t;
  t.Listen({.no_delay = true});
  t.Establish();
  t.Send(10);
  t.Send(10);
  t.Out("P. 1:11(10) ack 1");
  t.Out("P. 11:21(10) ack 1");
}

// RFC 9293 section 3.7.1: no more than the peer's MSS; 536 when it says nothing.
TEST(Rfc9293, MssDefault) {
  TcpScript t;
  t.Establish("");
  t.Send(600);
  t.Out(". 1:537(536) ack 1");
}

// RFC 9293 section 3.7.1: options of TCP are taken off what the MSS lets through.
TEST(Rfc9293, MssCountsOptions) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,TS val 100 ecr 0>");
  t.Send(1000);
  t.Out(". 1:989(988) ack 1");
}

// RFC 9293 section 3.7.1 names no least MSS; we have one, as Linux has.
TEST(Rfc9293, TinyMssHasAFloor) {
  TcpScript t;
  t.Establish("<mss 1>");
  t.Send(100);
  t.Out(". 1:89(88) ack 1");
}

// RFC 9293 section 3.8.6.2.1: a window smaller than a segment is not filled with crumbs, unless it is
// half of the largest there ever was; after a while the persist timer lets it go.
TEST(Rfc9293, SenderAvoidsTheSillyWindow) {
  TcpScript t;
  t.Establish("<mss 1000>", 4000);
  t.In(". 1:1(0) ack 1 win 500");
  t.Send(3000);
  t.Nothing();
  t.Wait(Millis(250));
  t.Out(". 1:501(500) ack 1");
}

// RFC 9293 section 3.8.6.1: a closed window is probed, at the RTO, then ever more rarely, and for as
// long as the peer answers.
TEST(Rfc9293, ZeroWindowIsProbed) {
  TcpScript t;
  t.Establish();
  t.In(". 1:1(0) ack 1 win 0");
  t.Send(100);
  t.Nothing();
  for (int i = 0; i < 5; ++i) {
    t.Wait(Millis(200 * (1 << i) - 10));
    t.Nothing();
    t.Wait(Millis(11));
    t.Out(". 0:0(0) ack 1");
    t.In(". 1:1(0) ack 1 win 0");
  }
  // A day later it is still alive.
  for (int i = 0; i < 800; ++i) {
    t.Wait(Seconds(120));
    t.Discard();
    t.In(". 1:1(0) ack 1 win 0");
  }
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  t.In(". 1:1(0) ack 1 win 1000");
  t.Out("P. 1:101(100) ack 1");
}

// ... but not without an answer (section 3.8.3's R2).
TEST(Rfc9293, UnansweredProbesEndTheConnection) {
  TcpScript t;
  t.Establish();
  t.In(". 1:1(0) ack 1 win 0");
  t.Send(100);
  t.Wait(Seconds(1200));
  EXPECT_EQ(t.error, SocketError::kTimedOut);
  t.Close();
}

// RFC 9293 section 3.8.6: a window that shrinks is tolerated; nothing new is sent into it, and what
// was sent stays sent.
TEST(Rfc9293, ShrinkingWindowIsTolerated) {
  TcpScript t;
  t.Establish();
  t.Send(2000);
  t.Out(". 1:1001(1000) ack 1");
  t.Out("P. 1001:2001(1000) ack 1");
  t.In(". 1:1(0) ack 1001 win 500");
  t.Send(1000);
  t.Nothing();
  t.In(". 1:1(0) ack 2001 win 5000");
  t.Out("P. 2001:3001(1000) ack 1");
}

// RFC 7323 section 2.2: scaling only when both offer it, and not within SYNs.
TEST(Rfc7323, WindowScaleIsAgreedOn) {
  TcpScript t;
  t.Establish("<mss 1000,nop,wscale 10>", 100);
  t.Send(30000);
  // Ten segments of the initial window, though 100 unscaled would be less than one.
  EXPECT_EQ(t.pending(), 10u);
}

// Section 3.2 and 4.3: timestamps in every segment; TS.Recent is that of the segment at the left
// edge.
TEST(Rfc7323, TimestampsAreEchoed) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,TS val 100 ecr 0>");
  t.In("P. 1:101(100) ack 1 win 64000 <nop,nop,TS val 200 ecr 0>");
  t.Out(". 1:1(0) ack 101 win 65435 <nop,nop,TS val 0 ecr 200>");
  // Out of order: the echo is that of the last in order.
  t.In("P. 201:301(100) ack 1 win 64000 <nop,nop,TS val 220 ecr 0>");
  t.Out(". 1:1(0) ack 101 win 65435 <nop,nop,TS val 0 ecr 200>");
  t.In("P. 101:201(100) ack 1 win 64000 <nop,nop,TS val 210 ecr 0>");
  t.Out(". 1:1(0) ack 301 win 65235 <nop,nop,TS val 0 ecr 210>");
  EXPECT_EQ(t.Read().size(), 300u);
}

// Section 5.3: an older timestamp is a segment of old: acknowledged and dropped. A reset is exempt.
TEST(Rfc7323, PawsRejectsOldSegments) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,TS val 100 ecr 0>");
  t.In("P. 1:101(100) ack 1 win 64000 <nop,nop,TS val 50 ecr 0>");
  t.Out(". 1:1(0) ack 1");
  EXPECT_EQ(t.dropped(DropReason::kTcpPaws), 1u);
  t.In("R 1:1(0) <nop,nop,TS val 50 ecr 0>");
  EXPECT_EQ(t.error, SocketError::kReset);
}

// Section 5.5: after 24 days of silence TS.Recent says nothing.
TEST(Rfc7323, PawsForgetsAfter24Days) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,TS val 100 ecr 0>");
  t.Wait(Seconds(25 * 86400));
  t.In("P. 1:101(100) ack 1 win 64000 <nop,nop,TS val 50 ecr 0>");
  t.Out(". 1:1(0) ack 101");
  EXPECT_EQ(t.Read().size(), 100u);
}

// RFC 7323 section 5.2: timestamps are compared modulo 2^32, as sequence numbers are (RFC 9293 section
// 3.4); both wrap in the middle of a connection.
TEST(Rfc7323, SequenceNumbersWrap) {
  TcpScript t({.peer_iss = 0xffffff00});
  t.Establish("<mss 1000,nop,nop,TS val -5 ecr 0>");
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  t.In(". 1:1(0) ack 1 win 64000 <nop,nop,TS val -1 ecr 0>");
  t.In("P. 1:1001(1000) ack 1 win 64000 <nop,nop,TS val 3 ecr 0>");
  t.Out(". 1:1(0) ack 1001");
  EXPECT_EQ(t.Read().size(), 1000u);
}

// RFC 9293 section 3.8.4: keepalive probes are off unless asked for; unanswered they end the
// connection.
TEST(Rfc9293, Keepalive) {
  TcpScript t;
  t.Listen({.keepalive = true, .keepalive_probes = 2, .keepalive_idle = Seconds(100),
            .keepalive_interval = Seconds(10)});
  t.Establish();
  t.Wait(Seconds(101));
  t.Out(". 0:0(0) ack 1");
  t.In(". 1:1(0) ack 1 win 64000");
  t.Wait(Seconds(99));
  t.Nothing();
  t.Wait(Seconds(2));
  t.Out(". 0:0(0) ack 1");
  t.Wait(Seconds(11));
  t.Out(". 0:0(0) ack 1");
  t.Wait(Seconds(11));
  t.Out("R. 1:1(0) ack 1");
  EXPECT_EQ(t.error, SocketError::kTimedOut);
  t.Close();
}

// RFC 9293 section 3.8.4: off unless the program wants it.
TEST(Rfc9293, KeepaliveIsOffByDefault) {
  TcpScript t;
  t.Establish();
  t.Wait(Seconds(86400 * 3));
  t.Nothing();
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.tcp().usage().timers, 0u);
}

// RFC 9293 section 3.8.4: the peer's probe is answered.
TEST(Rfc9293, KeepaliveIsAnswered) {
  TcpScript t;
  t.Establish();
  t.In(". 0:0(0) ack 1 win 64000");
  t.Out(". 1:1(0) ack 1");
  t.Wait(Seconds(1));
  t.In(". 0:1(1) ack 1 win 64000");  // with a byte of rubbish, as old stacks do
  t.Out(". 1:1(0) ack 1");
}

// RFC 5482's local value: a connection whose data is not acknowledged for so long ends.
TEST(Rfc5482, UserTimeout) {
  TcpScript t;
  t.Listen({.user_timeout = Seconds(5)});
  t.Establish();
  t.Send(100);
  t.Wait(Millis(4900));
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  t.Wait(Millis(200));
  EXPECT_EQ(t.error, SocketError::kTimedOut);
  t.Discard();
  t.Close();
}

// RFC 9293 section 3.8.3: a SYN is tried for at least three minutes, with the timeout doubled.
TEST(Rfc9293, SynIsRetriedForThreeMinutes) {
  TcpScript t;
  t.Connect();
  t.Out("S 0:0(0)");
  for (const int wait : {1, 2, 4, 8, 16, 32, 64}) {
    t.Wait(Seconds(wait) - Millis(20));
    t.Nothing();
    t.Wait(Millis(22));
    t.Out("S 0:0(0)");
  }
  EXPECT_EQ(t.state(), TcpState::kSynSent);
  t.Wait(Seconds(130));
  EXPECT_EQ(t.error, SocketError::kTimedOut);
  t.Close();
  EXPECT_EQ(t.tcp().usage().connections, 0u);
}

}  // namespace
}  // namespace sluice::test
