// The XDP program in the kernel, packet by packet (BPF_PROG_TEST_RUN): what it returns, what it
// counts, and what it does to the packet.
#include <bpf/bpf.h>
#include <gtest/gtest.h>
#include <linux/bpf.h>

#include <memory>
#include <vector>

#include "base/address.h"
#include "base/rng.h"
#include "bpf/include/abi.h"
#include "bpf/include/classify.h"
#include "bpf/include/early_abi.h"
#include "io/af_xdp/socket.h"
#include "sluice_bpf/xdp_ingress.skel.h"
#include "support/net_sandbox.h"
#include "support/packet_builder.h"

namespace sluice {
namespace {

using test::Bytes;
using test::PacketBuilder;

const char kOwn[] = "02:00:00:00:00:01";
const char kPeer[] = "02:00:00:00:00:02";
const char kOther[] = "02:00:00:00:00:03";

uint64_t Packed(const char* mac) {
  uint8_t bytes[8] = {};
  ParseMac(mac)->ToWire(bytes);
  uint64_t v;
  std::memcpy(&v, bytes, sizeof v);
  return v;
}

// With an AF_XDP socket on queue 0, and both entry points.
class XdpIngressTest : public ::testing::TestWithParam<bool> {
 protected:
  void SetUp() override {
    test::EnterSandbox();
    veth_ = std::make_unique<test::VethPair>("near", "far");
    arena_ = packet::FrameArena::Create(64, 2048);
    io::af_xdp::Socket::Options options;
    options.interface = "near";
    options.rings = {.fill = 64, .receive = 64, .transmit = 64, .completion = 64};
    auto socket = io::af_xdp::Socket::Open(options, *arena_, {});
    ASSERT_TRUE(socket.ok()) << socket.status();
    socket_ = *std::move(socket);
    skeleton_ = sluice_xdp_ingress::open_and_load();
    ASSERT_NE(skeleton_, nullptr);
    SetSocket();
    skeleton_->bss->config.own_mac = Packed(kOwn);
    skeleton_->bss->config.enabled = 1;
  }
  void TearDown() override { sluice_xdp_ingress::destroy(skeleton_); }

  void SetSocket() {
    const uint32_t key = 0;
    const int fd = socket_->fd();
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.xsks), &key, &fd, 0), 0);
  }
  std::vector<uint64_t> Counts() {
    std::vector<sluice_xdp_stats> cells(static_cast<size_t>(libbpf_num_possible_cpus()));
    const uint32_t key = 0;
    EXPECT_EQ(bpf_map_lookup_elem(bpf_map__fd(skeleton_->maps.stats), &key, cells.data()), 0);
    std::vector<uint64_t> sums(SLUICE_XDP_REASON_COUNT);
    for (const auto& cell : cells) {
      for (size_t i = 0; i < sums.size(); ++i) sums[i] += cell.packets[i];
    }
    return sums;
  }
  // Runs the program; checks that exactly `reason` was counted, and returns the action.
  int Run(const Bytes& frame, sluice_xdp_reason reason, Bytes* out = nullptr) {
    const std::vector<uint64_t> before = Counts();
    Bytes result(frame.size() + 256);
    bpf_test_run_opts opts{};
    opts.sz = sizeof opts;
    opts.data_in = frame.data();
    opts.data_size_in = static_cast<uint32_t>(frame.size());
    opts.data_out = result.data();
    opts.data_size_out = static_cast<uint32_t>(result.size());
    opts.repeat = 1;
    const bpf_program* program =
        GetParam() ? skeleton_->progs.xdp_ingress_frags : skeleton_->progs.xdp_ingress;
    EXPECT_EQ(bpf_prog_test_run_opts(bpf_program__fd(program), &opts), 0);
    std::vector<uint64_t> expected = before;
    ++expected[reason];
    EXPECT_EQ(Counts(), expected) << "reason " << reason << " for " << test::ToHex(frame);
    result.resize(opts.data_size_out);
    if (out != nullptr) {
      *out = result;
    } else {
      EXPECT_EQ(result, frame) << "the packet is not to be changed";
    }
    return static_cast<int>(opts.retval);
  }

  std::unique_ptr<test::VethPair> veth_;
  std::unique_ptr<packet::FrameArena> arena_;
  std::unique_ptr<io::af_xdp::Socket> socket_;
  sluice_xdp_ingress* skeleton_ = nullptr;
};

INSTANTIATE_TEST_SUITE_P(Entry, XdpIngressTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "frags" : "plain"; });

TEST_P(XdpIngressTest, LeavesFramesLongerThanTheMtuToTheKernel) {
  const auto frame = [](size_t size) {
    Bytes bytes =
        PacketBuilder().Ethernet(kPeer, kOwn).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build();
    bytes.resize(size);
    return bytes;
  };
  skeleton_->bss->config.largest_frame = 1514;
  EXPECT_EQ(Run(frame(1514), SLUICE_XDP_IPV4), XDP_REDIRECT);
  EXPECT_EQ(Run(frame(1515), SLUICE_XDP_OVERSIZED), XDP_PASS);
  skeleton_->bss->config.largest_frame = 0;
  EXPECT_EQ(Run(frame(1515), SLUICE_XDP_IPV4), XDP_REDIRECT);
}

struct Case {
  const char* what;
  Bytes frame;
  sluice_xdp_reason reason;
};

PacketBuilder To(const char* destination) { return PacketBuilder().Ethernet(kPeer, destination); }

std::vector<Case> Cases() {
  const char* broadcast = "ff:ff:ff:ff:ff:ff";
  const char* group4 = "01:00:5e:00:00:05";
  const char* group6 = "33:33:00:00:00:01";
  const char* solicited = "33:33:ff:00:00:01";
  return {
      {"IPv4", To(kOwn).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build(), SLUICE_XDP_IPV4},
      {"IPv4 with options", To(kOwn).Ipv4("10.0.0.2", "10.0.0.1").Options({1, 1, 1, 0}).Build(),
       SLUICE_XDP_IPV4},
      {"IPv4 of wrong version", To(kOwn).Ipv4("10.0.0.2", "10.0.0.1").Version(5).Udp(1, 2).Build(),
       SLUICE_XDP_IPV4},
      {"IPv4 to a group", To(group4).Ipv4("10.0.0.2", "224.0.0.5").Build(), SLUICE_XDP_MULTICAST},
      {"IPv4 to a group, unicast frame", To(kOwn).Ipv4("10.0.0.2", "239.1.2.3").Build(),
       SLUICE_XDP_MULTICAST},
      {"IPv4 unicast, multicast frame", To(group4).Ipv4("10.0.0.2", "10.0.0.1").Build(),
       SLUICE_XDP_MULTICAST},
      {"limited broadcast", To(broadcast).Ipv4("0.0.0.0", "255.255.255.255").Udp(68, 67).Build(),
       SLUICE_XDP_BROADCAST},
      {"limited broadcast, unicast frame", To(kOwn).Ipv4("0.0.0.0", "255.255.255.255").Build(),
       SLUICE_XDP_BROADCAST},
      {"IPv4 unicast, broadcast frame", To(broadcast).Ipv4("10.0.0.2", "10.0.0.1").Build(),
       SLUICE_XDP_BROADCAST},
      {"IPv4 class E", To(kOwn).Ipv4("10.0.0.2", "240.0.0.1").Build(), SLUICE_XDP_IPV4},
      {"IPv6", To(kOwn).Ipv6("2001:db8::2", "2001:db8::1").Udp(1, 2).Build(), SLUICE_XDP_IPV6},
      {"IPv6 link-local", To(kOwn).Ipv6("fe80::2", "fe80::1").Build(), SLUICE_XDP_IPV6},
      {"NS",
       To(solicited).Ipv6("fe80::2", "ff02::1:ff00:1").NeighborSolicitation("fe80::1").Build(),
       SLUICE_XDP_ND},
      {"NA to all nodes",
       To(group6).Ipv6("fe80::2", "ff02::1").NeighborAdvertisement("fe80::2", 0, 0, 1).Build(),
       SLUICE_XDP_ND},
      {"NS, unicast", To(kOwn).Ipv6("fe80::2", "fe80::1").NeighborSolicitation("fe80::1").Build(),
       SLUICE_XDP_IPV6},
      {"NS behind an extension header",
       To(solicited)
           .Ipv6("fe80::2", "ff02::1:ff00:1")
           .HopByHop()
           .NeighborSolicitation("fe80::1")
           .Build(),
       SLUICE_XDP_MULTICAST},
      {"RA", To(group6).Ipv6("fe80::2", "ff02::1").RouterAdvertisement(1800).Build(),
       SLUICE_XDP_MULTICAST},
      {"IPv6 to a group", To(group6).Ipv6("fe80::2", "ff02::5").Protocol(89).Payload(20).Build(),
       SLUICE_XDP_MULTICAST},
      {"IPv6 to a group, unicast frame", To(kOwn).Ipv6("fe80::2", "ff0e::1").Udp(1, 2).Build(),
       SLUICE_XDP_MULTICAST},
      {"IPv6 unicast, multicast frame", To(group6).Ipv6("fe80::2", "fe80::1").Udp(1, 2).Build(),
       SLUICE_XDP_MULTICAST},
      {"ARP request", To(broadcast).ArpRequest(kPeer, "10.0.0.2", "10.0.0.1").Build(),
       SLUICE_XDP_ARP},
      {"ARP reply", To(kOwn).ArpReply(kPeer, "10.0.0.2", kOwn, "10.0.0.1").Build(), SLUICE_XDP_ARP},
      {"ARP reply to another", To(kOther).ArpReply(kPeer, "10.0.0.2", kOther, "10.0.0.3").Build(),
       SLUICE_XDP_OTHER_MAC},
      {"IPv4 to another host", To(kOther).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build(),
       SLUICE_XDP_OTHER_MAC},
      {"802.1Q", To(kOwn).Vlan(5).Ipv4("10.0.0.2", "10.0.0.1").Build(), SLUICE_XDP_VLAN},
      {"802.1ad", To(kOwn).Vlan(5, 0x88a8).Ipv4("10.0.0.2", "10.0.0.1").Build(), SLUICE_XDP_VLAN},
      {"priority tag", To(kOwn).Vlan(0, 0x8100, 5).Ipv4("10.0.0.2", "10.0.0.1").Build(),
       SLUICE_XDP_VLAN},
      {"LLDP", To("01:80:c2:00:00:0e").EtherType(0x88cc).Payload(46).Build(), SLUICE_XDP_NON_IP},
      {"802.3 with a length (STP)", To("01:80:c2:00:00:00").EtherType(38).Payload(46).Build(),
       SLUICE_XDP_NON_IP},
      {"MPLS", To(kOwn).EtherType(0x8847).Payload(46).Build(), SLUICE_XDP_NON_IP},
      {"a punt mark that is not expected", To(kOwn).EtherType(0x88b5).Payload(60).Build(),
       SLUICE_XDP_NON_IP},
  };
}

TEST_P(XdpIngressTest, DecidesByPacket) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.what);
    EXPECT_EQ(Run(c.frame, c.reason), sluice_is_redirect(c.reason) ? XDP_REDIRECT : XDP_PASS);
  }
}

// Cut anywhere, the kernel's program and the natively compiled decision agree. (Below 14 bytes the
// kernel refuses to run it; classify_test has those.)
TEST_P(XdpIngressTest, TruncatedAtEveryLength) {
  for (const Case& c : Cases()) {
    SCOPED_TRACE(c.what);
    for (size_t size = 14; size <= c.frame.size(); ++size) {
      const Bytes cut(c.frame.begin(), c.frame.begin() + static_cast<long>(size));
      const sluice_xdp_reason reason =
          sluice_classify({cut.data(), cut.data() + cut.size()}, Packed(kOwn));
      EXPECT_EQ(Run(cut, reason), sluice_is_redirect(reason) ? XDP_REDIRECT : XDP_PASS);
    }
  }
}

TEST_P(XdpIngressTest, RandomBytes) {
  Rng rng(3);
  const std::vector<Case> cases = Cases();
  for (int i = 0; i < 3000; ++i) {
    Bytes frame = cases[rng.Below(cases.size())].frame;
    for (uint64_t n = rng.Below(4); n > 0; --n) {
      frame[rng.Below(frame.size())] = static_cast<uint8_t>(rng.Next());
    }
    const sluice_xdp_reason reason =
        sluice_classify({frame.data(), frame.data() + frame.size()}, Packed(kOwn));
    EXPECT_EQ(Run(frame, reason), sluice_is_redirect(reason) ? XDP_REDIRECT : XDP_PASS);
  }
}

// UDP to groups that are in the map goes to the worker; all else that is sent to a group, to any, is
// the kernel's.
TEST_P(XdpIngressTest, GroupsThatServicesListenTo) {
  const char* mac4 = "01:00:5e:01:02:03";
  const char* mac6 = "33:33:00:01:00:03";
  const auto v4 = [&](const char* group) { return To(mac4).Ipv4("10.0.0.2", group); };
  const auto v6 = [&](const char* group) { return To(mac6).Ipv6("2001:db8::2", group); };
  const auto join = [&](const char* group) {
    sluice_group key{};
    const IpAddress address = *ParseIpAddress(group);
    if (address.is_v4()) {
      key.address[10] = key.address[11] = 0xff;
      address.v4().ToWire(key.address + 12);
    } else {
      address.v6().ToWire(key.address);
    }
    const uint8_t value = 1;
    ASSERT_EQ(bpf_map_update_elem(bpf_map__fd(skeleton_->maps.groups), &key, &value, 0), 0);
  };
  EXPECT_EQ(Run(v4("239.1.2.3").Udp(1, 2).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  EXPECT_EQ(Run(v6("ff05::1:3").Udp(1, 2).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  for (const char* group : {"239.1.2.3", "ff05::1:3", "224.0.0.251", "ff02::fb"}) join(group);

  EXPECT_EQ(Run(v4("239.1.2.3").Udp(1, 2).Build(), SLUICE_XDP_GROUP), XDP_REDIRECT);
  EXPECT_EQ(Run(v6("ff05::1:3").Udp(1, 2).Build(), SLUICE_XDP_GROUP), XDP_REDIRECT);
  EXPECT_EQ(Run(To(kOwn).Ipv4("10.0.0.2", "239.1.2.3").Udp(1, 2).Build(), SLUICE_XDP_GROUP),
            XDP_REDIRECT);
  // In fragments.
  EXPECT_EQ(Run(v4("239.1.2.3").Protocol(17).FragmentOffset(8).Payload(20).Build(),
                SLUICE_XDP_GROUP), XDP_REDIRECT);
  EXPECT_EQ(Run(v6("ff05::1:3").Protocol(44).Payload(20).Build(), SLUICE_XDP_GROUP), XDP_REDIRECT);
  // Others, and what is not UDP: queries and reports of IGMP and MLD, an echo request.
  EXPECT_EQ(Run(v4("239.1.2.4").Udp(1, 2).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  EXPECT_EQ(Run(v6("ff05::1:4").Udp(1, 2).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  for (const int protocol : {1, 2, 6, 89, 103, 112}) {
    EXPECT_EQ(Run(v4("239.1.2.3").Protocol(static_cast<uint8_t>(protocol)).Payload(20).Build(),
                  SLUICE_XDP_MULTICAST), XDP_PASS);
  }
  EXPECT_EQ(Run(v6("ff05::1:3").HopByHop().Protocol(58).Payload(20).Build(), SLUICE_XDP_MULTICAST),
            XDP_PASS);
  EXPECT_EQ(Run(v6("ff05::1:3").Protocol(89).Payload(20).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  // A link's own groups are the kernel's even so.
  EXPECT_EQ(Run(v4("224.0.0.251").Udp(5353, 5353).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  EXPECT_EQ(Run(v6("ff02::fb").Udp(5353, 5353).Build(), SLUICE_XDP_MULTICAST), XDP_PASS);
  // Cut short.
  const Bytes whole = v6("ff05::1:3").Udp(1, 2).Build();
  for (size_t size = 14; size < 14 + 40; ++size) {
    EXPECT_EQ(Run(Bytes(whole.begin(), whole.begin() + static_cast<long>(size)),
                  SLUICE_XDP_TRUNCATED), XDP_PASS);
  }
  // Early rules and checks stand before them, as before all that goes to a worker.
  skeleton_->bss->config.early = SLUICE_EARLY_MARTIANS | SLUICE_EARLY_HEADERS;
  EXPECT_EQ(Run(v4("239.1.2.3").Udp(1, 2).Build(), SLUICE_XDP_GROUP), XDP_REDIRECT);
  EXPECT_EQ(Run(v6("ff05::1:3").Udp(1, 2).Build(), SLUICE_XDP_GROUP), XDP_REDIRECT);
  EXPECT_EQ(Run(To(mac4).Ipv4("224.1.1.1", "239.1.2.3").Udp(1, 2).Build(),
                SLUICE_XDP_MARTIAN_SOURCE), XDP_DROP);
  EXPECT_EQ(Run(v6("ff05::1:3").PayloadLength(1000).Udp(1, 2).Build(), SLUICE_XDP_IPV6_TRUNCATED),
            XDP_DROP);
  skeleton_->bss->config.early = 0;
  const uint32_t key = 0;
  ASSERT_EQ(bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.xsks), &key), 0);
  EXPECT_EQ(Run(v4("239.1.2.3").Udp(1, 2).Build(), SLUICE_XDP_NO_SOCKET), XDP_PASS);
}

TEST_P(XdpIngressTest, WithoutASocketTheKernelGetsIt) {
  const uint32_t key = 0;
  ASSERT_EQ(bpf_map_delete_elem(bpf_map__fd(skeleton_->maps.xsks), &key), 0);
  const Bytes frame = To(kOwn).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Build();
  EXPECT_EQ(Run(frame, SLUICE_XDP_NO_SOCKET), XDP_PASS);
  SetSocket();
  EXPECT_EQ(Run(frame, SLUICE_XDP_IPV4), XDP_REDIRECT);
}

TEST_P(XdpIngressTest, DisabledPassesEverything) {
  skeleton_->bss->config.enabled = 0;
  for (const Case& c : Cases()) EXPECT_EQ(Run(c.frame, SLUICE_XDP_DISABLED), XDP_PASS);
}

TEST_P(XdpIngressTest, TakesThePuntMarkOff) {
  const uint64_t cookie = 0x1122334455667788;
  const Bytes frame = To(kOther).Ipv4("10.0.0.2", "10.0.0.1").Udp(1, 2).Payload(20).Build();
  sluice_punt_header mark{};
  mark.ether_type[0] = SLUICE_PUNT_ETHERTYPE >> 8;
  mark.ether_type[1] = SLUICE_PUNT_ETHERTYPE & 0xff;
  std::memcpy(mark.cookie, &cookie, sizeof cookie);
  const auto* bytes = reinterpret_cast<const uint8_t*>(&mark);
  Bytes marked(bytes, bytes + sizeof mark);
  marked.insert(marked.end(), frame.begin(), frame.end());

  EXPECT_EQ(Run(marked, SLUICE_XDP_OTHER_MAC), XDP_PASS) << "no marks in native mode";
  skeleton_->bss->config.punt_cookie = cookie;
  Bytes out;
  EXPECT_EQ(Run(marked, SLUICE_XDP_PUNTED, &out), XDP_PASS);
  EXPECT_EQ(out, frame);
  skeleton_->bss->config.enabled = 0;
  EXPECT_EQ(Run(marked, SLUICE_XDP_PUNTED, &out), XDP_PASS) << "also while disabled";
  EXPECT_EQ(out, frame);
  skeleton_->bss->config.enabled = 1;
  marked[16] ^= 1;
  EXPECT_EQ(Run(marked, SLUICE_XDP_OTHER_MAC), XDP_PASS) << "another cookie";
  marked[16] ^= 1;
  const Bytes runt(marked.begin(), marked.begin() + 24 + 13);
  EXPECT_EQ(Run(runt, SLUICE_XDP_OTHER_MAC), XDP_PASS) << "no Ethernet header would be left";
  EXPECT_EQ(Run(To(kOwn).Ipv4("10.0.0.2", "10.0.0.1").Build(), SLUICE_XDP_IPV4), XDP_REDIRECT);
}

}  // namespace
}  // namespace sluice
