// An attachment to one end of a veth pair, with the frames of a small arena and a raw socket at the
// other end.
#ifndef SLUICE_TESTS_UNIT_IO_AF_XDP_PORT_FIXTURE_H_
#define SLUICE_TESTS_UNIT_IO_AF_XDP_PORT_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "io/af_xdp/attachment.h"
#include "support/net_sandbox.h"
#include "support/packet_builder.h"

namespace sluice::io::af_xdp {

inline constexpr uint32_t kFrames = 8192;
inline const char kNearMac[] = "02:00:00:00:00:01";
inline const char kFarMac[] = "02:00:00:00:00:02";

// `size` bytes of Ethernet frame to the near end, numbered.
inline test::Bytes NumberedFrame(uint16_t number, size_t size) {
  const size_t headers = 14 + 20 + 8;
  return test::PacketBuilder()
      .Ethernet(kFarMac, kNearMac)
      .Ipv4("10.0.0.2", "10.9.0.1")
      .Id(number)
      .Udp(number, 9)
      .Payload(size - headers)
      .Build();
}

inline test::Bytes BytesOf(const packet::FrameArena& arena, const packet::Packet& p) {
  test::Bytes bytes(p.length);
  packet::CopyOut(arena, p, 0, bytes.data(), p.length);
  return bytes;
}

class PortFixture : public ::testing::Test {
 protected:
  explicit PortFixture(uint32_t chunk_size = 2048)
      : arena_(packet::FrameArena::Create(kFrames, chunk_size)), pool_(*arena_) {
    test::EnterSandbox();
    for (packet::FrameIndex i = 0; i < kFrames; ++i) pool_.Free(i);
  }
  void TearDown() override {
    if (attachment_) attachment_->Close(pool_);
    EXPECT_EQ(pool_.size(), kFrames) << "every frame comes back";
  }

  static InterfaceAttachment::Options DefaultOptions(const std::string& name) {
    InterfaceAttachment::Options options;
    options.name = name;
    options.slot = IfaceSlot{3};
    options.rings = {.fill = 1024, .receive = 512, .transmit = 512, .completion = 1024};
    return options;
  }
  void Open(const InterfaceAttachment::Options& options) {
    auto opened = InterfaceAttachment::Open(options, *arena_, pool_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    attachment_ = *std::move(opened);
    attachment_->SetEnabled(true);
  }
  AfXdpPort& port(uint16_t queue = 0) { return attachment_->port(QueueId{queue}); }

  // Frames everywhere they can be, when the caller has none.
  uint32_t AllFrames() {
    uint32_t sum = pool_.size();
    for (size_t q = 0; attachment_ && q < attachment_->queue_count(); ++q) {
      sum += port(static_cast<uint16_t>(q)).frames_in_fill();
      sum += port(static_cast<uint16_t>(q)).frames_in_tx();
    }
    return sum;
  }
  // Receives `count` packets, or what has come within ten seconds.
  std::vector<packet::Packet> Receive(size_t count, uint16_t queue = 0) {
    std::vector<packet::Packet> all;
    test::Eventually([&] {
      packet::Packet burst[64];
      const size_t n = port(queue).RxBurst(burst, pool_, counters_);
      all.insert(all.end(), burst, burst + n);
      port(queue).Flush(pool_, counters_);
      return all.size() >= count;
    });
    return all;
  }
  void FreeAll(const std::vector<packet::Packet>& packets) {
    for (const packet::Packet& p : packets) packet::FreePacket(pool_, p);
  }
  // Flushes until the kernel has completed all that was sent.
  bool FlushAll(uint16_t queue = 0) {
    return test::Eventually([&] {
      port(queue).Flush(pool_, counters_);
      return port(queue).frames_in_tx() == 0;
    });
  }
  uint64_t TxErrors(TxError kind) const {
    return counters_.tx_errors[static_cast<size_t>(kind)].Read();
  }

  std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  InterfaceCounters counters_;
  std::unique_ptr<InterfaceAttachment> attachment_;
};

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_TESTS_UNIT_IO_AF_XDP_PORT_FIXTURE_H_
