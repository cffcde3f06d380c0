// UDP sockets: who gets a datagram, checksums, limits, errors.
#include <gtest/gtest.h>

#include <string>

#include "support/packet_builder.h"
#include "support/transport_host.h"

namespace sluice::test {
namespace {

using transport::Endpoint;
using transport::SocketError;
using transport::UdpSocket;

class Udp : public testing::Test, public transport::UdpHandler {
 protected:
  Udp() : host_(Configured()) {
    host_.on_output = [this](Bytes packet, Nanos) { sent_.push_back(std::move(packet)); };
  }
  ~Udp() override { EXPECT_TRUE(host_.FramesBalance()); }

  static TransportHost::Options Configured() {
    TransportHost::Options o;
    o.address = *ParseIpAddress("10.0.0.1");
    o.address6 = *ParseIpAddress("2001:db8::1");
    o.config.udp.queue = 4;
    o.config.udp.sockets = 8;
    return o;
  }
  void OnReadable(UdpSocket, Nanos) override { ++readable_; }
  void OnError(UdpSocket, SocketError e, Nanos) override { error_ = e; }

  UdpSocket Bind(const Endpoint& local) {
    UdpSocket s;
    EXPECT_EQ(udp().Bind(local, this, s), SocketError::kNone);
    return s;
  }
  bool In(const char* from, uint16_t port, uint16_t to_port, const std::string& text) {
    return host_.Deliver(
        PacketBuilder().Ipv4(from, "10.0.0.1").Udp(port, to_port).Payload(text).Build(), Seconds(1));
  }
  std::string Read(UdpSocket s) {
    uint8_t buffer[2000];
    Endpoint from;
    const auto r = udp().Receive(s, buffer, from);
    if (!r.ok()) return std::string("!") + std::string(Name(r.error));
    return ToString(from.address) + ":" + std::to_string(from.port) + " " +
           std::string(buffer, buffer + r.bytes);
  }
  static std::span<const uint8_t> Text(std::string_view t) {
    return {reinterpret_cast<const uint8_t*>(t.data()), t.size()};
  }
  transport::Udp& udp() { return host_.udp(); }

  std::vector<Bytes> sent_;
  int readable_ = 0;
  SocketError error_ = SocketError::kNone;
  TransportHost host_;
};

TEST_F(Udp, ReceivesAndAnswers) {
  const UdpSocket s = Bind({Ipv4(), 53});
  EXPECT_TRUE(In("10.0.0.2", 1000, 53, "question"));
  EXPECT_EQ(readable_, 1);
  EXPECT_EQ(Read(s), "10.0.0.2:1000 question");
  EXPECT_EQ(Read(s), "!would_block");
  EXPECT_EQ(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 1000}, Text("answer!"), Seconds(1)).bytes, 7u);
  ASSERT_EQ(sent_.size(), 1u);
  const Bytes wanted = PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Id(0).Udp(53, 1000)
      .Payload("answer!").Build();
  EXPECT_EQ(ToHex(sent_[0]), ToHex(wanted));
  udp().Close(s);
}

TEST_F(Udp, V6) {
  const UdpSocket s = Bind({Ipv6(), 53});
  host_.Deliver(PacketBuilder().Ipv6("2001:db8::2", "2001:db8::1").Udp(9, 53).Payload("x").Build(),
                Seconds(1));
  EXPECT_EQ(Read(s), "2001:db8::2:9 x");
  EXPECT_TRUE(udp().SendTo(s, {*ParseIpAddress("2001:db8::2"), 9}, Text("y"), Seconds(1)).ok());
  EXPECT_EQ(ToHex(sent_.at(0)), ToHex(PacketBuilder().Ipv6("2001:db8::1", "2001:db8::2").Udp(53, 9)
                                         .Payload("y").Build()));
  udp().Close(s);
}

// The most special socket gets it: the peer's, the address's, the port's.
TEST_F(Udp, MostSpecialSocketGetsIt) {
  const UdpSocket any = Bind({Ipv4(), 53});
  const UdpSocket address = Bind({Ipv4(10, 0, 0, 1), 53});
  UdpSocket again;
  EXPECT_EQ(udp().Bind({Ipv4(), 53}, this, again), SocketError::kAddressInUse);
  In("10.0.0.2", 1000, 53, "a");
  EXPECT_EQ(Read(address), "10.0.0.2:1000 a");
  EXPECT_EQ(udp().Connect(address, {Ipv4(10, 0, 0, 2), 1000}), SocketError::kNone);
  In("10.0.0.2", 1000, 53, "b");
  In("10.0.0.2", 1001, 53, "c");
  EXPECT_EQ(Read(address), "10.0.0.2:1000 b");
  EXPECT_EQ(Read(any), "10.0.0.2:1001 c");
  EXPECT_EQ(udp().Connect(address, {Ipv4(10, 0, 0, 2), 1000}), SocketError::kInvalid);
  EXPECT_FALSE(In("10.0.0.2", 1000, 54, "nobody's"));
}

// RFC 768: a checksum of zero is none, on IPv4; RFC 8200 section 8.1: not on IPv6.
TEST_F(Udp, Checksums) {
  const UdpSocket s = Bind({Ipv4(), 53});
  const UdpSocket s6 = Bind({Ipv6(), 53});
  PacketBuilder v4 = PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 53);
  host_.Deliver(PacketBuilder(v4).BadChecksum().Payload("x").Build(), Seconds(1));
  EXPECT_EQ(Read(s), "!would_block");
  host_.Deliver(PacketBuilder(v4).ZeroUdpChecksum().Payload("x").Build(), Seconds(1));
  EXPECT_EQ(Read(s), "10.0.0.2:1 x");
  host_.Deliver(PacketBuilder().Ipv6("2001:db8::2", "2001:db8::1").Udp(1, 53).ZeroUdpChecksum()
                    .Payload("x").Build(), Seconds(1));
  EXPECT_EQ(Read(s6), "!would_block");
  EXPECT_EQ(host_.dropped(DropReason::kChecksum), 2u);
}

// A connected socket in one call: the port is chosen so that answers arrive here.
TEST_F(Udp, OpenConnects) {
  UdpSocket s;
  ASSERT_EQ(udp().Open({}, {Ipv4(10, 0, 0, 2), 53}, this, s), SocketError::kNone);
  const uint16_t port = udp().LocalOf(s)->port;
  EXPECT_EQ(udp().LocalOf(s)->address, IpAddress(Ipv4(10, 0, 0, 1)));
  EXPECT_TRUE(udp().Send(s, Text("q"), Seconds(1)).ok());
  EXPECT_TRUE(In("10.0.0.2", 53, port, "a"));
  EXPECT_FALSE(In("10.0.0.2", 54, port, "b"));
  EXPECT_EQ(Read(s), "10.0.0.2:53 a");
  // The same again is taken; the same port for another peer is not.
  UdpSocket other;
  const Endpoint local = *udp().LocalOf(s);
  EXPECT_EQ(udp().Open(local, {Ipv4(10, 0, 0, 2), 53}, this, other), SocketError::kAddressInUse);
  EXPECT_EQ(udp().Open(local, {Ipv4(10, 0, 0, 3), 53}, this, other), SocketError::kNone);
  EXPECT_EQ(udp().Open({}, {Ipv4(10, 0, 0, 2), 0}, this, other), SocketError::kInvalid);
  EXPECT_EQ(udp().Open(local, {*ParseIpAddress("2001:db8::2"), 1}, this, other),
            SocketError::kInvalid);
  host_.set_routes(false);
  EXPECT_EQ(udp().Open({}, {Ipv4(10, 0, 0, 2), 53}, this, other), SocketError::kUnreachable);
}

// The UDP length counts: too long is an error, and what is behind it is not data.
TEST_F(Udp, Length) {
  const UdpSocket s = Bind({Ipv4(), 53});
  PacketBuilder b = PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 53).ZeroUdpChecksum();
  host_.Deliver(PacketBuilder(b).UdpLength(100).Payload("xyz").Build(), Seconds(1));
  host_.Deliver(PacketBuilder(b).UdpLength(7).Payload("xyz").Build(), Seconds(1));
  EXPECT_EQ(host_.dropped(DropReason::kUdpHeader), 2u);
  host_.Deliver(PacketBuilder(b).UdpLength(10).Payload("xyz").Build(), Seconds(1));
  EXPECT_EQ(Read(s), "10.0.0.2:1 xy");
}

TEST_F(Udp, QueueLimit) {
  const UdpSocket s = Bind({Ipv4(), 53});
  for (int i = 0; i < 6; ++i) In("10.0.0.2", 1, 53, std::to_string(i));
  EXPECT_EQ(host_.dropped(DropReason::kUdpQueueFull), 2u);
  EXPECT_EQ(udp().counters().queue_full.Read(), 2u);
  EXPECT_EQ(Read(s), "10.0.0.2:1 0");
  EXPECT_EQ(udp().frames_waiting(), 3u);
  udp().Close(s);
  EXPECT_EQ(udp().frames_waiting(), 0u);
  EXPECT_EQ(Read(s), "!bad_socket");
}

TEST_F(Udp, SocketLimitAndPorts) {
  UdpSocket s;
  std::vector<uint16_t> ports;
  for (int i = 0; i < 8; ++i) {
    ASSERT_EQ(udp().Bind({Ipv4(), 0}, this, s), SocketError::kNone);
    EXPECT_GE(udp().LocalOf(s)->port, 32768);
  }
  EXPECT_EQ(udp().Bind({Ipv4(), 0}, this, s), SocketError::kNoMemory);
}

// RFC 1122 section 4.1.3.3: a connected socket is told of ICMP errors, once; another one is not.
TEST_F(Udp, IcmpErrorReachesConnectedSocket) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  ASSERT_EQ(udp().Connect(s, {Ipv4(10, 0, 0, 2), 53}), SocketError::kNone);
  const Bytes quoted = PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Udp(5000, 53).Payload("q")
      .Build();
  const Bytes error =
      PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Icmp(3, 3).Payload(quoted).Build();
  EXPECT_TRUE(host_.Deliver(error, Seconds(1)));
  EXPECT_EQ(error_, SocketError::kUnreachable);
  EXPECT_EQ(udp().Send(s, Text("x"), Seconds(1)).error, SocketError::kUnreachable);
  EXPECT_TRUE(udp().Send(s, Text("x"), Seconds(1)).ok());
  // Somebody else's is left to the kernel.
  const Bytes other = PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Udp(5001, 53).Payload("q")
      .Build();
  EXPECT_FALSE(host_.Deliver(
      PacketBuilder().Ipv4("10.0.0.2", "10.0.0.1").Icmp(3, 3).Payload(other).Build(), Seconds(1)));
}

TEST_F(Udp, SendErrors) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  const Bytes large(1473, 'x');
  const Endpoint peer{Ipv4(10, 0, 0, 2), 53};
  EXPECT_EQ(udp().Send(s, Text("x"), Seconds(1)).error, SocketError::kNotConnected);
  EXPECT_EQ(udp().SendTo(s, peer, large, Seconds(1)).error, SocketError::kTooLong);
  EXPECT_TRUE(udp().SendTo(s, peer, std::span(large).first(1472), Seconds(1)).ok());
  EXPECT_EQ(udp().SendTo(s, {Ipv4(), 53}, Text("x"), Seconds(1)).error, SocketError::kInvalid);
  host_.set_routes(false);
  EXPECT_EQ(udp().SendTo(s, peer, Text("x"), Seconds(1)).error, SocketError::kUnreachable);
}

// Frames can be taken instead of copied.
TEST_F(Udp, PacketsAreHandedOut) {
  const UdpSocket s = Bind({Ipv4(), 53});
  In("10.0.0.2", 1, 53, "frame");
  transport::ReceivedData data;
  Endpoint from;
  ASSERT_EQ(udp().ReceivePacket(s, data, from), SocketError::kNone);
  EXPECT_EQ(std::string(data.packet.data + data.offset, data.packet.data + data.offset + data.length),
            "frame");
  udp().Release(data);
}

}  // namespace
}  // namespace sluice::test
