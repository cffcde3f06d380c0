// A worker's surroundings for tests of the neighbour stage: frames, an outbox, two interfaces, a
// clock that only moves when told. TearDown checks that no frame is lost and that no packet is
// still counted as held.
#ifndef SLUICE_TESTS_UNIT_STAGES_NEIGHBOR_FIXTURE_H_
#define SLUICE_TESTS_UNIT_STAGES_NEIGHBOR_FIXTURE_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/address.h"
#include "packet/frame_arena.h"
#include "packet/frame_pool.h"
#include "packet/outbox.h"
#include "stages/neighbor/neighbors.h"
#include "support/packet_builder.h"
#include "tables/snapshot.h"

namespace sluice::stages {

using test::Bytes;
using test::PacketBuilder;

inline constexpr IfaceSlot kLan{0};
inline constexpr IfaceSlot kWan{1};

inline Mac M(const char* text) { return *ParseMac(text); }
inline Ipv4 A(const char* text) { return *ParseIpv4(text); }
inline Ipv6 A6(const char* text) { return *ParseIpv6(text); }
inline const Mac kLanMac = M("02:00:00:00:00:01");
inline const Mac kHostMac = M("02:00:00:00:00:aa");
inline const Mac kOtherMac = M("02:00:00:00:00:bb");

struct SentFrame {
  Nanos at;
  IfaceSlot slot;
  Bytes bytes;

  uint16_t ether_type() const { return LoadBe16(bytes.data() + 12); }
  Mac destination() const { return Mac::FromWire(bytes.data()); }
};

class NeighborFixture : public testing::Test {
 protected:
  static constexpr uint32_t kFrames = 16384;

  void SetUp() override { Start(1024); }

  void Start(uint32_t limit, uint64_t seed = 1) {
    neighbors = std::make_unique<Neighbors>(*arena, limit, seed, now);
  }

  NeighborFixture()
      : arena(packet::FrameArena::Create(kFrames, 2048)),
        pool(*arena),
        outbox(pool),
        counters(std::make_unique<WorkerCounters>()) {
    for (uint32_t i = 0; i < kFrames; ++i) pool.Free(i);
    AddInterface(kLan, "lan0", kLanMac, "10.0.0.1", "2001:db8::1");
    AddInterface(kWan, "wan0", M("02:00:00:00:00:02"), "192.0.2.1", "2001:db8:1::1");
    Publish();
  }

  void TearDown() override {
    for (const IfaceSlot slot : {kLan, kWan}) neighbors->InterfaceDown(slot);
    Drain();
    DrainOutbox();
    EXPECT_EQ(pool.size(), kFrames) << "frames were lost";
    EXPECT_EQ(Held(), 0u);
  }

  void AddInterface(IfaceSlot slot, std::string name, Mac mac, const char* v4, const char* v6) {
    tables::Interface& i = snapshot.interfaces[slot.value];
    i.slot = slot;
    i.name = std::move(name);
    i.ifindex = IfIndex{slot.value + 10u};
    i.mac = mac;
    i.up = true;
    i.forwarding4 = i.forwarding6 = true;
    i.addresses4 = {{.address = A(v4), .prefix_length = 24}};
    Ipv6 link_local = A6("fe80::1");
    link_local.lo += slot.value;
    i.addresses6 = {{.address = A6(v6), .prefix_length = 64},
                    {.address = link_local, .prefix_length = 64}};
    outbox.Enable(slot);
  }
  // Makes changes to `snapshot` a new generation.
  void Publish() {
    ++snapshot.generation;
    std::vector<Ipv4> own;
    for (const auto& i : snapshot.interfaces) {
      for (const auto& a : i.addresses4) own.push_back(a.address);
    }
    own.push_back(A("10.99.0.1"));  // an address of an interface that is not served
    snapshot.own4.Assign(own);
    if (neighbors) neighbors->UseSnapshot(snapshot);
  }
  tables::Interface& lan() { return snapshot.interfaces[kLan.value]; }

  packet::Packet Frame(const Bytes& bytes, IfaceSlot in = kLan) {
    packet::Packet p;
    EXPECT_TRUE(outbox.NewPacket(static_cast<uint32_t>(bytes.size()), p));
    std::copy(bytes.begin(), bytes.end(), p.data);
    p.in = in;
    p.l3_offset = 14;
    return p;
  }
  // A packet to be forwarded, recognisable by `id` in its last bytes.
  packet::Packet Transit(uint32_t id, bool v6 = false) {
    PacketBuilder b;
    b.Ethernet("02:00:00:00:00:cc", "02:00:00:00:00:02");
    if (v6) {
      b.Ipv6("2001:db8:1::77", "2001:db8:2::1");
    } else {
      b.Ipv4("192.0.2.77", "203.0.113.1");
    }
    Bytes tail(4);
    StoreBe32(tail.data(), id);
    return Frame(b.Udp(1, 2).Payload(tail).Build(), kWan);
  }
  static uint32_t IdOf(const packet::Packet& p) { return LoadBe32(p.data + p.length - 4); }

  // Holds a packet for `next_hop` on the LAN.
  packet::Verdict Hold(const IpAddress& next_hop, uint32_t id = 0) {
    packet::Packet p = Transit(id, !next_hop.is_v4());
    const auto verdict = neighbors->Hold(p, kLan, next_hop, snapshot, now, outbox, *counters);
    if (verdict.kind() == packet::Verdict::Kind::kDrop) packet::FreePacket(pool, p);
    CollectSent();
    return verdict;
  }
  packet::Verdict Arp(const Bytes& frame, IfaceSlot in = kLan) {
    packet::Packet p = Frame(frame, in);
    const auto verdict = neighbors->HandleArp(p, snapshot, now, outbox, *counters);
    return Finish(p, verdict);
  }
  packet::Verdict Nd(const Bytes& frame, IfaceSlot in = kLan) {
    packet::Packet p = Frame(frame, in);
    p.l4_offset = 54;
    p.l4_protocol = 58;
    const auto verdict = neighbors->HandleNdp(p, snapshot, now, outbox, *counters);
    return Finish(p, verdict);
  }
  packet::Verdict Finish(const packet::Packet& p, packet::Verdict verdict) {
    if (p.frame != packet::kNoFrame) packet::FreePacket(pool, p);
    CollectSent();
    for (const auto& punt : outbox.punts()) {
      EXPECT_TRUE(punt.copy);
      ++copies;
      packet::FreePacket(pool, punt.packet);
    }
    outbox.ClearPunts();
    return verdict;
  }
  void CollectSent() {
    for (const IfaceSlot slot : {kLan, kWan}) {
      for (const packet::Packet& p : outbox.transmits(slot)) {
        sent.push_back({now, slot, Bytes(p.data, p.data + p.length)});
        packet::FreePacket(pool, p);
      }
      outbox.ClearTransmits(slot);
    }
  }
  void DrainOutbox() {
    CollectSent();
    for (const auto& punt : outbox.punts()) packet::FreePacket(pool, punt.packet);
    outbox.ClearPunts();
  }

  // Takes what has settled: ids of packets to send, and of lost ones with their reason.
  void Drain() {
    packet::Packet p;
    while (neighbors->TakeReady(p, *counters)) {
      ready.push_back(IdOf(p));
      ready_macs.push_back(Mac::FromWire(p.data));
      EXPECT_EQ(p.out, kLan);
      packet::FreePacket(pool, p);
    }
    LostPacket gone;
    while (neighbors->TakeLost(gone, *counters)) {
      lost.push_back({IdOf(gone.packet), gone.reason});
      if (gone.report) reported.push_back(IdOf(gone.packet));
      packet::FreePacket(pool, gone.packet);
    }
    EXPECT_FALSE(neighbors->has_settled());
  }

  // Lets time pass, waking at every deadline as a worker does.
  void RunTo(Nanos end) {
    while (neighbors->NextDeadline() <= end) {
      now = std::max(now, neighbors->NextDeadline());
      neighbors->Advance(now, snapshot, outbox, *counters);
      CollectSent();
    }
    now = end;
    neighbors->Advance(now, snapshot, outbox, *counters);
    CollectSent();
  }
  void Run(Nanos time) { RunTo(now + time); }

  std::vector<NeighborInfo> All() const {
    std::vector<NeighborInfo> all;
    NeighborInfo slice[7];
    uint32_t cursor = 0;
    do {
      size_t n = 0;
      cursor = neighbors->table().Enumerate(cursor, slice, &n);
      all.insert(all.end(), slice, slice + n);
    } while (cursor != 0);
    return all;
  }
  // kNone also when there is no such entry.
  NeighborInfo Info(const IpAddress& ip) const {
    for (const NeighborInfo& info : All()) {
      if (info.address == ip) return info;
    }
    return {};
  }
  NeighborState State(const IpAddress& ip) const { return Info(ip).state; }
  uint64_t Held() const {
    uint64_t held = 0;
    for (const auto& i : counters->interfaces) held += i.held_packets.Read();
    return held;
  }
  const Mac* Resolve(const IpAddress& ip) { return neighbors->Resolve(kLan, ip, now); }

  // An answer to us from `ip`.
  Bytes ReplyFrom(const char* ip, Mac mac = kHostMac) {
    return PacketBuilder().Ethernet(mac, kLanMac).ArpReply(mac, ip, kLanMac, "10.0.0.1").Build();
  }
  Bytes RequestFrom(const char* ip, const char* target, Mac mac = kHostMac) {
    return PacketBuilder().Ethernet(mac, "ff:ff:ff:ff:ff:ff").ArpRequest(mac, ip, target).Build();
  }
  // Makes `ip` REACHABLE the way it happens.
  void MakeReachable(const char* ip, Mac mac = kHostMac) {
    EXPECT_EQ(Hold(A(ip)), packet::Verdict::Held());
    Arp(ReplyFrom(ip, mac));
    Drain();
    EXPECT_EQ(State(A(ip)), NeighborState::kReachable);
  }
  void MakeStale(const char* ip, Mac mac = kHostMac) {
    Arp(RequestFrom(ip, "10.0.0.1", mac));
    EXPECT_EQ(State(A(ip)), NeighborState::kStale);
  }
  void ClearRecords() {
    sent.clear();
    ready.clear();
    ready_macs.clear();
    lost.clear();
    reported.clear();
    copies = 0;
  }

  std::unique_ptr<packet::FrameArena> arena;
  packet::FramePool pool;
  packet::Outbox outbox;
  std::unique_ptr<WorkerCounters> counters;
  tables::Snapshot snapshot;
  Nanos now = Seconds(1000);
  std::unique_ptr<Neighbors> neighbors;

  std::vector<SentFrame> sent;
  std::vector<uint32_t> ready;
  std::vector<Mac> ready_macs;
  std::vector<std::pair<uint32_t, DropReason>> lost;
  std::vector<uint32_t> reported;
  uint32_t copies = 0;
};

}  // namespace sluice::stages

#endif  // SLUICE_TESTS_UNIT_STAGES_NEIGHBOR_FIXTURE_H_
