// What comes back from the flow tier's entries, and how they end.
#include <algorithm>

#include "dataplane/offload.h"
#include "stages/conntrack/tcp_window.h"
#include "wire/ethernet.h"
#include "wire/protocol.h"

namespace sluice::dataplane {

using tables::Flow;
using tables::FlowDirection;
using tables::FlowIndex;
using tables::TcpState;

namespace {

bool IsTcp(const Flow& flow) { return flow.tuples[0].protocol == wire::kProtocolTcp; }

// The timeout of a flow that XDP carries, as its tracker would set it.
Nanos TimeoutOf(const Flow& flow, const tables::ConntrackSettings& settings) {
  return IsTcp(flow) ? settings.tcp_timeout(TcpState::kEstablished) : settings.udp_stream;
}

}  // namespace

void Offload::Harvest(Entry& e) {
  uint64_t packets = 0;
  uint64_t bytes = 0;
  uint32_t completed = 0;
  for (uint32_t cpu = 0; cpu < memory_.cpus; ++cpu) {
    const sluice_offload_cell& cell = Cell(cpu, e);
    packets += __atomic_load_n(&cell.packets, __ATOMIC_RELAXED);
    bytes += __atomic_load_n(&cell.bytes, __ATOMIC_RELAXED);
    completed += __atomic_load_n(&cell.completed, __ATOMIC_RELAXED);
  }
  const uint64_t new_packets = packets - e.packets;
  if (new_packets == 0) return;
  const uint64_t new_bytes = bytes - e.bytes;
  const uint32_t new_completed = completed - e.completed;
  e.packets = packets;
  e.bytes = bytes;
  e.completed = completed;
  if (e.relay != nullptr) SeeNumbers(e);
  Carried(e, new_packets, new_bytes, new_completed);
}

// Counts packets as the worker would have, had it carried them.
void Offload::Carried(Entry& e, uint64_t packets, uint64_t bytes, uint32_t completed) {
  e.used = now_;
  e.carried += packets;
  const uint64_t frame_bytes = bytes + packets * wire::kEthernetHeaderSize;
  InterfaceCounters& in = counters_.of(e.in);
  in.received_packets.Add(packets);
  in.received_bytes.Add(frame_bytes);
  (IsRelay(e) ? in.local_packets : in.forwarded_packets).Add(packets);
  in.offloaded_packets.Add(packets);
  in.offloaded_bytes.Add(frame_bytes);
  in.checksums_completed.Add(completed);
  InterfaceCounters& out = counters_.of(e.out);
  out.transmitted_packets.Add(packets);
  out.transmitted_bytes.Add(frame_bytes);
  if (IsRelay(e)) {
    counters_.generated[static_cast<size_t>(GeneratedKind::kSocket)].Add(packets);
    e.untold_packets += packets;
    e.untold_bytes += bytes;
    return;
  }
  if (e.flow == tables::kNoFlow) return;
  tables::FlowCount& count = flows_.at(e.flow).count(e.direction);
  count.packets += packets;
  count.bytes += bytes;
  for (uint8_t i = 0; i < e.rule_count; ++i) {
    tables::StateCell::Add(e.rules[i]->a, packets);
    tables::StateCell::Add(e.rules[i]->b, bytes);
  }
}

void Offload::ForgetRules(Nanos now) {
  if (!enabled()) return;
  now_ = now;
  for (const uint32_t id : live_) {
    Entry& e = entries_[id];
    Harvest(e);
    e.rule_count = 0;
  }
}

void Offload::Scan(Nanos now, const tables::Snapshot& snapshot, stages::Neighbors& neighbors) {
  if (!enabled() || now < next_scan_) return;
  now_ = now;
  uint32_t left = kScanPortion;
  for (; left > 0 && scan_at_ < live_.size(); --left) {
    const uint32_t id = live_[scan_at_];
    ScanOne(entries_[id], snapshot, neighbors);
    // An entry that went has left its place to the last one.
    if (scan_at_ < live_.size() && live_[scan_at_] == id) ++scan_at_;
  }
  if (scan_at_ < live_.size()) return;  // again in the next turn
  for (size_t i = 0; i < resting_.size();) {
    Entry& e = entries_[resting_[i]];
    if (!e.removal_sent) SendRemoval(e);
    if (!e.removal_sent || now < e.since + kRest) {
      ++i;
      continue;
    }
    Harvest(e);  // what was under way when it was killed
    Release(e);
  }
  scan_at_ = 0;
  next_scan_ = now + kScanInterval;
}

void Offload::ScanOne(Entry& e, const tables::Snapshot& snapshot, stages::Neighbors& neighbors) {
  const uint64_t before = e.packets;
  Harvest(e);
  const bool busy = e.packets != before;
  if (e.relay != nullptr) Tell(e);
  if (e.moved) return Kill(e, End::kStale);
  if (!IsValid(e)) {
    // Its next packet makes it anew, unless there is none.
    if (now_ > e.used + Seconds(2)) Kill(e, End::kStale);
    return;
  }
  if (busy) {
    // The neighbour is in use; that is asked for only while somebody says so.
    const Mac* const mac = neighbors.Resolve(e.out, e.next_hop, now_);
    if (mac == nullptr || *mac != e.mac) return Kill(e, End::kStale);
    if (e.flow == tables::kNoFlow) return;
    Flow& flow = flows_.at(e.flow);
    if (flow.mark != e.mark) return Changed(e.flow);
    flow.expires = now_ + TimeoutOf(flow, snapshot.conntrack);
    return;
  }
  // Over, though its timer may come later: the next packet is another connection's.
  if (e.flow != tables::kNoFlow && flows_.at(e.flow).expires <= now_) return Kill(e, End::kEnded);
  if (neighbors.Peek(e.out, e.next_hop) == nullptr) return Kill(e, End::kStale);
  if (now_ > e.used + IdleLimit()) Kill(e, End::kIdle);
}

// The fewer ids are free, the sooner the idlest go.
Nanos Offload::IdleLimit() const {
  const size_t free = free_.size();
  if (free > ids_ / 4) return Seconds(30);
  if (free > ids_ / 16) return Seconds(5);
  return Seconds(1);
}

void Offload::Kill(Entry& e, End end) {
  if (e.state != State::kLive) return;
  for (uint32_t cpu = 0; cpu < memory_.cpus; ++cpu) {
    __atomic_store_n(&Cell(cpu, e).epoch, 0u, __ATOMIC_RELEASE);
  }
  Harvest(e);
  if (e.flow != tables::kNoFlow) {
    FlowEntry(e.flow, e.direction) = 0;
    Flow& flow = flows_.at(e.flow);
    if (FlowEntry(e.flow, tables::Opposite(e.direction)) == 0) {
      flow.status &= ~uint32_t{tables::kFlowOffload};
    }
    if (IsTcp(flow)) stages::ForgetTcpWindows(flow.tcp);
    e.flow = tables::kNoFlow;
    e.rule_count = 0;
  }
  if (e.relay != nullptr) {
    *e.relay = {};
    Tell(e);
    e.relay = nullptr;
    e.user = nullptr;
    e.moved = false;
  }
  if (e.heat != kNoEntry) {
    heat_[e.heat].entry = kNoEntry;
    heat_[e.heat].count = 0;
    e.heat = kNoEntry;
  }
  static constexpr Counter OffloadCounters::*kCounts[] = {
      &OffloadCounters::ended_idle, &OffloadCounters::ended_flow, &OffloadCounters::ended_stale};
  (counters_.offload.*kCounts[static_cast<size_t>(end)]).Add();
  if (end == End::kIdle) Adapt(e);
  Rest(e);
}

void Offload::Rest(Entry& e) {
  const uint32_t last = live_.back();
  live_[e.place] = last;
  entries_[last].place = e.place;
  live_.pop_back();
  counters_.offload.entries.Set(live_.size());
  e.state = State::kResting;
  e.since = now_;
  e.place = static_cast<uint32_t>(resting_.size());
  resting_.push_back(IdOf(e));
  SendRemoval(e);
}

void Offload::SendRemoval(Entry& e) {
  tables::OffloadChange order = e.order;
  order.kind = tables::OffloadChange::Kind::kRemove;
  e.removal_sent = orders_.TryPush(std::move(order));
}

void Offload::Release(Entry& e) {
  const uint32_t last = resting_.back();
  resting_[e.place] = last;
  entries_[last].place = e.place;
  resting_.pop_back();
  e.state = State::kFree;
  free_.push_back(IdOf(e));
}

// Entries that carry few packets before they go cost more than they save.
void Offload::Adapt(const Entry& e) {
  constexpr uint32_t kLook = 256;
  constexpr uint64_t kFew = 16;
  constexpr uint64_t kMany = 64;
  if (!adaptive_) return;
  ended_packets_ += e.carried;
  if (++ended_ < kLook) return;
  const uint64_t average = ended_packets_ / ended_;
  if (average < kFew) threshold_ = std::min(threshold_ * 2, kMaxThreshold);
  if (average > kMany) threshold_ = std::max(threshold_ / 2, kThreshold);
  ended_ = 0;
  ended_packets_ = 0;
}

void Offload::Removed(FlowIndex flow) {
  for (const FlowDirection direction : {FlowDirection::kOriginal, FlowDirection::kReply}) {
    const uint32_t place = FlowEntry(flow, direction);
    if (place != 0) Kill(entries_[place - 1], End::kEnded);
  }
}

void Offload::CheckMark(FlowIndex flow) {
  for (const FlowDirection direction : {FlowDirection::kOriginal, FlowDirection::kReply}) {
    const uint32_t place = FlowEntry(flow, direction);
    if (place != 0 && entries_[place - 1].mark != flows_.at(flow).mark) return Changed(flow);
  }
}

void Offload::Changed(FlowIndex flow) { Removed(flow); }

}  // namespace sluice::dataplane
