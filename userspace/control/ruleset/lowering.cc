#include "control/ruleset/lowering.h"

#include <algorithm>
#include <utility>

#include "control/ruleset/keys.h"
#include "control/ruleset/stateful.h"
#include "tables/nat_request.h"

namespace sluice::control {

using tables::kNoUnit;
using tables::Load;
using tables::Op;
using tables::OpCode;
using tables::Source;

namespace {

constexpr size_t kMaxData = 16;  // of a constant
constexpr size_t kMaxPayload = 64;

uint8_t Unit(uint8_t reg) { return reg == nft::kNoRegister ? kNoUnit : reg; }

}  // namespace

std::vector<Op> Lowering::Rule(const nft::Rule& rule) {
  ops_.clear();
  unsupported_.clear();
  failed_ = false;
  first_counter_ = nullptr;
  for (const nft::Expr& expr : rule.exprs) {
    std::visit([this](const auto& e) { Lower(e); }, expr);
    if (failed_) break;
  }
  return std::move(ops_);
}

Op& Lowering::Add(OpCode code) {
  ops_.push_back({.code = code});
  return ops_.back();
}

void Lowering::Unsupported(std::string name) {
  if (failed_) return;
  failed_ = true;
  unsupported_ = std::move(name);
  Add(OpCode::kUnsupported);
}

bool Lowering::Fits(uint8_t unit, size_t length) {
  if (unit < tables::kRegisterUnits && length > 0 &&
      unit + (length + 3) / 4 <= tables::kRegisterUnits) {
    return true;
  }
  Unsupported("a register that there is not");
  return false;
}

uint32_t Lowering::Constant(const nft::Bytes& bytes) {
  std::array<uint8_t, kMaxData> value{};
  std::copy_n(bytes.begin(), std::min(bytes.size(), kMaxData), value.begin());
  program_.constants.push_back(value);
  return static_cast<uint32_t>(program_.constants.size() - 1);
}

void Lowering::Verdict(const nft::VerdictData& verdict) {
  constexpr int32_t kJump = -3;
  constexpr int32_t kGoto = -4;
  Op& op = Add(OpCode::kVerdict);
  op.a = static_cast<uint32_t>(verdict.code);
  op.b = tables::kNoChain;
  if (verdict.code != kJump && verdict.code != kGoto) return;
  op.b = scope_.ChainId(verdict.chain);
  if (op.b == tables::kNoChain) {
    ops_.pop_back();
    Unsupported("a jump to a chain that there is not");
  }
}

void Lowering::Lower(const nft::ImmediateExpr& e) {
  constexpr int32_t kContinue = -1;
  if (e.dreg == nft::kVerdictRegister) {
    if (e.verdict.code == kContinue) return;
    const bool known = e.verdict.code == 0 || e.verdict.code == 1 ||
                       (e.verdict.code <= -3 && e.verdict.code >= -5);
    if (known) return Verdict(e.verdict);
    return Unsupported("queue");
  }
  if (!Fits(e.dreg, e.data.size()) || e.data.size() > kMaxData) return Unsupported("immediate");
  Op& op = Add(OpCode::kImmediate);
  op.dreg = e.dreg;
  op.length = static_cast<uint8_t>(e.data.size());
  op.a = Constant(e.data);
}

void Lowering::Lower(const nft::CmpExpr& e) {
  if (!Fits(e.sreg, e.data.size())) return;
  if (e.data.size() > kMaxData || e.op > 5) return Unsupported("cmp");
  Op& op = Add(OpCode::kCmp);
  op.sreg = e.sreg;
  op.kind = e.op;
  op.length = static_cast<uint8_t>(e.data.size());
  op.a = Constant(e.data);
}

void Lowering::Lower(const nft::RangeExpr& e) {
  if (!Fits(e.sreg, e.from.size())) return;
  if (e.from.size() > kMaxData || e.to.size() != e.from.size() || e.op > 1) {
    return Unsupported("range");
  }
  Op& op = Add(OpCode::kRange);
  op.sreg = e.sreg;
  op.kind = e.op;
  op.length = static_cast<uint8_t>(e.from.size());
  op.a = Constant(e.from);
  op.b = Constant(e.to);
}

void Lowering::Lower(const nft::BitwiseExpr& e) {
  if (!Fits(e.sreg, e.length) || !Fits(e.dreg, e.length)) return;
  if (e.length > kMaxData || e.op > 2 || (e.op != 0 && e.shift >= 32)) {
    return Unsupported("bitwise");
  }
  Op& op = Add(e.op == 0 ? OpCode::kBitwise : OpCode::kShift);
  op.sreg = e.sreg;
  op.dreg = e.dreg;
  op.length = static_cast<uint8_t>(e.length);
  op.kind = e.op;
  if (e.op == 0) {
    op.a = Constant(e.mask);
    op.b = Constant(e.xor_value);
  } else {
    op.a = e.shift;
  }
}

void Lowering::Lower(const nft::ByteorderExpr& e) {
  if (!Fits(e.sreg, e.length) || !Fits(e.dreg, e.length)) return;
  if (e.size != 2 && e.size != 4 && e.size != 8) return Unsupported("byteorder");
  Op& op = Add(OpCode::kByteorder);
  op.sreg = e.sreg;
  op.dreg = e.dreg;
  op.length = static_cast<uint8_t>(e.length);
  op.a = e.size;
}

void Lowering::Lower(const nft::PayloadExpr& e) {
  const bool sets = e.sreg != nft::kNoRegister;
  if (!Fits(sets ? e.sreg : e.dreg, e.length)) return;
  constexpr uint8_t kInnerHeader = 3;  // NFT_PAYLOAD_INNER_HEADER
  if (e.base > kInnerHeader) return Unsupported("payload of tunnels");
  if (e.length > kMaxPayload || e.offset > 0xffff) return Unsupported("payload");
  if (sets && e.csum_type > 1) return Unsupported("payload with an SCTP checksum");
  Op& op = Add(sets ? OpCode::kPayloadSet : OpCode::kLoad);
  op.sreg = Unit(e.sreg);
  op.dreg = Unit(e.dreg);
  op.length = static_cast<uint8_t>(e.length);
  // NFT_PAYLOAD_LL_HEADER, NETWORK, TRANSPORT
  op.load.source = e.base == kInnerHeader ? Source::kInner : static_cast<Source>(e.base);
  op.load.length = op.length;
  op.load.offset = static_cast<uint16_t>(e.offset);
  if (sets) {
    op.kind2 = e.csum_type;
    op.a = e.csum_offset;
    op.b = e.csum_flags;
  }
}

void Lowering::Lower(const nft::ExthdrExpr& e) {
  constexpr uint8_t kTcpOption = 1;
  constexpr uint8_t kSctp = 3;
  const bool sets = e.sreg != nft::kNoRegister;
  if (e.op > kSctp) return Unsupported("exthdr dccp");
  if (sets && (e.op != kTcpOption || (e.length != 2 && e.length != 4))) {
    return Unsupported("exthdr set");
  }
  if (!sets && e.dreg == nft::kNoRegister) {
    if (e.op != kTcpOption) return Unsupported("exthdr reset");
    Op& op = Add(OpCode::kExthdrStrip);
    op.kind2 = e.type;
    return;
  }
  if (!Fits(sets ? e.sreg : e.dreg, std::max<size_t>(e.length, 1)) || e.offset > 0xffff) return;
  Op& op = Add(sets ? OpCode::kExthdrSet : OpCode::kExthdr);
  op.sreg = Unit(e.sreg);
  op.dreg = Unit(e.dreg);
  op.kind = e.op;
  op.kind2 = e.type;
  op.length = static_cast<uint8_t>(e.length);
  op.load.offset = static_cast<uint16_t>(e.offset);
  op.flags = e.flags & 1;
}

void Lowering::Lower(const nft::MetaExpr& e) {
  if (e.sreg != nft::kNoRegister) {
    if (e.key == tables::kMetaNfTrace) {
      Add(OpCode::kNothing);
      return;
    }
    if (e.key != tables::kMetaMark && e.key != tables::kMetaPriority) {
      return Unsupported("meta set " + MetaName(e.key));
    }
    if (!Fits(e.sreg, 4)) return;
    Op& op = Add(OpCode::kMetaSet);
    op.sreg = e.sreg;
    op.kind = static_cast<uint8_t>(e.key);
    return;
  }
  const uint8_t length = MetaLength(e.key);
  if (length == 0) return Unsupported("meta " + MetaName(e.key));
  if (!Fits(e.dreg, length)) return;
  Op& op = Add(OpCode::kLoad);
  op.dreg = e.dreg;
  op.load = {.source = Source::kMeta, .key = static_cast<uint8_t>(e.key), .length = length};
}

void Lowering::Lower(const nft::CtExpr& e) {
  if (e.sreg != nft::kNoRegister) {
    if (e.key == tables::kCtEventMask) {
      Add(OpCode::kNothing);
      return;
    }
    if (e.key != tables::kCtMark) return Unsupported("ct set " + CtName(e.key));
    if (!Fits(e.sreg, 4)) return;
    Op& op = Add(OpCode::kCtSet);
    op.sreg = e.sreg;
    return;
  }
  const uint8_t length = CtLength(e.key, family_);
  if (length == 0) return Unsupported("ct " + CtName(e.key));
  if (!Fits(e.dreg, length)) return;
  Op& op = Add(OpCode::kLoad);
  op.dreg = e.dreg;
  op.load = {.source = Source::kCt,
             .key = static_cast<uint8_t>(e.key),
             .direction = e.direction.value_or(tables::kNoDirection),
             .length = length};
}

void Lowering::Lower(const nft::RtExpr& e) {
  if (e.key < 1 || e.key > 3) return Unsupported(e.key == 0 ? "rt classid" : "rt ipsec");
  if (!Fits(e.dreg, e.key == 2 ? 16 : 4)) return;
  Op& op = Add(OpCode::kRt);
  op.dreg = e.dreg;
  op.kind = static_cast<uint8_t>(e.key);
  op.length = e.key == 2 ? 16 : 4;
}

void Lowering::Lower(const nft::FibExpr& e) {
  constexpr uint32_t kFibPresent = 32;
  if (e.result < 1 || e.result > 3) return Unsupported("fib");
  const bool name = e.result == 2 && (e.flags & kFibPresent) == 0;
  if (!Fits(e.dreg, name ? 16 : 4)) return;
  Op& op = Add(OpCode::kFib);
  op.dreg = e.dreg;
  op.kind = static_cast<uint8_t>(e.result);
  op.a = e.flags;
  op.length = name ? 16 : 4;
}

void Lowering::Lower(const nft::LookupExpr& e) {
  const RuleScope::SetInfo* set = scope_.FindSet(e.set);
  if (set == nullptr) return Unsupported("lookup in a set that there is not");
  if (!Fits(e.sreg, set->model->key_length)) return;
  const bool verdict = e.dreg == nft::kVerdictRegister;
  const bool data = !verdict && e.dreg != nft::kNoRegister;
  if (verdict && set->model->data_type != kVerdictType) return Unsupported("lookup");
  if (data && (set->model->data_type == kVerdictType || !Fits(e.dreg, set->model->data_length))) {
    return Unsupported("lookup");
  }
  Op& op = Add(verdict ? OpCode::kLookupVerdict : OpCode::kLookup);
  op.sreg = e.sreg;
  op.set = set->index;
  op.flags = e.inverted ? 1 : 0;
  if (data) {
    op.dreg = e.dreg;
    op.length = static_cast<uint8_t>(set->model->data_length);
  }
}

void Lowering::Lower(const nft::LogExpr& e) {
  constexpr uint32_t kAudit = 8;  // NFT_LOGLEVEL_AUDIT
  if (e.level == kAudit) return Unsupported("log level audit");
  Op& op = Add(OpCode::kLog);
  op.a = static_cast<uint32_t>(program_.logs.size());
  program_.logs.push_back({e.prefix, e.level, e.group.value_or(0), e.group.has_value()});
}

void Lowering::Lower(const nft::RejectExpr& e) {
  if (e.type > 2) return Unsupported("reject");
  Op& op = Add(OpCode::kReject);
  op.a = e.type;
  op.b = e.code;
}

void Lowering::AddNat(tables::NatOp nat) {
  for (uint8_t* unit : {&nat.address_min, &nat.address_max, &nat.port_min, &nat.port_max}) {
    *unit = Unit(*unit);
    const bool v6 = nat.family != static_cast<uint8_t>(nft::TableFamily::kIp);
    const bool address = unit == &nat.address_min || unit == &nat.address_max;
    if (*unit != kNoUnit && !Fits(*unit, address && v6 ? 16 : 4)) return;
  }
  Op& op = Add(OpCode::kNat);
  op.a = static_cast<uint32_t>(program_.nats.size());
  program_.nats.push_back(nat);
}

void Lowering::Lower(const nft::NatExpr& e) {
  AddNat({static_cast<uint8_t>(e.destination ? tables::NatKind::kDestination
                                             : tables::NatKind::kSource),
          e.family, e.addr_min, e.addr_max, e.proto_min, e.proto_max, e.flags});
}

void Lowering::Lower(const nft::MasqExpr& e) {
  AddNat({static_cast<uint8_t>(tables::NatKind::kMasquerade), 1, nft::kNoRegister,
          nft::kNoRegister, e.proto_min, e.proto_max, e.flags});
}

void Lowering::Lower(const nft::RedirExpr& e) {
  AddNat({static_cast<uint8_t>(tables::NatKind::kRedirect), 1, nft::kNoRegister, nft::kNoRegister,
          e.proto_min, e.proto_max, e.flags});
}

void Lowering::Lower(const nft::NumgenExpr& e) {
  if (!Fits(e.dreg, 4)) return;
  if (e.type > 1 || e.modulus == 0) return Unsupported("numgen");
  Op& op = Add(OpCode::kNumgen);
  op.dreg = e.dreg;
  op.kind = static_cast<uint8_t>(e.type);
  op.a = e.modulus;
  op.b = e.offset;
  if (e.type == 0) op.cell = scope_.NextState(nft::Expr(e), nullptr);
}

void Lowering::Lower(const nft::HashExpr& e) {
  if (!Fits(e.dreg, 4)) return;
  if (e.type > 1 || e.modulus == 0) return Unsupported("hash");
  if (e.type == 0 && !Fits(e.sreg, e.length)) return;
  Op& op = Add(OpCode::kHash);
  op.dreg = e.dreg;
  op.sreg = Unit(e.sreg);
  op.length = static_cast<uint8_t>(e.length);
  op.kind = static_cast<uint8_t>(e.type);
  op.a = e.modulus;
  op.b = e.offset;
  op.set = static_cast<uint32_t>(program_.seeds.size());
  program_.seeds.push_back(e.seed);
}

void Lowering::Lower(const nft::NotrackExpr&) { Add(OpCode::kNotrack); }

void Lowering::Lower(const nft::UnsupportedExpr& e) {
  // Offloading changes no verdict, and Sluice has its own fast path.
  if (e.name == "flow_offload") {
    Add(OpCode::kNothing);
    return;
  }
  Unsupported(e.name);
}

void Lowering::LowerStateful(const nft::Expr& expr) {
  auto stateful = ToStateful(expr);
  if (!stateful) return Unsupported("stateful");
  stateful->cell = scope_.NextState(expr, &*stateful);
  stateful->owner = scope_.owner() + ops_.size();
  if (stateful->kind == tables::StatefulKind::kCounter) {
    if (first_counter_ == nullptr) first_counter_ = stateful->cell;
    Add(OpCode::kCounter).cell = stateful->cell;
    return;
  }
  Add(stateful->kind == tables::StatefulKind::kLimit ? OpCode::kLimit : OpCode::kStateful).a =
      static_cast<uint32_t>(program_.stateful.size());
  program_.stateful.push_back(*stateful);
}

void Lowering::Lower(const nft::ObjrefExpr& e) {
  if (!e.set.empty()) {
    const RuleScope::SetInfo* set = scope_.FindSet(e.set);
    if (set == nullptr) return Unsupported("an object map that there is not");
    if (!IsStatefulObject(set->model->object_type)) return Unsupported(ObjectName(set->model->object_type));
    if (!Fits(e.sreg, set->model->key_length)) return;
    Op& op = Add(OpCode::kObjectMap);
    op.sreg = e.sreg;
    op.set = set->index;
    return;
  }
  if (!IsStatefulObject(e.type)) return Unsupported(ObjectName(e.type));
  const auto object = scope_.Object(e.type, e.name);
  if (object == nullptr) return Unsupported("an object that there is not");
  Add(OpCode::kStateful).a = static_cast<uint32_t>(program_.stateful.size());
  program_.stateful.push_back(object->exprs.front());
}

void Lowering::Lower(const std::shared_ptr<const nft::DynsetExpr>& e) {
  const RuleScope::SetInfo* set = scope_.FindSet(e->set);
  if (set == nullptr) return Unsupported("a dynamic set that there is not");
  if (!Fits(e->sreg_key, set->model->key_length)) return;
  const bool data = e->sreg_data != nft::kNoRegister;
  if (data && !Fits(e->sreg_data, set->model->data_length)) return;
  if (e->op > 2) return Unsupported("dynset");
  tables::DynsetOp dynset;
  dynset.kind = static_cast<tables::DynsetOp::Kind>(e->op);
  dynset.inverted = e->inverted;
  dynset.key = e->sreg_key;
  dynset.data = data ? e->sreg_data : kNoUnit;
  dynset.timeout_ms = e->timeout_ms.value_or(0);
  // Statements of its own, or those of the set's definition.
  std::vector<tables::StatefulExpr> exprs;
  for (const nft::Expr& expr : e->exprs.empty() ? set->model->exprs : e->exprs) {
    const auto stateful = ToStateful(expr);
    if (!stateful) return Unsupported("dynset with a statement that sets cannot have");
    exprs.push_back(*stateful);
  }
  tables::DynamicSet* dynamic = scope_.Dynamic(e->set);
  if (dynamic == nullptr) return Unsupported("dynset of an interval set");
  if (!exprs.empty()) {
    dynset.exprs = dynamic->InternTemplate(exprs);
    if (dynset.exprs == 0) return Unsupported("dynset with too many different statements");
  }
  Op& op = Add(OpCode::kDynset);
  op.sreg = e->sreg_key;
  op.set = set->index;
  op.a = static_cast<uint32_t>(program_.dynsets.size());
  program_.dynsets.push_back(dynset);
}

}  // namespace sluice::control
