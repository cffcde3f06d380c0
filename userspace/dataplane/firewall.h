// Netfilter's part of the pipeline: where the hooks are, and what happens at each.
//
//   BeforeRouting   ingress chains -> raw chains -> conntrack -> prerouting chains -> DNAT
//   Forwarding      forward chains
//   AfterRouting    postrouting chains -> SNAT -> the connection is confirmed
//   OfOurOwn        output chains and AfterRouting, for ICMP errors and resets that Sluice makes
//   ToSocket        input chains -> the connection is confirmed (dataplane/local_sockets.h)
//   OfSocket        as OfOurOwn, with a connection of its own
//
// in the kernel's order (linux/netfilter_ipv4.h: priorities of hooks). Rules are stages/filter,
// connections stages/conntrack, translations stages/nat; this class holds one worker's of each.
//
// Who decides. The kernel's packets (for this machine and no socket of ours, or leaving by a device that
// Sluice does not serve) are returned to it as they came, and it applies its own copy of the rules.
// Whether a packet is one of them is known only behind DNAT, so where there are rules of DNAT, those that
// the first packet of a connection would meet are run dry first, without effect. What DNAT leads to the
// kernel goes there with its whole connection (kFlowKernel), and so does a packet that meets a rule which
// Sluice cannot do; unless it is to or from a socket of ours, which the kernel does not have: then it is
// refused (kUnsupportedRule), and whoever sent it is told. What DNAT leads to a socket of this worker is
// the socket's: its connection stays with the worker that owns the ports it arrives with, whatever ports
// the socket has.
//
// Thread: the owning worker.
#ifndef SLUICE_DATAPLANE_FIREWALL_H_
#define SLUICE_DATAPLANE_FIREWALL_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <span>

#include "base/ids.h"
#include "base/time.h"
#include "base/worker_counters.h"
#include "dataplane/local_sockets.h"
#include "dataplane/walk.h"
#include "packet/frame_pool.h"
#include "packet/packet.h"
#include "stages/conntrack/conntrack.h"
#include "stages/filter/filter.h"
#include "stages/nat/nat.h"
#include "stages/route/route.h"
#include "tables/flow_alias.h"
#include "tables/flow_table.h"
#include "tables/snapshot.h"

namespace sluice::dataplane {

struct FirewallConfig {
  uint32_t flows = 65536;        // of this worker
  uint32_t flows_per_source = 0;
  uint32_t worker_count = 1;
  tables::NatPorts nat_ports;
  uint64_t seed = 1;
  Nanos start;
};

// What a hook has decided about a packet.
struct Judgement {
  enum class Kind : uint8_t { kAccept, kDrop, kReject, kPunt };
  Kind kind = Kind::kAccept;
  DropReason drop = DropReason::kFirewallRule;  // reject: as well
  PuntReason punt = PuntReason::kUnsupportedRule;
  bool reset = false;  // reject: by a TCP reset, else by an ICMP error
  uint8_t reject_code = 0;
  uint32_t rule = stages::kNoRule;    // that decided; kNoRule: the policy of `chain`, if any
  uint32_t chain = tables::kNoChain;

  static Judgement Accept() { return {}; }
  static Judgement Drop(DropReason reason) { return {.kind = Kind::kDrop, .drop = reason}; }
  static Judgement Punt(PuntReason reason) { return {.kind = Kind::kPunt, .punt = reason}; }
  bool accepted() const { return kind == Kind::kAccept; }
  // By a rule that Sluice cannot carry out: the kernel's, or refused since the kernel has no such socket.
  bool unsupported() const {
    return kind == Kind::kPunt     ? punt == PuntReason::kUnsupportedRule
           : kind == Kind::kReject ? drop == DropReason::kUnsupportedRule
                                   : false;
  }
};

class Firewall : private stages::Conntrack::ForeignSink, private stages::ConnectionView {
 public:
  Firewall(WorkerId worker, const FirewallConfig& config, const stages::RoutingTables& tables,
           const packet::FrameArena& arena, WorkerCounters& counters);

  // Whose packets are not the kernel's although they are for this machine.
  void set_sockets(const LocalSockets* sockets) { sockets_ = sockets; }

  // Once per snapshot; takes over the state of rules that stay.
  void UseSnapshot(const tables::Snapshot& snapshot, Nanos now);

  // Whether packets of the family in transit meet any rule or are tracked.
  bool active(Family family) const { return active_[family == Family::kIpv6]; }
  bool tracks(Family family) const { return tracks_[family == Family::kIpv6]; }

  // A packet's connection, looked up in two steps so that the misses of a burst overlap.
  struct Key {
    tables::FlowTuple tuple;
    uint64_t hash = 0;    // 0: it has no tuple
    bool error = false;   // an ICMP error: the tuple is that of answers to the packet it quotes
  };
  // Of a whole (reassembled) packet. Fetches the table's lines ahead.
  void Prepare(const packet::Packet& p, Family family, Key& key);
  void Prefetch(const Key& key) const {
    if (key.hash != 0) flows_.PrefetchFlow(key.hash);
  }
  // The worker that keeps the packet's connection, or puts a fragment's datagram together.
  WorkerId OwnerOf(const Key& key) const;
  WorkerId OwnerOfFragment(const packet::Packet& p, Family family) const;

  // Where the packets of an alias belong; this worker's own id when the key's connection is none.
  WorkerId OwnerByAlias(const Key& key, Nanos now);
  // For the workers that will see replies of connections of this one.
  struct AliasFor {
    WorkerId worker;
    tables::FlowAlias alias;
  };
  std::span<const AliasFor> aliases() const { return {aliases_.get(), alias_count_}; }
  void ClearAliases() { alias_count_ = 0; }
  void ApplyAlias(const tables::FlowAlias& alias, WorkerId owner, Nanos now);

  // A fragment, before it is reassembled: the rules that see it as it arrived. What may be for this
  // machine passes, and is judged as a whole when it is known whose it is (see kFlagBegun).
  Judgement BeforeReassembly(packet::Packet& p, const tables::Interface& in,
                             const tables::Snapshot& snapshot, Nanos now);
  // The same of a frame that is neither IPv4 nor IPv6. False: to be dropped.
  bool AdmitsOther(packet::Packet& p, const tables::Interface& in,
                   const tables::Snapshot& snapshot, Nanos now);
  Judgement BeforeRouting(packet::Packet& p, const Key& key, const tables::Interface& in,
                          const tables::Snapshot& snapshot, Nanos now);
  // Of a packet with kFlagStray.
  Judgement Input(packet::Packet& p, const tables::Interface& in, const tables::Snapshot& snapshot,
                  Nanos now);
  // What a socket sends in answer to the packet, before any translation; null: what the packet says.
  const tables::FlowTuple* TranslatedAnswers(const packet::Packet& p) const;
  // Of a packet that a socket will take. When it is accepted, it has no flow any more.
  Judgement ToSocket(packet::Packet& p, const tables::Interface& in,
                     const tables::Snapshot& snapshot, Nanos now);
  Judgement Forwarding(packet::Packet& p, const tables::Interface& in,
                       const tables::Interface& out, const tables::Snapshot& snapshot, Nanos now);
  Judgement AfterRouting(packet::Packet& p, const tables::Interface& in,
                         const tables::Interface& out, const IpAddress& next_hop,
                         const tables::Snapshot& snapshot, Nanos now);
  // A message that Sluice makes. `connection_of`: the packet to whose connection, if it has one, the
  // message belongs; null: to none. It leaves by message.out, which changes with `next_hop` when NAT
  // sends it elsewhere.
  Judgement OfOurOwn(packet::Packet& message, const packet::Packet* connection_of,
                     IpAddress& next_hop, const tables::Snapshot& snapshot, Nanos now);
  // A packet that a socket sends, as OfOurOwn. When it is not accepted, its flow is still to be
  // abandoned; one that is too large for the way where rules have led it (kFragmentationNeeded,
  // kPacketTooBig) has that way set. A whole datagram: what is to leave in fragments (fragment_size) is
  // judged before.
  Judgement OfSocket(packet::Packet& p, IpAddress& next_hop, const tables::Snapshot& snapshot,
                     Nanos now);
  // Whether rules could object to an answer to a packet for this machine.
  bool JudgesAnswers(Family family) const { return answers_[family == Family::kIpv6]; }

  // The same hooks without any effect but on the packet's own bytes (its translation), for
  // `sluice explain`. `scratch` is the connection that it would begin, or a copy of its own.
  struct Rehearsal {
    Walk& walk;
    tables::Flow scratch;
    bool tracked = false;
    stages::FlowPath* path = nullptr;  // begun; null: nobody asks
  };
  Judgement RehearseBeforeRouting(packet::Packet& p, const Key& key, const tables::Interface& in,
                                  const tables::Snapshot& snapshot, Nanos now, Rehearsal& r);
  Judgement RehearseInput(packet::Packet& p, const tables::Interface& in,
                          const tables::Snapshot& snapshot, Nanos now, Rehearsal& r);
  Judgement RehearseAfterRouting(packet::Packet& p, const tables::Interface& in,
                                 const tables::Interface& out, const IpAddress& next_hop,
                                 const tables::Snapshot& snapshot, Nanos now, Rehearsal& r);

  // Undoes the translations made so far, for a packet that the kernel is to have.
  void RestoreOriginal(packet::Packet& p);
  // The same for the first packet of a connection that DNAT has led to no socket, against what was
  // foreseen: its connection is the kernel's.
  void LeaveTranslatedToKernel(packet::Packet& p, Nanos now);
  // The kernel is given a packet, as it arrived, or a copy, and will count it at its own hooks: what
  // XDP has counted is taken back.
  void TakeBackCounts(packet::Packet& p, const tables::Snapshot& snapshot, Nanos now);
  // A segment that a rule which Sluice cannot carry out keeps from its socket, if it has one: its sender
  // is told, by a reset of ours or the kernel's, and so is the socket.
  void Sever(const packet::Packet& segment, LocalSockets& sockets, Nanos now) const;
  // A packet that ends before its connection was confirmed takes the entry with it.
  void Abandon(packet::Packet& p) {
    if (p.flow != packet::kNoFlowIndex) conntrack_.Abandon(p);
  }

  // Who is told of the rules that packets meet from now on (not of dry runs); null: nobody.
  void Watch(stages::TraceSink* sink) { watcher_ = sink; }
  // What notes the way of the packet in hand, begun; null: nothing.
  void Record(stages::FlowPath* path) { recorder_ = path; }

  // Connections that have had their time, or whose address has gone.
  void OnTimer(const tables::Snapshot& snapshot, Nanos now);
  Nanos NextDeadline() const {
    if (next_stale_ != tables::kNoFlow) return Nanos();
    return std::min(conntrack_.NextDeadline(), next_element_tick_);
  }

  tables::FlowTable& flows() { return flows_; }
  const tables::FlowTable& flows() const { return flows_; }
  stages::Filter& filter() { return filter_; }
  stages::Nat& nat() { return nat_; }
  stages::Conntrack& conntrack() { return conntrack_; }

 private:
  struct Pass;  // a packet at one of the hooks
  static constexpr size_t kAliases = 1024;

  void Ended(const tables::Flow& flow) override { Announce(flow, true); }
  bool IsAlive(tables::FlowIndex flow, uint64_t fingerprint) const override;
  // False: there is no room, the connection must not begin.
  bool Announce(const tables::Flow& flow, bool ended);

  Judgement BeforeRoutingForReal(Pass& pass, const Key& key, bool of_translated);
  Judgement Begin(Pass& pass);
  stages::FilterContext ContextOf(Pass& pass);
  bool IsOwnSource(const Pass& pass) const;
  bool IsKernelsWithoutFlow(Pass& pass, const Key& key, PuntReason& reason);
  bool IsSocketsByNow(Pass& pass, const Key& key);
  bool ForeseesDestination(Pass& pass, const Key& key, stages::Nat::Destination& destination);
  Judgement Output(Pass& pass);
  Judgement ToTheWire(Pass& pass);
  Judgement Confirm(Pass& pass);
  Judgement Run(tables::HookPoint hook, Pass& pass);
  stages::FlowPath* PathAt(tables::HookPoint hook, const Pass& pass);
  Judgement Translate(tables::HookPoint hook, stages::NatManip manip, Pass& pass);
  Judgement SetUp(tables::HookPoint hook, stages::NatManip manip, Pass& pass, tables::Flow& flow);
  void TrackOwn(packet::Packet& message, Family family, const tables::Snapshot& snapshot, Nanos now);
  Judgement Rehearse(tables::HookPoint hook, Pass& pass, Rehearsal& r);
  Judgement RehearseTranslation(tables::HookPoint hook, stages::NatManip manip, Pass& pass,
                                Rehearsal& r);
  void LeaveToKernel(packet::Packet& p, Nanos now);
  bool ReachesConntrack(Pass& dry);
  bool PassesWithoutFlow(const Pass& pass);
  bool StaysUntracked(const Pass& pass);
  bool FollowsFlow(const Pass& pass, const Key& key, const tables::FlowTable::Found& found);
  bool BeginsFlow(const Pass& pass, const Key& key) const;
  bool Reroute(Pass& pass) const;
  Judgement Fit(packet::Packet& p, Family family, const tables::Snapshot& snapshot) const;
  void Claim(Pass& pass, const Key& key);
  bool IsSockets(const packet::Packet& p) const {
    return sockets_ != nullptr && sockets_->IsClaimed(p);
  }
  bool IsSockets(const packet::Packet& p, const stages::Nat::Destination& d) const {
    return sockets_ != nullptr && sockets_->IsClaimed(p, d.address, d.port);
  }
  // Why the route returns packets to this address to the kernel, if it does.
  bool IsKernels(const IpAddress& destination, const tables::Snapshot& snapshot,
                 PuntReason& reason) const;
  tables::Flow* FlowOf(const packet::Packet& p) {
    return p.flow == packet::kNoFlowIndex ? nullptr : &flows_.at(p.flow);
  }

  const WorkerId worker_;
  const uint32_t worker_count_;
  const stages::RoutingTables tables_;
  const stages::FilterTables filter_tables_;
  const packet::FrameArena& arena_;
  tables::FlowTable flows_;
  stages::Filter filter_;
  stages::Conntrack conntrack_;
  stages::Nat nat_;
  const tables::Ruleset* ruleset_ = nullptr;
  const LocalSockets* sockets_ = nullptr;
  tables::ConntrackSettings own_settings_;  // for packets of our own: checksums are right, one source
  stages::TraceSink* watcher_ = nullptr;
  stages::FlowPath* recorder_ = nullptr;
  bool active_[2] = {false, false};  // by IPv4, IPv6
  bool tracks_[2] = {false, false};
  bool nats_[2] = {false, false};
  bool answers_[2] = {false, false};
  bool begins_[2] = {false, false};  // rules before reassembly
  bool raw_[2] = {false, false};     // rules before conntrack
  Nanos next_element_tick_ = Nanos::Max();  // when elements that rules have added are looked through
  std::unique_ptr<AliasFor[]> aliases_;
  size_t alias_count_ = 0;
  // Where the search for connections whose address has gone continues; kNoFlow: nowhere.
  tables::FlowIndex next_stale_ = tables::kNoFlow;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_FIREWALL_H_
