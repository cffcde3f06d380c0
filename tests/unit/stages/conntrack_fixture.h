// Packets through connection tracking alone: parsed, tracked, and confirmed unless a test says
// otherwise. The two hosts are "a", who begins, and "b".
#ifndef SLUICE_TESTS_UNIT_STAGES_CONNTRACK_FIXTURE_H_
#define SLUICE_TESTS_UNIT_STAGES_CONNTRACK_FIXTURE_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <ostream>
#include <string>

#include "stages/conntrack/conntrack.h"
#include "stages/parse/parse.h"
#include "support/packet_builder.h"
#include "support/router_world.h"
#include "tables/flow_table.h"
#include "wire/tcp.h"

namespace sluice::tables {

inline void PrintTo(CtState s, std::ostream* out) {
  static constexpr const char* kNames[] = {"none",        "invalid", "new",
                                           "established", "related", "untracked"};
  *out << kNames[static_cast<size_t>(s)];
}
inline void PrintTo(TcpState s, std::ostream* out) {
  static constexpr const char* kNames[] = {"NONE",       "SYN_SENT", "SYN_RECV",  "ESTABLISHED",
                                           "FIN_WAIT",   "CLOSE_WAIT", "LAST_ACK", "TIME_WAIT",
                                           "CLOSE",      "SYN_SENT2"};
  *out << kNames[static_cast<size_t>(s)];
}

}  // namespace sluice::tables

namespace sluice::stages {

using packet::Packet;
using packet::Verdict;
using tables::CtState;
using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::FlowTuple;
using tables::TcpState;
using test::Bytes;
using test::FromHost;
using test::PacketBuilder;

class ConntrackFixture : public testing::Test {
 protected:
  static constexpr Nanos kStart = Seconds(1000);
  static constexpr uint32_t kCapacity = 64;

  ConntrackFixture() { UseTable({.capacity = kCapacity, .hash_seed = 1, .start = kStart}); }
  ~ConntrackFixture() override {
    world.CheckFrames();
    CheckTable();
  }

  void UseTable(const tables::FlowTable::Options& options) {
    conntrack.reset();
    table = std::make_unique<tables::FlowTable>(options);
    conntrack = std::make_unique<Conntrack>(*table, counters);
  }

  // Nothing is lost: what the table counts is what it shows.
  void CheckTable() {
    uint32_t shown = 0;
    table->Visit(0, table->capacity(), [&](FlowIndex index, const Flow& flow) {
      ++shown;
      EXPECT_EQ(table->Find(flow.tuples[0]).flow, index);
      EXPECT_EQ(table->Find(flow.tuples[1]).flow, index);
    });
    EXPECT_EQ(table->size(), shown);
    EXPECT_EQ(counters.current.Read(), table->size());
  }

  // Parsed and tracked; its frames are still the caller's.
  Packet TrackOnly(const Bytes& bytes, uint32_t segment = 0) {
    Packet tracked = world.Receive(bytes, test::kLan, segment);
    EXPECT_EQ(Parse(tracked, world.lan(), world.pool).verdict, Verdict::Continue());
    tracked.ct_state = static_cast<uint8_t>(preset);
    FlowTuple tuple;
    const uint64_t hash = MakeTuple(tracked, tuple) ? table->Hash(tuple) : 0;
    verdict = conntrack->Track(tracked, tuple, hash, settings, *world.arena, now);
    return tracked;
  }
  // All the way; what it was is in p and verdict.
  CtState Pass(const Bytes& bytes, uint32_t segment = 0) {
    p = TrackOnly(bytes, segment);
    if (verdict.is_continue()) {
      verdict = conntrack->Confirm(p, now);
    } else {
      conntrack->Abandon(p);
    }
    world.Free(p);
    now += Nanos(1);  // the next packet comes in a tick of its own
    return verdict.is_continue() ? static_cast<CtState>(p.ct_state) : CtState::kNone;
  }
  CtState Pass(const PacketBuilder& packet) { return Pass(packet.Build()); }

  const Flow& flow() const { return table->at(p.flow); }
  FlowDirection direction() const { return static_cast<FlowDirection>(p.ct_direction); }
  Nanos Left() const { return flow().expires - (now - Nanos(1)); }
  void Wait(Nanos time) {
    now += time;
    while (!conntrack->Expire(now)) {
    }
  }

  test::RouterWorld world;
  tables::ConntrackSettings settings;
  ConntrackCounters counters;
  std::unique_ptr<tables::FlowTable> table;
  std::unique_ptr<Conntrack> conntrack;
  Nanos now = kStart;
  CtState preset = CtState::kNone;
  Packet p;  // the last one through Pass (its frames are free again)
  Verdict verdict = Verdict::Continue();
};

// A TCP conversation: a (10.0.0.2:4000) begins, b (192.0.2.9:80) answers. Sequence numbers are
// relative to kIsnA and kIsnB.
class TcpFixture : public ConntrackFixture {
 protected:
  static constexpr uint32_t kIsnA = 0xffff'ff00;  // it wraps soon
  static constexpr uint32_t kIsnB = 5000;
  static constexpr uint8_t kSyn = wire::kTcpSyn, kAck = wire::kTcpAck, kFin = wire::kTcpFin,
                           kRst = wire::kTcpRst, kPsh = wire::kTcpPsh;

  struct Extra {
    size_t data = 0;
    uint16_t window = 10'000;
    Bytes options = {};
  };

  CtState A(uint8_t flags, uint32_t sequence, uint32_t ack, const Extra& extra) {
    return Segment(true, flags, kIsnA + sequence, (flags & kAck) != 0 ? kIsnB + ack : 0, extra);
  }
  CtState B(uint8_t flags, uint32_t sequence, uint32_t ack, const Extra& extra) {
    return Segment(false, flags, kIsnB + sequence, (flags & kAck) != 0 ? kIsnA + ack : 0, extra);
  }
  CtState A(uint8_t flags, uint32_t sequence, uint32_t ack = 0) {
    return A(flags, sequence, ack, Extra{});
  }
  CtState B(uint8_t flags, uint32_t sequence, uint32_t ack = 0) {
    return B(flags, sequence, ack, Extra{});
  }
  CtState Segment(bool from_a, uint8_t flags, uint32_t sequence, uint32_t ack, const Extra& extra) {
    PacketBuilder builder = FromHost();
    from_a ? builder.Ipv4("10.0.0.2", "192.0.2.9").Tcp(4000, 80, flags)
           : builder.Ipv4("192.0.2.9", "10.0.0.2").Tcp(80, 4000, flags);
    builder.Sequence(sequence, ack).Window(extra.window);
    if (!extra.options.empty()) builder.Options(extra.options);
    if (extra.data > 0) builder.Payload(extra.data);
    return Pass(builder);
  }

  void Handshake() {
    ASSERT_EQ(A(kSyn, 0), CtState::kNew);
    ASSERT_EQ(B(kSyn | kAck, 0, 1), CtState::kEstablished);
    ASSERT_EQ(A(kAck, 1, 1), CtState::kEstablished);
    ASSERT_EQ(state(), TcpState::kEstablished);
  }
  // A sends FIN, B answers with one, A acknowledges.
  void Close() {
    ASSERT_EQ(A(kFin | kAck, 1, 1), CtState::kEstablished);
    ASSERT_EQ(B(kFin | kAck, 1, 2), CtState::kEstablished);
    ASSERT_EQ(A(kAck, 2, 2), CtState::kEstablished);
    ASSERT_EQ(state(), TcpState::kTimeWait);
  }

  TcpState state() const { return static_cast<TcpState>(flow().tcp.state); }
};

}  // namespace sluice::stages

#endif  // SLUICE_TESTS_UNIT_STAGES_CONNTRACK_FIXTURE_H_
