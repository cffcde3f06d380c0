// Which rules of the published ruleset XDP has applied to packets before a worker sees them, so
// that the worker leaves them out: see early_program.h for what that wants of a change. Published
// in the snapshot together with the ruleset whose indexes it uses.
//
// Immutable once published. Any thread; a byte per rule and chain.
#ifndef SLUICE_TABLES_EARLY_LEFT_OUT_H_
#define SLUICE_TABLES_EARLY_LEFT_OUT_H_

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tables/early_program.h"

namespace sluice::tables {

struct EarlyLeftOut {
  // Beside the families (EarlyFamily): not of fragments.
  static constexpr uint8_t kWholePackets = 0x80;

  std::vector<uint8_t> rules;     // by rule
  std::vector<uint8_t> policies;  // by chain: its policy of drop

  bool rule(uint32_t index) const { return index < rules.size() && rules[index] != 0; }
  bool policy(uint32_t index) const { return index < policies.size() && policies[index] != 0; }
};

}  // namespace sluice::tables

#endif  // SLUICE_TABLES_EARLY_LEFT_OUT_H_
