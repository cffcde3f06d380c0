// THE order in which a packet is treated. Everything a worker does with a burst of frames between
// its input and its output rings is here or is called from here:
//
//   parse -> (ARP | ND -> neighbours) -> [firewall: before routing] -> address checks -> route (a
//   whole burst at once) -> source check -> local (echo | socket | punt) or forward: TTL -> MTU (ICMP) ->
//   redirect -> partial checksum -> TTL - 1 -> [firewall: forward, after routing] -> fragment ->
//   neighbour (held until resolved) -> link header -> outbox
//
// The order is Linux' (ip_rcv, ip_route_input, ip_forward, ip_output, with netfilter's hooks where
// the kernel has them), since it decides which error a packet with two faults gets. Where the ruleset
// concerns a family, its packets go one by one (dataplane/firewall.h), since one may make the
// connection that the next belongs to; otherwise in three passes over the burst. No I/O, no clock,
// no allocation, no lock.
//
// Every packet ends in exactly one of: the outbox (transmit or punt), a neighbour's queue, or Drop();
// the counters of base/worker_counters.h follow from that. What is transmitted is counted by the
// worker when the ring has taken it.
//
// Thread: the owning worker.
#ifndef SLUICE_DATAPLANE_PIPELINE_H_
#define SLUICE_DATAPLANE_PIPELINE_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "base/ids.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "dataplane/firewall.h"
#include "dataplane/local_sockets.h"
#include "dataplane/offload.h"
#include "dataplane/replies.h"
#include "dataplane/tracer.h"
#include "packet/outbox.h"
#include "packet/packet.h"
#include "stages/defrag/defrag.h"
#include "stages/neighbor/neighbors.h"
#include "stages/route/route.h"
#include "tables/snapshot.h"

namespace sluice::dataplane {

struct PipelineConfig {
  stages::RoutingTables tables;
  uint32_t neighbor_limit = 16384;
  uint64_t seed = 1;  // jitter of timers, ECMP, hashing
  Nanos start;        // the time now: timers count from here
  FirewallConfig firewall;
  stages::DefragLimits fragments;
  OffloadConfig offload;
};

class Pipeline : private LocalSockets::Exit {
 public:
  static constexpr size_t kMaxBurst = 64;

  Pipeline(WorkerId worker, const PipelineConfig& config, packet::FramePool& pool,
           WorkerCounters& counters);

  // At most kMaxBurst packets, all received on `in`: by this worker, or by another that handed them
  // over. Takes every frame.
  void Process(std::span<packet::Packet> burst, IfaceSlot in, const tables::Snapshot& snapshot,
               Nanos now);

  // A turn of the worker, in which what has just been published is used; and its end, after which
  // what this worker has learned holds for XDP too.
  void BeginTick(Nanos now) { offload_.BeginTick(now); }
  // After commands, which may have sent something.
  void SettleCommands(const tables::Snapshot& snapshot, Nanos now) {
    if (neighbors_.has_settled()) Settle(snapshot, now);
  }
  void EndTick() { offload_.EndTick(neighbors_.changes()); }

  // Timers of neighbours, connections, fragments, entries of the flow tier and sockets. Call when
  // NextDeadline() has come.
  void OnTimer(const tables::Snapshot& snapshot, Nanos now);
  Nanos NextDeadline() const {
    return std::min({neighbors_.NextDeadline(), firewall_.NextDeadline(),
                     defrag_.NextDeadline(), offload_.NextDeadline(),
                     sockets_.NextDeadline()});
  }

  // From the control thread's and other workers' messages.
  void ApplyPeerNeighbor(const stages::NeighborEvent& event, const tables::Snapshot& snapshot,
                         Nanos now);
  void ApplyKernelNeighbor(IfaceSlot slot, const IpAddress& address, const Mac& mac,
                           uint16_t nud, const tables::Snapshot& snapshot,
                           Nanos now);
  void RemoveKernelNeighbor(IfaceSlot slot, const IpAddress& address, Nanos now);
  void ForgetInterface(IfaceSlot slot);

  // What would happen to `p`, which has arrived by p.in: nothing does. Takes the frame.
  void Explain(packet::Packet& p, const tables::Snapshot& snapshot, Nanos now, Walk& walk);
  // Takes over what a new snapshot brings, before the next packet does: so that nothing of the old
  // one is used any more.
  void SeeSnapshot(const tables::Snapshot& snapshot, Nanos now);

  // What ARP and ND have taught this worker since the last call.
  std::span<const stages::NeighborEvent> neighbor_events() const { return neighbors_.events(); }
  void ClearNeighborEvents() { neighbors_.ClearEvents(); }

  packet::Outbox& outbox() { return outbox_; }
  const stages::Neighbors& neighbors() const { return neighbors_; }
  // Datagrams that wait for fragments; read by anyone, about right.
  uint32_t fragments() const { return defrag_.datagrams(); }
  Firewall& firewall() { return firewall_; }
  const Firewall& firewall() const { return firewall_; }
  LocalSockets& sockets() { return sockets_; }
  const LocalSockets& sockets() const { return sockets_; }
  Offload& offload() { return offload_; }
  const Offload& offload() const { return offload_; }

  // `sluice trace`: from now on with this session; nullptr: no more.
  void Trace(TraceSession* session) {
    tracer_.Use(session);
    firewall_.Watch(nullptr);
  }
  Tracer& tracer() { return tracer_; }

  // The end of a packet that goes nowhere: counted by its reason, its frames free again.
  void Drop(const packet::Packet& p, DropReason reason);

 private:
  using Packet = packet::Packet;
  using Snapshot = tables::Snapshot;

  // Packets of one burst and family that wait for their lookup.
  template <class Address>
  struct Batch {
    size_t count = 0;
    std::array<Packet*, kMaxBurst> packets;
    std::array<Address, kMaxBurst> destinations;
    std::array<tables::RouteId, kMaxBurst> routes;
    std::array<stages::RouteDecision, kMaxBurst> decisions;
  };
  // Packets of one burst that the firewall judges, one after the other.
  struct Judged {
    Packet* packet = nullptr;
    Family family = Family::kIpv4;
    Firewall::Key key;
  };

  // Whether so many frames are free that a packet may wait for its neighbour.
  bool MayHold() { return outbox_.pool().size() >= most_free_ / 4; }
  void Classify(Packet& p, const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  void Classify4(Packet& p, const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  void Classify6(Packet& p, const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  template <class Address>
  void Route(Batch<Address>& batch, const tables::Interface& in, const Snapshot& snapshot,
             Nanos now);
  template <class Address>
  stages::RouteDecision Decide(Packet& p, tables::RouteId id, const tables::Interface& in,
                               const Snapshot& snapshot);
  // Does what the route says.
  template <class Address>
  void Dispatch(Packet& p, const stages::RouteDecision& d, const tables::Interface& in,
                const Snapshot& snapshot, Nanos now);

  // With a ruleset (judge.cc).
  void Enlist(Packet& p, Family family, const Snapshot& snapshot, Nanos now);
  void HandOver(WorkerId owner, Packet& p);
  void Judge(const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  template <class Address>
  void JudgeOne(Packet& p, const Firewall::Key& key, const tables::Interface& in,
                const Snapshot& snapshot, Nanos now);
  template <class Address>
  tables::RouteId LookUp(const Packet& p) const;
  // Explain (rehearsal.cc).
  packet::Verdict Rehearse(Packet& p, const Snapshot& snapshot, Nanos now, Walk& walk);
  template <class Address>
  packet::Verdict RehearseIp(Packet& p, const tables::Interface& in, const Snapshot& snapshot,
                             Nanos now, Walk& walk);
  packet::Verdict RehearseToGroup(Packet& p, Family family, const tables::Interface& in,
                                  const Snapshot& snapshot, Nanos now,
                                  Firewall::Rehearsal& rehearsal);
  static packet::Verdict RehearseForwarding(Packet& p, Family family,
                                            const stages::RouteDecision& d,
                                            const tables::Interface& out, uint32_t& mtu);
  void RehearseTier(const Packet& p, const Firewall::Key& key, Family family,
                    const stages::RouteDecision& d, const stages::FlowPath& path,
                    const Snapshot& snapshot, Walk& walk) const;
  // Between routing and leaving. False: the packet has found another end.
  bool PassesForward(Packet& p, Family family, const IpAddress& next_hop, const Snapshot& snapshot,
                     Nanos now);
  // Whether its rules are to be told to a trace.
  void WatchRules(const Packet& p, const Snapshot& snapshot) {
    if (!tracer_.active() || snapshot.ruleset == nullptr) [[likely]] return;
    firewall_.Watch(tracer_.RulesOf(p, snapshot.ruleset->generation()));
  }
  // False: the fragment waits, or has found another end.
  bool Reassemble(Packet& p, Family family, const tables::Interface& in, const Snapshot& snapshot,
                  Nanos now);
  void SettleFragments(const Snapshot& snapshot, Nanos now);
  void Carry(Packet& p, const Judgement& judgement, Family family, const Snapshot& snapshot,
             Nanos now);

  void Forward4(Packet& p, const stages::RouteDecision& d, const Snapshot& snapshot, Nanos now);
  void Forward6(Packet& p, const stages::RouteDecision& d, const Snapshot& snapshot, Nanos now);
  template <class Fragmenter>
  void Fragment(Packet& p, Family family, const IpAddress& next_hop, uint32_t mtu,
                const Snapshot& snapshot, Nanos now);
  void Local4(Packet& p, const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  void Local6(Packet& p, const tables::Interface& in, const Snapshot& snapshot, Nanos now);
  void NeighborMessage(Packet& p, packet::Verdict verdict, const Snapshot& snapshot, Nanos now);

  // Whether XDP may carry further packets like this one, and if so, has it do that. The packet is
  // ready to leave (offer.cc).
  void Offer(const Packet& p, Family family, const stages::RouteDecision& d, uint32_t mtu,
             const Snapshot& snapshot);
  bool MayPromoteFlow(const Packet& p, OffloadWay& way);
  // The same of one that a socket relays.
  void OfferRelay(const Packet& p, Family family, const IpAddress& next_hop,
                  const transport::Relayed& relayed, const Snapshot& snapshot);

  // To the next hop: its link header and the outbox, or its queue until it is resolved.
  void Output(Packet& p, Family family, const IpAddress& next_hop, const Snapshot& snapshot,
              Nanos now);
  // A message of our own, about `cause`.
  void Send(const Reply& reply, Family family, const Packet* cause, const Snapshot& snapshot,
            Nanos now);
  // What no longer waits for a neighbour.
  void Settle(const Snapshot& snapshot, Nanos now);

  // Of a packet for this machine.
  packet::Verdict CheckSource4(const Packet& p, const tables::Interface& in,
                               const Snapshot& snapshot) const;
  // Local packets and sockets (local.cc). True: a socket, or another worker, has it, or it is dropped.
  bool ReachesSocket(Packet& p, Family family, const tables::Interface& in,
                     const Snapshot& snapshot, Nanos now);
  void ToGroup(Packet& p, Family family, const tables::Interface& in, const Snapshot& snapshot,
               Nanos now);
  bool PuntCopy(const Packet& p, PuntReason reason, const Snapshot& snapshot);
  bool Copy(const Packet& p, Packet& copy);
  void FromSocket(Packet& p, const IpAddress& next_hop, const transport::Relayed* relayed,
                  Nanos now) override;
  void TellRelayed(transport::RelayHandle& handle, Nanos now) override {
    offload_.TellRelay(handle, now);
  }
  void EndRelayed(transport::RelayHandle& handle, Nanos now) override {
    offload_.EndRelay(handle, now);
  }
  void RefuseOfSocket(Packet& p, Family family, const Judgement& judgement);
  bool IsLocal(const Packet& p, Family family) const;
  void RefuseStray(Packet& p, Family family, const tables::Interface& in, const Snapshot& snapshot,
                   Nanos now);
  void Punt(Packet& p, PuntReason reason, const Snapshot& snapshot);
  bool PuntPiece(Packet& piece, PuntReason reason, bool copy, const Snapshot& snapshot);
  void PuntPieces(Packet& p, PuntReason reason, const Snapshot& snapshot);
  // Drop, with the ICMP error that belongs to the reason; `mtu` for the reasons that tell it.
  void Refuse4(Packet& p, DropReason reason, const Snapshot& snapshot, Nanos now, uint32_t mtu = 0);
  void Refuse6(Packet& p, DropReason reason, const Snapshot& snapshot, Nanos now, uint32_t mtu = 0);
  void CompleteChecksum(Packet& p, const Snapshot& snapshot);
  // For the kernel, which counts the hop itself. False: it cannot have the packet any more.
  static void GiveBackHop(Packet& p);
  static bool RestoreHops(Packet& p, DropReason reason);

  const WorkerId worker_;
  const stages::RoutingTables tables_;
  const uint64_t hash_seed_;
  WorkerCounters& counters_;
  packet::Outbox outbox_;
  stages::Neighbors neighbors_;
  Replies replies_;
  LocalSockets sockets_;
  Firewall firewall_;
  stages::Defrag defrag_;
  Offload offload_;
  // Of the packet that is being judged.
  stages::FlowPath path_;
  tables::FlowIndex judged_flow_ = tables::kNoFlow;
  Tracer tracer_;
  const Packet* received_ = nullptr;  // by a socket, at this moment
  uint64_t snapshot_generation_ = 0;
  uint64_t offload_generation_ = 0;
  Nanos now_;  // of the burst
  uint32_t most_free_ = 0;  // the largest size of the pool seen when a snapshot came
  Batch<Ipv4> batch4_;
  Batch<Ipv6> batch6_;
  size_t judged_count_ = 0;
  std::array<Judged, kMaxBurst> judged_;
};

template <>
tables::RouteId Pipeline::LookUp<Ipv4>(const Packet& p) const;
template <>
tables::RouteId Pipeline::LookUp<Ipv6>(const Packet& p) const;

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_PIPELINE_H_
