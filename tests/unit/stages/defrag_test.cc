// What the kernel does with each of these sequences was seen on 6.18 (forwarding, with a ct rule).
#include "stages/defrag/defrag.h"

#include <algorithm>

#include "unit/stages/defrag_fixture.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::stages {
namespace {

using DropReasons = std::vector<DropReason>;

Verdict Invalid() { return Verdict::Drop(DropReason::kFragmentInvalid); }
Verdict Overlap() { return Verdict::Drop(DropReason::kFragmentOverlap); }
Verdict Limit() { return Verdict::Drop(DropReason::kFragmentLimit); }

Bytes WholeIpv4(const Bytes& data, uint16_t id = 1) {
  const Bytes frame = Host4().Id(id).Protocol(17).Payload(data).Build();
  return {frame.begin() + 14, frame.end()};
}
Bytes WholeIpv6(const Bytes& data, uint8_t protocol = 17) {
  const Bytes frame = Host6().Protocol(protocol).Payload(data).Build();
  return {frame.begin() + 14, frame.end()};
}

TEST_F(DefragTest, InAnyOrder) {
  const Bytes data = Udp4(3000);
  const Bytes a = Fragment4(data, 0, 1400), b = Fragment4(data, 1400, 2800),
              c = Fragment4(data, 2800, 3000);
  for (const auto& frames : {std::vector{a, b, c}, {c, b, a}, {b, a, c}, {b, c, a}, {c, a, b}}) {
    EXPECT_EQ(Whole(frames), WholeIpv4(data));
    EXPECT_EQ(last.fragment_size, 1420);
    EXPECT_EQ(last.l4_protocol, 17);
    EXPECT_EQ(last.l4_offset, 34);
    EXPECT_EQ(last.flags, 0);
    EXPECT_EQ(last.segment_count, 3) << "no payload was copied";
  }
  EXPECT_EQ(Lost(), DropReasons{});
  EXPECT_EQ(counters->of(kLan).merged_packets.Read(), 10u);
}

TEST_F(DefragTest, Ipv6InAnyOrder) {
  const Bytes data = Udp6(3000);
  const Bytes a = Fragment6(data, 0, 1400), b = Fragment6(data, 1400, 2800),
              c = Fragment6(data, 2800, 3000);
  for (const auto& frames : {std::vector{a, b, c}, {c, b, a}, {b, a, c}}) {
    EXPECT_EQ(Whole(frames), WholeIpv6(data));
    EXPECT_EQ(last.fragment_size, 1448);
    EXPECT_EQ(last.l4_offset, 54);
    EXPECT_EQ(last.flags, 0);
  }
}

TEST_F(DefragTest, OfSeveralSegments) {
  const Bytes data = Udp4(3000);
  for (const uint32_t segment : {34u, 40u, 300u}) {
    EXPECT_EQ(Whole({Fragment4(data, 1400, 3000), Fragment4(data, 0, 1400)}, segment),
              WholeIpv4(data));
    EXPECT_GE(last.segment_length, 34 + 64) << "the L4 header is in one piece";
  }
  const Bytes data6 = Udp6(3000);
  for (const uint32_t segment : {62u, 70u, 300u}) {
    EXPECT_EQ(Whole({Fragment6(data6, 0, 1400), Fragment6(data6, 1400, 3000)}, segment),
              WholeIpv6(data6));
    EXPECT_GE(last.segment_length, 54 + 64);
  }
}

TEST_F(DefragTest, TinyFragmentsAreGathered) {
  const Bytes data = Udp4(200);
  std::vector<Bytes> frames;
  for (const auto& [begin, end] : {std::pair{0, 8}, {8, 16}, {16, 24}, {24, 80}, {80, 200}}) {
    frames.push_back(Fragment4(data, static_cast<size_t>(begin), static_cast<size_t>(end)));
  }
  EXPECT_EQ(Whole(frames), WholeIpv4(data));
  EXPECT_EQ(last.segment_length, 34 + 64);
  EXPECT_EQ(last.segment_count, 3);
  // All of it within the header.
  const Bytes small = Udp4(20);
  EXPECT_EQ(Whole({Fragment4(small, 8, 20), Fragment4(small, 0, 8)}), WholeIpv4(small));
  EXPECT_EQ(last.segment_count, 1);
}

TEST_F(DefragTest, TheWholeHasTheFirstOnesHeaderAndTheLastOnesInterface) {
  const Bytes data = Udp4(600);
  Feed(Cut4(data, 296, 600).Ttl(9).Tos(4).Payload(Part(data, 296, 600)).Build(), kLan);
  const Bytes first = PacketBuilder()
                          .Ethernet(test::kPeerMac, test::kWanMac)
                          .Ipv4("10.0.0.2", "203.0.113.1")
                          .Id(1)
                          .Protocol(17)
                          .MoreFragments()
                          .Ttl(33)
                          .Tos(8)
                          .Options({0x9e, 3, 8})
                          .Payload(Part(data, 0, 296))
                          .Build();
  const Result r = Feed(first, kWan);
  ASSERT_TRUE(r.packet);
  EXPECT_EQ(r.packet->in, kWan);
  EXPECT_TRUE(r.packet->Has(packet::kFlagOptions));
  const wire::Ipv4View ip(r.packet->l3());
  EXPECT_EQ(ip.ttl(), 33);
  EXPECT_EQ(ip.tos(), 8);
  EXPECT_EQ(ip.header_length(), 24);
  EXPECT_EQ(ip.total_length(), 624);
  EXPECT_TRUE(ip.ChecksumIsRight());
  EXPECT_EQ(counters->of(kLan).merged_packets.Read(), 1u);
  EXPECT_EQ(counters->of(kWan).merged_packets.Read(), 0u);
  End(*r.packet);
}

TEST_F(DefragTest, DatagramsAreToldApart) {
  const Bytes data = Udp4(600);
  Feed(Fragment4(data, 0, 296, 1));
  Feed(Fragment4(data, 296, 600, 2));
  Feed(Cut4(data, 296, 600).Protocol(132).Payload(Part(data, 296, 600)).Build());
  EXPECT_EQ(defrag->datagrams(), 3u);
  Feed(Fragment6(data, 0, 296, 1));
  Feed(Fragment6(data, 296, 600, 2));
  EXPECT_EQ(defrag->datagrams(), 5u);
  EXPECT_EQ(counters->of(kLan).held_packets.Read(), 5u);
  EXPECT_FALSE(Whole({Fragment4(data, 296, 600, 1)}).empty());
  // Of IPv6 the protocol stands in the first fragment alone (RFC 8200 section 4.5).
  EXPECT_EQ(Whole({Fragment6(data, 296, 600, 1, 6)}), WholeIpv6(data));
}

TEST_F(DefragTest, Duplicates) {
  const Bytes data = Udp4(1000);
  const auto cut = [&](size_t begin, size_t end) { return Fragment4(data, begin, end); };
  EXPECT_EQ(Feed(cut(0, 200)).verdict, Verdict::Held());
  EXPECT_EQ(Feed(cut(0, 200)).verdict, Invalid());
  EXPECT_EQ(Feed(cut(200, 400)).verdict, Verdict::Held());
  EXPECT_EQ(Feed(cut(400, 600)).verdict, Verdict::Held());
  EXPECT_EQ(Feed(cut(104, 504)).verdict, Invalid()) << "within what came in order";
  EXPECT_EQ(Whole({cut(600, 1000)}), WholeIpv4(data));
  EXPECT_EQ(Lost(), DropReasons{});
  // The same bytes again, but they came with a gap that was filled: not one run.
  Feed(cut(0, 200)), Feed(cut(400, 600)), Feed(cut(200, 400));
  EXPECT_EQ(Feed(cut(208, 400)).verdict, Invalid());
  EXPECT_EQ(Feed(cut(200, 600)).verdict, Overlap());
  EXPECT_EQ(Lost(), DropReasons(3, DropReason::kFragmentOverlap));
  EXPECT_EQ(defrag->datagrams(), 0u);
}

TEST_F(DefragTest, OverlapsDiscardTheDatagram) {
  const Bytes data = Udp6(1000);
  const auto cut = [&](size_t begin, size_t end) { return Fragment6(data, begin, end); };
  const std::pair<size_t, size_t> overlaps[] = {{192, 208}, {0, 208}, {392, 600}, {192, 1000}};
  for (const auto& [begin, end] : overlaps) {
    Feed(cut(0, 200)), Feed(cut(400, 600));
    EXPECT_EQ(Feed(cut(begin, end)).verdict, Overlap()) << begin;
    EXPECT_EQ(Lost(), DropReasons(2, DropReason::kFragmentOverlap));
    EXPECT_EQ(defrag->datagrams(), 0u);
  }
}

TEST_F(DefragTest, Ends) {
  const Bytes data4 = Udp4(1000), short4 = Udp4(900), data6 = Udp6(1000), short6 = Udp6(900);
  Feed(Fragment4(data4, 0, 200));
  Feed(Fragment4(short4, 600, 900));
  EXPECT_EQ(Feed(Fragment4(data4, 600, 1000)).verdict, Invalid()) << "another end";
  EXPECT_EQ(Lost(), DropReasons(2, DropReason::kFragmentInvalid));
  Feed(Fragment4(short4, 600, 900));
  EXPECT_EQ(Feed(Fragment4(data4, 800, 960)).verdict, Invalid()) << "beyond the end";
  EXPECT_EQ(Lost(), DropReasons(1, DropReason::kFragmentInvalid));
  Feed(Fragment4(data4, 800, 960));
  EXPECT_EQ(Feed(Fragment4(short4, 600, 900)).verdict, Invalid()) << "an end before what is there";
  EXPECT_EQ(Lost(), DropReasons(1, DropReason::kFragmentInvalid));

  Feed(Fragment6(short6, 600, 900));
  EXPECT_EQ(Feed(Fragment6(data6, 600, 1000)).verdict, Invalid());
  EXPECT_EQ(Feed(Fragment6(data6, 200, 960)).verdict, Invalid());
  EXPECT_EQ(Lost(), DropReasons{}) << "IPv6: the datagram waits on";
  EXPECT_EQ(Whole({Fragment6(short6, 0, 600)}), WholeIpv6(short6));
}

TEST_F(DefragTest, EmptyFragments) {
  const Bytes data = Udp4(600);
  Feed(Fragment4(data, 0, 296));
  EXPECT_EQ(Feed(Cut4(data, 296, 599).Build()).verdict, Invalid());
  EXPECT_EQ(Lost(), DropReasons(1, DropReason::kFragmentInvalid));
  const Bytes data6 = Udp6(600);
  Feed(Fragment6(data6, 0, 296));
  EXPECT_EQ(Feed(Host6().Fragment(296, true, 1).Protocol(17).Build()).verdict, Invalid());
  EXPECT_EQ(Feed(Host6().Fragment(600, false, 1).Protocol(17).Build()).verdict, Invalid());
  EXPECT_EQ(Whole({Fragment6(data6, 296, 600)}), WholeIpv6(data6)) << "the end is where it was";
}

TEST_F(DefragTest, LengthsOffTheGrid) {
  // IPv4 cuts the fragment; what is missing then may come yet.
  const Bytes data = Udp4(600);
  Feed(Cut4(data, 0, 299).Payload(Part(data, 0, 299)).Build());
  EXPECT_EQ(Whole({Fragment4(data, 296, 600)}), WholeIpv4(data));
  EXPECT_EQ(Feed(Cut4(data, 0, 7).Payload(Part(data, 0, 7)).Build()).verdict, Invalid());
  // IPv6 gives up the datagram and lets the fragment pass.
  const Bytes data6 = Udp6(600);
  Feed(Fragment6(data6, 296, 600));
  const Bytes odd = Fragment6(data6, 0, 293);
  const Result r = Feed(odd);
  ASSERT_TRUE(r.packet);
  EXPECT_EQ(world.BytesOf(*r.packet), odd);
  EXPECT_TRUE(r.packet->Has(packet::kFlagFragment));
  EXPECT_EQ(r.packet->fragment_size, 0);
  EXPECT_EQ(Lost(), DropReasons(1, DropReason::kFragmentInvalid));
  End(*r.packet);
}

TEST_F(DefragTest, Oversize) {
  const Bytes big(65528 + 100, 7);
  std::vector<Bytes> frames;
  for (size_t at = 0; at < 65520; at += 1456) {
    frames.push_back(Fragment4(big, at, std::min<size_t>(at + 1456, 65520)));
  }
  EXPECT_TRUE(Whole(frames).empty());
  const Bytes end = Host4().Id(1).Protocol(17).FragmentOffset(65520).Payload(100).Build();
  EXPECT_EQ(Feed(end).verdict, Verdict::Held());
  EXPECT_EQ(Lost(), DropReasons(46, DropReason::kFragmentInvalid)) << "45 and the last";
  // The most there can be.
  const Bytes most = Udp4(65515);
  frames.clear();
  for (size_t at = 0; at < most.size(); at += 1456) {
    frames.push_back(Fragment4(most, at, std::min<size_t>(at + 1456, most.size())));
  }
  EXPECT_EQ(Whole(frames), WholeIpv4(most));
  EXPECT_EQ(Feed(Host6().Fragment(65528, true, 1).Payload(16).Build()).verdict, Invalid());
}

TEST_F(DefragTest, Ecn) {
  const Bytes data = Udp4(600);
  const struct {
    uint8_t first, second;
    int whole;  // -1: discarded
  } cases[] = {{0, 0, 0}, {1, 1, 1}, {2, 2, 2}, {3, 3, 3}, {1, 2, 1},  {2, 1, 2}, {1, 3, 3},
               {3, 2, 3}, {2, 3, 3}, {3, 1, 3}, {0, 1, -1}, {1, 0, -1}, {0, 2, -1}, {0, 3, -1},
               {3, 0, -1}};
  for (const auto& c : cases) {
    SCOPED_TRACE(testing::Message() << int{c.first} << " " << int{c.second});
    Feed(Cut4(data, 0, 296).Tos(0x28 | c.first).Payload(Part(data, 0, 296)).Build());
    Bytes whole = Whole(
        {Cut4(data, 296, 600).Tos(0x28 | c.second).Payload(Part(data, 296, 600)).Build()});
    ASSERT_EQ(whole.empty(), c.whole < 0);
    if (c.whole >= 0) {
      EXPECT_EQ(wire::Ipv4View(whole.data()).tos(), 0x28 | c.whole);
      EXPECT_TRUE(wire::Ipv4View(whole.data()).ChecksumIsRight());
    }
    EXPECT_EQ(Lost(), DropReasons(c.whole < 0 ? 2 : 0, DropReason::kFragmentInvalid));
    const auto v6 = [&](size_t begin, size_t end, uint8_t ecn) {
      return Host6()
          .Tos(0x28 | ecn)
          .Fragment(static_cast<uint16_t>(begin), end != 600, 1)
          .Protocol(17)
          .Payload(Part(data, begin, end))
          .Build();
    };
    whole = Whole({v6(0, 296, c.first), v6(296, 600, c.second)});
    ASSERT_EQ(whole.empty(), c.whole < 0);
    if (c.whole >= 0) {
      EXPECT_EQ(wire::Ipv6View(whole.data()).traffic_class(), 0x28 | c.whole);
    }
    Lost();
  }
}

TEST_F(DefragTest, Ipv6Headers) {
  const Bytes data = Udp6(600);
  const auto cut = [&](PacketBuilder b, size_t begin, size_t end) {
    return b.Fragment(static_cast<uint16_t>(begin), end != 600, 9)
        .Protocol(17)
        .Payload(Part(data, begin, end))
        .Build();
  };
  const auto with_headers = [] { return Host6().HopByHop().DestinationOptions().Routing(4, 0); };
  const Bytes expected = with_headers().Protocol(17).Payload(data).Build();
  EXPECT_EQ(Whole({cut(with_headers(), 0, 296), cut(Host6(), 296, 600)}),
            Bytes(expected.begin() + 14, expected.end()));
  EXPECT_EQ(last.l4_protocol, 17);
  EXPECT_EQ(last.l4_offset, 14 + 40 + 24);
  EXPECT_EQ(last.flags, packet::kFlagOptions);
  // Extension headers behind the fragment header are found now.
  Bytes options = {17, 0, 1, 4, 0, 0, 0, 0};
  options.insert(options.end(), data.begin(), data.end());
  EXPECT_FALSE(
      Whole({Fragment6(options, 0, 296, 1, 60), Fragment6(options, 296, 608, 1, 60)}).empty());
  EXPECT_EQ(last.l4_protocol, 17);
  EXPECT_EQ(last.l4_offset, 14 + 40 + 8);
}

TEST_F(DefragTest, Ipv6AtomicFragments) {
  const Bytes data = Udp6(93);
  EXPECT_EQ(Whole({Fragment6(data, 0, 93)}), WholeIpv6(data));
  EXPECT_EQ(last.flags, 0);
  EXPECT_EQ(last.fragment_size, 40 + 8 + 93);
  EXPECT_EQ(DecideMtu6(last, 1500), MtuDecision::kSend);
}

TEST_F(DefragTest, Ipv6FirstFragmentsWithoutTheirHeadersPass) {
  const Bytes tcp = Bytes(120, 0);
  Bytes options = {17, 50, 1, 4, 0, 0, 0, 0};  // 408 bytes, which are not there
  options.resize(600);
  for (const Bytes& frame : {Fragment6(tcp, 0, 16, 1, 6), Fragment6(options, 0, 296, 2, 60),
                             Host6().Fragment(0, false, 3).Protocol(6).Payload(10).Build()}) {
    const Result r = Feed(frame);
    ASSERT_TRUE(r.packet);
    EXPECT_EQ(world.BytesOf(*r.packet), frame);
    End(*r.packet);
  }
  EXPECT_EQ(defrag->datagrams(), 0u);
  EXPECT_FALSE(Whole({Fragment6(tcp, 0, 24, 4, 6), Fragment6(tcp, 24, 120, 4, 6)}).empty());
  EXPECT_FALSE(Whole({Fragment6(tcp, 0, 8, 5, 59), Fragment6(tcp, 8, 120, 5, 59)}).empty());
}

TEST_F(DefragTest, DontFragmentOfTheLargest) {
  const auto with_df = [](const Bytes& data, size_t begin, size_t end) {
    return Cut4(data, begin, end).DontFragment().Payload(Part(data, begin, end)).Build();
  };
  const Bytes data = Udp4(3000);
  Whole({with_df(data, 0, 1400), Fragment4(data, 1400, 1800), Fragment4(data, 1800, 3000)});
  EXPECT_TRUE(last.Has(packet::kFlagFragmentPmtu));
  EXPECT_EQ(last.fragment_size, 1420);
  const Bytes whole = Whole({with_df(data, 0, 400), Fragment4(data, 400, 1800),
                             Fragment4(data, 1800, 3000)});
  EXPECT_FALSE(last.Has(packet::kFlagFragmentPmtu));
  EXPECT_FALSE(wire::Ipv4View(whole.data()).dont_fragment());
  EXPECT_EQ(last.fragment_size, 1420);
}

TEST_F(DefragTest, Timeouts) {
  const Bytes data = Udp4(600);
  const Nanos start = now;
  Feed(Fragment4(data, 296, 600, 1));  // without the first one
  EXPECT_FALSE(Whole({Fragment4(data, 296, 600, 2), Fragment4(data, 0, 296, 2)}).empty());
  Feed(Fragment4(data, 104, 296, 3)), Feed(Fragment4(data, 0, 104, 3));
  Feed(Fragment6(data, 0, 296, 1));
  EXPECT_LE(defrag->NextDeadline(), start + Seconds(31));
  for (; now < start + Seconds(30); now += Millis(100)) defrag->Advance(now);
  EXPECT_EQ(defrag->datagrams(), 3u);
  now += Millis(200);
  defrag->Advance(now);
  EXPECT_TRUE(defrag->has_lost());
  TakeLost();
  using Lost = std::vector<std::pair<DropReason, bool>>;
  const DropReason timeout = DropReason::kFragmentTimeout;
  EXPECT_EQ(lost.size(), 3u);
  EXPECT_EQ(std::count(lost.begin(), lost.end(), std::pair{timeout, true}), 1) << "a first one";
  EXPECT_EQ(std::count(lost.begin(), lost.end(), std::pair{timeout, false}), 2);
  EXPECT_GE(defrag->NextDeadline(), start + Seconds(59));
  now = start + Seconds(61);
  lost.clear();
  defrag->Advance(now);
  TakeLost();
  EXPECT_EQ(lost, (Lost{{timeout, true}}));
  EXPECT_EQ(defrag->NextDeadline(), Nanos::Max());
  EXPECT_EQ(Feed(Fragment6(data, 296, 600, 1)).verdict, Verdict::Held()) << "too late";
}

TEST_F(DefragTest, AFloodPaysForItself) {
  Restart({.datagrams = 100, .frames = 40, .keep_free = 0});
  const Bytes data = Udp4(600);
  for (uint16_t id = 0; id < 10; ++id) Feed(Fragment4(data, 0, 296, id));
  for (uint16_t id = 0; id < 1000; ++id) {
    Feed(FromHost().Ipv4("10.0.0.66", "203.0.113.1").Id(id).Protocol(17).MoreFragments()
             .Payload(1000).Build());
    ASSERT_LE(defrag->frames(), 40u);
  }
  EXPECT_EQ(Lost(), DropReasons(970, DropReason::kFragmentLimit));
  for (uint16_t id = 0; id < 10; ++id) {
    EXPECT_FALSE(Whole({Fragment4(data, 296, 600, id)}).empty()) << "another source's";
  }
  // The oldest went.
  EXPECT_TRUE(Whole({FromHost().Ipv4("10.0.0.66", "203.0.113.1").Id(960).Protocol(17)
                         .FragmentOffset(1000).Payload(8).Build()}).empty());
  EXPECT_FALSE(Whole({FromHost().Ipv4("10.0.0.66", "203.0.113.1").Id(999).Protocol(17)
                          .FragmentOffset(1000).Payload(8).Build()}).empty());
}

TEST_F(DefragTest, LimitOfDatagrams) {
  Restart({.datagrams = 8, .frames = 1000, .keep_free = 0});
  const Bytes data = Udp4(600);
  for (uint16_t id = 0; id < 20; ++id) Feed(Fragment4(data, 0, 296, id));
  EXPECT_EQ(defrag->datagrams(), 8u);
  EXPECT_EQ(Lost(), DropReasons(12, DropReason::kFragmentLimit));
  EXPECT_FALSE(Whole({Fragment4(data, 296, 600, 12)}).empty());
  EXPECT_TRUE(Whole({Fragment4(data, 296, 600, 11)}).empty());
}

TEST_F(DefragTest, LimitsWithinOneDatagram) {
  const Bytes data(8000, 1);
  for (size_t i = 0; i < Datagram::kMaxFragments; ++i) {
    ASSERT_EQ(Feed(Fragment4(data, i * 8, i * 8 + 8)).verdict, Verdict::Held());
  }
  EXPECT_EQ(Feed(Fragment4(data, 1024, 1032)).verdict, Limit());
  EXPECT_EQ(Lost(), DropReasons(128, DropReason::kFragmentLimit));
  // Frames.
  const Bytes long_data(40000, 1);
  for (size_t i = 0; i < 7; ++i) {
    ASSERT_EQ(Feed(Fragment4(long_data, i * 1440, i * 1440 + 1440), kLan, 40).verdict.kind(),
              i < 6 ? Verdict::Kind::kHeld : Verdict::Kind::kDrop);
  }
  EXPECT_EQ(Lost(), DropReasons(6, DropReason::kFragmentLimit));
  // A datagram that is the only one to go.
  Restart({.datagrams = 8, .frames = 4, .keep_free = 0});
  for (size_t i = 0; i < 4; ++i) Feed(Fragment4(data, i * 8, i * 8 + 8));
  EXPECT_EQ(Feed(Fragment4(data, 32, 40)).verdict, Limit());
  EXPECT_EQ(Lost(), DropReasons(4, DropReason::kFragmentLimit));
  EXPECT_EQ(defrag->datagrams(), 0u);
}

TEST_F(DefragTest, Thresholds) {
  const Bytes data = Udp4(600);
  settings.high_thresh4 = 0;
  EXPECT_EQ(Feed(Fragment4(data, 0, 296)).verdict, Limit());
  EXPECT_EQ(Feed(Fragment6(data, 0, 296)).verdict, Verdict::Held()) << "IPv6 has its own";
  settings.high_thresh4 = 3 * 2048;
  for (uint16_t id = 0; id < 5; ++id) Feed(Fragment4(data, 0, 296, id));
  EXPECT_EQ(defrag->frames(), 4u);
  EXPECT_EQ(Lost(), DropReasons(2, DropReason::kFragmentLimit));
}

TEST_F(DefragTest, AShortPoolIsNotMadeShorter) {
  const Bytes data = Udp4(600);
  for (uint16_t id = 0; id < 4; ++id) Feed(Fragment4(data, 0, 296, id));
  std::vector<packet::FrameIndex> taken;
  while (world.pool.size() > 1000) taken.push_back(world.pool.Alloc());
  for (uint16_t id = 4; id < 20; ++id) Feed(Fragment4(data, 0, 296, id));
  EXPECT_EQ(defrag->frames(), 4u);
  EXPECT_EQ(Lost(), DropReasons(16, DropReason::kFragmentLimit));
  for (const auto frame : taken) world.pool.Free(frame);
}

TEST_F(DefragTest, InterfaceDown) {
  const Bytes data = Udp4(600);
  Feed(Fragment4(data, 0, 104, 1), kLan);
  Feed(Fragment4(data, 0, 104, 2), kLan);
  Feed(PacketBuilder()
           .Ethernet(test::kPeerMac, test::kWanMac)
           .Ipv4("10.0.0.2", "203.0.113.1")
           .Id(2)
           .Protocol(17)
           .MoreFragments()
           .FragmentOffset(104)
           .Payload(104)
           .Build(),
       kWan);
  defrag->InterfaceDown(kWan);
  TakeLost();
  EXPECT_EQ(Lost(), DropReasons(2, DropReason::kInterfaceDown));
  EXPECT_EQ(defrag->datagrams(), 1u);
}

}  // namespace
}  // namespace sluice::stages
