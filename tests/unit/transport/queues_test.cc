// The parts that connections are made of, each against a slow and obvious model of itself.
#include <gtest/gtest.h>

#include <map>
#include <set>
#include <vector>

#include "base/rng.h"
#include "packet/frame_arena.h"
#include "transport/common/tuple_table.h"
#include "transport/tcp/receive_queue.h"
#include "transport/tcp/scoreboard.h"
#include "transport/tcp/send_buffer.h"

namespace sluice::transport {
namespace {

using wire::TcpSeq;

// The value that SipHash's authors give for SipHash-2-4, the key 00..0f and the message 00..07.
TEST(SipHash, ReferenceValue) {
  const HashKey key{0x0706050403020100ull, 0x0f0e0d0c0b0a0908ull};
  EXPECT_EQ(SecretHash(key, {0x0706050403020100ull}), 0x93f5f5799a932462ull);
}

TEST(TupleTable, AgreesWithAMap) {
  Rng rng(5);
  TupleTable table(200, {1, 2});
  std::vector<Tuple> tuples(200);
  std::map<uint32_t, bool> there;
  const auto of = [&](uint32_t i) -> const Tuple& { return tuples[i]; };
  for (uint32_t i = 0; i < 200; ++i) {
    tuples[i] = {{Ipv4(10, 0, 0, 1), 80},
                 {Ipv4(static_cast<uint32_t>(rng.Next())), static_cast<uint16_t>(i)}};
  }
  for (int step = 0; step < 20000; ++step) {
    const auto i = static_cast<uint32_t>(rng.Below(200));
    if (there[i]) {
      table.Erase(tuples[i], i);
    } else {
      table.Insert(tuples[i], i);
    }
    there[i] = !there[i];
    const auto j = static_cast<uint32_t>(rng.Below(200));
    ASSERT_EQ(table.Find(tuples[j], of), there[j] ? j : kNoIndex);
  }
}

struct Frames {
  Frames() : arena(packet::FrameArena::Create(512, 2048)), pool(*arena) {
    for (uint32_t i = 0; i < 512; ++i) pool.Free(i);
  }
  std::unique_ptr<packet::FrameArena> arena;
  packet::FramePool pool;
};

uint8_t ByteAt(TcpSeq seq) { return static_cast<uint8_t>(seq.value() * 7 + (seq.value() >> 8)); }

// Random segments of a stream, overlapping and in any order: what is read is the stream, nothing is
// read that was not received, and no frame is lost.
TEST(ReceiveQueue, ReadsTheStream) {
  for (uint64_t seed = 1; seed <= 200; ++seed) {
    Rng rng(seed);
    Frames f;
    ReceivePool pool(32, 16, 256, f.pool);
    ReceiveQueue queue;
    const TcpSeq first(static_cast<uint32_t>(0u - 3000));  // over the wrap
    TcpSeq next = first;
    TcpSeq read = first;
    for (int step = 0; step < 400; ++step) {
      TcpSeq seq = next + static_cast<uint32_t>(rng.Below(4000));
      if (rng.Chance(1, 3)) seq = next;
      const auto length = static_cast<uint32_t>(1 + rng.Below(rng.Chance(1, 2) ? 1400 : 60));
      packet::Packet p;
      p.frame = f.pool.Alloc();
      ASSERT_NE(p.frame, packet::kNoFrame);
      p.data = f.arena->Chunk(p.frame) + packet::kHeadroom;
      p.length = 54 + length;
      p.segment_length = static_cast<uint16_t>(p.length);
      for (uint32_t i = 0; i < length; ++i) p.data[54 + i] = ByteAt(seq + i);
      const auto result = queue.Insert(pool, p, 54, seq, length, next);
      if (result.outcome == ReceiveQueue::Outcome::kDuplicate ||
          result.outcome == ReceiveQueue::Outcome::kRefused) {
        f.pool.Free(p.frame);
      }
      if (rng.Chance(1, 4)) {
        std::vector<uint8_t> out(rng.Below(3000));
        const uint32_t n = queue.Read(pool, out);
        for (uint32_t i = 0; i < n; ++i) ASSERT_EQ(out[i], ByteAt(read + i)) << "seed " << seed;
        read += n;
      }
      if (rng.Chance(1, 40)) queue.Prune(pool);
      ASSERT_EQ(queue.bytes(), next - read) << "seed " << seed;
      ASSERT_EQ(f.pool.size() + queue.frames(), 512u) << "seed " << seed;
      // The blocks of SACK: in the window, apart from each other.
      wire::TcpOptions o;
      queue.FillSack(pool, o, 4);
      for (uint8_t i = 0; i < o.sack_count; ++i) {
        ASSERT_TRUE(o.sack[i].left.After(next));
        ASSERT_TRUE(o.sack[i].right.After(o.sack[i].left));
        ASSERT_TRUE(queue.Covers(pool, o.sack[i]));
      }
    }
    queue.Clear(pool);
    ASSERT_EQ(f.pool.size(), 512u);
    ASSERT_EQ(pool.frames_left, 256u);
    ASSERT_EQ(pool.ranges.used(), 0u);
  }
}

// Pieces of all three kinds; any part can be read until it is acknowledged.
TEST(SendBuffer, ReadsWhatWasWritten) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Rng rng(seed);
    Frames f;
    SendPool pool(64, 128, f.pool);
    SendBuffer buffer;
    TcpSeq acked(0u - 2000);
    buffer.Start(acked);
    std::vector<std::vector<uint8_t>> lent;
    lent.reserve(1000);
    int released = 0;
    int taken = 0;
    std::set<uint32_t> ends;  // of records, counted from the first byte of all
    const TcpSeq first = acked;
    for (int step = 0; step < 400; ++step) {
      const auto length = static_cast<uint32_t>(1 + rng.Below(3000));
      std::vector<uint8_t> data(length);
      for (uint32_t i = 0; i < length; ++i) data[i] = ByteAt(buffer.end() + i);
      switch (rng.Below(5)) {
        case 0:
          buffer.Write(pool, data);
          break;
        case 4:
          buffer.EndRecord(pool);
          if (buffer.size() > 0) ends.insert(buffer.end() - first);
          break;
        case 1:
          lent.push_back(data);
          if (buffer.Lend(pool, {lent.back().data(), length,
                                 [](void* n) { ++*static_cast<int*>(n); }, &released})) {
            ++taken;
          }
          break;
        case 2: {
          packet::Packet p;
          p.frame = f.pool.Alloc();
          if (p.frame == packet::kNoFrame) break;
          const uint32_t n = std::min(length, 1400u);
          p.data = f.arena->Chunk(p.frame) + packet::kHeadroom;
          p.length = 54 + n;
          p.segment_length = static_cast<uint16_t>(p.length);
          std::copy_n(data.begin(), n, p.data + 54);
          if (!buffer.TakePacket(pool, p, 54, n)) f.pool.Free(p.frame);
          break;
        }
        default: {
          const auto n = static_cast<uint32_t>(rng.Below(buffer.size() + 1));
          acked += n;
          buffer.Acknowledge(pool, acked);
        }
      }
      if (buffer.size() > 0) {
        const auto from = static_cast<uint32_t>(rng.Below(buffer.size()));
        std::vector<uint8_t> out(1 + rng.Below(buffer.size() - from));
        buffer.Read(pool, acked + from, out.data(), static_cast<uint32_t>(out.size()));
        for (size_t i = 0; i < out.size(); ++i) {
          ASSERT_EQ(out[i], ByteAt(acked + from + static_cast<uint32_t>(i))) << "seed " << seed;
        }
        // Looked for from where that has left off, or from somewhere else.
        const uint32_t begin =
            rng.Chance(1, 2) ? from : static_cast<uint32_t>(rng.Below(buffer.size()));
        const auto most = static_cast<uint32_t>(1 + rng.Below(buffer.size() - begin));
        const uint32_t at = (acked - first) + begin;
        const auto end = ends.upper_bound(at);
        const bool ended = end != ends.end() && *end - at <= most;
        const SendBuffer::Run run = buffer.WithinRecord(pool, acked + begin, most);
        ASSERT_EQ(run.length, ended ? *end - at : most) << "seed " << seed;
        ASSERT_EQ(run.ends_record, ended) << "seed " << seed;
      }
    }
    buffer.Clear(pool);
    ASSERT_EQ(released, taken);
    ASSERT_EQ(f.pool.size(), 512u);
    ASSERT_EQ(pool.frames_left, 128u);
    ASSERT_EQ(pool.pieces.used(), 0u);
  }
}

// Packets of a few bytes, passed on, share frames; also those behind a large one, and behind Write's.
TEST(SendBuffer, SmallPacketsShareFrames) {
  Frames f;
  SendPool pool(64, 64, f.pool);
  SendBuffer buffer;
  TcpSeq end(100);
  buffer.Start(end);
  const auto pass = [&](uint32_t n) {
    packet::Packet p;
    p.frame = f.pool.Alloc();
    p.data = f.arena->Chunk(p.frame) + packet::kHeadroom;
    p.length = 54 + n;
    p.segment_length = static_cast<uint16_t>(p.length);
    for (uint32_t i = 0; i < n; ++i) p.data[54 + i] = ByteAt(end + i);
    ASSERT_TRUE(buffer.TakePacket(pool, p, 54, n));
    end += n;
  };
  for (int i = 0; i < 300; ++i) pass(1);
  EXPECT_EQ(buffer.pieces(), 1u);
  pass(1400);
  for (int i = 0; i < 100; ++i) pass(3);
  EXPECT_EQ(buffer.pieces(), 2u);
  pass(1400);
  pass(512);
  pass(512);
  EXPECT_EQ(buffer.pieces(), 4u);
  const uint8_t one = ByteAt(end);
  EXPECT_EQ(buffer.Write(pool, {&one, 1}), 1u);
  end += 1;
  EXPECT_EQ(buffer.pieces(), 4u);
  EXPECT_EQ(64 - pool.frames_left, 4u);
  EXPECT_EQ(f.pool.size(), 508u);
  std::vector<uint8_t> out(buffer.size());
  buffer.Read(pool, TcpSeq(100), out.data(), buffer.size());
  for (uint32_t i = 0; i < out.size(); ++i) ASSERT_EQ(out[i], ByteAt(TcpSeq(100) + i)) << i;
  buffer.Acknowledge(pool, end);
  EXPECT_EQ(buffer.pieces(), 0u);
  EXPECT_EQ(f.pool.size(), 512u);
}

// The counts that make up the pipe, against counting.
TEST(Scoreboard, CountsAreRight) {
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    Rng rng(seed);
    TxSegments pool(256);
    Scoreboard board;
    TcpSeq next(0u - 5000);
    for (int step = 0; step < 500; ++step) {
      std::vector<uint32_t> all;
      for (uint32_t i = board.head(); i != kNoIndex; i = pool[i].next) all.push_back(i);
      const uint32_t any = all.empty() ? kNoIndex : all[rng.Below(all.size())];
      switch (rng.Below(8)) {
        case 0:
        case 1: {
          const auto length = static_cast<uint32_t>(1 + rng.Below(1400));
          if (board.Append(pool, next, length, 0, Nanos(step))) next += length;
          break;
        }
        case 2:
          if (!all.empty()) board.PopFront(pool);
          break;
        case 3:
          if (any != kNoIndex) board.MarkSacked(pool, any);
          break;
        case 4:
          if (any != kNoIndex) board.MarkLost(pool, any);
          break;
        case 5:
          if (const uint32_t i = board.NextLost(pool); i != kNoIndex) {
            board.MarkRetransmitted(pool, i, Nanos(step));
          }
          break;
        case 6:
          if (any != kNoIndex && pool[any].length > 1) board.Split(pool, any, pool[any].length / 2);
          break;
        default:
          if (rng.Chance(1, 10)) board.MarkAllLost(pool);
          if (rng.Chance(1, 10)) board.ForgetLosses(pool);
      }
      uint32_t bytes = 0, sacked = 0, lost = 0, again = 0, count = 0, first_lost = kNoIndex;
      TcpSeq at = board.empty() ? next : pool[board.head()].seq;
      for (uint32_t i = board.head(); i != kNoIndex; i = pool[i].next) {
        const TxSegment& s = pool[i];
        ASSERT_EQ(s.seq, at);
        at = s.end();
        bytes += s.length;
        ++count;
        if (s.Has(kTxSacked)) sacked += s.length;
        if (s.Has(kTxLost)) lost += s.length;
        if (s.Has(kTxRetransmitted)) again += s.length;
        if (first_lost == kNoIndex && s.Has(kTxLost) && !s.Has(kTxRetransmitted)) first_lost = i;
      }
      ASSERT_EQ(at, next);
      ASSERT_EQ(board.count(), count);
      ASSERT_EQ(board.sacked_bytes(), sacked);
      ASSERT_EQ(board.Pipe(), bytes - sacked - lost + again) << "seed " << seed;
      ASSERT_EQ(board.NextLost(pool), first_lost) << "seed " << seed << " step " << step;
    }
    board.Clear(pool);
    ASSERT_EQ(pool.used(), 0u);
  }
}

// A search agrees with looking at all of them; going on from where the last one ended costs few steps,
// and no search costs more than its budget.
TEST(Scoreboard, FindsSegments) {
  Rng rng(3);
  TxSegments pool(4096);
  Scoreboard board;
  TcpSeq next(0u - 100000);
  for (uint32_t i = 0; i < 4000; ++i) {
    const auto length = static_cast<uint32_t>(1 + rng.Below(1400));
    ASSERT_TRUE(board.Append(pool, next, length, 0, Nanos()));
    next += length;
  }
  for (int step = 0; step < 300; ++step) {
    for (uint64_t gone = rng.Below(3); gone > 0; --gone) board.PopFront(pool);
    const TcpSeq first = pool[board.head()].seq;
    const TcpSeq seq = first + static_cast<uint32_t>(rng.Below(next - first));
    uint32_t budget = 4096;
    const uint32_t found = board.Find(pool, seq, budget);
    ASSERT_NE(found, kNoIndex);
    ASSERT_TRUE(pool[found].seq.AtOrBefore(seq) && pool[found].end().After(seq));
    budget = 10;
    if (pool[found].next == kNoIndex) continue;
    ASSERT_EQ(board.Find(pool, pool[found].end(), budget), pool[found].next);
    ASSERT_GE(budget, 9u);
  }
  uint32_t budget = 4096;
  EXPECT_EQ(board.Find(pool, next, budget), kNoIndex);
  EXPECT_EQ(board.Find(pool, pool[board.head()].seq - 1, budget), kNoIndex);
  EXPECT_EQ(budget, 4096u);
  // Too little for the way: after a few searches it is there.
  const TcpSeq middle = pool[board.head()].seq + (next - pool[board.head()].seq) / 2;
  int searches = 0;
  for (uint32_t found = kNoIndex; found == kNoIndex && searches < 100; ++searches) {
    budget = 100;
    found = board.Find(pool, middle, budget);
  }
  EXPECT_LT(searches, 40);
  board.Clear(pool);
}

}  // namespace
}  // namespace sluice::transport
