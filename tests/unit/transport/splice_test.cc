// What a relayed segment becomes, against one that is built anew.
#include "transport/tcp/splice.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "base/byte_order.h"
#include "base/rng.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "support/packet_builder.h"
#include "transport/common/datagram.h"
#include "wire/tcp.h"

namespace sluice::test {
namespace {

using transport::Tuple;

struct Sent {
  Tuple tuple;  // local: its sender
  uint32_t seq = 0;
  uint32_t ack = 0;
  uint16_t window = 0;
  uint8_t flags = wire::kTcpAck;
  uint8_t tos = 0;
  uint8_t ttl = 64;
  Bytes options;
  Bytes payload;

  Bytes Build() const {
    PacketBuilder b;
    if (tuple.is_v4()) {
      b.Ipv4(tuple.local.address.v4(), tuple.remote.address.v4()).DontFragment();
    } else {
      b.Ipv6(tuple.local.address.v6(), tuple.remote.address.v6());
    }
    b.Ttl(ttl).Tos(tos);
    b.Tcp(tuple.local.port, tuple.remote.port, flags).Sequence(seq, ack).Window(window);
    if (!options.empty()) b.Options(options);
    return b.Payload(payload).Build();
  }
};

class SpliceTest : public ::testing::Test {
 protected:
  SpliceTest() : arena_(packet::FrameArena::Create(4, 2048)), pool_(*arena_) { pool_.Free(0); }

  Bytes Translate(const Bytes& ip, const Tuple& leaves, const sluice_splice& map, size_t l4) {
    packet::Packet p;
    p.frame = pool_.Alloc();
    p.data = arena_->Chunk(p.frame) + packet::kHeadroom;
    p.l3_offset = 14;
    p.l4_offset = static_cast<uint16_t>(14 + l4);
    p.l4_protocol = 6;
    p.length = static_cast<uint32_t>(14 + ip.size());
    p.segment_length = static_cast<uint16_t>(p.length);
    std::copy(ip.begin(), ip.end(), p.l3());
    transport::TranslateSegment(p, leaves, map, 64);
    EXPECT_EQ(p.l4_offset - p.l3_offset, leaves.is_v4() ? 20 : 40);
    EXPECT_EQ(p.l3_offset, 14);
    const Bytes out(p.l3(), p.l3() + p.l3_length());
    packet::FreePacket(pool_, p);
    return out;
  }

  std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  Rng rng_{7};
};

void Append32(Bytes& to, uint32_t v) {
  const size_t at = to.size();
  to.resize(at + 4);
  StoreBe32(to.data() + at, v);
}

TEST_F(SpliceTest, RandomSegmentsAreAsIfBuiltAnew) {
  for (int round = 0; round < 20'000; ++round) {
    const bool v6 = rng_.Chance(1, 2);
    const auto address = [&]() -> IpAddress {
      if (v6) return Ipv6{0x20010db8'00000000u | rng_.Below(1 << 20), rng_.Next()};
      return Ipv4(static_cast<uint32_t>(0x0a000000 | rng_.Below(1 << 24)));
    };
    const auto word = [&] { return static_cast<uint32_t>(rng_.Next()); };
    const auto port = [&] { return static_cast<uint16_t>(rng_.Next()); };
    const Tuple leaves{{address(), port()}, {address(), port()}};
    sluice_splice map = {};
    map.seq = word();
    map.ack = word();
    map.tsval = word();
    map.tsecr = word();
    map.timestamps = rng_.Chance(3, 4) ? 1 : 0;
    if (rng_.Chance(1, 2)) map.window_left = static_cast<uint8_t>(rng_.Below(15));
    else map.window_right = static_cast<uint8_t>(rng_.Below(15));

    Sent before;
    before.tuple = {{address(), port()}, {address(), port()}};
    before.seq = word();
    before.ack = word();
    before.window = static_cast<uint16_t>(rng_.Next());
    before.tos = static_cast<uint8_t>(rng_.Next());
    before.ttl = static_cast<uint8_t>(1 + rng_.Below(255));
    if (rng_.Chance(1, 4)) before.flags |= wire::kTcpPsh;
    if (rng_.Chance(1, 8)) before.flags |= wire::kTcpFin;
    before.payload.resize(rng_.Below(200));
    for (uint8_t& byte : before.payload) byte = static_cast<uint8_t>(rng_.Next());
    Sent after = before;
    after.tuple = leaves;
    after.seq += map.seq;
    after.ack += map.ack;
    after.ttl = 64;
    after.window = static_cast<uint16_t>(
        std::min(0xffffu, uint32_t{before.window} << map.window_left >> map.window_right));
    // Options in any order, at odd offsets too.
    for (uint64_t i = rng_.Below(4); i > 0; --i) {
      const bool nop = rng_.Chance(1, 2);
      if (nop) {
        before.options.push_back(1);
        after.options.push_back(1);
      }
      const bool timestamps = rng_.Chance(1, 2);
      if (timestamps && before.options.size() + 10 <= 36) {
        for (Bytes* const o : {&before.options, &after.options}) {
          o->push_back(8);
          o->push_back(10);
        }
        const uint32_t value = word();
        const uint32_t echo = word();
        Append32(before.options, value);
        Append32(before.options, echo);
        Append32(after.options, map.timestamps ? value + map.tsval : value);
        Append32(after.options, map.timestamps ? echo + map.tsecr : echo);
      } else if (!timestamps && before.options.size() + 10 <= 36) {
        for (Bytes* const o : {&before.options, &after.options}) {
          o->push_back(5);
          o->push_back(10);
        }
        for (int edge = 0; edge < 2; ++edge) {
          const uint32_t value = word();
          Append32(before.options, value);
          Append32(after.options, value + map.ack);
        }
      }
    }
    const Bytes got = Translate(before.Build(), leaves, map, v6 ? 40 : 20);
    ASSERT_EQ(got, after.Build()) << round;
  }
}

TEST_F(SpliceTest, AWrongChecksumStaysWrong) {
  Sent sent;
  sent.tuple = {{Ipv4(0x0a000001), 1000}, {Ipv4(0x0a000002), 80}};
  sent.payload = {1, 2, 3};
  Bytes packet = sent.Build();
  packet.back() ^= 1;
  sluice_splice map = {};
  map.seq = 77;
  const Bytes got = Translate(packet, sent.tuple, map, 20);
  const IpAddress source = sent.tuple.local.address;
  const IpAddress destination = sent.tuple.remote.address;
  const std::span<const uint8_t> l4(got.data() + 20, got.size() - 20);
  const uint32_t pseudo =
      transport::PseudoSumOf(source, destination, 6, static_cast<uint32_t>(l4.size()));
  EXPECT_NE(wire::Fold(pseudo + wire::Sum(l4)), 0xffff);
}

// A reset without an acknowledgment has no number there to change.
TEST_F(SpliceTest, WithoutAckTheFieldStays) {
  Sent before;
  before.tuple = {{Ipv4(0x0a000001), 1000}, {Ipv4(0x0a000002), 80}};
  before.flags = wire::kTcpRst;
  before.seq = 5;
  sluice_splice map = {};
  map.seq = 100;
  map.ack = 200;
  Sent after = before;
  after.seq = 105;
  EXPECT_EQ(Translate(before.Build(), before.tuple, map, 20), after.Build());
}

TEST_F(SpliceTest, IpOptionsGo) {
  Sent sent;
  sent.tuple = {{Ipv4(0x0a000001), 1000}, {Ipv4(0x0a000002), 80}};
  sent.payload = {1, 2, 3};
  const Bytes plain = sent.Build();
  const Bytes with = PacketBuilder()
                         .Ipv4(Ipv4(0x0a000001), Ipv4(0x0a000002))
                         .DontFragment()
                         .Options({1, 1, 1, 0})
                         .Tcp(1000, 80, wire::kTcpAck)
                         .Sequence(0, 0)
                         .Window(0)
                         .Payload(sent.payload)
                         .Build();
  ASSERT_EQ(with.size(), plain.size() + 4);
  EXPECT_EQ(Translate(with, sent.tuple, {}, 24), plain);
}

}  // namespace
}  // namespace sluice::test
