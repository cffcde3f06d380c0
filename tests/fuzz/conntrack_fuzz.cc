// Connection tracking under arbitrary packets and times: the input is a list of events, each a byte
// that says what happens and bytes that say how. The table is small, so that it is often full.
//
//   first byte   bit 0: be liberal; bit 1: not loose; bit 2: a limit per source; bit 3: no
//   checksums event & 15   0-8  a TCP segment    WAY FLAGS SEQUENCE ACK WINDOW DATA OPTIONS
//                9    a UDP packet     WAY
//                10   an ICMP error about such a segment   WAY TYPE LENGTH
//                11   a ping or answer WAY
//                12   time passes      units of 0.5 s
//                13   time passes      units of 2000 s
//                14   any IP packet    LENGTH bytes...
//                15   SCTP             WAY TAG LENGTH chunks...
//   event & 16   its way ends before Confirm
//   event & 32   it waits, and is confirmed after the next one was tracked
//
// Invariants: every flow is found by both of its tuples; the table counts what it shows, apart from
// packets that wait; states are states; in the end time ends all of them.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "stages/conntrack/conntrack.h"
#include "stages/parse/parse.h"
#include "support/fuzz_input.h"
#include "support/packet_builder.h"
#include "tables/flow_table.h"

namespace sluice::test {
namespace {

using packet::Packet;
using tables::FlowTable;

constexpr uint32_t kFrames = 8;
constexpr uint32_t kCapacity = 12;
constexpr uint32_t kIsn[2] = {0xffff'f000, 70'000};
const Mac kMac{{2, 0, 0, 0, 0, 1}};

class Machine {
 public:
  explicit Machine(FuzzInput input)
      : input_(input), arena_(packet::FrameArena::Create(kFrames, 2048)), pool_(*arena_) {
    for (uint32_t i = 0; i < kFrames; ++i) pool_.Free(i);
    const uint8_t how = input_.Byte();
    settings_.tcp_be_liberal = (how & 1) != 0;
    settings_.tcp_loose = (how & 2) == 0;
    settings_.checksum = (how & 8) == 0;
    table_ = std::make_unique<FlowTable>(FlowTable::Options{.capacity = kCapacity,
                                                            .per_source = (how & 4) != 0 ? 5u : 0u,
                                                            .hash_seed = how,
                                                            .start = now_});
    conntrack_ = std::make_unique<stages::Conntrack>(*table_, counters_);
    interface_.mac = kMac;
    interface_.ipv6_enabled = true;
  }

  void Run() {
    for (int events = 0; events < 400 && !input_.empty(); ++events) {
      Event(input_.Byte());
      Check();
    }
    ConfirmWaiting();
    now_ += Seconds(1'000'000);
    for (int i = 0; i < 1000 && !conntrack_->Expire(now_); ++i) {
    }
    Check();
    Require(table_->size() == 0, "a flow outlived all timeouts");
    Require(pool_.size() == kFrames, "a frame was lost");
  }

 private:
  PacketBuilder From(uint8_t way) const {
    const bool from_a = (way & 1) != 0;
    PacketBuilder builder = PacketBuilder().Ethernet(Mac{{2, 0, 0, 0, 0, 2}}, kMac);
    if ((way & 2) != 0) {
      from_a ? builder.Ipv6("2001:db8::2", "2001:db8:1::9")
             : builder.Ipv6("2001:db8:1::9", "2001:db8::2");
    } else {
      from_a ? builder.Ipv4("10.0.0.2", "192.0.2.9") : builder.Ipv4("192.0.2.9", "10.0.0.2");
    }
    return builder;
  }
  static uint16_t Port(uint8_t way) { return static_cast<uint16_t>(5000 + (way >> 2 & 7)); }
  // Small steps around what is right, and far jumps.
  static uint32_t Near(uint32_t base, uint8_t step) {
    if (step < 128) return base + step;
    if (step < 192) return base + (step - 127u) * 1000;
    return base + (step - 191u) * 0x0400'0000;
  }

  Bytes Segment(uint8_t way) {
    const bool from_a = (way & 1) != 0;
    const uint8_t flags = input_.Byte();
    const uint8_t sequence = input_.Byte();
    const uint8_t ack = input_.Byte();
    const uint8_t window = input_.Byte();
    const size_t data = input_.Byte() * size_t{4};
    PacketBuilder builder = From(way);
    from_a ? builder.Tcp(Port(way), 80, flags) : builder.Tcp(80, Port(way), flags);
    builder.Sequence(Near(kIsn[from_a ? 0 : 1], sequence), Near(kIsn[from_a ? 1 : 0], ack))
        .Window(static_cast<uint16_t>(window << 8));
    if ((way & 0x20) != 0) {
      const uint8_t options = input_.Byte();
      Bytes bytes = input_.Take(options & 31);
      if (!bytes.empty()) builder.Options(bytes);
    }
    if ((way & 0x40) != 0) builder.BadChecksum();
    if (data > 0) builder.Payload(data);
    return builder.Build();
  }

  Bytes Error(uint8_t way) {
    const Bytes quoted = Segment(way);
    const uint8_t type = input_.Byte();
    const size_t length = input_.Byte();
    Bytes quote(quoted.begin() + 14, quoted.end());
    quote.resize(std::min(quote.size(), length));
    PacketBuilder builder = PacketBuilder().Ethernet(Mac{{2, 0, 0, 0, 0, 2}}, kMac);
    const bool to_a = (way & 1) != 0;
    return (way & 2) != 0 ? builder.Ipv6("2001:db8:5::1", to_a ? "2001:db8::2" : "2001:db8:1::9")
                                .Icmpv6(type, 0).Payload(quote).Build()
                          : builder.Ipv4("198.51.100.1", to_a ? "10.0.0.2" : "192.0.2.9")
                                .Icmp(type, 0).Payload(quote).Build();
  }

  Bytes Ping(uint8_t way) {
    const uint8_t id = Port(way) & 7;
    PacketBuilder builder = From(way);
    if ((way & 2) != 0) {
      (way & 0x20) != 0 ? builder.Icmpv6EchoReply(id, 1) : builder.Icmpv6Echo(id, 1);
    } else {
      (way & 0x20) != 0 ? builder.IcmpEchoReply(id, 1) : builder.IcmpEcho(id, 1);
    }
    return builder.Payload(8).Build();
  }

  Bytes Sctp(uint8_t way) {
    Bytes l4(12);
    StoreBe16(l4.data(), (way & 1) != 0 ? Port(way) : 80);
    StoreBe16(l4.data() + 2, (way & 1) != 0 ? 80 : Port(way));
    StoreBe32(l4.data() + 4, input_.Byte());
    const Bytes chunks = input_.Take(input_.Byte());
    l4.insert(l4.end(), chunks.begin(), chunks.end());
    return From(way).Protocol(132).Payload(l4).Build();
  }

  void Event(uint8_t event) {
    const uint8_t kind = event & 15;
    Bytes frame;
    if (kind == 12 || kind == 13) {
      ConfirmWaiting();
      now_ += (kind == 12 ? Millis(500) : Seconds(2000)) * input_.Byte();
      conntrack_->Expire(now_, 1 + event / 16u);
      return;
    }
    if (kind == 14) {
      frame = input_.Take(input_.Byte());
      Bytes head = PacketBuilder().Ethernet(Mac{{2, 0, 0, 0, 0, 2}}, kMac).EtherType(
          !frame.empty() && frame[0] >> 4 == 6 ? 0x86dd : 0x0800).Build();
      frame.insert(frame.begin(), head.begin(), head.end());
      if (frame.size() >= 34 && (frame[14] & 0xf) == 5) {
        StoreBe16(frame.data() + 24, 0);
        StoreBe16(frame.data() + 24, NaiveChecksum({frame.data() + 14, 20}));
      }
    } else {
      const uint8_t way = input_.Byte();
      frame = kind < 9 ? Segment(way)
              : kind == 9 ? ((way & 1) != 0 ? From(way).Udp(Port(way), 80)
                                            : From(way).Udp(80, Port(way))).Build()
              : kind == 10 ? Error(way)
              : kind == 11 ? Ping(way)
                           : Sctp(way);
    }
    Pass(frame, (event & 16) != 0, (event & 32) != 0);
  }

  void Pass(const Bytes& frame, bool abandon, bool wait) {
    Packet p;
    p.frame = pool_.Alloc();
    p.data = arena_->Chunk(p.frame) + packet::kHeadroom;
    p.length = p.segment_length = static_cast<uint16_t>(std::min<size_t>(frame.size(), 1700));
    std::copy_n(frame.begin(), p.length, p.data);
    const auto parsed = stages::Parse(p, interface_, pool_);
    if (!parsed.verdict.is_continue() || parsed.protocol == stages::Protocol::kArp) {
      packet::FreePacket(pool_, p);
      return;
    }
    tables::FlowTuple tuple;
    const uint64_t hash = stages::MakeTuple(p, tuple) ? table_->Hash(tuple) : 0;
    const auto verdict = conntrack_->Track(p, tuple, hash, settings_, *arena_, now_);
    Require(verdict.kind() != packet::Verdict::Kind::kPunt, "Track punts");
    const bool has_flow = p.flow != packet::kNoFlowIndex;
    const auto state = static_cast<tables::CtState>(p.ct_state);
    if (verdict.is_continue()) {
      const bool of_flow = state == tables::CtState::kNew || state == tables::CtState::kRelated ||
                           state == tables::CtState::kEstablished;
      Require(has_flow == of_flow, "state and flow do not agree");
    }
    if (!verdict.is_continue() || abandon) {
      conntrack_->Abandon(p);
      packet::FreePacket(pool_, p);
    } else if (wait && waiting_.size() < 3) {
      waiting_.push_back(p);
      return;  // the tick goes on
    } else {
      Confirm(p);
    }
    ConfirmWaiting();
  }

  void Confirm(Packet& p) {
    const auto verdict = conntrack_->Confirm(p, now_);
    Require(verdict.is_continue() || p.flow == packet::kNoFlowIndex, "a clash keeps its flow");
    packet::FreePacket(pool_, p);
  }
  void ConfirmWaiting() {
    for (Packet& p : waiting_) Confirm(p);
    waiting_.clear();
    now_ += Nanos(1);
  }

  void Check() {
    uint32_t shown = 0;
    table_->Visit(0, kCapacity, [&](tables::FlowIndex index, const tables::Flow& flow) {
      ++shown;
      for (const tables::FlowTuple& t : flow.tuples) {
        Require(table_->Find(t).flow == index, "a flow is not found");
      }
      if (flow.tuples[0].protocol == 6) Require(flow.tcp.state <= 9, "no state of TCP");
      if (flow.tuples[0].protocol == 132) Require(flow.sctp.state <= 8, "no state of SCTP");
    });
    uint32_t unconfirmed = 0;
    for (const Packet& p : waiting_) {
      if (p.flow != packet::kNoFlowIndex && !table_->at(p.flow).Has(tables::kFlowConfirmed)) {
        ++unconfirmed;
      }
    }
    Require(table_->size() == shown + unconfirmed, "the table counts what it does not have");
    Require(counters_.current.Read() == table_->size(), "the gauge is wrong");
  }

  FuzzInput input_;
  std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  tables::Interface interface_;
  tables::ConntrackSettings settings_;
  ConntrackCounters counters_;
  std::unique_ptr<FlowTable> table_;
  std::unique_ptr<stages::Conntrack> conntrack_;
  std::vector<Packet> waiting_;
  Nanos now_ = Seconds(1000);
};

}  // namespace
}  // namespace sluice::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  sluice::test::Machine(sluice::test::FuzzInput({data, size})).Run();
  return 0;
}
