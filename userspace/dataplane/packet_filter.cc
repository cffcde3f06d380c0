#include "dataplane/packet_filter.h"

#include <array>
#include <utility>

#include "base/byte_order.h"

namespace sluice::dataplane {
namespace {

// linux/bpf_common.h: class in the low three bits, then size and mode, or operation and source.
enum Class : uint16_t { kLd = 0, kLdx = 1, kSt = 2, kStx = 3, kAlu = 4, kJmp = 5, kRet = 6, kMisc = 7 };
enum Size : uint16_t { kWord = 0x00, kHalf = 0x08, kByte = 0x10 };
enum Mode : uint16_t { kImm = 0x00, kAbs = 0x20, kInd = 0x40, kMem = 0x60, kLen = 0x80, kMsh = 0xa0 };
enum Alu : uint16_t {
  kAdd = 0x00, kSub = 0x10, kMul = 0x20, kDiv = 0x30, kOr = 0x40, kAnd = 0x50, kLsh = 0x60,
  kRsh = 0x70, kNeg = 0x80, kMod = 0x90, kXor = 0xa0,
};
enum Jump : uint16_t { kJa = 0x00, kJeq = 0x10, kJgt = 0x20, kJge = 0x30, kJset = 0x40 };
constexpr uint16_t kSourceX = 0x08;
constexpr uint16_t kReturnA = 0x10;
constexpr uint16_t kTax = 0x00;
constexpr uint16_t kTxa = 0x80;

constexpr uint16_t ClassOf(uint16_t code) { return code & 0x07; }
constexpr uint16_t SizeOf(uint16_t code) { return code & 0x18; }
constexpr uint16_t ModeOf(uint16_t code) { return code & 0xe0; }
constexpr uint16_t OperationOf(uint16_t code) { return code & 0xf0; }

constexpr uint32_t BytesOf(uint16_t code) {
  return SizeOf(code) == kWord ? 4 : SizeOf(code) == kHalf ? 2 : 1;
}

bool LoadIsFine(const FilterInstruction& i) {
  switch (ModeOf(i.code)) {
    case kImm:
    case kLen:
      return SizeOf(i.code) == kWord;
    case kAbs:
    case kInd:
      return ClassOf(i.code) == kLd && SizeOf(i.code) <= kByte;
    case kMem:
      return SizeOf(i.code) == kWord && i.k < kFilterCells;
    case kMsh:
      return ClassOf(i.code) == kLdx && SizeOf(i.code) == kByte;
    default:
      return false;
  }
}

bool JumpIsFine(const FilterInstruction& i, size_t left) {  // instructions behind this one
  switch (OperationOf(i.code)) {
    case kJa:
      return i.code == kJmp && i.k < left;
    case kJeq:
    case kJgt:
    case kJge:
    case kJset:
      return i.if_true < left && i.if_false < left;
    default:
      return false;
  }
}

bool AluIsFine(const FilterInstruction& i) {
  const uint16_t operation = OperationOf(i.code);
  const bool by_constant = (i.code & kSourceX) == 0;
  if (operation > kXor || (operation == kNeg && !by_constant)) return false;
  if (by_constant && (operation == kLsh || operation == kRsh)) return i.k < 32;
  return !(by_constant && i.k == 0 && (operation == kDiv || operation == kMod));
}

bool IsFine(const FilterInstruction& i, size_t left) {
  if (i.code > 0xff) return false;
  switch (ClassOf(i.code)) {
    case kLd:
    case kLdx:
      return LoadIsFine(i);
    case kSt:
    case kStx:
      return (i.code == kSt || i.code == kStx) && i.k < kFilterCells;
    case kAlu:
      return AluIsFine(i);
    case kJmp:
      return JumpIsFine(i, left);
    case kRet:
      return i.code == kRet || i.code == (kRet | kReturnA);
    default:
      return i.code == (kMisc | kTax) || i.code == (kMisc | kTxa);
  }
}

struct Machine {
  std::span<const uint8_t> bytes;
  uint32_t length = 0;
  uint32_t a = 0;
  uint32_t x = 0;
  std::array<uint32_t, kFilterCells> cells{};

  // False: behind the end.
  bool Fetch(uint64_t offset, uint16_t code, uint32_t* out) const {
    if (offset + BytesOf(code) > bytes.size()) return false;
    const uint8_t* const p = bytes.data() + offset;
    *out = SizeOf(code) == kWord ? LoadBe32(p) : SizeOf(code) == kHalf ? LoadBe16(p) : *p;
    return true;
  }

  bool Load(const FilterInstruction& i) {
    uint32_t& to = ClassOf(i.code) == kLd ? a : x;
    switch (ModeOf(i.code)) {
      case kImm:
        to = i.k;
        return true;
      case kLen:
        to = length;
        return true;
      case kMem:
        to = cells[i.k];
        return true;
      case kAbs:
        return Fetch(i.k, i.code, &to);
      case kInd:
        return Fetch(uint64_t{i.k} + x, i.code, &to);
      default:  // kMsh: an IPv4 header's length
        if (!Fetch(i.k, kByte, &to)) return false;
        to = (to & 0xf) * 4;
        return true;
    }
  }

  // False: a division by zero.
  bool Calculate(const FilterInstruction& i) {
    const uint32_t v = (i.code & kSourceX) != 0 ? x : i.k;
    const uint16_t operation = OperationOf(i.code);
    if (v == 0 && (operation == kDiv || operation == kMod)) return false;
    switch (operation) {
      case kAdd: a += v; break;
      case kSub: a -= v; break;
      case kMul: a *= v; break;
      case kDiv: a /= v; break;
      case kOr: a |= v; break;
      case kAnd: a &= v; break;
      case kLsh: a = v < 32 ? a << v : 0; break;
      case kRsh: a = v < 32 ? a >> v : 0; break;
      case kNeg: a = 0u - a; break;
      case kMod: a %= v; break;
      default: a ^= v; break;
    }
    return true;
  }

  size_t Skip(const FilterInstruction& i) const {
    const uint32_t v = (i.code & kSourceX) != 0 ? x : i.k;
    switch (OperationOf(i.code)) {
      case kJa: return i.k;
      case kJeq: return a == v ? i.if_true : i.if_false;
      case kJgt: return a > v ? i.if_true : i.if_false;
      case kJge: return a >= v ? i.if_true : i.if_false;
      default: return (a & v) != 0 ? i.if_true : i.if_false;
    }
  }
};

}  // namespace

bool PacketFilter::Make(std::vector<FilterInstruction> program, PacketFilter* out) {
  if (program.empty() || program.size() > kMaxFilterInstructions) return false;
  for (size_t i = 0; i < program.size(); ++i) {
    if (!IsFine(program[i], program.size() - 1 - i)) return false;
  }
  if (ClassOf(program.back().code) != kRet) return false;
  out->program_ = std::move(program);
  return true;
}

uint32_t PacketFilter::Run(std::span<const uint8_t> bytes, uint32_t length) const {
  Machine m{.bytes = bytes, .length = length};
  for (size_t at = 0; at < program_.size(); ++at) {
    const FilterInstruction& i = program_[at];
    switch (ClassOf(i.code)) {
      case kLd:
      case kLdx:
        if (!m.Load(i)) return 0;
        break;
      case kSt:
        m.cells[i.k] = m.a;
        break;
      case kStx:
        m.cells[i.k] = m.x;
        break;
      case kAlu:
        if (!m.Calculate(i)) return 0;
        break;
      case kJmp:
        at += m.Skip(i);
        break;
      case kRet:
        return (i.code & kReturnA) != 0 ? m.a : i.k;
      default:
        (i.code == (kMisc | kTxa) ? m.a : m.x) = i.code == (kMisc | kTxa) ? m.x : m.a;
        break;
    }
  }
  return 0;
}

}  // namespace sluice::dataplane
