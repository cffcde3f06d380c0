#include "io/af_xdp/early_core.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <optional>
#include <set>

namespace sluice::io::af_xdp {

using tables::EarlyBytes;
using tables::EarlyProgram;
using tables::EarlyRule;
using tables::EarlyTerm;

namespace {

constexpr size_t kMaxSets = 64;

const std::vector<EarlyTerm>& Terms(const EarlyRule& rule, int dimension) {
  switch (dimension) {
    case SLUICE_EARLY_SRC4:
      return rule.addresses4[tables::kEarlySource];
    case SLUICE_EARLY_DST4:
      return rule.addresses4[tables::kEarlyDestination];
    case SLUICE_EARLY_SRC6:
      return rule.addresses6[tables::kEarlySource];
    default:
      return rule.addresses6[tables::kEarlyDestination];
  }
}

template <typename Set>
std::vector<Set> UsedSets(const EarlyProgram& program, const std::vector<Set>& sets,
                          int dimension) {
  std::vector<Set> used(sets.size());
  for (const EarlyRule& rule : program.rules) {
    for (const EarlyTerm& term : Terms(rule, dimension)) used[term.set] = sets[term.set];
  }
  return used;
}

bool Satisfied(const std::vector<EarlyTerm>& terms, uint64_t sets) {
  return std::all_of(terms.begin(), terms.end(), [&](const EarlyTerm& term) {
    return ((sets >> term.set & 1) != 0) != term.inverted;
  });
}

bool HasL4Terms(const EarlyRule& rule) {
  return rule.byte0 || rule.byte1 || rule.tcp_flags || !rule.ports[0].empty() ||
         !rule.ports[1].empty();
}

// For each value the rules whose condition it satisfies.
void FillBytes(const EarlyProgram& program, std::optional<EarlyBytes> EarlyRule::*member,
               __u64* rules, __u64* without) {
  for (size_t i = 0; i < program.rules.size(); ++i) {
    const std::optional<EarlyBytes>& condition = program.rules[i].*member;
    const uint64_t bit = uint64_t{1} << i;
    for (size_t v = 0; v < 256; ++v) {
      if (!condition || condition->test(v)) rules[v] |= bit;
    }
    if (!condition && without != nullptr) *without |= bit;
  }
}

void FillFragments(const EarlyProgram& program, sluice_early_core& core) {
  for (size_t i = 0; i < program.rules.size(); ++i) {
    const EarlyRule& rule = program.rules[i];
    for (size_t form = 0; form < 16; ++form) {
      const bool is_fragment = (form & 3) != 0;
      if (rule.whole_packets && is_fragment) continue;
      if (rule.fragment && !rule.fragment->test(form)) continue;
      core.fragment_rules[form] |= uint64_t{1} << i;
    }
  }
}

absl::Status FillPorts(const EarlyProgram& program, size_t which, sluice_early_core& core) {
  // The values at which membership of any set changes.
  std::set<uint32_t> borders = {0, 65536};
  uint64_t used = 0;
  for (size_t i = 0; i < program.rules.size(); ++i) {
    const std::vector<EarlyTerm>& terms = program.rules[i].ports[which];
    if (terms.empty()) core.no_port[which] |= uint64_t{1} << i;
    for (const EarlyTerm& term : terms) used |= uint64_t{1} << term.set;
  }
  core.has_port[which] = used != 0;
  for (size_t s = 0; s < program.port_sets.size(); ++s) {
    if ((used >> s & 1) == 0) continue;
    for (const auto& range : program.port_sets[s]) {
      borders.insert(range.first);
      borders.insert(uint32_t{range.last} + 1);
    }
  }
  EarlyClasses classes;
  for (auto from = borders.begin(); std::next(from) != borders.end(); ++from) {
    uint64_t sets = 0;
    for (size_t s = 0; s < program.port_sets.size(); ++s) {
      const auto holds = [&](const auto& r) { return r.first <= *from && *from <= r.last; };
      if ((used >> s & 1) != 0 &&
          std::any_of(program.port_sets[s].begin(), program.port_sets[s].end(), holds)) {
        sets |= uint64_t{1} << s;
      }
    }
    const absl::StatusOr<uint8_t> number = classes.Get(sets);
    if (!number.ok()) return number.status();
    std::memset(core.port_classes[which] + *from, *number, *std::next(from) - *from);
  }
  for (size_t c = 0; c < classes.masks().size(); ++c) {
    for (size_t i = 0; i < program.rules.size(); ++i) {
      if (Satisfied(program.rules[i].ports[which], classes.masks()[c])) {
        core.port_rules[which][c] |= uint64_t{1} << i;
      }
    }
  }
  return absl::OkStatus();
}

uint8_t Action(tables::EarlyVerdict verdict) {
  switch (verdict) {
    case tables::EarlyVerdict::kDrop:
      return SLUICE_EARLY_DROP;
    case tables::EarlyVerdict::kEndOfChain:
      return SLUICE_EARLY_END_OF_CHAIN;
    case tables::EarlyVerdict::kContinue:
      break;
  }
  return SLUICE_EARLY_CONTINUE;
}

void FillRule(const EarlyProgram& program, const EarlySlots& slots, size_t i,
              sluice_early_core& core) {
  const EarlyRule& rule = program.rules[i];
  const uint64_t bit = uint64_t{1} << i;
  sluice_early_rule& out = core.rules[i];
  for (size_t later = i + 1; later < program.rules.size(); ++later) {
    if (program.rules[later].chain != rule.chain) out.rest |= uint64_t{1} << later;
  }
  out.action = Action(rule.verdict);
  out.count = rule.counter == tables::EarlyCounter::kBeforeLimit ? SLUICE_EARLY_COUNT_FIRST
                                                                 : SLUICE_EARLY_COUNT_LAST;
  out.slot = slots.counters[i];
  if (rule.limit) {
    out.cost_ns = rule.limit->cost_ns;
    out.depth_ns = rule.limit->depth_ns;
    out.limit = rule.limit->per_source ? SLUICE_EARLY_LIMIT_SOURCE : SLUICE_EARLY_LIMIT_RULE;
    out.over = rule.limit->over;
    out.bucket = slots.buckets[i];
  }
  const bool needs_ip = HasL4Terms(rule) || rule.protocol || rule.fragment;
  if ((rule.families & tables::kEarlyOther) != 0 && !needs_ip)
    core.family_rules[SLUICE_EARLY_OTHER] |= bit;
  if ((rule.families & tables::kEarlyIpv4) != 0) core.family_rules[SLUICE_EARLY_IPV4] |= bit;
  if ((rule.families & tables::kEarlyIpv6) != 0 && !rule.fragment)
    core.family_rules[SLUICE_EARLY_IPV6] |= bit;
  if (rule.ingress) core.ingress_rules |= bit;
  if (HasL4Terms(rule)) core.l4_rules |= bit;
}

}  // namespace

std::vector<tables::EarlySet4> EarlySets4(const EarlyProgram& program, int dimension) {
  return UsedSets(program, program.sets4, dimension);
}

std::vector<tables::EarlySet6> EarlySets6(const EarlyProgram& program, int dimension) {
  return UsedSets(program, program.sets6, dimension);
}

uint64_t EarlyAddressRules(const EarlyProgram& program, int dimension, uint64_t sets) {
  uint64_t rules = 0;
  for (size_t i = 0; i < program.rules.size(); ++i) {
    if (Satisfied(Terms(program.rules[i], dimension), sets)) rules |= uint64_t{1} << i;
  }
  return rules;
}

absl::Status FillEarlyCore(const EarlyProgram& program, const EarlySlots& slots,
                           const std::array<const EarlyClasses*, 4>& classes,
                           sluice_early_core& core) {
  if (program.rules.size() > EarlyProgram::kMaxRules || program.sets4.size() > kMaxSets ||
      program.sets6.size() > kMaxSets || program.port_sets.size() > kMaxSets) {
    return absl::ResourceExhaustedError("more than 64 rules or sets for the early filter");
  }
  std::memset(&core, 0, sizeof core);
  for (size_t i = 0; i < program.rules.size(); ++i) FillRule(program, slots, i, core);
  FillBytes(program, &EarlyRule::protocol, core.protocol_rules, nullptr);
  FillBytes(program, &EarlyRule::byte0, core.byte0_rules, &core.no_byte0);
  FillBytes(program, &EarlyRule::byte1, core.byte1_rules, &core.no_byte1);
  FillBytes(program, &EarlyRule::tcp_flags, core.flags_rules, &core.no_flags);
  FillFragments(program, core);
  for (size_t which : {0u, 1u}) {
    if (absl::Status s = FillPorts(program, which, core); !s.ok()) return s;
  }
  for (int d = 0; d < 4; ++d) {
    core.has_address[d] = std::any_of(program.rules.begin(), program.rules.end(),
                                      [&](const EarlyRule& r) { return !Terms(r, d).empty(); });
    if (classes[d] == nullptr) continue;
    const std::vector<uint64_t>& masks = classes[d]->masks();
    for (size_t c = 0; c < masks.size(); ++c) {
      core.address_rules[d][c] = EarlyAddressRules(program, d, masks[c]);
    }
  }
  return absl::OkStatus();
}

}  // namespace sluice::io::af_xdp
