// What is sent when: bursts and PSH, cork, the window's growth, probes; mostly rules at which packetdrill's
// scripts found the stack wanting (tests/packetdrill).
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/tcp_script.h"
#include "transport/congestion/congestion.h"
#include "transport/tcp/prr.h"

namespace sluice::test {
namespace {

using transport::Recovery;
using transport::SocketError;

std::string Segment(int from, int to, const std::string& flags = ".") {
  return flags + " " + std::to_string(from) + ":" + std::to_string(to) + "(" +
         std::to_string(to - from) + ") ack 1";
}

// A handshake whose round trip took 100 ms.
struct Sending : TcpScript {
  explicit Sending(const std::string& options = "<mss 1000,nop,nop,sackOK>", Options o = {},
                   const transport::TcpSocketOptions& socket_options = {})
      : TcpScript(o) {
    Listen(socket_options);
    In("S 0:0(0) win 64000 " + options);
    Next();
    Wait(Millis(100));
    Ack(1);
    Accept();
  }
  void Ack(int ack, const std::string& sack = "") {
    In(". 1:1(0) ack " + std::to_string(ack) + " win 64000" +
       (sack.empty() ? "" : " <nop,nop,sack " + sack + ">"));
  }
  void Outs(int from, int to) {
    for (int i = from; i < to; i += 1000) Out(Segment(i, i + 1000));
  }
  const transport::Tcb& tcb() { return *tcp().Find(socket); }
  uint32_t cwnd() { return tcb().congestion.cwnd() / 1000; }
};

// RFC 8985 section 7.2: the probe comes at the latest when the timeout would. With one segment in
// flight, 2 * SRTT and the time for a delayed ACK are more than the RTO of 300 ms: the probe goes at that
// time, and the timeout follows an RTO later, without a backoff before.
TEST(Rfc8985, ProbeComesAtTheLatestWithTheRto) {
  Sending t;
  t.Send(1000);
  t.Out(Segment(1, 1001, "P."));
  t.Wait(Millis(305));
  t.Out(Segment(1, 1001, "P."));
  EXPECT_EQ(t.tcp().counters().tail_loss_probes.Read(), 1u);
  EXPECT_EQ(t.tcp().counters().timeouts.Read(), 0u);
  EXPECT_EQ(t.cwnd(), 10u);
  t.Wait(Millis(305));
  t.Out(Segment(1, 1001, "P."));
  EXPECT_EQ(t.tcp().counters().timeouts.Read(), 1u);
}

// RFC 8985 section 6.3: the reordering timer finds losses; what may be sent then is PRR's to say (RFC
// 9937), which is one segment, and one for each that the peer tells of afterwards.
TEST(Rfc8985, ReorderingTimerSendsOneSegment) {
  Sending t;
  t.Send(10000);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(1, "7001:8001");
  t.Nothing();
  t.Wait(Millis(30));
  t.Out(Segment(1, 1001));
  t.Nothing();
  EXPECT_EQ(t.tcb().recovery, Recovery::kRecovery);
  t.Ack(1, "5001:6001 7001:8001");
  t.Out(Segment(1001, 2001));
  t.Nothing();
}

// RFC 9937 section 6: at least what was delivered may be sent, also when no cumulative ACK says that all is
// well.
TEST(Rfc9937, ReductionBoundIsAtLeastWhatWasDelivered) {
  transport::Prr prr;
  prr.Start(20'000);
  EXPECT_EQ(prr.OnAck(1000, 5000, 14'000, 1000, false), 1000u);
  prr.OnSent(3000);
  // More was sent than delivered, and two more have arrived.
  EXPECT_EQ(prr.OnAck(2000, 5000, 14'000, 1000, false), 2000u);
  EXPECT_EQ(prr.OnAck(1000, 5000, 14'000, 1000, true), 2000u);
}

// RFC 9937 section 6: the first retransmission goes, whatever the proportion says.
TEST(Rfc9937, FirstRetransmissionGoes) {
  transport::Prr prr;
  prr.Start(20'000);
  EXPECT_EQ(prr.OnAck(1, 20'000, 14'000, 1000, false), 1u);
  EXPECT_EQ(prr.OnAck(0, 14'000, 14'000, 1000, false), 1000u);
}

// RFC 6675 section 4: an ACK that others have overtaken tells with its SACK blocks what has arrived.
TEST(Rfc6675, SackOfAnOvertakenAckCounts) {
  Sending t;
  t.Send(20000);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(2001);
  t.Discard();
  const uint32_t before = t.tcb().scoreboard.sacked_bytes();
  t.Ack(1001, "5001:7001");
  EXPECT_EQ(t.tcb().scoreboard.sacked_bytes(), before + 2000);
  EXPECT_EQ(t.pending(), 2u);
  EXPECT_EQ(t.tcb().dup_acks, 0u);
}

// RFC 9438 section 5.8: cwnd must not grow while the program is what limits. A flight that fills the
// window, or in slow start more than half of it, counts as a whole: also for its last ACKs.
TEST(Rfc9438, FlightThatFillsTheWindowCountsAsAWhole) {
  Sending t;
  t.Send(10000);
  t.Wait(Millis(100));
  for (int i = 1; i <= 5; ++i) {
    t.Ack(1 + i * 2000);
    EXPECT_EQ(t.cwnd(), 10u + 2u * static_cast<uint32_t>(i));
  }
}

// RFC 9438 section 5.8: a flight that has never filled more than half of the window leaves it as it
// is.
TEST(Rfc9438, HalfAWindowDoesNotGrow) {
  Sending t;
  t.Send(5000);
  t.Wait(Millis(100));
  t.Ack(2001);
  t.Ack(5001);
  EXPECT_EQ(t.cwnd(), 10u);
}

// RFC 9438 section 4.6: ssthresh is beta_cubic of the window (which is not let grow unused).
TEST(Rfc9438, ReductionIsOfTheWindow) {
  transport::CongestionControl c;
  c.Start(transport::CongestionAlgorithm::kCubic, 1000);
  c.OnCongestion(3000, Seconds(1));
  EXPECT_EQ(c.ssthresh(), 7000u);
}

// RFC 3042: a segment that a duplicate ACK let go must not be counted a second time when the cumulative
// ACK arrives: cwnd grows by what that one tells of.
TEST(Rfc3042, ReorderingDoesNotInflateTheWindow) {
  Sending t;
  t.Send(20000);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(1, "1001:2001");
  t.Ack(1, "1001:3001");
  t.Out(Segment(10001, 11001));
  t.Out(Segment(11001, 12001));
  t.Ack(3001);
  EXPECT_EQ(t.cwnd(), 11u);
}

// RFC 5681 section 4.1: after an idle time cwnd is cut "before transmission begins". While the peer's
// window lets nothing go that is not now: looking again and again whether it does, by each window probe,
// would move CUBIC's epoch on (RFC 9438 section 4.2) each time by all of the idle time.
TEST(Rfc5681, RestartWindowIsCutWhenDataIsSent) {
  Sending t;
  t.Send(20'000);
  t.Wait(Millis(100));
  t.Ack(10'001);
  t.Wait(Millis(100));
  t.In(". 1:1(0) ack 20001 win 0");
  const uint32_t before = t.cwnd();
  EXPECT_GT(before, 20u);
  t.Discard();
  t.Send(2000);
  t.Wait(Seconds(3));
  EXPECT_GE(t.tcp().counters().zero_window_probes.Read(), 3u);
  EXPECT_EQ(t.cwnd(), before);
  t.Discard();
  t.In(". 1:1(0) ack 20001 win 64000");
  EXPECT_EQ(t.cwnd(), 10u);
  t.Out(Segment(20'001, 21'001));
}

// RFC 9293 section 3.9.1.2: PSH where the program's data ends. Also at the end of each burst, of at least
// two segments and of what the pacing rate makes in a millisecond: a receiver that collects segments need
// not wait for more.
TEST(Rfc9293, PushAtTheEndOfBurstsAndOfData) {
  Sending t;
  t.Send(4500);
  t.Out(Segment(1, 1001));
  t.Out(Segment(1001, 2001, "P."));
  t.Out(Segment(2001, 3001));
  t.Out(Segment(3001, 4001, "P."));
  t.Out(Segment(4001, 4501, "P."));
}

// RFC 9293 section 3.9.1.2: likewise over a short path, where bursts are long: half of the window.
TEST(Rfc9293, BurstsFollowThePacingRate) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 64000 <mss 1000>");
  t.Next();
  t.Wait(Micros(100));
  t.In(". 1:1(0) ack 1 win 64000");
  t.Accept();
  t.Send(20000);
  for (int i = 1; i <= 10; ++i) {
    t.Out(Segment((i - 1) * 1000 + 1, i * 1000 + 1, i % 5 == 0 ? "P." : "."));
  }
}

// With pacing the window of ten segments is spread over half of the round trip: in slow start twice as
// fast as the window says, so that it can grow.
TEST(Pacing, SpreadsTheWindow) {
  Sending t;
  transport::TcpSocketOptions o;
  o.pacing = true;
  t.tcp().SetOptions(t.socket, o, t.now());
  t.Send(20000);
  for (int i = 0; i < 5; ++i) {
    t.Outs(2000 * i + 1, 2000 * i + 1001);
    t.Out(Segment(2000 * i + 1001, 2000 * i + 2001, "P."));
    t.Nothing();
    t.Wait(Micros(i == 0 ? 8900 : 9400));
    t.Nothing();
    t.Wait(Micros(600));
  }
  t.Nothing();  // the window is used up
  t.Wait(Millis(20));
  t.Ack(2001);
  t.Out(Segment(10001, 11001));
  t.Out(Segment(11001, 12001, "P."));
  t.Nothing();
}

// RFC 9406 section 4.2: L is 8 segments per ACK, and infinite with pacing.
TEST(Rfc9406, GrowthPerAck) {
  for (const bool paced : {false, true}) {
    Sending t("<mss 1000,nop,nop,sackOK>", {}, {.pacing = paced});
    t.Send(10'000);
    t.Wait(Millis(100));
    t.Ack(10'001);
    EXPECT_EQ(t.cwnd(), paced ? 20u : 18u);
  }
}

// Section 4.2 recommends that L; a worker may be configured otherwise, and 0 is no limit.
TEST(Rfc9406, GrowthPerAckIsConfigured) {
  for (const uint8_t limit : std::vector<uint8_t>{0, 2, 8, 9}) {
    TcpScript::Options o;
    o.config.tcp.slow_start_limit = limit;
    Sending t("<mss 1000,nop,nop,sackOK>", o);
    t.Send(10'000);
    t.Wait(Millis(100));
    t.Ack(10'001);
    EXPECT_EQ(t.cwnd(), limit == 0 ? 20u : 10u + limit);
  }
}

// What SendMore writes waits, without PSH, until Send ends it.
TEST(Cork, SendMoreWaitsForSend) {
  Sending t("<mss 1000>");
  const std::vector<uint8_t> data(300);
  EXPECT_EQ(t.tcp().SendMore(t.socket, data, t.now()).bytes, 300u);
  t.Nothing();
  t.Send(100);
  t.Out(Segment(1, 401, "P."));
}

// Not for ever: for an RTO (300 ms here), or until an ACK comes, as for Linux' MSG_MORE.
// What is passed on in one call back leaves in as few segments as it can, the FIN with the last.
TEST(Cork, QueueReceivedWaitsForPush) {
  TcpScript t;
  t.Establish();
  const auto queue = [&] {
    transport::ReceivedData data;
    while (t.tcp().ReceivePacket(t.socket, data, t.now()) == SocketError::kNone) {
      ASSERT_TRUE(t.tcp().QueueReceived(t.socket, data, t.now()).ok());
    }
  };
  t.In(". 1:101(100) ack 1 win 64000");
  t.In(". 101:201(100) ack 1 win 64000");
  t.Discard();
  queue();
  t.Nothing();
  EXPECT_EQ(t.tcp().Push(t.socket, t.now()), SocketError::kNone);
  t.Out("P. 1:201(200) ack 201");
  t.In("P. 201:301(100) ack 201 win 64000");
  t.Discard();
  queue();
  t.Shutdown();
  t.Out("FP. 201:301(100) ack 301");
  EXPECT_EQ(t.tcp().Push(t.socket, t.now()), SocketError::kShutdown);
  EXPECT_EQ(t.tcp().Push({}, t.now()), SocketError::kBadSocket);
  t.Discard();
}

TEST(Cork, SendMoreWaitsForAnRto) {
  Sending t("<mss 1000>");
  const std::vector<uint8_t> data(1300);
  t.tcp().SendMore(t.socket, std::span(data).first(300), t.now());
  t.Wait(Millis(290));
  t.Nothing();
  t.Wait(Millis(15));
  t.Out(Segment(1, 301, "P."));
  t.Ack(301);
  t.tcp().SendMore(t.socket, data, t.now());
  t.Out(Segment(301, 1301));
  t.Nothing();
  t.Ack(1301);
  t.Out(Segment(1301, 1601));
}

// The option: full segments go, the rest when it is taken off.
TEST(Cork, OptionHoldsWhatIsNotFull) {
  Sending t("<mss 1000>");
  transport::TcpSocketOptions o;
  o.cork = true;
  t.tcp().SetOptions(t.socket, o, t.now());
  t.Send(1200);
  t.Out(Segment(1, 1001));
  t.Send(100);
  t.Nothing();
  o.cork = false;
  t.tcp().SetOptions(t.socket, o, t.now());
  t.Out(Segment(1001, 1301, "P."));
  // A FIN takes along what is corked.
  o.cork = true;
  t.tcp().SetOptions(t.socket, o, t.now());
  t.Send(50);
  t.Nothing();
  t.Shutdown();
  t.Out(Segment(1301, 1351, "FP."));
}

// RFC 7323 section 3.2: resets within a connection carry timestamps too.
TEST(Rfc7323, ResetCarriesTimestamps) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 64000 <mss 1000,sackOK,TS val 100 ecr 0>");
  t.Next();
  t.In(". 1:1(0) ack 1 win 64000 <nop,nop,TS val 200 ecr 0>");
  t.Accept();
  t.Wait(Millis(500));
  t.Abort();
  t.Out("R. 1:1(0) ack 1 <nop,nop,TS val 500 ecr 200>");
}

// Options that a listener is given later are those of the connections that begin later.
TEST(Listen, OptionsCanChange) {
  TcpScript t;
  t.Listen();
  transport::TcpSocketOptions o;
  o.max_segment = 700;
  EXPECT_EQ(t.tcp().SetListenerOptions(t.listener, o), transport::SocketError::kNone);
  EXPECT_FALSE(t.tcp().Acceptable(t.listener));
  t.In("S 0:0(0) win 64000 <mss 1000>");
  t.Out("S. 0:0(0) ack 1 <mss 700>");
  t.In(". 1:1(0) ack 1 win 64000");
  EXPECT_TRUE(t.tcp().Acceptable(t.listener));
  t.Accept();
  t.Send(700);
  t.Out(Segment(1, 701, "P."));
  EXPECT_EQ(t.tcp().SetListenerOptions({}, o), transport::SocketError::kBadSocket);
}

}  // namespace
}  // namespace sluice::test
