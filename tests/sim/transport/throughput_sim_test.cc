// What the stack makes of a path: fixed figures for fixed seeds, so that a change of the algorithms
// shows. The bounds are a tenth around what was measured; the formula beside each says that the
// order is right.
#include <gtest/gtest.h>

#include <ostream>
#include <string>

#include "support/bulk_transfer.h"

namespace sluice::test {
namespace {

double MegabitsPerSecond(TransportLink::Quality forward, uint64_t bytes,
                         transport::CongestionAlgorithm algorithm,
                         transport::EcnMode ecn = transport::EcnMode::kPassive) {
  TransportLink::Options o;
  o.forward = forward;
  o.backward.delay = forward.delay;
  for (auto& host : o.hosts) {
    host.frames = 16384;
    host.config.tcp.ecn = ecn;
  }
  TransportLink link(o);
  transport::TcpSocketOptions options;
  options.congestion = algorithm;
  BulkTransfer bulk(link, bytes, 0, options);
  EXPECT_TRUE(bulk.Run(Seconds(3000)));
  return static_cast<double>(bytes) * 8 / bulk.took.seconds() / 1e6;
}

struct Row {
  const char* name;
  TransportLink::Quality path;
  uint64_t bytes;
  double cubic;
  double new_reno;
};

void PrintTo(const Row& row, std::ostream* out) { *out << row.name; }

class Throughput : public testing::TestWithParam<Row> {};

TEST_P(Throughput, IsWhatItWas) {
  const Row& row = GetParam();
  const double cubic =
      MegabitsPerSecond(row.path, row.bytes, transport::CongestionAlgorithm::kCubic);
  const double reno =
      MegabitsPerSecond(row.path, row.bytes, transport::CongestionAlgorithm::kNewReno);
  EXPECT_NEAR(cubic, row.cubic, row.cubic / 10) << "CUBIC";
  EXPECT_NEAR(reno, row.new_reno, row.new_reno / 10) << "NewReno";
}

INSTANTIATE_TEST_SUITE_P(
    Golden, Throughput,
    testing::Values(
        // A LAN, a broadband line, a long fat path; then losses that no queue causes.
        Row{"Lan1G", {.delay = Micros(50), .bits_per_second = 1'000'000'000, .queue_packets = 200},
            50'000'000, 965, 965},
        Row{"Line50M20ms", {.delay = Millis(10), .bits_per_second = 50'000'000,
                            .queue_packets = 85}, 20'000'000, 46.9, 46.9},
        Row{"Line50M20msShallow", {.delay = Millis(10), .bits_per_second = 50'000'000,
                                   .queue_packets = 10}, 20'000'000, 36.6, 37.5},
        Row{"LongFat200M100ms", {.delay = Millis(50), .bits_per_second = 200'000'000,
                                 .queue_packets = 800}, 100'000'000, 131, 108.6},
        Row{"Loss01Percent20ms", {.delay = Millis(10), .bits_per_second = 100'000'000,
                                  .queue_packets = 200, .loss = 10}, 20'000'000, 60.4, 34},
        Row{"Loss1Percent20ms", {.delay = Millis(10), .bits_per_second = 100'000'000,
                                 .queue_packets = 200, .loss = 100}, 5'000'000, 7.63, 6.32},
        Row{"Reordering20ms", {.delay = Millis(10), .bits_per_second = 100'000'000,
                               .queue_packets = 200, .reorder = 300,
                               .reorder_delay = Millis(4)}, 20'000'000, 88.5, 89.6}),
    [](const auto& p) { return std::string(p.param.name); });

// Pacing: bursts that would overflow a shallow queue are spread out.
TEST(Pacing, ShallowQueue) {
  double rate[2];
  for (const bool paced : {false, true}) {
    TransportLink::Options o;
    o.forward = {.delay = Millis(10), .bits_per_second = 50'000'000, .queue_packets = 10};
    o.backward.delay = Millis(10);
    TransportLink link(o);
    transport::TcpSocketOptions options;
    options.pacing = paced;
    BulkTransfer bulk(link, 20'000'000, 0, options);
    EXPECT_TRUE(bulk.Run(Seconds(100)));
    rate[paced] = 160 / bulk.took.seconds();
  }
  EXPECT_GT(rate[1], rate[0]);
  EXPECT_NEAR(rate[1], 40.0, 4.0);
}

// ECN: no loss at all where marks come before the queue is full.
TEST(Ecn, MarksInsteadOfLosses) {
  TransportLink::Options o;
  o.forward = {.delay = Millis(10), .bits_per_second = 50'000'000, .queue_packets = 400,
               .mark_above = 40};
  for (auto& host : o.hosts) host.config.tcp.ecn = transport::EcnMode::kActive;
  TransportLink link(o);
  BulkTransfer bulk(link, 30'000'000);
  EXPECT_TRUE(bulk.Run(Seconds(100)));
  EXPECT_EQ(link.lost_in_queue(), 0u);
  EXPECT_EQ(link.host(0).tcp().counters().segments_retransmitted.Read(), 0u);
  EXPECT_GE(link.host(0).tcp().counters().ecn_reductions.Read(), 1u);
  EXPECT_GT(30.0 * 8 / bulk.took.seconds(), 42.0);
}

// Reordering up to a quarter of the RTT causes no needless retransmissions once it has been seen
// (RFC 8985 section 4).
TEST(Rfc8985, ReorderingIsNotTakenForLoss) {
  TransportLink::Options o;
  o.forward = {.delay = Millis(10), .reorder = 500, .reorder_delay = Millis(4)};
  TransportLink link(o);
  BulkTransfer bulk(link, 10'000'000);
  EXPECT_TRUE(bulk.Run(Seconds(100)));
  EXPECT_EQ(link.host(0).tcp().counters().timeouts.Read(), 0u);
  EXPECT_LE(link.host(0).tcp().counters().segments_retransmitted.Read(), 30u);
}

// Two connections over one bottleneck share it (Jain's index).
TEST(Fairness, TwoConnectionsShareABottleneck) {
  TransportLink::Options o;
  o.forward = {.delay = Millis(10), .bits_per_second = 20'000'000, .queue_packets = 60};
  TransportLink link(o);
  BulkTransfer a(link, 1'000'000'000, 0, {}, 80);
  link.Run(Seconds(3));
  BulkTransfer b(link, 1'000'000'000, 0, {}, 81);
  link.Run(Seconds(30));
  const uint64_t a0 = a.server.received();
  const uint64_t b0 = b.server.received();
  link.Run(Seconds(60));
  const auto x = static_cast<double>(a.server.received() - a0);
  const auto y = static_cast<double>(b.server.received() - b0);
  EXPECT_GT((x + y) * (x + y) / (2 * (x * x + y * y)), 0.9) << x << " and " << y;
  EXPECT_GT((x + y) * 8 / 60 / 1e6, 17.0);
}

}  // namespace
}  // namespace sluice::test
