#include "io/af_xdp/port.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "unit/io/af_xdp/port_fixture.h"

namespace sluice::io::af_xdp {
namespace {

using test::Bytes;
using test::RawSocket;
using test::VethPair;

class PortTest : public PortFixture {
 protected:
  static uint32_t CountFrames(const std::vector<packet::Packet>& packets) {
    uint32_t sum = 0;
    for (const packet::Packet& p : packets) sum += p.segment_count;
    return sum;
  }
};

TEST_F(PortTest, DeliversFramesInOrderAndUnchanged) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  for (uint16_t round = 0; round < 20; ++round) {  // several laps of every ring
    for (uint16_t i = 0; i < 100; ++i) {
      ASSERT_TRUE(peer.Send(NumberedFrame(static_cast<uint16_t>(round * 100 + i), 60 + i * 10)));
    }
    const auto packets = Receive(100);
    ASSERT_EQ(packets.size(), 100u);
    for (uint16_t i = 0; i < 100; ++i) {
      EXPECT_EQ(BytesOf(*arena_, packets[i]),
                NumberedFrame(static_cast<uint16_t>(round * 100 + i), 60 + i * 10));
      EXPECT_EQ(packets[i].in, IfaceSlot{3});
      EXPECT_EQ(packets[i].segment_count, 1);
      EXPECT_GE(arena_->OffsetOf(packets[i].data) % arena_->chunk_size(), packet::kHeadroom);
    }
    EXPECT_EQ(AllFrames() + packets.size(), kFrames);
    FreeAll(packets);
  }
}

TEST_F(PortTest, SendsFramesBack) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  std::multiset<Bytes> sent;
  std::multiset<Bytes> echoed;
  for (uint16_t round = 0; round < 20; ++round) {
    for (uint16_t i = 0; i < 100; ++i) {
      const Bytes frame = NumberedFrame(static_cast<uint16_t>(round * 100 + i), 60 + i * 10);
      sent.insert(frame);
      ASSERT_TRUE(peer.Send(frame));
    }
    auto packets = Receive(100);
    ASSERT_EQ(port().TxBurst(packets, pool_), 100u);
    ASSERT_TRUE(FlushAll());
    for (uint16_t i = 0; i < 100; ++i) {
      const auto frame = peer.Receive();
      ASSERT_TRUE(frame.has_value());
      echoed.insert(*frame);
    }
    EXPECT_EQ(AllFrames(), kFrames);
  }
  EXPECT_EQ(sent, echoed);
  EXPECT_EQ(TxErrors(TxError::kBusy), 0u);
}

// 900 frames at once are more than a veth queue holds (256): what the far end has no room for is
// counted, and every frame comes back.
TEST_F(PortTest, CountsWhatAFullPeerDrops) {
  VethPair veth("near", "far");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.rings.transmit = 1024;
  options.rings.completion = 2048;
  Open(options);
  InterfaceAttachment::Options far_options = DefaultOptions("far");
  far_options.fill_target = 64;  // of which the peer receives 64 frames, and no more
  auto far = InterfaceAttachment::Open(far_options, *arena_, pool_);
  ASSERT_TRUE(far.ok()) << far.status();
  (*far)->SetEnabled(true);
  std::vector<packet::Packet> packets(900);
  for (size_t i = 0; i < packets.size(); ++i) {
    const Bytes frame = NumberedFrame(static_cast<uint16_t>(i), 1000);
    packets[i].frame = pool_.Alloc();
    packets[i].data = arena_->Chunk(packets[i].frame) + packet::kHeadroom;
    packets[i].length = 1000;
    packets[i].segment_length = 1000;
    std::copy(frame.begin(), frame.end(), packets[i].data);
    packets[i].data[0] = 2;
    packets[i].data[5] = 2;  // to the far end
  }
  ASSERT_EQ(port().TxBurst(packets, pool_), 900u);
  EXPECT_EQ(port().frames_in_tx(), 900u);
  EXPECT_TRUE(FlushAll());
  const auto statistics = (*far)->Describe().statistics;
  EXPECT_EQ((*far)->port(QueueId{0}).frames_in_fill(), 64u);
  EXPECT_EQ(statistics.rx_dropped + 64 + TxErrors(TxError::kBusy), 900u);
  EXPECT_EQ(statistics.tx_invalid, 0u);
  (*far)->Close(pool_);
}

TEST_F(PortTest, TakesNoMoreThanTheRingHolds) {
  VethPair veth("near", "far");
  test::Shell("ip link set dev near down");  // nothing leaves
  Open(DefaultOptions("near"));
  std::vector<packet::Packet> packets(600);
  for (packet::Packet& p : packets) {
    p.frame = pool_.Alloc();
    p.data = arena_->Chunk(p.frame) + packet::kHeadroom;
    p.length = p.segment_length = 60;
  }
  EXPECT_EQ(port().TxBurst(packets, pool_), 512u);
  EXPECT_EQ(port().TxBurst(std::span(packets).subspan(512), pool_), 0u);
  for (size_t i = 512; i < 600; ++i) packet::FreePacket(pool_, packets[i]);
  port().Flush(pool_, counters_);
  EXPECT_TRUE(port().down());
  EXPECT_FALSE(port().dead());
  EXPECT_EQ(TxErrors(TxError::kDown), 1u);
  EXPECT_EQ(port().frames_in_tx(), 512u);
  EXPECT_TRUE(port().HasUnsentTx());
  EXPECT_EQ(AllFrames(), kFrames);
  // What waits leaves once the link is up.
  test::Shell("ip link set dev near up");
  EXPECT_TRUE(FlushAll());
  EXPECT_FALSE(port().down());
  EXPECT_FALSE(port().HasUnsentTx());
}

// The kernel would throw these away without ever giving the frames back.
TEST_F(PortTest, DiscardsWhatCannotBeSent) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  std::vector<packet::Packet> packets(3);
  for (packet::Packet& p : packets) {
    p.frame = pool_.Alloc();
    p.data = arena_->Chunk(p.frame) + packet::kHeadroom;
    p.length = p.segment_length = 60;
  }
  packets[0].segment_length = 0;
  packets[1].segment_length = 2048 - packet::kHeadroom + 1;
  EXPECT_EQ(port().TxBurst(packets, pool_), 3u);
  EXPECT_TRUE(FlushAll());
  EXPECT_EQ(TxErrors(TxError::kOther), 2u);
  EXPECT_EQ(attachment_->Describe().statistics.tx_invalid, 0u);
}

// All that is in the rings when a port closes comes back (TearDown counts): frames to receive into,
// received and not taken, sent and not completed, and a jumbo frame of which half was taken.
TEST_F(PortTest, CloseReturnsFramesFromAllRings) {
  VethPair veth("near", "far", "mtu 9000");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  for (uint16_t i = 0; i < 50; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
  auto packets = Receive(50);
  ASSERT_EQ(packets.size(), 50u);
  ASSERT_EQ(port().TxBurst(packets, pool_), 50u);  // never flushed
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 9000)));
  packet::Packet two[2];
  // Sending runs the receiver's side of a veth: the frame is there. Two of its six pieces:
  const uint32_t before = port().frames_in_fill();
  EXPECT_EQ(port().RxBurst(two, pool_, counters_), 0u);
  EXPECT_EQ(port().frames_in_fill(), before);
  for (uint16_t i = 0; i < 50; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
  EXPECT_EQ(port().frames_in_tx(), 50u);
  EXPECT_EQ(AllFrames(), kFrames);
}

TEST_F(PortTest, ReceivesAgainAfterTheFillRingRanDry) {
  VethPair veth("near", "far");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.fill_target = 16;
  Open(options);
  RawSocket peer("far");
  for (uint16_t i = 0; i < 100; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
  const auto first = Receive(16);
  ASSERT_EQ(first.size(), 16u);
  EXPECT_GT(attachment_->Describe().statistics.rx_dropped, 0u);
  FreeAll(first);
  ASSERT_TRUE(peer.Send(NumberedFrame(500, 60)));
  const auto next = Receive(1);
  ASSERT_EQ(next.size(), 1u);
  EXPECT_EQ(BytesOf(*arena_, next[0]), NumberedFrame(500, 60));
  FreeAll(next);
}

TEST_F(PortTest, DiesWithTheInterface) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  for (uint16_t i = 0; i < 10; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 60)));
  auto packets = Receive(10);
  ASSERT_EQ(port().TxBurst(std::span(packets).first(5), pool_), 5u);
  EXPECT_FALSE(port().dead());
  veth.Remove();
  port().Flush(pool_, counters_);  // ENXIO
  EXPECT_TRUE(port().dead());
  EXPECT_TRUE(attachment_->dead());
  EXPECT_EQ(TxErrors(TxError::kDown), 1u);
  EXPECT_EQ(port().TxBurst(std::span(packets).subspan(5), pool_), 0u);
  FreeAll({packets.begin() + 5, packets.end()});
}

// poll() says nothing about it.
TEST_F(PortTest, CheckAliveFindsADeadPort) {
  VethPair veth("near", "far");
  Open(DefaultOptions("near"));
  port().CheckAlive();
  EXPECT_FALSE(port().dead());
  veth.Remove();
  port().CheckAlive();
  EXPECT_TRUE(port().dead());
}

TEST_F(PortTest, FramesOfMtu3500) {
  VethPair veth("near", "far", "mtu 3500");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  for (uint16_t i = 0; i < 50; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 3514)));
  auto packets = Receive(50);
  ASSERT_EQ(packets.size(), 50u);
  for (uint16_t i = 0; i < 50; ++i) {
    EXPECT_EQ(packets[i].segment_count, 2);
    EXPECT_EQ(BytesOf(*arena_, packets[i]), NumberedFrame(i, 3514));
  }
  FreeAll(packets);
}

// 4096-byte chunks hold such a frame in one piece.
class BigChunkTest : public PortFixture {
 protected:
  BigChunkTest() : PortFixture(4096) {}
};

TEST_F(BigChunkTest, FramesOfMtu3500) {
  VethPair veth("near", "far", "mtu 3500");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 3514)));
  const auto packets = Receive(1);
  ASSERT_EQ(packets.size(), 1u);
  EXPECT_EQ(packets[0].segment_count, 1);
  EXPECT_EQ(BytesOf(*arena_, packets[0]), NumberedFrame(1, 3514));
  FreeAll(packets);
}

// Small polls, so that the pieces of one packet come in several of them.
TEST_F(PortTest, JumboFramesOverSeveralPollsAndBack) {
  VethPair veth("near", "far", "mtu 9000");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  for (uint16_t round = 0; round < 30; ++round) {
    std::vector<Bytes> sent;
    for (uint16_t i = 0; i < 10; ++i) {
      sent.push_back(NumberedFrame(i, i % 3 == 0 ? 60 : 9014 - i));
      ASSERT_TRUE(peer.Send(sent.back()));
    }
    std::vector<packet::Packet> packets;
    ASSERT_TRUE(test::Eventually([&] {
      packet::Packet burst[4];
      const size_t n = port().RxBurst(burst, pool_, counters_);
      EXPECT_EQ(AllFrames() + CountFrames(packets) + CountFrames({burst, burst + n}), kFrames);
      packets.insert(packets.end(), burst, burst + n);
      port().Flush(pool_, counters_);
      return packets.size() >= 10;
    }));
    for (size_t i = 0; i < 10; ++i) EXPECT_EQ(BytesOf(*arena_, packets[i]), sent[i]);
    EXPECT_EQ(packets[1].segment_count, 6);
    ASSERT_EQ(port().TxBurst(packets, pool_), 10u);
    ASSERT_TRUE(FlushAll());
    for (size_t i = 0; i < 10; ++i) {
      const auto frame = peer.Receive();
      ASSERT_TRUE(frame.has_value());
      EXPECT_EQ(*frame, sent[i]);
    }
  }
}

TEST_F(PortTest, MultiSegmentPacketsAreTakenWholeOrNotAtAll) {
  VethPair veth("near", "far", "mtu 9000");
  InterfaceAttachment::Options options = DefaultOptions("near");
  options.rings.transmit = 16;
  Open(options);
  RawSocket peer("far");
  for (uint16_t i = 0; i < 3; ++i) ASSERT_TRUE(peer.Send(NumberedFrame(i, 9000)));
  auto packets = Receive(3);
  ASSERT_EQ(packets.size(), 3u);
  EXPECT_EQ(port().TxBurst(packets, pool_), 2u);  // of six pieces each
  EXPECT_EQ(port().frames_in_tx(), 12u);
  ASSERT_TRUE(FlushAll());
  EXPECT_EQ(port().TxBurst(std::span(packets).subspan(2), pool_), 1u);
  ASSERT_TRUE(FlushAll());
}

TEST_F(PortTest, TooManySegmentsAreCountedAndTheNextPacketIsWhole) {
  VethPair veth("near", "far", "mtu 60000");
  Open(DefaultOptions("near"));
  RawSocket peer("far");
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 18 * 1792)));
  ASSERT_TRUE(peer.Send(NumberedFrame(2, 18 * 1792 + 1)));
  ASSERT_TRUE(peer.Send(NumberedFrame(3, 50000)));
  ASSERT_TRUE(peer.Send(NumberedFrame(4, 60)));
  const auto packets = Receive(2);
  ASSERT_EQ(packets.size(), 2u);
  EXPECT_EQ(packets[0].segment_count, 18);
  EXPECT_EQ(BytesOf(*arena_, packets[0]), NumberedFrame(1, 18 * 1792));
  EXPECT_EQ(BytesOf(*arena_, packets[1]), NumberedFrame(4, 60));
  const auto dropped = static_cast<size_t>(DropReason::kTooManySegments);
  EXPECT_EQ(counters_.dropped_packets[dropped].Read(), 2u);
  EXPECT_EQ(counters_.received_packets.Read(), 2u);
  EXPECT_EQ(counters_.received_bytes.Read(), 18u * 1792 + 1 + 50000);
  FreeAll(packets);
}

// What is sent on a queue arrives on the same queue of a veth's other end.
TEST_F(PortTest, TwoQueues) {
  VethPair veth("near", "far", "", 2);
  Open(DefaultOptions("near"));
  ASSERT_EQ(attachment_->queue_count(), 2u);
  auto far = InterfaceAttachment::Open(DefaultOptions("far"), *arena_, pool_);
  ASSERT_TRUE(far.ok()) << far.status();
  (*far)->SetEnabled(true);
  for (uint16_t q = 0; q < 2; ++q) {
    std::vector<packet::Packet> packets(10);
    for (uint16_t i = 0; i < 10; ++i) {
      const Bytes frame = NumberedFrame(static_cast<uint16_t>(q * 100 + i), 60);
      packets[i].frame = pool_.Alloc();
      packets[i].data = arena_->Chunk(packets[i].frame) + packet::kHeadroom;
      packets[i].length = packets[i].segment_length = 60;
      std::copy(frame.begin(), frame.end(), packets[i].data);
    }
    AfXdpPort& sender = (*far)->port(QueueId{q});
    ASSERT_EQ(sender.TxBurst(packets, pool_), 10u);
    sender.Flush(pool_, counters_);
    const auto received = Receive(10, q);
    ASSERT_EQ(received.size(), 10u);
    for (uint16_t i = 0; i < 10; ++i) {
      EXPECT_EQ(BytesOf(*arena_, received[i]),
                NumberedFrame(static_cast<uint16_t>(q * 100 + i), 60));
    }
    FreeAll(received);
  }
  (*far)->Close(pool_);
}

}  // namespace
}  // namespace sluice::io::af_xdp
