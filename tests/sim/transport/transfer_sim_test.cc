// Two stacks against each other over bad links. Every byte is compared, and afterwards nothing may be
// left: connections, segments, frames, timers. A failure prints its seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <ostream>
#include <string>

#include "support/bulk_transfer.h"

namespace sluice::test {
namespace {

uint64_t Seeds() {
  const char* text = std::getenv("SLUICE_SIM_SEEDS");
  return text == nullptr ? 12 : std::strtoull(text, nullptr, 10);
}

TEST(Transfer, GoodLink) {
  TransportLink link({});
  BulkTransfer bulk(link, 5'000'000);
  EXPECT_TRUE(bulk.Run(Seconds(60)));
  EXPECT_EQ(link.host(0).tcp().counters().segments_retransmitted.Read(), 0u);
  EXPECT_TRUE(NothingIsLeft(link));
}

TEST(Transfer, BothWaysAndV6) {
  TransportLink link({.v6 = true});
  BulkTransfer bulk(link, 2'000'000, 3'000'000);
  EXPECT_TRUE(bulk.Run(Seconds(60)));
  EXPECT_TRUE(NothingIsLeft(link));
}

struct Weather {
  const char* name;
  TransportLink::Quality quality;
  uint64_t bytes;
};

void PrintTo(const Weather& weather, std::ostream* out) { *out << weather.name; }

class BadLink : public testing::TestWithParam<Weather> {};

TEST_P(BadLink, DeliversEverythingAndLeavesNothing) {
  for (uint64_t seed = 1; seed <= Seeds(); ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    TransportLink::Options o;
    o.seed = seed;
    o.v6 = seed % 4 == 0;
    o.forward = o.backward = GetParam().quality;
    for (auto& host : o.hosts) {
      host.config.tcp.sack = seed % 5 != 1;
      host.config.tcp.timestamps = seed % 3 != 1;
      host.config.tcp.ecn = seed % 2 == 0 ? transport::EcnMode::kActive
                                          : transport::EcnMode::kPassive;
    }
    TransportLink link(o);
    transport::TcpSocketOptions options;
    if (seed % 2 == 1) options.congestion = transport::CongestionAlgorithm::kNewReno;
    BulkTransfer bulk(link, GetParam().bytes, seed % 3 == 0 ? GetParam().bytes / 2 : 0, options);
    EXPECT_TRUE(bulk.Run(Seconds(3000)))
        << bulk.server.received() << " received, client "
        << transport::Name(bulk.client.error) << ", server "
        << transport::Name(bulk.server.error);
    // An end that never heard of the other's death finds out by itself.
    link.Run(Seconds(1100));
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

INSTANTIATE_TEST_SUITE_P(
    All, BadLink,
    testing::Values(
        Weather{"Loss1Percent", {.loss = 100}, 500'000},
        Weather{"Loss10Percent", {.loss = 1000}, 200'000},
        Weather{"Reordering", {.reorder = 2000}, 500'000},
        Weather{"WildReordering", {.reorder = 5000, .reorder_delay = Millis(50)}, 300'000},
        Weather{"Duplication", {.duplicate = 2000}, 500'000},
        Weather{"Corruption", {.corrupt = 300}, 300'000},
        Weather{"Everything",
                {.loss = 300, .duplicate = 300, .reorder = 1000, .corrupt = 200}, 200'000},
        Weather{"Bottleneck", {.bits_per_second = 10'000'000, .queue_packets = 20}, 1'000'000},
        Weather{"BottleneckWithEcn",
                {.bits_per_second = 10'000'000, .queue_packets = 60, .mark_above = 15},
                1'000'000},
        Weather{"LongDelay", {.delay = Millis(300), .loss = 50}, 300'000},
        Weather{"NoDelay", {.delay = Nanos(1000), .loss = 100}, 500'000},
        Weather{"SmallMtuWithIcmp", {.mtu = 1300}, 300'000}),
    [](const auto& p) { return std::string(p.param.name); });

// A receive buffer of a few segments, and one smaller than a segment.
TEST(Transfer, TinyWindows) {
  for (const uint32_t buffer : {600u, 1460u, 3000u, 8000u}) {
    SCOPED_TRACE(buffer);
    TransportLink::Options o;
    o.forward.loss = o.backward.loss = 100;
    o.hosts[1].config.tcp.receive_buffer_initial = buffer;
    o.hosts[1].config.tcp.receive_buffer_max = buffer;
    TransportLink link(o);
    BulkTransfer bulk(link, 50'000);
    EXPECT_TRUE(bulk.Run(Seconds(3000)));
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// A reader that takes a little now and then: the window closes and opens, nothing is lost.
TEST(Transfer, SlowReader) {
  TransportLink::Options o;
  o.forward.loss = 50;
  o.hosts[1].config.tcp.receive_buffer_max = 32 * 1024;
  TransportLink link(o);
  BulkTransfer bulk(link, 400'000);
  bulk.server.slow = true;
  link.Run(Millis(500));
  for (int i = 0; i < 4000 && !bulk.server.closed; ++i) {
    link.Run(Millis(20));
    bulk.server.Pull(link.now(), 997);
  }
  EXPECT_TRUE(bulk.Run(Seconds(100)));
  EXPECT_TRUE(NothingIsLeft(link));
}

// RFC 4821's reason: large packets vanish without a word. Both ends find a size that passes.
TEST(Transfer, BlackHoleMtu) {
  for (const uint32_t mtu : {1200u, 700u}) {
    SCOPED_TRACE(mtu);
    TransportLink::Options o;
    o.forward.mtu = mtu;
    o.forward.icmp = false;
    TransportLink link(o);
    BulkTransfer bulk(link, 100'000);
    EXPECT_TRUE(bulk.Run(Seconds(100)));
    EXPECT_GE(link.host(0).tcp().counters().black_holes.Read(), 1u);
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// RFC 8899: after the black hole the search finds what the path carries, to within eight bytes, and no
// further timeout is needed for it.
TEST(Transfer, PathMtuIsFoundWithoutIcmp) {
  for (const bool v6 : {false, true}) {
    TransportLink::Options o;
    o.v6 = v6;
    o.forward.mtu = 1399;
    o.forward.icmp = false;
    TransportLink link(o);
    BulkTransfer bulk(link, 3'000'000);
    uint32_t found = 0;
    uint64_t timeouts = 0;
    while (!bulk.server.closed && link.Step(Seconds(100'000))) {
      link.host(0).tcp().ForEachConnection([&](const transport::Tcb& t) {
        if (t.path_probe.used && found == 0) timeouts = link.host(0).tcp().counters().timeouts.Read();
        if (t.path_probe.used) found = std::max(found, t.path_mtu);
      });
    }
    EXPECT_TRUE(bulk.Run(Seconds(100)));
    EXPECT_LE(found, 1399u);
    EXPECT_GT(found, 1399u - 8u);
    EXPECT_EQ(link.host(0).tcp().counters().timeouts.Read(), timeouts);
    EXPECT_EQ(link.host(0).tcp().counters().black_holes.Read(), 1u);
    EXPECT_TRUE(NothingIsLeft(link));
  }
}

// The path's MTU shrinks in mid-transfer, and the router says so: no timeout is needed.
TEST(Transfer, PathMtuShrinksInMidTransfer) {
  TransportLink link({});
  BulkTransfer bulk(link, 2'000'000);
  link.Run(Millis(100));
  link.quality(0).mtu = 1000;
  EXPECT_TRUE(bulk.Run(Seconds(100)));
  EXPECT_EQ(link.host(0).tcp().counters().timeouts.Read(), 0u);
  EXPECT_EQ(link.host(0).tcp().counters().path_mtu_changes.Read(), 1u);
}

// The other end vanishes: both give up by themselves, and leave nothing.
TEST(Transfer, PeerVanishes) {
  TransportLink link({});
  BulkTransfer bulk(link, 50'000'000);
  link.Run(Millis(300));
  link.filter = [](int, const auto&) { return false; };
  link.Run(Seconds(1000));
  EXPECT_EQ(bulk.client.error, transport::SocketError::kTimedOut);
  // The receiver has nothing to send, and would wait for ever.
  link.host(1).tcp().Abort(bulk.server.socket, link.now());
  EXPECT_TRUE(NothingIsLeft(link));
}

// Few frames: senders and receivers share what there is, and still finish.
TEST(Transfer, FewFrames) {
  TransportLink::Options o;
  for (auto& host : o.hosts) {
    host.frames = 64;
    host.config.tcp.limits.receive_frames = 24;
    host.config.tcp.limits.send_frames = 16;
    host.config.tcp.limits.segments = 32;
    host.config.tcp.limits.send_buffers = 16;
  }
  o.forward.loss = o.backward.loss = 100;
  TransportLink link(o);
  BulkTransfer bulk(link, 200'000, 200'000);
  EXPECT_TRUE(bulk.Run(Seconds(1000)));
  EXPECT_TRUE(NothingIsLeft(link));
}

// Windows grow with the path: 100 Mbit/s over 100 ms want more than the first 64 KiB.
TEST(Transfer, BuffersGrowWithThePath) {
  TransportLink::Options o;
  o.forward = {.delay = Millis(50), .bits_per_second = 100'000'000, .queue_packets = 1000};
  o.backward.delay = Millis(50);
  TransportLink link(o);
  BulkTransfer bulk(link, 30'000'000);
  EXPECT_TRUE(bulk.Run(Seconds(100)));
  EXPECT_LT(bulk.took, Seconds(6)) << bulk.took.seconds();
}

}  // namespace
}  // namespace sluice::test
