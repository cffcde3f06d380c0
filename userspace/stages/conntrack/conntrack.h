// Connection tracking: which flow a packet belongs to, and what `ct state` says about it.
//
// Rules are those of Linux 6.18: nf_conntrack_in and nf_conntrack_confirm
// (net/netfilter/nf_conntrack_core.c) and the trackers of net/netfilter/nf_conntrack_proto_*.c.
//
// A packet's way: MakeTuple (tuple.h) and Hash; Track before the prerouting rules; then NAT, rules
// and routing; then Confirm where it leaves, or Abandon where its way ends before that. A new flow
// is unconfirmed, known to its packet alone, until Confirm puts it into the table: so rules and NAT
// may still change its tuple of replies, and a dropped packet leaves nothing behind.
//
// `now` is the same for all packets between two calls of Expire (a tick): a flow that a packet of
// this tick uses is not taken for another one, so a burst may go through Track as a whole before
// the first of it is confirmed. A flow that ended meanwhile (kFlowDying) can still be read.
//
// Bursts: Hash and table().PrefetchBucket for each packet, then table().PrefetchFlow, then Track.
//
// Thread: the worker that owns the table. Constant cost per packet, but for the checksum, which
// reads the packet once when settings.checksum is set (what the kernel does, too).
//
// Not here: helpers and expectations (FTP, SIP, PPTP), zones, sequence adjustment, synproxy.
#ifndef SLUICE_STAGES_CONNTRACK_CONNTRACK_H_
#define SLUICE_STAGES_CONNTRACK_CONNTRACK_H_

#include <cstddef>
#include <cstdint>

#include "base/time.h"
#include "base/worker_counters.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "packet/verdict.h"
#include "stages/conntrack/tuple.h"
#include "tables/conntrack_settings.h"
#include "tables/flow_table.h"

namespace sluice::stages {

class Conntrack {
 public:
  Conntrack(tables::FlowTable& table, ConntrackCounters& counters)
      : table_(table), counters_(counters) {}

  // Sets p.flow, p.ct_state and p.ct_direction; finds or makes the flow and brings it up to date.
  // `hash` is table().Hash(tuple), or 0 when MakeTuple said no. Verdicts: Continue, or Drop when
  // there is no room for a new flow (kConntrackFull, kConntrackPerSource). Packets that break the
  // protocol's rules go on as kInvalid, without a flow. Packets with p.ct_state kUntracked pass.
  packet::Verdict Track(packet::Packet& p, const tables::FlowTuple& tuple, uint64_t hash,
                        const tables::ConntrackSettings& settings,
                        const packet::FrameArena& arena, Nanos now);

  // Whether Track would find a flow (`found`, or none yet) for a packet that is no ICMP error, or
  // begin one, rather than call the packet invalid. Changes nothing.
  bool WouldTrack(const packet::Packet& p, const tables::FlowTuple& tuple,
                  const tables::FlowTable::Found& found,
                  const tables::ConntrackSettings& settings, const packet::FrameArena& arena,
                  Nanos now) const;

  // A reset has been sent in answer to p: its connection is closing (nf_ct_set_closing).
  void SetClosing(const packet::Packet& p, const tables::ConntrackSettings& settings, Nanos now);

  // Continue; or Drop (kConntrackClash) when another flow has got one of the tuples meanwhile and
  // is not the same connection. Confirms p's flow if it has an unconfirmed one.
  packet::Verdict Confirm(packet::Packet& p, Nanos now);

  // The packet ends here: its unconfirmed flow, if it has one, is freed.
  void Abandon(packet::Packet& p);

  // `notrack`: p goes on untracked.
  void Untrack(packet::Packet& p);

  // Ends flows whose time is up. Between bursts. False: there is more to do, call again. Nothing to
  // do before NextDeadline().
  bool Expire(Nanos now, size_t max_visits = 64);
  Nanos NextDeadline() const { return table_.NextDeadline(); }

  // Called with each flow that ends and has kFlowForeignReply; must not touch the table.
  class ForeignSink {
   public:
    virtual ~ForeignSink() = default;
    virtual void Ended(const tables::Flow& flow) = 0;
  };
  void set_foreign_sink(ForeignSink* sink) { foreign_ = sink; }
  // Ends a confirmed flow before its time.
  void Remove(tables::FlowIndex flow) { End(flow); }

  tables::FlowTable& table() { return table_; }
  const tables::FlowTable& table() const { return table_; }

 private:
  // What Track was given, and the segment when it is TCP.
  struct Context;

  packet::Verdict Invalid(packet::Packet& p);
  // Of a flow that is not over its time.
  tables::FlowTable::Found FindLive(const tables::FlowTuple& tuple, uint64_t hash, Nanos now);
  packet::Verdict TrackIcmpError(packet::Packet& p, const tables::FlowTuple& tuple, Nanos now);
  // kNoFlow, with `verdict` set, when the packet begins no flow.
  tables::FlowIndex Begin(const Context& c, packet::Packet& p, packet::Verdict& verdict);
  static bool MayBegin(const Context& c, tables::FlowTuple& inverse, tables::SctpTracking& sctp);
  packet::Verdict Apply(const Context& c, packet::Packet& p, tables::FlowTable::Found found,
                        bool fresh, bool& again);
  void End(tables::FlowIndex flow);
  void TellForeign(const tables::Flow& flow) {
    if (foreign_ != nullptr && flow.Has(tables::kFlowForeignReply)) foreign_->Ended(flow);
  }
  void CountFlows() { counters_.current.Set(table_.size()); }

  tables::FlowTable& table_;
  ConntrackCounters& counters_;
  ForeignSink* foreign_ = nullptr;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_CONNTRACK_CONNTRACK_H_
