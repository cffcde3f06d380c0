#include "control/ruleset/fuse.h"

#include <algorithm>
#include <cstring>
#include <optional>

namespace sluice::control {

using tables::CmpOp;
using tables::kNoUnit;
using tables::Op;
using tables::OpCode;
using tables::Source;

namespace {

using Constants = std::vector<std::array<uint8_t, 16>>;

// Bits of the register units that an Op reads. Whatever is not known for certain reads all.
uint32_t Reads(const Op& op) {
  const auto units = [](uint8_t first, size_t bytes) {
    return static_cast<uint32_t>(((uint64_t{1} << (bytes + 3) / 4) - 1) << first);
  };
  switch (op.code) {
    case OpCode::kLoad:
    case OpCode::kImmediate:
    case OpCode::kVerdict:
    case OpCode::kExthdr:
    case OpCode::kExthdrStrip:
    case OpCode::kRt:
    case OpCode::kFib:
    case OpCode::kCounter:
    case OpCode::kLimit:
    case OpCode::kStateful:
    case OpCode::kLog:
    case OpCode::kReject:
    case OpCode::kNumgen:
    case OpCode::kNotrack:
    case OpCode::kNothing:
    case OpCode::kUnsupported:
      return 0;
    case OpCode::kCmp:
    case OpCode::kRange:
    case OpCode::kBitwise:
    case OpCode::kShift:
    case OpCode::kByteorder:
    case OpCode::kPayloadSet:
    case OpCode::kExthdrSet:
      return units(op.sreg, op.length);
    case OpCode::kMetaSet:
    case OpCode::kCtSet:
      return units(op.sreg, 4);
    default:
      return 0xffff;
  }
}

class Fuser {
 public:
  Fuser(const std::vector<Op>& ops, Constants& constants) : ops_(ops), constants_(constants) {}

  std::vector<Op> Run() {
    std::vector<Op> out;
    for (size_t i = 0; i < ops_.size();) {
      size_t used = 0;
      const auto fused = ops_[i].code == OpCode::kLoad ? FuseAt(i, used) : std::nullopt;
      if (!fused) {
        out.push_back(ops_[i++]);
        continue;
      }
      i += used;
      if (!out.empty() && FoldProtocol(out.back(), *fused)) continue;
      out.push_back(*fused);
    }
    return out;
  }

 private:
  // Whether the loaded registers are needed after Op `next`.
  bool Needed(const Op& load, size_t next) const {
    const uint32_t mine = static_cast<uint32_t>(
        ((uint64_t{1} << (load.load.length + 3) / 4) - 1) << load.dreg);
    for (size_t i = next; i < ops_.size(); ++i) {
      if ((Reads(ops_[i]) & mine) != 0) return true;
      // Written over as a whole: whatever comes later reads that.
      if (ops_[i].code == OpCode::kLoad && ops_[i].dreg == load.dreg &&
          ops_[i].load.length >= load.load.length) {
        return false;
      }
    }
    return false;
  }

  static uint32_t Word(const uint8_t* bytes) {
    uint32_t word;
    std::memcpy(&word, bytes, sizeof word);
    return word;
  }

  uint32_t Add(const std::array<uint8_t, 16>& constant) {
    constants_.push_back(constant);
    return static_cast<uint32_t>(constants_.size() - 1);
  }

  std::optional<Op> FuseAt(size_t i, size_t& used) {
    const Op& load = ops_[i];
    if (load.load.length > 16) return {};
    size_t at = i + 1;
    std::array<uint8_t, 16> mask;
    mask.fill(0xff);
    bool masked = false;
    if (at < ops_.size() && ops_[at].code == OpCode::kBitwise && ops_[at].sreg == load.dreg &&
        ops_[at].dreg == load.dreg && ops_[at].length == load.load.length) {
      const auto& flip = constants_[ops_[at].b];
      if (std::any_of(flip.begin(), flip.end(), [](uint8_t b) { return b != 0; })) return {};
      mask = constants_[ops_[at].a];
      masked = true;
      ++at;
    }
    if (at == ops_.size() || ops_[at].sreg != load.dreg || ops_[at].length > load.load.length) {
      return {};
    }
    std::optional<Op> fused;
    if (ops_[at].code == OpCode::kCmp) {
      fused = FuseCompare(load, mask, masked, at);
    } else if (ops_[at].code == OpCode::kRange && !masked && load.load.length <= 4 &&
               ops_[at].length == load.load.length) {
      fused = load;
      fused->code = ops_[at].kind == 0 ? OpCode::kTestRange : OpCode::kTestNotRange;
      fused->a = Number(ops_[at].a, load.load.length);
      fused->b = Number(ops_[at].b, load.load.length);
      ++at;
    }
    if (!fused || Needed(load, at)) return {};
    used = at - i;
    return fused;
  }

  uint32_t Number(uint32_t constant, uint8_t length) const {
    return __builtin_bswap32(Word(constants_[constant].data())) >> (32 - 8 * length);
  }

  // `at` is the comparison's place; afterwards, the place behind it.
  std::optional<Op> FuseCompare(const Op& load, std::array<uint8_t, 16> mask, bool masked,
                                size_t& at) {
    const Op& cmp = ops_[at];
    const auto op = static_cast<CmpOp>(cmp.kind);
    Op fused = load;
    fused.dreg = kNoUnit;
    if (op == CmpOp::kEqual || op == CmpOp::kNotEqual) {
      // Bytes behind the comparison's length do not count.
      std::fill(mask.begin() + cmp.length, mask.end(), uint8_t{0});
      const auto& wanted = constants_[cmp.a];
      ++at;
      if (load.load.length <= 4) {
        fused.code = op == CmpOp::kEqual ? OpCode::kTestEqual : OpCode::kTestNotEqual;
        fused.a = Word(mask.data());
        fused.b = Word(wanted.data());
      } else {
        fused.code = op == CmpOp::kEqual ? OpCode::kTestBytes : OpCode::kTestNotBytes;
        fused.a = Add(mask);
        fused.b = cmp.a;
      }
      return fused;
    }
    const uint8_t length = load.load.length;
    if (masked || length > 4 || cmp.length != length) return {};
    uint32_t low = 0;
    uint32_t high = static_cast<uint32_t>((uint64_t{1} << (8 * length)) - 1);
    bool empty = false;
    // One bound, and a second one if the next comparison gives it.
    while (at < ops_.size() && ops_[at].code == OpCode::kCmp && ops_[at].sreg == load.dreg &&
           ops_[at].length == length && static_cast<CmpOp>(ops_[at].kind) > CmpOp::kNotEqual) {
      const uint32_t bound = Number(ops_[at].a, length);
      switch (static_cast<CmpOp>(ops_[at].kind)) {
        case CmpOp::kLess:
          empty |= bound == 0;
          high = std::min(high, bound - 1);
          break;
        case CmpOp::kLessOrEqual:
          high = std::min(high, bound);
          break;
        case CmpOp::kGreater:
          empty |= bound == 0xffffffff;
          low = std::max(low, bound + 1);
          break;
        default:
          low = std::max(low, bound);
      }
      ++at;
    }
    fused.code = OpCode::kTestRange;
    fused.a = empty ? 1 : low;
    fused.b = empty ? 0 : high;
    return fused;
  }

  static bool FoldProtocol(Op& before, const Op& fused) {
    const bool protocol = before.code == OpCode::kTestEqual &&
                          before.load.source == Source::kMeta &&
                          before.load.key == tables::kMetaL4Proto && (before.a & 0xff) == 0xff &&
                          before.b <= 0xff;
    if (!protocol || fused.code != OpCode::kTestEqual ||
        fused.load.source != Source::kTransport) {
      return false;
    }
    const auto number = static_cast<uint8_t>(before.b);
    before = fused;
    before.code = OpCode::kTestProtocolEqual;
    before.kind2 = number;
    return true;
  }

  const std::vector<Op>& ops_;
  Constants& constants_;
};

}  // namespace

std::vector<Op> Fuse(const std::vector<Op>& ops, Constants& constants) {
  return Fuser(ops, constants).Run();
}

}  // namespace sluice::control
