// The search for the path's MTU (RFC 4821, RFC 8899), and what is remembered of it. What routers tell a
// connection is in tcp_recovery_test.cc.
#include <gtest/gtest.h>

#include <string>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::Recovery;
using transport::SocketError;

// A connection whose full segments vanished until it went back to 1024 bytes, and has sent those.
struct AfterBlackHole : TcpScript {
  AfterBlackHole() {
    Listen();
    In("S 0:0(0) win 64000 <mss 1460,nop,nop,sackOK>");
    Next();
    Wait(Millis(100));
    Ack(1);
    Accept();
    Send(14600);
    Discard();
    Wait(Seconds(4));
    Discard();
    EXPECT_EQ(tcp().counters().black_holes.Read(), 1u);
    EXPECT_EQ(tcb().path_mtu, 1064u);
    // It arrives now, and the window opens again.
    while (!tcb().EverythingAcked()) {
      Ack(static_cast<int>(tcb().snd_nxt - tcb().iss));
      Discard();
    }
    // In flights that are too small for a probe.
    for (int i = 0; i < 100 && tcb().congestion.cwnd() < 6000; ++i) {
      Send(4096);
      Discard();
      Ack(static_cast<int>(tcb().snd_nxt - tcb().iss));
    }
    begin = static_cast<int>(tcb().snd_nxt - tcb().iss);
  }
  void Ack(int ack, const std::string& sack = "") {
    In(". 1:1(0) ack " + std::to_string(ack) + " win 64000" +
       (sack.empty() ? "" : " <nop,nop,sack " + sack + ">"));
  }
  std::string At(int offset, int length, const char* flags = ".") const {
    return std::string(flags) + " " + std::to_string(begin + offset) + ":" +
           std::to_string(begin + offset + length) + "(" + std::to_string(length) + ") ack 1";
  }
  const transport::Tcb& tcb() { return *tcp().Find(socket); }
  int begin = 0;
};

// RFC 8899 section 5.3: the search goes on from what works. A probe is data, so that one that arrives
// has cost nothing; from then on segments are of its size.
TEST(Rfc8899, ProbeThatArrivesRaisesTheMtu) {
  AfterBlackHole t;
  t.Send(10000);
  t.Out(t.At(0, 1460));
  t.Out(t.At(1460, 1024));
  t.Discard();
  EXPECT_EQ(t.tcb().path_mtu, 1064u);
  t.Ack(t.begin + 1460);
  EXPECT_EQ(t.tcb().path_mtu, 1500u);
  EXPECT_EQ(t.tcb().mss, 1460u);
}

// RFC 4821 section 7.4: without so much data that a loss could be told from a tail loss there is no
// probe.
TEST(Rfc4821, NoProbeWithoutDataBehindIt) {
  AfterBlackHole t;
  t.Send(2048);
  t.Out(t.At(0, 1024));
  t.Out(t.At(1024, 1024, "P."));
}

// RFC 4821 section 7.6.2: losing only the probe takes nothing from the congestion window; what was
// in it is sent again in segments of the old size. After three the search goes on below (RFC 8899
// MAX_PROBES), half way.
TEST(Rfc8899, LostProbeIsNotCongestion) {
  AfterBlackHole t;
  int size = 1460;
  for (int round = 1; round <= 4; ++round) {
    SCOPED_TRACE(round);
    const uint32_t cwnd = t.tcb().congestion.cwnd();
    t.Send(static_cast<uint32_t>(size) + 3 * 1024);
    t.Out(t.At(0, size));
    t.Discard();
    t.Wait(Millis(100));
    const int end = static_cast<int>(t.tcb().snd_nxt - t.tcb().iss);
    t.Ack(t.begin, std::to_string(t.begin + size) + ":" + std::to_string(end));
    t.Out(t.At(0, 1024));
    t.Out(t.At(1024, size - 1024));
    EXPECT_EQ(t.tcb().recovery, Recovery::kOpen);
    EXPECT_GE(t.tcb().congestion.cwnd(), cwnd);
    EXPECT_EQ(t.tcb().path_mtu, 1064u);
    t.Ack(end);
    t.Nothing();
    t.begin = end;
    if (round == 3) {
      EXPECT_EQ(t.tcb().path_probe.high, 1499u);
      size = (1064 + 1499 + 1) / 2 - 40;
    }
  }
  EXPECT_EQ(t.tcp().counters().path_probes.Read(), 4u);
}

// RFC 1191 section 3: the estimate belongs to the path, so that the next connection begins with it. What
// the peer may send is not affected: its MSS option tells of the interface.
TEST(Rfc1191, TheNextConnectionBeginsWithThePathMtu) {
  TcpScript t;
  t.Establish("<mss 1460>");
  t.Send(1460);
  t.Discard();
  t.Icmp(3, 4, 1040, 1);
  t.Discard();
  transport::TcpSocket next;
  const transport::Endpoint peer = t.tcp().Find(t.socket)->tuple.remote;
  const auto connect = [&](const IpAddress& to) {
    EXPECT_EQ(t.tcp().Connect({}, {to, 4444}, {}, nullptr, t.now(), next), SocketError::kNone);
    return *t.tcp().Find(next);
  };
  transport::Tcb tcb = connect(peer.address);
  EXPECT_EQ(tcb.path_mtu, 1040u);
  EXPECT_EQ(tcb.link_mtu, 1500u);
  EXPECT_EQ(tcb.advertised_mss, 1460);
  EXPECT_EQ(t.tcp().Abort(next, t.now()), SocketError::kNone);
  EXPECT_EQ(connect(*ParseIpAddress("198.51.100.9")).path_mtu, 1500u) << "another destination";
  EXPECT_EQ(t.tcp().Abort(next, t.now()), SocketError::kNone);
  t.Discard();
  // An entry ends by itself, whatever is sent meanwhile.
  t.Wait(Seconds(601));
  t.Discard();
  EXPECT_EQ(connect(peer.address).path_mtu, 1500u);
  EXPECT_EQ(t.tcp().Abort(next, t.now()), SocketError::kNone);
  t.Discard();
}

// RFC 5927 section 4.1: what is not believed by the connection is not remembered.
TEST(Rfc5927, IcmpOutsideOfWhatIsInFlightIsNotRemembered) {
  TcpScript t;
  t.Establish("<mss 1460>");
  t.Send(1460);
  t.Discard();
  t.Icmp(3, 4, 1000, 5000);
  EXPECT_EQ(t.host().stack().path_mtus().counters().learned.Read(), 0u);
}

}  // namespace
}  // namespace sluice::test
