// The example of the API: an echo server, on a simulated link.
#include <gtest/gtest.h>

#include "examples/echo_server.h"
#include "support/transport_link.h"

namespace sluice::test {
namespace {

struct Client : transport::TcpHandler {
  void OnConnected(transport::TcpSocket s, Nanos now) override {
    tcp.Send(s, {reinterpret_cast<const uint8_t*>("hello"), 5}, now);
    tcp.Shutdown(s, now);
  }
  void OnReadable(transport::TcpSocket s, Nanos now) override {
    uint8_t buffer[100];
    for (;;) {
      const auto r = tcp.Receive(s, buffer, now);
      if (!r.ok()) {
        if (r.error == transport::SocketError::kEndOfData) {
          tcp.Close(s, now);
          ended = true;
        }
        return;
      }
      got.append(buffer, buffer + r.bytes);
    }
  }
  explicit Client(transport::Tcp& t) : tcp(t) {}
  transport::Tcp& tcp;
  std::string got;
  bool ended = false;
};

TEST(EchoServer, SendsBackWhatItReceives) {
  for (const bool v6 : {false, true}) {
    TransportLink link({.v6 = v6});
    examples::EchoServer server(link.host(1).tcp());
    ASSERT_EQ(server.Listen({link.address(1), 7}), transport::SocketError::kNone);
    Client client(link.host(0).tcp());
    transport::TcpSocket socket;
    ASSERT_EQ(client.tcp.Connect({}, {link.address(1), 7}, {}, &client, link.now(), socket),
              transport::SocketError::kNone);
    link.Run(Seconds(1));
    EXPECT_EQ(client.got, "hello");
    EXPECT_TRUE(client.ended);
    link.Run(Seconds(61));
    EXPECT_EQ(link.host(0).tcp().usage().connections, 0u);
    EXPECT_EQ(link.host(1).tcp().usage().connections, 0u);
    EXPECT_TRUE(link.host(0).FramesBalance());
    EXPECT_TRUE(link.host(1).FramesBalance());
  }
}

}  // namespace
}  // namespace sluice::test
