// `sluice trace`: packets that a filter picks, with what became of them, from a worker to whoever
// looks on.
//
//   control thread                      worker                              HTTP thread
//   TraceSession ---- Use(session) ---> Begin ... End -----> ring -------> TryPop
//
// A packet is picked as it arrived (before NAT) and reported when its end is known: Begin when a
// worker has received it, RuleMatched for each rule that it meets, End with its outcome. Between the
// two it is remembered by its frame, in a table of kOpenTraces places; a packet that loses its place
// to another one is counted as lost, as is one for which the ring has no room. What is picked shows XDP
// no way in any case (kFlagTraced), so that the next packets come here as well. A packet that waits
// for a neighbour is reported when it goes on. One that goes to another worker before it is judged is
// ended there: Forget here, Begin there.
//
// Cost while nobody looks on: one load and one branch that is always predicted (active()).
//
// Thread: Use and below: the worker. The session: made and destroyed by the control thread, while no
// worker uses it; its ring is read by one other thread.
#ifndef SLUICE_DATAPLANE_TRACER_H_
#define SLUICE_DATAPLANE_TRACER_H_

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>

#include "base/counter.h"
#include "base/ids.h"
#include "base/spsc_ring.h"
#include "base/time.h"
#include "dataplane/packet_filter.h"
#include "packet/packet.h"
#include "stages/filter/filter.h"

namespace sluice::dataplane {

enum class TraceOutcome : uint8_t { kForwarded, kLocal, kPunted, kDropped };

inline constexpr size_t kTraceBytes = 128;
inline constexpr size_t kTraceRules = 6;
inline constexpr size_t kOpenTraces = 256;
inline constexpr size_t kTraceRing = 1024;
inline constexpr uint32_t kTraceChain = 0x8000'0000;

struct TraceRecord {
  Nanos time;             // when it arrived
  uint64_t generation = 0;  // of the ruleset that the rules belong to
  uint32_t length = 0;
  uint8_t captured = 0;   // bytes in `arrived`
  uint8_t departed = 0;   // bytes in `left`
  IfaceSlot in, out;
  TraceOutcome outcome = TraceOutcome::kForwarded;
  uint8_t reason = 0;     // DropReason or PuntReason
  uint8_t rule_count = 0;
  bool offload = false;   // XDP would have carried it
  // Indexes in the Ruleset, the deciding one last; with kTraceChain a chain whose policy is drop.
  std::array<uint32_t, kTraceRules> rules{};
  std::array<uint8_t, kTraceBytes> arrived{};
  std::array<uint8_t, kTraceBytes> left{};  // of kForwarded
};

// One worker's part of a running trace.
struct TraceSession {
  TraceSession() : ring(kTraceRing) {}
  PacketFilter filter;
  SpscRing<TraceRecord> ring;
  Counter lost;
};

class Tracer final : public stages::TraceSink {
 public:
  bool active() const { return session_ != nullptr; }
  // nullptr: no more. What is open is given up.
  void Use(TraceSession* session) {
    session_ = session;
    judged_ = nullptr;
    for (Open& open : open_) open.frame = packet::kNoFrame;
  }

  // The packet as it arrived, with its `in`.
  void Begin(packet::Packet& p, Nanos now) {
    if (active()) BeginTrace(p, now);
  }
  // Who is to be told of the rules that the packet meets next; null when it is not traced.
  stages::TraceSink* RulesOf(const packet::Packet& p, uint64_t generation) {
    judged_ = active() ? Find(p) : nullptr;
    if (judged_ == nullptr) return nullptr;
    judged_->record.generation = generation;
    return this;
  }
  // XDP would have carried it, had nobody looked on. False: it is not traced.
  bool NoteOffload(const packet::Packet& p) {
    if (!active() || !p.Has(packet::kFlagTraced)) return false;
    if (Open* const open = Find(p)) open->record.offload = true;
    return true;
  }
  // Once, before the frame is freed or given to a ring.
  void End(const packet::Packet& p, TraceOutcome outcome, uint8_t reason = 0) {
    if (active()) EndTrace(p, outcome, reason);
  }
  // stages::TraceSink, of the packet that RulesOf was asked for.
  void EnterChain(uint32_t) override {}
  void LeaveChain(uint32_t) override {}
  void RuleMatched(uint32_t rule) override { AddRule(rule); }
  void PolicyApplied(uint32_t chain, bool accept) override {
    if (!accept) AddRule(kTraceChain | chain);
  }
  // It goes on under another frame (reassembled, fragmented) or at another worker.
  void Forget(const packet::Packet& p) {
    if (!active()) return;
    if (Open* const open = Find(p)) open->frame = packet::kNoFrame;
  }

 private:
  struct Open {
    packet::FrameIndex frame = packet::kNoFrame;
    TraceRecord record;
  };

  static uint8_t Copy(const packet::Packet& p, std::array<uint8_t, kTraceBytes>* out) {
    const size_t n = std::min<size_t>(p.segment_length, kTraceBytes);
    std::copy_n(p.data, n, out->data());
    return static_cast<uint8_t>(n);
  }
  Open& PlaceOf(const packet::Packet& p) { return open_[p.frame % kOpenTraces]; }
  Open* Find(const packet::Packet& p) {
    if (p.frame == packet::kNoFrame) return nullptr;  // given away already
    Open& open = PlaceOf(p);
    return open.frame == p.frame ? &open : nullptr;
  }

  void BeginTrace(packet::Packet& p, Nanos now) {
    Open& open = PlaceOf(p);
    // What had this very frame before has been freed without an end; another frame's has not.
    if (open.frame == p.frame) open.frame = packet::kNoFrame;
    if (!session_->filter.Matches({p.data, p.segment_length}, p.length)) return;
    p.flags |= packet::kFlagTraced;
    if (open.frame != packet::kNoFrame) session_->lost.Add();
    open.frame = p.frame;
    open.record = TraceRecord{};
    open.record.time = now;
    open.record.length = p.length;
    open.record.in = p.in;
    open.record.captured = Copy(p, &open.record.arrived);
  }

  void AddRule(uint32_t rule) {
    if (judged_ == nullptr) return;
    TraceRecord& r = judged_->record;
    if (r.rule_count == kTraceRules) {  // the deciding one must be among them
      r.rules[kTraceRules - 1] = rule;
    } else {
      r.rules[r.rule_count++] = rule;
    }
  }

  void EndTrace(const packet::Packet& p, TraceOutcome outcome, uint8_t reason) {
    Open* const open = Find(p);
    if (open == nullptr) return;
    open->frame = packet::kNoFrame;
    TraceRecord& r = open->record;
    r.outcome = outcome;
    r.reason = reason;
    if (outcome == TraceOutcome::kForwarded) {
      r.out = p.out;
      r.departed = Copy(p, &r.left);
    }
    if (!session_->ring.TryPush(std::move(r))) session_->lost.Add();
  }

  TraceSession* session_ = nullptr;
  Open* judged_ = nullptr;
  std::array<Open, kOpenTraces> open_;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_TRACER_H_
