// Joins Ops that belong together: a load, a mask and a comparison become one, and a test of the
// protocol is folded into the test of a port that follows it.
#ifndef SLUICE_CONTROL_RULESET_FUSE_H_
#define SLUICE_CONTROL_RULESET_FUSE_H_

#include <vector>

#include "tables/ruleset/program.h"

namespace sluice::control {

// `constants` are the program's; masks may be added.
std::vector<tables::Op> Fuse(const std::vector<tables::Op>& ops,
                             std::vector<std::array<uint8_t, 16>>& constants);

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_FUSE_H_
