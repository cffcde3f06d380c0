// One rule of nf_tables' byte code as an early rule, or the reason why it cannot be one.
//
// Registers are followed byte by byte: each byte is a constant (the arrival interface's name and
// number), a byte of a header, or unknown. A comparison is then cut into header fields, which is
// how nft itself merges and shortens them (two addresses in one load, the first three bytes for a
// /24). What can be expressed: equality of several fields at once, and any comparison, range, mask
// or set of one field. A field of one or two bytes is simply tried with all its values.
//
// Follows nft_cmp.c, nft_bitwise.c, nft_range.c, nft_lookup.c, nft_payload.c, nft_meta.c,
// nft_limit.c and nft_dynset.c.
//
// Thread: control. No state.
#ifndef SLUICE_CONTROL_EARLY_EARLY_RULE_H_
#define SLUICE_CONTROL_EARLY_EARLY_RULE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "base/time.h"
#include "control/early/early_sets.h"
#include "control/nft/model.h"
#include "tables/early_program.h"

namespace sluice::control {

struct EarlyInterface {
  std::string name;
  uint32_t index = 0;
};

// Where a rule stands.
struct EarlyContext {
  const nft::Table* table = nullptr;
  const EarlyInterface* interface = nullptr;
  bool ingress = false;
  uint32_t policy = 1;  // of the chain: what `return` means
  Nanos now;
  EarlySetCache* sets = nullptr;
  // Whether packets or rules change or use the set in a way that XDP would miss.
  std::function<bool(const nft::Set&)> is_dynamic;
  std::function<bool(const nft::Set&)>
      is_private_meter;  // of one rule, and nobody else looks at it
};

enum class EarlyOutcome : uint8_t { kRule, kNeverMatches, kNoEffect, kNotEarly };

struct EarlyTranslation {
  EarlyOutcome outcome = EarlyOutcome::kNotEarly;
  tables::EarlyRule rule;  // its terms index the program's sets
  // kNotEarly: which packets may have matched, and what it was.
  uint8_t families = tables::kEarlyAll;
  std::string remark;
};

// `families` are those that get to this rule. Sets are added to `program`, which keeps its rules.
EarlyTranslation TranslateRule(const nft::Rule& rule, const EarlyContext& context, uint8_t families,
                               tables::EarlyProgram& program);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_EARLY_EARLY_RULE_H_
