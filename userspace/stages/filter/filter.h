// The rule engine: judges a packet at one hook by the ruleset in force.
//
// Semantics are those of net/netfilter/nf_tables_core.c and nft_*.c (6.1 to 6.18): registers, BREAK
// when a load is impossible, jump, goto and return with 16 frames, chain policies. Base chains of
// one hook run by priority; accept ends one base chain, drop ends the packet. Chains with many
// rules are not walked rule by rule but through an index (tables/ruleset/classifier.h).
//
// What it refuses: a rule that cannot be evaluated here is the kernel's: reaching it yields kKernel,
// and the caller punts the packet as it arrived. `dry_run` evaluates without any side effect.
//
// Threads: a Filter belongs to one worker; Drain* may be called by one control thread. No
// allocation, lock or clock in Run.
#ifndef SLUICE_STAGES_FILTER_FILTER_H_
#define SLUICE_STAGES_FILTER_FILTER_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "base/address.h"
#include "base/counter.h"
#include "base/rng.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "packet/frame_arena.h"
#include "packet/packet.h"
#include "stages/filter/flow_path.h"
#include "tables/fib.h"
#include "tables/flow.h"
#include "tables/nat_request.h"
#include "tables/route_table.h"
#include "tables/ruleset/connection_count.h"
#include "tables/ruleset/ruleset.h"
#include "tables/snapshot.h"

namespace sluice::stages {

using tables::kNoRule;

// What `fib` and `rt` expressions read.
struct FilterTables {
  const tables::Fib4& fib4;
  const tables::Fib6& fib6;
  const tables::RouteTable& routes;
};

// Told what an evaluation does, in order; for explain and trace.
class TraceSink {
 public:
  virtual ~TraceSink() = default;
  virtual void EnterChain(uint32_t chain) = 0;  // base chains and jumps, gotos
  virtual void LeaveChain(uint32_t chain) = 0;
  virtual void RuleMatched(uint32_t rule) = 0;  // all of its expressions
  virtual void PolicyApplied(uint32_t chain, bool accept) = 0;
};

// Which connections live, for `ct count`.
class ConnectionView {
 public:
  virtual ~ConnectionView() = default;
  // Whether `flow` is still the connection with this original tuple's fingerprint (see
  // TupleFingerprint in tables/ruleset/connection_count.h), tracked and not closed.
  virtual bool IsAlive(tables::FlowIndex flow, uint64_t fingerprint) const = 0;
};

struct FilterContext {
  packet::Packet& p;
  const packet::FrameArena& arena;
  const tables::Snapshot& snapshot;
  const tables::Interface* in = nullptr;   // null for packets of our own
  const tables::Interface* out = nullptr;  // null before routing
  tables::Flow* flow = nullptr;            // of p, null when untracked
  const FilterTables& tables;
  Nanos now;
  // Nothing changes: no counts, no tokens, no elements, none of the packet's bytes. Marks and tracking
  // states do, since later hooks may ask for them: `p` and `flow` are copies then.
  bool dry_run = false;
  // Runs what XDP has applied to the packet (of a frame that is not IP: all rules), and takes its
  // counts back, since the kernel is going to count the packet. Limits end a rule: whether XDP has
  // found it below one is not known any more.
  bool take_back = false;
  TraceSink* trace = nullptr;
  const ConnectionView* connections = nullptr;  // null: no connection is known to have ended
  Nanos wall_offset;  // wall-clock time (local, for `meta hour` and `day`) minus `now`; 0: unknown
  FlowPath* path = nullptr;  // begun; null: nobody asks whether the next packet will fare alike
};

enum class RejectKind : uint8_t {
  kIcmp,      // destination unreachable (type 3) with reject_code
  kIcmpv6,    // destination unreachable (type 1) with reject_code
  kTcpReset,
};

struct FilterVerdict {
  enum class Kind : uint8_t { kAccept, kDrop, kReject, kNat, kKernel };
  Kind kind = Kind::kAccept;
  RejectKind reject = RejectKind::kIcmp;
  uint8_t reject_code = 0;
  uint32_t rule = kNoRule;          // the deciding rule; kNoRule: `chain`'s policy
  uint32_t chain = tables::kNoChain;  // where it was decided; kNoChain: no base chain there
  tables::NatRequest nat;           // kNat
};

// One packet for the log, as the `log` statement saw it.
struct LogRecord {
  static constexpr size_t kSnapLength = 128;
  uint64_t generation = 0;  // of the Ruleset that `rule` belongs to
  uint32_t rule = kNoRule;
  Nanos time;
  tables::HookPoint hook = tables::HookPoint::kForward;
  IfaceSlot in;
  IfaceSlot out;
  uint32_t mark = 0;
  uint16_t l3_length = 0;   // of the whole packet
  uint16_t captured = 0;
  std::array<uint8_t, kSnapLength> l3{};  // from the network header on
};

class Filter {
 public:
  struct Options {
    uint32_t worker = 0;
    uint64_t seed = 0;              // of `numgen random`, `meta random`, symmetric hashes
    size_t log_records = 1024;      // that wait for the control thread
    size_t set_events = 4096;
    uint32_t log_per_second = 100;  // beyond that they are counted as lost
    uint32_t counted_connections = 65536;  // that `ct count` statements can tell apart
  };
  explicit Filter(const Options& options);

  // --- Worker ---
  // The ruleset that Run uses; null: everything is accepted. State needs no carrying over (see
  // ruleset.h). The old one may go once this worker has passed a quiescent point.
  void UseRuleset(const tables::Ruleset* next, Nanos now);
  const tables::Ruleset* ruleset() const { return ruleset_; }

  FilterVerdict Run(tables::HookPoint hook, Family family, FilterContext& context);
  // Netdev ingress for frames that are neither IPv4 nor IPv6 (ARP).
  FilterVerdict RunIngressOther(FilterContext& context);

  // Removes elements of dynamic sets whose time is over; bounded work per call.
  void Tick(Nanos now);

  // --- Control ---
  // fn(const LogRecord&), fn(const tables::SetEvent&): what was logged and what was added to sets
  // since the last call. Bounded; what did not fit is counted.
  template <class F>
  size_t DrainLog(F&& fn);
  template <class F>
  size_t DrainSetEvents(F&& fn);
  uint64_t logged() const { return logged_.Read(); }
  uint64_t log_lost() const { return log_lost_.Read(); }
  uint64_t set_events_lost() const { return set_events_lost_.Read(); }

 private:
  friend class Evaluation;

  const tables::Ruleset* ruleset_ = nullptr;
  const uint32_t worker_;
  Rng rng_;
  const uint64_t hash_seed_;
  tables::ConnectionCounts connection_counts_;
  SpscRing<LogRecord> log_;
  SpscRing<tables::SetEvent> set_events_;
  Counter logged_;
  Counter log_lost_;
  Counter set_events_lost_;
  Nanos log_bucket_;  // when the bucket of log records was last empty
  const Nanos log_cost_;
  size_t next_set_ = 0;  // where Tick goes on
};

template <class F>
size_t Filter::DrainLog(F&& fn) {
  size_t n = 0;
  for (LogRecord record; log_.TryPop(record); ++n) fn(record);
  return n;
}

template <class F>
size_t Filter::DrainSetEvents(F&& fn) {
  size_t n = 0;
  for (tables::SetEvent event; set_events_.TryPop(event); ++n) fn(event);
  return n;
}

}  // namespace sluice::stages

#endif  // SLUICE_STAGES_FILTER_FILTER_H_
