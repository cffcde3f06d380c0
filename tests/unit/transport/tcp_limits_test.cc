// What a peer that means ill can cost: each of its ways comes to a limit, with a counter.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::SocketError;

constexpr char kSack[] = "<mss 1000,nop,nop,sackOK>";

std::string Sack(const std::string& blocks) {
  return ". 1:1(0) ack 1 win 64000 <nop,nop,sack " + blocks + ">";
}
std::string Block(int left, int right) {
  return std::to_string(left) + ":" + std::to_string(right);
}

const transport::Tcb& Of(TcpScript& t) { return *t.tcp().Find(t.socket); }

// A peer that says of every second byte that it has it does not make many segments of one.
TEST(SackLimits, PartOfASegmentCountsForNothing) {
  TcpScript t;
  t.Establish(kSack);
  t.Send(10000);
  EXPECT_EQ(t.tcp().usage().segments, 10u);
  for (int byte = 1002; byte < 5000; byte += 8) {
    t.In(Sack(Block(byte, byte + 1) + " " + Block(byte + 2, byte + 3) + " " +
              Block(byte + 4, byte + 5) + " " + Block(byte + 6, byte + 7)));
  }
  EXPECT_EQ(t.tcp().usage().segments, 10u);
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 0u);
  // Of a block over several the whole ones count, however often it is told.
  for (int i = 0; i < 3; ++i) t.In(Sack(Block(1501, 3501)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 1000u);
  t.In(Sack(Block(1001, 4001)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 3000u);
  t.Discard();
}

// Growing to either side, and as one of several.
TEST(SackLimits, BlocksGrow) {
  TcpScript t;
  t.Establish(kSack);
  t.Send(10000);
  t.In(Sack(Block(4001, 5001)));
  t.In(Sack(Block(4001, 6001)));
  t.In(Sack(Block(3001, 6001)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 3000u);
  t.In(Sack(Block(8001, 9001) + " " + Block(3001, 6001)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 4000u);
  t.In(Sack(Block(2001, 10001)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 8000u);
  t.In(". 1:1(0) ack 10001 win 64000");
  EXPECT_EQ(t.tcp().usage().segments, 0u);
  t.Discard();
}

// Receivers may leave a FIN out of their blocks.
TEST(SackLimits, DataBeforeAFinCounts) {
  TcpScript t;
  t.Establish(kSack);
  t.Send(1000);
  t.tcp().SendMore(t.socket, std::vector<uint8_t>(500), t.now());
  t.Shutdown();
  t.Discard();
  t.In(Sack(Block(1001, 1501)));
  EXPECT_EQ(Of(t).scoreboard.sacked_bytes(), 500u);
  EXPECT_EQ(Of(t).scoreboard.count(), 3u);
  t.In(". 1:1(0) ack 1502 win 64000");
  EXPECT_EQ(t.state(), transport::TcpState::kFinWait2);
}

// However much is in flight, one ACK has so many segments looked at; the others' turn comes soon after.
TEST(SackLimits, LossesAreFoundInPortions) {
  TcpScript t;
  t.Establish("<mss 88,nop,nop,sackOK,nop,wscale 7>", 60000);
  while (Of(t).scoreboard.count() < 3000) {
    while (t.Send(20000) > 0) {
    }
    t.Wait(Millis(10));
    t.Discard();
    if (Of(t).scoreboard.count() >= 3000) break;
    t.In(". 1:1(0) ack " + std::to_string(Of(t).snd_nxt - Of(t).iss) + " win 60000");
  }
  const uint32_t mss = Of(t).mss;
  const uint32_t in_flight = Of(t).scoreboard.count();
  const int una = static_cast<int>(Of(t).snd_una - Of(t).iss);
  const int nxt = static_cast<int>(Of(t).snd_nxt - Of(t).iss);
  const auto sack = [&](int segments) {
    t.In(". 1:1(0) ack " + std::to_string(una) + " win 60000 <nop,nop,sack " +
         Block(nxt - segments * static_cast<int>(mss), nxt) + ">");
    t.Discard();
  };
  sack(4);
  EXPECT_LE(Of(t).scoreboard.lost_bytes(), 1024 * mss);
  EXPECT_GT(Of(t).scoreboard.lost_bytes(), 1000 * mss);
  EXPECT_EQ(Of(t).recovery, transport::Recovery::kRecovery);
  // What tells nothing new has none looked at; news goes on where the last stopped.
  for (int i = 0; i < 5; ++i) sack(4);
  EXPECT_LE(Of(t).scoreboard.lost_bytes(), 1024 * mss);
  sack(5);
  EXPECT_GT(Of(t).scoreboard.lost_bytes(), 2000 * mss);
  EXPECT_LE(Of(t).scoreboard.lost_bytes(), 2048 * mss);
  t.Wait(Millis(5));
  EXPECT_EQ(Of(t).scoreboard.lost_bytes(), (in_flight - 5) * mss);
  t.Discard();
}

TEST(SegmentLimits, PerConnection) {
  TcpScript::Options o;
  o.config.tcp.limits.segments_per_connection = 4;
  TcpScript t(o);
  t.Establish();
  t.tcp().SetOptions(t.socket, {.no_delay = true}, t.now());
  for (int i = 0; i < 6; ++i) EXPECT_EQ(t.Send(1), 1u);
  EXPECT_EQ(t.pending(), 4u);
  EXPECT_EQ(t.tcp().counters().no_segment.Read(), 2u);
  t.Discard();
  t.In(". 1:1(0) ack 3 win 64000");
  t.Out("P. 5:7(2) ack 1");
  t.Nothing();
}

// The last eighth is for connections with little in flight.
TEST(SegmentLimits, AFewAreLeftForOthers) {
  TcpScript::Options o;
  o.config.tcp.limits.segments = 256;
  TcpScript t(o);
  t.Establish();
  t.tcp().SetOptions(t.socket, {.no_delay = true}, t.now());
  for (int i = 0; i < 300; ++i) t.Send(1);
  EXPECT_LE(t.tcp().usage().segments, 225u);
  t.Discard();
  t.peer_port = 41000;
  t.Establish();
  t.Send(10000);
  EXPECT_EQ(t.pending(), 10u);
  t.Discard();
}

TEST(SegmentLimits, LeastSegmentSize) {
  TcpScript t;
  t.Establish("<mss 8>");
  EXPECT_EQ(Of(t).mss, 88);
}

// A peer that sends byte by byte, to a program that sends it all back, and acknowledges nothing.
TEST(SendMemory, BytesThatArePassedOnShareFrames) {
  TcpScript t;
  t.Establish("<mss 1000>", 10);
  for (int i = 1; i <= 500; ++i) {
    t.In(". " + std::to_string(i) + ":" + std::to_string(i + 1) + "(1) ack 1 win 10");
    transport::ReceivedData data;
    ASSERT_EQ(t.tcp().ReceivePacket(t.socket, data, t.now()), SocketError::kNone);
    ASSERT_TRUE(t.tcp().SendReceived(t.socket, data, t.now()).ok());
  }
  EXPECT_EQ(t.tcp().usage().send_frames, 1u);
  t.Discard();
}

// Nothing of a connection's own is in flight whose ACK could tell of room: it is told when frames of
// others come back.
TEST(SendMemory, WaitingForOthersEnds) {
  TcpScript::Options o;
  o.config.tcp.limits.send_frames = 1;
  TcpScript t(o);
  t.Establish();
  EXPECT_EQ(t.Send(100), 100u);
  t.Discard();
  const transport::TcpSocket other = t.socket;
  t.peer_port = 41000;
  t.Establish();
  EXPECT_EQ(t.Send(100), 0u);
  EXPECT_EQ(t.tcp().counters().no_send_buffer.Read(), 1u);
  t.Wait(Millis(100));
  EXPECT_EQ(t.writable, 0);
  EXPECT_EQ(t.tcp().Abort(other, t.now()), SocketError::kNone);
  t.Wait(Millis(10));
  EXPECT_EQ(t.writable, 1);
  EXPECT_EQ(t.Send(100), 100u);
  t.Discard();
  t.Wait(Millis(10));
  EXPECT_EQ(t.writable, 1);
  t.Discard();
}

// The last quarter is shared out, so that who has nothing gets some.
TEST(SendMemory, LittleForThoseThatHaveMuch) {
  TcpScript::Options o;
  o.config.tcp.limits.send_frames = 400;
  TcpScript t(o);
  t.Establish("<mss 1000>", 10);
  uint32_t port = 41000;
  for (; t.tcp().usage().send_frames < 310; ++port) {
    t.peer_port = static_cast<uint16_t>(port);
    t.Establish("<mss 1000>", 10);
    while (t.Send(5000) > 0) {
    }
    t.Discard();
  }
  EXPECT_LT(port, 41020u);
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 0u);
  t.peer_port = 45000;
  t.Establish("<mss 1000>", 10);
  EXPECT_GT(t.tcp().SendRoom(t.socket), 0u);
  EXPECT_EQ(t.Send(5000), 5000u);
  t.Discard();
}

// What is kept back for packets that are passed on also lets everybody say a few words.
TEST(SendMemory, AFewWordsAreAlwaysSaid) {
  TcpScript::Options o;
  o.config.tcp.limits.send_frames = 300;
  TcpScript t(o);
  for (uint32_t port = 41000; t.tcp().SendMemory() >= 64 && port < 41100; ++port) {
    t.peer_port = static_cast<uint16_t>(port);
    t.Establish("<mss 1000>", 10);
    while (t.Send(1900) > 0) {
    }
    t.Discard();
  }
  ASSERT_LT(t.tcp().SendMemory(), 64u);
  t.peer_port = 45000;
  t.Establish();
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 0u);
  EXPECT_EQ(t.Send(5000), 1024u);
  EXPECT_EQ(t.Send(5000), 0u);
  t.Discard();
  // ... and the next, when these have arrived.
  t.writable = 0;
  t.Wait(Millis(10));
  EXPECT_EQ(t.writable, 0);
  t.In(". 1:1(0) ack 1025 win 64000");
  t.Wait(Millis(10));
  EXPECT_EQ(t.writable, 1);
  EXPECT_LT(t.tcp().SendMemory(), 64u);
  EXPECT_EQ(t.Send(5000), 1024u);
  // Who asks for room has none, and is not called in vain.
  t.In(". 1:1(0) ack 2049 win 64000");
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 0u);
  t.Wait(Millis(10));
  EXPECT_EQ(t.writable, 1);
  t.Discard();
}

// A closed connection whose peer acknowledges a byte at a time holds its data for so long only.
TEST(Orphans, HaveALifetime) {
  TcpScript t;
  t.Establish();
  t.Send(10000);
  t.Close();
  for (int second = 1; second < 59; ++second) {
    t.Wait(Seconds(1));
    t.In(". 1:1(0) ack " + std::to_string(1 + second) + " win 64000");
    t.Discard();
  }
  EXPECT_EQ(t.tcp().usage().orphans, 1u);
  t.Wait(Seconds(2));
  EXPECT_EQ(t.tcp().usage().orphans, 0u);
  EXPECT_EQ(t.tcp().usage().send_frames, 0u);
  EXPECT_EQ(t.tcp().counters().orphans_timed_out.Read(), 1u);
  std::string last;
  for (std::string next = t.Next(); !next.empty(); next = t.Next()) last = next;
  EXPECT_EQ(last.substr(0, 2), "R.") << last;
}

// Whoever has much to deliver has the time that it takes at a slow but honest rate.
TEST(Orphans, MuchDataHasMoreTime) {
  TcpScript::Options o;
  o.config.tcp.times.orphan_least_rate = 1000;
  TcpScript t(o);
  t.Establish();
  t.Send(50000);
  t.Close();
  for (int second = 1; second < 100; ++second) {
    t.Wait(Seconds(1));
    t.In(". 1:1(0) ack " + std::to_string(1 + second * 500) + " win 64000");
    t.Discard();
  }
  EXPECT_EQ(t.tcp().usage().orphans, 1u);
  t.In(". 1:1(0) ack 50002 win 64000");
  t.In("F. 1:1(0) ack 50002 win 64000");
  EXPECT_EQ(t.tcp().usage().time_wait, 1u);
  EXPECT_EQ(t.tcp().counters().orphans_timed_out.Read(), 0u);
  t.Discard();
}

// While others wait for memory, orphans that hold some and get nowhere are reset, the oldest first.
TEST(Orphans, MakeWayWhenMemoryIsShort) {
  TcpScript::Options o;
  o.config.tcp.limits.send_frames = 8;
  TcpScript t(o);
  t.Establish();
  t.Send(4000);
  t.Close();
  t.Discard();
  t.peer_port = 41000;
  t.Establish();
  t.Wait(Seconds(4));
  t.Discard();
  const transport::TcpSocket second = t.socket;
  t.Send(12000);
  t.tcp().Close(second, t.now());
  t.Discard();
  t.peer_port = 42000;
  t.Establish();
  while (t.Send(5000) > 0) {
  }
  t.Wait(Millis(100));
  EXPECT_EQ(t.tcp().usage().orphans, 2u);  // not stalled for long enough
  EXPECT_EQ(t.writable, 0);
  t.Wait(Seconds(2));
  EXPECT_EQ(t.tcp().usage().orphans, 1u);
  EXPECT_EQ(t.tcp().counters().orphans_for_memory.Read(), 1u);
  EXPECT_EQ(t.writable, 1);
  t.Discard();
}

// They are looked for a few times a second only, since there may be many of them.
TEST(Orphans, AreLookedForAFewTimesASecond) {
  TcpScript::Options o;
  o.config.tcp.limits.send_frames = 1;
  TcpScript t(o);
  t.Establish();
  t.Send(1000);
  t.Close();
  t.Wait(Millis(4900));
  t.Discard();
  t.peer_port = 41000;
  t.Establish();
  EXPECT_EQ(t.Send(1000), 0u);
  t.Wait(Millis(150));
  EXPECT_EQ(t.tcp().usage().orphans, 1u);  // for 5.05 s now; the last look was after 4.9
  t.Wait(Millis(150));
  EXPECT_EQ(t.tcp().usage().orphans, 0u);
  EXPECT_EQ(t.tcp().counters().orphans_for_memory.Read(), 1u);
  EXPECT_EQ(t.writable, 1);
  t.Discard();
}

// Many listeners have not many times as many half-open connections.
TEST(HalfOpen, IsLimitedOverAllListeners) {
  TcpScript::Options o;
  o.config.tcp.limits.connections = 16;
  o.config.tcp.limits.half_open = 4;
  TcpScript t(o);
  t.Listen();
  for (uint16_t port = 1; port <= 10; ++port) {
    t.peer_port = port;
    t.In("S 0:0(0) win 1000");
  }
  EXPECT_EQ(t.pending(), 10u);
  t.Discard();
  EXPECT_EQ(t.tcp().usage().half_open, 4u);
  EXPECT_EQ(t.tcp().usage().connections, 4u);
  EXPECT_EQ(t.tcp().counters().syn_cookies_sent.Read(), 6u);
}

// A full table: whoever has finished a handshake, or begins one from here, goes before one half open.
TEST(HalfOpen, OldestMakesWay) {
  TcpScript::Options o;
  o.config.tcp.limits.connections = 2;
  TcpScript t(o);
  t.Listen();
  for (uint16_t port = 1; port <= 2; ++port) {
    t.peer_port = port;
    t.In("S 0:0(0) win 1000");
  }
  t.Discard();
  t.peer_port = 3;
  t.In("S 0:0(0) win 1000");
  EXPECT_EQ(t.Next().substr(0, 2), "S.");
  EXPECT_EQ(t.tcp().counters().syn_cookies_sent.Read(), 1u);
  EXPECT_EQ(t.tcp().counters().no_connection.Read(), 0u);
  t.In(". 1:1(0) ack 1 win 1000");
  t.Accept();
  EXPECT_EQ(t.state(), transport::TcpState::kEstablished);
  EXPECT_EQ(t.tcp().counters().half_open_evicted.Read(), 1u);
  EXPECT_EQ(t.tcp().usage().half_open, 1u);
  transport::TcpSocket s;
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, 9), 80}, {}, nullptr, t.now(), s),
            SocketError::kNone);
  EXPECT_EQ(t.tcp().usage().half_open, 0u);
  EXPECT_EQ(t.tcp().Connect({}, {Ipv4(10, 0, 0, 9), 81}, {}, nullptr, t.now(), s),
            SocketError::kNoMemory);
  EXPECT_EQ(t.tcp().counters().no_connection.Read(), 1u);
  t.Discard();
  // The table is full of others: the peer, which believes that it is connected, hears of it.
  t.peer_port = 4;
  t.In("S 0:0(0) win 1000");
  EXPECT_EQ(t.Next().substr(0, 2), "S.");
  t.In(". 1:1(0) ack 1 win 1000");
  t.Out("R 1:1(0)");
  EXPECT_EQ(t.tcp().counters().no_connection.Read(), 2u);
  EXPECT_EQ(t.dropped(DropReason::kTcpBacklogFull), 1u);
  t.Nothing();
}

// A whole window does not go at once: others' packets leave by the same queue.
TEST(Turns, OneAckSetsFreeAPortion) {
  TcpScript t;
  t.Establish("<mss 1000,nop,wscale 7>", 60000);
  // A window that has grown, then an idle time that is too short to shrink it.
  for (uint32_t acked = 1; Of(t).congestion.cwnd() < 400'000;) {
    while (t.Send(20000) > 0) {
    }
    t.Wait(Millis(10));
    t.Discard();
    const uint32_t end = acked + Of(t).Flight();
    for (; acked < end; acked = std::min(acked + 2000, end)) {
      t.In(". 1:1(0) ack " + std::to_string(std::min(acked + 2000, end)) + " win 60000");
    }
    t.Wait(Millis(1));
    t.Discard();
  }
  const uint32_t acked = Of(t).snd_nxt - Of(t).iss;
  t.In(". 1:1(0) ack " + std::to_string(acked) + " win 60000");
  t.Wait(Millis(1));
  t.Discard();
  while (t.Send(20000) > 0) {
  }
  t.Wait(Nanos());
  t.Discard();
  const uint32_t window = Of(t).congestion.cwnd() / 1000;
  ASSERT_GT(window, 200u);
  t.In(". 1:1(0) ack " + std::to_string(Of(t).snd_nxt - Of(t).iss) + " win 60000");
  EXPECT_EQ(t.pending(), 64u);
  EXPECT_EQ(t.host().stack().NextDeadline(), Nanos());
  t.host().stack().OnTimer(t.now());
  EXPECT_EQ(t.pending(), 128u);
  t.Wait(Nanos());
  EXPECT_GE(t.pending(), window);
  EXPECT_GT(t.host().stack().NextDeadline(), t.now());
  t.Discard();
}

// More connections than a turn has segments for want to force theirs past a silly window at once: those
// that come too late do so the next time, and have not probed in vain.
TEST(Turns, ForceOutlivesATurnThatIsUsedUp) {
  TcpScript t;
  std::vector<transport::TcpSocket> sockets;
  for (int i = 0; i < 520; ++i) {
    t.peer_port = static_cast<uint16_t>(20000 + i);
    t.Establish("<mss 1000>", 4000);
    t.In(". 1:1(0) ack 1 win 500");
    t.Send(3000);
    sockets.push_back(t.socket);
  }
  t.Nothing();
  const auto forced = [&] {
    return std::count_if(sockets.begin(), sockets.end(),
                         [&](transport::TcpSocket s) { return t.tcp().Find(s)->Flight() == 500; });
  };
  t.Wait(Millis(250));
  EXPECT_EQ(forced(), 512);
  t.Wait(Millis(200));
  EXPECT_EQ(forced(), 520);
  EXPECT_EQ(t.tcp().counters().zero_window_probes.Read(), 0u);
  t.Discard();
}

}  // namespace
}  // namespace sluice::test
