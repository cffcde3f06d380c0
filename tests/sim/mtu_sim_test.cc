// Packets larger than the link in the middle, and packets in several pieces of memory.
#include <algorithm>
#include <map>

#include "sim/sim_fixture.h"

namespace sluice::test {
namespace {

constexpr uint32_t kNarrow = 1400;

// A narrow link between two routers, which really loses what is too big.
Row NarrowRow(SimNetwork& net, uint32_t wide, const SimRouter::Options& options = {}) {
  Row row(net, 2, options, {}, {wide, kNarrow, wide});
  row.links[1]->options.mtu = kNarrow;
  row.Warm(net);
  return row;
}

// Puts the pieces of one IPv4 datagram together: its header with length and fragment field made
// whole, and its payload. Empty when a piece is missing, overlaps or is marked wrongly.
Bytes Reassemble(const std::vector<SimHost::Received>& received) {
  std::map<size_t, const Bytes*> pieces;
  for (const auto& r : received) {
    if (!pieces.emplace((LoadBe16(r.packet.data() + 6) & 0x1fff) * 8u, &r.packet).second) return {};
  }
  if (pieces.empty() || pieces.begin()->first != 0) return {};
  const Bytes& first = *pieces.begin()->second;
  Bytes whole(first.begin(), first.begin() + static_cast<long>(PacketReader{first}.l4()));
  const size_t header = whole.size();
  size_t left = pieces.size();
  for (const auto& [offset, piece] : pieces) {
    const bool more = (LoadBe16(piece->data() + 6) & 0x2000) != 0;
    if (offset != whole.size() - header || more != (--left > 0)) return {};
    if (NaiveSum({piece->data(), PacketReader{*piece}.l4()}) != 0xffff) return {};
    whole.insert(whole.end(), piece->begin() + static_cast<long>(PacketReader{*piece}.l4()),
                 piece->end());
  }
  StoreBe16(whole.data() + 2, static_cast<uint16_t>(whole.size()));
  StoreBe16(whole.data() + 6, 0);
  return whole;
}

// What routers change on the way.
Bytes WithTtlAndChecksumOf(Bytes packet, const Bytes& other) {
  packet[8] = other[8];
  std::copy(other.begin() + 10, other.begin() + 12, packet.begin() + 10);
  return packet;
}

using MtuSimTest = SimTest;

TEST_F(MtuSimTest, DontFragmentIsAnsweredWithTheMtu) {
  Row row = NarrowRow(net, 1500);
  row.a->Send(Numbered(row.a4, row.b4, 0, kNarrow).DontFragment());
  row.a->Send(Numbered(row.a4, row.b4, 1, kNarrow + 1).DontFragment());
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(1));
  const auto errors = IcmpOf(row.a->received);
  ASSERT_EQ(errors.size(), 1u);
  const PacketReader error{errors[0]};
  EXPECT_EQ(error.icmp_type(), wire::kIcmpUnreachable);
  EXPECT_EQ(error.icmp_code(), wire::kIcmpFragmentationNeeded);
  EXPECT_EQ(error.icmp_rest(), kNarrow);
  EXPECT_EQ(error.source(), "10.0.0.2");
  EXPECT_TRUE(error.checksums_right());
  EXPECT_EQ(row.links[1]->stats(0).lost, 0u);
}

TEST_F(MtuSimTest, Ipv6IsAnsweredWithPacketTooBig) {
  Row row = NarrowRow(net, 1500);
  row.a->Send(Numbered(row.a6, row.b6, 0, kNarrow));
  row.a->Send(Numbered(row.a6, row.b6, 1, kNarrow + 1));
  net.Run(Millis(100));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(1));
  const auto errors = IcmpOf(row.a->received);
  ASSERT_EQ(errors.size(), 1u);
  const PacketReader error{errors[0]};
  EXPECT_EQ(error.icmp_type(), wire::kIcmpv6PacketTooBig);
  EXPECT_EQ(error.icmp_rest(), kNarrow);
  EXPECT_TRUE(error.checksums_right());
  EXPECT_EQ(errors[0].size(), 1280u);
}

// The errors about a packet's size are not limited: path MTU discovery hangs on them.
TEST_F(MtuSimTest, FragmentationNeededIsNotLimited) {
  Row row = NarrowRow(net, 1500);
  for (uint32_t i = 0; i < 30; ++i) {
    row.a->Send(Numbered(row.a4, row.b4, i, 1500).DontFragment());
  }
  net.Run(Millis(100));
  EXPECT_EQ(IcmpOf(row.a->received).size(), 30u);
}

TEST_F(MtuSimTest, FragmentsMakeTheSamePacketAgain) {
  Row row = NarrowRow(net, 1500);
  for (size_t size = kNarrow - 8; size <= 1500; size += 3) {
    row.b->received.clear();
    const Bytes sent = Numbered(row.a4, row.b4, 1, size).Id(static_cast<uint16_t>(size)).Build();
    row.a->Send(sent);
    net.Run(Millis(10));
    ASSERT_EQ(row.b->received.size(), size > kNarrow ? 2u : 1u) << size;
    const Bytes whole = Reassemble(row.b->received);
    ASSERT_EQ(whole.size(), size);
    EXPECT_EQ(WithTtlAndChecksumOf(whole, sent), sent) << size;
  }
  EXPECT_EQ(row.links[1]->stats(0).lost, 0u);
}

// Jumbo packets arrive in pieces of memory; what the memory looks like is nobody's business.
TEST_F(MtuSimTest, JumboPacketsInPiecesArriveWhole) {
  SimRouter::Options options;
  options.port.segment_bytes = 1500;
  Row row(net, 2, options, {}, {9000, 9000, 9000});
  row.Warm(net);
  for (const size_t size : {1486, 1487, 3000, 4500, 8999, 9000}) {
    for (const bool v6 : {false, true}) {
      row.b->received.clear();
      const Bytes sent = Numbered(row.from(v6), row.to(v6), 1, size).Build();
      row.a->Send(sent);
      net.Run(Millis(10));
      ASSERT_EQ(row.b->received.size(), 1u) << size;
      EXPECT_TRUE(PacketReader{row.b->received[0].packet}.checksums_right());
      EXPECT_TRUE(
          std::equal(sent.begin() + 12, sent.end(), row.b->received[0].packet.begin() + 12));
    }
  }
}

TEST_F(MtuSimTest, JumboPacketsInPiecesAreFragmented) {
  for (const uint32_t segment : {64u, 700u, 1500u}) {
    SimNetwork small(segment);
    SimRouter::Options options;
    options.port.segment_bytes = segment;
    options.port.tx_depth = 256;
    options.port.fill_depth = 256;
    Row row = NarrowRow(small, 9000, options);
    const size_t most = std::min<size_t>(9000, segment * size_t{packet::kMaxSegments} - 14);
    for (size_t size = kNarrow / 2; size <= most; size += 517) {
      row.b->received.clear();
      const Bytes sent = Numbered(row.a4, row.b4, 1, size).Id(7).Build();
      row.a->Send(sent);
      small.Run(Millis(10));
      const Bytes whole = Reassemble(row.b->received);
      ASSERT_EQ(whole.size(), size) << "in pieces of " << segment;
      EXPECT_EQ(WithTtlAndChecksumOf(whole, sent), sent);
    }
    EXPECT_EQ(small.violation(), "");
  }
}

// Several pieces wait for a neighbour, time out, and are all freed (the network's invariants).
TEST_F(MtuSimTest, JumboPacketsMayWait) {
  SimRouter::Options options;
  options.port.segment_bytes = 1000;
  Row row(net, 1, options, {}, {9000, 9000});
  row.b->IgnoreSolicitations(1);
  for (uint32_t i = 0; i < 5; ++i) row.a->Send(Numbered(row.a4, row.b4, i, 5000));
  for (uint32_t i = 0; i < 5; ++i) row.a->Send(Numbered(row.a4, "10.0.1.99", i, 5000));
  net.Run(Seconds(4));
  EXPECT_EQ(NumbersOf(row.b->received), UpTo(5));
  EXPECT_EQ(IcmpOf(row.a->received).size(), 5u);
  EXPECT_EQ(row.first().Held(), 0u);
}

}  // namespace
}  // namespace sluice::test
