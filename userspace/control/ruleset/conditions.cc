#include "control/ruleset/conditions.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <optional>

namespace sluice::control {

using tables::CmpOp;
using tables::ElementSet;
using tables::Load;
using tables::LoadValue;
using tables::Op;
using tables::OpCode;
using tables::Source;
using tables::ValueInterval;

namespace {

using Intervals = std::vector<ValueInterval>;

constexpr size_t kMaxElements = 4096;  // of a set, per rule

LoadValue MaxOf(uint8_t length) {
  if (length >= 16) return {~uint64_t{0}, ~uint64_t{0}};
  if (length > 8) return {(uint64_t{1} << (8 * (length - 8))) - 1, ~uint64_t{0}};
  return {0, length == 8 ? ~uint64_t{0} : (uint64_t{1} << (8 * length)) - 1};
}

LoadValue Plus1(LoadValue v) {
  if (++v.lo == 0) ++v.hi;
  return v;
}
LoadValue Minus1(LoadValue v) {
  if (v.lo-- == 0) --v.hi;
  return v;
}

// `count` bytes, then `fill` up to `length`, as a number.
LoadValue Number(const uint8_t* bytes, size_t count, uint8_t fill, size_t length) {
  LoadValue value;
  for (size_t i = 0; i < length; ++i) {
    value.hi = value.hi << 8 | value.lo >> 56;
    value.lo = value.lo << 8 | (i < count ? bytes[i] : fill);
  }
  return value;
}

void Sort(Intervals& intervals) {
  std::sort(intervals.begin(), intervals.end(),
            [](const auto& a, const auto& b) { return a.first < b.first; });
  size_t kept = 0;
  for (const ValueInterval& i : intervals) {
    if (kept > 0 && i.first <= intervals[kept - 1].last) {
      intervals[kept - 1].last = std::max(intervals[kept - 1].last, i.last);
    } else {
      intervals[kept++] = i;
    }
  }
  intervals.resize(kept);
}

Intervals Complement(const Intervals& sorted, const LoadValue& max) {
  Intervals out;
  LoadValue from;
  bool open = true;
  for (const ValueInterval& i : sorted) {
    if (i.first > from) out.push_back({from, Minus1(i.first)});
    if (i.last >= max) {
      open = false;
      break;
    }
    from = Plus1(i.last);
  }
  if (open) out.push_back({from, max});
  return out;
}

Intervals Intersect(const Intervals& a, const Intervals& b) {
  Intervals out;
  for (size_t i = 0, k = 0; i < a.size() && k < b.size();) {
    const LoadValue first = std::max(a[i].first, b[k].first);
    const LoadValue last = std::min(a[i].last, b[k].last);
    if (first <= last) out.push_back({first, last});
    a[i].last < b[k].last ? ++i : ++k;
  }
  return out;
}

// What a register holds.
struct Value {
  Load load;
  bool masked = false;
  std::array<uint8_t, 16> mask{};
};

bool CanBeDimension(const Load& load) {
  if (load.length == 0 || load.length > 16) return false;
  if (load.source == Source::kMeta) {
    switch (load.key) {
      case tables::kMetaMark:
      case tables::kMetaIif:
      case tables::kMetaOif:
      case tables::kMetaIifName:
      case tables::kMetaOifName:
      case tables::kMetaNfProto:
      case tables::kMetaL4Proto:
      case tables::kMetaProtocol:
      case tables::kMetaPktType:
      case tables::kMetaLength:
        return true;
      default:
        return false;
    }
  }
  if (load.source == Source::kCt) {
    return load.key == tables::kCtState || load.key == tables::kCtMark ||
           load.key == tables::kCtDirection;
  }
  return true;
}

class Analysis {
 public:
  Analysis(const std::vector<std::array<uint8_t, 16>>& constants, const FactsOfSet& sets)
      : constants_(constants), sets_(sets) {}

  // False: the rule has an effect here.
  bool Visit(const Op& op) {
    switch (op.code) {
      case OpCode::kLoad:
        Forget(op.dreg, op.load.length);
        registers_[op.dreg] = Value{op.load};
        return true;
      case OpCode::kBitwise:
        Mask(op);
        return true;
      case OpCode::kImmediate:
      case OpCode::kShift:
      case OpCode::kByteorder:
      case OpCode::kExthdr:
      case OpCode::kRt:
      case OpCode::kFib:
        Forget(op.dreg, std::max<size_t>(op.length, 4));
        return true;
      case OpCode::kCmp:
        Compare(op);
        return true;
      case OpCode::kRange:
        InRange(op);
        return true;
      case OpCode::kLookup:
      case OpCode::kLookupVerdict:
        return Lookup(op);
      default:
        return false;
    }
  }

  std::vector<LoadCondition> Take() { return std::move(conditions_); }

 private:
  void Forget(uint8_t unit, size_t bytes) {
    for (size_t i = 0; i < (bytes + 3) / 4; ++i) registers_[unit + i].reset();
  }

  const Value* At(uint8_t unit) const {
    return registers_[unit] ? &*registers_[unit] : nullptr;
  }

  void Mask(const Op& op) {
    const auto value = registers_[op.sreg];
    Forget(op.dreg, op.length);
    const auto& flip = constants_[op.b];
    const bool plain = std::all_of(flip.begin(), flip.end(), [](uint8_t b) { return b == 0; });
    if (!value || value->masked || !plain || op.length != value->load.length) return;
    registers_[op.dreg] = Value{value->load, true, constants_[op.a]};
  }

  void Add(const Load& load, Intervals intervals) {
    if (!CanBeDimension(load)) return;
    for (LoadCondition& c : conditions_) {
      if (c.load != load) continue;
      c.intervals = Intersect(c.intervals, intervals);
      return;
    }
    conditions_.push_back({load, std::move(intervals)});
  }

  // The values that (value & mask) compares with `wanted` as `op` says, when there are few enough.
  bool Enumerate(const Value& value, CmpOp op, const uint8_t* wanted) {
    const auto passes = [&](const uint8_t* bytes, size_t length) {
      std::array<uint8_t, 4> masked{};
      for (size_t i = 0; i < length; ++i) masked[i] = bytes[i] & value.mask[i];
      const bool same = std::memcmp(masked.data(), wanted, length) == 0;
      return same == (op == CmpOp::kEqual);
    };
    Intervals intervals;
    const auto point = [&](const uint8_t* bytes, size_t length) {
      const LoadValue v = Number(bytes, length, 0, length);
      intervals.push_back({v, v});
    };
    if (value.load.source == Source::kCt && value.load.key == tables::kCtState) {
      for (const uint8_t state : {1, 2, 4, 8, 64}) {  // what NF_CT_STATE bits there are
        const uint8_t bytes[4] = {state};
        if (passes(bytes, 4)) point(bytes, 4);
      }
    } else if (value.load.length == 1) {
      for (uint32_t v = 0; v < 256; ++v) {
        const auto byte = static_cast<uint8_t>(v);
        if (passes(&byte, 1)) point(&byte, 1);
      }
    } else {
      return false;
    }
    Sort(intervals);
    Add(value.load, std::move(intervals));
    return true;
  }

  // Whether the mask is ones, then zeros, as the number is written.
  static bool IsPrefix(const Value& value) {
    bool zeros = false;
    for (size_t i = 0; i < value.load.length; ++i) {
      const uint8_t m = value.mask[i];
      if (zeros && m != 0) return false;
      if (m == 0xff) continue;
      if (std::popcount(static_cast<uint8_t>(~m)) != std::countr_zero(m) && m != 0) return false;
      zeros = true;
    }
    return true;
  }

  void Compare(const Op& op) {
    const Value* value = At(op.sreg);
    if (value == nullptr || op.length > value->load.length) return;
    const auto cmp = static_cast<CmpOp>(op.kind);
    const uint8_t* wanted = constants_[op.a].data();
    const uint8_t length = value->load.length;
    const LoadValue max = MaxOf(length);
    if (value->masked) {
      if ((cmp != CmpOp::kEqual && cmp != CmpOp::kNotEqual) || op.length != length) return;
      if (Enumerate(*value, cmp, wanted) || !IsPrefix(*value)) return;
      Intervals intervals;
      LoadValue first = Number(wanted, length, 0, length);
      const LoadValue mask = Number(value->mask.data(), length, 0, length);
      if ((first.hi & ~mask.hi) == 0 && (first.lo & ~mask.lo) == 0) {
        intervals.push_back({first,
                             {first.hi | (~mask.hi & max.hi), first.lo | (~mask.lo & max.lo)}});
      }
      if (cmp == CmpOp::kNotEqual) intervals = Complement(intervals, max);
      return Add(value->load, std::move(intervals));
    }
    // Bytes behind the comparison's length may be anything.
    const LoadValue low = Number(wanted, op.length, 0, length);
    const LoadValue high = Number(wanted, op.length, 0xff, length);
    Intervals intervals;
    switch (cmp) {
      case CmpOp::kEqual:
        intervals = {{low, high}};
        break;
      case CmpOp::kNotEqual:
        intervals = Complement({{low, high}}, max);
        break;
      case CmpOp::kLess:
        if (low != LoadValue{}) intervals = {{LoadValue{}, Minus1(low)}};
        break;
      case CmpOp::kLessOrEqual:
        intervals = {{LoadValue{}, high}};
        break;
      case CmpOp::kGreater:
        if (high != max) intervals = {{Plus1(high), max}};
        break;
      case CmpOp::kGreaterOrEqual:
        intervals = {{low, max}};
        break;
    }
    Add(value->load, std::move(intervals));
  }

  void InRange(const Op& op) {
    const Value* value = At(op.sreg);
    if (value == nullptr || value->masked || op.length != value->load.length) return;
    Intervals intervals;
    const LoadValue from = Number(constants_[op.a].data(), op.length, 0, op.length);
    const LoadValue to = Number(constants_[op.b].data(), op.length, 0, op.length);
    if (from <= to) intervals.push_back({from, to});
    if (op.kind != 0) intervals = Complement(intervals, MaxOf(op.length));
    Add(value->load, std::move(intervals));
  }

  // False when what follows need not be passed, or the lookup itself has an effect.
  bool Lookup(const Op& op) {
    const SetFacts facts = sets_(op.set);
    const ElementSet* set = facts.constant;
    const bool writes = op.code == OpCode::kLookup && op.dreg != tables::kNoUnit;
    if (facts.effects) return false;
    if (set != nullptr && set->catchall() == nullptr && set->size() <= kMaxElements) {
      const size_t units = (set->shape().key_length + 3u) / 4;
      for (size_t u = 0; u < units;) {
        const Value* value = At(static_cast<uint8_t>(op.sreg + u));
        if (value == nullptr) {
          ++u;
          continue;
        }
        Project(*value, *set, 4 * u, op.flags != 0);
        u += (value->load.length + 3u) / 4;
      }
    }
    if (writes) Forget(op.dreg, op.length);
    return op.code != OpCode::kLookupVerdict;  // an element's verdict ends the rule
  }

  // The condition that the set has for the load at byte `at` of the key.
  void Project(const Value& value, const ElementSet& set, size_t at, bool inverted) {
    const uint8_t length = value.load.length;
    const size_t key_length = set.shape().key_length;
    if (value.masked || at + length > key_length) return;
    const bool whole = at == 0 && length == key_length;
    if (inverted && !whole) return;
    // Without further fields an interval set is this load's; with them only boxes are, by field.
    if (set.shape().kind == tables::SetKind::kInterval && !whole) return;
    if (set.shape().kind == tables::SetKind::kBoxes && !IsField(set, at, length)) return;
    Intervals intervals;
    set.ForEach([&](std::span<const uint8_t> key, std::span<const uint8_t> end, const uint8_t*) {
      intervals.push_back(
          {Number(key.data() + at, length, 0, length),
           Number((end.empty() ? key : end).data() + at, length, 0, length)});
    });
    Sort(intervals);
    if (inverted) intervals = Complement(intervals, MaxOf(length));
    Add(value.load, std::move(intervals));
  }

  static bool IsField(const ElementSet& set, size_t at, size_t length) {
    size_t start = 0;
    for (const uint8_t field : set.shape().fields) {
      if (start == at) return field == length;
      start += (field + 3u) / 4 * 4;
    }
    return false;
  }

  const std::vector<std::array<uint8_t, 16>>& constants_;
  const FactsOfSet& sets_;
  std::array<std::optional<Value>, 2 * tables::kRegisterUnits> registers_;
  std::vector<LoadCondition> conditions_;
};

}  // namespace

std::vector<LoadCondition> FindConditions(const std::vector<Op>& ops,
                                          const std::vector<std::array<uint8_t, 16>>& constants,
                                          const FactsOfSet& facts_of_set) {
  Analysis analysis(constants, facts_of_set);
  for (const Op& op : ops) {
    if (!analysis.Visit(op)) break;
  }
  return analysis.Take();
}

}  // namespace sluice::control
