// Per connection, session, request and packet nothing is allocated.
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "support/count_allocations.h"
#include "support/memory_services.h"

namespace sluice::test {
namespace {

using tables::ServiceKind;
using transport::SocketError;

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

TEST(ServiceAllocation, NoneForConnections) {
  MemoryServices world;
  world.Proxy(ServiceKind::kTcpProxy, 80);
  world.Proxy(ServiceKind::kEcho, 1007);
  OneRequest client(world.tcp(), 500);
  const uint64_t before = Allocations();
  for (int i = 0; i < 200; ++i) {
    for (const uint16_t port : {80, 1007}) {
      transport::TcpSocket s;
      ASSERT_EQ(world.tcp().Connect({}, {world.link().address(1), port}, {}, &client,
                                    world.link().now(), s),
                SocketError::kNone);
    }
    world.Settle();
  }
  EXPECT_EQ(Allocations(), before);
  EXPECT_EQ(client.answers, 400);
  for (int i = 0; i < 200; ++i) world.Wait(Seconds(1));
  EXPECT_EQ(world.set().usage().relays, 0u);
  EXPECT_EQ(world.set().usage().endpoint_connections, 0u);
  EXPECT_EQ(world.link().tcp(0).usage().connections, 0u);
  EXPECT_EQ(world.link().tcp(1).usage().connections, 0u);
  EXPECT_TRUE(world.link().FramesAreBack());
}

TEST(ServiceAllocation, NoneForUdpSessions) {
  MemoryServices world({}, {.udp_sessions = 100});
  world.Proxy(ServiceKind::kUdpProxy, 53);
  UdpCounter client(world.udp());
  const uint64_t before = Allocations();
  for (int i = 0; i < 1000; ++i) {
    transport::UdpSocket s;
    ASSERT_EQ(world.udp().Bind({}, &client, s), SocketError::kNone);
    for (int n = 0; n < 2; ++n) {
      world.udp().SendTo(s, {world.link().address(1), 53}, Bytes("query"), world.link().now());
      world.Settle();
    }
    world.udp().Close(s);
  }
  EXPECT_EQ(Allocations(), before);
  EXPECT_EQ(client.received, 2000);
  EXPECT_EQ(world.set().usage().udp_sessions, 100u);
}

TEST(ServiceAllocation, NoneForHttpRequests) {
  struct Client : OneRequest {
    explicit Client(transport::Tcp& t) : OneRequest(t, 1), tcp(t) {}
    void OnConnected(transport::TcpSocket s, Nanos now) override {
      tcp.Send(s, Bytes("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"), now);
    }
    transport::Tcp& tcp;
  };
  MemoryServices world;
  world.Proxy(ServiceKind::kHttp, 80);
  Client client(world.tcp());
  client.close_after_answer = false;
  transport::TcpSocket s;
  ASSERT_EQ(world.tcp().Connect({}, {world.link().address(1), 80}, {}, &client,
                                world.link().now(), s),
            SocketError::kNone);
  world.Settle();
  const uint64_t before = Allocations();
  for (int i = 0; i < 100; ++i) {
    client.OnConnected(s, world.link().now());
    world.Settle();
  }
  EXPECT_EQ(Allocations(), before);
  EXPECT_EQ(client.answers, 101);
}

// What a relay, a session and an HTTP connection cost besides their sockets.
TEST(ServiceAllocation, Sizes) {
  EXPECT_LE(sizeof(services::Relay), 96u);
  EXPECT_LE(sizeof(services::UdpSession), 136u);
  EXPECT_LE(sizeof(services::HttpConnection), 2048u);
}

}  // namespace
}  // namespace sluice::test
