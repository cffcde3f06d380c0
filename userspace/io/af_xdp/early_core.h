// An EarlyProgram as the words that bpf/include/early_filter.h reads, but for the tables of
// addresses: masks of rules by class, port, protocol and so on. Pure functions.
//
// Thread: any. Cost: 65536 ports and 256 values per rule: under a millisecond.
#ifndef SLUICE_IO_AF_XDP_EARLY_CORE_H_
#define SLUICE_IO_AF_XDP_EARLY_CORE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "bpf/include/early_abi.h"
#include "io/af_xdp/early_table4.h"
#include "tables/early_program.h"

namespace sluice::io::af_xdp {

// The sets that a dimension (SLUICE_EARLY_SRC4...) looks at, in the order of their bits in a class.
// Null pointers are sets of the program that it does not look at.
std::vector<tables::EarlySet4> EarlySets4(const tables::EarlyProgram& program, int dimension);
std::vector<tables::EarlySet6> EarlySets6(const tables::EarlyProgram& program, int dimension);

// The rules that an address of this class satisfies: bit i of `sets` says that set i holds it.
uint64_t EarlyAddressRules(const tables::EarlyProgram& program, int dimension, uint64_t sets);

struct EarlySlots {  // for each rule of the program
  std::vector<uint8_t> counters;
  std::vector<uint32_t> buckets;
};

// Fills all of `core` but the places of tables. `classes` are those of the four dimensions, as far
// as they are known.
absl::Status FillEarlyCore(const tables::EarlyProgram& program, const EarlySlots& slots,
                           const std::array<const EarlyClasses*, 4>& classes,
                           sluice_early_core& core);

}  // namespace sluice::io::af_xdp

#endif  // SLUICE_IO_AF_XDP_EARLY_CORE_H_
