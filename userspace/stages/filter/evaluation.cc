#include "stages/filter/evaluation.h"

#include <algorithm>

namespace sluice::stages {

using tables::CmpOp;
using tables::CtState;
using tables::HookPoint;
using tables::Op;
using tables::OpCode;
using tables::StateCell;

namespace {

// rt_tos2priority: what ip_forward gives a packet.
uint32_t TosPriority(uint8_t tos) {
  constexpr uint8_t kPriorities[16] = {0, 0, 0, 0, 2, 2, 2, 2, 6, 6, 6, 6, 4, 4, 4, 4};
  return kPriorities[(tos & 0x1e) >> 1];
}

}  // namespace

Evaluation::Evaluation(Filter& filter, FilterContext& context, HookPoint hook, uint32_t family_slot)
    : filter_(filter),
      context_(context),
      ruleset_(*filter.ruleset_),
      program_(ruleset_.program()),
      hook_(hook),
      family_slot_(family_slot),
      protocol_family_(family_slot == 0   ? kProtoIpv4
                       : family_slot == 1 ? kProtoIpv6
                                          : kProtoNetdev),
      has_l4_(family_slot == 0 ||
              (family_slot == 1 && (context.p.l4_offset != 0 ||
                                    context.p.Has(packet::kFlagLaterFragment)))),
      later_fragment_(context.p.Has(packet::kFlagLaterFragment)),
      worker_(filter.worker_),
      mark_(context.p.mark),
      ct_state_(context.p.ct_state) {
  if (context.flow != nullptr) ct_mark_ = context.flow->mark;
  if (is_v4() && context.in != nullptr && AfterForwarding(hook)) {
    priority_ = TosPriority(context.p.l3()[1]);
  }
  if (context.path != nullptr) [[unlikely]] {
    BeginToObserve();  // the last thing here either way, so that no frame is made for it
  } else if (context.snapshot.left_out != nullptr) {
    FindLeftOut();
  }
}

bool Evaluation::Test(const Op& op) {
  uint32_t value;
  if (!Load32(op.load, value)) return false;
  switch (op.code) {
    case OpCode::kTestEqual:
    case OpCode::kTestProtocolEqual:
      return (value & op.a) == op.b;
    case OpCode::kTestNotEqual:
      return (value & op.a) != op.b;
    default: {
      const uint32_t number = __builtin_bswap32(value) >> (32 - 8 * op.load.length);
      return (number >= op.a && number <= op.b) == (op.code == OpCode::kTestRange);
    }
  }
}

bool Evaluation::TestBytes(const Op& op, bool equal) {
  alignas(8) uint64_t value[2] = {};
  if (!LoadTo(op.load, reinterpret_cast<uint8_t*>(value))) return false;
  uint64_t mask[2];
  uint64_t wanted[2];
  std::memcpy(mask, Constant(op.a), sizeof mask);
  std::memcpy(wanted, Constant(op.b), sizeof wanted);
  const bool same =
      (((value[0] & mask[0]) ^ wanted[0]) | ((value[1] & mask[1]) ^ wanted[1])) == 0;
  return same == equal;
}

bool Evaluation::Compare(const Op& op) const {
  const int order = std::memcmp(Reg(op.sreg), Constant(op.a), op.length);
  switch (static_cast<CmpOp>(op.kind)) {
    case CmpOp::kEqual:
      return order == 0;
    case CmpOp::kNotEqual:
      return order != 0;
    case CmpOp::kLess:
      return order < 0;
    case CmpOp::kLessOrEqual:
      return order <= 0;
    case CmpOp::kGreater:
      return order > 0;
    case CmpOp::kGreaterOrEqual:
      return order >= 0;
  }
  return false;
}

bool Evaluation::InRange(const Op& op) const {
  const bool inside = std::memcmp(Reg(op.sreg), Constant(op.a), op.length) >= 0 &&
                      std::memcmp(Reg(op.sreg), Constant(op.b), op.length) <= 0;
  return inside == (op.kind == 0);
}

void Evaluation::Bitwise(const Op& op) {
  uint32_t mask[4];
  uint32_t flip[4];
  std::memcpy(mask, Constant(op.a), sizeof mask);
  std::memcpy(flip, Constant(op.b), sizeof flip);
  const size_t units = (op.length + 3u) / 4;
  for (size_t i = 0; i < units; ++i) {
    registers_[op.dreg + i] = (registers_[op.sreg + i] & mask[i]) ^ flip[i];
  }
}

// nft_bitwise_eval_lshift and _rshift: on units in host order, carrying between them.
void Evaluation::Shift(const Op& op, Registers& registers) {
  const size_t units = (op.length + 3u) / 4;
  const uint32_t shift = op.a;
  uint32_t carry = 0;
  if (op.kind == 1) {
    for (size_t i = units; i-- > 0;) {
      const uint32_t value = registers[op.sreg + i];
      registers[op.dreg + i] = value << shift | carry;
      carry = shift == 0 ? 0 : value >> (32 - shift);
    }
  } else {
    for (size_t i = 0; i < units; ++i) {
      const uint32_t value = registers[op.sreg + i];
      registers[op.dreg + i] = carry | value >> shift;
      carry = shift == 0 ? 0 : value << (32 - shift);
    }
  }
}

void Evaluation::Byteorder(const Op& op, Registers& registers) {
  uint8_t* to = reinterpret_cast<uint8_t*>(&registers[op.dreg]);
  const uint8_t* from = reinterpret_cast<const uint8_t*>(&registers[op.sreg]);
  const size_t size = op.a;
  // Host and network order differ in both directions alike.
  for (size_t at = 0; at + size <= op.length; at += size) {
    uint8_t number[8];
    std::memcpy(number, from + at, size);
    std::reverse(number, number + size);
    std::memcpy(to + at, number, size);
  }
}

template <bool kObserved>
Evaluation::Step Evaluation::ExecuteOps(uint32_t first_op) {
  for (const Op* op = &program_.ops[first_op];; ++op) {
    if constexpr (kObserved) {
      if (path_ != nullptr) Observe(*op);
    }
    switch (op->code) {
      case OpCode::kEnd:
        return Step::kNext;
      case OpCode::kTestProtocolEqual:
        if (!has_l4_ || context_.p.l4_protocol != op->kind2) return Step::kBreak;
        [[fallthrough]];
      case OpCode::kTestEqual:
      case OpCode::kTestNotEqual:
      case OpCode::kTestRange:
      case OpCode::kTestNotRange:
        if (!Test(*op)) return Fail();
        break;
      case OpCode::kTestBytes:
        if (!TestBytes(*op, true)) return Fail();
        break;
      case OpCode::kTestNotBytes:
        if (!TestBytes(*op, false)) return Fail();
        break;
      case OpCode::kLoad:
        if (!LoadTo(op->load, Reg(op->dreg))) return Fail();
        break;
      case OpCode::kVerdict:
        return Verdict(static_cast<int32_t>(op->a), op->b);
      case OpCode::kCounter:
        if (!context_.dry_run) {
          StateCell& cell = tables::WorkerCell(op->cell, worker_);
          const uint64_t length = context_.p.l3_length();
          StateCell::Add(cell.a, context_.take_back ? -uint64_t{1} : 1);
          StateCell::Add(cell.b, context_.take_back ? -length : length);
        }
        break;
      case OpCode::kLookup:
      case OpCode::kLookupVerdict:
        if (const Step step = Lookup(*op); step != Step::kNext) return step;
        break;
      case OpCode::kLimit:
      case OpCode::kDynset:
        if (context_.take_back) return Step::kBreak;
        [[fallthrough]];
      default:
        if (const Step step = ExecuteOne(*op); step != Step::kNext) return step;
    }
  }
}

Evaluation::Step Evaluation::Execute(uint32_t first_op) { return ExecuteOps<false>(first_op); }

// Apart, so that it does not count where the compiler weighs what to inline.
[[gnu::noinline, gnu::cold]] Evaluation::Step Evaluation::ExecuteObserved(uint32_t first_op) {
  return ExecuteOps<true>(first_op);
}

Evaluation::Step Evaluation::ExecuteOne(const Op& op) {
  const auto matches = [](bool yes) { return yes ? Step::kNext : Step::kBreak; };
  switch (op.code) {
    case OpCode::kImmediate:
      std::memcpy(Reg(op.dreg), Constant(op.a), (op.length + 3u) / 4 * 4);
      return Step::kNext;
    case OpCode::kCmp:
      return matches(Compare(op));
    case OpCode::kRange:
      return matches(InRange(op));
    case OpCode::kBitwise:
      Bitwise(op);
      return Step::kNext;
    case OpCode::kShift:
      Shift(op, registers_);
      return Step::kNext;
    case OpCode::kByteorder:
      Byteorder(op, registers_);
      return Step::kNext;
    case OpCode::kPayloadSet:
      return PayloadSet(op);
    case OpCode::kExthdr:
      return Exthdr(op);
    case OpCode::kExthdrSet:
      return ExthdrSet(op);
    case OpCode::kExthdrStrip:
      return ExthdrStrip(op);
    case OpCode::kMetaSet:
      MetaSet(op);
      return Step::kNext;
    case OpCode::kCtSet:
      CtSet(op);
      return Step::kNext;
    case OpCode::kRt:
      return Rt(op);
    case OpCode::kFib:
      return Fib(op);
    case OpCode::kDynset:
      return Dynset(op);
    case OpCode::kLimit:
    case OpCode::kStateful: {
      const tables::StatefulExpr& expr = program_.stateful[op.a];
      return Stateful(expr, expr.cell, true, expr.owner);
    }
    case OpCode::kObjectMap:
      return ObjectMap(op);
    case OpCode::kLog:
      Log(op);
      return Step::kNext;
    case OpCode::kReject:
      return Reject(op);
    case OpCode::kNat:
      return Nat(op);
    case OpCode::kNumgen:
      Numgen(op);
      return Step::kNext;
    case OpCode::kHash:
      Hash(op);
      return Step::kNext;
    case OpCode::kNotrack:
      // Behind conntrack it makes an invalid packet an untracked one.
      if (context_.flow == nullptr && (ct_state_ == static_cast<uint8_t>(CtState::kNone) ||
                                       ct_state_ == static_cast<uint8_t>(CtState::kInvalid))) {
        ct_state_ = static_cast<uint8_t>(tables::CtState::kUntracked);
        ++modifications_;
        context_.p.ct_state = ct_state_;
      }
      return Step::kNext;
    case OpCode::kNothing:
      return Step::kNext;
    default:
      return Verdict(kToKernel);
  }
}

}  // namespace sluice::stages
