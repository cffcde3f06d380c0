// One pipeline in a RouterWorld, without a worker: what it puts into its outbox is taken out here.
#ifndef SLUICE_TESTS_UNIT_DATAPLANE_PIPELINE_FIXTURE_H_
#define SLUICE_TESTS_UNIT_DATAPLANE_PIPELINE_FIXTURE_H_

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "dataplane/pipeline.h"
#include "support/packet_builder.h"
#include "support/router_world.h"

namespace sluice::dataplane {

using test::A4;
using test::A6;
using test::Bytes;
using test::FromHost;
using test::FromPeer;
using test::kHostMac;
using test::kLan;
using test::kLanIndex;
using test::kLanMac;
using test::kPeerMac;
using test::kTunnelIndex;
using test::kWan;
using test::kWanIndex;
using test::kWanMac;
using test::PacketBuilder;
using test::Via;

struct Sent {
  IfaceSlot slot;
  Bytes bytes;
  IfaceSlot in;

  bool operator==(const Sent&) const = default;
};
struct Punted {
  Bytes bytes;
  PuntReason reason;
  bool copy;
};

// What a DHCP server on the WAN sends to `client`, who is to have the address `to`.
inline PacketBuilder DhcpReply(const Mac& client, const char* to, uint16_t from_port = 67) {
  Bytes message(300);
  message[0] = 2;
  message[1] = 1;
  message[2] = 6;
  client.ToWire(message.data() + 28);
  return FromPeer().Ipv4("192.0.2.254", to).Udp(from_port, 68).Payload(message);
}

class PipelineFixture : public testing::Test {
 protected:
  static constexpr uint16_t kReachable = 2;  // NUD_REACHABLE

  void SetUp() override {
    world.Unicast("203.0.113.0/24", {Via(kWan, kWanIndex, "192.0.2.254")});
    world.Unicast("2001:db8:9::/48", {Via(kWan, kWanIndex, "2001:db8:1::fe")});
    counters = std::make_unique<WorkerCounters>();
    pipeline = std::make_unique<Pipeline>(
        WorkerId{0},
        PipelineConfig{.tables = world.routing(), .start = now, .offload = OffloadTier()},
        world.pool, *counters);
    pipeline->outbox().Enable(kLan);
    pipeline->outbox().Enable(kWan);
    Know(kLan, A4("10.0.0.2"), kHostMac);
    Know(kLan, A6("2001:db8::2"), kHostMac);
    Know(kWan, A4("192.0.2.254"), kPeerMac);
    Know(kWan, A6("2001:db8:1::fe"), kPeerMac);
  }
  // Every packet has ended exactly once, and every frame is free again.
  void TearDown() override {
    for (const IfaceSlot slot : {kLan, kWan}) {
      const InterfaceCounters& c = counters->of(slot);
      uint64_t dropped = 0;
      for (const Counter& reason : c.dropped_packets) dropped += reason.Read();
      EXPECT_EQ(received[slot.value], forwarded[slot.value] + c.local_packets.Read() +
                                          punted[slot.value] + dropped + c.held_packets.Read() +
                                          c.merged_packets.Read());
    }
    for (const IfaceSlot slot : {kLan, kWan}) pipeline->ForgetInterface(slot);
    Collect();
    world.CheckFrames();
  }

  virtual OffloadConfig OffloadTier() { return {}; }  // none

  void Know(IfaceSlot slot, const IpAddress& address, const Mac& mac) {
    pipeline->ApplyKernelNeighbor(slot, address, mac, kReachable, world.snapshot, now);
  }
  // A new snapshot that differs from the last one.
  void Publish() { ++world.snapshot.generation; }

  void Process(const std::vector<Bytes>& frames, IfaceSlot in = kLan, uint32_t segment = 0) {
    std::vector<packet::Packet> burst;
    for (const Bytes& frame : frames) burst.push_back(world.Receive(frame, in, segment));
    received[in.value] += burst.size();
    pipeline->BeginTick(now);
    pipeline->Process(burst, in, world.snapshot, now);
    Collect();
    pipeline->EndTick();
  }
  void Process(const Bytes& frame, IfaceSlot in = kLan, uint32_t segment = 0) {
    Process(std::vector<Bytes>{frame}, in, segment);
  }
  // Does the worker's part: takes everything out of the outbox.
  void Collect() {
    packet::Outbox& outbox = pipeline->outbox();
    for (const IfaceSlot slot : {kLan, kWan}) {
      for (const packet::Packet& p : outbox.transmits(slot)) {
        sent.push_back({slot, world.BytesOf(p), p.in});
        if (p.in.valid()) ++forwarded[p.in.value];
        world.Free(p);
      }
      outbox.ClearTransmits(slot);
    }
    for (const packet::PuntedPacket& p : outbox.punts()) {
      punts.push_back({world.BytesOf(p.packet), p.reason, p.copy});
      if (!p.copy) ++punted[p.packet.in.value];
      world.Free(p.packet);
    }
    outbox.ClearPunts();
  }
  void Forget() {
    sent.clear();
    punts.clear();
  }
  uint64_t Dropped(DropReason reason, IfaceSlot in = kLan) const {
    return counters->of(in).dropped_packets[static_cast<size_t>(reason)].Read();
  }
  uint64_t Generated(GeneratedKind kind) const {
    return counters->generated[static_cast<size_t>(kind)].Read();
  }
  uint64_t Held(IfaceSlot in = kLan) const { return counters->of(in).held_packets.Read(); }
  // ICMP type and code of the one packet sent, when that is all there is; else 0xffff.
  uint16_t OnlyIcmp() const {
    if (sent.size() != 1) return 0xffff;
    const Bytes& b = sent[0].bytes;
    return LoadBe16(b.data() + (b[12] == 0x08 ? 34 : 54));
  }
  void RunTimersFor(Nanos time) {
    const Nanos end = now + time;
    while (pipeline->NextDeadline() <= end) {
      now = std::max(now, pipeline->NextDeadline());
      pipeline->BeginTick(now);
      pipeline->OnTimer(world.snapshot, now);
      Collect();
      pipeline->EndTick();
    }
    now = end;
  }

  test::RouterWorld world;
  std::unique_ptr<WorkerCounters> counters;
  std::unique_ptr<Pipeline> pipeline;
  Nanos now = Seconds(1000);
  std::vector<Sent> sent;
  std::vector<Punted> punts;
  uint64_t received[2] = {};
  uint64_t forwarded[2] = {};
  uint64_t punted[2] = {};
};

}  // namespace sluice::dataplane

#endif  // SLUICE_TESTS_UNIT_DATAPLANE_PIPELINE_FIXTURE_H_
