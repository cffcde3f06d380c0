#include "control/nft/expressions.h"

#include <linux/netfilter/nf_tables_compat.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "control/nft/wire.h"

namespace sluice::control::nft {
namespace {

using Result = std::optional<Expr>;

std::vector<Expr> ParseList(const nlattr* list, bool outermost);
Expr ParseAt(const nlattr* expression, bool outermost);

Result Immediate(const nlattr* data) {
  ExprAttributes<NFTA_IMMEDIATE_DATA> a(data);
  ImmediateExpr e{.dreg = a.Register(NFTA_IMMEDIATE_DREG)};
  std::optional<Data> value = ParseData(a[NFTA_IMMEDIATE_DATA]);
  if (!value || value->verdict.has_value() != (e.dreg == kVerdictRegister)) {
    a.Fail();
  } else if (value->verdict) {
    e.verdict = *std::move(value->verdict);
  } else {
    e.data = std::move(value->value);
  }
  return a.Done(std::move(e));
}

Result Cmp(const nlattr* data) {
  ExprAttributes<NFTA_CMP_DATA> a(data);
  return a.Done(CmpExpr{a.Register(NFTA_CMP_SREG), a.Small(NFTA_CMP_OP), a.Value(NFTA_CMP_DATA)});
}

Result Range(const nlattr* data) {
  ExprAttributes<NFTA_RANGE_TO_DATA> a(data);
  return a.Done(RangeExpr{a.Register(NFTA_RANGE_SREG), a.Small(NFTA_RANGE_OP),
                          a.Value(NFTA_RANGE_FROM_DATA), a.Value(NFTA_RANGE_TO_DATA)});
}

Result Bitwise(const nlattr* data) {
  // Operations beyond these, and a second source register (kernel 6.13), are not the model's.
  ExprAttributes<NFTA_BITWISE_DATA> a(data);
  BitwiseExpr e{.sreg = a.Register(NFTA_BITWISE_SREG),
                .dreg = a.Register(NFTA_BITWISE_DREG),
                .op = static_cast<uint8_t>(a.U32Or(NFTA_BITWISE_OP, NFT_BITWISE_BOOL)),
                .length = a.Length(NFTA_BITWISE_LEN)};
  if (e.op == NFT_BITWISE_BOOL) {
    e.mask = a.Value(NFTA_BITWISE_MASK);
    e.xor_value = a.Value(NFTA_BITWISE_XOR);
    if (e.mask.size() != e.length || e.xor_value.size() != e.length) a.Fail();
  } else if (e.op == NFT_BITWISE_LSHIFT || e.op == NFT_BITWISE_RSHIFT) {
    const Bytes shift = a.Value(NFTA_BITWISE_DATA);
    if (shift.size() == sizeof e.shift) {
      std::memcpy(&e.shift, shift.data(), sizeof e.shift);  // a register's content: host order
    } else {
      a.Fail();
    }
  } else {
    a.Fail();
  }
  return a.Done(std::move(e));
}

Result Byteorder(const nlattr* data) {
  ExprAttributes<NFTA_BYTEORDER_SIZE> a(data);
  return a.Done(ByteorderExpr{a.Register(NFTA_BYTEORDER_SREG), a.Register(NFTA_BYTEORDER_DREG),
                              a.Small(NFTA_BYTEORDER_OP), a.Length(NFTA_BYTEORDER_LEN),
                              a.Length(NFTA_BYTEORDER_SIZE)});
}

Result Payload(const nlattr* data) {
  ExprAttributes<NFTA_PAYLOAD_CSUM_FLAGS> a(data);
  PayloadExpr e{.dreg = a.RegisterOr(NFTA_PAYLOAD_DREG),
                .sreg = a.RegisterOr(NFTA_PAYLOAD_SREG),
                .base = a.Small(NFTA_PAYLOAD_BASE),
                .offset = a.U32(NFTA_PAYLOAD_OFFSET),
                .length = a.Length(NFTA_PAYLOAD_LEN),
                .csum_offset = a.U32Or(NFTA_PAYLOAD_CSUM_OFFSET, 0),
                .csum_flags = a.U32Or(NFTA_PAYLOAD_CSUM_FLAGS, 0)};
  if (a.has(NFTA_PAYLOAD_CSUM_TYPE)) e.csum_type = a.Small(NFTA_PAYLOAD_CSUM_TYPE);
  if ((e.dreg == kNoRegister) == (e.sreg == kNoRegister)) a.Fail();
  return a.Done(e);
}

Result Exthdr(const nlattr* data) {
  ExprAttributes<NFTA_EXTHDR_SREG> a(data);
  return a.Done(ExthdrExpr{a.RegisterOr(NFTA_EXTHDR_DREG), a.RegisterOr(NFTA_EXTHDR_SREG),
                           a.U8(NFTA_EXTHDR_TYPE), a.U32(NFTA_EXTHDR_OFFSET),
                           a.Length(NFTA_EXTHDR_LEN),
                           static_cast<uint8_t>(a.U32Or(NFTA_EXTHDR_OP, NFT_EXTHDR_OP_IPV6)),
                           a.U32Or(NFTA_EXTHDR_FLAGS, 0)});
}

Result Meta(const nlattr* data) {
  ExprAttributes<NFTA_META_SREG> a(data);
  MetaExpr e{a.RegisterOr(NFTA_META_DREG), a.RegisterOr(NFTA_META_SREG), a.U32(NFTA_META_KEY)};
  if ((e.dreg == kNoRegister) == (e.sreg == kNoRegister)) a.Fail();
  return a.Done(e);
}

Result Ct(const nlattr* data) {
  ExprAttributes<NFTA_CT_SREG> a(data);
  CtExpr e{a.RegisterOr(NFTA_CT_DREG), a.RegisterOr(NFTA_CT_SREG), a.U32(NFTA_CT_KEY), {}};
  if (a.has(NFTA_CT_DIRECTION)) e.direction = a.U8(NFTA_CT_DIRECTION);
  if ((e.dreg == kNoRegister) == (e.sreg == kNoRegister)) a.Fail();
  return a.Done(e);
}

Result Rt(const nlattr* data) {
  ExprAttributes<NFTA_RT_KEY> a(data);
  return a.Done(RtExpr{a.Register(NFTA_RT_DREG), a.U32(NFTA_RT_KEY)});
}

Result Fib(const nlattr* data) {
  ExprAttributes<NFTA_FIB_FLAGS> a(data);
  return a.Done(FibExpr{a.Register(NFTA_FIB_DREG), a.U32(NFTA_FIB_RESULT), a.U32(NFTA_FIB_FLAGS)});
}

Result Lookup(const nlattr* data) {
  ExprAttributes<NFTA_LOOKUP_FLAGS> a(data);
  const uint32_t flags = a.U32Or(NFTA_LOOKUP_FLAGS, 0);
  if (!a.has(NFTA_LOOKUP_SET) || (flags & ~uint32_t{NFT_LOOKUP_F_INV}) != 0) a.Fail();
  return a.Done(LookupExpr{a.String(NFTA_LOOKUP_SET), a.Register(NFTA_LOOKUP_SREG),
                           a.RegisterOr(NFTA_LOOKUP_DREG), (flags & NFT_LOOKUP_F_INV) != 0});
}

Result Limit(const nlattr* data) {
  ExprAttributes<NFTA_LIMIT_PAD> a(data);
  const uint32_t type = a.U32Or(NFTA_LIMIT_TYPE, NFT_LIMIT_PKTS);
  if (type > NFT_LIMIT_PKT_BYTES) a.Fail();
  return a.Done(LimitExpr{a.U64(NFTA_LIMIT_RATE), a.U64(NFTA_LIMIT_UNIT),
                          a.U32Or(NFTA_LIMIT_BURST, 0), type == NFT_LIMIT_PKT_BYTES,
                          (a.U32Or(NFTA_LIMIT_FLAGS, 0) & NFT_LIMIT_F_INV) != 0});
}

Result Counter(const nlattr* data) {
  ExprAttributes<NFTA_COUNTER_PAD> a(data);
  return a.Done(CounterExpr{a.U64Or(NFTA_COUNTER_PACKETS, 0), a.U64Or(NFTA_COUNTER_BYTES, 0)});
}

Result Quota(const nlattr* data) {
  ExprAttributes<NFTA_QUOTA_CONSUMED> a(data);
  return a.Done(QuotaExpr{a.U64(NFTA_QUOTA_BYTES), a.U64Or(NFTA_QUOTA_CONSUMED, 0),
                          (a.U32Or(NFTA_QUOTA_FLAGS, 0) & NFT_QUOTA_F_INV) != 0});
}

Result Connlimit(const nlattr* data) {
  ExprAttributes<NFTA_CONNLIMIT_FLAGS> a(data);
  return a.Done(ConnlimitExpr{a.U32(NFTA_CONNLIMIT_COUNT),
                              (a.U32Or(NFTA_CONNLIMIT_FLAGS, 0) & NFT_CONNLIMIT_F_INV) != 0});
}

Result Last(const nlattr* data) { return ExprAttributes<NFTA_LAST_PAD>(data).Done(LastExpr{}); }

Result Log(const nlattr* data) {
  ExprAttributes<NFTA_LOG_FLAGS> a(data);
  LogExpr e{.prefix = a.String(NFTA_LOG_PREFIX),
            .level = a.U32Or(NFTA_LOG_LEVEL, NFT_LOGLEVEL_WARNING),
            .snaplen = a.U32Or(NFTA_LOG_SNAPLEN, 0),
            .flags = a.U32Or(NFTA_LOG_FLAGS, 0)};
  if (a.has(NFTA_LOG_GROUP)) e.group = a.U16(NFTA_LOG_GROUP);
  return a.Done(std::move(e));
}

Result Reject(const nlattr* data) {
  ExprAttributes<NFTA_REJECT_ICMP_CODE> a(data);
  RejectExpr e{.type = a.U32(NFTA_REJECT_TYPE)};
  if (a.has(NFTA_REJECT_ICMP_CODE)) e.code = a.U8(NFTA_REJECT_ICMP_CODE);
  return a.Done(e);
}

Result Nat(const nlattr* data) {
  ExprAttributes<NFTA_NAT_FLAGS> a(data);
  const uint32_t type = a.U32(NFTA_NAT_TYPE);
  if (type > NFT_NAT_DNAT) a.Fail();
  return a.Done(NatExpr{type == NFT_NAT_DNAT, a.Small(NFTA_NAT_FAMILY),
                        a.RegisterOr(NFTA_NAT_REG_ADDR_MIN), a.RegisterOr(NFTA_NAT_REG_ADDR_MAX),
                        a.RegisterOr(NFTA_NAT_REG_PROTO_MIN), a.RegisterOr(NFTA_NAT_REG_PROTO_MAX),
                        a.U32Or(NFTA_NAT_FLAGS, 0)});
}

Result Masq(const nlattr* data) {
  ExprAttributes<NFTA_MASQ_REG_PROTO_MAX> a(data);
  return a.Done(MasqExpr{a.RegisterOr(NFTA_MASQ_REG_PROTO_MIN),
                         a.RegisterOr(NFTA_MASQ_REG_PROTO_MAX), a.U32Or(NFTA_MASQ_FLAGS, 0)});
}

Result Redir(const nlattr* data) {
  ExprAttributes<NFTA_REDIR_FLAGS> a(data);
  return a.Done(RedirExpr{a.RegisterOr(NFTA_REDIR_REG_PROTO_MIN),
                          a.RegisterOr(NFTA_REDIR_REG_PROTO_MAX), a.U32Or(NFTA_REDIR_FLAGS, 0)});
}

Result Numgen(const nlattr* data) {
  ExprAttributes<NFTA_NG_OFFSET> a(data);
  return a.Done(NumgenExpr{a.Register(NFTA_NG_DREG), a.U32(NFTA_NG_MODULUS), a.U32(NFTA_NG_TYPE),
                           a.U32Or(NFTA_NG_OFFSET, 0)});
}

Result Hash(const nlattr* data) {
  ExprAttributes<NFTA_HASH_TYPE> a(data);
  HashExpr e{.sreg = a.RegisterOr(NFTA_HASH_SREG),
             .dreg = a.Register(NFTA_HASH_DREG),
             .modulus = a.U32(NFTA_HASH_MODULUS),
             .seed = a.U32Or(NFTA_HASH_SEED, 0),
             .offset = a.U32Or(NFTA_HASH_OFFSET, 0),
             .type = a.U32Or(NFTA_HASH_TYPE, NFT_HASH_JENKINS)};
  if (a.has(NFTA_HASH_LEN)) e.length = a.Length(NFTA_HASH_LEN);
  return a.Done(e);
}

Result Notrack(const nlattr* data) { return ExprAttributes<0>(data).Done(NotrackExpr{}); }

Result Objref(const nlattr* data) {
  ExprAttributes<NFTA_OBJREF_SET_ID> a(data);
  if (a.has(NFTA_OBJREF_SET_NAME)) {
    return a.Done(ObjrefExpr{a.U32Or(NFTA_OBJREF_IMM_TYPE, 0), "", a.Register(NFTA_OBJREF_SET_SREG),
                             a.String(NFTA_OBJREF_SET_NAME)});
  }
  if (!a.has(NFTA_OBJREF_IMM_NAME)) a.Fail();
  return a.Done(
      ObjrefExpr{a.U32(NFTA_OBJREF_IMM_TYPE), a.String(NFTA_OBJREF_IMM_NAME), kNoRegister, ""});
}

Result Dynset(const nlattr* data) {
  ExprAttributes<NFTA_DYNSET_EXPRESSIONS> a(data);
  const uint32_t flags = a.U32Or(NFTA_DYNSET_FLAGS, 0);
  if ((flags & ~uint32_t{NFT_DYNSET_F_INV | NFT_DYNSET_F_EXPR}) != 0) a.Fail();
  DynsetExpr e{.set = a.String(NFTA_DYNSET_SET_NAME),
               .op = a.U32(NFTA_DYNSET_OP),
               .sreg_key = a.Register(NFTA_DYNSET_SREG_KEY),
               .sreg_data = a.RegisterOr(NFTA_DYNSET_SREG_DATA),
               .inverted = (flags & NFT_DYNSET_F_INV) != 0};
  if (!a.has(NFTA_DYNSET_SET_NAME)) a.Fail();
  if (a.has(NFTA_DYNSET_TIMEOUT)) {
    e.timeout_ms = std::min(a.U64(NFTA_DYNSET_TIMEOUT), kLongestTimeoutMs);
  }
  if (a.has(NFTA_DYNSET_EXPR)) e.exprs.push_back(ParseAt(a[NFTA_DYNSET_EXPR], false));
  for (Expr& expr : ParseList(a[NFTA_DYNSET_EXPRESSIONS], false)) {
    e.exprs.push_back(std::move(expr));
  }
  return a.Done(std::make_shared<const DynsetExpr>(std::move(e)));
}

struct Named {
  std::string_view name;
  Result (*parse)(const nlattr* data);
};
constexpr Named kExpressions[] = {
    {"meta", Meta},           {"cmp", Cmp},         {"payload", Payload},
    {"immediate", Immediate}, {"counter", Counter}, {"lookup", Lookup},
    {"bitwise", Bitwise},     {"ct", Ct},           {"limit", Limit},
    {"range", Range},         {"log", Log},         {"byteorder", Byteorder},
    {"exthdr", Exthdr},       {"rt", Rt},           {"fib", Fib},
    {"quota", Quota},         {"last", Last},       {"connlimit", Connlimit},
    {"reject", Reject},       {"nat", Nat},         {"masq", Masq},
    {"redir", Redir},         {"numgen", Numgen},   {"hash", Hash},
    {"notrack", Notrack},     {"objref", Objref},
};

// Nested dynsets do not exist in the kernel; not following them bounds the depth.
Expr ParseAt(const nlattr* expression, bool outermost) {
  const Attributes<NFTA_EXPR_DATA> a(expression);
  const std::string name = a.String(NFTA_EXPR_NAME);
  if (name != "dynset") return ParseNamedExpression(name, a[NFTA_EXPR_DATA]);
  const Result parsed = outermost ? Dynset(a[NFTA_EXPR_DATA]) : std::nullopt;
  return parsed.value_or(UnsupportedExpr{name});
}

std::vector<Expr> ParseList(const nlattr* list, bool outermost) {
  std::vector<Expr> out;
  if (list == nullptr) return out;
  ForEachAttribute(DataOf(list), LengthOf(list), [&](uint16_t type, const nlattr* element) {
    if (type == NFTA_LIST_ELEM) out.push_back(ParseAt(element, outermost));
  });
  return out;
}

}  // namespace

std::optional<Data> ParseData(const nlattr* a) {
  if (a == nullptr) return std::nullopt;
  const Attributes<NFTA_DATA_VERDICT> data(a);
  if (const nlattr* value = data[NFTA_DATA_VALUE]; value != nullptr) {
    if (LengthOf(value) > kRegisterBytes) return std::nullopt;
    return Data{BytesOf(value), std::nullopt};
  }
  const Attributes<NFTA_VERDICT_CHAIN> verdict(data[NFTA_DATA_VERDICT]);
  const std::optional<uint32_t> code = Be32(verdict, NFTA_VERDICT_CODE);
  if (!code) return std::nullopt;
  return Data{{}, VerdictData{static_cast<int32_t>(*code), verdict.String(NFTA_VERDICT_CHAIN)}};
}

Expr ParseNamedExpression(const std::string& name, const nlattr* data) {
  for (const Named& known : kExpressions) {
    if (name != known.name) continue;
    return known.parse(data).value_or(UnsupportedExpr{name});
  }
  if (name == "match" || name == "target") {
    static_assert(NFTA_MATCH_NAME == static_cast<int>(NFTA_TARGET_NAME));
    return UnsupportedExpr{name + " " + Attributes<NFTA_MATCH_NAME>(data).String(NFTA_MATCH_NAME)};
  }
  return UnsupportedExpr{name};
}

Expr ParseExpression(const nlattr* expression) { return ParseAt(expression, true); }

std::vector<Expr> ParseExpressions(const nlattr* list) { return ParseList(list, true); }

}  // namespace sluice::control::nft
