#include "control/ruleset/set_shape.h"

#include <algorithm>

#include "control/ruleset/keys.h"

namespace sluice::control {

tables::SetShape ShapeOf(const nft::Set& set) {
  tables::SetShape shape;
  constexpr uint32_t kMax = tables::ElementSet::kMaxKey;
  shape.key_length = static_cast<uint8_t>(std::min(set.key_length, kMax));
  if ((set.flags & kSetInterval) != 0) {
    shape.kind = set.field_lengths.size() > 1 ? tables::SetKind::kBoxes
                                              : tables::SetKind::kInterval;
  }
  if (shape.kind == tables::SetKind::kBoxes) shape.fields = set.field_lengths;
  if ((set.flags & kSetMap) != 0) {
    shape.data_length = set.data_type == kVerdictType
                            ? sizeof(tables::SetVerdict)
                            : static_cast<uint8_t>(std::min(set.data_length, kMax));
  }
  shape.timed = (set.flags & kSetTimeout) != 0;
  // Elements of any named set may have statements when the set was declared with them.
  shape.stateful = (set.flags & (kSetObject | kSetEval | kSetExpr)) != 0 || !set.exprs.empty();
  return shape;
}

}  // namespace sluice::control
