// What an nftables set looks like to ElementSet, and which tables Sluice serves.
#ifndef SLUICE_CONTROL_RULESET_SET_SHAPE_H_
#define SLUICE_CONTROL_RULESET_SET_SHAPE_H_

#include "control/nft/model.h"
#include "tables/ruleset/element_set.h"

namespace sluice::control {

enum SetFlag : uint32_t {  // NFT_SET_*
  kSetAnonymous = 1,
  kSetConstant = 2,
  kSetInterval = 4,
  kSetMap = 8,
  kSetTimeout = 0x10,
  kSetEval = 0x20,
  kSetObject = 0x40,
  kSetConcat = 0x80,
  kSetExpr = 0x100,
};

// A function of the set's definition (not of its elements), so that elements can come and go.
tables::SetShape ShapeOf(const nft::Set& set);

inline bool IsServed(nft::TableFamily family) {
  return family == nft::TableFamily::kInet || family == nft::TableFamily::kIp ||
         family == nft::TableFamily::kIp6 || family == nft::TableFamily::kNetdev;
}

}  // namespace sluice::control

#endif  // SLUICE_CONTROL_RULESET_SET_SHAPE_H_
