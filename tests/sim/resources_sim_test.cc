// Too little of something: room in a ring, frames, both. What is lost is counted, what was taken
// comes back, and nobody's traffic suffers for somebody else's longer than need be.
#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

using ResourcesSimTest = SimTest;

uint32_t FramesInFill(SimRouter& r) {
  return r.port("left").frames_in_fill() + r.port("right").frames_in_fill();
}

TEST_F(ResourcesSimTest, BlockedOutputDropsAreCountedAndItRecovers) {
  Row row(net, 1);
  row.Warm(net);
  SimRouter& r = row.first();
  r.port("right").set_tx_blocked(true);
  for (uint32_t i = 0; i < 200; ++i) {
    net.After(Micros(10) * i, [&row, i] { row.a->Send(Numbered(row.a4, row.b4, i)); });
  }
  net.Run(Millis(100));
  EXPECT_EQ(r.Dropped(DropReason::kTxRingFull, "left"), 200u - 64u);
  EXPECT_TRUE(row.b->received.empty());
  EXPECT_EQ(r.port("right").frames_in_tx(), 64u);
  EXPECT_GT(r.Sum(
                [](const InterfaceCounters& c) {
                  return c.tx_errors[static_cast<size_t>(TxError::kNoBuffers)].Read();
                },
                "right"),
            0u);
  r.port("right").set_tx_blocked(false);
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(64));
  row.a->Send(Numbered(row.a4, row.b4, 1000));
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received).back(), 1000u);
}

TEST_F(ResourcesSimTest, KernelThatTakesNothingIsCounted) {
  Row row(net, 1);
  row.Warm(net);
  row.first().punt_device("left").set_blocked(true);
  row.a->Send(PacketBuilder().Ipv4(row.a4, "10.0.0.2").Tcp(1, 22));
  net.Run(Millis(1));
  EXPECT_EQ(row.first().Dropped(DropReason::kPuntFailed, "left"), 1u);
}

// An arena that bursts use up again and again.
TEST_F(ResourcesSimTest, AllFramesInUseIsOverWhenTheyAreFree) {
  SimRouter::Options options;
  options.frames = 150;  // 128 of them in the fill rings
  options.port.tx_depth = 256;
  Row row(net, 1, options);
  row.Warm(net);
  SimRouter& r = row.first();
  for (int round = 0; round < 5; ++round) {
    row.b->received.clear();
    r.port("right").set_tx_blocked(true);
    for (uint32_t i = 0; i < 400; ++i) {
      net.After(Micros(i), [&row, i] { row.a->Send(Numbered(row.a4, row.b4, i)); });
      net.After(Micros(i), [&row, i] { row.a->Send(Numbered(row.a4, "10.0.1.77", i)); });
    }
    net.Run(Millis(100));
    EXPECT_GT(r.LostForWantOfFrames(), 0u);
    r.port("right").set_tx_blocked(false);
    net.Run(Seconds(4));  // what waited for nobody has failed by then
    EXPECT_EQ(r.Held(), 0u);
    EXPECT_EQ(r.FreeFrames() + FramesInFill(r), r.TotalFrames());
    EXPECT_EQ(FramesInFill(r), 128u);
    row.a->Send(Numbered(row.a4, row.b4, 999));
    net.Run(Millis(10));
    ASSERT_FALSE(row.b->received.empty());
    EXPECT_EQ(NumbersOf(row.b->received).back(), 999u);
  }
}

// Three pieces are due and two frames are free.
TEST_F(ResourcesSimTest, FragmentsWithoutFramesAreCounted) {
  SimRouter::Options options;
  options.frames = 130;  // 128 of them in the fill rings
  Row row(net, 1, options, {}, {1500, 600});
  row.Warm(net);
  SimRouter& r = row.first();
  row.a->Send(Numbered(row.a4, row.b4, 1, 1500));
  net.Run(Millis(10));
  EXPECT_EQ(row.b->received.size(), 2u);
  EXPECT_EQ(r.SumWorkers([](const WorkerCounters& c) { return c.generated_dropped.Read(); }), 1u);
  EXPECT_EQ(r.Generated(GeneratedKind::kFragment), 2u);
  EXPECT_EQ(r.Dropped(), 0u) << "the first piece stands for the packet";
  row.a->Send(Numbered(row.a4, row.b4, 2, 600));
  net.Run(Millis(10));
  EXPECT_EQ(row.b->received.size(), 3u);
}

// Packets for hundreds of addresses where nobody is would wait for seconds in more frames than
// there are. Those for a neighbour that is known must not suffer.
TEST_F(ResourcesSimTest, FloodToUnknownNeighborsLeavesFramesForTheKnown) {
  SimRouter::Options options;
  options.frames = 1024;
  Row row(net, 1, options);
  row.Warm(net);
  constexpr uint32_t kPackets = 3000;
  for (uint32_t i = 0; i < kPackets; ++i) {
    net.After(Micros(100) * i, [&row, i] {
      row.a->Send(Numbered(row.a4, "10.0.1." + std::to_string(3 + i % 250), i));
      row.a->Send(Numbered(row.a4, row.b4, i));
    });
  }
  net.Run(Millis(400));
  SimRouter& r = row.first();
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(kPackets));
  EXPECT_EQ(r.LostForWantOfFrames(), 0u);
  EXPECT_GT(r.Dropped(DropReason::kNeighborQueueFull), 0u);
  EXPECT_GT(r.Held(), 500u);
  EXPECT_GE(r.FreeFrames(), 200u);
  net.Run(Seconds(4));
  EXPECT_EQ(r.Held(), 0u);
  EXPECT_EQ(r.FreeFrames() + FramesInFill(r), r.TotalFrames());
}

// More neighbours than the table has room for: named, and over when the old ones have failed.
TEST_F(ResourcesSimTest, FullNeighborTableIsCounted) {
  SimRouter::Options options;
  options.neighbor_limit = 16;
  Row row(net, 1, options);
  row.Warm(net);
  for (uint32_t i = 0; i < 40; ++i) {
    row.a->Send(Numbered(row.a4, "10.0.1." + std::to_string(100 + i), i));
  }
  row.a->Send(Numbered(row.a4, row.b4, 7));
  net.Run(Millis(100));
  EXPECT_GT(row.first().Dropped(DropReason::kNeighborTableFull), 20u);
  EXPECT_EQ(NumbersOf(row.b->received), std::vector<uint32_t>{7});
  net.Run(Seconds(5));
  row.b->AddAddress("10.0.1.200/24");
  row.a->Send(Numbered(row.a4, "10.0.1.200", 8));
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received).back(), 8u);
}

}  // namespace
}  // namespace sluice::test
