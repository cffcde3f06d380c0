// Nothing is allocated once the stack is there: connecting, sending, receiving and closing, with every
// operator new counted. And what a connection costs in memory.
#include <gtest/gtest.h>

#include "examples/echo_server.h"
#include "support/count_allocations.h"
#include "support/memory_link.h"

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

// An idle connection: its control block, its place in the table (at most half full), in the wheel, and
// in the ring of events.
TEST(Allocation, AnIdleConnectionTakesLessThanOneKilobyteAndAHalf) {
  EXPECT_LE(sizeof(transport::Tcb) + 4 * 8 + 16 + 4 + 4, 1536u) << sizeof(transport::Tcb);
}

}  // namespace
}  // namespace sluice::test
