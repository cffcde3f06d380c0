// Records and low-water marks over bad links: what holds for each segment, and that nobody waits for ever.
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/byte_order.h"
#include "support/bulk_transfer.h"

namespace sluice::test {
namespace {

TransportLink::Options BadLink(uint64_t seed) {
  TransportLink::Options o;
  o.seed = seed;
  o.forward.loss = o.backward.loss = 150;
  o.forward.reorder = 300;
  o.forward.bits_per_second = 20'000'000;
  o.forward.queue_packets = 40;
  return o;
}

// No segment has data of two records: not when it is first sent, not when it is sent again, not when the
// path's MTU falls, and not when it is searched for.
TEST(Records, NoSegmentHasDataOfTwo) {
  int probes = 0;
  int retransmitted = 0;
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TransportLink::Options o = BadLink(seed);
    o.forward.icmp = false;
    TransportLink link(o);
    transport::TcpSocketOptions options;
    options.pacing = seed % 2 == 0;
    options.no_delay = seed % 3 == 0;
    BulkTransfer bulk(link, 500'000, 0, options);
    transport::Tcp& tcp = link.host(0).tcp();
    Rng rng(seed);
    std::vector<uint64_t> ends;
    bulk.client.on_sent = [&](uint64_t sent) {
      if (rng.Chance(1, 2)) return;
      ends.push_back(sent);
      ASSERT_EQ(tcp.EndRecord(bulk.client.socket), transport::SocketError::kNone);
    };
    int wrong = 0;
    link.filter = [&](int from, const TransportLink::Bytes& packet) {
      const transport::Tcb* const t = bulk.tcb();
      if (from != 0 || t == nullptr) return true;
      const size_t header = 20 + (packet[32] >> 4) * size_t{4};
      if (packet.size() == header) return true;
      const uint64_t begin = LoadBe32(&packet[24]) - (t->iss + 1).value();
      const uint64_t end = begin + packet.size() - header;
      const auto next = std::upper_bound(ends.begin(), ends.end(), begin);
      if (next != ends.end() && *next < end) ++wrong;
      return true;
    };
    link.RunUntil([&] { return bulk.client.socket.valid() && link.packets(0) > 100; }, Seconds(100));
    link.quality(0).mtu = 1100;  // a black hole, from now on
    link.RunUntil([&] { return link.packets(0) > 300; }, Seconds(100));
    link.quality(0).mtu = 1500;
    EXPECT_TRUE(bulk.Run(Seconds(2000)));
    EXPECT_EQ(wrong, 0);
    EXPECT_GT(ends.size(), 20u);
    probes += static_cast<int>(tcp.counters().path_probes.Read());
    retransmitted += static_cast<int>(tcp.counters().segments_retransmitted.Read());
    link.filter = nullptr;
    link.Run(Seconds(200));
    EXPECT_TRUE(NothingIsLeft(link));
  }
  EXPECT_GT(probes, 12);
  EXPECT_GT(retransmitted, 100);
}

// With any mark, and little memory besides, all data arrives in the end.
TEST(LowWater, NobodyWaitsForEver) {
  for (uint64_t seed = 1; seed <= 24; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Rng rng(seed);
    TransportLink::Options o = BadLink(seed);
    if (seed % 4 == 0) {
      for (auto& host : o.hosts) host.config.tcp.limits.send_frames = 80;
    }
    TransportLink link(o);
    transport::TcpSocketOptions options;
    options.not_sent_low_water = static_cast<uint32_t>(1 + rng.Below(seed % 2 == 0 ? 1000 : 100'000));
    options.pacing = seed % 3 == 0;
    BulkTransfer bulk(link, 500'000, 0, options);
    EXPECT_TRUE(bulk.Run(Seconds(500)));
    link.Run(Seconds(200));
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// What the mark is for: what is written last goes soon, also over a link whose window is large. Here
// the program marks what it writes, and looks how much stands in front of it.
TEST(LowWater, KeepsTheQueueShort) {
  const auto most_unsent = [](uint32_t mark) {
    TransportLink::Options o;
    o.forward.bits_per_second = 20'000'000;
    TransportLink link(o);
    BulkTransfer bulk(link, 4'000'000, 0, {.not_sent_low_water = mark});
    uint32_t most = 0;
    bulk.client.on_sent = [&](uint64_t) { most = std::max(most, bulk.tcb()->Unsent()); };
    EXPECT_TRUE(bulk.Run(Seconds(100)));
    return most;
  };
  EXPECT_LE(most_unsent(20'000), 64u * 1024);
  EXPECT_GT(most_unsent(0), 100'000u);
}

}  // namespace
}  // namespace sluice::test
