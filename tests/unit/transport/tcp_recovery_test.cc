// Losses: how they are found, what is sent again and when, and what becomes of the window.
#include <gtest/gtest.h>

#include <string>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::Recovery;
using transport::TcpState;

constexpr char kSack[] = "<mss 1000,nop,nop,sackOK>";
constexpr char kSackTs[] = "<mss 1012,sackOK,TS val 100 ecr 0>";

std::string Segment(int from, int to, bool push = false) {
  return std::string(push ? "P." : ".") + " " + std::to_string(from) + ":" + std::to_string(to) +
         "(" + std::to_string(to - from) + ") ack 1";
}

// A handshake whose round trip took 100 ms, so that timers have something to go by.
struct Recovering : TcpScript {
  explicit Recovering(const std::string& options = kSack, Options o = {}) : TcpScript(o) {
    Listen();
    In("S 0:0(0) win 64000 " + options);
    Next();
    Wait(Millis(100));
    ts = options.find("TS") != std::string::npos;
    Ack(1);
    Accept();
  }
  // An ACK; `sack` as "1001:2001 3001:4001".
  void Ack(int ack, const std::string& sack = "", int ecr = 0) {
    std::string o;
    if (ts) o = "nop,nop,TS val " + std::to_string(200 + now().count() / 1000000) + " ecr " +
                std::to_string(ecr);
    if (!sack.empty()) o += std::string(o.empty() ? "" : ",") + "nop,nop,sack " + sack;
    In(". 1:1(0) ack " + std::to_string(ack) + " win 64000" + (o.empty() ? "" : " <" + o + ">"));
  }
  // Sends full segments, which are taken off the list, and waits.
  void SendSegments(int count, Nanos then = Nanos()) {
    Send(static_cast<uint32_t>(count) * 1000);
    for (int i = 0; i < count; ++i) EXPECT_NE(Next(), "");
    Nothing();
    if (then > Nanos()) Wait(then);
  }
  const transport::Tcb& tcb() { return *tcp().Find(socket); }
  bool ts = false;
};

// RFC 6928: ten segments at first.
TEST(Rfc6928, InitialWindowIsTenSegments) {
  Recovering t;
  t.Send(20000);
  EXPECT_EQ(t.pending(), 10u);
}

// RFC 5681 section 3.1: slow start adds a segment per segment acknowledged.
TEST(Rfc5681, SlowStartDoubles) {
  Recovering t;
  t.Send(60000);
  EXPECT_EQ(t.pending(), 10u);
  t.Discard();
  t.Wait(Millis(100));
  for (int i = 1; i <= 5; ++i) t.Ack(1 + i * 2000);
  EXPECT_EQ(t.pending(), 20u);
}

// RFC 5681 section 4.1: after an idle time longer than the RTO, no more than the initial window.
TEST(Rfc5681, RestartAfterIdle) {
  Recovering t;
  t.Send(60000);
  t.Wait(Millis(100));
  for (int i = 1; i <= 5; ++i) t.Ack(1 + i * 2000);
  t.Wait(Millis(100));
  for (int i = 11001; i <= 60001; i += 1000) t.Ack(i);
  t.Discard();
  EXPECT_GT(t.tcb().congestion.cwnd(), 20000u);
  t.Wait(Seconds(10));
  t.Send(30000);
  EXPECT_EQ(t.pending(), 10u);
}

// RFC 7661: a window that is not used does not grow.
TEST(Rfc7661, UnusedWindowDoesNotGrow) {
  Recovering t;
  for (int i = 0; i < 20; ++i) {
    t.Send(1000);
    t.Wait(Millis(100));
    t.Ack(1 + (i + 1) * 1000);
  }
  EXPECT_EQ(t.tcb().congestion.cwnd(), 10000u);
}

// RFC 6298 section 2: the first sample R gives SRTT = R, RTTVAR = R/2; then 7/8 and 3/4 of the old.
TEST(Rfc6298, RttEstimate) {
  transport::RttEstimator rtt;
  rtt.Start(Seconds(1), Millis(200), Seconds(120));
  EXPECT_EQ(rtt.rto(), Seconds(1));
  rtt.Sample(Millis(400), Seconds(1));
  EXPECT_EQ(rtt.srtt(), Millis(400));
  EXPECT_EQ(rtt.rttvar(), Millis(200));
  EXPECT_EQ(rtt.rto(), Millis(1200));
  rtt.Sample(Millis(800), Seconds(2));
  EXPECT_EQ(rtt.rttvar(), Millis(250));
  EXPECT_EQ(rtt.srtt(), Millis(450));
  EXPECT_EQ(rtt.rto(), Millis(1450));
}

// Section 5: the timeout doubles, up to the maximum; the first ACK of new data ends that.
TEST(Rfc6298, TimeoutBacksOff) {
  Recovering t("<mss 1000>");
  t.SendSegments(1);
  // SRTT 100 ms, RTTVAR 50 ms: 300 ms.
  int wait = 300;
  for (int i = 0; i < 4; ++i, wait *= 2) {
    t.Wait(Millis(wait) - Millis(20));
    t.Nothing();
    t.Wait(Millis(22));
    t.Out(Segment(1, 1001, true));
  }
  t.Ack(1001);
  EXPECT_EQ(t.tcb().rtt.backoff(), 0);
  EXPECT_EQ(t.tcp().counters().timeouts.Read(), 4u);
}

// Section 3 (Karn): a segment that was sent twice gives no sample.
TEST(Rfc6298, RetransmissionGivesNoSample) {
  Recovering t("<mss 1000>");
  t.SendSegments(1);
  t.Wait(Millis(310));
  t.Out(Segment(1, 1001, true));
  const Nanos before = t.tcb().rtt.srtt();
  t.Wait(Millis(1));
  t.Ack(1001);
  EXPECT_EQ(t.tcb().rtt.srtt(), before);
}

// Section 5.3: an ACK of new data starts the timer anew.
TEST(Rfc6298, AckRestartsTimer) {
  Recovering t("<mss 1000>");
  t.SendSegments(2);
  t.Wait(Millis(250));
  t.Ack(1001);
  const Nanos rto = t.tcb().rtt.rto();
  t.Wait(rto - Millis(5));
  t.Nothing();
  t.Wait(Millis(10));
  t.Out(Segment(1001, 2001, true));
}

// RFC 5681 section 3.1: after a timeout one segment at a time, ssthresh half of what was in flight.
TEST(Rfc5681, TimeoutStartsOver) {
  TcpScript::Options o;
  Recovering t("<mss 1000>", o);
  t.tcp().SetOptions(t.socket, {.congestion = transport::CongestionAlgorithm::kNewReno}, t.now());
  t.SendSegments(8);
  t.Wait(Millis(310));
  t.Out(Segment(1, 1001));
  t.Nothing();
  EXPECT_EQ(t.tcb().congestion.cwnd(), 1000u);
  t.Ack(1001);
  t.Out(Segment(1001, 2001));
  t.Out(Segment(2001, 3001));
  t.Nothing();
}

// RFC 3042: each of the first two duplicate ACKs lets a new segment go.
TEST(Rfc3042, LimitedTransmit) {
  Recovering t("<mss 1000>");
  t.Send(14000);
  t.Discard();
  t.Ack(1);
  t.Out(Segment(10001, 11001));
  t.Ack(1);
  t.Out(Segment(11001, 12001));
  t.Nothing();
}

// RFC 5681 section 3.2: the third duplicate ACK has the segment sent again at once.
TEST(Rfc5681, ThirdDuplicateAckRetransmits) {
  Recovering t("<mss 1000>");
  t.SendSegments(10);
  t.Ack(1);
  t.Ack(1);
  t.Nothing();
  t.Ack(1);
  t.Out(Segment(1, 1001));
  EXPECT_EQ(t.tcb().recovery, Recovery::kRecovery);
  // CUBIC's 0.7 of the window (RFC 9438 section 4.6).
  EXPECT_EQ(t.tcb().congestion.ssthresh(), 7000u);
  t.Ack(10001);
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
  EXPECT_GE(t.tcb().congestion.cwnd(), 7000u);
  EXPECT_LT(t.tcb().congestion.cwnd(), 8000u);
}

// RFC 5681 section 2: an ACK that changes the window, or carries data, is not a duplicate.
TEST(Rfc5681, WindowUpdateIsNoDuplicate) {
  Recovering t("<mss 1000>");
  t.SendSegments(5);
  for (int i = 1; i <= 4; ++i) t.In(". 1:1(0) ack 1 win " + std::to_string(50000 + i));
  for (int i = 0; i < 4; ++i) {
    t.In("P. " + std::to_string(1 + i * 10) + ":" + std::to_string(11 + i * 10) +
         "(10) ack 1 win 50004");
  }
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
  EXPECT_EQ(t.tcp().counters().segments_retransmitted.Read(), 0u);
  t.Read();
}

// RFC 6582 section 3.2: a partial acknowledgment shows the next hole, which is filled at once.
TEST(Rfc6582, PartialAckRetransmitsNextHole) {
  Recovering t("<mss 1000>");
  t.SendSegments(10);
  for (int i = 0; i < 3; ++i) t.Ack(1);
  t.Out(Segment(1, 1001));
  t.Ack(4001);
  t.Out(Segment(4001, 5001));
  EXPECT_EQ(t.tcb().recovery, Recovery::kRecovery);
  t.Ack(10001);
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
}

// RFC 6675 section 5, RFC 8985 section 6.2 with DupThresh: three segments beyond a hole are enough;
// only the hole is sent again.
TEST(Rfc6675, HoleIsRetransmitted) {
  Recovering t;
  t.SendSegments(10, Millis(100));
  t.Ack(1, "1001:2001");
  t.Ack(1, "1001:3001");
  t.Nothing();
  t.Ack(1, "1001:4001");
  t.Out(Segment(1, 1001));
  t.Nothing();
  t.Wait(Millis(100));
  t.Ack(10001);
  EXPECT_EQ(t.tcp().counters().segments_retransmitted.Read(), 1u);
}

// Section 4, IsLost: several holes are filled, as the window allows, lowest first.
TEST(Rfc6675, SeveralHoles) {
  Recovering t;
  t.SendSegments(10, Millis(100));
  t.Ack(1, "9001:10001 5001:8001 2001:4001");
  t.Out(Segment(1, 1001));
  const std::string second = t.Next();
  if (!second.empty()) {
    EXPECT_EQ(second.substr(0, 17), ". 1001:2001(1000)");
  }
  t.Wait(Millis(100));
  t.Ack(2001, "9001:10001 5001:8001 2001:4001");
  t.Ack(4001, "9001:10001 5001:8001");
  t.Wait(Millis(400));
  t.Discard();
  t.Ack(10001);
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
  EXPECT_TRUE(t.tcb().scoreboard.empty());
}

// RFC 2018 section 8: a SACK may be taken back. After a timeout it counts no more when the first
// segment is among what was SACKed, and all is sent again.
TEST(Rfc2018, RenegingIsSurvived) {
  Recovering t;
  t.SendSegments(3, Millis(100));
  t.Ack(1, "2001:3001");
  t.Ack(1001, "2001:3001");  // the receiver now drops 2001:3001 again
  t.Ack(2001);
  t.Discard();
  t.Wait(Seconds(2));
  EXPECT_GE(t.pending(), 1u);
  const std::string again = t.Next();
  EXPECT_NE(again.find("2001:3001(1000)"), std::string::npos) << again;
}

// RFC 6675 section 4: the scoreboard takes what is in flight; a SACK of what was never sent, or upside
// down, is ignored.
TEST(Rfc6675, NonsenseSackIsIgnored) {
  Recovering t;
  t.SendSegments(5);
  t.Ack(1, "90001:95001");
  t.Ack(1, "3001:2001");
  t.Ack(1, "-5000:1001");
  EXPECT_EQ(t.tcb().scoreboard.sacked_bytes(), 0u);
  t.Nothing();
}

// RFC 8985 section 6.2: without signs of reordering before, one segment delivered out of order is
// waited for during a quarter of the least RTT; then it counts as lost.
TEST(Rfc8985, ReorderingWindow) {
  Recovering t;
  t.SendSegments(2, Millis(100));
  t.Ack(1, "1001:2001");
  t.Nothing();
  t.Wait(Millis(20));
  t.Nothing();
  t.Wait(Millis(10));
  t.Out(Segment(1, 1001));
}

// RFC 8985 section 6.2: if it arrives in time nothing is sent, and the window stays.
TEST(Rfc8985, ReorderingWithinTheWindowIsHarmless) {
  Recovering t;
  t.SendSegments(10, Millis(100));
  t.Ack(1, "1001:2001");
  t.Wait(Millis(15));
  t.Ack(2001);
  t.Wait(Millis(60));
  t.Nothing();
  EXPECT_TRUE(t.tcb().rack.reordering_seen);
  EXPECT_EQ(t.tcb().congestion.cwnd() >= 10000u, true);
  EXPECT_EQ(t.tcp().counters().segments_retransmitted.Read(), 0u);
}

// RFC 8985 section 6.2: an ACK that tells nothing new has nothing looked at: what only time shows is
// the timer's.
TEST(Rfc8985, OnlyNewsAndTheTimerFindLosses) {
  Recovering t;
  for (int i = 0; i < 3; ++i) {
    t.SendSegments(1);
    t.Wait(Millis(10));
  }
  t.Wait(Millis(90));
  t.Ack(1, "2001:3001");
  t.Wait(Millis(8));
  t.Nothing();
  t.Ack(1, "2001:3001");
  EXPECT_EQ(t.tcb().scoreboard.lost_bytes(), 0u);  // the first segment's time is over
  t.Wait(Millis(10));
  t.Out(Segment(1, 1001, true));
}

// Section 6.2: a retransmission that is lost is found by what was sent after it, without a timeout.
TEST(Rfc8985, LostRetransmissionIsFound) {
  Recovering t;
  t.Send(30000);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(1, "1001:4001");
  EXPECT_NE(t.Next().find(" 1:1001(1000)"), std::string::npos);
  t.Discard();
  // Everything sent since then arrives, and the hole is still there.
  t.Wait(Millis(50));
  t.Ack(1, "1001:10001");
  t.Wait(Millis(100));
  const auto before = t.tcp().counters().segments_retransmitted.Read();
  t.Discard();
  t.Ack(1, "1001:14001");
  t.Wait(Millis(130));
  EXPECT_GT(t.tcp().counters().segments_retransmitted.Read(), before);
  EXPECT_EQ(t.tcp().counters().timeouts.Read(), 0u);
}

// Section 7.2: nothing comes back after 2 SRTT: the last segment is sent again as a probe, before the
// timeout and without its consequences.
TEST(Rfc8985, TailLossProbe) {
  Recovering t;
  t.SendSegments(3);
  t.Wait(Millis(195));
  t.Nothing();
  t.Wait(Millis(15));
  t.Out(Segment(2001, 3001, true));
  EXPECT_EQ(t.tcp().counters().tail_loss_probes.Read(), 1u);
  EXPECT_EQ(t.tcp().counters().timeouts.Read(), 0u);
  EXPECT_EQ(t.tcb().congestion.cwnd(), 10000u);
  // The probe's SACK shows the loss of what is before it; fast recovery does the rest.
  t.Wait(Millis(100));
  t.Ack(1, "2001:3001");
  t.Wait(Millis(30));
  EXPECT_NE(t.Next().find(" 1:1001(1000)"), std::string::npos);
}

// Section 7.3: new data is the better probe.
TEST(Rfc8985, TailLossProbeWithNewData) {
  Recovering t;
  t.Send(12000);  // ten go, two wait for the window
  t.Discard();
  t.Wait(Millis(205));
  t.Out(Segment(10001, 11001));
}

// Section 7.4: if the probe repaired the loss, the congestion counts all the same; if it was needless,
// nothing happens.
TEST(Rfc8985, TailLossProbeThatRepairsReducesTheWindow) {
  Recovering t;
  t.SendSegments(2);
  t.Wait(Millis(205));
  t.Out(Segment(1001, 2001, true));
  t.Wait(Millis(100));
  t.Ack(2001);
  t.SendSegments(1);
  t.Ack(3001);
  EXPECT_LT(t.tcb().congestion.cwnd(), 10000u);
}

// RFC 8985 section 7.4: a probe whose duplicate is told of has repaired nothing, so nothing was lost.
TEST(Rfc8985, TailLossProbeThatWasNeedlessDoesNot) {
  Recovering t;
  t.SendSegments(2);
  t.Wait(Millis(205));
  t.Out(Segment(1001, 2001, true));
  t.Ack(2001);                // the original's
  t.Ack(2001, "1001:2001");   // the probe was a duplicate
  t.SendSegments(1);
  t.Ack(3001);
  EXPECT_GE(t.tcb().congestion.cwnd(), 10000u);
}

// RFC 6937: during recovery as much is sent as the ACKs deliver, reduced in proportion, and at its end
// the window is ssthresh.
TEST(Rfc6937, ProportionalReduction) {
  Recovering t;
  t.Send(60000);
  EXPECT_EQ(t.pending(), 10u);
  t.Discard();
  t.Wait(Millis(100));
  for (int i = 1; i <= 5; ++i) t.Ack(1 + i * 2000);  // 20 in flight: 10001 to 30001
  t.Discard();
  t.Wait(Millis(100));
  int sent = 0;
  for (int i = 2; i <= 20; ++i) {
    t.Ack(10001, "11001:" + std::to_string(10001 + i * 1000));
    sent += static_cast<int>(t.pending());
    EXPECT_LE(t.pending(), 2u) << i;  // never a burst
    t.Discard();
  }
  // 20 delivered of 20 in flight: 0.7 of them sent, and the one retransmission among them.
  EXPECT_GE(sent, 13);
  EXPECT_LE(sent, 15);
  const uint32_t ssthresh = t.tcb().congestion.ssthresh();
  EXPECT_EQ(ssthresh, 14000u);
  t.Wait(Millis(100));
  t.Ack(static_cast<int>(30001 + (sent - 1) * 1000));
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
  EXPECT_GE(t.tcb().congestion.cwnd(), ssthresh);
}

// RFC 3522 (Eifel): the ACK echoes a timestamp from before the retransmission: the original has
// arrived, the timeout was a false alarm, and the window comes back.
TEST(Rfc3522, SpuriousTimeoutIsUndone) {
  Recovering t(kSackTs);
  t.Send(5000);
  t.Discard();
  const uint32_t cwnd = t.tcb().congestion.cwnd();
  t.Wait(Seconds(2));
  EXPECT_GE(t.tcp().counters().timeouts.Read(), 1u);
  EXPECT_EQ(t.tcb().congestion.cwnd(), 1000u);
  t.Discard();
  t.Ack(3001, "", 100);  // TSecr from the first transmission
  EXPECT_EQ(t.tcp().counters().undone.Read(), 1u);
  EXPECT_GE(t.tcb().congestion.cwnd(), cwnd);
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
}

// RFC 3708: D-SACK tells that what was retransmitted came twice.
TEST(Rfc3708, DsackUndoesTheReduction) {
  Recovering t;
  t.SendSegments(10, Millis(100));
  t.Ack(1, "1001:4001");
  t.Out(Segment(1, 1001));
  EXPECT_EQ(t.tcb().recovery, Recovery::kRecovery);
  t.Ack(4001);               // the original was only late
  t.Ack(4001, "1:1001");
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
  EXPECT_EQ(t.tcp().counters().undone.Read(), 1u);
  EXPECT_GE(t.tcb().congestion.cwnd(), 10000u);
}

// RFC 3168 section 6.1.1: asked for in the SYN by ECE and CWR, granted by ECE alone.
TEST(Rfc3168, Negotiation) {
  TcpScript t;
  t.Listen();
  t.In("SEW 0:0(0) win 64000 <mss 1000>");
  EXPECT_EQ(t.Next().substr(0, 5), "S.E 0");
  t.In(". 1:1(0) ack 1 win 64000");
  t.Accept();
  // Data is marked ECT(0), what carries none is not (section 6.1.4).
  t.Send(1000);
  t.Out("[ect0] P. 1:1001(1000) ack 1");
  t.In("P. 1:101(100) ack 1 win 64000");
  t.Out(". 1001:1001(0) ack 101");
  t.Read();
  // A retransmission is not marked either (section 6.1.5).
  t.Wait(Millis(210));
  t.Out("P. 1:1001(1000) ack 101");
}

// RFC 3168 section 6.1.1: a SYN with ECE and without CWR does not ask for ECN.
TEST(Rfc3168, NotWithoutTheRequest) {
  TcpScript t;
  t.Listen();
  t.In("SE 0:0(0) win 64000 <mss 1000>");
  EXPECT_EQ(t.Next().substr(0, 4), "S. 0");
}

// Section 6.1.3: a CE mark is echoed in every ACK until the sender says CWR.
TEST(Rfc3168, ReceiverEchoesUntilCwr) {
  TcpScript t;
  t.Listen();
  t.In("SEW 0:0(0) win 64000 <mss 1000>");
  t.Next();
  t.In(". 1:1(0) ack 1 win 64000");
  t.Accept();
  t.In("[ce] P. 1:101(100) ack 1 win 64000");
  t.Out(".E 1:1(0) ack 101");
  t.In("P. 101:201(100) ack 1 win 64000");
  t.Out(".E 1:1(0) ack 201");
  t.In("P.W 201:301(100) ack 1 win 64000");
  t.Out(". 1:1(0) ack 301");
  t.Read();
}

// Section 6.1.2: the sender halves (CUBIC: 0.7) once per round trip, and says CWR with its next data.
TEST(Rfc3168, SenderReducesOncePerWindow) {
  TcpScript t;
  t.Listen();
  t.In("SEW 0:0(0) win 64000 <mss 1000>");
  t.Next();
  t.In(". 1:1(0) ack 1 win 64000");
  t.Accept();
  t.Send(30000);
  t.Discard();
  t.In(".E 1:1(0) ack 2001 win 64000");
  t.In(".E 1:1(0) ack 4001 win 64000");
  t.In(".E 1:1(0) ack 6001 win 64000");
  EXPECT_EQ(t.tcp().counters().ecn_reductions.Read(), 1u);
  int cwr = 0;
  for (std::string s; !(s = t.Next()).empty();) cwr += s.find('W') != std::string::npos;
  EXPECT_EQ(cwr, 1);
  EXPECT_EQ(t.tcp().Find(t.socket)->congestion.ssthresh(), 7000u);
}

// RFC 1191, RFC 5927: a router's word is believed if it quotes what is in flight. Too large segments
// are sent again at once, smaller, and the window stays.
TEST(Rfc1191, PathMtuIsFollowed) {
  Recovering t("<mss 1460>");
  t.Send(2920);
  t.Discard();
  const uint32_t segments = t.tcb().congestion.cwnd() / 1460;
  t.Icmp(3, 4, 1040, 1);
  t.Out(". 1:1001(1000) ack 1");
  t.Out(". 1001:1461(460) ack 1");
  t.Out(". 1461:2461(1000) ack 1");
  t.Out("P. 2461:2921(460) ack 1");
  EXPECT_GE(t.tcb().congestion.cwnd(), segments * 1000);
  EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
}

// RFC 5927 section 4.1: an error that quotes a number that is not in flight is not believed.
TEST(Rfc5927, IcmpOutsideOfWhatIsInFlightIsIgnored) {
  Recovering t("<mss 1460>");
  t.Send(1460);
  t.Discard();
  t.Icmp(3, 4, 1000, 5000);
  t.Nothing();
  EXPECT_EQ(t.tcb().path_mtu, 1500u);
}

// RFC 8201 section 4: below 1280 is not believed.
TEST(Rfc8201, PacketTooBigBelow1280IsIgnored) {
  TcpScript t({.v6 = true});
  t.Establish("<mss 1440>");
  t.Send(1440);
  t.Discard();
  t.Icmp(2, 0, 600, 1);
  EXPECT_EQ(t.tcp().Find(t.socket)->path_mtu, 1500u);
  t.Icmp(2, 0, 1300, 1);
  EXPECT_EQ(t.tcp().Find(t.socket)->path_mtu, 1300u);
}

// RFC 1191 section 6.3: after ten minutes the larger size is tried again.
TEST(Rfc1191, PathMtuAges) {
  Recovering t("<mss 1460>");
  t.Send(1460);
  t.Icmp(3, 4, 1000, 1);
  t.Ack(1461);
  t.Discard();
  t.Wait(Seconds(601));
  t.Send(1460);
  t.Out("P. 1461:2921(1460) ack 1");
}

}  // namespace
}  // namespace sluice::test
