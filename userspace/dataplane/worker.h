// One worker: the loop that takes frames from its ports, runs them through the pipeline and sends
// them. It owns its frames, neighbours, timers and counters, and shares nothing that is written.
//
//   Tick(now):  commands and hand-offs in
//               for each port: RxBurst -> Pipeline::Process -> outputs to the rings, punts
//               timers, neighbour events out, Flush of all ports
//
// The same template runs on AF_XDP ports (app/) and on simulated ones (tests). It reads no clock:
// `now` is passed in. It never sleeps: the host does, between BeforeSleep and AfterSleep.
//
// Output queues. A worker sends by its own port of an interface. Where an interface has fewer queues
// than there are workers, some have none; they hand their packets to the worker that
// `SetOutputOwner` names, and get a free frame back for each, so that no pool runs dry. Into the
// kernel every worker has a way of its own, by the interface's punt device: what it punts may have
// come in by an interface of which only others have queues.
//
// Thread: one; everything but the constructor and counters() must be called on it.
#ifndef SLUICE_DATAPLANE_WORKER_H_
#define SLUICE_DATAPLANE_WORKER_H_

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <memory>
#include <span>
#include <vector>

#include "base/ids.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "dataplane/mailbox.h"
#include "dataplane/pipeline.h"
#include "io/port.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "tables/epoch.h"
#include "tables/snapshot.h"

namespace sluice::dataplane {

// What a worker needs of a port: the network's side, and which kind of device is the kernel's.
template <class P>
concept WorkerPort = io::IoPort<P> && io::PuntDevice<typename P::PuntDevice>;

// What all workers have in common.
struct Shared {
  const std::atomic<const tables::Snapshot*>& snapshot;
  tables::EpochDomain& epochs;
  std::span<const std::unique_ptr<Mailbox>> mailboxes;  // by WorkerId
};

template <WorkerPort P>
class Worker {
 public:
  using PuntDevice = typename P::PuntDevice;
  static constexpr size_t kBurst = 64;

  Worker(WorkerId id, const Shared& shared, const PipelineConfig& config, packet::FramePool& pool)
      : id_(id),
        shared_(shared),
        pool_(pool),
        counters_(std::make_unique<WorkerCounters>()),
        pipeline_(id, config, pool, *counters_),
        output_owner_(),
        owed_() {
    output_owner_.fill(kNobody);
  }

  WorkerId id() const { return id_; }
  const WorkerCounters& counters() const { return *counters_; }
  WorkerCounters& counters() { return *counters_; }
  Pipeline& pipeline() { return pipeline_; }
  packet::FramePool& pool() { return pool_; }
  Mailbox& mailbox() { return *shared_.mailboxes[id_.value]; }
  std::span<P* const> ports() const { return ports_; }

  // The port must stay alive until RemovePort. Several queues of one interface may be this worker's;
  // the first added is the one it sends by.
  void AddPort(P* port) {
    ports_.push_back(port);
    pipeline_.outbox().Enable(port->slot());
    if (tx_port_[port->slot().value] == nullptr) tx_port_[port->slot().value] = port;
  }
  void RemovePort(P* port) {
    std::erase(ports_, port);
    P*& tx = tx_port_[port->slot().value];
    if (tx != port) return;
    const auto other = std::find_if(ports_.begin(), ports_.end(),
                                    [&](P* p) { return p->slot() == port->slot(); });
    tx = other == ports_.end() ? nullptr : *other;
  }
  void SetOutputOwner(IfaceSlot slot, WorkerId owner) {
    output_owner_[slot.value] = owner.value;
    pipeline_.outbox().Enable(slot);
  }
  void ClearOutputOwner(IfaceSlot slot) { output_owner_[slot.value] = kNobody; }
  // The kernel's side of an interface. It must stay alive until ClearPuntDevice; without one, what is
  // the kernel's is dropped.
  void SetPuntDevice(IfaceSlot slot, PuntDevice* device) { punt_device_[slot.value] = device; }
  void ClearPuntDevice(IfaceSlot slot) { punt_device_[slot.value] = nullptr; }

  // One turn. Returns how much there was to do: packets and messages; 0 means idle.
  size_t Tick(Nanos now) {
    pipeline_.BeginTick(now);
    const tables::Snapshot& snapshot = *shared_.snapshot.load(std::memory_order_acquire);
    pipeline_.sockets().Use(snapshot);
    snapshot_ = &snapshot;
    now_ = now;
    size_t work = RunCommands() + TakeHandoffs(snapshot, now);
    for (P* const port : ports_) {
      const size_t n = port->RxBurst(burst_, pool_, counters_->of(port->slot()));
      if (n == 0) continue;
      work += n;
      // An answer is never ahead of the word from the worker that has its connection.
      if (shared_.mailboxes.size() > 1) work += TakeHandoffs(snapshot, now);
      const std::span<packet::Packet> burst(burst_.data(), n);
      CountReceived(port->slot(), burst);
      pipeline_.Process(burst, port->slot(), snapshot, now);
      Deliver();
    }
    if (now >= pipeline_.NextDeadline()) {
      pipeline_.OnTimer(snapshot, now);
      Deliver();
    }
    work += BroadcastNeighborEvents();
    for (P* const port : ports_) port->Flush(pool_, counters_->of(port->slot()));
    RepayFrames();
    pipeline_.EndTick();
    counters_->loops.Add();
    shared_.epochs.Quiescent(id_);
    return work;
  }

  // When Tick wants to be called again even if nothing arrives.
  Nanos NextDeadline() const { return pipeline_.NextDeadline(); }

  // False: something arrived meanwhile, do not sleep. AfterSleep follows in either case.
  bool BeforeSleep() {
    if (!mailbox().GoingToSleep()) return false;
    shared_.epochs.Offline(id_);
    return true;
  }
  void AfterSleep() {
    mailbox().Awake();
    shared_.epochs.Online(id_);
  }

  // For commands: the tick they run in.
  const tables::Snapshot& snapshot() const { return *snapshot_; }
  Nanos now() const { return now_; }

  // Takes everything of an interface that goes away out of the worker: packets that wait for one of
  // its neighbours are dropped, and named.
  void ForgetInterface(IfaceSlot slot) {
    pipeline_.ForgetInterface(slot);
    Deliver();
  }

 private:
  static constexpr uint8_t kNobody = 0xff;

  size_t RunCommands() {
    size_t n = 0;
    for (Command* command; mailbox().TakeCommand(command); ++n) {
      // What a command sends is judged by what is in force.
      if (n == 0) pipeline_.SeeSnapshot(*snapshot_, now_);
      command->RunAndMark();
    }
    if (n > 0) {
      pipeline_.SettleCommands(*snapshot_, now_);
      Deliver();
    }
    return n;
  }

  size_t TakeHandoffs(const tables::Snapshot& snapshot, Nanos now) {
    size_t n = 0;
    Handoff message;
    for (uint8_t from = 0; from < shared_.mailboxes.size(); ++from) {
      // Bounded, so that a busy neighbour worker cannot keep this one from its own ports.
      for (size_t i = 0; i < kBurst && mailbox().Receive(WorkerId{from}, message); ++i, ++n) {
        switch (message.kind) {
          case Handoff::Kind::kTransmit:
            owed_[from] += message.packet.segment_count;
            if (message.packet.in.valid()) counters_->of(message.packet.in).held_packets.Sub();
            if (!pipeline_.outbox().Transmit(message.packet.out, message.packet)) {
              pipeline_.Drop(message.packet, DropReason::kTxRingFull);
            }
            break;
          case Handoff::Kind::kReceived:
            TakeReceived(message.packet, from, snapshot, now);
            break;
          case Handoff::Kind::kFlowAlias:
            pipeline_.firewall().ApplyAlias(message.alias, WorkerId{from}, now);
            break;
          case Handoff::Kind::kFrame:
            pool_.Free(message.packet.frame);
            break;
          case Handoff::Kind::kNeighborEvent:
            pipeline_.ApplyPeerNeighbor(message.neighbor, snapshot, now);
            break;
        }
      }
    }
    ProcessHandedOver(snapshot, now);
    if (n > 0) Deliver();
    return n;
  }

  // Packets that others have received, in bursts of one interface.
  void TakeReceived(const packet::Packet& p, uint8_t from, const tables::Snapshot& snapshot,
                    Nanos now) {
    owed_[from] += p.segment_count;
    counters_->of(p.in).held_packets.Sub();
    if (handed_over_count_ == kBurst ||
        (handed_over_count_ > 0 && handed_over_[0].in != p.in)) {
      ProcessHandedOver(snapshot, now);
      Deliver();
    }
    handed_over_[handed_over_count_] = p;
    // It is parsed once more.
    handed_over_[handed_over_count_++].flags &=
        packet::kFlagOwned | packet::kFlagBegun | packet::kFlagFragmentPmtu;
  }
  void ProcessHandedOver(const tables::Snapshot& snapshot, Nanos now) {
    if (handed_over_count_ == 0) return;
    const std::span<packet::Packet> burst(handed_over_.data(), handed_over_count_);
    handed_over_count_ = 0;
    pipeline_.Process(burst, burst[0].in, snapshot, now);
  }

  void CountReceived(IfaceSlot slot, std::span<const packet::Packet> burst) {
    uint64_t bytes = 0;
    for (const packet::Packet& p : burst) bytes += p.length;
    InterfaceCounters& c = counters_->of(slot);
    c.received_packets.Add(burst.size());
    c.received_bytes.Add(bytes);
  }

  // Empties the outbox: to the rings, to other workers, to the kernel.
  void Deliver() {
    SendAliases();
    packet::Outbox& outbox = pipeline_.outbox();
    for (uint64_t active = outbox.active(); active != 0; active &= active - 1) {
      const IfaceSlot slot{static_cast<uint8_t>(std::countr_zero(active))};
      Send(slot, outbox.transmits(slot));
      outbox.ClearTransmits(slot);
    }
    for (const packet::PuntedPacket& p : outbox.punts()) PuntOne(p);
    outbox.ClearPunts();
    if (!outbox.handed_over().empty()) HandOverReceived(outbox);
  }

  // Before the packets that make others see their replies.
  void SendAliases() {
    for (const Firewall::AliasFor& a : pipeline_.firewall().aliases()) {
      Handoff message;
      message.kind = Handoff::Kind::kFlowAlias;
      message.alias = a.alias;
      // Without it the replies are lost, and the connection fails as with a full table.
      if (!shared_.mailboxes[a.worker.value]->Send(id_, std::move(message))) {
        counters_->aliases_lost.Add();
      }
    }
    pipeline_.firewall().ClearAliases();
  }

  void HandOverReceived(packet::Outbox& outbox) {
    std::array<bool, kMaxWorkers> rung{};
    for (packet::HandedOver& h : outbox.handed_over()) {
      Handoff message;
      message.kind = Handoff::Kind::kReceived;
      message.packet = h.packet;
      counters_->of(h.packet.in).held_packets.Add();
      if (!shared_.mailboxes[h.owner.value]->Send(id_, std::move(message))) {
        counters_->of(h.packet.in).held_packets.Sub();
        pipeline_.Drop(h.packet, DropReason::kHandoffFull);
        continue;
      }
      counters_->frames_handed_over.Add();
      rung[h.owner.value] = true;
    }
    outbox.ClearHandedOver();
    for (uint8_t to = 0; to < shared_.mailboxes.size(); ++to) {
      if (rung[to]) shared_.mailboxes[to]->Ring();
    }
  }

  void Send(IfaceSlot slot, std::span<packet::Packet> packets) {
    P* const port = tx_port_[slot.value];
    if (port == nullptr) return HandOver(slot, packets);
    const size_t sent = port->TxBurst(packets, pool_);
    uint64_t bytes = 0;
    // Runs of packets from one interface are counted at once.
    for (size_t i = 0; i < sent;) {
      const IfaceSlot in = packets[i].in;
      const size_t first = i;
      for (; i < sent && packets[i].in == in; ++i) bytes += packets[i].length;
      if (in.valid()) counters_->of(in).forwarded_packets.Add(i - first);
    }
    // The ring has the frames, and they are read only until Flush.
    if (pipeline_.tracer().active()) [[unlikely]] {
      for (packet::Packet& p : packets.first(sent)) {
        p.out = slot;
        pipeline_.tracer().End(p, TraceOutcome::kForwarded);
      }
    }
    InterfaceCounters& out = counters_->of(slot);
    out.transmitted_packets.Add(sent);
    out.transmitted_bytes.Add(bytes);
    for (packet::Packet& p : packets.subspan(sent)) pipeline_.Drop(p, DropReason::kTxRingFull);
  }

  void HandOver(IfaceSlot slot, std::span<packet::Packet> packets) {
    const uint8_t owner = output_owner_[slot.value];
    for (packet::Packet& p : packets) {
      if (owner == kNobody || owner == id_.value) {
        pipeline_.Drop(p, DropReason::kInterfaceDown);
        continue;
      }
      p.out = slot;
      // The other worker's queue is as far as this one sees.
      pipeline_.tracer().End(p, TraceOutcome::kForwarded);
      Handoff message;
      message.packet = p;
      // On its way it is held, neither here nor there; the receiver takes it off the gauge again.
      if (p.in.valid()) counters_->of(p.in).held_packets.Add();
      if (!shared_.mailboxes[owner]->Send(id_, std::move(message))) {
        if (p.in.valid()) counters_->of(p.in).held_packets.Sub();
        pipeline_.Drop(p, DropReason::kHandoffFull);
        continue;
      }
      counters_->frames_handed_over.Add();
    }
    if (owner != kNobody) shared_.mailboxes[owner]->Ring();
  }

  void PuntOne(const packet::PuntedPacket& p) {
    PuntDevice* const device = p.packet.in.valid() ? punt_device_[p.packet.in.value] : nullptr;
    const bool taken = device != nullptr && device->Write(id_, pool_.arena(), p.packet);
    InterfaceCounters& c = counters_->of(p.packet.in);
    if (p.copy) {
      pipeline_.tracer().End(p.packet, TraceOutcome::kLocal);
      if (taken) c.punt_copies.Add();
      packet::FreePacket(pool_, p.packet);
      return;
    }
    if (!taken) return pipeline_.Drop(p.packet, DropReason::kPuntFailed);
    pipeline_.tracer().End(p.packet, TraceOutcome::kPunted, static_cast<uint8_t>(p.reason));
    c.punted_packets.Add();
    c.punts[static_cast<size_t>(p.reason)].Add();
    packet::FreePacket(pool_, p.packet);
  }

  size_t BroadcastNeighborEvents() {
    const auto events = pipeline_.neighbor_events();
    for (uint8_t to = 0; to < shared_.mailboxes.size() && !events.empty(); ++to) {
      if (to == id_.value) continue;
      for (const stages::NeighborEvent& event : events) {
        Handoff message;
        message.kind = Handoff::Kind::kNeighborEvent;
        message.neighbor = event;
        // A full ring loses it: the other worker then asks the neighbour itself.
        if (!shared_.mailboxes[to]->Send(id_, std::move(message))) break;
      }
      shared_.mailboxes[to]->Ring();
    }
    const size_t n = events.size();
    pipeline_.ClearNeighborEvents();
    return n;
  }

  void RepayFrames() {
    for (uint8_t to = 0; to < shared_.mailboxes.size(); ++to) {
      if (owed_[to] == 0) continue;
      while (owed_[to] > 0) {
        Handoff message;
        message.kind = Handoff::Kind::kFrame;
        message.packet.frame = pool_.Alloc();
        if (message.packet.frame == packet::kNoFrame) break;
        const packet::FrameIndex frame = message.packet.frame;
        if (!shared_.mailboxes[to]->Send(id_, std::move(message))) {
          pool_.Free(frame);
          break;
        }
        --owed_[to];
      }
      // A worker without frames receives nothing, so nothing else would wake it.
      shared_.mailboxes[to]->Ring();
    }
  }

  const WorkerId id_;
  const Shared shared_;
  packet::FramePool& pool_;
  const std::unique_ptr<WorkerCounters> counters_;
  Pipeline pipeline_;
  const tables::Snapshot* snapshot_ = nullptr;  // of the current tick
  Nanos now_;
  std::vector<P*> ports_;
  std::array<P*, kMaxInterfaces> tx_port_{};
  std::array<PuntDevice*, kMaxInterfaces> punt_device_{};
  std::array<uint8_t, kMaxInterfaces> output_owner_;
  std::array<uint64_t, kMaxWorkers> owed_;  // frames received with hand-offs and not yet returned
  std::array<packet::Packet, kBurst> burst_;
  std::array<packet::Packet, kBurst> handed_over_;  // received by others, to be processed
  size_t handed_over_count_ = 0;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_WORKER_H_
