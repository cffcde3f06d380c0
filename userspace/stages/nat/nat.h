// NAT: which address and port a new flow is translated to.
//
// The rules are those of net/netfilter/nf_nat_core.c (get_unique_tuple and what it calls),
// nf_nat_masquerade.c, nf_nat_redirect.c and nft_nat.c of Linux 6.18: the tuple that answers will
// carry must not be another flow's; a source port is kept when that is so; a flow from a source
// that is mapped already is given the same mapping where the rule allows it; an address range is
// hashed over as the kernel hashes (jhash2, so the same client gets the same address from both).
//
// Ours where a port has to change:
// - It comes from NatPorts (49152 to 65535) instead of 1024 to 65535; below 1024 the kernel's
//   classes hold (1-511, 600-1023), and so does a rule's own range.
// - Only ports count for which OwnerOf(reply tuple) is this worker (tables/flow_owner.h). So a
//   mapping that this worker finds free is free on all of them, without asking. Where a rule's
//   range holds none such, or the destination port has been changed, the reply tuple belongs to
//   another worker: `foreign_reply`.
// - The search looks at 128 candidates that are this worker's from a random offset, then 64, 32,
//   16 and 8 from new ones (at most 248), as the kernel does with all candidates. The last 32 of a
//   TCP flow that starts with SYN may take the tuple of a flow in TIME_WAIT whose sequence numbers
//   lie behind (`evict`). Then the packet is dropped as kNatExhausted; the kernel drops it when it
//   confirms.
//
// "Mapped already" is remembered in a small cache by source: one flow per slot, checked when used.
//
// Thread: the worker that owns the table. Cost: a few lookups per new flow, at most 249; nothing is
// allocated after construction.
#ifndef SLUICE_STAGES_NAT_NAT_H_
#define SLUICE_STAGES_NAT_NAT_H_

#include <cstdint>
#include <memory>
#include <optional>

#include "base/counter.h"
#include "base/ids.h"
#include "base/rng.h"
#include "packet/verdict.h"
#include "tables/flow.h"
#include "tables/flow_table.h"
#include "tables/nat_request.h"
#include "tables/snapshot.h"

namespace sluice::stages {

// Which end of the tuple: destination in PREROUTING and OUTPUT, source in POSTROUTING.
enum class NatManip : uint8_t { kSource, kDestination };

struct NatCounters {
  Counter translated;    // flows given another address or port, per manip
  Counter port_changed;  // source ports that could not be kept
  Counter exhausted;
  Counter evicted;
  Counter foreign;  // reply tuples of other workers
};

class Nat {
 public:
  struct Options {
    WorkerId worker;
    uint32_t worker_count = 1;
    tables::NatPorts ports;
    uint64_t seed = 0;
    uint32_t source_cache = 4096;  // slots; rounded up to a power of two
  };
  // What the choice of an address may depend on.
  struct Context {
    const tables::Snapshot& snapshot;
    IfaceSlot in;        // redirect
    IfaceSlot out;       // masquerade
    IpAddress next_hop;  // masquerade IPv4: the route's gateway, else the destination
  };
  struct Result {
    packet::Verdict verdict = packet::Verdict::Continue();
    // OwnerOf(reply tuple) is another worker: answers have to find their way to this one.
    bool foreign_reply = false;
    // A flow in TIME_WAIT that holds the chosen tuple: the caller removes it before confirmation.
    tables::FlowIndex evict = tables::kNoFlow;
  };

  Nat(const Options& options, const tables::FlowTable& table);

  // For an unconfirmed flow, once per manip (IsSetUp tells): sets the reply tuple, the status bits,
  // and for masquerade the slot. Of a confirmed flow nothing changes (Continue). After Drop the
  // flow is as before, to be freed by the caller.
  Result Setup(tables::Flow& flow, const tables::NatRequest& request, const Context& context);
  // No rule asked for anything: keeps the addresses, and the source port unless the tuple would
  // clash. Every flow needs one of the two for each manip, as in the kernel.
  Result SetupNull(tables::Flow& flow, NatManip manip);

  // The destination that Setup would give the flow; nothing when it would drop or change none. The
  // port is a guess where Setup has several to choose from.
  struct Destination {
    IpAddress address;
    uint16_t port = 0;
    bool guessed = false;
  };
  std::optional<Destination> Foresee(const tables::Flow& flow, const tables::NatRequest& request,
                                     const Context& context) const;

  static bool IsSetUp(const tables::Flow& flow, NatManip manip) {
    return flow.Has(manip == NatManip::kSource ? tables::kFlowSourceNatDone
                                               : tables::kFlowDestinationNatDone);
  }
  static NatManip ManipOf(tables::NatKind kind) {
    return kind == tables::NatKind::kSource || kind == tables::NatKind::kMasquerade
               ? NatManip::kSource
               : NatManip::kDestination;
  }

  // POSTROUTING, each packet: a masqueraded flow that would leave by another interface than it
  // began with is over (nf_nat_oif_changed). Drop(kNatRouteChanged): remove the flow too.
  static packet::Verdict CheckOut(const tables::Flow& flow, tables::FlowDirection direction,
                                  IfaceSlot out);

  // Remembers the mapping for later flows of the same source: after confirmation.
  void Remember(tables::FlowIndex index);

  const NatCounters& counters() const { return counters_; }

 private:
  struct Range;
  struct Numbers {
    uint32_t first = 0;
    uint32_t count = 0;
  };

  Result Apply(tables::Flow& flow, const Range& range, NatManip manip);
  bool Choose(const tables::Flow& flow, const Range& range, NatManip manip,
              tables::FlowTuple& reply, tables::FlowIndex& evict);
  bool SearchPort(const tables::Flow& flow, const Range& range, NatManip manip,
                  tables::FlowTuple& reply, tables::FlowIndex& evict);
  bool FindMapping(const tables::Flow& flow, const Range& range, tables::FlowTuple& reply) const;
  Numbers NumbersFor(const Range& range, const tables::FlowTuple& reply) const;
  bool OwnNumberIn(const Numbers& numbers, tables::FlowTuple reply, NatManip manip) const;
  uint16_t Random16() { return static_cast<uint16_t>(rng_.Next() >> 48); }
  bool IsTwin(const tables::Flow& flow, tables::FlowIndex other) const;
  bool IsTaken(const tables::Flow& flow, const tables::FlowTuple& reply) const;
  bool IsOurs(const tables::FlowTuple& reply) const;
  static std::optional<IpAddress> ForeseeAddress(const tables::FlowTuple& reply,
                                                 const tables::NatRequest& request,
                                                 const Context& context);

  const Options options_;
  const tables::FlowTable& table_;
  Rng rng_;
  std::unique_ptr<tables::FlowIndex[]> by_source_;
  NatCounters counters_;
};

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_NAT_NAT_H_
