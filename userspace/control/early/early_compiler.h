// Which part of the kernel's ruleset XDP runs: an EarlyProgram for each interface.
//
// In the kernel's order of hooks, priorities and rules, from the first rule on: ingress chains of
// the netdev and inet families, then prerouting chains before connection tracking (type filter,
// priority below -200). Taken is the longest run of rules that early_rule.h can translate, of each
// address family: what comes after a rule that must run in user space does so too, even in another
// chain, as it must not count a packet that the earlier rule drops. Rules that cannot match on this
// interface are skipped, and do not end the run.
//
// A rule that accepts (or returns) is taken only when its whole chain is, since user space would
// not know that the chain is over. A policy of drop likewise. Of chains with equal priority the one
// made last is first, as in nf_hook_entries_grow; as nothing but counters and limits can tell, its
// place in the kernel's list counts as its age.
//
// A rule is in XDP on all interfaces on which it can match or on none, so that user space needs one
// mark for it (per family): what must stay behind on one interface stays behind on all.
//
// The result depends on the ruleset, the interface and, through elements that end, on time. The
// compiler remembers decoded sets only.
//
// Thread: control. Cost: each rule up to the first that stays behind, plus one walk through all
// rules when the structure has changed, plus each set that changed (see early_sets.h).
#ifndef SLUICE_CONTROL_EARLY_EARLY_COMPILER_H_
#define SLUICE_CONTROL_EARLY_EARLY_COMPILER_H_

#include <array>
#include <compare>
#include <cstdint>
#include <limits>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "base/time.h"
#include "control/early/early_rule.h"
#include "control/early/early_sets.h"
#include "control/nft/model.h"
#include "tables/early_program.h"

namespace sluice::control {

struct EarlyPrograms {
  std::vector<std::shared_ptr<const tables::EarlyProgram>> programs;  // by interface
  // An element ends then: compile again (nothing needs to have changed).
  Nanos valid_until = Nanos::Max();
};

class EarlyCompiler {
 public:
  // `change`: what is new in `ruleset` since the last call, or null when that is not known.
  EarlyPrograms Compile(const nft::Ruleset& ruleset, const nft::RulesetChange* change,
                        std::span<const EarlyInterface> interfaces, Nanos now);

 private:
  // How the rules of the whole ruleset use a set.
  struct Use {
    uint32_t updates = 0;  // by dynsets
    uint32_t lookups = 0;
  };
  // A place in the order in which packets meet rules, the same on all interfaces.
  struct Position {
    int stage = std::numeric_limits<int>::max();  // 0 ingress, 1 prerouting
    int32_t priority = 0;
    int64_t age = 0;
    size_t rule = 0;
    auto operator<=>(const Position&) const = default;
  };
  using Stops = std::array<Position, 3>;  // by family: where the first rule stays behind
  struct Draft {
    tables::EarlyProgram program;
    std::vector<Position> positions;  // of its rules
    Stops stops;
  };
  using SetName = std::tuple<nft::TableFamily, std::string, std::string>;

  void FindUses(const nft::Ruleset& ruleset);
  Draft CompileOne(const nft::Ruleset& ruleset, const EarlyInterface& interface, const Stops& stops,
                   Nanos now);
  static void CompileChain(const nft::Table& table, const nft::Chain& chain, Position position,
                           const EarlyContext& context, Draft& draft);
  static uint8_t Behind(const Stops& stops, const Position& position);
  static void Leave(size_t first, uint8_t families, const Position& position, Draft& draft);

  EarlySetCache sets_;
  std::map<SetName, Use> uses_;
};

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_COMPILER_H_
