// Listeners, backlogs, SYN cookies, ports, initial sequence numbers, limits.
#include <gtest/gtest.h>

#include <set>
#include <vector>

#include "support/tcp_script.h"
#include "transport/tcp/secrets.h"

namespace sluice::test {
namespace {

using transport::SocketError;
using transport::TcpSecrets;
using transport::TcpState;
using wire::TcpSeq;

// A listener of an address goes before one of all addresses; no two of the same.
TEST(Listen, AddressGoesBeforeAny) {
  TcpScript t;
  t.Listen();
  transport::TcpListenerId other;
  EXPECT_EQ(t.tcp().Listen({Ipv4(), 8080}, {}, 8, nullptr, other), SocketError::kAddressInUse);
  EXPECT_EQ(t.tcp().Listen({Ipv4(), 0}, {}, 8, nullptr, other), SocketError::kInvalid);
  ASSERT_EQ(t.tcp().Listen({Ipv4(10, 0, 0, 1), 8080}, {}, 8, nullptr, other), SocketError::kNone);
  t.In("S 0:0(0) win 1000");
  t.Next();
  t.In(". 1:1(0) ack 1 win 1000");
  transport::TcpSocket s;
  EXPECT_EQ(t.tcp().Accept(t.listener, nullptr, s), SocketError::kWouldBlock);
  EXPECT_EQ(t.tcp().Accept(other, nullptr, s), SocketError::kNone);
}

// Closing it resets those that nobody has accepted, and its port is nobody's then.
TEST(Listen, CloseResetsTheUnaccepted) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Next();
  t.In(". 1:1(0) ack 1 win 1000");
  EXPECT_EQ(t.tcp().CloseListener(t.listener, t.now()), SocketError::kNone);
  t.Out("R. 1:1(0) ack 1");
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  EXPECT_EQ(t.tcp().CloseListener(t.listener, t.now()), SocketError::kBadSocket);
  t.In("S 0:0(0) win 1000");
  t.Nothing();
  EXPECT_EQ(t.host().unclaimed(), 1u);
}

// Half-open and finished ones of that listener, and no others.
TEST(Listen, CloseLeavesOthersAlone) {
  TcpScript t;
  transport::TcpListenerId other;
  ASSERT_EQ(t.tcp().Listen({Ipv4(), 8081}, {}, 8, nullptr, other), SocketError::kNone);
  t.Establish();
  for (uint16_t port = 1; port <= 5; ++port) {
    t.peer_port = port;
    t.In("S 0:0(0) win 1000");
    t.Next();
    if (port % 2 == 0) t.In(". 1:1(0) ack 1 win 1000");
  }
  const transport::TcpSocket kept = t.socket;
  t.Accept();
  EXPECT_EQ(t.tcp().CloseListener(other, t.now()), SocketError::kNone);
  t.Nothing();
  EXPECT_EQ(t.tcp().usage().connections, 6u);
  EXPECT_EQ(t.tcp().CloseListener(t.listener, t.now()), SocketError::kNone);
  EXPECT_EQ(t.pending(), 4u);  // resets
  t.Discard();
  EXPECT_EQ(t.tcp().usage().connections, 2u);
  EXPECT_NE(t.tcp().Find(kept), nullptr);
  EXPECT_NE(t.tcp().Find(t.socket), nullptr);
}

// A full accept queue drops SYNs, so that peers try again.
TEST(Listen, AcceptQueueLimit) {
  TcpScript t;
  t.Listen({}, 2);
  for (uint16_t port = 1; port <= 3; ++port) {
    t.peer_port = port;
    t.In("S 0:0(0) win 1000");
    t.Next();
    t.In(". 1:1(0) ack 1 win 1000");
  }
  EXPECT_EQ(t.dropped(DropReason::kTcpBacklogFull), 1u);
  EXPECT_EQ(t.tcp().counters().accept_queue_full.Read(), 1u);
  EXPECT_EQ(t.tcp().usage().connections, 2u);
}

// Data may come before the connection is accepted; the program is told when it has it.
TEST(Listen, DataBeforeAccept) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Next();
  t.In("P. 1:11(10) ack 1 win 1000");
  EXPECT_EQ(t.readable, 0);
  t.Accept();
  EXPECT_EQ(t.Read().size(), 10u);
}

// What a view of sockets would show.
TEST(Listen, ConnectionsCanBeLookedAt) {
  TcpScript t;
  t.Establish();
  t.peer_port = 5;
  t.In("S 0:0(0) win 1000");
  std::vector<TcpState> states;
  t.tcp().ForEachConnection([&](const transport::Tcb& c) { states.push_back(c.state); });
  EXPECT_EQ(states, (std::vector{TcpState::kEstablished, TcpState::kSynReceived}));
  t.Discard();
}

// A half-open connection whose peer does not answer goes away.
TEST(Listen, HalfOpenEnds) {
  TcpScript t;
  t.Listen();
  t.In("S 0:0(0) win 1000");
  t.Wait(Seconds(130));
  EXPECT_GE(t.pending(), 5u);
  EXPECT_EQ(t.tcp().usage().connections, 0u);
}

// RFC 4987 section 3.6: with the backlog full, SYNs are answered without memory of them, and the ACK
// brings back what was agreed on.
TEST(Rfc4987, SynCookies) {
  TcpScript t;
  t.Listen({}, 1);
  t.In("S 0:0(0) win 1000");
  t.Discard();
  t.peer_port = 41000;
  t.In("S 0:0(0) win 1000 <mss 1400,sackOK,TS val 700 ecr 0,nop,wscale 3>");
  EXPECT_EQ(t.tcp().usage().connections, 1u);
  EXPECT_EQ(t.tcp().counters().syn_cookies_sent.Read(), 1u);
  const std::string answer = t.Next();
  EXPECT_EQ(answer.substr(0, 15), "S. 0:0(0) ack 1") << answer;
  EXPECT_NE(answer.find("sackOK"), std::string::npos) << answer;
  // With data, as some clients do.
  t.In("P. 1:11(10) ack 1 win 1000 <nop,nop,TS val 701 ecr 0>");
  EXPECT_EQ(t.tcp().counters().syn_cookies_accepted.Read(), 1u);
  t.Accept();
  EXPECT_EQ(t.state(), TcpState::kEstablished);
  EXPECT_EQ(t.Read().size(), 10u);
  const transport::Tcb& tcb = *t.tcp().Find(t.socket);
  EXPECT_EQ(tcb.mss, 1400 - 12);
  EXPECT_TRUE(tcb.sack_enabled);
  EXPECT_TRUE(tcb.ts_enabled);
  EXPECT_EQ(tcb.snd_wnd_shift, 3);
  EXPECT_EQ(tcb.snd_wnd, 8000u);
  t.Discard();
}

// RFC 4987 section 3.6: what a cookie's SYN-ACK offers is what the connection will do: that of a
// listener with options of its own.
TEST(Rfc4987, CookieOffersWhatTheListenerHas) {
  for (const uint32_t buffer : {32u * 1024, 1024u * 1024}) {
    TcpScript t;
    t.Listen({.max_segment = 700, .receive_buffer_max = buffer}, 1);
    constexpr char kSyn[] = "S 0:0(0) win 1000 <mss 1400,sackOK,TS val 700 ecr 0,nop,wscale 3>";
    const auto offer = [&] {
      std::string text = t.Next();
      const size_t ts = text.find("TS val");
      return text.erase(ts, text.find(',', ts) - ts);
    };
    t.In(kSyn);
    const std::string plain = offer();
    EXPECT_NE(plain.find("mss 700"), std::string::npos) << plain;
    t.peer_port = 41000;
    t.In(kSyn);
    ASSERT_EQ(t.tcp().counters().syn_cookies_sent.Read(), 1u);
    EXPECT_EQ(offer(), plain);
    t.In(". 1:1(0) ack 1 win 1000 <nop,nop,TS val 701 ecr 0>");
    t.Accept();
    const transport::Tcb& tcb = *t.tcp().Find(t.socket);
    EXPECT_EQ(tcb.rcv_wnd_shift, buffer > 65535 ? 5 : 0);
    EXPECT_EQ(tcb.OfferedWindow(), buffer > 65535 ? 65535 : buffer);
    t.Discard();
  }
}

// Also of ECN (RFC 3168), which a socket may have otherwise than its worker: with and without a cookie, and
// of connections from here.
TEST(Rfc3168, SocketMayDifferFromItsWorker) {
  constexpr char kAsks[] = "SEW 0:0(0) win 1000 <mss 1400,sackOK,TS val 700 ecr 0>";
  using transport::EcnMode;
  for (const bool on : {false, true}) {
    TcpScript::Options o;
    o.config.tcp.ecn = on ? EcnMode::kOff : EcnMode::kPassive;
    TcpScript t(o);
    t.Listen({.ecn = on ? EcnMode::kPassive : EcnMode::kOff}, 1);
    const std::string answer = on ? "S.E 0" : "S. 0:";
    t.In(kAsks);
    EXPECT_EQ(t.Next().substr(0, 5), answer);
    t.peer_port = 41000;
    t.In(kAsks);
    ASSERT_EQ(t.tcp().counters().syn_cookies_sent.Read(), 1u);
    EXPECT_EQ(t.Next().substr(0, 5), answer);
    t.In(". 1:1(0) ack 1 win 1000 <nop,nop,TS val 701 ecr 0>");
    t.Accept();
    EXPECT_EQ(t.tcp().Find(t.socket)->ecn_enabled, on);
    t.Discard();
  }
  TcpScript active;
  active.Connect({.ecn = EcnMode::kActive});
  EXPECT_EQ(active.Next().substr(0, 5), "SEW 0");
  TcpScript::Options o;
  o.config.tcp.ecn = EcnMode::kActive;
  TcpScript passive(o);
  passive.Connect({.ecn = EcnMode::kPassive});
  EXPECT_EQ(passive.Next().substr(0, 5), "S 0:0");
}

// RFC 4987 section 3.6: an ACK whose number is no cookie of ours is of no connection, and is reset.
TEST(Rfc4987, WrongCookieIsReset) {
  TcpScript t;
  t.Listen({}, 1);
  t.In("S 0:0(0) win 1000");
  t.Discard();
  t.peer_port = 41000;
  t.In("S 0:0(0) win 1000");
  t.Discard();
  t.In(". 1:1(0) ack 12345 win 1000");
  t.Out("R 12345:12345(0)");
  EXPECT_EQ(t.tcp().counters().syn_cookies_rejected.Read(), 1u);
}

// RFC 4987 section 3.6: a flood costs no memory, and a real client is served in the middle of it.
TEST(Rfc4987, FloodIsSurvived) {
  TcpScript t;
  t.Listen({}, 64);
  for (int i = 0; i < 50000; ++i) {
    t.peer_port = static_cast<uint16_t>(1 + i % 60000);
    t.In("S 0:0(0) win 1000");
    t.Discard();
  }
  EXPECT_LE(t.tcp().usage().connections, 64u);
  t.peer_port = 60001;
  t.In("S 0:0(0) win 1000 <mss 1000>");
  t.Out("S. 0:0(0) ack 1");
  t.In(". 1:1(0) ack 1 win 1000");
  t.Accept();
  EXPECT_EQ(t.state(), TcpState::kEstablished);
}

// RFC 4987 section 3.6: a cookie holds for its addresses, ports, the client's number, and a while; and
// it holds the MSS.
TEST(Rfc4987, CookieIsBoundToConnectionAndTime) {
  const TcpSecrets secrets({1, 2});
  const transport::Tuple a{{Ipv4(10, 0, 0, 1), 80}, {Ipv4(10, 0, 0, 2), 1000}};
  transport::Tuple b = a;
  b.remote.port = 1001;
  const Nanos now = Seconds(100000);
  const TcpSeq cookie = secrets.MakeCookie(a, TcpSeq(77), 1460, now);
  EXPECT_EQ(secrets.CheckCookie(a, TcpSeq(77), cookie, now), 1460);
  EXPECT_EQ(secrets.CheckCookie(a, TcpSeq(77), cookie, now + Seconds(59)), 1460);
  EXPECT_FALSE(secrets.CheckCookie(a, TcpSeq(77), cookie, now + Seconds(180)));
  EXPECT_FALSE(secrets.CheckCookie(a, TcpSeq(78), cookie, now));
  EXPECT_FALSE(secrets.CheckCookie(b, TcpSeq(77), cookie, now));
  EXPECT_EQ(secrets.CheckCookie(a, TcpSeq(77), secrets.MakeCookie(a, TcpSeq(77), 1300, now), now),
            1300);
}

// RFC 6528: unrelated between connections, growing with time for one.
TEST(Rfc6528, InitialSequenceNumbers) {
  const TcpSecrets secrets({1, 2});
  transport::Tuple t{{Ipv4(10, 0, 0, 1), 80}, {Ipv4(10, 0, 0, 2), 1000}};
  const TcpSeq first = secrets.InitialSequence(t, Seconds(1));
  EXPECT_EQ(secrets.InitialSequence(t, Seconds(2)) - first, 1'000'000'000u / 64);
  std::set<uint32_t> seen;
  for (uint16_t port = 1; port < 1000; ++port) {
    t.remote.port = port;
    seen.insert(secrets.InitialSequence(t, Seconds(1)).value() >> 12);
  }
  EXPECT_GT(seen.size(), 990u);
  const TcpSecrets others({1, 3});
  EXPECT_NE(others.InitialSequence(t, Seconds(1)), secrets.InitialSequence(t, Seconds(1)));
}

// RFC 6056 section 3.3.3: ports to one peer follow each other, to another peer they begin elsewhere.
TEST(Rfc6056, PortsDependOnThePeer) {
  TcpScript t;
  std::set<uint16_t> ports;
  transport::TcpSocket s;
  for (uint8_t host = 2; host < 100; ++host) {
    ASSERT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, host), 80}, {}, nullptr, t.now(), s),
              SocketError::kNone);
    ports.insert(t.tcp().Find(s)->tuple.local.port);
  }
  EXPECT_GT(ports.size(), 90u);
  EXPECT_GE(*ports.begin(), 32768);
  EXPECT_LE(*ports.rbegin(), 60999);
  t.Discard();
}

TEST(Limits, PortsRunOut) {
  TcpScript::Options o;
  o.config.tcp.first_port = 50000;
  o.config.tcp.last_port = 50009;
  TcpScript t(o);
  transport::TcpSocket s;
  for (int i = 0; i < 10; ++i) {
    EXPECT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, 2), 80}, {}, nullptr, t.now(), s),
              SocketError::kNone);
  }
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, 2), 80}, {}, nullptr, t.now(), s),
            SocketError::kNoPorts);
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, 2), 81}, {}, nullptr, t.now(), s),
            SocketError::kNone);
}

TEST(Limits, Connections) {
  TcpScript::Options o;
  o.config.tcp.limits.connections = 4;
  o.config.tcp.syn_cookies = false;
  TcpScript t(o);
  t.Listen();
  for (uint16_t port = 1; port <= 6; ++port) {
    t.peer_port = port;
    t.In("S 0:0(0) win 1000");
  }
  EXPECT_EQ(t.pending(), 4u);
  EXPECT_EQ(t.dropped(DropReason::kTcpBacklogFull), 2u);
  EXPECT_EQ(t.tcp().counters().no_connection.Read(), 2u);
}

// A connection in TIME-WAIT makes way for a new one when there is no other place.
TEST(Limits, TimeWaitMakesWay) {
  TcpScript::Options o;
  o.config.tcp.limits.connections = 1;
  TcpScript t(o);
  t.Establish();
  t.Close();
  t.In("F. 1:1(0) ack 2 win 1000");
  EXPECT_EQ(t.tcp().usage().time_wait, 1u);
  t.Discard();
  t.peer_port = 5;
  t.In("S 0:0(0) win 1000");
  EXPECT_EQ(t.Next().substr(0, 2), "S.");
  EXPECT_EQ(t.tcp().usage().time_wait, 0u);
  EXPECT_EQ(t.tcp().counters().time_wait_evicted.Read(), 1u);
}

TEST(Limits, Orphans) {
  TcpScript::Options o;
  o.config.tcp.limits.orphans = 0;
  TcpScript t(o);
  t.Establish();
  t.Send(100);
  t.Discard();
  t.Close();
  EXPECT_EQ(t.tcp().counters().orphans_reset.Read(), 1u);
  EXPECT_EQ(t.tcp().usage().connections, 0u);
  EXPECT_EQ(t.tcp().usage().send_frames, 0u);
  t.Discard();
}

// Frames with unread data are limited; what is ahead of a gap is let go first.
TEST(Limits, ReceiveFrames) {
  TcpScript::Options o;
  o.config.tcp.limits.receive_frames = 4;
  TcpScript t(o);
  t.Establish("<mss 1000,nop,nop,sackOK>");
  for (int i = 2; i <= 5; ++i) {
    t.In(". " + std::to_string(i * 1000 + 1) + ":" + std::to_string(i * 1000 + 1001) +
         "(1000) ack 1 win 64000");
  }
  EXPECT_EQ(t.tcp().usage().receive_frames, 4u);
  t.In(". 1:1001(1000) ack 1 win 64000");
  EXPECT_EQ(t.tcp().counters().receive_pruned.Read(), 1u);
  EXPECT_EQ(t.Read().size(), 1000u);
  t.Discard();
}

// A socket's name is good for one connection only.
TEST(Sockets, NamesAreNotUsedTwice) {
  TcpScript t;
  t.Establish();
  const transport::TcpSocket old = t.socket;
  t.Abort();
  t.Discard();
  EXPECT_EQ(t.tcp().Close(old, t.now()), SocketError::kBadSocket);
  t.peer_port = 7;
  t.Establish();
  EXPECT_EQ(t.socket.index, old.index);
  uint8_t byte = 0;
  EXPECT_EQ(t.tcp().Send(old, {&byte, 1}, t.now()).error, SocketError::kBadSocket);
  EXPECT_EQ(t.tcp().Receive(old, {&byte, 1}, t.now()).error, SocketError::kBadSocket);
  EXPECT_EQ(t.tcp().Shutdown(old, t.now()), SocketError::kBadSocket);
  EXPECT_EQ(t.tcp().Find(old), nullptr);
}

TEST(Sockets, ErrorsOfUse) {
  TcpScript t;
  transport::TcpSocket s;
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(), 80}, {}, nullptr, t.now(), s), SocketError::kInvalid);
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(1, 2, 3, 4), 0}, {}, nullptr, t.now(), s),
            SocketError::kInvalid);
  t.host().set_routes(false);
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(1, 2, 3, 4), 1}, {}, nullptr, t.now(), s),
            SocketError::kUnreachable);
  t.host().set_routes(true);
  t.Connect();
  EXPECT_EQ(t.Send(10), 0u);  // not connected yet
  EXPECT_EQ(t.ReadError(), SocketError::kNotConnected);
  EXPECT_EQ(t.Shutdown(), SocketError::kNotConnected);
  t.Discard();
}

// Lent memory is given back when it has been acknowledged, once, and when the connection ends.
TEST(Sockets, OwnedBuffersAreReleased) {
  TcpScript t;
  t.Establish();
  std::string data(3000, 'x');
  int released = 0;
  const transport::OwnedBuffer buffer{reinterpret_cast<const uint8_t*>(data.data()), 3000,
                                      [](void* n) { ++*static_cast<int*>(n); }, &released};
  EXPECT_EQ(t.tcp().SendOwned(t.socket, buffer, t.now()).bytes, 3000u);
  EXPECT_EQ(t.pending(), 3u);
  t.Discard();
  t.In(". 1:1(0) ack 2001 win 64000");
  EXPECT_EQ(released, 0);
  t.In(". 1:1(0) ack 3001 win 64000");
  EXPECT_EQ(released, 1);
  EXPECT_EQ(t.tcp().SendOwned(t.socket, buffer, t.now()).bytes, 3000u);
  t.Abort();
  EXPECT_EQ(released, 2);
}

// Backpressure: a full buffer takes nothing, and the program is told when there is room.
TEST(Sockets, SendBufferFillsAndEmpties) {
  TcpScript t;
  t.Establish();
  uint32_t sent = 0;
  for (uint32_t n; (n = t.Send(10000)) > 0;) sent += n;
  EXPECT_EQ(sent, 65536u);
  EXPECT_EQ(t.writable, 0);
  t.In(". 1:1(0) ack 5001 win 64000");
  EXPECT_EQ(t.writable, 0);
  for (int ack = 10001; ack <= 40001; ack += 10000) {
    t.In(". 1:1(0) ack " + std::to_string(std::min<int>(ack, 10001)) + " win 64000");
  }
  t.Discard();
  EXPECT_LE(t.writable, 1);
}

}  // namespace
}  // namespace sluice::test
