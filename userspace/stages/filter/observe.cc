// What an evaluation notes for the flow tier: see flow_path.h.
//
// Each register has a twin with the bits that differ between packets of the flow. An Op is looked at
// before it is carried out: loads set those bits, arithmetic moves them, and a decision is tried with
// what they may be. Where the decision could come out either way, or an effect would differ,
// the path varies.
#include <algorithm>
#include <bit>

#include "stages/filter/evaluation.h"
#include "wire/protocol.h"

namespace sluice::stages {

using tables::CmpOp;
using tables::ElementSet;
using tables::Load;
using tables::NatOp;
using tables::Op;
using tables::OpCode;
using tables::StatefulExpr;
using tables::StatefulKind;

namespace {

constexpr size_t kMaxKey = ElementSet::kMaxKey;

size_t Whole(size_t bytes) { return (bytes + 3) / 4 * 4; }

bool AnyBit(const uint8_t* bytes, size_t length) {
  return std::any_of(bytes, bytes + length, [](uint8_t b) { return b != 0; });
}

// Whether exactly one bit varies: then two values are all there are.
bool IsOneBit(const uint8_t* bits, size_t length) {
  int count = 0;
  for (size_t i = 0; i < length; ++i) count += std::popcount(bits[i]);
  return count == 1;
}

// Whether (value & mask) == wanted comes out alike for all values of the varying bits.
bool EqualityIsFixed(const uint8_t* value, const uint8_t* varying, const uint8_t* mask,
                     const uint8_t* wanted, size_t length) {
  bool open = false;
  for (size_t i = 0; i < length; ++i) {
    const uint8_t unknown = varying[i] & mask[i];
    // They differ in a bit that is known.
    if ((((value[i] & mask[i]) ^ wanted[i]) & ~unknown) != 0) return true;
    open = open || unknown != 0;
  }
  return !open;
}

// The smallest and the largest of the values, as memcmp orders.
struct Bounds {
  Bounds(const uint8_t* value, const uint8_t* varying, size_t length)
      : one_bit(IsOneBit(varying, length)) {
    for (size_t i = 0; i < length; ++i) {
      low[i] = value[i] & ~varying[i];
      high[i] = value[i] | varying[i];
    }
  }
  std::array<uint8_t, kMaxKey> low;
  std::array<uint8_t, kMaxKey> high;
  const bool one_bit;  // there is none between
};

bool RangeIsFixed(const Bounds& value, const uint8_t* from, const uint8_t* to, size_t length) {
  const auto inside = [&](const auto& v) {
    return std::memcmp(v.data(), from, length) >= 0 && std::memcmp(v.data(), to, length) <= 0;
  };
  const bool low = inside(value.low);
  if (low != inside(value.high)) return false;
  return low || value.one_bit || std::memcmp(value.high.data(), from, length) < 0 ||
         std::memcmp(value.low.data(), to, length) > 0;
}

Variance VarianceOf(StatefulKind kind) {
  switch (kind) {
    case StatefulKind::kLimit:
      return Variance::kLimit;
    case StatefulKind::kQuota:
      return Variance::kQuota;
    case StatefulKind::kConnections:
      return Variance::kConnectionLimit;
    case StatefulKind::kCounter:
    case StatefulKind::kLast:
      return Variance::kLast;
  }
  return Variance::kLast;
}

}  // namespace

// Apart, as it is seldom called and would be in the way where packets begin.
[[gnu::noinline, gnu::cold]] void Evaluation::BeginToObserve() {
  early_shown_ = nullptr;
  if (!context_.path->varies()) {
    path_ = context_.path;
    varying_.fill(0);
    varying_reason_ = Variance::kHeaderField;
    priority_reason_ = Variance::kHeaderField;
    const bool by_tos = is_v4() && context_.in != nullptr && AfterForwarding(hook_);
    priority_varying_ = by_tos ? 7 : 0;
  }
  if (context_.snapshot.left_out != nullptr) FindLeftOut();
}

// --- Decisions ---

void Evaluation::ObserveTest(const Op& op) {
  alignas(8) uint8_t varying[16];
  alignas(8) uint8_t value[16] = {};
  const size_t length = op.load.length;
  switch (VaryingBits(op.load, varying)) {
    case Known::kAll:
      return;
    case Known::kPresenceVaries:
      return Vary(Variance::kPayload);
    case Known::kSome:
      break;
  }
  if (!LoadTo(op.load, value)) return;
  bool fixed;
  if (op.code == OpCode::kTestBytes || op.code == OpCode::kTestNotBytes) {
    fixed = EqualityIsFixed(value, varying, Constant(op.a), Constant(op.b), length);
  } else if (op.code == OpCode::kTestRange || op.code == OpCode::kTestNotRange) {
    const uint32_t from = __builtin_bswap32(op.a << (32 - 8 * length));
    const uint32_t to = __builtin_bswap32(op.b << (32 - 8 * length));
    fixed = RangeIsFixed(Bounds(value, varying, length), reinterpret_cast<const uint8_t*>(&from),
                         reinterpret_cast<const uint8_t*>(&to), length);
  } else {
    fixed = EqualityIsFixed(value, varying, reinterpret_cast<const uint8_t*>(&op.a),
                            reinterpret_cast<const uint8_t*>(&op.b), sizeof op.a);
  }
  if (!fixed) Vary(ReasonOf(op.load));
}

void Evaluation::ObserveLoad(const Op& op) {
  switch (VaryingBits(op.load, VaryingBytes(op.dreg))) {
    case Known::kAll:
      return;
    case Known::kSome:
      varying_reason_ = ReasonOf(op.load);
      return;
    case Known::kPresenceVaries:
      return Vary(Variance::kPayload);
  }
}

void Evaluation::ObserveBitwise(const Op& op) {
  uint32_t mask[4];
  std::memcpy(mask, Constant(op.a), sizeof mask);
  for (size_t i = 0; i < (op.length + 3u) / 4; ++i) {
    varying_[op.dreg + i] = varying_[op.sreg + i] & mask[i];
  }
}

void Evaluation::ObserveCmp(const Op& op) {
  const uint8_t* const varying = VaryingBytes(op.sreg);
  if (!AnyBit(varying, op.length)) return;
  const auto cmp = static_cast<CmpOp>(op.kind);
  const uint8_t* const wanted = Constant(op.a);
  bool fixed;
  if (cmp == CmpOp::kEqual || cmp == CmpOp::kNotEqual) {
    std::array<uint8_t, kMaxKey> mask;
    mask.fill(0xff);
    fixed = EqualityIsFixed(Reg(op.sreg), varying, mask.data(), wanted, op.length);
  } else {
    // Smaller or larger: what the least and the greatest say, all say.
    const Bounds bounds(Reg(op.sreg), varying, op.length);
    const int low = std::memcmp(bounds.low.data(), wanted, op.length);
    const int high = std::memcmp(bounds.high.data(), wanted, op.length);
    fixed = cmp == CmpOp::kLess || cmp == CmpOp::kGreaterOrEqual ? (low < 0) == (high < 0)
                                                                  : (low > 0) == (high > 0);
  }
  if (!fixed) Vary(varying_reason_);
}

void Evaluation::ObserveRange(const Op& op) {
  const uint8_t* const varying = VaryingBytes(op.sreg);
  if (!AnyBit(varying, op.length)) return;
  const Bounds bounds(Reg(op.sreg), varying, op.length);
  if (!RangeIsFixed(bounds, Constant(op.a), Constant(op.b), op.length)) Vary(varying_reason_);
}

bool Evaluation::ObserveInput(uint8_t unit, size_t bytes) {
  if (!AnyBit(VaryingBytes(unit), bytes)) return true;
  Vary(varying_reason_);
  return false;
}

// --- Sets and state ---

void Evaluation::ObserveLookup(const Op& op) {
  if (ruleset_.dynamic(op.set) != nullptr) return Vary(Variance::kDynamicSet);
  const ElementSet& elements = ruleset_.set(op.set);
  const size_t key_length = elements.shape().key_length;
  const Found found = FindElement(op.set, Reg(op.sreg));
  const auto ends = [&](const Found& f) {
    return f.found && elements.Expires(f.data) != Nanos();
  };
  // An element that is not there, or no more, does not come without another ruleset.
  if (ends(found)) return Vary(Variance::kTimedElement);
  const uint8_t* const varying = VaryingBytes(op.sreg);
  if (AnyBit(varying, key_length)) {
    if (!IsOneBit(varying, key_length)) return Vary(varying_reason_);
    alignas(4) uint8_t other_key[kMaxKey];
    std::memcpy(other_key, Reg(op.sreg), Whole(key_length));
    for (size_t i = 0; i < key_length; ++i) other_key[i] ^= varying[i];
    const Found other = FindElement(op.set, other_key);
    const bool alike =
        found.found == other.found && !ends(other) &&
        (!found.found ||
         (found.state == other.state &&
          std::memcmp(found.data, other.data, elements.shape().data_length) == 0));
    if (!alike) return Vary(varying_reason_);
  }
  if (op.code != OpCode::kObjectMap && op.flags != 0) return;  // inverted: it ends the rule
  if (op.code == OpCode::kLookup && op.dreg != tables::kNoUnit) SetFixed(op.dreg, op.length);
  if (found.state == nullptr) return;
  for (const StatefulExpr& expr : found.state->exprs) {
    ObserveStateful(expr);
    if (path_ == nullptr) return;
  }
}

void Evaluation::ObserveStateful(const StatefulExpr& expr) {
  if (expr.kind == StatefulKind::kCounter) return ObserveCell(expr.cell);
  Vary(VarianceOf(expr.kind));
}

void Evaluation::ObserveCell(tables::StateCell* cell) {
  if (!path_->AddCell(tables::WorkerCell(cell, worker_))) Vary(Variance::kManyCounters);
}

void Evaluation::ObserveRoute(const IpAddress& address) {
  if (!path_->AddRoute(address)) Vary(Variance::kManyRoutes);
}

void Evaluation::ObserveSet(const Op& op) {
  if (op.code == OpCode::kMetaSet && op.kind == tables::kMetaPriority) {
    priority_varying_ = varying_[op.sreg];
    priority_reason_ = varying_reason_;
    return;
  }
  if (op.code == OpCode::kCtSet && context_.flow == nullptr) return;
  if (!ObserveInput(op.sreg, 4)) return;
  // The next packet finds another mark than this one.
  if (op.code == OpCode::kCtSet && registers_[op.sreg] != ct_mark_) Vary(Variance::kConnectionMark);
}

void Evaluation::ObserveNat(const Op& op) {
  const NatOp& nat = program_.nats[op.a];
  const size_t address = is_v4() ? 4 : 16;
  for (const uint8_t unit : {nat.address_min, nat.address_max}) {
    if (unit != tables::kNoUnit && !ObserveInput(unit, address)) return;
  }
  for (const uint8_t unit : {nat.port_min, nat.port_max}) {
    if (unit != tables::kNoUnit && !ObserveInput(unit, 2)) return;
  }
}

void Evaluation::Observe(const Op& op) {
  switch (op.code) {
    case OpCode::kEnd:
    case OpCode::kVerdict:
    case OpCode::kNotrack:
    case OpCode::kNothing:
    case OpCode::kUnsupported:  // FinishForKernel
      return;
    case OpCode::kTestProtocolEqual:
      if (!has_l4_ || context_.p.l4_protocol != op.kind2) return;
      return ObserveTest(op);
    case OpCode::kTestEqual:
    case OpCode::kTestNotEqual:
    case OpCode::kTestRange:
    case OpCode::kTestNotRange:
    case OpCode::kTestBytes:
    case OpCode::kTestNotBytes:
      return ObserveTest(op);
    case OpCode::kLoad:
      return ObserveLoad(op);
    case OpCode::kImmediate:
      return SetFixed(op.dreg, op.length);
    case OpCode::kCmp:
      return ObserveCmp(op);
    case OpCode::kRange:
      return ObserveRange(op);
    case OpCode::kBitwise:
      return ObserveBitwise(op);
    case OpCode::kShift:
      return Shift(op, varying_);
    case OpCode::kByteorder:
      return Byteorder(op, varying_);
    case OpCode::kExthdr:
      return ObserveExthdr(op);
    case OpCode::kPayloadSet:
      return Vary(Variance::kWrite);
    case OpCode::kExthdrSet:
    case OpCode::kExthdrStrip:
      // Without a TCP header it ends the rule.
      if (context_.p.l4_protocol == wire::kProtocolTcp) Vary(Variance::kWrite);
      return;
    case OpCode::kMetaSet:
    case OpCode::kCtSet:
      return ObserveSet(op);
    case OpCode::kRt:
    case OpCode::kFib:
      return ObserveRoutes(op);
    case OpCode::kLookup:
    case OpCode::kLookupVerdict:
    case OpCode::kObjectMap:
      return ObserveLookup(op);
    case OpCode::kDynset:
      return Vary(Variance::kDynamicSet);
    case OpCode::kLimit:
    case OpCode::kStateful:
      return ObserveStateful(program_.stateful[op.a]);
    case OpCode::kCounter:
      return ObserveCell(op.cell);
    case OpCode::kLog:
      return Vary(Variance::kLog);
    case OpCode::kReject:
      return Vary(Variance::kReject);
    case OpCode::kNat:
      return ObserveNat(op);
    case OpCode::kNumgen:
      return Vary(Variance::kRandom);
    case OpCode::kHash:
      // symhash is one of addresses, protocol and ports.
      if (op.kind == 0 && !ObserveInput(op.sreg, op.length)) return;
      return SetFixed(op.dreg, 4);
  }
  Vary(Variance::kKernel);
}

}  // namespace sluice::stages
