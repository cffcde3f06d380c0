// A packet's way through the pipeline, step by step, for `sluice explain`: what each step found, as
// numbers that the control thread turns into text.
//
// Filled by Pipeline::Explain on the worker's thread, so it has its room beforehand: what does not
// fit is left out, and `truncated` says so.
#ifndef SLUICE_DATAPLANE_WALK_H_
#define SLUICE_DATAPLANE_WALK_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "base/address.h"
#include "base/ids.h"
#include "packet/verdict.h"
#include "stages/filter/filter.h"
#include "stages/filter/flow_path.h"
#include "tables/flow.h"
#include "tables/nat_request.h"
#include "tables/route.h"
#include "tables/ruleset/hook_point.h"

namespace sluice::dataplane {

struct WalkStep {
  enum class Kind : uint8_t {
    kParse,        // verdict
    kAddresses,    // verdict: what no table decides about
    kOwner,        // worker: that has the connection
    kConnection,   // state, direction, tuple
    kHook,         // hook, outcome, rule, chain; the rules that matched are first_rule ...
    kTranslation,  // hook, nat, tuple: as it is from here on
    kRoute,        // verdict, slot, next_hop
    kForwarding,   // verdict: TTL and MTU; mtu
    kNeighbor,     // resolved, mac
    kSocket,       // a socket of ours takes it; verdict: punt if the kernel gets a copy
    kTier,         // tier, variance, rule: who would carry it
    kEnd,          // verdict, slot
  };
  enum class Tier : uint8_t {
    kXdp,        // its flow or route is in XDP
    kSoonXdp,    // it may come there: such packets do not differ
    kNotYet,     // it may, once the connection is established
    kForm,       // not a packet that XDP carries
    kDiffers,    // `variance`: a rule wants to see each packet
    kOff,        // the arrival interface does not take part, or the family's rules do not allow it
    kOutput,     // the output interface cannot
    kPaths,      // several paths, or a redirect is due
  };
  enum class Outcome : uint8_t { kAccept, kDrop, kReject, kNat, kKernel };

  Kind kind = Kind::kParse;
  packet::Verdict verdict = packet::Verdict::Continue();
  WorkerId worker;
  // Connections.
  tables::CtState state = tables::CtState::kNone;
  tables::FlowDirection direction = tables::FlowDirection::kOriginal;
  tables::FlowTuple tuple;
  // Rules.
  tables::HookPoint hook = tables::HookPoint::kForward;
  Outcome outcome = Outcome::kAccept;
  bool reset = false;
  uint8_t reject_code = 0;
  uint32_t rule = stages::kNoRule;
  uint32_t chain = tables::kNoChain;
  size_t first_rule = 0;  // into Walk::rules()
  size_t rule_count = 0;
  tables::NatKind nat = tables::NatKind::kSource;
  // Routing.
  tables::RouteType route = tables::RouteType::kUnicast;
  IfaceSlot slot;
  IpAddress next_hop;
  uint32_t mtu = 0;
  Tier tier = Tier::kOff;
  stages::Variance variance = stages::Variance::kNone;
  bool resolved = false;
  Mac mac;
};

class Walk final : public stages::TraceSink {
 public:
  static constexpr size_t kMaxSteps = 32;
  static constexpr size_t kMaxRules = 512;

  // The new step, to be filled in; the last one again when there is no room.
  WalkStep& Add(WalkStep::Kind kind) {
    if (step_count_ == kMaxSteps) {
      truncated_ = true;
      return steps_[kMaxSteps - 1];
    }
    WalkStep& step = steps_[step_count_++];
    step = WalkStep{};
    step.kind = kind;
    step.first_rule = rule_count_;
    return step;
  }
  std::span<const WalkStep> steps() const { return {steps_.data(), step_count_}; }
  std::span<const uint32_t> rules() const { return {rules_.data(), rule_count_}; }
  bool truncated() const { return truncated_; }

  // stages::TraceSink
  void EnterChain(uint32_t) override {}
  void LeaveChain(uint32_t) override {}
  void RuleMatched(uint32_t rule) override {
    if (rule_count_ == kMaxRules) {
      truncated_ = true;
      return;
    }
    rules_[rule_count_++] = rule;
  }
  void PolicyApplied(uint32_t, bool) override {}
  size_t rule_count() const { return rule_count_; }

 private:
  std::array<WalkStep, kMaxSteps> steps_;
  size_t step_count_ = 0;
  std::array<uint32_t, kMaxRules> rules_;
  size_t rule_count_ = 0;
  bool truncated_ = false;
};

}  // namespace sluice::dataplane

#endif  // SLUICE_DATAPLANE_WALK_H_
