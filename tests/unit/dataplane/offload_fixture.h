// The flow tier of one pipeline, with maps that are a std::map here.
#ifndef SLUICE_TESTS_UNIT_DATAPLANE_OFFLOAD_FIXTURE_H_
#define SLUICE_TESTS_UNIT_DATAPLANE_OFFLOAD_FIXTURE_H_

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "dataplane/offload.h"
#include "support/filter_world.h"
#include "unit/dataplane/pipeline_fixture.h"

namespace sluice::dataplane {

using tables::FlowDirection;
using tables::OffloadChange;
using test::RulesetModel;
namespace nft = control::nft;

inline constexpr uint32_t kForward = 2;
inline constexpr uint32_t kPostrouting = 4;
inline constexpr uint8_t kSyn = 0x02, kRst = 0x04, kPsh = 0x08, kAck = 0x10, kFin = 0x01;

class OffloadTest : public PipelineFixture {
 protected:
  static constexpr uint32_t kIds = 64;
  static constexpr uint32_t kCpus = 2;

  OffloadConfig OffloadTier() override {
    state.world = 1;
    state.ids = kIds;
    cells.resize(size_t{kIds} * kCpus);
    splices.resize(kIds);
    memory = {.state = &state,
              .cells = cells.data(),
              .splices = splices.data(),
              .ids = kIds,
              .cpus = kCpus};
    return {.memory = memory, .first_id = 0, .ids = kIds, .adaptive = adaptive, .seed = 5};
  }
  void SetUp() override {
    PipelineFixture::SetUp();
    SetModes(SLUICE_OFFLOAD_DESTINATION);
  }
  void TearDown() override {
    world.snapshot.ruleset = nullptr;
    Change();
    pipeline->SeeSnapshot(world.snapshot, now);
    for (const IfaceSlot slot : {kLan, kWan}) {  // what XDP has carried
      received[slot.value] += counters->of(slot).offloaded_packets.Read();
      forwarded[slot.value] += counters->of(slot).forwarded_packets.Read();
    }
    PipelineFixture::TearDown();
  }

  void SetModes(uint8_t mode) {
    for (tables::Interface* i : {&world.lan(), &world.wan()}) {
      i->offload = {.ipv4 = mode, .ipv6 = mode};
      i->offload_output = true;
    }
    Change();
  }
  // As the control thread does when something is different.
  void Change() {
    now += Seconds(1);  // not so often that promotion pauses
    ++world.snapshot.offload_generation;
    Publish();
    tables::BumpWorld(memory);
  }
  void Use(const RulesetModel& model) {
    ruleset = compiler.Compile(model.model, now);
    world.snapshot.ruleset = ruleset.get();
    SetModes(SLUICE_OFFLOAD_FLOW);
  }

  // The WAN's router and the LAN's host say that they are there.
  void Confirm() {
    Process(FromPeer().ArpReply(kPeerMac, A4("192.0.2.254"), kWanMac, A4("192.0.2.1")).Build(),
            kWan);
    Process(FromHost().ArpReply(kHostMac, A4("10.0.0.2"), kLanMac, A4("10.0.0.1")).Build());
  }
  void LetPass(Nanos time) {
    for (const Nanos end = now + time; now < end; Confirm()) RunTimersFor(Seconds(2));
  }

  // The control thread's part.
  size_t Drain() {
    size_t n = 0;
    for (OffloadChange order; pipeline->offload().orders().TryPop(order); ++n) {
      if (order.kind == OffloadChange::Kind::kRemove) {
        const auto found = entries.find(KeyOf(order));
        if (found != entries.end() && found->second.action().id == order.action().id) {
          entries.erase(found);
        }
        ++removals;
        continue;
      }
      entries[KeyOf(order)] = order;
      last = order;
    }
    return n;
  }
  static std::string KeyOf(const OffloadChange& order) {
    return order.family == Family::kIpv4
               ? std::string(reinterpret_cast<const char*>(&order.key4), sizeof order.key4)
               : std::string(reinterpret_cast<const char*>(&order.key6), sizeof order.key6);
  }
  bool InForce(const OffloadChange& order) const {
    const sluice_offload_action& a = order.action();
    return a.world == state.world && a.routes[0] == state.routes[a.bucket[0]] &&
           a.routes[1] == state.routes[a.bucket[1]] && a.epoch == cells[a.id].epoch &&
           a.epoch == cells[kIds + a.id].epoch;
  }
  size_t EntriesInForce() const {
    size_t n = 0;
    for (const auto& [key, order] : entries) n += InForce(order);
    return n;
  }
  // XDP on that CPU carries packets by the entry.
  void Carry(const OffloadChange& order, uint64_t packets, uint64_t bytes, uint32_t cpu = 0) {
    ASSERT_TRUE(InForce(order));
    sluice_offload_cell& cell = cells[size_t{cpu} * kIds + order.action().id];
    cell.packets += packets;
    cell.bytes += bytes;
  }

  static Bytes To(const char* destination, const char* source = "10.0.0.2", uint8_t ttl = 64) {
    return FromHost().Ipv4(source, destination).Ttl(ttl).Udp(1000, 2000).Payload(30).Build();
  }
  void Repeat(const Bytes& frame, uint32_t n, IfaceSlot in = kLan) {
    for (uint32_t i = 0; i < n; ++i) Process(frame, in);
  }
  static constexpr uint32_t kEnough = Offload::kThreshold + 1;

  // --- A connection to 203.0.113.9 port 80, masqueraded where the rules say so ---
  Bytes Up(uint8_t flags, uint32_t sequence = 1000, uint16_t port = 4000) {
    return FromHost()
        .Ipv4("10.0.0.2", "203.0.113.9")
        .Tcp(port, 80, flags)
        .Sequence(sequence, 2000)
        .Payload((flags & kSyn) != 0 ? 0 : 10)
        .Build();
  }
  Bytes Down(uint8_t flags, const char* to = "10.0.0.2", uint16_t port = 4000) {
    return FromPeer()
        .Ipv4("203.0.113.9", to)
        .Tcp(80, port, flags)
        .Sequence(2000, 1001)
        .Payload((flags & kSyn) != 0 ? 0 : 10)
        .Build();
  }
  void Establish(const char* to = "10.0.0.2") {
    Process(Up(kSyn));
    Process(Down(kSyn | kAck, to), kWan);
    Repeat(Up(kAck, 1001), kEnough);
    Repeat(Down(kAck, to), kEnough, kWan);
    Drain();
  }
  const tables::Flow& OnlyFlow() {
    const tables::Flow* only = nullptr;
    pipeline->firewall().flows().Visit(
        0, 65536, [&](tables::FlowIndex, const tables::Flow& flow) { only = &flow; });
    return *only;
  }
  static RulesetModel Tracked() {
    RulesetModel m;
    m.Base("forward", kForward)
        .Rule({test::Ct(tables::kCtState), test::And(test::Host32(2)),
               test::Cmp(test::kNeq, test::Host32(0)), nft::CounterExpr{},
               test::Accept()})
        .Rule({nft::CounterExpr{}});
    return m;
  }

  bool adaptive = false;
  sluice_offload_state state{};
  std::vector<sluice_offload_cell> cells;
  std::vector<sluice_splice> splices;
  tables::OffloadMemory memory;
  control::RulesetCompiler compiler{control::CompilerOptions{}};
  std::shared_ptr<const tables::Ruleset> ruleset;
  std::map<std::string, OffloadChange> entries;
  std::optional<OffloadChange> last;
  size_t removals = 0;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_TESTS_UNIT_DATAPLANE_OFFLOAD_FIXTURE_H_
