// UDP sockets: who gets a datagram, checksums, limits, errors.
#include <gtest/gtest.h>

#include <set>
#include <string>

#include "base/byte_order.h"
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
  const uint16_t id = LoadBe16(&sent_[0][4]);
  const Bytes wanted = PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Id(id).Udp(53, 1000)
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

// RFC 8201 section 4: what a router tells holds for all that is sent to the destination afterwards. A router
// tells it of a first fragment, too.
TEST_F(Udp, PacketTooBigMakesSmallerFragments) {
  const UdpSocket s = Bind({Ipv6(), 5000});
  const Endpoint there{*ParseIpAddress("2001:db8:7::2"), 53};
  const auto sizes = [&] {
    sent_.clear();
    EXPECT_TRUE(udp().SendTo(s, there, Bytes(3000, 'x'), Seconds(1)).ok());
    size_t largest = 0;
    for (const Bytes& f : sent_) largest = std::max(largest, f.size());
    return largest;
  };
  const auto too_big = [&](uint32_t mtu) {
    const Bytes quoted(sent_[0].begin(), sent_[0].begin() + 200);
    return host_.Deliver(PacketBuilder().Ipv6("2001:db8:9::9", "2001:db8::1").Icmpv6(2, 0, mtu)
                             .Payload(quoted).Build(), Seconds(1));
  };
  EXPECT_EQ(sizes(), 1496u);
  EXPECT_TRUE(too_big(1400));
  EXPECT_EQ(sizes(), 1400u);
  EXPECT_TRUE(too_big(1000));  // RFC 8201 section 4: below 1280 is not believed
  EXPECT_EQ(sizes(), 1400u);
  EXPECT_TRUE(too_big(1480));  // larger again is not believed before its time
  EXPECT_EQ(sizes(), 1400u);
  EXPECT_EQ(host_.stack().path_mtus().counters().entries.Read(), 1u);
}

// Nothing shows that it is about a datagram that was sent: connections take no notice, nor does anybody of
// what is no smaller than the path is known to be.
TEST_F(Udp, PacketTooBigIsForDatagramsOnly) {
  Bind({Ipv6(), 5000});
  const IpAddress there = *ParseIpAddress("2001:db8:7::2");
  const auto too_big = [&](uint32_t mtu) {
    const Bytes quoted = PacketBuilder().Ipv6("2001:db8::1", "2001:db8:7::2").Udp(5000, 53)
                             .Payload("never sent").Build();
    return host_.Deliver(PacketBuilder().Ipv6("2001:db8:9::9", "2001:db8::1").Icmpv6(2, 0, mtu)
                             .Payload(quoted).Build(), Seconds(1));
  };
  EXPECT_TRUE(too_big(1500));
  EXPECT_TRUE(too_big(9000));
  EXPECT_EQ(host_.stack().path_mtus().counters().entries.Read(), 0u);
  EXPECT_TRUE(too_big(1280));
  EXPECT_EQ(host_.stack().path_mtus().counters().entries.Read(), 1u);
  transport::TcpSocket s;
  ASSERT_EQ(host_.tcp().Connect({}, {there, 80}, {}, nullptr, Seconds(1), s), SocketError::kNone);
  EXPECT_EQ(host_.tcp().Find(s)->path_mtu, 1500u);
  EXPECT_EQ(host_.tcp().Abort(s, Seconds(1)), SocketError::kNone);
}

// Datagrams of IPv4 may be fragmented on their way: nobody has a reason to say that one was too big.
TEST_F(Udp, FragmentationNeededIsNotBelievedWithoutDontFragment) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  EXPECT_TRUE(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, Bytes(1000, 'x'), Seconds(1)).ok());
  EXPECT_TRUE(host_.Deliver(PacketBuilder().Ipv4("10.0.0.9", "10.0.0.1").Icmp(3, 4, 600)
                                .Payload(sent_[0]).Build(), Seconds(1)));
  EXPECT_EQ(host_.stack().path_mtus().counters().learned.Read(), 0u);
}

// RFC 6864 section 4.3: datagrams without Don't Fragment must not share an identification.
TEST_F(Udp, IdentificationsDiffer) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  std::set<uint16_t> ids;
  for (int i = 0; i < 20; ++i) {
    EXPECT_TRUE(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, Text("x"), Seconds(1)).ok());
    ids.insert(LoadBe16(&sent_.back()[4]));
  }
  EXPECT_GE(ids.size(), 18u);  // by chance two may meet
}

// RFC 791 section 3.2: fragments of one identification, at offsets in units of eight bytes, all but the last
// with More Fragments; together they are the datagram, with a checksum over the whole.
TEST_F(Udp, LargeDatagramsAreSentInFragments) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  Bytes data(4000);
  for (size_t i = 0; i < data.size(); ++i) data[i] = static_cast<uint8_t>(i * 7);
  EXPECT_EQ(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, data, Seconds(1)).bytes, 4000u);
  ASSERT_EQ(sent_.size(), 3u);
  Bytes whole;
  for (const Bytes& f : sent_) {
    EXPECT_LE(f.size(), 1500u);
    EXPECT_EQ(NaiveSum(std::span(f).first(20)), 0xffff);
    EXPECT_EQ(LoadBe16(&f[4]), LoadBe16(&sent_[0][4]));
    EXPECT_EQ((LoadBe16(&f[6]) & 0x1fff) * 8u, whole.size());
    EXPECT_EQ((LoadBe16(&f[6]) & 0x2000) != 0, &f != &sent_.back());
    whole.insert(whole.end(), f.begin() + 20, f.end());
  }
  const Bytes wanted =
      PacketBuilder().Ipv4("10.0.0.1", "10.0.0.2").Udp(5000, 53).Payload(data).Build();
  EXPECT_EQ(whole, Bytes(wanted.begin() + 20, wanted.end()));
  EXPECT_EQ(udp().counters().fragments_sent.Read(), 3u);
}

// RFC 768 and RFC 791: 65535 bytes with both headers.
TEST_F(Udp, TheLargestDatagramOfAll) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  const Bytes data(65507, 'z');
  EXPECT_EQ(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, data, Seconds(1)).bytes, 65507u);
  ASSERT_EQ(sent_.size(), 45u);
  size_t bytes = 0;
  for (const Bytes& f : sent_) bytes += f.size() - 20;
  EXPECT_EQ(bytes, 65515u);
  EXPECT_EQ(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, Bytes(65508, 'z'), Seconds(1)).error,
            SocketError::kTooLong);
  EXPECT_TRUE(host_.FramesBalance());
}

// RFC 8200 section 4.5.
TEST_F(Udp, LargeDatagramsAreSentInFragmentsV6) {
  const UdpSocket s = Bind({Ipv6(), 5000});
  const Bytes data(3001, 'y');
  EXPECT_TRUE(udp().SendTo(s, {*ParseIpAddress("2001:db8::2"), 53}, data, Seconds(1)).ok());
  ASSERT_EQ(sent_.size(), 3u);
  Bytes whole;
  for (const Bytes& f : sent_) {
    EXPECT_LE(f.size(), 1500u);
    EXPECT_EQ(f[6], 44);
    EXPECT_EQ(LoadBe16(&f[4]), f.size() - 40);
    EXPECT_EQ(f[40], 17);
    EXPECT_EQ(LoadBe16(&f[42]) & 0xfff8, whole.size());
    EXPECT_EQ(LoadBe16(&f[42]) & 1, &f != &sent_.back() ? 1 : 0);
    EXPECT_EQ(LoadBe32(&f[44]), LoadBe32(&sent_[0][44]));
    whole.insert(whole.end(), f.begin() + 48, f.end());
  }
  const Bytes wanted =
      PacketBuilder().Ipv6("2001:db8::1", "2001:db8::2").Udp(5000, 53).Payload(data).Build();
  EXPECT_EQ(whole, Bytes(wanted.begin() + 40, wanted.end()));
}

// All fragments or none: too few frames for the datagram and its three fragments, and nothing is sent.
TEST_F(Udp, FragmentsWantFramesForAll) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  std::vector<packet::FrameIndex> taken;
  while (host_.pool().size() > 5) taken.push_back(host_.pool().Alloc());
  EXPECT_EQ(udp().SendTo(s, {Ipv4(10, 0, 0, 2), 53}, Bytes(4000, 'x'), Seconds(1)).error,
            SocketError::kWouldBlock);
  EXPECT_TRUE(sent_.empty());
  for (const packet::FrameIndex f : taken) host_.pool().Free(f);
}

// RFC 1112: a datagram to a group goes to every socket that has joined it, and to no other.
TEST_F(Udp, MulticastGoesToMembers) {
  const IpAddress group = *ParseIpAddress("239.1.2.3");
  const auto to = [&](const char* address) {
    return host_.Deliver(
        PacketBuilder().Ipv4("10.0.0.2", address).Udp(7, 5353).Payload("news").Build(), Seconds(1));
  };
  const UdpSocket any = Bind({Ipv4(), 5353});
  const UdpSocket own = Bind({group, 5353});
  EXPECT_FALSE(to("239.1.2.3"));
  EXPECT_EQ(udp().Join(any, group), SocketError::kNone);
  EXPECT_EQ(udp().Join(any, group), SocketError::kNone);
  EXPECT_EQ(udp().Join(own, group), SocketError::kNone);
  EXPECT_EQ(udp().Join(own, *ParseIpAddress("10.0.0.7")), SocketError::kInvalid);
  EXPECT_EQ(udp().Join(own, *ParseIpAddress("ff02::1")), SocketError::kInvalid);
  EXPECT_TRUE(to("239.1.2.3"));
  EXPECT_FALSE(to("239.1.2.4"));
  EXPECT_EQ(Read(any), "10.0.0.2:7 news");
  EXPECT_EQ(Read(any), "!would_block");
  EXPECT_EQ(Read(own), "10.0.0.2:7 news");
  // What is sent comes from an address of ours.
  EXPECT_TRUE(udp().SendTo(own, {group, 5353}, Text("x"), Seconds(1)).ok());
  EXPECT_EQ(Ipv4::FromWire(&sent_.back()[12]), Ipv4(10, 0, 0, 1));
  EXPECT_EQ(udp().Leave(any, group), SocketError::kNone);
  EXPECT_EQ(udp().Leave(any, group), SocketError::kInvalid);
  EXPECT_TRUE(to("239.1.2.3"));
  EXPECT_EQ(Read(any), "!would_block");
  EXPECT_EQ(Read(own), "10.0.0.2:7 news");
  // A full queue of one does not take it from the other.
  EXPECT_EQ(udp().Join(any, group), SocketError::kNone);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(to("239.1.2.3"));
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Read(own), "10.0.0.2:7 news");
  EXPECT_TRUE(to("239.1.2.3"));
  EXPECT_EQ(udp().counters().queue_full.Read(), 1u);
  udp().Close(any);
  udp().Close(own);
  EXPECT_FALSE(to("239.1.2.3"));
}

// RFC 1112 section 7.1: a group is joined on an interface. What comes by none that is known (as here) is
// for all.
TEST_F(Udp, GroupsAreJoinedOnInterfaces) {
  const IpAddress group = *ParseIpAddress("239.1.2.3");
  const UdpSocket s = Bind({group, 5353});
  const transport::Tuple t{{group, 5353}, {Ipv4(10, 0, 0, 2), 7}};
  IfaceSet on;
  on.Add(IfaceSlot{3});
  EXPECT_EQ(udp().Join(s, group, on), SocketError::kNone);
  EXPECT_TRUE(udp().Claims(t, IfaceSlot{3}));
  EXPECT_FALSE(udp().Claims(t, IfaceSlot{2}));
  EXPECT_TRUE(udp().Claims(t));
  EXPECT_TRUE(udp().HasMembers(group, IfaceSlot{3}));
  EXPECT_FALSE(udp().HasMembers(group, IfaceSlot{2}));
  EXPECT_FALSE(udp().HasMembers(Ipv4(239, 1, 2, 4), IfaceSlot{3}));
  // Once more is elsewhere.
  on = {};
  on.Add(IfaceSlot{63});
  EXPECT_EQ(udp().Join(s, group, on), SocketError::kNone);
  EXPECT_FALSE(udp().Claims(t, IfaceSlot{3}));
  EXPECT_TRUE(udp().Claims(t, IfaceSlot{63}));
  EXPECT_EQ(udp().Join(s, group), SocketError::kNone);
  for (uint8_t slot = 0; slot < kMaxInterfaces; ++slot) {
    EXPECT_TRUE(udp().Claims(t, IfaceSlot{slot}));
  }
  EXPECT_EQ(udp().Leave(s, group), SocketError::kNone);
  EXPECT_FALSE(udp().Claims(t));
}

TEST_F(Udp, MembershipLimit) {
  const UdpSocket s = Bind({Ipv4(), 5353});
  for (uint32_t i = 0; i < 64; ++i) {
    EXPECT_EQ(udp().Join(s, Ipv4(239, 0, 0, static_cast<uint8_t>(i))), SocketError::kNone);
  }
  EXPECT_EQ(udp().Join(s, Ipv4(239, 0, 1, 0)), SocketError::kNoMemory);
}

TEST_F(Udp, SendErrors) {
  const UdpSocket s = Bind({Ipv4(), 5000});
  const Bytes large(65508, 'x');
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
