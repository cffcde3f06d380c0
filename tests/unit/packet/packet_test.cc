#include "packet/packet.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <numeric>
#include <vector>

#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "packet/outbox.h"

namespace sluice::packet {
namespace {

constexpr uint32_t kFrames = 300;

class PacketTest : public testing::Test {
 protected:
  PacketTest() : arena(FrameArena::Create(kFrames, 2048)), pool(*arena) {
    for (FrameIndex f = kFrames; f-- > 0;) pool.Free(f);
  }

  // A packet of bytes 0, 1, 2, ... in pieces of these sizes.
  Packet Make(const std::vector<uint16_t>& pieces) {
    Packet p;
    uint8_t value = 0;
    FrameIndex previous = kNoFrame;
    for (const uint16_t size : pieces) {
      const FrameIndex frame = pool.Alloc();
      uint8_t* const data = arena->Chunk(frame) + kHeadroom;
      for (uint16_t i = 0; i < size; ++i) data[i] = value++;
      if (previous == kNoFrame) {
        p.frame = frame;
        p.data = data;
        p.segment_length = size;
      } else {
        LinkOf(*arena, previous) = {frame, kHeadroom, size};
      }
      previous = frame;
      p.length += size;
    }
    p.segment_count = static_cast<uint8_t>(pieces.size());
    return p;
  }
  std::vector<uint8_t> BytesOf(const Packet& p) {
    std::vector<uint8_t> bytes;
    ForEachSegment(*arena, p, 0, [&](std::span<uint8_t> piece) {
      bytes.insert(bytes.end(), piece.begin(), piece.end());
    });
    return bytes;
  }
  static std::vector<uint8_t> Counting(size_t count, uint8_t from = 0) {
    std::vector<uint8_t> bytes(count);
    std::iota(bytes.begin(), bytes.end(), from);
    return bytes;
  }

  std::unique_ptr<FrameArena> arena;
  FramePool pool;
};

TEST_F(PacketTest, ArenaNamesFramesByTheirPlace) {
  EXPECT_EQ(arena->size_bytes(), kFrames * 2048u);
  EXPECT_EQ(arena->chunk_size(), 2048u);
  EXPECT_EQ(arena->Chunk(3), arena->base() + 3 * 2048);
  EXPECT_EQ(arena->FrameAt(arena->OffsetOf(arena->Chunk(7) + 2047)), 7u);
  EXPECT_EQ(reinterpret_cast<uintptr_t>(arena->base()) % (2u << 20), 0u) << "for huge pages";
  arena->Chunk(kFrames - 1)[2047] = 1;  // the last byte is there
  const auto large = FrameArena::Create(4, 4096);
  EXPECT_EQ(large->Chunk(1) - large->base(), 4096);
}

TEST_F(PacketTest, PoolGivesEachFrameOnceAndTheLastFreedFirst) {
  std::vector<bool> seen(kFrames);
  for (uint32_t i = 0; i < kFrames; ++i) {
    EXPECT_EQ(pool.size(), kFrames - i);
    const FrameIndex frame = pool.Alloc();
    ASSERT_LT(frame, kFrames);
    EXPECT_FALSE(seen[frame]);
    seen[frame] = true;
  }
  EXPECT_EQ(pool.Alloc(), kNoFrame);
  pool.Free(5);
  pool.Free(9);
  EXPECT_EQ(pool.Alloc(), 9u);
  EXPECT_EQ(pool.Alloc(), 5u);
}

#ifndef NDEBUG
TEST_F(PacketTest, DoubleFreeIsFound) {
  pool.Alloc();  // else the pool is full, which is found first
  const FrameIndex frame = pool.Alloc();
  pool.Free(frame);
  EXPECT_DEATH(pool.Free(frame), "freed twice");
}
#endif

TEST_F(PacketTest, FreeReturnsAllPieces) {
  const Packet p = Make({100, 50, 1});
  EXPECT_EQ(pool.size(), kFrames - 3);
  FreePacket(pool, p);
  EXPECT_EQ(pool.size(), kFrames);
}

TEST_F(PacketTest, PiecesAreVisitedInOrderAfterTheSkippedBytes) {
  const Packet p = Make({10, 3, 7});
  EXPECT_EQ(BytesOf(p), Counting(20));
  std::vector<size_t> sizes;
  ForEachSegment(*arena, p, 4, [&](std::span<uint8_t> piece) {
    if (sizes.empty()) {
      EXPECT_EQ(piece[0], 4);
    }
    sizes.push_back(piece.size());
  });
  EXPECT_EQ(sizes, (std::vector<size_t>{6, 3, 7}));
}

TEST_F(PacketTest, CopyOutCrossesPieces) {
  const Packet p = Make({10, 3, 7});
  for (uint32_t offset = 0; offset < 20; ++offset) {
    for (uint32_t length = 0; length <= 20 - offset; ++length) {
      std::vector<uint8_t> out(length + 1, 0xee);
      CopyOut(*arena, p, offset, out.data(), length);
      EXPECT_EQ(out.back(), 0xee) << "wrote beyond";
      out.pop_back();
      EXPECT_EQ(out, Counting(length, static_cast<uint8_t>(offset)));
    }
  }
}

TEST_F(PacketTest, TrimKeepsTheFirstBytesAndFreesTheRest) {
  for (const std::vector<uint16_t>& pieces :
       {std::vector<uint16_t>{20}, std::vector<uint16_t>{10, 3, 7},
        std::vector<uint16_t>{1, 1, 18}}) {
    for (uint32_t length = 1; length <= 22; ++length) {
      Packet p = Make(pieces);
      TrimPacket(pool, p, length);
      const uint32_t kept = std::min(length, 20u);
      EXPECT_EQ(p.length, kept);
      EXPECT_EQ(BytesOf(p), Counting(kept));
      uint32_t needed = 0;
      uint32_t sum = 0;
      while (sum < kept) sum += pieces[needed++];
      EXPECT_EQ(p.segment_count, needed) << length;
      EXPECT_EQ(pool.size(), kFrames - needed);
      FreePacket(pool, p);
      EXPECT_EQ(pool.size(), kFrames);
    }
  }
}

// As many as segment_count can say: a reassembled datagram.
TEST_F(PacketTest, TheMostSegments) {
  ASSERT_GE(pool.size(), 255u);
  Packet p = Make(std::vector<uint16_t>(255, 2));
  EXPECT_EQ(p.segment_count, 255);
  EXPECT_EQ(BytesOf(p).size(), 510u);
  std::vector<uint8_t> end(2);
  CopyOut(*arena, p, 508, end.data(), 2);
  EXPECT_EQ(end, (std::vector<uint8_t>{252, 253}));
  TrimPacket(pool, p, 509);
  EXPECT_EQ(p.segment_count, 255);
  TrimPacket(pool, p, 3);
  EXPECT_EQ(p.segment_count, 2);
  EXPECT_EQ(pool.size(), kFrames - 2);
  FreePacket(pool, p);
  EXPECT_EQ(pool.size(), kFrames);
}

TEST_F(PacketTest, OutboxTakesWhatFitsAndNoMore) {
  Outbox outbox(pool);
  const IfaceSlot slot{3};
  Packet p = Make({60});
  EXPECT_FALSE(outbox.Transmit(slot, p)) << "not enabled";
  outbox.Enable(slot);
  outbox.Enable(slot);
  for (uint32_t i = 0; i < Outbox::kPerInterface; ++i) ASSERT_TRUE(outbox.Transmit(slot, p));
  EXPECT_FALSE(outbox.Transmit(slot, p));
  EXPECT_EQ(outbox.active(), uint64_t{1} << 3);
  EXPECT_EQ(outbox.transmits(slot).size(), Outbox::kPerInterface);
  outbox.ClearTransmits(slot);
  EXPECT_EQ(outbox.active(), 0u);
  EXPECT_TRUE(outbox.Transmit(slot, p));

  for (uint32_t i = 0; i < Outbox::kPunts; ++i) {
    ASSERT_TRUE(outbox.Punt(p, PuntReason::kLocal, i == 0));
  }
  EXPECT_FALSE(outbox.Punt(p, PuntReason::kLocal));
  EXPECT_TRUE(outbox.punts()[0].copy);
  EXPECT_FALSE(outbox.punts()[1].copy);
  outbox.ClearPunts();
  EXPECT_TRUE(outbox.punts().empty());
}

TEST_F(PacketTest, NewPacketsComeFromThePool) {
  Outbox outbox(pool);
  Packet p;
  ASSERT_TRUE(outbox.NewPacket(100, p));
  EXPECT_EQ(p.data, arena->Chunk(p.frame) + kHeadroom);
  EXPECT_EQ(p.length, 100u);
  EXPECT_EQ(p.segment_length, 100u);
  EXPECT_FALSE(p.in.valid());
  while (pool.Alloc() != kNoFrame) {
  }
  EXPECT_FALSE(outbox.NewPacket(100, p));
}

}  // namespace
}  // namespace sluice::packet
