// Datagrams that were reassembled on their way out again: expectations as seen on Linux 6.18 with a
// ct rule, for the same fragments and MTUs.
#include "stages/fragment/refragment.h"

#include <string>

#include "base/byte_order.h"
#include "unit/stages/defrag_fixture.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::stages {
namespace {

class RefragmentTest : public DefragTest {
 protected:
  // What the last of these frames completes.
  Packet Reassembled(const std::vector<Bytes>& frames) {
    Packet whole;
    for (const Bytes& frame : frames) {
      const Result r = Feed(frame);
      if (r.packet) whole = *r.packet;
    }
    EXPECT_NE(whole.frame, packet::kNoFrame);
    return whole;
  }
  // "offset+length" of each piece, with D for don't-fragment and M for more to follow.
  static std::string Shape4(const std::vector<Bytes>& pieces) {
    std::string text;
    for (const Bytes& piece : pieces) {
      const wire::Ipv4View ip(piece.data());
      EXPECT_TRUE(ip.ChecksumIsRight());
      EXPECT_EQ(ip.total_length(), piece.size());
      text += (text.empty() ? "" : " ") + std::to_string(ip.fragment_offset()) + "+" +
              std::to_string(ip.total_length()) + (ip.dont_fragment() ? "D" : "") +
              (ip.more_fragments() ? "M" : "");
    }
    return text;
  }
  static std::string Shape6(const std::vector<Bytes>& pieces, size_t header_at = 40) {
    std::string text;
    for (const Bytes& piece : pieces) {
      EXPECT_EQ(wire::Ipv6View(piece.data()).packet_length(), piece.size());
      const uint16_t field = LoadBe16(piece.data() + header_at + 2);
      text += (text.empty() ? "" : " ") + std::to_string(field & ~7) + "+" +
              std::to_string(piece.size()) + ((field & 1) != 0 ? "M" : "");
    }
    return text;
  }
  std::string Out4(const std::vector<Bytes>& frames, uint32_t mtu) {
    const Packet whole = Reassembled(frames);
    std::string shape = "too big";
    if (DecideMtu4(whole, mtu) == MtuDecision::kFragment) {
      shape = Shape4(Pieces<Ipv4Fragmenter>(whole, mtu));
    } else {
      EXPECT_EQ(DecideMtu4(whole, mtu), MtuDecision::kTooBig);
    }
    End(whole);
    return shape;
  }
  std::string Out6(const std::vector<Bytes>& frames, uint32_t mtu) {
    const Packet whole = Reassembled(frames);
    std::string shape;
    switch (DecideMtu6(whole, mtu)) {
      case MtuDecision::kSend:
        shape = "whole";
        break;
      case MtuDecision::kTooBig:
        shape = "too big";
        break;
      case MtuDecision::kFragment:
        shape = Shape6(Pieces<Ipv6Fragmenter>(whole, mtu));
        break;
    }
    End(whole);
    return shape;
  }
};

Bytes WithDf(const Bytes& data, size_t begin, size_t end) {
  return Cut4(data, begin, end).DontFragment().Payload(Part(data, begin, end)).Build();
}

TEST_F(RefragmentTest, Ipv4) {
  const Bytes data = Udp4(3000);
  const auto three = [&](size_t a, size_t b) {
    return std::vector{Fragment4(data, b, 3000), Fragment4(data, a, b), Fragment4(data, 0, a)};
  };
  EXPECT_EQ(Out4(three(1400, 2800), 1500), "0+1420M 1400+1420M 2800+220");
  EXPECT_EQ(Out4(three(400, 1800), 1500), "0+420M 400+1420M 1800+1220") << "as they came";
  EXPECT_EQ(Out4(three(400, 1800), 9000), "0+420M 400+1420M 1800+1220");
  EXPECT_EQ(Out4(three(1400, 2800), 1000), "0+996M 976+996M 1952+996M 2928+92");
  EXPECT_EQ(Out4(three(1400, 2800), 700), "0+700M 680+700M 1360+700M 2040+700M 2720+300");
  const Bytes small = Udp4(600);
  EXPECT_EQ(Out4({Fragment4(small, 0, 296), Fragment4(small, 296, 600)}, 1500), "0+316M 296+324");
  EXPECT_EQ(Out4({Fragment4(small, 0, 8), Fragment4(small, 8, 16), Fragment4(small, 16, 24),
                  Fragment4(small, 24, 64), Fragment4(small, 64, 600)},
                 1500),
            "0+28M 8+28M 16+28M 24+60M 64+556");
}

TEST_F(RefragmentTest, Ipv4DontFragment) {
  const Bytes data = Udp4(3000);
  const std::vector<Bytes> all = {WithDf(data, 0, 1400), WithDf(data, 1400, 2800),
                                  WithDf(data, 2800, 3000)};
  EXPECT_EQ(Out4(all, 1500), "0+1420M 1400+1420M 2800+220") << "Linux loses it here";
  EXPECT_EQ(Out4(all, 1419), "too big");
  EXPECT_EQ(Out4({Fragment4(data, 0, 1400), Fragment4(data, 1400, 2800), WithDf(data, 2800, 3000)},
                 1000),
            "0+996M 976+996M 1952+996M 2928+92")
      << "the largest fragments may be cut";
  const Bytes four = Udp4(3000);
  EXPECT_EQ(Out4({WithDf(four, 0, 960), WithDf(four, 960, 1920), WithDf(four, 1920, 2880),
                  WithDf(four, 2880, 3000)},
                 1000),
            "0+980M 960+980M 1920+980M 2880+140");
}

// The second fragment had no options, and is larger with those of the first: cut anew, with the
// largest one's don't-fragment.
TEST_F(RefragmentTest, Ipv4CutAnew) {
  const Bytes data = Udp4(592);
  const Bytes options = {0x1e, 4, 9, 9, 0x9e, 4, 8, 8};
  const auto first = [&](size_t end) {
    return Cut4(data, 0, end).DontFragment().Options(options).Payload(Part(data, 0, end)).Build();
  };
  EXPECT_EQ(Out4({first(280), WithDf(data, 280, 592)}, 1500), "0+332DM 304+316D");
  const Bytes more = Udp4(600);
  EXPECT_EQ(Out4({Cut4(more, 0, 296).Options(options).Payload(Part(more, 0, 296)).Build(),
                  Fragment4(more, 296, 600)},
                 1500),
            "0+324M 296+324M 592+36");
}

// The kernel has made a header writable that came in two fragments.
TEST_F(RefragmentTest, Ipv4GatheredHeaderIsCutAnew) {
  const auto shape = [&](uint32_t bytes) {
    const Bytes data = Udp4(600);
    const Packet whole = Reassembled(
        {Fragment4(data, 0, 8), Fragment4(data, 8, 304), Fragment4(data, 304, 600)});
    packet::GatherL4(*world.arena, whole, bytes);
    const std::string text = Shape4(Pieces<Ipv4Fragmenter>(whole, 1500));
    End(whole);
    return text;
  };
  EXPECT_EQ(shape(8), "0+28M 8+316M 304+316");
  EXPECT_EQ(shape(12), "0+316M 296+316M 592+28");
}

TEST_F(RefragmentTest, Ipv6) {
  const Bytes data = Udp6(3000);
  const auto three = [&](size_t a, size_t b) {
    return std::vector{Fragment6(data, 0, a), Fragment6(data, b, 3000), Fragment6(data, a, b)};
  };
  EXPECT_EQ(Out6(three(1400, 2800), 1500), "0+1448M 1400+1448M 2800+248");
  EXPECT_EQ(Out6(three(400, 1800), 1500), "0+448M 400+1448M 1800+1248");
  EXPECT_EQ(Out6(three(1400, 2800), 1280), "too big");
  EXPECT_EQ(Out6(three(1200, 2400), 1280), "0+1248M 1200+1248M 2400+648");
  const Bytes small = Udp6(600);
  EXPECT_EQ(Out6({Fragment6(small, 0, 296), Fragment6(small, 296, 600)}, 1500), "0+344M 296+352");
  EXPECT_EQ(Out6({Fragment6(small, 0, 592), Fragment6(small, 592, 600)}, 1500), "whole")
      << "without the fragment header no larger than the largest fragment";
  EXPECT_EQ(Out6({Fragment6(small, 0, 600)}, 1500), "whole");
  const Bytes large = Udp6(1308);
  EXPECT_EQ(Out6({Fragment6(large, 0, 1288), Fragment6(large, 1288, 1308)}, 1280), "too big");
}

TEST_F(RefragmentTest, Ipv6Headers) {
  const Bytes data = Udp6(600);
  const auto cut = [&](size_t begin, size_t end) {
    return Host6().HopByHop().DestinationOptions().Routing(4, 0).DestinationOptions()
        .Fragment(static_cast<uint16_t>(begin), end != 600, 0xabcdef)
        .Protocol(17).Payload(Part(data, begin, end)).Build();
  };
  const Packet whole = Reassembled({cut(0, 296), cut(296, 600)});
  const auto pieces = Pieces<Ipv6Fragmenter>(whole, 1500);
  // Destination options behind a routing header can be fragmented: they are in the first only.
  EXPECT_EQ(Shape6(pieces, 64), "0+376M 304+376");
  EXPECT_EQ(LoadBe32(pieces[0].data() + 68), 0xabcdefu);
  EXPECT_EQ(pieces[0][64], 60);
  EXPECT_EQ(pieces[1][64], 60);
  End(whole);
}

TEST_F(RefragmentTest, WhatWasNotReassembled) {
  const auto decide4 = [&](const Bytes& frame, uint32_t mtu) {
    const Packet p = [&] {
      Packet arrived = world.Receive(frame);
      EXPECT_TRUE(Parse(arrived, world.lan(), world.pool).verdict.is_continue());
      return arrived;
    }();
    const bool is_v4 = p.l3()[0] >> 4 == 4;
    const MtuDecision decision = is_v4 ? DecideMtu4(p, mtu) : DecideMtu6(p, mtu);
    world.Free(p);
    return decision;
  };
  const Bytes v4 = Host4().Udp(1, 2).Payload(1000).Build();
  EXPECT_EQ(decide4(v4, 1028), MtuDecision::kSend);
  EXPECT_EQ(decide4(v4, 1027), MtuDecision::kFragment);
  const Bytes df = Host4().DontFragment().Udp(1, 2).Payload(1000).Build();
  EXPECT_EQ(decide4(df, 1028), MtuDecision::kSend);
  EXPECT_EQ(decide4(df, 1027), MtuDecision::kTooBig);
  const Bytes v6 = Host6().Udp(1, 2).Payload(1300).Build();
  EXPECT_EQ(decide4(v6, 1348), MtuDecision::kSend);
  EXPECT_EQ(decide4(v6, 1347), MtuDecision::kTooBig);
}

// The kernel is to see that the sender looked for the path's MTU.
TEST_F(RefragmentTest, ForTheKernelDontFragmentStays) {
  const Bytes data = Udp4(600);
  const std::vector<Bytes> frames = {WithDf(data, 0, 296), WithDf(data, 296, 600)};
  const Packet whole = Reassembled(frames);
  std::vector<Bytes> pieces;
  EXPECT_TRUE(Refragment(whole, world.outbox, [&](Packet& piece, bool) {
    pieces.push_back(world.BytesOf(piece));
    world.Free(piece);
  }));
  EXPECT_EQ(pieces, frames);
  End(whole);
}

TEST_F(RefragmentTest, NoFreeFrame) {
  const Bytes data = Udp4(3000);
  const Packet whole = Reassembled(
      {Fragment4(data, 0, 1400), Fragment4(data, 1400, 2800), Fragment4(data, 2800, 3000)});
  std::vector<packet::FrameIndex> taken;
  while (world.pool.size() > 1) taken.push_back(world.pool.Alloc());
  std::vector<Packet> pieces;
  EXPECT_FALSE(
      Refragment(whole, world.outbox, [&](Packet& piece, bool) { pieces.push_back(piece); }));
  EXPECT_EQ(pieces.size(), 1u);
  for (const auto frame : taken) world.pool.Free(frame);
  for (const Packet& piece : pieces) world.Free(piece);
  End(whole);
}

}  // namespace
}  // namespace sluice::stages
