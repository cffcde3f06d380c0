// Nothing is allocated once the stack is there: connecting, sending, receiving and closing, with every
// operator new counted. And what a connection costs in memory.
#include <gtest/gtest.h>

#include "examples/echo_server.h"
#include "support/count_allocations.h"
#include "support/memory_link.h"
#include "support/transport_host.h"

namespace sluice::test {
namespace {

TEST(Allocation, NoneAfterConstruction) {
  MemoryLink link;
  Discard sink(link.tcp(1));
  examples::EchoServer echo(link.tcp(1));
  Source source(link.tcp(0));
  OneRequest client(link.tcp(0), 500);
  transport::TcpListenerId id;
  link.tcp(1).Listen({Ipv4(), 9}, {}, 16, &sink, id);
  echo.Listen({Ipv4(), 7});
  const uint64_t before = Allocations();
  transport::TcpSocket s;
  ASSERT_EQ(link.tcp(0).Connect({}, {link.address(1), 9}, {}, &source, link.now(), s),
            transport::SocketError::kNone);
  for (int i = 0; i < 150; ++i) {
    transport::TcpSocket short_lived;
    ASSERT_EQ(link.tcp(0).Connect({}, {link.address(1), 7}, {}, &client, link.now(), short_lived),
              transport::SocketError::kNone);
    for (int round = 0; round < 5; ++round) link.Round();
  }
  link.tcp(0).Abort(s, link.now());
  link.Settle();
  EXPECT_EQ(Allocations(), before);
  EXPECT_GT(sink.bytes, 10'000'000u);
  EXPECT_EQ(client.answers, 150);
  for (int i = 0; i < 200; ++i) link.Wait(Seconds(1));
  EXPECT_EQ(link.tcp(0).usage().connections, 0u);
  EXPECT_EQ(link.tcp(1).usage().connections, 0u);
  EXPECT_TRUE(link.FramesAreBack());
}

// What a stack for 8000 connections allocates more than one for 4000, per connection: the control block,
// places in the table, in the wheel, and in the ring of events.
TEST(Allocation, AnIdleConnectionTakesLessThanTwoKilobytes) {
  const auto bytes_for = [](uint32_t connections) {
    TransportHost::Options o;
    o.address = *ParseIpAddress("10.0.0.1");
    o.config.tcp.limits.connections = connections;
    const uint64_t before = AllocatedBytes();
    TransportHost host(o);
    return AllocatedBytes() - before;
  };
  bytes_for(1000);
  const uint64_t per_connection = (bytes_for(8192) - bytes_for(4096)) / 4096;
  RecordProperty("bytes_per_idle_connection", static_cast<int>(per_connection));
  EXPECT_GT(per_connection, sizeof(transport::Tcb));
  EXPECT_LE(per_connection, 1536u);
}

// ... and an idle connection has nothing else: no frame, no segment, no range.
TEST(Allocation, AnIdleConnectionHoldsNothing) {
  MemoryLink link;
  examples::EchoServer echo(link.tcp(1));
  echo.Listen({Ipv4(), 7});
  OneRequest client(link.tcp(0), 500);
  client.close_after_answer = false;
  for (int i = 0; i < 20; ++i) {
    transport::TcpSocket s;
    ASSERT_EQ(link.tcp(0).Connect({}, {link.address(1), 7}, {}, &client, link.now(), s),
              transport::SocketError::kNone);
  }
  link.Settle();
  link.Wait(Seconds(1));
  EXPECT_EQ(client.answers, 20);
  for (int end : {0, 1}) {
    const transport::TcpUsage usage = link.tcp(end).usage();
    EXPECT_EQ(usage.connections, 20u);
    EXPECT_EQ(usage.segments + usage.send_pieces + usage.send_frames + usage.receive_frames +
                  usage.ranges + usage.timers, 0u);
  }
}

}  // namespace
}  // namespace sluice::test
