// What programs say of the data they write: how much of it may wait unsent, and where records end. And what
// they may learn: what sending is held up by.
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "support/tcp_script.h"

namespace sluice::test {
namespace {

using transport::Sending;
using transport::SocketError;
using transport::TcpSocketOptions;

// Ten segments of 1000 bytes may be sent; the peer's window is `window`, the round trip took 100 ms.
struct Writing : TcpScript {
  explicit Writing(const TcpSocketOptions& options = {}, uint32_t window = 64000, Options o = {})
      : TcpScript(o), window_(window) {
    Listen(options);
    In("S 0:0(0) win " + std::to_string(window) + " <mss 1000,nop,nop,sackOK>");
    Next();
    Wait(Millis(100));
    Ack(1);
    Accept();
  }
  void Ack(int ack, const std::string& sack = "") {
    In(". 1:1(0) ack " + std::to_string(ack) + " win " + std::to_string(window_) +
       (sack.empty() ? "" : " <nop,nop,sack " + sack + ">"));
  }
  void OutData(int from, int to, const std::string& flags = "P.") {
    Out(flags + " " + std::to_string(from) + ":" + std::to_string(to) + "(" +
        std::to_string(to - from) + ") ack 1");
  }
  void EndRecord() { EXPECT_EQ(tcp().EndRecord(socket), SocketError::kNone); }
  void Set(const TcpSocketOptions& options) {
    EXPECT_EQ(tcp().SetOptions(socket, options, now()), SocketError::kNone);
  }
  uint32_t unsent() { return tcp().Find(socket)->Unsent(); }

 private:
  const uint32_t window_;
};

// Linux' TCP_NOTSENT_LOWAT (tcp_stream_memory_free): writing goes on up to the mark, and is called for
// again when less than half of that waits.
TEST(LowWater, ProgramIsCalledBelowHalfOfTheMark) {
  Writing t({.not_sent_low_water = 40'000});
  EXPECT_EQ(t.Send(100'000), 40'000u);  // of which ten segments go
  EXPECT_EQ(t.Send(100'000), 10'000u);
  EXPECT_EQ(t.Send(100'000), 0u);
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 0u);
  EXPECT_EQ(t.unsent(), 40'000u);
  t.Ack(10'001);
  EXPECT_EQ(t.unsent(), 22'000u);
  t.Wait(Nanos(1));
  EXPECT_EQ(t.writable, 0);
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 18'000u);
  t.Ack(14'001);  // eight segments go
  EXPECT_EQ(t.unsent(), 14'000u);
  t.Wait(Nanos(1));
  EXPECT_EQ(t.writable, 1);
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 26'000u);
}

// What is sent and not acknowledged does not count.
TEST(LowWater, DataInFlightDoesNotCount) {
  Writing t({.not_sent_low_water = 40'000});
  EXPECT_EQ(t.Send(10'000), 10'000u);
  EXPECT_EQ(t.pending(), 10u);
  EXPECT_EQ(t.tcp().SendRoom(t.socket), 40'000u);
}

// The send buffer's limit holds as well.
TEST(LowWater, BufferIsAsLargeAsEver) {
  Writing t({.send_buffer_max = 30'000, .not_sent_low_water = 40'000});
  EXPECT_EQ(t.Send(100'000), 30'000u);
}

// A socket's mark of 0 is the worker's, which is none unless it is configured.
TEST(LowWater, MarkOfTheWorkerIsForThoseWithoutOne) {
  EXPECT_EQ(Writing().Send(100'000), 64u * 1024);
  TcpScript::Options o;
  o.config.tcp.not_sent_low_water = 40'000;
  EXPECT_EQ(Writing({}, 64000, o).Send(100'000), 40'000u);
  EXPECT_EQ(Writing({.not_sent_low_water = 50'000}, 64000, o).Send(100'000), 50'000u);
  EXPECT_EQ(Writing({.not_sent_low_water = transport::kNoLowWater}, 64000, o).Send(100'000),
            64u * 1024);
}

// Half of the peer's largest window is what Linux makes a segment of before its NIC cuts it: so much may
// wait with a lower mark, in whole segments.
TEST(LowWater, BurstMayWaitBeyondALowMark) {
  Writing t({.not_sent_low_water = 4000}, 33'000);
  EXPECT_EQ(t.Send(100'000), 16'000u);
  EXPECT_EQ(t.Send(100'000), 10'000u);
  EXPECT_EQ(t.Send(100'000), 0u);
  for (const int acked : {2000, 4000, 6000}) {  // each lets four segments go
    t.Ack(acked + 1);
    EXPECT_EQ(t.unsent(), 16'000u - 2 * static_cast<uint32_t>(acked));
    t.Wait(Nanos(1));
    EXPECT_EQ(t.writable, 0) << acked;
  }
  t.Ack(8001);
  EXPECT_EQ(t.unsent(), 0u);
  t.Wait(Nanos(1));
  EXPECT_EQ(t.writable, 1);
}

// A write that was cut short although all of it could be sent: the program is called at once, since no
// ACK need come before it may write again.
TEST(LowWater, ProgramIsCalledAfterAShortWriteThatWasSent) {
  Writing t({.not_sent_low_water = 4000}, 6000);
  EXPECT_EQ(t.Send(9000), 4000u);
  EXPECT_EQ(t.unsent(), 0u);
  EXPECT_EQ(t.writable, 0);  // never from within a call
  EXPECT_EQ(t.tcp().NextDeadline(), Nanos());
  t.Wait(Nanos(1));
  EXPECT_EQ(t.writable, 1);
}

// Who takes the mark away hears that there is room.
TEST(LowWater, ProgramIsCalledWhenTheMarkIsRaised) {
  Writing t({.not_sent_low_water = 33'000});
  EXPECT_EQ(t.Send(33'000), 33'000u);
  EXPECT_EQ(t.Send(10'000), 10'000u);
  EXPECT_EQ(t.Send(1), 0u);
  t.Wait(Millis(1));
  EXPECT_EQ(t.writable, 0);
  t.Set({});
  t.Wait(Millis(1));
  EXPECT_EQ(t.writable, 1);
  EXPECT_EQ(t.Send(100'000), 64u * 1024 - 43'000);
}

// A buffer that is lent goes as a whole, but none while the mark is reached.
TEST(LowWater, HoldsForLentBuffers) {
  Writing t({.not_sent_low_water = 40'000});
  const std::vector<uint8_t> data(55'000);
  const transport::OwnedBuffer buffer{data.data(), 55'000, nullptr, nullptr};
  EXPECT_EQ(t.tcp().SendOwned(t.socket, buffer, t.now()).bytes, 55'000u);
  EXPECT_EQ(t.tcp().SendOwned(t.socket, buffer, t.now()).error, SocketError::kWouldBlock);
}

// Linux' MSG_EOR: data behind the end of a record does not share a segment with data before it. The end
// of a record gets a PSH (RFC 9293 section 3.9.1.2).
TEST(Records, SegmentsHaveDataOfOne) {
  Writing t;
  t.Send(10'400);
  t.EndRecord();
  t.Send(300);
  t.EndRecord();
  t.Send(2000);
  t.EndRecord();
  t.Send(1100);
  t.Discard();
  t.Ack(10'001);
  t.OutData(10'001, 10'401);
  t.OutData(10'401, 10'701);
  t.OutData(10'701, 11'701, ".");
  t.OutData(11'701, 12'701);
  t.OutData(12'701, 13'701, ".");
  t.Nothing();  // Nagle: small ones are out
  t.Ack(13'701);
  t.OutData(13'701, 13'801);
}

// "... nor any that is sent again".
TEST(Records, RetransmissionsHaveDataOfOne) {
  Writing t;
  t.Send(10'400);
  t.EndRecord();
  for (int i = 0; i < 3; ++i) {
    t.Send(100);
    t.EndRecord();
  }
  t.Send(5000);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(10'001);
  t.Discard();
  t.Wait(Millis(100));
  t.Ack(10'001, "10701:15701");
  t.OutData(10'001, 10'401);
  t.OutData(10'401, 10'501);
  t.OutData(10'501, 10'601);
  t.OutData(10'601, 10'701);
  t.Nothing();
}

// Nothing can join a record that has ended: with more behind it, it need not wait for ACKs (RFC 896) or
// for a cork. The last one waits as any data does.
TEST(Records, EndedOnesDoNotWaitForMore) {
  Writing t;
  t.Send(100);
  t.OutData(1, 101);
  t.Send(100);
  t.EndRecord();
  t.Nothing();
  t.Send(100);
  t.OutData(101, 201);
  t.Nothing();
  t.Ack(201);
  t.OutData(201, 301);
  t.Ack(301);
  t.Set({.cork = true});
  t.Send(100);
  t.EndRecord();
  t.Nothing();
  t.Send(100);
  t.OutData(301, 401);
  t.Nothing();
}

// ... also for those in front of it that go in the same breath.
TEST(Records, LastOneWaitsForSmallOnesBefore) {
  Writing t;
  t.Send(10'000);
  t.Send(100);
  t.EndRecord();
  t.Send(100);
  t.Discard();
  t.Ack(2001);
  t.OutData(10'001, 10'101);
  t.Nothing();
  t.Ack(10'101);
  t.OutData(10'101, 10'201);
}

// RFC 9293 section 3.8.6.2.1: a window that cuts a record is waited for, as without records.
TEST(Records, WindowMayCutOne) {
  Writing t({}, 2000);
  t.Send(2000);
  t.Send(900);
  t.EndRecord();
  t.Send(900);
  t.Discard();
  t.In(". 1:1(0) ack 2001 win 400");
  t.Nothing();
  t.In(". 1:1(0) ack 2001 win 1500");
  t.OutData(2001, 2901);
  t.Nothing();
}

// The mark of what has been sent is not kept: the frame of that data takes more.
TEST(Records, NothingIsKeptOfWhatHasBeenSent) {
  Writing t({.no_delay = true});
  t.Send(100);
  t.EndRecord();
  t.Send(100);
  EXPECT_EQ(t.tcp().usage().send_frames, 1u);
  t.OutData(1, 101);
  t.OutData(101, 201);
}

TEST(Records, FinMayComeWithTheLastOne) {
  Writing t;
  t.Send(10'500);
  t.EndRecord();
  t.Discard();
  t.Shutdown();
  t.Ack(10'001);
  t.OutData(10'001, 10'501, "FP.");
  t.Ack(10'502);
  EXPECT_EQ(t.tcp().EndRecord(t.socket), SocketError::kShutdown);
  EXPECT_EQ(t.tcp().EndRecord({}), SocketError::kBadSocket);
}

// What Linux' tcp_info calls busy_time, rwnd_limited and sndbuf_limited.
struct Times : Writing {
  using Writing::Writing;
  Nanos Of(Sending s) { return tcp().Find(socket)->sending.Time(s, now()); }
  Nanos Busy() { return tcp().Find(socket)->sending.Busy(now()); }
};

TEST(SendingTimes, NothingToSendIsIdle) {
  Times t;
  t.Wait(Seconds(1));
  EXPECT_EQ(t.Busy(), Nanos());
  t.Send(1000);
  t.Wait(Millis(50));
  t.Ack(1001);
  t.Wait(Seconds(1));
  EXPECT_EQ(t.Busy(), Millis(50));
  EXPECT_EQ(t.Of(Sending::kBusy), Millis(50));
}

TEST(SendingTimes, WindowWithoutRoomForTheNextSegment) {
  Times t({}, 2500);
  t.Send(4000);
  EXPECT_EQ(t.unsent(), 2000u);
  t.Wait(Millis(30));
  EXPECT_EQ(t.Of(Sending::kPeerWindow), Millis(30));
  t.In(". 1:1(0) ack 2001 win 10");
  t.Wait(Millis(70));
  EXPECT_EQ(t.Of(Sending::kPeerWindow), Millis(100));
  t.In(". 1:1(0) ack 2001 win 2500");
  EXPECT_EQ(t.unsent(), 0u);
  t.Wait(Millis(20));
  t.Ack(4001);
  t.Wait(Millis(5));
  EXPECT_EQ(t.Of(Sending::kPeerWindow), Millis(100));
  EXPECT_EQ(t.Of(Sending::kBusy), Millis(20));
  EXPECT_EQ(t.Busy(), Millis(120));
}

// While the congestion window would not let it go either, that is the reason.
TEST(SendingTimes, CongestionWindowGoesFirst) {
  Times t({}, 10'000);
  t.Send(20'000);
  t.Wait(Millis(30));
  EXPECT_EQ(t.Of(Sending::kPeerWindow), Nanos());
  EXPECT_EQ(t.Of(Sending::kBusy), Millis(30));
}

TEST(SendingTimes, BufferTooSmallForTheProgram) {
  Times t({.send_buffer_max = 5000});
  EXPECT_EQ(t.Send(6000), 5000u);
  t.Wait(Millis(30));
  EXPECT_EQ(t.Of(Sending::kSendBuffer), Millis(30));
  t.Ack(5001);
  EXPECT_EQ(t.writable, 1);
  t.Wait(Millis(30));
  EXPECT_EQ(t.Of(Sending::kSendBuffer), Millis(30));
  EXPECT_EQ(t.Busy(), Millis(30));
}

// What is left of a connection that has failed counts no further.
TEST(SendingTimes, EndWithTheConnection) {
  Times t;
  t.Send(1000);
  t.Wait(Millis(50));
  t.In("R. 1:1(0) ack 1");
  t.Wait(Seconds(1));
  EXPECT_EQ(t.Busy(), Millis(50));
}

// tcp_info's last_data_recv: pure ACKs do not count.
TEST(LastDataReceived, CountsFromTheHandshakeAndFromData) {
  Times t;
  const auto since = [&] { return t.now() - t.tcp().Find(t.socket)->last_data_received; };
  t.Wait(Millis(20));
  EXPECT_EQ(since(), Millis(20));
  t.Ack(1);
  EXPECT_EQ(since(), Millis(20));
  t.In(". 1:101(100) ack 1 win 64000");
  t.Wait(Millis(5));
  EXPECT_EQ(since(), Millis(5));
}

}  // namespace
}  // namespace sluice::test
