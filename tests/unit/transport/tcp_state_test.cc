// RFC 9293's state machine, segment by segment, and RFC 5961. Each test is named by its rule; the
// comment above says the rule in other words.
#include <gtest/gtest.h>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::SocketError;
using transport::TcpState;

// Section 3.5, figure 6: three segments, and each end knows the other's initial number.
TEST(Rfc9293, PassiveOpen) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000 <mss 1460,nop,wscale 7>");
  t.Out("S. 0:0(0) ack 1 win 65535 <mss 1460,nop,wscale 7>");
  EXPECT_EQ(t.acceptable, 0);
  t.In(". 1:1(0) ack 1 win 257");
  EXPECT_EQ(t.acceptable, 1);
  t.Accept();
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  t.Nothing();
}

// RFC 9293 section 3.5: the server waits for the SYN, and is open with the ACK of its own.
TEST(Rfc9293, PassiveOpenV6) {
  TcpScript t({.v6 = true});
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Out("S. 0:0(0) ack 1 <mss 1440>");
  t.In(". 1:1(0) ack 1 win 5000");
  t.Accept();
  EXPECT_EQ(t.Send(2000), 2000u);
  // Without an MSS option IPv6 means 1220 (section 3.7.1).
  EXPECT_EQ(t.Next().substr(0, 14), ". 1:1221(1220)");
}

// RFC 9293 section 3.5: the client sends a SYN, and acknowledges the answer.
TEST(Rfc9293, ActiveOpen) {
  TcpScript t;
  t.Connect();
  EXPECT_EQ(t.state(), TcpState::kSynSent);
  t.Out("S 0:0(0) win 65535 <mss 1460,sackOK,TS val 0 ecr 0,nop,wscale 7>");
  t.In("S. 0:0(0) ack 1 win 5000 <mss 1000,sackOK,TS val 700 ecr 0,nop,wscale 7>");
  t.Out(". 1:1(0) ack 1 <nop,nop,TS val 0 ecr 700>");
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.connected, 1);
  EXPECT_EQ(t.writable, 1);
  t.Nothing();
}

// RFC 9293 figure 8 (section 3.5): both send a SYN at once; both go through SYN-RECEIVED.
TEST(Rfc9293, SimultaneousOpen) {
  TcpScript t;
  t.Connect();
  t.Out("S 0:0(0)");
  t.In("S 0:0(0) win 5000 <mss 1000>");
  t.Out("S. 0:0(0) ack 1");
  EXPECT_EQ(t.state(), TcpState::kSynReceived);
  t.In("S. 0:0(0) ack 1 win 5000 <mss 1000>");
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.connected, 1);
}

// Section 3.10.7.3: in SYN-SENT an ACK of something else than the SYN is answered with a reset.
TEST(Rfc9293, SynSentWrongAckIsReset) {
  TcpScript t;
  t.Connect();
  t.Out("S 0:0(0)");
  t.In("S. 0:0(0) ack 77 win 5000");
  t.Out("R 77:77(0)");
  EXPECT_EQ(t.state(), TcpState::kSynSent);
  t.In("R 0:0(0)");  // a reset without ACK does not count
  EXPECT_EQ(t.state(), TcpState::kSynSent);
  t.In("R. 0:0(0) ack 1");
  EXPECT_EQ(t.error, SocketError::kRefused);
  EXPECT_EQ(t.ReadError(), SocketError::kRefused);
  t.Close();
}

// Section 3.10.7.2: without a connection an ACK gets a reset that carries its number, a reset nothing.
TEST(Rfc9293, ListenAnswersAckWithReset) {
  TcpScript t;
  t.Listen();
  t.In(". 1:1(0) ack 500 win 1000");
  t.Out("R 500:500(0)");
  t.In("R 1:1(0)");
  t.In("F 1:1(0)");
  t.Nothing();
  EXPECT_EQ(t.dropped(DropReason::kTcpNoConnection), 2u);
}

// RFC 9293 section 3.10.7.1 would reset; but a port that nobody listens on is not ours: the kernel's.
TEST(Rfc9293, UnclaimedPortIsLeftAlone) {
  TcpScript t;
  t.In("S 0:0(0) win 1000");
  t.Nothing();
  EXPECT_EQ(t.host().unclaimed(), 1u);
}

// Section 3.10.7.4: in SYN-RECEIVED an ACK outside of what was sent is answered with a reset.
TEST(Rfc9293, SynReceivedWrongAckIsReset) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Out("S. 0:0(0) ack 1");
  t.In(". 1:1(0) ack 2 win 1000");
  t.Out("R 2:2(0)");
  EXPECT_EQ(t.dropped(DropReason::kTcpBadAck), 1u);
  t.In(". 1:1(0) ack 1 win 1000");
  EXPECT_EQ(t.acceptable, 1);
}

// RFC 9293 section 3.10.7.4: a SYN that comes again in SYN-RECEIVED is answered again.
TEST(Rfc9293, RepeatedSynIsAnsweredAgain) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Out("S. 0:0(0) ack 1");
  t.In("S 0:0(0) win 1000");
  t.Out("S. 0:0(0) ack 1");
  EXPECT_EQ(t.tcp().usage().connections, 1u);
}

// Section 3.6, figure 12: close from here: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, gone after 2 MSL.
TEST(Rfc9293, ActiveClose) {
  TcpScript t;
  t.Establish();
  EXPECT_EQ(t.Shutdown(), SocketError::kNone);
  t.Out("F. 1:1(0) ack 1");
  EXPECT_EQ(t.state(), TcpState::kFinWait1);
  t.In(". 1:1(0) ack 2 win 1000");
  EXPECT_EQ(t.state(), TcpState::kFinWait2);
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  EXPECT_EQ(t.state(), TcpState::kTimeWait);
  EXPECT_EQ(t.ReadError(), SocketError::kEndOfData);
  t.Close();
  EXPECT_EQ(t.tcp().usage().time_wait, 1u);
  t.Wait(Seconds(61));
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  t.Nothing();
}

// RFC 9293 figure 12 (section 3.6): the peer closes first: CLOSE-WAIT, LAST-ACK, CLOSED.
TEST(Rfc9293, PassiveClose) {
  TcpScript t;
  t.Establish();
  t.In("F. 1:1(0) ack 1 win 1000");
  t.Out(". 1:1(0) ack 2");
  EXPECT_EQ(t.state(), TcpState::kCloseWait);
  EXPECT_EQ(t.ReadError(), SocketError::kEndOfData);
  // Half closed: data still goes (section 3.6).
  EXPECT_EQ(t.Send(100), 100u);
  t.Out("P. 1:101(100) ack 2");
  t.Close();
  t.Out("F. 101:101(0) ack 2");
  t.In(". 2:2(0) ack 102 win 1000");
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  t.Nothing();
}

// RFC 9293 figure 13 (section 3.6): both FINs cross: CLOSING, then TIME-WAIT.
TEST(Rfc9293, SimultaneousClose) {
  TcpScript t;
  t.Establish();
  t.Shutdown();
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 1 win 1000");
  t.Out(". 2:2(0) ack 2");
  EXPECT_EQ(t.state(), TcpState::kClosing);
  t.In(". 2:2(0) ack 2 win 1000");
  EXPECT_EQ(t.state(), TcpState::kTimeWait);
}

// RFC 9293 section 3.10.7.4: a FIN that also acknowledges ours goes from FIN-WAIT-1 to TIME-WAIT at
// once.
TEST(Rfc9293, FinWithAckOfFin) {
  TcpScript t;
  t.Establish();
  t.Shutdown();
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  EXPECT_EQ(t.state(), TcpState::kTimeWait);
}

// RFC 9293 section 3.6.1, half-close: after our FIN the peer's data still arrives.
TEST(Rfc9293, DataInFinWait2) {
  TcpScript t;
  t.Establish();
  t.Shutdown();
  t.Out("F. 1:1(0) ack 1");
  t.In(". 1:101(100) ack 2 win 1000");
  t.Out(". 2:2(0) ack 101");
  EXPECT_EQ(t.Read().size(), 100u);
  EXPECT_EQ(t.state(), TcpState::kFinWait2);
}

// RFC 9293 section 3.10.7.4: a lost FIN is sent again, and one that comes again in TIME-WAIT is
// acknowledged again.
TEST(Rfc9293, FinIsRetransmittedAndAcknowledgedAgain) {
  TcpScript t;
  t.Establish();
  t.Shutdown();
  t.Out("F. 1:1(0) ack 1");
  t.Wait(Millis(250));
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  t.Wait(Seconds(59));
  EXPECT_EQ(t.state(), TcpState::kTimeWait);
}

// RFC 9293 section 3.10.7.4: a FIN that overtakes data takes effect when the data is there.
TEST(Rfc9293, FinOutOfOrder) {
  TcpScript t;
  t.Establish();
  t.In("F. 101:201(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 1");
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  t.In(". 1:101(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 202");
  EXPECT_EQ(t.state(), TcpState::kCloseWait);
  EXPECT_EQ(t.Read().size(), 200u);
}

// RFC 9293 section 3.10.7.4: data behind the peer's FIN is not taken.
TEST(Rfc9293, DataAfterFinIsRefused) {
  TcpScript t;
  t.Establish();
  t.In("F. 1:1(0) ack 1 win 1000");
  t.Out(". 1:1(0) ack 2");
  t.In(". 2:52(50) ack 1 win 1000");
  EXPECT_EQ(t.dropped(DropReason::kTcpOutsideWindow), 1u);
  EXPECT_EQ(t.ReadError(), SocketError::kEndOfData);
}

// Section 3.6.1: closing with data unread resets, so that the peer does not take it for read.
TEST(Rfc9293, CloseWithUnreadDataResets) {
  TcpScript t;
  t.Establish();
  t.In("P. 1:101(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 101");
  t.Close();
  t.Out("R. 1:1(0) ack 101");
  EXPECT_EQ(t.tcp().usage().connections, 0u);
}

// The same for data that comes after Close. The reset has the number that the peer acknowledges, since
// RFC 5961 has it believe no other: here it has not seen our FIN.
TEST(Rfc9293, DataAfterCloseIsReset) {
  TcpScript t;
  t.Establish();
  t.Close();
  t.Out("F. 1:1(0) ack 1");
  t.In(". 1:101(100) ack 1 win 1000");
  t.Out("R 1:1(0)");
  EXPECT_EQ(t.dropped(DropReason::kTcpAfterClose), 1u);
  EXPECT_EQ(t.tcp().usage().connections, 0u);
}

// Section 3.10.5: ABORT tells the peer.
TEST(Rfc9293, AbortResets) {
  TcpScript t;
  t.Establish();
  t.Send(100);
  t.Out("P. 1:101(100) ack 1");
  t.Abort();
  t.Out("R. 101:101(0) ack 1");
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  EXPECT_EQ(t.tcp().usage().segments, 0u);
}

// RFC 9293 section 3.6 sets no time; a connection that its program has closed does not wait for the
// peer's FIN for ever.
TEST(Rfc9293, OrphanInFinWait2Ends) {
  TcpScript t;
  t.Establish();
  t.Close();
  t.Out("F. 1:1(0) ack 1");
  t.In(". 1:1(0) ack 2 win 1000");
  EXPECT_EQ(t.tcp().usage().orphans, 1u);
  t.Wait(Seconds(61));
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  EXPECT_EQ(t.tcp().usage().orphans, 0u);
}

// Section 3.10.7.4: a segment outside of the window is acknowledged and not taken; a zero-length one
// seldom, so that two stacks cannot keep each other busy.
TEST(Rfc9293, SegmentsOutsideOfTheWindow) {
  TcpScript t;
  t.Establish();
  t.In(". 200001:200101(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 1");
  EXPECT_EQ(t.dropped(DropReason::kTcpOutsideWindow), 1u);
  t.In(". 0:0(0) ack 1 win 1000");
  t.Out(". 1:1(0) ack 1");
  t.In(". 0:0(0) ack 1 win 1000");
  t.Nothing();
  t.Wait(Millis(600));
  t.In(". 0:0(0) ack 1 win 1000");
  t.Out(". 1:1(0) ack 1");
}

// Section 3.10.7.4: a segment without ACK in a connection is dropped.
TEST(Rfc9293, SegmentWithoutAckIsDropped) {
  TcpScript t;
  t.Establish();
  t.In("P 1:101(100) win 1000");
  t.Nothing();
  EXPECT_EQ(t.dropped(DropReason::kTcpNoAck), 1u);
}

// Section 3.1: a segment with a wrong checksum is as if it had not come.
TEST(Rfc9293, ChecksumIsVerified) {
  TcpScript t;
  t.Establish();
  t.CorruptNext();
  t.In("P. 1:101(100) ack 1 win 1000");
  t.Nothing();
  EXPECT_EQ(t.dropped(DropReason::kChecksum), 1u);
}

// Section 3.8.5: urgent data is data; the pointer does no harm.
TEST(Rfc9293, UrgentDataIsTakenAsData) {
  TcpScript t;
  t.Establish();
  t.In("PU. 1:101(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 101");
  EXPECT_EQ(t.Read().size(), 100u);
}

// RFC 5961 section 3.2: a reset counts if it names the next number exactly, in the window it is
// answered with a challenge, elsewhere dropped.
TEST(Rfc5961, ResetMustBeExact) {
  TcpScript t;
  t.Establish();
  t.In("R 50:50(0)");
  t.Out(". 1:1(0) ack 1");
  t.In("R 900000:900000(0)");
  t.Nothing();
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.dropped(DropReason::kTcpBadReset), 2u);
  t.In("R 1:1(0)");
  EXPECT_EQ(t.error, SocketError::kReset);
  EXPECT_EQ(t.ReadError(), SocketError::kReset);
  t.Nothing();
}

// RFC 5961 section 3.2 says which reset is believed; data received before it can still be read.
TEST(Rfc5961, DataBeforeResetIsReadable) {
  TcpScript t;
  t.Establish();
  t.In("P. 1:101(100) ack 1 win 1000");
  t.Out(". 1:1(0) ack 101");
  t.In("R 101:101(0)");
  EXPECT_EQ(t.Read().size(), 100u);
  EXPECT_EQ(t.ReadError(), SocketError::kReset);
  t.Close();
  EXPECT_EQ(t.tcp().usage().connections, 0u);
}

// Section 4.2: a SYN within a connection is answered with a challenge, whatever its number.
TEST(Rfc5961, SynIsChallenged) {
  TcpScript t;
  t.Establish();
  t.In("S 10:10(0) win 1000");
  t.Out(". 1:1(0) ack 1");
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.tcp().counters().challenge_acks.Read(), 1u);
}

// Section 5.2: an ACK of what was never sent, or is older than any window, is not believed.
TEST(Rfc5961, AckMustBeInRange) {
  TcpScript t;
  t.Establish();
  t.In("P. 1:11(10) ack 2 win 1000");
  t.Out(". 1:1(0) ack 1");
  t.Wait(Seconds(1));
  t.In("P. 1:11(10) ack -70000 win 1000");
  t.Out(". 1:1(0) ack 1");
  EXPECT_EQ(t.dropped(DropReason::kTcpBadAck), 2u);
  t.In("P. 1:11(10) ack -100 win 1000");  // old, but possible: its data counts
  t.Out(". 1:1(0) ack 11");
}

// Section 7: challenges are limited, per connection and for all together.
TEST(Rfc5961, ChallengesAreLimited) {
  TcpScript t;
  t.Establish();
  for (int i = 0; i < 100; ++i) t.In("R 50:50(0)");
  t.Out(". 1:1(0) ack 1");
  t.Nothing();
  EXPECT_EQ(t.tcp().counters().challenge_acks_limited.Read(), 99u);
}

// RFC 1337: a reset does not end TIME-WAIT.
TEST(Rfc1337, ResetInTimeWaitIsIgnored) {
  TcpScript t;
  t.Establish();
  t.Close();
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  t.In("R 2:2(0)");
  EXPECT_EQ(t.tcp().usage().time_wait, 1u);
  t.Nothing();
}

// RFC 9293 section 3.10.7.4, RFC 6191: a new SYN beyond the old connection's numbers reopens it, with
// an initial number beyond the old ones; an old SYN does not.
TEST(Rfc6191, NewSynEndsTimeWait) {
  TcpScript t;
  t.Establish();
  t.Close();
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2 win 1000");
  t.Out(". 2:2(0) ack 2");
  t.In("S -100:-100(0) win 1000");
  t.Out(". 2:2(0) ack 2");
  t.In("S 5000:5000(0) win 1000");
  const std::string answer = t.Next();
  EXPECT_EQ(answer.substr(0, 2), "S.");
  EXPECT_GT(std::stol(answer.substr(3)), 65536);
  EXPECT_EQ(t.tcp().counters().time_wait_reused.Read(), 1u);
  EXPECT_EQ(t.tcp().usage().connections, 1u);
}

// RFC 6191 section 2: with timestamps a later one will do, whatever the number.
TEST(Rfc6191, LaterTimestampEndsTimeWait) {
  TcpScript t;
  t.Establish("<mss 1000,nop,nop,TS val 100 ecr 0>");
  t.Close();
  t.Out("F. 1:1(0) ack 1");
  t.In("F. 1:1(0) ack 2 win 1000 <nop,nop,TS val 110 ecr 0>");
  t.Out(". 2:2(0) ack 2");
  t.In("S -100:-100(0) win 1000 <mss 1000,nop,nop,TS val 111 ecr 0>");
  EXPECT_EQ(t.Next().substr(0, 2), "S.");
}

// RFC 9293 section 3.9.2.2: an unreachable port ends the handshake, and is only a hint later.
TEST(Rfc9293, IcmpUnreachable) {
  TcpScript t;
  t.Connect();
  t.Next();
  t.Icmp(3, 1, 0, 0);  // host unreachable: may pass
  EXPECT_EQ(t.state(), TcpState::kSynSent);
  t.Icmp(3, 3, 0, 0);
  EXPECT_EQ(t.error, SocketError::kUnreachable);
  t.Close();

  TcpScript u;
  u.Establish();
  u.Send(1000);
  u.Icmp(3, 3, 0, 1);
  EXPECT_EQ(u.state(), TcpState::kEstablished);
}

}  // namespace
}  // namespace sluice::test
