#include "stages/filter/filter.h"

#include <algorithm>

#include "stages/filter/evaluation.h"

namespace sluice::stages {

using tables::ChainInfo;
using tables::HookPoint;
using tables::Load;
using tables::LoadValue;
using tables::Ruleset;

Filter::Filter(const Options& options)
    : worker_(options.worker),
      rng_(options.seed + options.worker),
      hash_seed_(options.seed),
      connection_counts_(options.counted_connections),
      log_(options.log_records),
      set_events_(options.set_events),
      log_cost_(Seconds(1) / std::max<int64_t>(options.log_per_second, 1)) {}

void Filter::UseRuleset(const Ruleset* next, [[maybe_unused]] Nanos now) {
  ruleset_ = next;
  next_set_ = 0;
  if (next == nullptr || !next->has_dynamic_sets()) return;
  // What the kernel's sets have lost is gone here with the ruleset that says so.
  for (uint32_t i = 0; i < next->set_count(); ++i) {
    if (tables::DynamicSet* const set = next->dynamic(i)) set->FollowRequests(worker_);
  }
}

FilterVerdict Filter::Run(HookPoint hook, Family family, FilterContext& context) {
  if (ruleset_ == nullptr || !ruleset_->Has(hook, family)) return {};
  const uint32_t slot = static_cast<uint32_t>(tables::FamilySlot(family));
  const tables::Program& program = ruleset_->program();
  if (hook != HookPoint::kIngress) {
    return Evaluation(*this, context, hook, slot)
        .Run(program.hooks[static_cast<size_t>(hook)][slot]);
  }
  if (context.in == nullptr) return {};
  for (const tables::IngressDevice& device : program.ingress) {
    if (device.name == context.in->name) {
      return Evaluation(*this, context, hook, slot).Run(device.chains[slot]);
    }
  }
  return {};
}

FilterVerdict Filter::RunIngressOther(FilterContext& context) {
  if (ruleset_ == nullptr || !ruleset_->HasIngressOther() || context.in == nullptr) return {};
  for (const tables::IngressDevice& device : ruleset_->program().ingress) {
    if (device.name == context.in->name) {
      return Evaluation(*this, context, HookPoint::kIngress, 2).Run(device.chains[2]);
    }
  }
  return {};
}

void Filter::Tick(Nanos now) {
  if (ruleset_ == nullptr || ruleset_->set_count() == 0) return;
  constexpr size_t kSetsPerTick = 4;
  constexpr size_t kVisits = 64;
  const size_t count = ruleset_->set_count();
  for (size_t i = 0; i < std::min(count, kSetsPerTick); ++i) {
    if (next_set_ >= count) next_set_ = 0;
    tables::DynamicSet* set = ruleset_->dynamic(static_cast<uint32_t>(next_set_++));
    if (set == nullptr) continue;
    set->FollowRequests(worker_);
    set->worker(worker_).Expire(now, kVisits);
  }
}

namespace {

// IPv6's extension headers, as bpf/include/early_filter.h has them.
bool HasExtensions(uint8_t next_header) {
  return next_header == 0 || next_header == 43 || next_header == 44 || next_header == 51 ||
         next_header == 60;
}

}  // namespace

FilterVerdict Evaluation::Run(std::span<const uint32_t> base_chains) {
  for (const uint32_t chain : base_chains) {
    if (RunBaseChain(chain)) break;
  }
  return result_;
}

bool Evaluation::Finish(FilterVerdict::Kind kind, uint32_t rule, uint32_t chain) {
  result_.kind = kind;
  result_.rule = rule;
  result_.chain = chain;
  return kind != FilterVerdict::Kind::kAccept;
}

// Only packets that XDP can have judged: see JudgedEarly. A run for explain shows all rules.
void Evaluation::FindLeftOut() {
  if (hook_ != HookPoint::kIngress && hook_ != HookPoint::kPreroutingRaw) return;
  if (context_.in == nullptr) return;
  const packet::Packet& p = context_.p;
  tables::EarlyPacketForm form;
  form.ipv4_fragment = is_v4() && (p.fragment_size != 0 || p.Has(packet::kFlagFragment));
  // A reassembled packet has lost the header that it came with.
  form.ipv6_extensions = is_v6() && (p.fragment_size != 0 || p.Has(packet::kFlagFragmentHeader) ||
                                     HasExtensions(p.l3()[6]));
  if (!JudgedEarly(form, false)) return;
  constexpr uint8_t kFamilies[] = {tables::kEarlyIpv4, tables::kEarlyIpv6, tables::kEarlyOther};
  left_out_family_ = kFamilies[family_slot_];
  left_out_mask_ = left_out_family_;
  if (!JudgedEarly(form, true)) left_out_mask_ |= tables::EarlyLeftOut::kWholePackets;
  const bool shown = context_.dry_run && context_.trace != nullptr;
  if (!shown) {
    left_out_ = context_.snapshot.left_out.get();
  } else if (path_ != nullptr) {
    early_shown_ = context_.snapshot.left_out.get();
  }
}

// Apart, so that what is hot stays small.
[[gnu::noinline, gnu::cold]] bool Evaluation::FinishForKernel() {
  if (path_ != nullptr) Vary(Variance::kKernel);
  return Finish(FilterVerdict::Kind::kKernel, rule_, chain_);
}

void Evaluation::LoadKeys(const tables::Classifier& index) {
  cursor_.Start(index);
  for (size_t d = 0; d < index.dimension_count(); ++d) {
    const Load& load = index.load(d);
    if (load.length <= 4) {
      uint32_t value;
      if (!Load32(load, value)) {
        cursor_.SetFailed(d);
        continue;
      }
      cursor_.Set(d, {0, uint64_t{__builtin_bswap32(value)} >> (32 - 8 * load.length)});
      continue;
    }
    alignas(8) uint8_t bytes[16] = {};
    if (!LoadTo(load, bytes)) {
      cursor_.SetFailed(d);
      continue;
    }
    LoadValue value{LoadBe64(bytes), LoadBe64(bytes + 8)};
    // Right-aligned: a number of load.length bytes.
    const uint32_t shift = 8u * (16u - load.length);
    if (shift >= 64) {
      value = {0, value.hi >> (shift - 64)};
    } else if (shift > 0) {
      value = {value.hi >> shift, value.lo >> shift | value.hi << (64 - shift)};
    }
    cursor_.Set(d, value);
  }
}

// The first rules are tried before an index is asked: rulesets begin with what decides about most
// packets (`ct state established accept`), which then costs no loading of keys.
constexpr uint32_t kWalkedRules = 2;

// nft_do_chain.
bool Evaluation::RunBaseChain(uint32_t base) {
  struct Frame {
    uint32_t chain;
    uint32_t next;  // rule to go on with
  };
  std::array<Frame, tables::kJumpDepth> stack;
  size_t depth = 0;
  chain_ = base;
  const ChainInfo* chain = &program_.chains[base];
  uint32_t next = 0;
  const tables::Classifier* index = chain->index.get();
  bool keys_loaded = false;
  TraceSink* const trace = context_.trace;
  if (trace != nullptr) trace->EnterChain(base);

  const auto enter = [&](uint32_t id, uint32_t at) {
    chain_ = id;
    chain = &program_.chains[id];
    index = chain->index.get();
    next = at;
    keys_loaded = false;
  };
  for (;;) {
    Step step = Step::kBreak;
    if (index != nullptr && next >= kWalkedRules) {
      if (!keys_loaded) {
        LoadKeys(*index);
        if (path_ != nullptr) IgnoreVaryingKeys(*index);
        keys_loaded = true;
      }
      next = cursor_.Next(next);
    }
    if (next < chain->rule_count) {
      rule_ = chain->first_rule + next++;
      const bool left_out = left_out_ != nullptr && LeftOut(left_out_->rules[rule_]);
      if (context_.take_back ? !left_out && family_slot_ != 2 : left_out) continue;
      const uint32_t before = modifications_;
      step = Observes() ? ExecuteObserved(program_.first_ops[rule_])
                        : Execute(program_.first_ops[rule_]);
      if (before != modifications_) keys_loaded = false;
      if (step == Step::kBreak) continue;
      if (trace != nullptr) trace->RuleMatched(rule_);
      if (step == Step::kNext) continue;
    } else {
      code_ = kReturn;
    }
    switch (code_) {
      case kAccept:
        return Finish(FilterVerdict::Kind::kAccept, rule_, chain_);
      case kDrop:
        return Finish(FilterVerdict::Kind::kDrop, rule_, chain_);
      case kFinal:
        return Finish(result_.kind, rule_, chain_);
      case kJump:
        if (depth == stack.size()) return Finish(FilterVerdict::Kind::kDrop, rule_, chain_);
        stack[depth++] = {chain_, next};
        [[fallthrough]];
      case kGoto:
        // A set is as old as its Ruleset, so the chain is there; what is not is the kernel's.
        if (target_ >= program_.chains.size() || program_.chains[target_].table_family == 0) {
          return FinishForKernel();
        }
        enter(target_, 0);
        if (trace != nullptr) trace->EnterChain(target_);
        continue;
      case kReturn:
        if (trace != nullptr) trace->LeaveChain(chain_);
        if (depth == 0) {
          const bool drop = program_.chains[base].policy_drop &&
                            (left_out_ == nullptr || !LeftOut(left_out_->policies[base]));
          if (trace != nullptr) trace->PolicyApplied(base, !drop);
          return Finish(drop ? FilterVerdict::Kind::kDrop : FilterVerdict::Kind::kAccept, kNoRule,
                        base);
        }
        --depth;
        enter(stack[depth].chain, stack[depth].next);
        continue;
      case kContinue:
        continue;
      default:  // queue, stolen, what is unsupported
        return FinishForKernel();
    }
  }
}

}  // namespace sluice::stages
