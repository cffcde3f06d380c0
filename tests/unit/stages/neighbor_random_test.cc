// Random traffic, news and time against what must always hold: frames and packets are conserved,
// counts agree, packets of one neighbour keep their order, nothing waits for ever.
#include <map>

#include "base/rng.h"
#include "unit/stages/neighbor_fixture.h"

namespace sluice::stages {
namespace {

class NeighborRandomTest : public NeighborFixture {
 protected:
  // Both families, few enough that everything happens to each.
  static IpAddress Address(uint64_t n) {
    if (n % 2 == 0) return Ipv4(0x0a000010 + static_cast<uint32_t>(n / 2));
    return Ipv6(0x2001'0db8'0000'0000ull, 0x10 + n / 2);
  }
  static Mac SomeMac(Rng& rng) {
    Mac mac = kHostMac;
    mac.bytes[5] = static_cast<uint8_t>(rng.Below(3));
    return mac;
  }

  void RandomArp(Rng& rng) {
    const std::string sender = ToString(Ipv4(0x0a000010 + static_cast<uint32_t>(rng.Below(12))));
    const Mac mac = SomeMac(rng);
    const char* targets[] = {"10.0.0.1", "10.0.0.200", sender.c_str()};
    const char* target = targets[rng.Below(3)];
    Bytes frame = rng.Chance(1, 2) ? RequestFrom(sender.c_str(), target, mac)
                                   : ReplyFrom(sender.c_str(), mac);
    Garble(rng, frame);
    Arp(frame);
  }
  void RandomNd(Rng& rng) {
    const Ipv6 host(0x2001'0db8'0000'0000ull, 0x10 + rng.Below(12));
    const Mac mac = SomeMac(rng);
    PacketBuilder b;
    b.Ethernet(mac, kLanMac);
    if (rng.Chance(1, 2)) {
      b.Ipv6(host, "2001:db8::1").NeighborSolicitation("2001:db8::1");
      if (rng.Chance(3, 4)) b.SourceLinkLayer(mac);
    } else {
      b.Ipv6(host, "fe80::1");
      b.NeighborAdvertisement(host, rng.Chance(1, 2), rng.Chance(1, 2), rng.Chance(1, 2));
      if (rng.Chance(3, 4)) b.TargetLinkLayer(mac);
    }
    Bytes frame = b.Build();
    Garble(rng, frame);
    Nd(frame);
  }
  // A quarter of the messages get broken, or cut.
  static void Garble(Rng& rng, Bytes& frame) {
    if (!rng.Chance(1, 4)) return;
    for (uint64_t n = rng.Below(4) + 1; n > 0; --n) {
      frame[rng.Below(frame.size())] = static_cast<uint8_t>(rng.Next());
    }
    if (rng.Chance(1, 3)) frame.resize(std::max<size_t>(55, rng.Below(frame.size())));
  }

  void CheckInvariants() {
    uint64_t held = 0;
    std::map<NeighborState, uint64_t> by_state;
    const auto all = All();
    for (const NeighborInfo& info : all) {
      held += info.held;
      ++by_state[info.state];
      ASSERT_NE(info.state, NeighborState::kNone);
      if (info.state != NeighborState::kIncomplete) {
        ASSERT_EQ(info.held, 0);
      }
      ASSERT_LE(info.held, snapshot.at(kLan).neighbor4.unres_qlen_packets);
    }
    ASSERT_EQ(all.size(), neighbors->table().used());
    ASSERT_LE(all.size(), neighbors->table().limit());
    for (size_t s = 0; s < kNeighborStateCount; ++s) {
      const auto state = static_cast<NeighborState>(s);
      ASSERT_EQ(neighbors->table().count(state).Read(), by_state[state]);
    }
    ASSERT_EQ(held, Held());
    ASSERT_EQ(pool.size() + held, kFrames);
  }
};

TEST_F(NeighborRandomTest, InvariantsHold) {
  for (uint64_t seed = 1; seed <= 12; ++seed) {
    SCOPED_TRACE(seed);
    Rng rng(seed);
    lan().neighbor4.unres_qlen_packets = lan().neighbor6.unres_qlen_packets = 5;
    lan().up = true;
    Publish();
    const uint32_t limit = seed % 3 == 0 ? 8 : 64;
    Start(limit, seed);
    neighbors->UseSnapshot(snapshot);
    ClearRecords();
    uint32_t id = 0, held = 0;
    std::map<uint32_t, uint64_t> neighbor_of;
    std::map<uint64_t, uint32_t> last_ready;
    for (int step = 0; step < 3'000; ++step) {
      const uint64_t n = rng.Below(24);
      switch (rng.Below(16)) {
        case 0:
        case 1:
        case 2:
        case 3:
        case 4:
        case 5:
          if (neighbors->Resolve(kLan, Address(n), now) == nullptr) {
            neighbor_of[++id] = n;
            if (Hold(Address(n), id) == packet::Verdict::Held()) ++held;
          }
          break;
        case 6:
        case 7:
        case 8:
          RandomArp(rng);
          break;
        case 9:
        case 10:
        case 11:
          RandomNd(rng);
          break;
        case 12:
          neighbors->ApplyKernelNeighbor(kLan, Address(n), SomeMac(rng),
                                         static_cast<uint16_t>(1u << rng.Below(8)), now);
          break;
        case 13:
          neighbors->RemoveKernelNeighbor(kLan, Address(n), now);
          break;
        case 14:
          if (rng.Chance(1, 20)) {
            lan().up = !lan().up;
            Publish();
          }
          break;
        default:
          Run(Millis(static_cast<int64_t>(rng.Below(rng.Chance(1, 30) ? 90'000 : 2'000))));
      }
      neighbors->ClearEvents();
      const size_t before = ready.size();
      Drain();
      for (size_t i = before; i < ready.size(); ++i) {
        uint32_t& last = last_ready[neighbor_of[ready[i]]];
        ASSERT_LT(last, ready[i]) << "out of order";
        last = ready[i];
      }
      ASSERT_NO_FATAL_FAILURE(CheckInvariants());
    }
    // Whoever waits gets an answer or a reason.
    Run(Seconds(4));
    Drain();
    EXPECT_EQ(Held(), 0u);
    EXPECT_EQ(ready.size() + lost.size(), held);
    EXPECT_GT(ready.size(), 20u) << "the test must reach both ends";
    EXPECT_GT(lost.size(), 20u);
    for (const IfaceSlot slot : {kLan, kWan}) neighbors->InterfaceDown(slot);
    Drain();
  }
}

TEST_F(NeighborRandomTest, NoiseIsSurvived) {
  Rng rng(4711);
  for (int i = 0; i < 30'000; ++i) {
    Bytes frame(54 + rng.Below(80));
    for (uint8_t& b : frame) b = static_cast<uint8_t>(rng.Next());
    kLanMac.ToWire(frame.data());
    if (rng.Chance(1, 2)) {
      static constexpr uint8_t kArpStart[] = {0, 1, 8, 0, 6, 4, 0};
      std::copy(std::begin(kArpStart), std::end(kArpStart), frame.begin() + 14);
      frame[21] = static_cast<uint8_t>(rng.Below(4));
      Arp(frame);
    } else {
      StoreBe16(frame.data() + 18, static_cast<uint16_t>(frame.size() - 54));
      if (frame.size() > 54) frame[54] = static_cast<uint8_t>(130 + rng.Below(10));
      Nd(frame);
    }
    neighbors->ClearEvents();
    if (i % 1000 == 0) {
      Run(Seconds(1));
      ASSERT_NO_FATAL_FAILURE(CheckInvariants());
    }
  }
}

}  // namespace
}  // namespace sluice::stages
