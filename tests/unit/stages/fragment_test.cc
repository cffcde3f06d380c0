#include "stages/fragment/fragment.h"

#include <gtest/gtest.h>

#include <vector>

#include "base/rng.h"
#include "base/worker_counters.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "wire/ipv4.h"

namespace sluice::stages {
namespace {

using packet::Packet;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class FragmentTest : public testing::Test {
 protected:
  ~FragmentTest() override { world.CheckFrames(); }

  // The pieces of a frame, from their IP headers on.
  std::vector<Bytes> Pieces(const Bytes& frame, uint32_t mtu, uint32_t segment = 0) {
    Packet whole = world.Receive(frame, test::kLan, segment);
    EXPECT_TRUE(Parse(whole, world.lan(), world.pool).verdict.is_continue());
    whole.out = test::kWan;
    std::vector<Bytes> pieces;
    Ipv4Fragmenter fragmenter(whole, mtu, world.outbox);
    while (!fragmenter.done()) {
      Packet piece;
      if (!fragmenter.Next(piece)) {
        ADD_FAILURE() << "no frame";
        break;
      }
      EXPECT_EQ(piece.out, test::kWan);
      EXPECT_EQ(piece.segment_count, 1);
      EXPECT_EQ(piece.in.valid(), pieces.empty()) << "one piece stands for the packet";
      EXPECT_EQ(piece.generated, static_cast<uint8_t>(pieces.empty() ? GeneratedKind::kNone
                                                                     : GeneratedKind::kFragment));
      EXPECT_TRUE(piece.Has(packet::kFlagFragment));
      EXPECT_EQ(piece.Has(packet::kFlagLaterFragment), !pieces.empty());
      pieces.push_back(world.BytesOf(piece, piece.l3_offset));
      world.Free(piece);
    }
    world.Free(whole);
    return pieces;
  }

  test::RouterWorld world;
};

PacketBuilder Whole() {
  return FromHost().Ipv4("10.0.0.2", "203.0.113.1").Id(0xbeef).Tos(7).Ttl(9);
}

// What stands on the wire behind the header of `frame`.
Bytes PayloadOf(const Bytes& ip_packet) {
  const wire::Ipv4View ip(ip_packet.data());
  return {ip_packet.begin() + ip.header_length(), ip_packet.begin() + ip.total_length()};
}

// Checks every piece's header, and that together they are the packet.
void ExpectReassembly(const Bytes& original, const std::vector<Bytes>& pieces, uint32_t mtu) {
  const wire::Ipv4View whole(original.data());
  size_t at = whole.fragment_offset();
  Bytes together;
  for (size_t i = 0; i < pieces.size(); ++i) {
    const Bytes& piece = pieces[i];
    const wire::Ipv4View ip(piece.data());
    const bool last = i + 1 == pieces.size();
    ASSERT_LE(piece.size(), mtu);
    EXPECT_EQ(ip.total_length(), piece.size());
    EXPECT_EQ(test::NaiveChecksum({piece.data(), ip.header_length()}), 0);
    EXPECT_EQ(ip.id(), whole.id());
    EXPECT_EQ(ip.tos(), whole.tos());
    EXPECT_EQ(ip.ttl(), whole.ttl());
    EXPECT_EQ(ip.protocol(), whole.protocol());
    EXPECT_EQ(ip.source(), whole.source());
    EXPECT_EQ(ip.destination(), whole.destination());
    EXPECT_EQ(ip.header_length(), whole.header_length());
    EXPECT_FALSE(ip.dont_fragment());
    EXPECT_EQ(ip.more_fragments(), !last || whole.more_fragments());
    EXPECT_EQ(ip.fragment_offset(), at);
    const Bytes payload = PayloadOf(piece);
    if (!last) {
      EXPECT_EQ(payload.size() % 8, 0u);
    }
    at += payload.size();
    together.insert(together.end(), payload.begin(), payload.end());
  }
  EXPECT_EQ(together, PayloadOf(original));
}

Bytes FromL3(const Bytes& frame) { return {frame.begin() + 14, frame.end()}; }

TEST_F(FragmentTest, SizesOffsetsAndFlags) {
  const Bytes frame = Whole().Udp(1, 2).Payload(3000).Build();
  const auto pieces = Pieces(frame, 1500);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_EQ(pieces[0].size(), 1500u);
  EXPECT_EQ(pieces[1].size(), 1500u);
  EXPECT_EQ(pieces[2].size(), 20u + 48u);
  ExpectReassembly(FromL3(frame), pieces, 1500);
}

// ip_frag_next: the last piece takes what fits, also where that is no multiple of 8.
TEST_F(FragmentTest, TheLastPieceMayFillTheMtu) {
  const Bytes frame = Whole().Udp(1, 2).Payload(1480 + 1483 - 8).Build();
  const auto pieces = Pieces(frame, 1503);
  ASSERT_EQ(pieces.size(), 2u);
  EXPECT_EQ(pieces[0].size(), 1500u);
  EXPECT_EQ(pieces[1].size(), 1503u);
  ExpectReassembly(FromL3(frame), pieces, 1503);
}

TEST_F(FragmentTest, SmallestMtu) {
  const Bytes frame = Whole().Udp(1, 2).Payload(200).Build();
  EXPECT_EQ(Pieces(frame, 68).size(), 5u);
  ExpectReassembly(FromL3(frame), Pieces(frame, 68), 68);
  EXPECT_EQ(Pieces(frame, 20), Pieces(frame, 68)) << "an MTU that IPv4 does not know";
  const Bytes options = Whole().Options(Bytes(40, 1)).Udp(1, 2).Payload(50).Build();
  const auto pieces = Pieces(options, 68);
  EXPECT_EQ(pieces.size(), 8u);
  ExpectReassembly(FromL3(options), pieces, 68);
}

TEST_F(FragmentTest, AFragmentIsFragmented) {
  const Bytes middle =
      Whole().MoreFragments().FragmentOffset(1480).Protocol(17).Payload(1480).Build();
  const auto pieces = Pieces(middle, 600);
  ASSERT_EQ(pieces.size(), 3u);
  EXPECT_TRUE(wire::Ipv4View(pieces[2].data()).more_fragments());
  ExpectReassembly(FromL3(middle), pieces, 600);
  const Bytes last = Whole().FragmentOffset(2960).Protocol(17).Payload(701).Build();
  ExpectReassembly(FromL3(last), Pieces(last, 600), 600);
  EXPECT_FALSE(wire::Ipv4View(Pieces(last, 600).back().data()).more_fragments());
}

// ip_options_fragment: options without the copied bit are in the first piece only.
TEST_F(FragmentTest, OptionsByTheirCopiedBit) {
  const Bytes options = {1, 0x1e, 4, 9, 9, 0x9e, 3, 8, 0x1f, 2, 1, 0};
  const Bytes frame = Whole().Options(options).Udp(1, 2).Payload(300).Build();
  const auto pieces = Pieces(frame, 132);
  ASSERT_EQ(pieces.size(), 4u);
  const auto options_of = [](const Bytes& piece) {
    return Bytes(piece.begin() + 20, piece.begin() + 32);
  };
  EXPECT_EQ(options_of(pieces[0]), options);
  for (size_t i = 1; i < pieces.size(); ++i) {
    EXPECT_EQ(options_of(pieces[i]), (Bytes{1, 1, 1, 1, 1, 0x9e, 3, 8, 1, 1, 1, 0}));
  }
  ExpectReassembly(FromL3(frame), pieces, 132);
  // A later fragment has been through it: what it carries stays.
  const Bytes later =
      Whole().Options(options).FragmentOffset(800).Protocol(17).Payload(300).Build();
  for (const Bytes& piece : Pieces(later, 132)) EXPECT_EQ(options_of(piece), options);
}

TEST_F(FragmentTest, PiecesFitAChunk) {
  const Bytes frame = Whole().Udp(1, 2).Payload(7000).Build();
  const auto pieces = Pieces(frame, 4000, 1000);
  ExpectReassembly(FromL3(frame), pieces, 2048 - 256 - 14);
}

TEST_F(FragmentTest, Random) {
  Rng rng(4);
  for (int i = 0; i < 300; ++i) {
    PacketBuilder b = Whole();
    if (rng.Chance(1, 3)) b.MoreFragments();
    if (rng.Chance(1, 3)) b.FragmentOffset(static_cast<uint16_t>(rng.Below(1000) * 8));
    if (rng.Chance(1, 3)) b.Options(Bytes(rng.Below(11) * 4, 1));
    const size_t payload = 1 + rng.Below(4000);
    const auto mtu = static_cast<uint32_t>(68 + rng.Below(1500));
    const Bytes frame = b.Protocol(17).Payload(payload).Build();
    SCOPED_TRACE(testing::Message() << i << ": " << payload << " bytes, mtu " << mtu);
    const auto segment = static_cast<uint32_t>(rng.Chance(1, 2) ? 300 + rng.Below(1400) : 1700);
    ExpectReassembly(FromL3(frame), Pieces(frame, mtu, segment), mtu);
    if (HasFailure()) return;
  }
}

TEST_F(FragmentTest, NoFreeFrame) {
  Packet whole = world.Receive(Whole().Udp(1, 2).Payload(1000).Build());
  ASSERT_TRUE(Parse(whole, world.lan(), world.pool).verdict.is_continue());
  Ipv4Fragmenter fragmenter(whole, 576, world.outbox);
  Packet piece;
  ASSERT_TRUE(fragmenter.Next(piece));
  std::vector<packet::FrameIndex> taken;
  for (uint32_t n = world.pool.size(); n > 0; --n) taken.push_back(world.pool.Alloc());
  Packet none;
  EXPECT_FALSE(fragmenter.Next(none));
  EXPECT_FALSE(fragmenter.done());
  for (const auto frame : taken) world.pool.Free(frame);
  world.Free(piece);
  world.Free(whole);
}

}  // namespace
}  // namespace sluice::stages
