// Reassembly, and the cutting up again, under arbitrary fragments: the input is a list of events,
// each a byte that says what happens and bytes that say how. After every one, frames and packets
// must add up; what was reassembled must be a sound packet, whose pieces, put together once more,
// give the same.
//
//   first byte   bits 0-1 limits; bit 2: packets in pieces of 100 bytes
//   event & 7    0-4 a fragment   FLAGS ID OFFSET LENGTH (offset and length in units of 8)
//                5   a frame      LENGTH bytes... (from the IP header on)
//                6   time passes  seconds
//                7   an interface goes
//
// FLAGS: bit 0 IPv6; bit 1 more fragments; bit 2 don't-fragment; bit 3 three bytes more; bits 4-5
// ECN; bit 6 the interface; bit 7 an IPv4 option, or IPv6 destination options.
#include <algorithm>
#include <cstdint>
#include <memory>
#include <vector>

#include "stages/defrag/defrag.h"
#include "stages/fragment/fragment.h"
#include "stages/fragment/fragment6.h"
#include "stages/fragment/refragment.h"
#include "stages/parse/parse.h"
#include "support/fuzz_input.h"
#include "support/packet_builder.h"
#include "wire/ipv4.h"
#include "wire/ipv6.h"

namespace sluice::test {
namespace {

using packet::Packet;
using packet::Verdict;

constexpr uint32_t kFrames = 1024;
const Mac kRouter{{2, 0, 0, 0, 0, 1}};
const Mac kHost{{2, 0, 0, 0, 0, 2}};

Bytes FragmentFrom(uint8_t flags, uint8_t id, uint8_t offset, uint8_t length) {
  const auto at = static_cast<uint16_t>(offset * 8);
  const size_t size = length * size_t{8} + ((flags & 8) != 0 ? 3 : 0);
  const bool more = (flags & 2) != 0;
  const bool extra = (flags & 0x80) != 0;
  PacketBuilder b = PacketBuilder().Ethernet(kHost, kRouter);
  if ((flags & 1) != 0) {
    b.Ipv6("2001:db8::2", "2001:db8:1::1").Tos(flags >> 4 & 3);
    if (extra) b.DestinationOptions();
    return b.Fragment(at, more, id).Protocol(17).Payload(size).Build();
  }
  b.Ipv4("10.0.0.2", "203.0.113.1").Id(id).Protocol(17).FragmentOffset(at).Tos(flags >> 4 & 3);
  if (more) b.MoreFragments();
  if ((flags & 4) != 0) b.DontFragment();
  if (extra) b.Options({0x9e, 4, 0, 0});
  return b.Payload(size).Build();
}

// The world of one input.
class Machine {
 public:
  explicit Machine(uint8_t first)
      : arena_(packet::FrameArena::Create(kFrames, 2048)),
        pool_(*arena_),
        outbox_(pool_),
        segment_((first & 4) != 0 ? 100 : 1792),
        defrag_(*arena_, LimitsFrom(first), 1, now_),
        again_(*arena_, {.keep_free = 0}, 2, now_) {
    for (uint32_t i = 0; i < kFrames; ++i) pool_.Free(i);
    interface_.mac = kRouter;
  }
  ~Machine() {
    for (uint8_t slot = 0; slot < 2; ++slot) InterfaceGone(IfaceSlot{slot});
    Check();
    Require(pool_.size() == kFrames, "frames were lost");
  }

  void Arrive(const Bytes& frame, IfaceSlot in) {
    if (frame.size() < 14) return;
    Packet p = Receive(frame, in);
    ++received_;
    const stages::ParseResult parsed = stages::Parse(p, interface_, pool_);
    if (!parsed.verdict.is_continue() ||
        !p.Has(packet::kFlagFragment | packet::kFlagFragmentHeader)) {
      return End(p);
    }
    const Verdict verdict = defrag_.Add(p, settings_, now_, pool_, *counters_);
    if (verdict.is_continue()) {
      if (p.fragment_size != 0) CheckWhole(p);
      End(p);
    } else if (verdict.kind() == Verdict::Kind::kDrop) {
      End(p);
    }
    TakeLost();
  }
  void Pass(Nanos time) {
    now_ += time;
    defrag_.Advance(now_);
    TakeLost();
  }
  void InterfaceGone(IfaceSlot slot) {
    defrag_.InterfaceDown(slot);
    TakeLost();
  }
  void Check() const {
    uint64_t held = 0;
    uint64_t merged = 0;
    for (const InterfaceCounters& c : counters_->interfaces) {
      held += c.held_packets.Read();
      merged += c.merged_packets.Read();
    }
    Require(received_ == ended_ + held + merged, "packets do not add up");
    Require(pool_.size() + defrag_.frames() == kFrames, "frames do not add up");
    Require(defrag_.frames() <= defrag_.limits().frames, "over the limit");
  }

 private:
  static stages::DefragLimits LimitsFrom(uint8_t first) {
    if ((first & 3) == 0) return {.datagrams = 4, .frames = 12, .keep_free = 0};
    if ((first & 3) == 1) return {.datagrams = 16, .frames = 300, .keep_free = 900};
    return {.datagrams = 16, .frames = 512, .keep_free = 0};
  }

  Packet Receive(const Bytes& frame, IfaceSlot in) {
    Packet p;
    const auto size = static_cast<uint32_t>(frame.size());
    // A first piece that holds all headers, as a NIC's does.
    const uint32_t first = std::min(size, std::max(segment_, 120u));
    Require(outbox_.NewPacket(first, p), "no frame");
    p.in = in;
    p.length = size;
    std::copy_n(frame.begin(), first, p.data);
    packet::FrameIndex tail = p.frame;
    for (uint32_t at = first; at < size; at += segment_) {
      const uint32_t n = std::min(segment_, size - at);
      const packet::FrameIndex next = pool_.Alloc();
      Require(next != packet::kNoFrame, "no frame");
      std::copy_n(frame.begin() + at, n, arena_->Chunk(next) + packet::kHeadroom);
      packet::LinkOf(*arena_, tail) = {next, packet::kHeadroom, static_cast<uint16_t>(n)};
      tail = next;
      ++p.segment_count;
    }
    return p;
  }
  Bytes BytesOf(const Packet& p) const {
    Bytes bytes(p.length);
    packet::CopyOut(*arena_, p, 0, bytes.data(), p.length);
    return bytes;
  }
  void End(const Packet& p) {
    ++ended_;
    packet::FreePacket(pool_, p);
  }
  void TakeLost() {
    stages::LostFragment lost;
    while (defrag_.TakeLost(lost, *counters_)) End(lost.packet);
  }

  void CheckWhole(const Packet& whole) {
    const Bytes bytes = BytesOf(whole);
    const std::span<const uint8_t> ip(bytes.data() + 14, bytes.size() - 14);
    if (ip[0] >> 4 == 4) {
      Require(!wire::CheckIpv4(ip) && !wire::Ipv4View(ip.data()).IsFragment(), "no sound whole");
    } else {
      Require(!wire::CheckIpv6(ip), "no sound whole");
      if (whole.Has(packet::kFlagFragment)) return;  // there was a second fragment header
    }
    Require(whole.l3_length() == ip.size() && bytes.size() == whole.length, "lengths");
    std::vector<Packet> pieces;
    const bool all = stages::Refragment(
        whole, outbox_, [&](Packet& piece, bool) { pieces.push_back(piece); });
    Packet again = whole;
    again.frame = packet::kNoFrame;
    auto counters = std::make_unique<WorkerCounters>();
    for (Packet& piece : pieces) {
      piece.in = whole.in;
      piece.flags = 0;
      Require(stages::Parse(piece, interface_, pool_).verdict.is_continue(), "no sound piece");
      const Verdict verdict = again_.Add(piece, settings_, now_, pool_, *counters);
      if (verdict.kind() == Verdict::Kind::kHeld) continue;
      Require(verdict.is_continue(), "pieces do not fit together");
      Require(again.frame == packet::kNoFrame, "two of one");
      again = piece;
    }
    if (all && pieces.size() > 1) {
      Require(again.frame != packet::kNoFrame, "pieces are missing");
      Bytes copy = BytesOf(again);
      if (whole.l3()[0] >> 4 == 4) {  // a single don't-fragment may have been another's
        copy[20] = bytes[20], copy[24] = bytes[24], copy[25] = bytes[25];
      }
      Require(copy == bytes, "the same pieces, another whole");
    }
    if (again.frame != packet::kNoFrame) packet::FreePacket(pool_, again);
    again_.InterfaceDown(whole.in);
    stages::LostFragment lost;
    while (again_.TakeLost(lost, *counters)) packet::FreePacket(pool_, lost.packet);
  }

  Nanos now_ = Seconds(1);
  const std::unique_ptr<packet::FrameArena> arena_;
  packet::FramePool pool_;
  packet::Outbox outbox_;
  const uint32_t segment_;
  const tables::DefragSettings settings_;
  tables::Interface interface_;
  stages::Defrag defrag_;
  stages::Defrag again_;
  const std::unique_ptr<WorkerCounters> counters_ = std::make_unique<WorkerCounters>();
  uint64_t received_ = 0;
  uint64_t ended_ = 0;
};

void Run(FuzzInput input) {
  Machine machine(input.Byte());
  while (!input.empty()) {
    const uint8_t event = input.Byte() & 7;
    if (event <= 4) {
      const uint8_t flags = input.Byte();
      const uint8_t id = input.Byte() & 7;
      const uint8_t offset = input.Byte();
      const uint8_t length = input.Byte() % 180;
      const IfaceSlot in{static_cast<uint8_t>(flags >> 6 & 1)};
      machine.Arrive(FragmentFrom(flags, id, offset, length), in);
    } else if (event == 5) {
      Bytes frame = PacketBuilder().Ethernet(kHost, kRouter).Build();
      const Bytes rest = input.Take(input.Byte());
      if (!rest.empty()) {
        frame[12] = rest[0] >> 4 == 4 ? 0x08 : 0x86;
        frame[13] = rest[0] >> 4 == 4 ? 0x00 : 0xdd;
        frame.insert(frame.end(), rest.begin(), rest.end());
        if (rest.size() >= 20 && rest[0] == 0x45) wire::Ipv4Mutable(&frame[14]).FillChecksum();
      }
      machine.Arrive(frame, IfaceSlot{0});
    } else if (event == 6) {
      machine.Pass(Seconds(input.Byte() % 64));
    } else {
      machine.InterfaceGone(IfaceSlot{static_cast<uint8_t>(input.Byte() & 1)});
    }
    machine.Check();
  }
}

}  // namespace
}  // namespace sluice::test

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size > 0) sluice::test::Run(sluice::test::FuzzInput({data, size}));
  return 0;
}
