// The flow tier in the kernel, case by case: what ends an entry, what goes to the worker, what is
// counted.
#include <gtest/gtest.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <vector>

#include "io/af_xdp/redirect_loss.h"
#include "support/net_sandbox.h"
#include "support/offload_flow.h"
#include "support/offload_rig.h"
#include "support/router_world.h"

namespace sluice {
namespace {

using tables::FlowDirection;
using test::Bytes;
using test::OffloadFlow;
using test::OffloadRig;
using test::PacketBuilder;
using test::TupleOf;

constexpr uint32_t kFlowMode = SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_FLOW, SLUICE_OFFLOAD_FLOW, 0, 1);

// A masqueraded TCP connection with IPv4 (id 1), and a plain UDP one with IPv6 (id 2).
class OffloadTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() { rig_.reset(); }
  // One program for all: it takes a while to load.
  void SetUp() override {
    if (rig_ == nullptr) rig_ = std::make_unique<OffloadRig>();
    const tables::OffloadMemory memory = rig_->memory();
    std::fill_n(memory.cells, size_t{memory.cpus} * memory.ids, sluice_offload_cell{});
    std::fill(std::begin(memory.state->own4), std::end(memory.state->own4), 0);
    counts_ = *rig_->program().ReadCounts();
    tcp4_.id = 1;
    tcp4_.in = TupleOf("10.0.0.2", 4000, "198.51.100.7", 443, 6);
    tcp4_.out = TupleOf("192.0.2.1", 50001, "198.51.100.7", 443, 6);
    udp6_.id = 2;
    udp6_.in = udp6_.out = TupleOf("2001:db8::2", 4000, "2001:db8:7::7", 53, 17);
    for (const OffloadFlow* flow : {&tcp4_, &udp6_}) {
      rig_->Live(flow->id, flow->epoch);
      rig_->Apply({MakeChange(*flow, rig_->memory())});
    }
    ASSERT_TRUE(rig_->program().SetOffload(kFlowMode));
  }

  static PacketBuilder Ip4() { return test::FromHost().Ipv4("10.0.0.2", "198.51.100.7"); }
  static PacketBuilder Ip6() { return test::FromHost().Ipv6("2001:db8::2", "2001:db8:7::7"); }
  static PacketBuilder Tcp4(uint8_t flags = 0x10) { return Ip4().Tcp(4000, 443, flags); }
  static PacketBuilder Udp6() { return Ip6().Udp(4000, 53); }

  void ExpectForwarded(const PacketBuilder& packet, const OffloadFlow& flow) {
    const Bytes frame = packet.Build();
    bool completed = false;
    const Bytes expected =
        test::Forwarded(world_, frame, flow, true, FlowDirection::kOriginal, completed);
    ASSERT_TRUE(rig_->Forwards(frame));
    EXPECT_EQ(rig_->frame(), expected);
  }
  void ExpectWorker(const PacketBuilder& packet) { ExpectWorker(packet.Build()); }
  void ExpectWorker(const Bytes& frame) {
    EXPECT_FALSE(rig_->Forwards(frame)) << test::ToHex(frame);
    EXPECT_EQ(rig_->frame(), frame) << "changed";
  }
  void ExpectBoth(bool forwarded) {
    EXPECT_EQ(rig_->Forwards(Tcp4().Payload(10).Build()), forwarded);
    EXPECT_EQ(rig_->Forwards(Udp6().Payload(10).Build()), forwarded);
  }
  uint64_t Count(sluice_xdp_reason reason) const {
    return (*rig_->program().ReadCounts())[reason] - counts_[reason];
  }

  test::RouterWorld world_;
  OffloadFlow tcp4_, udp6_;
  io::af_xdp::XdpCounts counts_ = {};  // at the test's start
  static std::unique_ptr<OffloadRig> rig_;
};
std::unique_ptr<OffloadRig> OffloadTest::rig_;

TEST_F(OffloadTest, ForwardsAndCounts) {
  ExpectForwarded(Tcp4().Payload(100), tcp4_);
  ExpectForwarded(Tcp4(0x18).Payload(101).PartialChecksum(), tcp4_);
  ExpectForwarded(Udp6().Payload(7), udp6_);
  EXPECT_EQ(rig_->Cell(1), (OffloadRig::Counted{2, 140 + 141, 1}));
  EXPECT_EQ(rig_->Cell(2), (OffloadRig::Counted{1, 55, 0}));
  EXPECT_EQ(Count(SLUICE_XDP_FLOW), 3u);
  EXPECT_EQ(Count(SLUICE_XDP_NO_SOCKET), 0u);
}

TEST_F(OffloadTest, OffIsOff) {
  EXPECT_FALSE(rig_->program().SetOffload(0));
  ExpectBoth(false);
  ASSERT_TRUE(rig_->program().SetOffload(
      SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_FLOW, SLUICE_OFFLOAD_OFF, 0, 0)));
  EXPECT_TRUE(rig_->Forwards(Tcp4().Build()));
  ExpectWorker(Udp6());
  ASSERT_TRUE(rig_->program().SetOffload(
      SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_OFF, SLUICE_OFFLOAD_FLOW, 0, 0)));
  ExpectWorker(Tcp4());
  EXPECT_TRUE(rig_->Forwards(Udp6().Build()));
  // An arrival slot of its own has entries of its own.
  ASSERT_TRUE(rig_->program().SetOffload(kFlowMode | SLUICE_OFFLOAD_WORD(0, 0, 3, 0)));
  ExpectBoth(false);
}

TEST_F(OffloadTest, EachGenerationEndsAnEntry) {
  const tables::OffloadMemory memory = rig_->memory();
  ExpectBoth(true);
  BumpWorld(memory);
  ExpectBoth(false);
  const auto renew = [&] {
    rig_->Apply({MakeChange(tcp4_, memory), MakeChange(udp6_, memory)});
    ExpectBoth(true);
  };
  renew();
  for (const IpAddress& address : {*ParseIpAddress("10.0.0.0"), *ParseIpAddress("198.51.100.0")}) {
    BumpRoute(memory, Ipv4Prefix{address.v4(), 24});
    ExpectWorker(Tcp4());
    EXPECT_TRUE(rig_->Forwards(Udp6().Build()));
    renew();
  }
  for (const char* text : {"2001:db8::", "2001:db8:7::"}) {
    BumpRoute(memory, Ipv6Prefix{*ParseIpv6(text), 48});
    ExpectWorker(Udp6());
    EXPECT_TRUE(rig_->Forwards(Tcp4().Build()));
    renew();
  }
  BumpRoute(memory, Ipv4Prefix{});
  ExpectBoth(false);
}

TEST_F(OffloadTest, EpochEndsAnEntry) {
  rig_->Live(1, 0);
  ExpectWorker(Tcp4());
  rig_->Live(1, 2);
  ExpectWorker(Tcp4());
  rig_->Live(1, 1);
  EXPECT_TRUE(rig_->Forwards(Tcp4().Build()));
  // An entry made for no epoch is never valid.
  tcp4_.epoch = 0;
  rig_->Apply({MakeChange(tcp4_, rig_->memory())});
  rig_->Live(1, 0);
  ExpectWorker(Tcp4());
}

// As if the kernel had used an entry's memory for another one while it was being read.
TEST_F(OffloadTest, EntryWithoutItsTagIsNotUsed) {
  const tables::OffloadChange change = MakeChange(tcp4_, rig_->memory());
  const int fd = rig_->maps().fds().flows4;
  sluice_offload_entry4 good;
  ASSERT_EQ(bpf_map_lookup_elem(fd, &change.key4, &good), 0);
  EXPECT_NE(good.action.tag, 0u);
  auto* const words = reinterpret_cast<uint64_t*>(&good);
  for (size_t i = 0; i < sizeof good / 8; ++i) {
    words[i] ^= 1ull << (7 * i);
    ASSERT_EQ(bpf_map_update_elem(fd, &change.key4, &good, 0), 0);
    ExpectWorker(Tcp4());
    words[i] ^= 1ull << (7 * i);
  }
  sluice_offload_key4 other = change.key4;
  other.source_port ^= 1;
  ASSERT_EQ(bpf_map_update_elem(fd, &other, &good, 0), 0);
  ExpectWorker(Ip4().Tcp(4000 ^ 256, 443, 0x10));
  ASSERT_EQ(bpf_map_update_elem(fd, &change.key4, &good, 0), 0);
  EXPECT_TRUE(rig_->Forwards(Tcp4().Build()));
}

TEST_F(OffloadTest, MtuCountsTheIpLength) {
  tables::OffloadChange change = MakeChange(tcp4_, rig_->memory());
  change.action().mtu = 140;
  tables::OffloadChange change6 = MakeChange(udp6_, rig_->memory());
  change6.action().mtu = 148;
  rig_->Apply({change, change6});
  ExpectForwarded(Tcp4().Payload(100), tcp4_);
  ExpectWorker(Tcp4().Payload(101));
  ExpectForwarded(Udp6().Payload(100), udp6_);
  ExpectWorker(Udp6().Payload(101));
}

TEST_F(OffloadTest, LastHopIsTheWorkers) {
  for (const uint8_t ttl : {0, 1}) {
    ExpectWorker(Ip4().Ttl(ttl).Tcp(4000, 443, 0x10));
    ExpectWorker(Ip6().HopLimit(ttl).Udp(4000, 53));
  }
  ExpectForwarded(Ip4().Ttl(2).Tcp(4000, 443, 0x10), tcp4_);
  ExpectForwarded(Ip6().HopLimit(2).Udp(4000, 53), udp6_);
}

TEST_F(OffloadTest, PaddingIsTrimmed) {
  ExpectForwarded(Tcp4().PadTo(60), tcp4_);
  EXPECT_EQ(rig_->frame().size(), 54u);
  ExpectForwarded(Udp6().Payload(1).PadTo(200), udp6_);
  EXPECT_EQ(rig_->frame().size(), 63u);
  ExpectForwarded(Tcp4().Payload(1).PartialChecksum().PadTo(90), tcp4_);
  EXPECT_EQ(rig_->Cell(1), (OffloadRig::Counted{2, 40 + 41, 1}));
}

TEST_F(OffloadTest, FlagsThatMeanSomethingAreTheWorkers) {
  for (int flags = 0; flags < 256; ++flags) {
    const Bytes frame = Tcp4(static_cast<uint8_t>(flags)).Build();
    const bool plain = flags == 0x10 || flags == 0x18;
    EXPECT_EQ(rig_->Forwards(frame), plain) << flags;
    if (plain) continue;
    EXPECT_EQ(rig_->frame(), frame);
  }
  for (int reserved = 1; reserved < 16; ++reserved) {
    Bytes frame = Tcp4().Build();
    frame[46] = static_cast<uint8_t>(frame[46] | reserved);
    ExpectWorker(frame);
  }
}

TEST_F(OffloadTest, OddPacketsAreTheWorkers) {
  ExpectWorker(Ip4().MoreFragments().Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().FragmentOffset(8).Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().Options({1, 1, 1, 1}).Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().BadIpChecksum().Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().TotalLength(400).Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().TotalLength(39).Tcp(4000, 443, 0x10));
  ExpectWorker(Ip4().IcmpEcho(1, 1));
  ExpectWorker(Ip4().Udp(4000, 443));
  ExpectWorker(Ip6().PayloadLength(0).Udp(4000, 53));
  ExpectWorker(Ip6().PayloadLength(9).Udp(4000, 53));
  ExpectWorker(Ip6().Udp(4000, 53).UdpLength(9));
  ExpectWorker(Ip6().Udp(4000, 53).UdpLength(7));
  ExpectWorker(Ip6().HopByHop().Udp(4000, 53));
  ExpectWorker(Ip6().DestinationOptions().Udp(4000, 53));
  ExpectWorker(Ip6().Fragment(0, true, 1).Udp(4000, 53));
  ExpectWorker(Ip6().Tcp(4000, 53));
  ExpectWorker(Ip6().Udp(4000, 53).UdpLength(8).Payload(4));
  ExpectForwarded(Ip6().Udp(4000, 53).Payload(4), udp6_);
}

// No device, no change: the worker is as good as before.
TEST_F(OffloadTest, WithoutADeviceTheWorkerHasIt) {
  ASSERT_TRUE(rig_->maps().ClearDevice(OffloadRig::kOut).ok());
  ASSERT_TRUE(rig_->maps().ClearDevice(OffloadRig::kOut).ok());
  ExpectWorker(Tcp4().PadTo(60));
  ExpectWorker(Udp6());
  EXPECT_EQ(rig_->Cell(1), OffloadRig::Counted{});
  ASSERT_TRUE(rig_->maps().SetDevice(OffloadRig::kOut, IfIndex{if_nametoindex("near")}).ok());
  ExpectBoth(true);
  EXPECT_FALSE(rig_->maps().SetDevice(OffloadRig::kOut, IfIndex{99999}).ok());
}

// Not looked at when nobody on the link leaves them out; then the field is like any other.
TEST_F(OffloadTest, PartialChecksumsOnlyWhereAsked) {
  ASSERT_TRUE(rig_->program().SetOffload(
      SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_FLOW, SLUICE_OFFLOAD_FLOW, 0, 0)));
  const Bytes frame = Udp6().Payload(20).PartialChecksum().Build();
  EXPECT_TRUE(rig_->Forwards(frame));
  EXPECT_EQ(rig_->frame()[60], frame[60]);
  EXPECT_EQ(rig_->frame()[61], frame[61]);
  EXPECT_EQ(rig_->Cell(2).completed, 0u);
}

// Every length up to what fits a page with its headroom.
TEST_F(OffloadTest, CompletesAnyLength) {
  tables::OffloadChange change = MakeChange(tcp4_, rig_->memory());
  change.action().mtu = 9000;
  tables::OffloadChange change6 = MakeChange(udp6_, rig_->memory());
  change6.action().mtu = 9000;
  rig_->Apply({change, change6});
  std::vector<size_t> sizes = {1400, 1459, 1460, 1461, 2000, 2047, 3000};
  for (size_t i = 0; i < 300; ++i) sizes.push_back(i);
  for (const size_t size : sizes) {
    for (const bool v4 : {true, false}) {
      const PacketBuilder packet = (v4 ? Tcp4() : Udp6()).Payload(size).PartialChecksum();
      if (v4 && size > 1500) continue;  // the reference's frames end there
      SCOPED_TRACE(size);
      if (size <= 1500) {
        ExpectForwarded(packet, v4 ? tcp4_ : udp6_);
        continue;
      }
      ASSERT_TRUE(rig_->Forwards(packet.Build()));
      Bytes expected = Udp6().HopLimit(63).Payload(size).Build();
      EXPECT_EQ(Bytes(rig_->frame().begin() + 54, rig_->frame().end()),
                Bytes(expected.begin() + 54, expected.end()));
    }
  }
}

TEST_F(OffloadTest, RouteModesJudgeAddresses) {
  OffloadFlow to4, to6;
  to4.id = 3;
  to4.in = to4.out = TupleOf("10.0.0.2", 0, "198.51.100.9", 0, 0);
  to6.id = 4;
  to6.in = to6.out = TupleOf("2001:db8::2", 0, "2001:db8:9::9", 0, 0);
  for (const OffloadFlow* flow : {&to4, &to6}) {
    rig_->Live(flow->id, flow->epoch);
    rig_->Apply({MakeChange(*flow, rig_->memory(), SLUICE_OFFLOAD_DESTINATION)});
  }
  ASSERT_TRUE(rig_->program().SetOffload(
      SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_DESTINATION, SLUICE_OFFLOAD_DESTINATION, 0, 1)));
  const auto from4 = [](const char* source) {
    return test::FromHost().Ipv4(source, "198.51.100.9");
  };
  const auto from6 = [](const char* source) {
    return test::FromHost().Ipv6(source, "2001:db8:9::9");
  };
  ExpectForwarded(from4("10.0.0.2").IcmpEcho(1, 2), to4);
  ExpectForwarded(from4("203.0.113.4").Tcp(1, 2, 0x02), to4);
  ExpectForwarded(from4("203.0.113.4").Protocol(47).Payload(30), to4);
  ExpectForwarded(from4("203.0.113.4"), to4);
  ExpectForwarded(from6("2001:db8:44::4").Icmpv6Echo(1, 2), to6);
  ExpectForwarded(from6("2001:db8:44::4").Tcp(1, 2, 0x02).PartialChecksum(), to6);
  for (const char* source : {"0.0.0.1", "127.0.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255"}) {
    ExpectWorker(from4(source).Udp(1, 2));
  }
  for (const char* source : {"::", "::1", "ff02::1", "fe80::1", "febf::1"}) {
    ExpectWorker(from6(source).Udp(1, 2));
  }
  ExpectForwarded(from6("fec0::1").Udp(1, 2), to6);
  for (const uint8_t extension : {0, 43, 44, 51, 60}) {
    ExpectWorker(from6("2001:db8:44::4").Protocol(extension).Payload(Bytes(24)));
  }
  const uint32_t bit = SLUICE_OFFLOAD_OWN_BIT(test::A4("203.0.113.4").value);
  rig_->memory().state->own4[bit / 64] |= 1ull << (bit % 64);
  ExpectWorker(from4("203.0.113.4").Udp(1, 2));
  // By both addresses: another source is another entry.
  rig_->Apply({MakeChange(to4, rig_->memory(), SLUICE_OFFLOAD_PAIR)});
  ASSERT_TRUE(rig_->program().SetOffload(SLUICE_OFFLOAD_WORD(SLUICE_OFFLOAD_PAIR, 0, 0, 0)));
  ExpectForwarded(from4("10.0.0.2").Udp(1, 2), to4);
  ExpectWorker(from4("10.0.0.3").Udp(1, 2));
}

// A frame in several buffers is the worker's, also when the packet is in the first one.
TEST_F(OffloadTest, SeveralBuffers) {
  rig_.reset();
  rig_ = std::make_unique<OffloadRig>(/*multi_buffer=*/true);
  if (!rig_->program().multi_buffer()) return rig_.reset();  // before Linux 6.6 there are none
  for (const OffloadFlow* flow : {&tcp4_, &udp6_}) {
    rig_->Live(flow->id, flow->epoch);
    rig_->Apply({MakeChange(*flow, rig_->memory())});
  }
  ASSERT_TRUE(rig_->program().SetOffload(kFlowMode));
  ExpectBoth(true);
  ExpectWorker(Tcp4().Payload(60).PadTo(6000));
  ExpectWorker(Udp6().Payload(60).PadTo(6000));
  rig_.reset();
}

// With real frames, from one veth pair to the other.
TEST_F(OffloadTest, ArrivesAtTheOtherInterface) {
  test::VethPair out("near2", "far2");
  test::Shell("ethtool -K far2 gro on");  // so that XDP can send there
  ASSERT_TRUE(rig_->maps().SetDevice(OffloadRig::kOut, IfIndex{if_nametoindex("near2")}).ok());
  test::RawSocket sender("far"), receiver("far2");
  for (const PacketBuilder& packet : {Tcp4().Payload(1000).PartialChecksum(), Udp6().PadTo(80)}) {
    const Bytes frame = packet.Build();
    bool completed = false;
    const OffloadFlow& flow = frame[12] == 0x08 ? tcp4_ : udp6_;
    const Bytes expected =
        test::Forwarded(world_, frame, flow, true, FlowDirection::kOriginal, completed);
    ASSERT_TRUE(sender.Send(frame));
    const auto received = receiver.Receive();
    ASSERT_TRUE(received.has_value());
    EXPECT_EQ(*received, expected);
  }
  EXPECT_EQ(Count(SLUICE_XDP_FLOW), 2u);
  // The kernel takes a device that goes out of the map; then the worker has its packets again.
  out.Remove();
  ExpectBoth(false);
  ASSERT_TRUE(rig_->maps().SetDevice(OffloadRig::kOut, IfIndex{if_nametoindex("near")}).ok());
}

// A veth whose other end has no NAPI takes nothing from XDP: it is counted, and no further frame goes
// there.
TEST_F(OffloadTest, AnOutputThatTakesNothingIsClosed) {
  const tables::OffloadMemory memory = rig_->memory();
  test::VethPair out("near2", "far2");
  test::Shell("ethtool -K far2 gro off");
  const IfIndex near2{if_nametoindex("near2")};
  ASSERT_TRUE(rig_->maps().SetDevice(OffloadRig::kOut, near2).ok());
  auto loss = io::af_xdp::RedirectLoss::Attach(rig_->maps().fds());
  ASSERT_TRUE(loss.ok()) << loss.status();
  ASSERT_TRUE((*loss)->Add(OffloadRig::kOut, near2).ok());
  test::RawSocket sender("far");
  ASSERT_TRUE((*loss)->Add(IfaceSlot{0}, IfIndex{if_nametoindex("near")}).ok());
  ASSERT_TRUE(sender.Send(Tcp4().Build()));
  ASSERT_TRUE(test::Eventually([&] { return tables::ClosedOutputs(memory) != 0; }));
  EXPECT_EQ(tables::ClosedOutputs(memory), uint64_t{1} << OffloadRig::kOut.value);
  EXPECT_EQ(tables::LostFrames(memory, OffloadRig::kOut), 1u);
  ExpectBoth(false);
  tables::ReopenOutputs(memory, uint64_t{1} << OffloadRig::kOut.value);
  EXPECT_EQ(tables::ClosedOutputs(memory), 0u);
  ASSERT_TRUE(rig_->maps().SetDevice(OffloadRig::kOut, IfIndex{if_nametoindex("near")}).ok());
}

// Without maps there is no tier at all.
TEST_F(OffloadTest, NeedsMaps) {
  rig_.reset();
  rig_ = std::make_unique<OffloadRig>(false, 16, /*with_maps=*/false);
  EXPECT_FALSE(rig_->program().SetOffload(kFlowMode));
  ExpectBoth(false);
  rig_.reset();
}

}  // namespace
}  // namespace sluice
