#include "control/nft/messages.h"

#include <linux/netfilter/nfnetlink.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "control/nft/expressions.h"
#include "control/nft/wire.h"

namespace sluice::control::nft {
namespace {

constexpr int kDevicePrefix = 2;         // NFTA_DEVICE_PREFIX (kernel 6.16): a name with a wildcard
constexpr uint8_t kUserdataComment = 0;  // NFTNL_UDATA_RULE_COMMENT of libnftnl

std::optional<TableFamily> FamilyOf(const nlmsghdr& message) {
  const auto* header = BodyOf<nfgenmsg>(message);
  if (header == nullptr) return std::nullopt;
  switch (const auto family = static_cast<TableFamily>(header->nfgen_family)) {
    case TableFamily::kInet:
    case TableFamily::kIp:
    case TableFamily::kArp:
    case TableFamily::kNetdev:
    case TableFamily::kBridge:
    case TableFamily::kIp6:
      return family;
  }
  return std::nullopt;
}

// The comment within a rule's user data: type, length, text, again and again.
std::string Comment(const nlattr* userdata) {
  if (userdata == nullptr) return {};
  const uint8_t* at = DataOf(userdata);
  size_t left = LengthOf(userdata);
  while (left >= 2 && left - 2 >= at[1]) {
    const auto* text = reinterpret_cast<const char*>(at + 2);
    if (at[0] == kUserdataComment) return std::string(text, strnlen(text, at[1]));
    left -= 2u + at[1];
    at += 2u + at[1];
  }
  return {};
}

BaseChain ParseBaseChain(const Attributes<NFTA_CHAIN_FLAGS>& chain) {
  const Attributes<NFTA_HOOK_DEVS> hook(chain[NFTA_CHAIN_HOOK]);
  BaseChain base{.type = chain.String(NFTA_CHAIN_TYPE),
                 .hook = Be32(hook, NFTA_HOOK_HOOKNUM).value_or(0),
                 .priority = static_cast<int32_t>(Be32(hook, NFTA_HOOK_PRIORITY).value_or(0)),
                 .policy = Be32(chain, NFTA_CHAIN_POLICY).value_or(1),
                 .devices = {}};
  if (const nlattr* devices = hook[NFTA_HOOK_DEVS]; devices != nullptr) {
    ForEachAttribute(DataOf(devices), LengthOf(devices), [&](uint16_t type, const nlattr* name) {
      const auto* text = reinterpret_cast<const char*>(DataOf(name));
      std::string device(text, strnlen(text, LengthOf(name)));
      if (type == kDevicePrefix) device += '*';
      base.devices.push_back(std::move(device));
    });
  } else if (hook.has(NFTA_HOOK_DEV)) {
    base.devices.push_back(hook.String(NFTA_HOOK_DEV));
  }
  return base;
}

Nanos After(Nanos now, uint64_t ms) {
  const auto room = static_cast<uint64_t>((Nanos::Max() - now) / Millis(1));
  return ms >= room ? Nanos::Max() : now + Millis(static_cast<int64_t>(ms));
}

uint64_t TimeoutOf(uint64_t ms) { return std::min(ms, kLongestTimeoutMs); }

std::optional<SetElement> ParseElement(const nlattr* element, Nanos now) {
  const Attributes<NFTA_SET_ELEM_EXPRESSIONS> a(element);
  SetElement out;
  const uint32_t flags = Be32(a, NFTA_SET_ELEM_FLAGS).value_or(0);
  out.interval_end = (flags & NFT_SET_ELEM_INTERVAL_END) != 0;
  out.catchall = (flags & NFT_SET_ELEM_CATCHALL) != 0;
  if (std::optional<Data> key = ParseData(a[NFTA_SET_ELEM_KEY]); key && !key->verdict) {
    out.key = std::move(key->value);
  } else if (!out.catchall) {
    return std::nullopt;
  }
  if (a.has(NFTA_SET_ELEM_KEY_END)) {
    std::optional<Data> end = ParseData(a[NFTA_SET_ELEM_KEY_END]);
    if (!end || end->verdict) return std::nullopt;
    out.key_end = std::move(end->value);
  }
  if (a.has(NFTA_SET_ELEM_DATA)) {
    std::optional<Data> data = ParseData(a[NFTA_SET_ELEM_DATA]);
    if (!data) return std::nullopt;
    out.data = std::move(data->value);
    if (data->verdict) out.verdict = *std::move(data->verdict);
  }
  out.object = a.String(NFTA_SET_ELEM_OBJREF);
  out.timeout_ms = TimeoutOf(Be64(a, NFTA_SET_ELEM_TIMEOUT).value_or(0));
  if (const auto left = Be64(a, NFTA_SET_ELEM_EXPIRATION)) out.expires_at = After(now, *left);
  if (a.has(NFTA_SET_ELEM_EXPR)) out.exprs.push_back(ParseExpression(a[NFTA_SET_ELEM_EXPR]));
  if (a.has(NFTA_SET_ELEM_EXPRESSIONS)) out.exprs = ParseExpressions(a[NFTA_SET_ELEM_EXPRESSIONS]);
  return out;
}

// Fields of a concatenation, each with its length in bytes.
Bytes FieldLengths(const nlattr* concat) {
  Bytes lengths;
  if (concat == nullptr) return lengths;
  ForEachAttribute(DataOf(concat), LengthOf(concat), [&](uint16_t, const nlattr* field) {
    const Attributes<NFTA_SET_FIELD_LEN> a(field);
    lengths.push_back(static_cast<uint8_t>(Be32(a, NFTA_SET_FIELD_LEN).value_or(0)));
  });
  return lengths;
}

std::string ObjectKind(uint32_t type) {
  switch (type) {
    case NFT_OBJECT_COUNTER:
      return "counter";
    case NFT_OBJECT_QUOTA:
      return "quota";
    case NFT_OBJECT_CT_HELPER:
      return "ct helper";
    case NFT_OBJECT_LIMIT:
      return "limit";
    case NFT_OBJECT_CONNLIMIT:
      return "connlimit";
    case NFT_OBJECT_TUNNEL:
      return "tunnel";
    case NFT_OBJECT_CT_TIMEOUT:
      return "ct timeout";
    case NFT_OBJECT_SECMARK:
      return "secmark";
    case NFT_OBJECT_CT_EXPECT:
      return "ct expectation";
    case NFT_OBJECT_SYNPROXY:
      return "synproxy";
  }
  return "object of type " + std::to_string(type);
}

}  // namespace

int MessageKind(const nlmsghdr& message) {
  return NFNL_SUBSYS_ID(message.nlmsg_type) == NFNL_SUBSYS_NFTABLES
             ? static_cast<int>(NFNL_MSG_TYPE(message.nlmsg_type))
             : -1;
}

std::optional<uint32_t> ParseGeneration(const nlmsghdr& message) {
  return Be32(Attributes<NFTA_GEN_ID>(message, sizeof(nfgenmsg)), NFTA_GEN_ID);
}

std::optional<Table> ParseTable(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_TABLE_HANDLE> a(message, sizeof(nfgenmsg));
  if (!family || !a.has(NFTA_TABLE_NAME)) return std::nullopt;
  return Table{.family = *family,
               .name = a.String(NFTA_TABLE_NAME),
               .handle = Be64(a, NFTA_TABLE_HANDLE).value_or(0),
               .dormant = (Be32(a, NFTA_TABLE_FLAGS).value_or(0) & NFT_TABLE_F_DORMANT) != 0,
               .chains = {},
               .sets = {},
               .objects = {}};
}

std::optional<ChainMessage> ParseChain(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_CHAIN_FLAGS> a(message, sizeof(nfgenmsg));
  if (!family || !a.has(NFTA_CHAIN_TABLE) || !a.has(NFTA_CHAIN_NAME)) return std::nullopt;
  ChainMessage out{.family = *family, .table = a.String(NFTA_CHAIN_TABLE), .chain = {}};
  out.chain.name = a.String(NFTA_CHAIN_NAME);
  out.chain.handle = Be64(a, NFTA_CHAIN_HANDLE).value_or(0);
  out.chain.anonymous = (Be32(a, NFTA_CHAIN_FLAGS).value_or(0) & NFT_CHAIN_BINDING) != 0;
  if (a.has(NFTA_CHAIN_HOOK)) out.chain.base = ParseBaseChain(a);
  return out;
}

std::optional<RuleMessage> ParseRule(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_RULE_USERDATA> a(message, sizeof(nfgenmsg));
  const std::optional<uint64_t> handle = Be64(a, NFTA_RULE_HANDLE);
  if (!family || !handle || !a.has(NFTA_RULE_TABLE) || !a.has(NFTA_RULE_CHAIN)) {
    return std::nullopt;
  }
  return RuleMessage{
      .family = *family,
      .table = a.String(NFTA_RULE_TABLE),
      .chain = a.String(NFTA_RULE_CHAIN),
      .rule = {*handle, ParseExpressions(a[NFTA_RULE_EXPRESSIONS]), Comment(a[NFTA_RULE_USERDATA])},
      .after = Be64(a, NFTA_RULE_POSITION),
      .append = (message.nlmsg_flags & NLM_F_APPEND) != 0};
}

std::optional<SetMessage> ParseSet(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_SET_EXPRESSIONS> a(message, sizeof(nfgenmsg));
  if (!family || !a.has(NFTA_SET_TABLE) || !a.has(NFTA_SET_NAME)) return std::nullopt;
  const Attributes<NFTA_SET_DESC_CONCAT> desc(a[NFTA_SET_DESC]);
  SetMessage out{.family = *family, .table = a.String(NFTA_SET_TABLE), .set = {}};
  Set& set = out.set;
  set.name = a.String(NFTA_SET_NAME);
  set.handle = Be64(a, NFTA_SET_HANDLE).value_or(0);
  set.flags = Be32(a, NFTA_SET_FLAGS).value_or(0);
  set.key_type = Be32(a, NFTA_SET_KEY_TYPE).value_or(0);
  set.key_length = Be32(a, NFTA_SET_KEY_LEN).value_or(0);
  // The word that a set is gone has no more than its name.
  const bool sized = set.key_length > 0 && set.key_length <= NFT_DATA_VALUE_MAXLEN;
  if (MessageKind(message) == NFT_MSG_NEWSET && !sized) return std::nullopt;
  set.data_type = Be32(a, NFTA_SET_DATA_TYPE).value_or(0);
  set.data_length = Be32(a, NFTA_SET_DATA_LEN).value_or(0);
  set.object_type = Be32(a, NFTA_SET_OBJ_TYPE).value_or(0);
  set.size = Be32(desc, NFTA_SET_DESC_SIZE).value_or(0);
  set.timeout_ms = TimeoutOf(Be64(a, NFTA_SET_TIMEOUT).value_or(0));
  set.field_lengths = FieldLengths(desc[NFTA_SET_DESC_CONCAT]);
  if (a.has(NFTA_SET_EXPR)) set.exprs.push_back(ParseExpression(a[NFTA_SET_EXPR]));
  if (a.has(NFTA_SET_EXPRESSIONS)) set.exprs = ParseExpressions(a[NFTA_SET_EXPRESSIONS]);
  return out;
}

std::optional<ElementsMessage> ParseElementsOf(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_SET_ELEM_LIST_ELEMENTS> a(message, sizeof(nfgenmsg));
  if (!family || !a.has(NFTA_SET_ELEM_LIST_TABLE) || !a.has(NFTA_SET_ELEM_LIST_SET)) {
    return std::nullopt;
  }
  return ElementsMessage{*family, a.String(NFTA_SET_ELEM_LIST_TABLE),
                         a.String(NFTA_SET_ELEM_LIST_SET)};
}

void ForEachElement(const nlmsghdr& message, Nanos now,
                    absl::FunctionRef<void(SetElement&& element)> visit) {
  const Attributes<NFTA_SET_ELEM_LIST_ELEMENTS> a(message, sizeof(nfgenmsg));
  const nlattr* list = a[NFTA_SET_ELEM_LIST_ELEMENTS];
  if (list == nullptr) return;
  ForEachAttribute(DataOf(list), LengthOf(list), [&](uint16_t, const nlattr* item) {
    std::optional<SetElement> element = ParseElement(item, now);
    if (element) visit(*std::move(element));
  });
}

std::optional<ObjectMessage> ParseObject(const nlmsghdr& message) {
  const std::optional<TableFamily> family = FamilyOf(message);
  const Attributes<NFTA_OBJ_HANDLE> a(message, sizeof(nfgenmsg));
  if (!family || !a.has(NFTA_OBJ_TABLE) || !a.has(NFTA_OBJ_NAME)) return std::nullopt;
  ObjectMessage out{.family = *family, .table = a.String(NFTA_OBJ_TABLE), .object = {}};
  out.object.type = Be32(a, NFTA_OBJ_TYPE).value_or(0);
  out.object.name = a.String(NFTA_OBJ_NAME);
  out.object.handle = Be64(a, NFTA_OBJ_HANDLE).value_or(0);
  out.object.value = ParseNamedExpression(ObjectKind(out.object.type), a[NFTA_OBJ_DATA]);
  return out;
}

}  // namespace sluice::control::nft
