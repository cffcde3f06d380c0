#include "io/sim/sim_port.h"

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <numeric>

#include "io/port.h"

namespace sluice::io {
namespace {

static_assert(IoPort<SimPort>);

class SimPortTest : public testing::Test {
 protected:
  static constexpr uint32_t kFrames = 32;

  SimPortTest() : arena(packet::FrameArena::Create(kFrames, 2048)), pool(*arena) {
    for (uint32_t f = kFrames; f-- > 0;) pool.Free(f);
  }

  static SimPort::Bytes Counting(size_t n) {
    SimPort::Bytes bytes(n);
    std::iota(bytes.begin(), bytes.end(), uint8_t{0});
    return bytes;
  }
  SimPort::Bytes BytesOf(const packet::Packet& p) {
    SimPort::Bytes bytes(p.length);
    packet::CopyOut(*arena, p, 0, bytes.data(), p.length);
    return bytes;
  }
  uint32_t Accounted(const SimPort& port) {
    return pool.size() + port.frames_in_fill() + port.frames_in_tx();
  }

  std::unique_ptr<packet::FrameArena> arena;
  packet::FramePool pool;
  InterfaceCounters counters;
  std::array<packet::Packet, 8> burst;
};

TEST_F(SimPortTest, FramesNeedTheFillRing) {
  SimPort port(IfaceSlot{2}, {.fill_depth = 4});
  port.Deliver(Counting(60));
  EXPECT_EQ(port.RxBurst(burst, pool, counters), 0u);
  EXPECT_EQ(port.lost_for_want_of_frames(), 1u);
  port.Flush(pool, counters);
  EXPECT_EQ(port.frames_in_fill(), 4u);
  for (int i = 0; i < 6; ++i) port.Deliver(Counting(60));
  ASSERT_EQ(port.RxBurst(burst, pool, counters), 4u);
  EXPECT_EQ(port.lost_for_want_of_frames(), 3u);
  EXPECT_EQ(burst[0].in, IfaceSlot{2});
  EXPECT_EQ(BytesOf(burst[3]), Counting(60));
}

TEST_F(SimPortTest, ABurstIsNotLargerThanAskedFor) {
  SimPort port(IfaceSlot{0}, {});
  port.Flush(pool, counters);
  for (int i = 0; i < 11; ++i) port.Deliver(Counting(60));
  EXPECT_EQ(port.RxBurst(burst, pool, counters), 8u);
  EXPECT_FALSE(port.idle());
  EXPECT_EQ(port.RxBurst(burst, pool, counters), 3u);
  EXPECT_TRUE(port.idle());
}

TEST_F(SimPortTest, LargeFramesComeInPieces) {
  SimPort port(IfaceSlot{0}, {.segment_bytes = 100});
  port.Flush(pool, counters);
  port.Deliver(Counting(100));
  port.Deliver(Counting(250));
  ASSERT_EQ(port.RxBurst(burst, pool, counters), 2u);
  EXPECT_EQ(burst[0].segment_count, 1);
  EXPECT_EQ(burst[1].segment_count, 3);
  EXPECT_EQ(burst[1].segment_length, 100);
  EXPECT_EQ(BytesOf(burst[1]), Counting(250));
  // And leave as they came.
  ASSERT_EQ(port.TxBurst(std::span(burst).first(2), pool), 2u);
  EXPECT_EQ(port.frames_in_tx(), 4u);
  EXPECT_EQ(Accounted(port), kFrames);
  port.Flush(pool, counters);
  EXPECT_EQ(port.TakeSent(), (std::vector<SimPort::Bytes>{Counting(100), Counting(250)}));
  EXPECT_EQ(Accounted(port), kFrames);
}

TEST_F(SimPortTest, BlockedQueueTakesUntilItIsFull) {
  SimPort port(IfaceSlot{0}, {.fill_depth = 8, .tx_depth = 3});
  port.Flush(pool, counters);
  port.set_tx_blocked(true);
  for (int i = 0; i < 5; ++i) port.Deliver(Counting(60));
  ASSERT_EQ(port.RxBurst(burst, pool, counters), 5u);
  EXPECT_EQ(port.TxBurst(std::span(burst).first(5), pool), 3u);
  for (const packet::Packet& p : std::span(burst).subspan(3, 2)) packet::FreePacket(pool, p);
  port.Flush(pool, counters);
  EXPECT_TRUE(port.TakeSent().empty());
  EXPECT_EQ(counters.tx_errors[static_cast<size_t>(TxError::kNoBuffers)].Read(), 1u);
  port.set_tx_blocked(false);
  port.Flush(pool, counters);
  EXPECT_EQ(port.TakeSent().size(), 3u);
  EXPECT_TRUE(port.TakeSent().empty());
  EXPECT_EQ(Accounted(port), kFrames);
}

TEST_F(SimPortTest, PuntsAreCopies) {
  SimPort port(IfaceSlot{0}, {});
  SimPuntDevice device;
  port.Flush(pool, counters);
  port.Deliver(Counting(60));
  ASSERT_EQ(port.RxBurst(burst, pool, counters), 1u);
  EXPECT_TRUE(device.Write(WorkerId{0}, *arena, burst[0]));
  device.set_blocked(true);
  EXPECT_FALSE(device.Write(WorkerId{0}, *arena, burst[0]));
  packet::FreePacket(pool, burst[0]);
  EXPECT_EQ(device.TakeWritten(), std::vector<SimPort::Bytes>{Counting(60)});
  EXPECT_EQ(Accounted(port), kFrames);
}

}  // namespace
}  // namespace sluice::io
