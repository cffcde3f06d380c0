// Relays in the flow tier, natively and in the kernel, against a slow statement of what becomes of
// their packets, over random splices, segments and datagrams, with all that must go to a worker.
//
// SLUICE_OFFLOAD_PACKETS sets how many packets (40,000 without it), SLUICE_OFFLOAD_SEED the seed.
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/rng.h"
#include "support/environment.h"
#include "support/offload_native.h"
#include "support/offload_random.h"
#include "support/offload_relay.h"
#include "support/offload_rig.h"

namespace sluice {
namespace {

using test::Bytes;
using test::OffloadRig;
using test::PacketBuilder;
using test::Relay;

constexpr uint8_t kSlot = 5;
const Ipv4 kOwnAddress{0x0a000001};

class OffloadRelayRandomTest : public ::testing::TestWithParam<bool> {
 protected:
  static constexpr uint32_t kRelays = 64;

  void SetUp() override {
    rig_ = std::make_unique<OffloadRig>(GetParam(), 2 * kRelays);
    const uint32_t own = SLUICE_OFFLOAD_OWN_BIT(kOwnAddress.value);
    rig_->memory().state->own4[own / 64] |= 1ull << (own % 64);
  }

  uint32_t Any32() {
    return rng_.Chance(1, 4) ? static_cast<uint32_t>(rng_.Below(3)) - 1
                             : static_cast<uint32_t>(rng_.Next());
  }
  uint16_t Any16() {
    return rng_.Chance(1, 3) ? static_cast<uint16_t>(rng_.Below(3) - 1)
                             : static_cast<uint16_t>(rng_.Next());
  }
  uint8_t Any8() { return static_cast<uint8_t>(rng_.Next()); }

  sluice_splice AnySplice() {
    sluice_splice splice{};
    splice.seq = Any32();
    splice.ack = Any32();
    splice.tsval = Any32();
    splice.tsecr = Any32();
    (rng_.Chance(1, 2) ? splice.window_left : splice.window_right) =
        static_cast<uint8_t>(rng_.Below(15));
    splice.timestamps = rng_.Chance(2, 3) ? 1 : 0;
    return splice;
  }

  // Other relays, another mode.
  void NewRound() {
    std::vector<tables::OffloadChange> changes;
    for (const auto& [name, relay] : relays_) {
      rig_->Live(relay.flow.id, 0);
      changes.push_back(test::Removal(test::MakeRelay(relay, rig_->memory(), kSlot)));
    }
    relays_.clear();
    mode_ = static_cast<sluice_offload_mode>(1 + rng_.Below(3));
    relays_on_ = rng_.Chance(7, 8);
    complete_ = rng_.Chance(3, 4);
    word_ = SLUICE_OFFLOAD_WORD(mode_, mode_, kSlot, complete_ ? 1 : 0) |
            (relays_on_ ? SLUICE_OFFLOAD_RELAYS : 0u);
    for (uint32_t id = 0; id < kRelays; ++id) {
      Relay relay;
      const Family family = rng_.Chance(1, 2) ? Family::kIpv4 : Family::kIpv6;
      relay.flow = test::RandomFlow(rng_, family, true);
      relay.flow.out.source = test::RandomAddress(rng_, family);
      relay.flow.id = id;
      relay.flow.epoch = ++epoch_;
      if (relay.flow.in.protocol == 6 && rng_.Chance(3, 4)) relay.splice = AnySplice();
      relay.ours = relay.splice || rng_.Chance(3, 4);
      if (relays_.contains(NameOf(relay.flow.in))) continue;
      relays_[NameOf(relay.flow.in)] = relay;
      if (!rng_.Chance(1, 10)) rig_->Live(id, relay.flow.epoch);
      changes.push_back(test::MakeRelay(relay, rig_->memory(), kSlot));
    }
    rig_->Apply(changes);
    EXPECT_TRUE(rig_->program().SetOffload(word_));
  }

  static std::string NameOf(const tables::FlowTuple& t) {
    sluice_offload_key6 key6{};
    sluice_offload_key4 key4{};
    if (t.family == Family::kIpv4) {
      test::FillKey(t, SLUICE_OFFLOAD_FLOW, kSlot, key4);
      return {reinterpret_cast<const char*>(&key4), sizeof key4};
    }
    test::FillKey(t, SLUICE_OFFLOAD_FLOW, kSlot, key6);
    return {reinterpret_cast<const char*>(&key6), sizeof key6};
  }

  Bytes Timestamps() {
    Bytes options = {1, 1, 8, 10};
    for (int i = 0; i < 2; ++i) {
      const uint32_t value = Any32();
      for (int shift = 24; shift >= 0; shift -= 8) {
        options.push_back(static_cast<uint8_t>(value >> shift));
      }
    }
    return options;
  }
  // As the splice wants them; now and then others.
  Bytes Options(const Relay& relay) {
    const bool stamped = relay.splice && relay.splice->timestamps != 0;
    if (!rng_.Chance(1, 8)) return stamped ? Timestamps() : Bytes{};
    Bytes options = rng_.Chance(1, 3) ? Bytes{} : Timestamps();
    if (!options.empty() && rng_.Chance(1, 2)) options[rng_.Below(4)] ^= 1 << rng_.Below(8);
    for (uint64_t words = rng_.Below(8); words > 0 && rng_.Chance(1, 2); --words) {
      for (int i = 0; i < 4; ++i) options.push_back(Any8());
    }
    return options;
  }

  Bytes NewFrame() {
    auto at = relays_.begin();
    std::advance(at, static_cast<long>(rng_.Below(relays_.size())));
    const tables::FlowTuple& t = at->second.flow.in;
    PacketBuilder b = PacketBuilder().Ethernet(test::kHostMac, test::kLanMac);
    if (t.family == Family::kIpv4) {
      b.Ipv4(Ipv4(static_cast<uint32_t>(t.source.lo)),
             Ipv4(static_cast<uint32_t>(t.destination.lo)));
      b.Id(Any16());
      if (rng_.Chance(1, 2)) b.DontFragment();
    } else {
      b.Ipv6(t.source, t.destination).FlowLabel(static_cast<uint32_t>(rng_.Below(1 << 20)));
    }
    b.Tos(Any8()).Ttl(
        static_cast<uint8_t>(rng_.Chance(1, 20) ? rng_.Below(2) : 2 + rng_.Below(254)));
    if (t.protocol == 6) {
      const uint8_t flags = rng_.Chance(1, 12) ? Any8() : rng_.Chance(1, 2) ? 0x10 : 0x18;
      b.Tcp(t.source_port, t.destination_port, flags).Sequence(Any32(), Any32()).Window(Any16());
      if (const Bytes options = Options(at->second); !options.empty()) b.Options(options);
    } else {
      b.Udp(t.source_port, t.destination_port);
    }
    const uint64_t checksum = rng_.Below(8);
    if (checksum < 2) b.PartialChecksum();
    if (checksum == 2) b.L4Checksum(Any16());  // 0 and 0xffff too
    if (checksum == 3) b.BadChecksum();
    Bytes payload(rng_.Chance(1, 4) ? rng_.Below(1480) : rng_.Below(60));
    for (uint8_t& byte : payload) byte = Any8();
    Bytes frame = b.Payload(payload).Build();
    if (rng_.Chance(1, 10)) {
      test::FrameOf spoilt = {frame, test::L4Of(frame)};
      test::Spoil(rng_, spoilt);
      frame = spoilt.bytes;
    }
    if (rng_.Chance(1, 4)) frame.resize(frame.size() + rng_.Below(30), Any8());
    return frame;
  }

  // The relay that the tier forwards this frame by.
  const Relay* Expected(const Bytes& frame) const {
    tables::FlowTuple t, route;
    if (!test::TierTakes(frame, SLUICE_OFFLOAD_FLOW, kOwnAddress, t)) return nullptr;
    const bool routes = mode_ != SLUICE_OFFLOAD_FLOW;
    if (routes && !test::TierTakes(frame, mode_, kOwnAddress, route)) return nullptr;
    const auto found = relays_.find(NameOf(t));
    if (found == relays_.end()) return nullptr;
    const Relay& relay = found->second;
    if (routes && (!relays_on_ || !relay.ours)) return nullptr;
    if (rig_->memory().cell(0, relay.flow.id).epoch == 0) return nullptr;
    if (relay.splice && !test::HasOptionsOf(*relay.splice, frame)) return nullptr;
    return test::IpBytes(frame) > 1500 ? nullptr : &relay;
  }

  struct Numbers {
    uint32_t ack = 0;
    uint32_t end = 0;
    bool operator==(const Numbers&) const = default;
  };
  static Numbers NumbersOf(const Bytes& frame) {
    const size_t tcp = test::L4Of(frame);
    const auto header = static_cast<uint32_t>(frame[tcp + 12] >> 4) * 4;
    const auto bytes = static_cast<uint32_t>(14 + test::IpBytes(frame) - tcp);
    return {LoadBe32(&frame[tcp + 8]), LoadBe32(&frame[tcp + 4]) + bytes - header};
  }
  // Up to 20 MiB before or behind it: most are near.
  uint32_t About(uint32_t value) {
    return value + static_cast<uint32_t>(rng_.Below(40u << 20)) - (20u << 20);
  }
  void Begin(uint32_t id, const Numbers& numbers) {
    for (uint32_t cpu = 0; cpu < rig_->memory().cpus; ++cpu) {
      rig_->memory().cell(cpu, id).last_ack = numbers.ack;
      rig_->memory().cell(cpu, id).last_end = numbers.end;
    }
  }
  // The segment's numbers are noted in one place, if both are near, and only of a splice.
  void CheckNumbers(const Relay& relay, const Bytes& frame, const Numbers& begun) {
    Numbers expected = begun;
    if (relay.splice) {
      const Numbers its = NumbersOf(frame);
      const auto ahead = [](uint32_t a, uint32_t b) { return int64_t{static_cast<int32_t>(a - b)}; };
      const int64_t ack = ahead(its.ack, begun.ack);
      const int64_t end = ahead(its.end, begun.end);
      if (std::abs(ack) <= 16 << 20 && std::abs(end) <= 16 << 20) {
        if (ack > 0) expected.ack = its.ack;
        if (end > 0) expected.end = its.end;
        ++near_;
      }
    }
    uint32_t changed = 0;
    for (uint32_t cpu = 0; cpu < rig_->memory().cpus; ++cpu) {
      const sluice_offload_cell& cell = rig_->memory().cell(cpu, relay.flow.id);
      const Numbers noted{cell.last_ack, cell.last_end};
      if (noted == begun) continue;
      ++changed;
      ASSERT_EQ(cpu, 0u) << "which has the numbers of all";
      ASSERT_EQ(noted.ack, expected.ack);
      ASSERT_EQ(noted.end, expected.end);
    }
    ASSERT_EQ(changed, expected == begun ? 0u : 1u);
  }

  template <class Forwards>
  void Check(const Bytes& frame, const Forwards& forwards) {
    const Relay* const relay = Expected(frame);
    Bytes out = frame;
    if (relay == nullptr) {
      ASSERT_FALSE(forwards(out)) << test::ToHex(frame);
      ASSERT_EQ(out, frame) << "changed, and not sent";
      ++to_worker_;
      return;
    }
    bool completed = false;
    const Bytes expected = test::Relayed(frame, *relay, complete_, completed);
    OffloadRig::Counted counts = rig_->Cell(relay->flow.id);
    ++counts.packets;
    counts.bytes += test::IpBytes(frame);
    counts.completed += completed;
    Numbers begun{Any32(), Any32()};
    if (relay->splice) begun = {About(NumbersOf(frame).ack), About(NumbersOf(frame).end)};
    Begin(relay->flow.id, begun);
    ASSERT_TRUE(forwards(out)) << test::ToHex(frame);
    ASSERT_EQ(test::ToHex(out), test::ToHex(expected)) << "of " << test::ToHex(frame);
    ASSERT_EQ(rig_->Cell(relay->flow.id), counts);
    ASSERT_NO_FATAL_FAILURE(CheckNumbers(*relay, frame, begun));
    ++(relay->splice ? spliced_ : plain_);
    completed_ += completed;
  }

  uint64_t seed_ = test::FromEnvironment("SLUICE_OFFLOAD_SEED", 1);
  Rng rng_{seed_};
  std::unique_ptr<OffloadRig> rig_;
  sluice_offload_mode mode_ = SLUICE_OFFLOAD_FLOW;
  bool relays_on_ = false;
  bool complete_ = false;
  uint32_t word_ = 0;
  uint32_t epoch_ = 0;
  std::map<std::string, Relay> relays_;
  uint64_t near_ = 0, spliced_ = 0, plain_ = 0, completed_ = 0, to_worker_ = 0;
};

INSTANTIATE_TEST_SUITE_P(Entry, OffloadRelayRandomTest, ::testing::Bool(),
                         [](const auto& p) { return p.param ? "frags" : "plain"; });

TEST_P(OffloadRelayRandomTest, SameAsFieldByField) {
  SCOPED_TRACE("SLUICE_OFFLOAD_SEED=" + std::to_string(seed_));
  const uint64_t packets = test::FromEnvironment("SLUICE_OFFLOAD_PACKETS", 40'000) / 4;
  const auto natively = [&](Bytes& frame) {
    return test::ForwardsNatively(rig_->maps(), word_, frame);
  };
  const auto in_kernel = [&](Bytes& frame) {
    const bool forwards = rig_->Forwards(frame);
    frame = rig_->frame();
    return forwards;
  };
  for (uint64_t i = 0; i < packets && !HasFailure(); ++i) {
    if (i % 500 == 0) NewRound();
    const Bytes frame = NewFrame();
    SCOPED_TRACE("packet " + std::to_string(i) + ", word " + std::to_string(word_));
    ASSERT_NO_FATAL_FAILURE(Check(frame, natively)) << "natively";
    ASSERT_NO_FATAL_FAILURE(Check(frame, in_kernel)) << "in the kernel";
  }
  // All that matters was met (each packet counts twice).
  EXPECT_GT(spliced_, packets / 4);
  EXPECT_GT(near_, packets / 16);
  EXPECT_GT(plain_, packets / 4);
  EXPECT_GT(completed_, packets / 10);
  EXPECT_GT(to_worker_, packets / 4);
}

}  // namespace
}  // namespace sluice
