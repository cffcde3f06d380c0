#include "control/early/early_rule.h"

#include <linux/netfilter/nf_tables.h>

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/byte_order.h"
#include "control/early/early_conditions.h"
#include "control/early/early_fields.h"

namespace sluice::control {
namespace {

using nft::Bytes;
using tables::EarlyCounter;
using tables::EarlyProgram;
using tables::EarlyRule;
using tables::EarlyVerdict;

constexpr uint8_t kIp = tables::kEarlyIpv4 | tables::kEarlyIpv6;

using Step = EarlyConditions::Step;

class Translator : private EarlyConditions {
 public:
  Translator(const EarlyContext& context, uint8_t families, EarlyProgram& program)
      : EarlyConditions(families, program), context_(context) {}

  EarlyTranslation Run(const nft::Rule& rule);

 private:
  Step Do(const nft::Expr& expr);
  Step Meta(const nft::MetaExpr& e);
  Step Payload(const nft::PayloadExpr& e);
  Step Bitwise(const nft::BitwiseExpr& e);
  Step Compare(const nft::CmpExpr& e);
  Step Range(const nft::RangeExpr& e);
  Step Lookup(const nft::LookupExpr& e);
  Step Limit(const nft::LimitExpr& e, bool per_source);
  Step Meter(const nft::DynsetExpr& e);
  Step Count();
  Step Verdict(const nft::VerdictData& verdict);

  std::span<const EarlyByte> Register(uint8_t number, size_t bytes) const;
  bool Conditions() const { return rule_.counter == EarlyCounter::kNone && !rule_.limit; }
  const EarlyContext& context_;
  EarlyRegisters registers_{};
  bool decided_ = false;
};

bool IsConstant(std::span<const EarlyByte> bytes) {
  return !bytes.empty() && std::all_of(bytes.begin(), bytes.end(), [](const EarlyByte& b) {
    return b.kind == EarlyByte::Kind::kConstant;
  });
}

Bytes ValueOf(std::span<const EarlyByte> bytes) {
  Bytes value;
  for (const EarlyByte& b : bytes) value.push_back((b.offset & b.mask) ^ b.flip);
  return value;
}

bool Holds(uint8_t op, int order) {
  switch (op) {
    case NFT_CMP_EQ:
      return order == 0;
    case NFT_CMP_NEQ:
      return order != 0;
    case NFT_CMP_LT:
      return order < 0;
    case NFT_CMP_LTE:
      return order <= 0;
    case NFT_CMP_GT:
      return order > 0;
    default:
      return order >= 0;
  }
}

std::span<const EarlyByte> Translator::Register(uint8_t number, size_t bytes) const {
  const size_t from = size_t{number} * 4;
  if (from + bytes > registers_.size()) return {};
  return std::span<const EarlyByte>(registers_).subspan(from, bytes);
}

Step Translator::Meta(const nft::MetaExpr& e) {
  if (e.sreg != nft::kNoRegister) return Stop("changes the packet's metadata");
  const size_t at = size_t{e.dreg} * 4;
  const auto put = [&](std::span<const EarlyByte> bytes) {
    if (at + bytes.size() > registers_.size()) return Stop("a register out of range");
    std::copy(bytes.begin(), bytes.end(), registers_.begin() + static_cast<long>(at));
    return Step::kGo;
  };
  const auto constant = [&](const void* data, size_t size) {
    std::vector<EarlyByte> bytes;
    for (size_t i = 0; i < size; ++i) {
      bytes.push_back({EarlyByte::Kind::kConstant, static_cast<const uint8_t*>(data)[i]});
    }
    return put(bytes);
  };
  switch (e.key) {
    case NFT_META_IIF:
      return constant(&context_.interface->index, 4);
    case NFT_META_IIFNAME: {
      char name[16] = {};
      std::strncpy(name, context_.interface->name.c_str(), sizeof name - 1);
      return constant(name, sizeof name);
    }
    case NFT_META_IIFTYPE: {
      const uint16_t ethernet = 1;  // ARPHRD_ETHER: nothing else is served
      return constant(&ethernet, 2);
    }
    case NFT_META_NFPROTO: {
      uint8_t family = 0;
      if (context_.table->family == nft::TableFamily::kNetdev) family = 5;
      if (families_ == tables::kEarlyIpv4) family = 2;
      if (families_ == tables::kEarlyIpv6) family = 10;
      if (context_.table->family == nft::TableFamily::kNetdev) return constant(&family, 1);
      if (family != 0) return constant(&family, 1);
      // The EtherType says the same, and Small knows how to tell them apart.
      const EarlyByte byte{EarlyByte::Kind::kEtherType, 2};
      return put({&byte, 1});
    }
    case NFT_META_PROTOCOL: {
      const EarlyByte bytes[] = {{EarlyByte::Kind::kEtherType, 0},
                                 {EarlyByte::Kind::kEtherType, 1}};
      return put(bytes);
    }
    case NFT_META_L4PROTO: {
      if (!Conditions()) return Stop("has conditions after its counter or limit");
      families_ &= kIp;
      const EarlyByte byte{EarlyByte::Kind::kProtocol, 0};
      return families_ == 0 ? Step::kNever : put({&byte, 1});
    }
    default:
      return Stop("looks at metadata that only user space has");
  }
}

Step Translator::Payload(const nft::PayloadExpr& e) {
  if (e.sreg != nft::kNoRegister) return Stop("changes the packet");
  const size_t at = size_t{e.dreg} * 4;
  if (at + e.length > registers_.size() || e.offset + e.length > 255) {
    return Stop("looks at bytes that XDP does not");
  }
  EarlyByte::Kind kind = EarlyByte::Kind::kUnknown;
  uint32_t offset = e.offset;
  if (e.base == NFT_PAYLOAD_LL_HEADER && e.offset == 12 && e.length == 2) {
    kind = EarlyByte::Kind::kEtherType;
    offset = 0;
  } else if (e.base == NFT_PAYLOAD_NETWORK_HEADER && families_ == tables::kEarlyIpv4) {
    kind = EarlyByte::Kind::kIp4;
  } else if (e.base == NFT_PAYLOAD_NETWORK_HEADER && families_ == tables::kEarlyIpv6) {
    kind = EarlyByte::Kind::kIp6;
  } else if (e.base == NFT_PAYLOAD_TRANSPORT_HEADER && Conditions()) {
    families_ &= kIp;
    if (families_ == 0) return Step::kNever;
    kind = EarlyByte::Kind::kL4;
  } else {
    return Stop("looks at bytes that XDP does not");
  }
  for (size_t i = 0; i < e.length; ++i) {
    registers_[at + i] = {kind, static_cast<uint8_t>(offset + i)};
  }
  return Step::kGo;
}

Step Translator::Bitwise(const nft::BitwiseExpr& e) {
  const std::span<const EarlyByte> from = Register(e.sreg, e.length);
  const size_t at = size_t{e.dreg} * 4;
  if (e.op != NFT_BITWISE_BOOL || from.size() != e.length || at + e.length > registers_.size() ||
      e.mask.size() < e.length || e.xor_value.size() < e.length) {
    return Stop("shifts bits");
  }
  std::vector<EarlyByte> bytes(from.begin(), from.end());
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i].flip = (bytes[i].flip & e.mask[i]) ^ e.xor_value[i];
    bytes[i].mask &= e.mask[i];
  }
  std::copy(bytes.begin(), bytes.end(), registers_.begin() + static_cast<long>(at));
  return Step::kGo;
}

// A single byte that stands for the EtherType (NFPROTO in inet chains): see Meta.
bool IsFamily(std::span<const EarlyByte> bytes) {
  return bytes.size() == 1 && bytes[0].kind == EarlyByte::Kind::kEtherType && bytes[0].offset == 2;
}

Step Translator::Compare(const nft::CmpExpr& e) {
  const std::span<const EarlyByte> bytes = Register(e.sreg, e.data.size());
  if (bytes.size() != e.data.size() || bytes.empty()) return Stop("a register out of range");
  const auto matches = [&](std::span<const uint8_t> value) {
    return Holds(e.op, std::memcmp(value.data(), e.data.data(), e.data.size()));
  };
  if (IsConstant(bytes)) return matches(ValueOf(bytes)) ? Step::kGo : Step::kNever;
  if (IsFamily(bytes)) {
    for (const auto& [family, number] :
         {std::pair<uint8_t, uint8_t>{tables::kEarlyIpv4, 2}, {tables::kEarlyIpv6, 10}}) {
      if (!matches({&number, 1})) families_ &= static_cast<uint8_t>(~family);
    }
    return families_ == 0 ? Step::kNever : Step::kGo;
  }
  if (e.op == NFT_CMP_EQ) return EqualFields(bytes, e.data);
  const std::optional<EarlyPiece> piece = FirstField(bytes);
  if (!piece || piece->known != bytes.size()) return Stop("looks at bytes that XDP does not");
  if (!IsAddress(piece->field)) return Small(piece->field, bytes, matches);
  if (e.op == NFT_CMP_NEQ) {
    // The same range as for equality, inverted; masks as there.
    EarlyRule before = rule_;
    const Step step = EqualAddress(*piece, bytes, e.data.data());
    if (step == Step::kNever) return Step::kGo;
    if (step != Step::kGo) return step;
    for (auto* terms : {&rule_.addresses4, &rule_.addresses6}) {
      const auto& old = terms == &rule_.addresses4 ? before.addresses4 : before.addresses6;
      for (size_t d = 0; d < 2; ++d) {
        if ((*terms)[d].size() > old[d].size()) (*terms)[d].back().inverted = true;
      }
    }
    return Step::kGo;
  }
  const Bytes lowest(e.data.size(), 0);
  // `>` is "not up to", `<` is "not from".
  if (e.op == NFT_CMP_LTE || e.op == NFT_CMP_GT) {
    return OrderedAddress(*piece, bytes, lowest, e.data, e.op == NFT_CMP_GT);
  }
  return OrderedAddress(*piece, bytes, e.data, Bytes(e.data.size(), 0xff), e.op == NFT_CMP_LT);
}

Step Translator::Range(const nft::RangeExpr& e) {
  const std::span<const EarlyByte> bytes = Register(e.sreg, e.from.size());
  if (bytes.size() != e.from.size() || e.to.size() != e.from.size() || bytes.empty()) {
    return Stop("a register out of range");
  }
  const bool inverted = e.op == NFT_RANGE_NEQ;
  const auto matches = [&](std::span<const uint8_t> value) {
    const bool inside = std::memcmp(value.data(), e.from.data(), e.from.size()) >= 0 &&
                        std::memcmp(value.data(), e.to.data(), e.to.size()) <= 0;
    return inside != inverted;
  };
  if (IsConstant(bytes)) return matches(ValueOf(bytes)) ? Step::kGo : Step::kNever;
  const std::optional<EarlyPiece> piece = FirstField(bytes);
  if (!piece || piece->known != bytes.size()) return Stop("looks at bytes that XDP does not");
  if (!IsAddress(piece->field)) return Small(piece->field, bytes, matches);
  return OrderedAddress(*piece, bytes, e.from, e.to, inverted);
}

Step Translator::Lookup(const nft::LookupExpr& e) {
  const auto found = context_.table->sets.find(e.set);
  if (found == context_.table->sets.end()) return Stop("a set that is not known");
  const nft::Set& set = found->second;
  if (e.dreg != nft::kNoRegister) return Stop("looks up a map");
  if ((set.flags & (NFT_SET_MAP | NFT_SET_OBJECT | NFT_SET_CONCAT)) != 0) {
    return Stop("looks up a map or a concatenation");
  }
  if (context_.is_dynamic(set)) return Stop("looks up a set that packets change");
  const std::span<const EarlyByte> bytes = Register(e.sreg, set.key_length);
  if (bytes.size() != set.key_length || bytes.empty()) return Stop("a register out of range");
  const bool intervals = (set.flags & NFT_SET_INTERVAL) != 0;
  if (IsConstant(bytes)) {
    if (intervals) return Stop("looks up the interface in a set of patterns");
    const Bytes value = ValueOf(bytes);
    const bool inside =
        std::any_of(set.elements.begin(), set.elements.end(), [&](const nft::SetElement& element) {
          return element.key == value && element.expires_at > context_.now;
        });
    if (!set.elements.empty() && set.elements.rbegin()->catchall)
      return Stop("a catch-all element");
    return inside != e.inverted ? Step::kGo : Step::kNever;
  }
  const std::optional<EarlyPiece> piece = FirstField(bytes);
  if (!piece || piece->known != piece->size || piece->size != bytes.size()) {
    return Stop("looks at bytes that XDP does not");
  }
  if (IsAddress(piece->field)) {
    if (!Unmasked(bytes)) return Stop("looks up an address under a mask");
    const char* why = "a set that XDP cannot have";
    if (piece->size == 4) {
      tables::EarlySet4 ranges = context_.sets->Get4(*context_.table, set, context_.now);
      return ranges ? AddTerm4(piece->field, std::move(ranges), e.inverted) : Stop(why);
    }
    tables::EarlySet6 ranges = context_.sets->Get6(*context_.table, set, context_.now);
    return ranges ? AddTerm6(piece->field, std::move(ranges), e.inverted) : Stop(why);
  }
  const std::optional<EarlySmallSet> values = context_.sets->Small(set, context_.now);
  if (!values) return Stop("a set that XDP cannot have");
  return Small(piece->field, bytes, [&](std::span<const uint8_t> value) {
    const uint32_t v = value.size() == 1 ? value[0] : LoadBe16(value.data());
    return (*values)[v] != e.inverted;
  });
}

Step Translator::Limit(const nft::LimitExpr& e, bool per_source) {
  if (e.bytes) return Stop("limits bytes");
  if (rule_.limit) return Stop("two limits");
  if (e.rate == 0) return Stop("a limit of nothing");
  const uint64_t unit_ns = e.unit_seconds * 1'000'000'000;
  const uint32_t burst = e.burst == 0 ? 5 : e.burst;  // NFT_LIMIT_PKT_BURST_DEFAULT
  const uint64_t cost = unit_ns / e.rate;
  // Deeper ones would not fit the bucket's one word, with room for the machine's age.
  if (cost == 0 || burst > (uint64_t{1} << 61) / cost) return Stop("a limit beyond all measure");
  rule_.limit = tables::EarlyLimit{
      .cost_ns = cost, .depth_ns = cost * burst, .over = e.inverted, .per_source = per_source};
  return Step::kGo;
}

Step Translator::Meter(const nft::DynsetExpr& e) {
  const auto found = context_.table->sets.find(e.set);
  if (found == context_.table->sets.end()) return Stop("a set that is not known");
  const nft::Set& set = found->second;
  const bool add = e.op == NFT_DYNSET_OP_ADD;
  if ((!add && e.op != NFT_DYNSET_OP_UPDATE) || e.inverted || e.exprs.size() != 1 ||
      e.sreg_data != nft::kNoRegister || !std::holds_alternative<nft::LimitExpr>(e.exprs[0])) {
    return Stop("changes a set, other than as a meter");
  }
  if (!context_.is_private_meter(set)) return Stop("changes a set that other rules look at");
  const std::span<const EarlyByte> key = Register(e.sreg_key, set.key_length);
  const std::optional<EarlyPiece> piece = FirstField(key);
  if (!piece || piece->known != key.size() || piece->size != key.size() || !Unmasked(key) ||
      (piece->field != EarlyField::kSource4 && piece->field != EarlyField::kSource6)) {
    return Stop("a meter by something else than the source address");
  }
  const Step step = Limit(std::get<nft::LimitExpr>(e.exprs[0]), true);
  if (step != Step::kGo) return step;
  // An element that ends is full again when it comes back. A bucket that was not used for as long
  // is full as well, so nothing differs as long as elements live from their last use.
  const uint64_t timeout_ms = e.timeout_ms.value_or(set.timeout_ms);
  if (timeout_ms == 0) return Step::kGo;
  if (add) return Stop("a meter whose elements end while in use");
  if (timeout_ms * 1'000'000 < rule_.limit->depth_ns) return Stop("a meter that forgets early");
  return Step::kGo;
}

Step Translator::Count() {
  if (rule_.counter != EarlyCounter::kNone) return Stop("two counters");
  rule_.counter = rule_.limit ? EarlyCounter::kLast : EarlyCounter::kBeforeLimit;
  return Step::kGo;
}

Step Translator::Verdict(const nft::VerdictData& verdict) {
  decided_ = true;
  const bool chain_drops = context_.policy == 0;
  switch (verdict.code) {
    case 0:  // NF_DROP
      rule_.verdict = EarlyVerdict::kDrop;
      return Step::kGo;
    case 1:  // NF_ACCEPT
      rule_.verdict = EarlyVerdict::kEndOfChain;
      return Step::kGo;
    case NFT_RETURN:
      rule_.verdict = chain_drops ? EarlyVerdict::kDrop : EarlyVerdict::kEndOfChain;
      return Step::kGo;
    case NFT_CONTINUE:
      return Step::kGo;
    default:
      return Stop("jumps, or queues");
  }
}

Step Translator::Do(const nft::Expr& expr) {
  if (decided_) return Stop("goes on after its verdict");
  if (const auto* e = std::get_if<nft::MetaExpr>(&expr)) return Meta(*e);
  if (const auto* e = std::get_if<nft::PayloadExpr>(&expr)) return Payload(*e);
  if (const auto* e = std::get_if<nft::CounterExpr>(&expr)) return (void)e, Count();
  if (const auto* e = std::get_if<nft::LimitExpr>(&expr)) return Limit(*e, false);
  if (const auto* e = std::get_if<std::shared_ptr<const nft::DynsetExpr>>(&expr)) return Meter(**e);
  if (const auto* e = std::get_if<nft::ImmediateExpr>(&expr)) {
    if (e->dreg == nft::kVerdictRegister) return Verdict(e->verdict);
  }
  if (const auto* e = std::get_if<nft::CmpExpr>(&expr)) {
    // After a counter only what is known already, as nft repeats what a field depends on.
    const EarlyRule before = rule_;
    const uint8_t families = families_;
    const Step step = Compare(*e);
    if (Conditions() || (step == Step::kGo && rule_ == before && families_ == families)) {
      return step;
    }
    families_ = families;
  }
  if (!Conditions()) return Stop("has conditions after its counter or limit");
  if (const auto* e = std::get_if<nft::BitwiseExpr>(&expr)) return Bitwise(*e);
  if (const auto* e = std::get_if<nft::RangeExpr>(&expr)) return Range(*e);
  if (const auto* e = std::get_if<nft::LookupExpr>(&expr)) return Lookup(*e);
  return Stop("does something that XDP does not");
}

EarlyTranslation Translator::Run(const nft::Rule& rule) {
  EarlyTranslation out;
  for (const nft::Expr& expr : rule.exprs) {
    const Step step = Do(expr);
    if (step == Step::kGo) continue;
    // Whatever follows is never reached, and nothing before has an effect of its own.
    const bool never = step == Step::kNever && Conditions();
    out.outcome = never ? EarlyOutcome::kNeverMatches : EarlyOutcome::kNotEarly;
    out.families = families_;
    out.remark = std::move(remark_);
    return out;
  }
  out.families = families_;
  rule_.families = families_;
  const bool effect = rule_.counter != EarlyCounter::kNone || rule_.limit ||
                      rule_.verdict != EarlyVerdict::kContinue;
  // What counts counts in either place when there is no limit.
  if (!rule_.limit && rule_.counter != EarlyCounter::kNone) rule_.counter = EarlyCounter::kLast;
  out.outcome = effect ? EarlyOutcome::kRule : EarlyOutcome::kNoEffect;
  out.rule = std::move(rule_);
  return out;
}

}  // namespace

EarlyTranslation TranslateRule(const nft::Rule& rule, const EarlyContext& context, uint8_t families,
                               EarlyProgram& program) {
  return Translator(context, families, program).Run(rule);
}

}  // namespace sluice::control
