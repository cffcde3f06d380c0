// One worker's part of the flow tier: which flows and destinations XDP may carry out by itself, the
// entries it has promoted, and what comes back from them.
//
//   Wants*    per packet: old enough, not promoted yet
//   Promote   an entry, as an order to the control thread, which writes the maps
//   Scan      every kScanInterval: counts come back (to the flow, the rules it passed, the interfaces),
//             timeouts and neighbours are kept alive, what is idle or stale goes
//
// An entry is made of what a packet met on its way through the whole pipeline, and of nothing else;
// bpf/include/offload_abi.h says when it is valid. A flow has one per direction, each promoted by a
// packet of its own. TCP: only while established; XDP leaves SYN, FIN and RST to the worker, whose
// tracker does not enforce windows from then on, as for the kernel's flow tables
// (stages/conntrack/tcp_window.h).
//
// Relays of sockets (offload_relay.cc, transport/common/relayed.h) have one entry per direction too, by
// the connection's key, where there are no rules. Their packets count as this machine's: received for it,
// and generated. Their user is told of them from Scan, TellRelay and EndRelay, and nowhere else, since all
// other calls may come from within the user's own.
//
// Limits. `ids` entries; when few are free, idle ones go sooner (IdleLimit), and at the limit flows
// stay with the worker (refused_full). A full ring of orders: the same, later (refused_ring).
// Hysteresis: a flow must be `threshold` packets old; with `adaptive` that number doubles while
// entries carry few packets before they go, and halves when they carry many. When the world changes
// more often than once in kWorldPause, promotion pauses for as long.
//
// Cost: WantsFlow is one word per flow; WantsRoute one line of a table. A promotion allocates nothing
// and makes no system call.
//
// Thread: the owning worker; orders() is the control thread's to pop, counters anybody's to read.
#ifndef SLUICE_DATAPLANE_OFFLOAD_H_
#define SLUICE_DATAPLANE_OFFLOAD_H_

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/address.h"
#include "base/ids.h"
#include "base/rng.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "packet/packet.h"
#include "stages/filter/flow_path.h"
#include "stages/neighbor/neighbors.h"
#include "tables/flow_table.h"
#include "tables/mapped_region.h"
#include "tables/offload.h"
#include "tables/snapshot.h"
#include "transport/common/relayed.h"

namespace sluice::dataplane {

struct OffloadConfig {
  tables::OffloadMemory memory;  // not valid: there is no flow tier
  uint32_t first_id = 0;         // this worker's ids
  uint32_t ids = 0;
  bool adaptive = true;
  uint64_t seed = 1;
};

// Where a packet goes and how, once all is known about it.
struct OffloadWay {
  IfaceSlot in;
  IfaceSlot out;
  IpAddress next_hop;
  Mac mac;             // the next hop's
  Mac own_mac;         // of the output interface
  IpAddress routed;    // the destination that the route was looked up for
  // Another address whose route mattered (the source's, for the reverse path).
  std::optional<IpAddress> also;
  uint32_t mtu = 0;    // largest IP length
};

class Offload final : private tables::FlowTable::Observer {
 public:
  static constexpr Nanos kScanInterval = Millis(100);
  static constexpr uint32_t kScanPortion = 512;  // entries per call
  static constexpr Nanos kWorldPause = Millis(100);
  static constexpr uint32_t kThreshold = 6;      // packets of the direction
  static constexpr uint32_t kMaxThreshold = 512;
  static constexpr Nanos kRest = Seconds(1);     // of an id, before it is used again
  static constexpr size_t kOrders = 4096;

  Offload(WorkerId worker, const OffloadConfig& config, tables::FlowTable& flows,
          WorkerCounters& counters);
  ~Offload() override;

  bool enabled() const { return memory_.valid(); }

  // First thing in a turn, before the snapshot is taken: what is looked up from here on is at least
  // as new as the generations read here.
  void BeginTick(Nanos now);
  // The last thing in a turn: neighbours have changed since (`neighbor_changes` is a count).
  void EndTick(uint64_t neighbor_changes);

  // Whether the packet of this flow and direction, come by `in`, should be looked at for promotion.
  bool WantsFlow(tables::FlowIndex flow, tables::FlowDirection direction, IfaceSlot in);
  void PromoteFlow(tables::FlowIndex flow, tables::FlowDirection direction, const OffloadWay& way,
                   const stages::FlowPath& path);
  // Whether entries for this output would lead nowhere for now.
  bool IsClosed(IfaceSlot out) const {
    return (tables::ClosedOutputs(memory_) >> out.value & 1) != 0;
  }
  // Without connections: counts the packet. `source` is unspecified where it does not matter.
  bool WantsRoute(IfaceSlot in, const IpAddress& source, const IpAddress& destination);
  void PromoteRoute(const IpAddress& source, const IpAddress& destination, const OffloadWay& way);

  // Relays. WantsRelay counts the packet in the handle, which the entry keeps until EndRelay.
  bool WantsRelay(const transport::Relayed& relayed);
  // Of a splice: the end of the packet's data and its acknowledgment, as they came.
  struct TcpNumbers {
    uint32_t end = 0;
    uint32_t ack = 0;
  };
  // `way` is that of the packet which leaves. `begin`: of a splice, the packet's.
  void PromoteRelay(const transport::Relayed& relayed, const OffloadWay& way,
                    const TcpNumbers& begin);
  // A segment of a splice has gone by the worker.
  void NoteSegment(const transport::RelayHandle& handle, const TcpNumbers& numbers);
  void TellRelay(const transport::RelayHandle& handle, Nanos now);
  void EndRelay(transport::RelayHandle& handle, Nanos now);

  // The rules that entries count for are about to go: their counts are fetched, and they count for no
  // rule any more. Of every entry; once per snapshot.
  void ForgetRules(Nanos now);

  Nanos NextDeadline() const { return enabled() && live_count() > 0 ? next_scan_ : Nanos::Max(); }
  void Scan(Nanos now, const tables::Snapshot& snapshot, stages::Neighbors& neighbors);

  // A packet of a promoted flow has met the rules: entries go by the mark that it had before.
  void CheckMark(tables::FlowIndex flow);
  bool IsPromoted(tables::FlowIndex flow, tables::FlowDirection direction) const;
  bool IsPromoted(IfaceSlot in, const IpAddress& source, const IpAddress& destination) const;

  SpscRing<tables::OffloadChange>& orders() { return orders_; }
  uint32_t capacity() const { return ids_; }
  uint32_t threshold() const { return threshold_; }

 private:
  static constexpr uint32_t kNoEntry = 0xffffffff;

  enum class State : uint8_t { kFree, kLive, kResting };
  // Why an entry goes.
  enum class End : uint8_t { kIdle, kEnded, kStale };

  struct Entry {
    State state = State::kFree;
    Family family = Family::kIpv4;
    tables::FlowDirection direction = tables::FlowDirection::kOriginal;
    bool removal_sent = false;
    bool moved = false;                        // a relay that comes otherwise now: goes
    IfaceSlot in;
    IfaceSlot out;
    uint8_t rule_count = 0;
    tables::FlowIndex flow = tables::kNoFlow;  // kNoFlow: a route's, or a relay's
    uint32_t heat = kNoEntry;                  // of a route: its place in heat_
    uint32_t place = 0;                        // in live_ or resting_
    uint32_t mark = 0;                         // the flow's, when it was promoted
    Nanos used;                                // when a scan last saw packets
    Nanos since;                               // of this state
    uint64_t packets = 0;                      // of the cells, as seen last
    uint64_t bytes = 0;
    uint64_t carried = 0;                      // since it was promoted
    uint32_t completed = 0;
    Mac mac;
    IpAddress next_hop;
    tables::OffloadChange order;               // as it was sent
    std::array<tables::StateCell*, stages::FlowPath::kCells> rules;  // this worker's cells
    // Of a relay, while it lives.
    transport::RelayHandle* relay = nullptr;
    transport::RelayUser* user = nullptr;
    uint64_t token = 0;
    uint64_t untold_packets = 0;               // what the user has not been told of
    uint64_t untold_bytes = 0;
    TcpNumbers latest;                         // of a splice
  };

  // Packets of one destination (or pair): without connections nothing else counts them.
  struct Heat {
    uint32_t tag = 0;
    uint16_t count = 0;
    uint16_t second = 0;  // of the last packet, modulo 2^16
    uint32_t entry = kNoEntry;
  };
  static constexpr size_t kHeatWays = 4;  // places looked at

  uint32_t live_count() const {
    return static_cast<uint32_t>(live_.size() + resting_.size());
  }
  uint32_t& FlowEntry(tables::FlowIndex flow, tables::FlowDirection direction) {
    return flow_entries_[size_t{flow} * 2 + static_cast<size_t>(direction)];
  }
  bool MayPromote() const { return now_ >= paused_until_; }
  bool IsValid(const Entry& e) const;
  static bool IsRelay(const Entry& e) {
    return (e.order.action().flags & SLUICE_OFFLOAD_RELAY) != 0;
  }
  // The place of these in heat_, where they may be: kHeatWays from `first` on.
  struct HeatPlace {
    size_t first = 0;
    uint32_t tag = 0;
  };
  HeatPlace PlaceOf(IfaceSlot in, const IpAddress& source, const IpAddress& destination) const;
  Heat* FindHeat(const HeatPlace& place);
  Heat* MakeHeat(const HeatPlace& place);

  // An entry for `reuse` (a stale one for the same key) or a free one; null: none.
  Entry* Prepare(uint32_t reuse, const OffloadWay& way, Family family);
  bool Order(Entry& e);
  void SendRemoval(Entry& e);
  void Kill(Entry& e, End end);
  void Rest(Entry& e);
  void Release(Entry& e);
  void Harvest(Entry& e);
  void Carried(Entry& e, uint64_t packets, uint64_t bytes, uint32_t completed);
  // Of relays.
  bool IsOf(const Entry& e, const tables::OffloadChange& key, const sluice_splice* splice) const;
  void Leave(Entry& e);
  void Tell(Entry& e);
  void MoveNumbers(Entry& e, const TcpNumbers& numbers);
  void SeeNumbers(Entry& e);
  void ScanOne(Entry& e, const tables::Snapshot& snapshot, stages::Neighbors& neighbors);
  void Adapt(const Entry& e);
  Nanos IdleLimit() const;
  uint32_t IdOf(const Entry& e) const { return static_cast<uint32_t>(&e - entries_.get()); }
  sluice_offload_cell& Cell(uint32_t cpu, const Entry& e) const {
    return memory_.cell(cpu, first_id_ + IdOf(e));
  }

  // tables::FlowTable::Observer
  void Removed(tables::FlowIndex flow) override;
  void Changed(tables::FlowIndex flow) override;

  const WorkerId worker_;
  const tables::OffloadMemory memory_;
  const uint32_t first_id_;
  const uint32_t ids_;
  const bool adaptive_;
  tables::FlowTable& flows_;
  WorkerCounters& counters_;
  SpscRing<tables::OffloadChange> orders_;
  std::unique_ptr<Entry[]> entries_;
  std::unique_ptr<tables::MappedRegion> flow_entry_memory_;
  uint32_t* flow_entries_ = nullptr;  // [flow][direction]: entry + 1; 0: none
  std::vector<uint32_t> free_;
  std::vector<uint32_t> live_;
  std::vector<uint32_t> resting_;
  std::vector<Heat> heat_;
  uint64_t heat_seed_;

  Nanos now_;
  uint32_t world_ = 0;          // as BeginTick read them
  uint32_t route_changes_ = 0;
  uint64_t neighbor_changes_ = 0;
  Nanos world_since_;
  Nanos paused_until_;
  Nanos next_scan_;
  size_t scan_at_ = 0;          // in live_
  uint32_t threshold_ = kThreshold;
  uint32_t ended_ = 0;          // entries since the threshold was set
  uint64_t ended_packets_ = 0;  // what they had carried
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_OFFLOAD_H_
