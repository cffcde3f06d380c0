// Fragments for tests of stages/defrag, cut by hand from whole packets, and what becomes of them.
#ifndef SLUICE_TESTS_UNIT_STAGES_DEFRAG_FIXTURE_H_
#define SLUICE_TESTS_UNIT_STAGES_DEFRAG_FIXTURE_H_

#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/worker_counters.h"
#include "stages/defrag/defrag.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment6.h"
#include "stages/fragment/refragment.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::stages {

using packet::Packet;
using packet::Verdict;
using test::Bytes;
using test::FromHost;
using test::kLan;
using test::kWan;
using test::PacketBuilder;

inline PacketBuilder Host4() { return FromHost().Ipv4("10.0.0.2", "203.0.113.1"); }
inline PacketBuilder Host6() { return FromHost().Ipv6("2001:db8::2", "2001:db8:99::1"); }

// The bytes behind the IP header of a UDP datagram of `size` bytes.
inline Bytes Udp4(size_t size) {
  const Bytes whole = Host4().Udp(1000, 2000).Payload(size - 8).Build();
  return {whole.begin() + 34, whole.end()};
}
inline Bytes Udp6(size_t size) {
  const Bytes whole = Host6().Udp(1000, 2000).Payload(size - 8).Build();
  return {whole.begin() + 54, whole.end()};
}
inline Bytes Part(const Bytes& of, size_t begin, size_t end) {
  return {of.begin() + static_cast<long>(begin), of.begin() + static_cast<long>(end)};
}

// One fragment: bytes [begin, end) of `data`; the last one if it reaches the end.
inline PacketBuilder Cut4(const Bytes& data, size_t begin, size_t end, uint16_t id = 1) {
  PacketBuilder b = Host4().Id(id).Protocol(17).FragmentOffset(static_cast<uint16_t>(begin));
  if (end != data.size()) b.MoreFragments();
  return b;
}
inline Bytes Fragment4(const Bytes& data, size_t begin, size_t end, uint16_t id = 1) {
  return Cut4(data, begin, end, id).Payload(Part(data, begin, end)).Build();
}
inline Bytes Fragment6(const Bytes& data, size_t begin, size_t end, uint32_t id = 1,
                       uint8_t protocol = 17) {
  return Host6()
      .Fragment(static_cast<uint16_t>(begin), end != data.size(), id)
      .Protocol(protocol)
      .Payload(Part(data, begin, end))
      .Build();
}

class DefragTest : public testing::Test {
 protected:
  DefragTest() { Restart({}); }
  void TearDown() override {
    defrag->InterfaceDown(kLan);
    defrag->InterfaceDown(kWan);
    TakeLost();
    EXPECT_EQ(defrag->frames(), 0u);
    world.CheckFrames();
    for (const IfaceSlot slot : {kLan, kWan}) {
      const InterfaceCounters& c = counters->of(slot);
      EXPECT_EQ(c.held_packets.Read(), 0u);
      EXPECT_EQ(received[slot.value], ended[slot.value] + c.merged_packets.Read())
          << "every fragment has one end";
    }
  }

  void Restart(const DefragLimits& limits) {
    defrag = std::make_unique<Defrag>(*world.arena, limits, 7, now);
  }

  struct Result {
    Verdict verdict = Verdict::Continue();
    std::optional<Packet> packet;  // when it goes on: the test's to End()
  };
  // One frame through Parse and Add.
  Result Feed(const Bytes& frame, IfaceSlot in = kLan, uint32_t segment = 0) {
    Packet p = world.Receive(frame, in, segment);
    ++received[in.value];
    const ParseResult parsed = Parse(p, in == kLan ? world.lan() : world.wan(), world.pool);
    EXPECT_TRUE(parsed.verdict.is_continue());
    EXPECT_TRUE(p.Has(packet::kFlagFragment | packet::kFlagFragmentHeader));
    Result result{defrag->Add(p, settings, now, world.pool, *counters), {}};
    if (result.verdict.kind() == Verdict::Kind::kDrop) {
      End(p);
    } else if (result.verdict.is_continue()) {
      result.packet = p;
    }
    TakeLost();
    return result;
  }
  void End(const Packet& p) {
    ++ended[p.in.value];
    world.Free(p);
  }
  // Feeds all; the whole that came of it, from its IP header on, empty if none did.
  Bytes Whole(const std::vector<Bytes>& frames, uint32_t segment = 0) {
    Bytes whole;
    for (const Bytes& frame : frames) {
      const Result r = Feed(frame, kLan, segment);
      if (!r.packet) continue;
      EXPECT_TRUE(whole.empty()) << "two packets came of it";
      whole = world.BytesOf(*r.packet, r.packet->l3_offset);
      last = *r.packet;
      End(*r.packet);
    }
    return whole;
  }
  void TakeLost() {
    LostFragment one;
    while (defrag->TakeLost(one, *counters)) {
      lost.emplace_back(one.reason, one.report);
      End(one.packet);
    }
    EXPECT_FALSE(defrag->has_lost());
  }
  // The reasons since the last call.
  std::vector<DropReason> Lost() {
    std::vector<DropReason> reasons;
    for (const auto& [reason, report] : std::exchange(lost, {})) reasons.push_back(reason);
    return reasons;
  }
  // The pieces that go out for a datagram, from their IP headers on.
  template <class Fragmenter>
  std::vector<Bytes> Pieces(const Packet& whole, uint32_t mtu) {
    std::vector<Bytes> pieces;
    Fragmenter fragmenter(whole, mtu, world.outbox);
    while (!fragmenter.done()) {
      Packet piece;
      if (!fragmenter.Next(piece)) {
        ADD_FAILURE() << "no frame";
        break;
      }
      pieces.push_back(world.BytesOf(piece, piece.l3_offset));
      world.Free(piece);
    }
    return pieces;
  }

  test::RouterWorld world;
  tables::DefragSettings settings;
  Nanos now = Seconds(1000);
  std::unique_ptr<WorkerCounters> counters = std::make_unique<WorkerCounters>();
  std::unique_ptr<Defrag> defrag;
  std::array<uint64_t, 2> received{};
  std::array<uint64_t, 2> ended{};
  std::vector<std::pair<DropReason, bool>> lost;
  Packet last;  // a handle of frames that are free again: metadata only
};

}  // namespace sluice::stages

#endif  // SLUICE_TESTS_UNIT_STAGES_DEFRAG_FIXTURE_H_
