// Relays in the flow tier, case by case, natively and in the kernel: what their packets become, and
// what goes to the worker.
#include "support/offload_relay.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <iterator>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "support/net_sandbox.h"
#include "support/offload_native.h"
#include "support/offload_rig.h"
#include "support/router_world.h"

namespace sluice {
namespace {

using test::Bytes;
using test::OffloadRig;
using test::PacketBuilder;
using test::Relay;
using test::TupleOf;

constexpr uint32_t Word(sluice_offload_mode mode, uint32_t slot = 0, uint32_t complete = 1) {
  return SLUICE_OFFLOAD_WORD(mode, mode, slot, complete);
}
constexpr uint32_t kRoutes = Word(SLUICE_OFFLOAD_DESTINATION);
constexpr uint32_t kRelays = kRoutes | SLUICE_OFFLOAD_RELAYS;

// What a segment says.
struct Segment {
  uint32_t seq = 1000;
  uint32_t ack = 2000;
  uint16_t window = 500;
  std::optional<std::pair<uint32_t, uint32_t>> stamps = {};
  uint8_t flags = 0x10;
  uint8_t ttl = 17;
  size_t payload = 0;
};

Bytes Stamps(uint32_t value, uint32_t echo) {
  Bytes options = {1, 1, 8, 10, 0, 0, 0, 0, 0, 0, 0, 0};
  StoreBe32(&options[4], value);
  StoreBe32(&options[8], echo);
  return options;
}

PacketBuilder Ip(PacketBuilder link, const tables::FlowTuple& t) {
  if (t.family == Family::kIpv6) return link.Ipv6(t.source, t.destination);
  return link.Ipv4(Ipv4(static_cast<uint32_t>(t.source.lo)),
                   Ipv4(static_cast<uint32_t>(t.destination.lo)));
}
PacketBuilder Tcp(PacketBuilder link, const tables::FlowTuple& t, const Segment& s) {
  PacketBuilder b =
      Ip(std::move(link), t).Ttl(s.ttl).Tcp(t.source_port, t.destination_port, s.flags);
  b.Sequence(s.seq, s.ack).Window(s.window);
  if (s.stamps) b.Options(Stamps(s.stamps->first, s.stamps->second));
  if (s.payload != 0) b.Payload(s.payload);
  return b;
}
PacketBuilder Udp(PacketBuilder link, const tables::FlowTuple& t, uint8_t ttl = 17) {
  return Ip(std::move(link), t).Ttl(ttl).Udp(t.source_port, t.destination_port);
}
PacketBuilder FromUs() { return PacketBuilder().Ethernet(test::kWanMac, test::kPeerMac); }

// A client's connection to 192.0.2.1 and ours to a backend: TCP with timestamps over IPv4 (id 1)
// and without over IPv6 (id 2); UDP over both (ids 3 and 4).
class OffloadRelayTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() { rig_.reset(); }
  // One program for all: it takes a while to load.
  void SetUp() override {
    if (rig_ == nullptr) rig_ = std::make_unique<OffloadRig>();
    const tables::OffloadMemory memory = rig_->memory();
    std::fill_n(memory.cells, size_t{memory.cpus} * memory.ids, sluice_offload_cell{});
    std::fill(std::begin(memory.state->own4), std::end(memory.state->own4), 0);
    tcp4_.flow.in = TupleOf("10.0.0.2", 4000, "192.0.2.1", 443, 6);
    tcp4_.flow.out = TupleOf("192.0.2.1", 50001, "198.51.100.7", 8443, 6);
    tcp4_.splice = sluice_splice{.seq = 0x10203040,
                                 .ack = 0xfedcba98,
                                 .tsval = 77,
                                 .tsecr = 0u - 99,
                                 .window_left = 2,
                                 .window_right = 0,
                                 .timestamps = 1,
                                 .reserved = {}};
    tcp6_.flow.in = TupleOf("2001:db8::2", 4000, "2001:db8:1::1", 443, 6);
    tcp6_.flow.out = TupleOf("2001:db8:1::1", 50001, "2001:db8:7::7", 8443, 6);
    tcp6_.splice = sluice_splice{.seq = 1,
                                 .ack = 0xffffffff,
                                 .tsval = 1234,  // of no meaning
                                 .tsecr = 5678,
                                 .window_left = 0,
                                 .window_right = 3,
                                 .timestamps = 0,
                                 .reserved = {}};
    udp4_.flow.in = TupleOf("10.0.0.2", 4000, "192.0.2.1", 53, 17);
    udp4_.flow.out = TupleOf("192.0.2.1", 50001, "198.51.100.7", 5353, 17);
    udp6_.flow.in = TupleOf("2001:db8::2", 4000, "2001:db8:1::1", 53, 17);
    udp6_.flow.out = TupleOf("2001:db8:1::1", 50001, "2001:db8:7::7", 5353, 17);
    uint32_t id = 0;
    for (Relay* relay : {&tcp4_, &tcp6_, &udp4_, &udp6_}) {
      relay->flow.id = ++id;
      Install(*relay);
    }
    SetWord(kRelays);
  }
  void TearDown() override {
    for (const tables::OffloadChange& change : installed_) rig_->Apply({test::Removal(change)});
  }

  void Install(const Relay& relay) { Install(MakeRelay(relay, rig_->memory())); }
  void Install(const tables::OffloadChange& change) {
    rig_->Live(change.action().id, change.action().epoch);
    rig_->Apply({change});
    installed_.push_back(change);
  }
  void SetWord(uint32_t word) {
    word_ = word;
    ASSERT_TRUE(rig_->program().SetOffload(word));
  }

  void ExpectBecomes(const Bytes& frame, const Bytes& expected) {
    Bytes native = frame;
    ASSERT_TRUE(test::ForwardsNatively(rig_->maps(), word_, native)) << test::ToHex(frame);
    EXPECT_EQ(test::ToHex(native), test::ToHex(expected));
    ASSERT_TRUE(rig_->Forwards(frame)) << test::ToHex(frame);
    EXPECT_EQ(test::ToHex(rig_->frame()), test::ToHex(expected));
  }
  void ExpectWorker(const Bytes& frame) {
    const OffloadRig::Counted before[] = {rig_->Cell(1), rig_->Cell(2), rig_->Cell(3)};
    Bytes native = frame;
    EXPECT_FALSE(test::ForwardsNatively(rig_->maps(), word_, native)) << test::ToHex(frame);
    EXPECT_EQ(native, frame) << "changed";
    EXPECT_FALSE(rig_->Forwards(frame)) << test::ToHex(frame);
    EXPECT_EQ(rig_->frame(), frame) << "changed";
    for (uint32_t id = 1; id <= 3; ++id) EXPECT_EQ(rig_->Cell(id), before[id - 1]);
  }
  void ExpectWorker(const PacketBuilder& packet) { ExpectWorker(packet.Build()); }

  PacketBuilder In4(const Segment& s) const { return Tcp(test::FromHost(), tcp4_.flow.in, s); }
  PacketBuilder In6(const Segment& s) const { return Tcp(test::FromHost(), tcp6_.flow.in, s); }
  // `out` is with our TTL, unless it says otherwise.
  void Expect4(const Segment& in, Segment out) {
    out.ttl = 64;
    ExpectBecomes(In4(in).Build(), Tcp(FromUs(), tcp4_.flow.out, out).Build());
  }
  void Expect6(const Segment& in, Segment out) {
    out.ttl = 64;
    ExpectBecomes(In6(in).Build(), Tcp(FromUs(), tcp6_.flow.out, out).Build());
  }
  // Any segment, as long as it is what the splice takes.
  void ExpectAllGo() {
    Expect4(Plain4(), Spliced4());
    Expect6({}, {.seq = 1001, .ack = 1999, .window = 62});
    for (const Relay* relay : {&udp4_, &udp6_}) {
      ExpectBecomes(Udp(test::FromHost(), relay->flow.in).Payload(9).Build(),
                    Udp(FromUs(), relay->flow.out, 64).Payload(9).Build());
    }
  }
  void ExpectNoneGoes() {
    ExpectWorker(In4(Plain4()));
    ExpectWorker(In6({}));
    for (const Relay* relay : {&udp4_, &udp6_}) ExpectWorker(Udp(test::FromHost(), relay->flow.in));
  }
  static Segment Plain4() { return {.stamps = {{100, 200}}}; }
  static Segment Spliced4() {
    return {
        .seq = 1000 + 0x10203040, .ack = 2000 + 0xfedcba98, .window = 2000, .stamps = {{177, 101}}};
  }

  Relay tcp4_, tcp6_, udp4_, udp6_;
  uint32_t word_ = 0;
  std::vector<tables::OffloadChange> installed_;
  static std::unique_ptr<OffloadRig> rig_;
};
std::unique_ptr<OffloadRig> OffloadRelayTest::rig_;

TEST_F(OffloadRelayTest, InEveryMode) {
  ExpectAllGo();
  SetWord(Word(SLUICE_OFFLOAD_PAIR) | SLUICE_OFFLOAD_RELAYS);
  ExpectAllGo();
  SetWord(Word(SLUICE_OFFLOAD_FLOW) | SLUICE_OFFLOAD_RELAYS);
  ExpectAllGo();
  SetWord(Word(SLUICE_OFFLOAD_FLOW));
  ExpectAllGo();
}

TEST_F(OffloadRelayTest, NotLookedForWithoutTheBit) {
  SetWord(kRoutes);
  ExpectNoneGoes();
  SetWord(Word(SLUICE_OFFLOAD_PAIR));
  ExpectNoneGoes();
  SetWord(kRelays | Word(SLUICE_OFFLOAD_OFF, 3));  // another arrival slot
  ExpectNoneGoes();
}

TEST_F(OffloadRelayTest, EntriesOfOthersAreNotUsedInModesOfRoutes) {
  for (Relay* relay : {&udp4_, &udp6_}) {
    relay->ours = false;
    Install(*relay);
  }
  const auto frame = [](const Relay& relay) {
    return Udp(test::FromHost(), relay.flow.in).Build();
  };
  for (const Relay* relay : {&udp4_, &udp6_}) ExpectWorker(frame(*relay));
  SetWord(Word(SLUICE_OFFLOAD_FLOW));
  for (const Relay* relay : {&udp4_, &udp6_}) {
    ExpectBecomes(frame(*relay), Udp(FromUs(), relay->flow.out, 16).Build());
  }
}

// Also one that is not in force: a worker renews it.
TEST_F(OffloadRelayTest, ARouteComesFirst) {
  std::vector<tables::OffloadChange> routes;
  for (const Relay* relay : {&tcp4_, &tcp6_}) {
    test::OffloadFlow route;
    route.id = 20 + relay->flow.id;
    route.in = route.out = relay->flow.in;
    routes.push_back(MakeChange(route, rig_->memory(), SLUICE_OFFLOAD_DESTINATION));
    Install(routes.back());
  }
  Segment next = Plain4();
  next.ttl = 16;
  ExpectBecomes(In4(Plain4()).Build(), Tcp(FromUs(), tcp4_.flow.in, next).Build());
  ExpectBecomes(In6({}).Build(), Tcp(FromUs(), tcp6_.flow.in, {.ttl = 16}).Build());
  for (const tables::OffloadChange& route : routes) rig_->Live(route.action().id, 0);
  ExpectWorker(In4(Plain4()));
  ExpectWorker(In6({}));
  for (const tables::OffloadChange& route : routes) rig_->Apply({test::Removal(route)});
  ExpectAllGo();
}

TEST_F(OffloadRelayTest, SourcesThatAreOddForARouteAreForARelay) {
  const uint32_t bit = SLUICE_OFFLOAD_OWN_BIT(test::A4("10.0.0.2").value);
  rig_->memory().state->own4[bit / 64] |= 1ull << (bit % 64);
  ExpectWorker(In4(Plain4()));
  udp6_.flow.in.source = *ParseIpv6("fe80::2");
  Install(udp6_);
  ExpectWorker(Udp(test::FromHost(), udp6_.flow.in));
}

TEST_F(OffloadRelayTest, Counts) {
  // The CPUs' latest: of those that have not carried any, what it began with.
  const auto last = [&](uint32_t id) {
    std::pair<uint32_t, uint32_t> numbers{0, 0};
    const auto later = [](uint32_t& latest, uint32_t value) {
      if (static_cast<int32_t>(value - latest) > 0) latest = value;
    };
    for (uint32_t cpu = 0; cpu < rig_->memory().cpus; ++cpu) {
      const sluice_offload_cell& cell = rig_->memory().cell(cpu, id);
      later(numbers.first, cell.last_ack);
      later(numbers.second, cell.last_end);
    }
    return numbers;
  };
  const auto begin = [&](uint32_t id, uint32_t ack, uint32_t end) {
    for (uint32_t cpu = 0; cpu < rig_->memory().cpus; ++cpu) {
      rig_->memory().cell(cpu, id).last_ack = ack;
      rig_->memory().cell(cpu, id).last_end = end;
    }
  };
  using Numbers = std::pair<uint32_t, uint32_t>;
  Segment s = Plain4();
  s.payload = 100;
  begin(1, s.ack - 1, s.seq);
  EXPECT_TRUE(rig_->Forwards(In4(s).Build()));
  EXPECT_EQ(last(1), (Numbers{s.ack, s.seq + 100}));
  // Sent again, or overtaken: neither goes back.
  s.seq -= 500;
  s.ack -= 500;
  EXPECT_TRUE(rig_->Forwards(In4(s).PartialChecksum().PadTo(200).Build()));
  EXPECT_EQ(last(1), (Numbers{s.ack + 500, s.seq + 600}));
  EXPECT_EQ(rig_->Cell(1), (OffloadRig::Counted{2, 2 * 152, 1}));
  EXPECT_TRUE(rig_->Forwards(In6({.ack = 77, .payload = 1}).Build()));
  EXPECT_EQ(last(2).first, 77u);
  EXPECT_EQ(rig_->Cell(2), (OffloadRig::Counted{1, 61, 0}));
  // Without a splice there is no such number.
  EXPECT_TRUE(rig_->Forwards(Udp(test::FromHost(), udp4_.flow.in).Payload(30).Build()));
  EXPECT_EQ(last(3), (Numbers{0, 0}));
  EXPECT_EQ(rig_->Cell(3), (OffloadRig::Counted{1, 58, 0}));
}

TEST_F(OffloadRelayTest, NumbersGoOnBehindTheirEnd) {
  Segment in = Plain4(), out = Spliced4();
  in.seq = out.seq = 0;
  out.seq -= 0u - 0x10203040u;
  in.ack = 0u - 0xfedcba98u;
  out.ack = 0;
  in.stamps = {{0u - 77, 99}};
  out.stamps = {{0, 0}};
  Expect4(in, out);
  in.ack -= 1;
  in.stamps = {{0u - 78, 98}};
  out.ack = 0xffffffff;
  out.stamps = {{0xffffffff, 0xffffffff}};
  Expect4(in, out);
  Expect6({.seq = 0xffffffff, .ack = 0}, {.seq = 0, .ack = 0xffffffff, .window = 62});
}

TEST_F(OffloadRelayTest, WindowIsScaledAndClamped) {
  const std::pair<uint16_t, uint16_t> left[] = {
      {0, 0}, {1, 4}, {0x3fff, 0xfffc}, {0x4000, 0xffff}, {0x4001, 0xffff}, {0xffff, 0xffff}};
  for (const auto& [in, out] : left) {
    Segment before = Plain4(), after = Spliced4();
    before.window = in;
    after.window = out;
    Expect4(before, after);
  }
  const std::pair<uint16_t, uint16_t> right[] = {{0, 0}, {7, 0}, {8, 1}, {0xffff, 0x1fff}};
  for (const auto& [in, out] : right) {
    Expect6({.window = in}, {.seq = 1001, .ack = 1999, .window = out});
  }
  tcp6_.splice->window_right = 14;
  Install(tcp6_);
  Expect6({.window = 0xffff}, {.seq = 1001, .ack = 1999, .window = 3});
  tcp6_.splice->window_right = 0;
  Install(tcp6_);
  Expect6({.window = 0xffff}, {.seq = 1001, .ack = 1999, .window = 0xffff});
  tcp6_.splice->window_left = 14;
  Install(tcp6_);
  Expect6({.window = 3}, {.seq = 1001, .ack = 1999, .window = 0xc000});
  Expect6({.window = 4}, {.seq = 1001, .ack = 1999, .window = 0xffff});
}

TEST_F(OffloadRelayTest, DataOfAnyLength) {
  for (const uint8_t flags : {0x10, 0x18}) {
    for (const size_t size : {1, 2, 3, 63, 64, 65, 1000, 1439, 1440}) {
      Segment in = Plain4(), out = Spliced4();
      in.payload = out.payload = size;
      in.flags = out.flags = flags;
      out.ttl = 64;
      Expect4(in, out);
      const Bytes expected = Tcp(FromUs(), tcp4_.flow.out, out).Build();
      ExpectBecomes(In4(in).PartialChecksum().Build(), expected);
      ExpectBecomes(In4(in).PadTo(size + 100).Build(), expected);
      ExpectBecomes(In4(in).PartialChecksum().PadTo(size + 100).Build(), expected);
      Expect6({.flags = flags, .payload = size},
              {.seq = 1001, .ack = 1999, .window = 62, .flags = flags, .payload = size});
    }
  }
}

// Where senders make their checksums, one that looks partial is like any other.
TEST_F(OffloadRelayTest, WrongChecksumsRemainWrong) {
  Segment out = Spliced4();
  out.ttl = 64;
  Bytes expected = Tcp(FromUs(), tcp4_.flow.out, out).Build();
  const auto becomes = [&](const Bytes& frame) {
    const uint32_t wrong = LoadBe16(&frame[50]) + 65535u - test::RightChecksum(frame, 50);
    const uint32_t right = test::RightChecksum(expected, 50);
    StoreBe16(&expected[50], static_cast<uint16_t>((right + wrong) % 65535));
    ExpectBecomes(frame, expected);
  };
  becomes(In4(Plain4()).BadChecksum().Build());
  becomes(In4(Plain4()).L4Checksum(0).Build());
  becomes(In4(Plain4()).L4Checksum(0xffff).Build());
  SetWord(Word(SLUICE_OFFLOAD_DESTINATION, 0, 0) | SLUICE_OFFLOAD_RELAYS);
  becomes(In4(Plain4()).PartialChecksum().Build());
  EXPECT_EQ(rig_->Cell(1).completed, 0u);
}

TEST_F(OffloadRelayTest, DatagramsWithoutAChecksum) {
  ExpectBecomes(Udp(test::FromHost(), udp4_.flow.in).ZeroUdpChecksum().Payload(33).Build(),
                Udp(FromUs(), udp4_.flow.out, 64).ZeroUdpChecksum().Payload(33).Build());
  // One that comes out as 0 says 0xffff: so none means that.
  Bytes data = {0, 0};
  Bytes probe = Udp(FromUs(), udp4_.flow.out, 64).Payload(data).Build();
  std::copy_n(&probe[40], 2, data.begin());
  const Bytes expected = Udp(FromUs(), udp4_.flow.out, 64).Payload(data).Build();
  ASSERT_EQ(LoadBe16(&expected[40]), 0xffff);
  ExpectBecomes(Udp(test::FromHost(), udp4_.flow.in).Payload(data).Build(), expected);
  ExpectBecomes(Udp(test::FromHost(), udp4_.flow.in).Payload(data).PartialChecksum().Build(),
                expected);
}

TEST_F(OffloadRelayTest, LeavesWithATtlOfItsOwn) {
  for (const int ttl : {2, 3, 63, 64, 65, 254, 255}) {
    Segment in = Plain4();
    in.ttl = static_cast<uint8_t>(ttl);
    Expect4(in, Spliced4());
    Expect6({.ttl = in.ttl}, {.seq = 1001, .ack = 1999, .window = 62});
  }
  for (const int ttl : {0, 1}) {
    Segment in = Plain4();
    in.ttl = static_cast<uint8_t>(ttl);
    ExpectWorker(In4(in));
    ExpectWorker(In6({.ttl = in.ttl}));
    ExpectWorker(Udp(test::FromHost(), udp4_.flow.in, in.ttl));
  }
}

TEST_F(OffloadRelayTest, OtherOptionsAreTheWorkers) {
  const Bytes stamps = Stamps(100, 200);
  const auto with = [&](std::initializer_list<Bytes> parts) {
    PacketBuilder b = In4({});
    for (const Bytes& part : parts) b.Options(part);
    return b;
  };
  const auto moved = [&](size_t nops) {  // NOPs in front, the others behind
    Bytes options(nops, 1);
    options.insert(options.end(), stamps.begin() + 2, stamps.end());
    options.resize(12, 1);
    return options;
  };
  ExpectWorker(In4({}));
  ExpectWorker(In4({.payload = 12}));
  ExpectWorker(with({{1, 1, 1, 1}}));
  ExpectWorker(with({Bytes(12, 1)}));
  ExpectWorker(with({stamps, {1, 1, 1, 1}}));
  ExpectWorker(with({{1, 1, 1, 1}, stamps}));
  ExpectWorker(with({moved(0)}));
  ExpectWorker(with({moved(1)}));
  ExpectWorker(with({{0, 0}, Bytes(stamps.begin() + 2, stamps.end())}));
  ExpectWorker(with({{1, 1, 8, 11}, Bytes(8)}));
  ExpectWorker(with({{1, 1, 5, 10}, Bytes(8)}));  // SACK
  ExpectWorker(with({stamps, {1, 1, 5, 10}, Bytes(8)}));
  ExpectWorker(with({stamps, {1, 1, 5, 18}, Bytes(16)}));
  ExpectWorker(with({{1, 1, 19, 18}, Bytes(16)}));  // MD5
  ExpectBecomes(with({stamps}).Build(), [&] {
    Segment out = Spliced4();
    out.ttl = 64;
    return Tcp(FromUs(), tcp4_.flow.out, out).Build();
  }());
  // Where there are none.
  ExpectWorker(In6(Plain4()));
  ExpectWorker(In6({}).Options({1, 1, 1, 1}));
  ExpectWorker(In6({}).Options({1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2}));
}

TEST_F(OffloadRelayTest, AHeaderThatIsNotThereIsTheWorkers) {
  for (const bool v4 : {true, false}) {
    const Bytes frame = (v4 ? In4(Plain4()) : In6({})).Build();
    const size_t length = v4 ? 16 : 18;
    for (size_t missing = 1; missing <= 32 && frame.size() - missing > 54; ++missing) {
      Bytes cut = frame;
      StoreBe16(&cut[length], static_cast<uint16_t>(LoadBe16(&cut[length]) - missing));
      if (v4) {
        StoreBe16(&cut[24], 0);
        StoreBe16(&cut[24], test::NaiveChecksum({&cut[14], 20}));
      }
      ExpectWorker(cut);  // in the frame, but not in the packet
      cut.resize(cut.size() - missing);
      ExpectWorker(cut);
    }
  }
}

TEST_F(OffloadRelayTest, SegmentsThatChangeAStateAreTheWorkers) {
  for (int flags = 0; flags < 256; ++flags) {
    if (flags == 0x10 || flags == 0x18) continue;
    Segment in = Plain4();
    in.flags = static_cast<uint8_t>(flags);
    ExpectWorker(In4(in));
    ExpectWorker(In6({.flags = in.flags}));
  }
  for (const int reserved : {1, 2, 4, 8}) {
    Bytes frame = In4(Plain4()).Build();
    frame[46] = static_cast<uint8_t>(frame[46] | reserved);
    ExpectWorker(frame);
  }
}

TEST_F(OffloadRelayTest, EndsLikeOtherEntries) {
  for (uint32_t id = 1; id <= 4; ++id) rig_->Live(id, 0);
  ExpectNoneGoes();
  for (uint32_t id = 1; id <= 4; ++id) rig_->Live(id, 1);
  ExpectAllGo();
  BumpRoute(rig_->memory(), Ipv4Prefix{test::A4("198.51.100.0"), 24});
  ExpectWorker(In4(Plain4()));
  BumpWorld(rig_->memory());
  ExpectNoneGoes();
}

TEST_F(OffloadRelayTest, OddPacketsAreTheWorkers) {
  ExpectWorker(
      Ip(test::FromHost(), tcp4_.flow.in).MoreFragments().Tcp(4000, 443).Options(Stamps(1, 2)));
  ExpectWorker(Ip(test::FromHost(), tcp4_.flow.in)
                   .Options({1, 1, 1, 1})
                   .Tcp(4000, 443)
                   .Options(Stamps(1, 2)));
  ExpectWorker(Ip(test::FromHost(), tcp6_.flow.in).HopByHop().Tcp(4000, 443));
  ExpectWorker(Ip(test::FromHost(), udp4_.flow.in).Udp(4000, 53).UdpLength(7));
  ExpectWorker(Ip(test::FromHost(), tcp4_.flow.in).IcmpEcho(1, 1));
  tables::OffloadChange change = MakeRelay(tcp4_, rig_->memory());
  change.action().mtu = 152;
  Install(change);
  Segment in = Plain4(), out = Spliced4();
  in.payload = out.payload = 100;
  Expect4(in, out);
  in.payload = 101;
  ExpectWorker(In4(in));
}

// Nobody makes such entries.
TEST_F(OffloadRelayTest, ASpliceIsOfTcp) {
  udp4_.splice = tcp6_.splice;
  udp6_.splice = tcp6_.splice;
  Install(udp4_);
  Install(udp6_);
  for (const Relay* relay : {&udp4_, &udp6_}) {
    Bytes data(100, 0x50);  // as if it had a header of TCP
    ExpectWorker(Udp(test::FromHost(), relay->flow.in).Payload(data));
  }
}

// A relay of TCP that only replaces addresses: options are as they are.
TEST_F(OffloadRelayTest, WithoutASplice) {
  tcp4_.splice.reset();
  Install(tcp4_);
  Segment out = Plain4();
  Expect4(Plain4(), out);
  Expect4({.payload = 5}, {.payload = 5});
}

TEST_F(OffloadRelayTest, SeveralBuffers) {
  rig_.reset();
  installed_.clear();
  rig_ = std::make_unique<OffloadRig>(/*multi_buffer=*/true);
  if (!rig_->program().multi_buffer()) return rig_.reset();  // before Linux 6.6 there are none
  for (const Relay* relay : {&tcp4_, &tcp6_, &udp4_, &udp6_}) Install(*relay);
  SetWord(kRelays);
  ExpectAllGo();
  const Bytes frame = In4(Plain4()).PadTo(6000).Build();
  EXPECT_FALSE(rig_->Forwards(frame));
  EXPECT_EQ(rig_->frame(), frame);
  installed_.clear();
  rig_.reset();
}

}  // namespace
}  // namespace sluice
