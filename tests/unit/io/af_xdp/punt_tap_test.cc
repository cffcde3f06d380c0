#include "io/af_xdp/punt_tap.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/filter.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cstring>

#include "unit/io/af_xdp/port_fixture.h"

namespace sluice::io::af_xdp {
namespace {

using test::Bytes;
using test::PacketBuilder;
using test::RawSocket;
using test::Shell;
using test::VethPair;
using test::WriteFile;

// A UDP socket that tells by which interface a datagram came.
class UdpSocket {
 public:
  UdpSocket(int family, uint16_t port) {
    fd_ = socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    test::Require(fd_ >= 0, "UDP socket");
    const int on = 1;
    sockaddr_storage address{};
    socklen_t size = 0;
    address.ss_family = static_cast<sa_family_t>(family);
    if (family == AF_INET) {
      setsockopt(fd_, IPPROTO_IP, IP_PKTINFO, &on, sizeof on);
      reinterpret_cast<sockaddr_in&>(address).sin_port = htons(port);
      size = sizeof(sockaddr_in);
    } else {
      setsockopt(fd_, IPPROTO_IPV6, IPV6_RECVPKTINFO, &on, sizeof on);
      reinterpret_cast<sockaddr_in6&>(address).sin6_port = htons(port);
      size = sizeof(sockaddr_in6);
    }
    test::Require(bind(fd_, reinterpret_cast<sockaddr*>(&address), size) == 0, "bind UDP");
  }
  ~UdpSocket() { close(fd_); }

  struct Datagram {
    Bytes payload;
    unsigned ifindex = 0;  // as IP_PKTINFO tells
    unsigned scope = 0;    // of the IPv6 source address
  };
  std::optional<Datagram> Receive() {
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, 5000) != 1) return {};
    Datagram d;
    d.payload.resize(65536);
    alignas(cmsghdr) char control[256];
    sockaddr_in6 from{};
    iovec data{d.payload.data(), d.payload.size()};
    msghdr m{};
    m.msg_name = &from;
    m.msg_namelen = sizeof from;
    m.msg_iov = &data;
    m.msg_iovlen = 1;
    m.msg_control = control;
    m.msg_controllen = sizeof control;
    const ssize_t n = recvmsg(fd_, &m, 0);
    if (n < 0) return {};
    d.payload.resize(static_cast<size_t>(n));
    if (from.sin6_family == AF_INET6) d.scope = from.sin6_scope_id;
    for (cmsghdr* c = CMSG_FIRSTHDR(&m); c != nullptr; c = CMSG_NXTHDR(&m, c)) {
      if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        in_pktinfo info;
        std::memcpy(&info, CMSG_DATA(c), sizeof info);
        d.ifindex = static_cast<unsigned>(info.ipi_ifindex);
      }
      if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        in6_pktinfo info;
        std::memcpy(&info, CMSG_DATA(c), sizeof info);
        d.ifindex = info.ipi6_ifindex;
      }
    }
    return d;
  }

 private:
  int fd_ = -1;
};

class PuntTapTest : public PortFixture, public ::testing::WithParamInterface<XdpMode> {
 protected:
  // Sends `frame` through the link, and gives back to the kernel what arrives, as this worker would.
  void PuntOne(RawSocket& peer, const Bytes& frame, WorkerId worker = WorkerId{0}) {
    ASSERT_TRUE(peer.Send(frame));
    const auto packets = Receive(1);
    ASSERT_EQ(packets.size(), 1u);
    EXPECT_TRUE(attachment_->punt().Write(worker, *arena_, packets[0]));
    FreeAll(packets);
    ++punted_;
  }
  static Bytes Datagram(uint8_t byte) {
    return PacketBuilder()
        .Ethernet(kFarMac, kNearMac)
        .Ipv4("10.0.0.2", "10.0.0.1")
        .Udp(6000, 5000)
        .Payload(Bytes{byte})
        .Build();
  }
  void OpenInMode(const std::string& options = "", uint32_t workers = 1) {
    veth_.emplace("near", "far", options);
    Shell(
        "ip addr add 10.0.0.1/24 dev near; ip neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev "
        "near");
    index_ = if_nametoindex("near");
    InterfaceAttachment::Options o = DefaultOptions("near");
    o.mode = GetParam();
    o.workers = workers;
    Open(o);
  }
  // XDP sees given back frames a second time in generic mode only, and lets them through.
  void TearDown() override {
    const auto counts = attachment_->ReadXdpCounts();
    ASSERT_TRUE(counts.ok());
    EXPECT_EQ((*counts)[SLUICE_XDP_PUNTED], GetParam() == XdpMode::kGeneric ? punted_ : 0u);
    EXPECT_EQ((*counts)[SLUICE_XDP_IPV4] + (*counts)[SLUICE_XDP_IPV6], punted_ + xdp_only_);
    PortFixture::TearDown();
  }

  std::optional<VethPair> veth_;
  unsigned index_ = 0;
  uint64_t punted_ = 0;
  uint64_t xdp_only_ = 0;  // received, but not given back
};

INSTANTIATE_TEST_SUITE_P(Modes, PuntTapTest, ::testing::Values(XdpMode::kNative, XdpMode::kGeneric),
                         [](const auto& p) {
                           return p.param == XdpMode::kNative ? "native" : "generic";
                         });

TEST_P(PuntTapTest, SocketSeesTheRealInterface) {
  OpenInMode();
  RawSocket peer("far");
  UdpSocket socket(AF_INET, 5000);
  for (int i = 0; i < 20; ++i) {
    PuntOne(peer, PacketBuilder()
                      .Ethernet(kFarMac, kNearMac)
                      .Ipv4("10.0.0.2", "10.0.0.1")
                      .Udp(6000, 5000)
                      .Payload("hello")
                      .Build());
    const auto datagram = socket.Receive();
    ASSERT_TRUE(datagram.has_value());
    EXPECT_EQ(datagram->payload, Bytes({'h', 'e', 'l', 'l', 'o'}));
    EXPECT_EQ(datagram->ifindex, index_);
  }
}

TEST_P(PuntTapTest, LinkLocalScopeIsTheRealInterface) {
  OpenInMode();
  WriteFile("/proc/sys/net/ipv6/conf/near/disable_ipv6", "0");
  Shell("ip addr add fe80::1/64 dev near nodad");
  RawSocket peer("far");
  UdpSocket socket(AF_INET6, 5000);
  PuntOne(peer, PacketBuilder()
                    .Ethernet(kFarMac, kNearMac)
                    .Ipv6("fe80::2", "fe80::1")
                    .Udp(6000, 5000)
                    .Payload("hello")
                    .Build());
  const auto datagram = socket.Receive();
  ASSERT_TRUE(datagram.has_value());
  EXPECT_EQ(datagram->ifindex, index_);
  EXPECT_EQ(datagram->scope, index_);
}

TEST_P(PuntTapTest, TcpIsAnswered) {
  OpenInMode();
  RawSocket peer("far");
  PuntOne(peer, PacketBuilder()
                    .Ethernet(kFarMac, kNearMac)
                    .Ipv4("10.0.0.2", "10.0.0.1")
                    .Tcp(6000, 5000, 0x02)
                    .Build());
  const auto answer = peer.Receive();  // nobody listens: RST, straight out of the interface
  ASSERT_TRUE(answer.has_value());
  ASSERT_GE(answer->size(), 54u);
  EXPECT_EQ((*answer)[23], 6);
  EXPECT_EQ((*answer)[47], 0x14);
}

TEST_P(PuntTapTest, ForwardedByTheKernel) {
  OpenInMode();
  VethPair out("out", "sink");
  Shell(
      "ip addr add 10.9.0.254/24 dev out; ip neigh add 10.9.0.1 lladdr 02:00:00:00:00:02 dev out");
  WriteFile("/proc/sys/net/ipv4/ip_forward", "1");
  RawSocket peer("far");
  RawSocket sink("sink");
  PuntOne(peer, NumberedFrame(7, 100));
  const auto frame = sink.Receive();
  ASSERT_TRUE(frame.has_value());
  const Bytes sent = NumberedFrame(7, 100);
  EXPECT_EQ(frame->size(), sent.size());
  EXPECT_EQ((*frame)[22], sent[22] - 1) << "TTL";
  EXPECT_EQ(Bytes(frame->begin() + 34, frame->end()), Bytes(sent.begin() + 34, sent.end()));
}

TEST_P(PuntTapTest, EachWorkerHasAQueue) {
  OpenInMode("", /*workers=*/4);
  RawSocket peer("far");
  UdpSocket socket(AF_INET, 5000);
  for (uint8_t w = 0; w < 4; ++w) {
    PuntOne(peer, Datagram(w), WorkerId{w});
    const auto datagram = socket.Receive();
    ASSERT_TRUE(datagram.has_value());
    EXPECT_EQ(datagram->payload, Bytes{w});
  }
}

// A worker of whose number the interface has no queue: the kernel must not take the device's for one.
TEST_P(PuntTapTest, QueuesOfTheDeviceAreNotTheInterfaces) {
  OpenInMode("", /*workers=*/3);
  RawSocket peer("far");
  RawSocket queued("near");
  queued.SetFilter({BPF_STMT(BPF_LD | BPF_W | BPF_ABS, uint32_t(SKF_AD_OFF + SKF_AD_QUEUE)),
                    BPF_STMT(BPF_RET | BPF_A, 0)});
  UdpSocket socket(AF_INET, 5000);
  for (uint8_t w = 0; w < 3; ++w) {
    PuntOne(peer, Datagram(w), WorkerId{w});
    EXPECT_TRUE(socket.Receive().has_value());
    EXPECT_FALSE(queued.TryReceive().has_value()) << "by queue " << int{w};
  }
}

TEST_P(PuntTapTest, TellsWhenTheKernelDoesNotTakeIt) {
  OpenInMode();
  RawSocket peer("far");
  ASSERT_TRUE(peer.Send(NumberedFrame(1, 60)));
  const auto packets = Receive(1);
  ASSERT_EQ(packets.size(), 1u);
  Shell("ip link set dev " + attachment_->punt().name() + " down");
  EXPECT_FALSE(attachment_->punt().Write(WorkerId{0}, *arena_, packets[0]));
  FreeAll(packets);
  Shell("ip link set dev " + attachment_->punt().name() + " up");
  PuntOne(peer, NumberedFrame(2, 60));
  ++xdp_only_;
}

TEST_P(PuntTapTest, JumboFrame) {
  OpenInMode("mtu 9000");
  RawSocket peer("far");
  UdpSocket socket(AF_INET, 5000);
  PuntOne(peer, PacketBuilder()
                    .Ethernet(kFarMac, kNearMac)
                    .Ipv4("10.0.0.2", "10.0.0.1")
                    .Udp(6000, 5000)
                    .Payload(8972)
                    .Build());
  const auto datagram = socket.Receive();
  ASSERT_TRUE(datagram.has_value());
  EXPECT_EQ(datagram->payload.size(), 8972u);
  EXPECT_EQ(datagram->ifindex, index_);
}

}  // namespace
}  // namespace sluice::io::af_xdp
